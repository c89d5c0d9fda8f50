// SPDX-License-Identifier: Apache-2.0

// Package saved is the format in which a machine is written to two files, and read
// again.
//
// The file of the state, all numbers little-endian:
//
//	 0  8 bytes  "vmctlsav"
//	 8  u32      version of the format
//	12  u32      0
//	16  u64      length of the body in bytes
//	24 32 bytes  SHA-256 of the body
//	56           the body
//
// The body begins with what ties it to the memory's file: an identity (16 random
// bytes), the size of RAM (u64), and the time at which the memory's file was last
// changed (i64 seconds, u32 nanoseconds). Then come sections, each a name and its
// bytes, both with a u32 length in front. Their order is fixed; package machine
// writes them.
//
// The file of the memory is RAM from its first byte to its last, without the gap
// below 4 GiB. Pages of zeros are holes. One page more ends it: "vmctlmem", and the
// identity.
//
// The bytes of the memory have no checksum: to look at them all would take the time
// that restoring must not take. A file that was cut, that belongs to another save, or
// that was changed after it was written is found by its size, its identity and its
// time. So a copy must keep the time (cp --preserve, rsync --times).
package saved

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"vmctl/monitor/mem"
	"vmctl/monitor/wire"
)

// Version is the format's. A reader takes its own and no other: processors are saved
// as the host's KVM has them, and a save is not for keeping.
const Version = 3

const (
	stateMagic  = "vmctlsav"
	memoryMagic = "vmctlmem"
	headerSize  = 56
	pageSize    = 4096

	// maxBody is far more than 64 processors need.
	maxBody    = 16 << 20
	maxName    = 64
	identitySz = 16
)

// Why files are no save that can be restored.
var (
	ErrNotSave   = errors.New("not the files of a saved machine")
	ErrTruncated = errors.New("saved machine is cut short")
	ErrAltered   = errors.New("saved machine was changed after it was written")
	ErrVersion   = errors.New("saved machine is of another version of the format")
	ErrForeign   = errors.New("saved machine is not this one: it has other devices, memory or processors")
	// ErrNotEmpty is a file to save to that has something in it.
	ErrNotEmpty = errors.New("file to save to is not empty")
)

var order = binary.LittleEndian

// Files are the two files of a save, both regular. To restore, the memory's stays open
// as long as the machine: what the guest did not touch yet is there alone.
type Files struct{ State, Memory *os.File }

// Close closes both.
func (f Files) Close() {
	f.State.Close() // what was written is on the medium, or the save failed
	f.Memory.Close()
}

// Writer appends sections to a body.
type Writer struct{ body *wire.Writer }

// Section appends one.
func (w *Writer) Section(name string, fill func(*wire.Writer)) {
	section := wire.NewWriter(order, nil)
	fill(section)
	w.body.String(name)
	w.body.Blob(section.Bytes())
}

// Write fills both files, which are empty. goOn is asked now and then, and last before
// the state is written, and ends it with an error. Nothing may change memory meanwhile.
func (f Files) Write(m *mem.Memory, sections func(*Writer) error, goOn func() error) error {
	for _, file := range []*os.File{f.State, f.Memory} {
		if st, err := stat(file); err != nil {
			return err
		} else if st.Size != 0 {
			return ErrNotEmpty
		}
	}
	var id [identitySz]byte
	if _, err := unix.Getrandom(id[:], 0); err != nil {
		return os.NewSyscallError("getrandom", err)
	}
	if err := writeMemory(f.Memory, m, id, goOn); err != nil {
		return err
	}
	st, err := stat(f.Memory)
	if err != nil {
		return err
	}
	body := wire.NewWriter(order, nil)
	body.Fixed(id[:])
	body.U64(m.Size())
	body.U64(uint64(st.Mtim.Sec))
	body.U32(uint32(st.Mtim.Nsec))
	if err := sections(&Writer{body}); err != nil {
		return err
	}
	if err := goOn(); err != nil { // all of that was of one moment
		return err
	}
	return writeState(f.State, body.Bytes())
}

func writeState(f *os.File, body []byte) error {
	sum := sha256.Sum256(body)
	head := wire.NewWriter(order, []byte(stateMagic))
	head.U32(Version)
	head.U32(0)
	head.U64(uint64(len(body)))
	head.Fixed(sum[:])
	if _, err := f.WriteAt(append(head.Bytes(), body...), 0); err != nil {
		return err
	}
	return os.NewSyscallError("fdatasync", unix.Fdatasync(int(f.Fd())))
}

// What is written at once, and how much there is between two questions to goOn.
const (
	piece = 1 << 20
	turn  = 64 << 20
)

func writeMemory(f *os.File, m *mem.Memory, id [identitySz]byte, goOn func() error) error {
	var at int64
	for _, r := range m.Regions() {
		ram, err := m.At(r.Base, r.Len())
		if err != nil {
			return err
		}
		for ; len(ram) > 0; ram = ram[min(piece, len(ram)):] {
			if at%turn == 0 {
				if err := goOn(); err != nil {
					return err
				}
			}
			b := ram[:min(piece, len(ram))]
			if err := writePages(f, b, at); err != nil {
				return err
			}
			at += int64(len(b))
		}
	}
	last := make([]byte, pageSize)
	copy(last, memoryMagic)
	copy(last[len(memoryMagic):], id[:])
	if _, err := f.WriteAt(last, at); err != nil {
		return err
	}
	return os.NewSyscallError("fdatasync", unix.Fdatasync(int(f.Fd())))
}

var zeros [pageSize]byte

// writePages writes what is not zero, neighbours at once.
func writePages(f *os.File, b []byte, at int64) error {
	for from := 0; from < len(b); {
		to := from
		for to < len(b) && !bytes.Equal(b[to:to+pageSize], zeros[:]) {
			to += pageSize
		}
		if to == from {
			from += pageSize
			continue
		}
		if _, err := f.WriteAt(b[from:to], at+int64(from)); err != nil {
			return err
		}
		from = to
	}
	return nil
}

// Reader takes sections off a body.
type Reader struct {
	body *wire.Reader
	err  error
}

// Read checks both files and returns the state's sections. ram is the size of RAM that
// the machine has. errors.Is: the errors of this package.
func (f Files) Read(ram uint64) (*Reader, error) {
	body, err := readState(f.State)
	if err != nil {
		return nil, err
	}
	r := wire.NewReader(order, body)
	var id [identitySz]byte
	r.Fixed(id[:])
	size, sec, nsec := r.U64(), int64(r.U64()), r.U32()
	if r.Err() != nil {
		return nil, ErrAltered
	}
	if size != ram {
		return nil, ErrForeign
	}
	st, err := stat(f.Memory)
	if err != nil {
		return nil, err
	}
	if st.Size < int64(ram)+pageSize {
		return nil, ErrTruncated
	}
	last := make([]byte, len(memoryMagic)+identitySz)
	if _, err := f.Memory.ReadAt(last, int64(ram)); err != nil {
		return nil, err
	}
	if string(last[:len(memoryMagic)]) != memoryMagic {
		return nil, ErrNotSave
	}
	if [identitySz]byte(last[len(memoryMagic):]) != id {
		return nil, ErrForeign
	}
	if st.Size != int64(ram)+pageSize || st.Mtim.Sec != sec || st.Mtim.Nsec != int64(nsec) {
		return nil, ErrAltered
	}
	return &Reader{body: r}, nil
}

func readState(f *os.File) ([]byte, error) {
	st, err := stat(f)
	if err != nil {
		return nil, err
	}
	file := make([]byte, min(st.Size, headerSize+maxBody))
	if _, err := f.ReadAt(file, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	r := wire.NewReader(order, file)
	var magic [len(stateMagic)]byte
	r.Fixed(magic[:])
	version, reserved, length := r.U32(), r.U32(), r.U64()
	var sum [sha256.Size]byte
	r.Fixed(sum[:])
	switch {
	case !bytes.HasPrefix([]byte(stateMagic), file[:min(len(file), len(stateMagic))]):
		return nil, ErrNotSave
	case r.Err() != nil:
		return nil, ErrTruncated
	case version != Version:
		return nil, ErrVersion
	case length > maxBody || reserved != 0:
		return nil, ErrAltered
	case st.Size < headerSize+int64(length):
		return nil, ErrTruncated
	}
	body := r.Rest()
	if uint64(len(body)) != length || sha256.Sum256(body) != sum {
		return nil, ErrAltered
	}
	return body, nil
}

// Section reads the next one, which has this name and which read takes to its last
// byte. The first error ends it all: see Close.
func (r *Reader) Section(name string, read func(*wire.Reader)) {
	got, blob := r.body.String(maxName), r.body.Blob(maxBody)
	if r.err != nil {
		return
	}
	if r.body.Err() != nil || got != name {
		r.err = errors.Join(ErrForeign, errors.New("section "+name))
		return
	}
	section := wire.NewReader(order, blob)
	read(section)
	if err := section.Close(); err != nil {
		r.err = errors.Join(ErrForeign, errors.New("section "+name), err)
	}
}

// Fail makes err the reader's error, unless it has one already.
func (r *Reader) Fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// Err returns the error so far.
func (r *Reader) Err() error { return r.err }

// Close returns the first error. A section that nobody read is one.
func (r *Reader) Close() error {
	if r.err == nil && r.body.Close() != nil {
		r.err = ErrForeign
	}
	return r.err
}

// Same takes bytes that must be these: what the machine is, and does not become by
// restoring.
func Same(r *wire.Reader, want []byte) {
	if !slices.Equal(r.Blob(maxBody), want) {
		r.Fail(ErrForeign)
	}
}

func stat(f *os.File) (st unix.Stat_t, err error) {
	err = unix.Fstat(int(f.Fd()), &st)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = ErrNotSave
	}
	return st, err
}
