// SPDX-License-Identifier: Apache-2.0

// Package spec says what machine a monitor is to make. vmctld's launcher writes
// a Spec, vmx reads it; descriptors (the VM, kernel and initrd) travel beside it.
package spec

import (
	"encoding/binary"
	"errors"
	"slices"
	"strings"

	"vmctl/monitor/rate"
	"vmctl/monitor/wire"
)

// Limits of a Spec.
const (
	MaxVCPUs   = 64
	MinMemory  = 16 << 20 // bytes
	MaxMemory  = 1 << 40  // bytes
	MemoryStep = 4096     // bytes: memory is a multiple of it
	MaxCmdline = 2047     // bytes, without a final NUL
	MaxDisks   = 17       // 16 of the VM, and that of its seed
	MaxDiskID  = 20       // bytes
	MaxBacking = 15       // files behind a disk's own
	MaxNICs    = 8
	MinCID     = 3         // those below are the host's, and others of a meaning of their own
	MaxCID     = 1<<32 - 2 // likewise
)

// Errors of Validate and Decode, one for each way in which a Spec is wrong.
var (
	ErrVCPUs     = errors.New("vcpus must be 1 to 64")
	ErrMemory    = errors.New("memory must be 16 MiB to 1 TiB, in steps of 4 KiB")
	ErrCmdline   = errors.New("command line is longer than 2047 bytes")
	ErrBoot      = errors.New("firmware takes no command line")
	ErrNUL       = errors.New("command line contains a NUL byte")
	ErrPolicy    = errors.New("policy on reset is not known")
	ErrConsole   = errors.New("console is not known")
	ErrDisks     = errors.New("more than 17 disks")
	ErrDiskID    = errors.New("identity of a disk must be at most 20 printable ASCII bytes")
	ErrFormat    = errors.New("format of a disk is not known")
	ErrQCOW2     = errors.New("disk of qcow2 must be read-only")
	ErrBacking   = errors.New("a raw disk has no backing files, an overlay has some, nothing has more than 15, overlays come first, and only the last may be raw")
	ErrOwn       = errors.New("files of a disk's own are behind its overlay, first, and are no qcow2")
	ErrNICs      = errors.New("more than 8 network cards")
	ErrMAC       = errors.New("address of a network card must be one station's, and not zero")
	ErrDiskLimit = errors.New("limit of a disk must be 4096 to 2^40 bytes, or 1 to 10^9 requests, in a second, with a burst of a minute at most")
	ErrNICLimit  = errors.New("limit of a network card must be 4096 to 2^40 bytes, or 1 to 10^9 packets, in a second, with a burst of a minute at most")
	ErrCID       = errors.New("CID of the guest must be 3 to 4294967294, or 0 for no sockets")
	ErrBackend   = errors.New("disks and network cards must have backends other than 0, each its own")
	ErrVersion   = errors.New("version of the spec is not known")
)

// Policy says what a guest's reset leads to.
type Policy uint8

// What happens when the guest resets.
const (
	Restart Policy = 1 // the machine starts again, in the same vmx and VM
	Stop    Policy = 2 // the VM ends
)

// Console says which device of the guest is the VM's console.
type Console uint8

// Consoles. What a guest prints to the serial port is shown with either, as
// firmware and kernels begin there.
const (
	Serial Console = 0 // ttyS0
	Virtio Console = 1 // hvc0, once the guest has its driver; ttyS0 before
)

// Spec is one virtual machine.
type Spec struct {
	VCPUs       uint32
	MemoryBytes uint64
	Firmware    bool   // the first file is a PC's firmware and no kernel
	Cmdline     string // of the kernel, MaxCmdline bytes at most
	OnReset     Policy
	Console     Console
	Disks       []Disk // by number, in the order of their slots; see Disk.None
	NICs        []NIC  // likewise, behind the disks
	CID         uint32 // address of its sockets, unique on the host; 0: it has none
}

// Format says what the bytes of a file mean. It is never guessed: a guest could write
// to a raw disk what looks like another format.
type Format uint8

// Formats of files.
const (
	Raw   Format = 0 // the disk itself
	QCOW2 Format = 1 // read only
	// Overlay is what was written above a disk that is read: that of the files behind
	// it. An empty file is one to which nothing was written. See package overlay.
	Overlay Format = 2
)

// Disk is one disk. Its files are attached to the VM before Configure, and taken from
// there: a monitor opens no path, and the kernel knows who has which disk.
type Disk struct {
	Backend  uint32 // number of the backend that VM_ATTACH_DISK gave
	ReadOnly bool
	ID       string   // what the guest sees as its serial number
	Format   Format   // of the file with RoleData
	Backing  []Format // its backing file, that one's, and so on
	// Own are the numbers of the backends of the first files of Backing that are the
	// disk's own: overlays can be merged into them. They have RoleData and are open for
	// writing. The files behind have RoleBase in the last of the disk's backends.
	Own   []uint32
	Limit rate.Limit
}

// None reports whether there is no disk of that number: nothing of it is said. Of a
// machine that is restored it was detached.
func (d *Disk) None() bool {
	return d.Backend == 0 && !d.ReadOnly && d.ID == "" && d.Format == Raw && len(d.Backing) == 0 && len(d.Own) == 0 && d.Limit == rate.Limit{}
}

func (d *Disk) validate() error {
	switch {
	case d.Limit.Validate() != nil:
		return ErrDiskLimit
	case len(d.ID) > MaxDiskID || strings.ContainsFunc(d.ID, func(c rune) bool { return c < ' ' || c > '~' }):
		return ErrDiskID
	case d.Format > Overlay:
		return ErrFormat
	case len(d.Backing) > MaxBacking || d.Format == Raw && len(d.Backing) > 0 || d.Format == Overlay && len(d.Backing) == 0:
		return ErrBacking
	case d.Format == QCOW2 && !d.ReadOnly:
		return ErrQCOW2
	}
	above := d.Format
	for i, f := range d.Backing {
		switch {
		case f > Overlay:
			return ErrFormat
		case f == Raw && i < len(d.Backing)-1, f == Overlay && (above != Overlay || i == len(d.Backing)-1):
			return ErrBacking
		case i < len(d.Own) && f == QCOW2:
			return ErrOwn
		}
		above = f
	}
	if len(d.Own) > len(d.Backing) || len(d.Own) > 0 && (d.Format != Overlay || d.ReadOnly) {
		return ErrOwn
	}
	return nil
}

// NIC is one network card. Its tap, and its vhost if it has one, are attached to the VM
// before Configure, as a disk's file is. The tap has IFF_VNET_HDR, and headers of 12
// bytes.
type NIC struct {
	Backend uint32 // number of the backend that VM_ATTACH_NIC gave
	MAC     [6]byte
	Receive rate.Limit // of what comes to the guest
	Send    rate.Limit
	Down    bool // its link
}

// version is the first byte of the encoding. A field is added by a new version
// that the reader knows beside the old ones. Version 1 had neither disks nor a choice
// of console, version 2 no network cards, version 3 no firmware, version 4 no sockets and
// raw disks alone, version 5 no files of a disk's own, version 6 no limits
// and no links that are down.
const version = 7

// Validate checks every limit. errors.Is: the errors of this package.
func (s *Spec) Validate() error {
	switch {
	case s.VCPUs < 1 || s.VCPUs > MaxVCPUs:
		return ErrVCPUs
	case s.MemoryBytes < MinMemory || s.MemoryBytes > MaxMemory || s.MemoryBytes%MemoryStep != 0:
		return ErrMemory
	case len(s.Cmdline) > MaxCmdline:
		return ErrCmdline
	case strings.IndexByte(s.Cmdline, 0) >= 0:
		return ErrNUL
	case s.Firmware && s.Cmdline != "":
		return ErrBoot
	case s.OnReset != Restart && s.OnReset != Stop:
		return ErrPolicy
	case s.Console > Virtio:
		return ErrConsole
	case len(s.Disks) > MaxDisks:
		return ErrDisks
	case len(s.NICs) > MaxNICs:
		return ErrNICs
	case s.CID != 0 && (s.CID < MinCID || s.CID > MaxCID):
		return ErrCID
	}
	backends := make([]uint32, 0, MaxDisks+MaxNICs)
	for _, d := range s.Disks {
		if d.None() {
			continue
		}
		if err := d.validate(); err != nil {
			return err
		}
		backends = append(append(backends, d.Backend), d.Own...)
	}
	for _, n := range s.NICs {
		if n.None() {
			continue
		}
		if err := n.validate(); err != nil {
			return err
		}
		backends = append(backends, n.Backend)
	}
	return checkBackends(backends)
}

// None reports whether there is no network card of that number; see Disk.None.
func (n *NIC) None() bool { return *n == NIC{} }

func (n *NIC) validate() error {
	switch {
	case n.MAC[0]&1 != 0 || n.MAC == [6]byte{}:
		return ErrMAC
	case n.Receive.Validate() != nil || n.Send.Validate() != nil:
		return ErrNICLimit
	}
	return nil
}

func checkBackends(backends []uint32) error {
	slices.Sort(backends)
	all := len(backends)
	if slices.Contains(backends, 0) || len(slices.Compact(backends)) < all {
		return ErrBackend
	}
	return nil
}

// Encode appends the spec to buf. It does not validate.
func (s *Spec) Encode(buf []byte) []byte {
	w := wire.NewWriter(binary.LittleEndian, buf)
	w.U8(version)
	w.U8(uint8(s.OnReset))
	w.U32(s.VCPUs)
	w.U64(s.MemoryBytes)
	w.String(s.Cmdline)
	w.U8(uint8(s.Console))
	w.U8(uint8(len(s.Disks)))
	for _, d := range s.Disks {
		w.U32(d.Backend)
		w.Bool(d.ReadOnly)
		w.String(d.ID)
	}
	w.U8(uint8(len(s.NICs)))
	for _, n := range s.NICs {
		w.U32(n.Backend)
		w.Fixed(n.MAC[:])
	}
	w.Bool(s.Firmware)
	w.U32(s.CID)
	for _, d := range s.Disks {
		w.U8(uint8(d.Format))
		w.U8(uint8(len(d.Backing)))
		for _, f := range d.Backing {
			w.U8(uint8(f))
		}
	}
	for _, d := range s.Disks {
		w.U8(uint8(len(d.Own)))
		for _, n := range d.Own {
			w.U32(n)
		}
	}
	for _, d := range s.Disks {
		d.Limit.Encode(w)
	}
	for _, n := range s.NICs {
		n.Receive.Encode(w)
		n.Send.Encode(w)
		w.Bool(n.Down)
	}
	return w.Bytes()
}

// Decode reads what Encode wrote, to the last byte, and validates it.
// errors.Is: the errors of this package and of package wire.
func Decode(msg []byte) (Spec, error) {
	r := wire.NewReader(binary.LittleEndian, msg)
	v := r.U8()
	if r.Err() == nil && (v < 1 || v > version) {
		return Spec{}, ErrVersion
	}
	s := Spec{OnReset: Policy(r.U8()), VCPUs: r.U32(), MemoryBytes: r.U64()}
	s.Cmdline = readText(r, MaxCmdline, ErrCmdline)
	if v > 1 {
		s.Console, s.Disks = Console(r.U8()), readDisks(r)
	}
	if v > 2 {
		s.NICs = readNICs(r)
	}
	if v > 3 {
		s.Firmware = r.Bool()
	}
	if v > 4 {
		s.CID = r.U32()
		for i := range s.Disks {
			s.Disks[i].Format, s.Disks[i].Backing = Format(r.U8()), readBacking(r)
		}
	}
	if v > 5 {
		for i := range s.Disks {
			s.Disks[i].Own = readOwn(r)
		}
	}
	if v > 6 {
		for i := range s.Disks {
			s.Disks[i].Limit.Decode(r)
		}
		for i := range s.NICs {
			n := &s.NICs[i]
			n.Receive.Decode(r)
			n.Send.Decode(r)
			n.Down = r.Bool()
		}
	}
	if err := r.Close(); err != nil {
		return Spec{}, err
	}
	return s, s.Validate()
}

func readDisks(r *wire.Reader) (disks []Disk) {
	n := int(r.U8())
	if n > MaxDisks {
		r.Fail(ErrDisks)
	}
	for range n {
		d := Disk{Backend: r.U32(), ReadOnly: r.Bool(), ID: readText(r, MaxDiskID, ErrDiskID)}
		if r.Err() != nil {
			return nil
		}
		disks = append(disks, d)
	}
	return disks
}

func readBacking(r *wire.Reader) (formats []Format) {
	n := int(r.U8())
	if n > MaxBacking {
		r.Fail(ErrBacking)
		return nil
	}
	for range n {
		formats = append(formats, Format(r.U8()))
	}
	return formats
}

func readOwn(r *wire.Reader) (backends []uint32) {
	n := int(r.U8())
	if n > MaxBacking {
		r.Fail(ErrOwn)
		return nil
	}
	for range n {
		backends = append(backends, r.U32())
	}
	return backends
}

// Encode writes one disk, for a message of its own; DecodeDisk reads and validates it.
func (d *Disk) Encode(w *wire.Writer) {
	w.U32(d.Backend)
	w.Bool(d.ReadOnly)
	w.String(d.ID)
	w.U8(uint8(d.Format))
	w.U8(uint8(len(d.Backing)))
	for _, f := range d.Backing {
		w.U8(uint8(f))
	}
	w.U8(uint8(len(d.Own)))
	for _, n := range d.Own {
		w.U32(n)
	}
	d.Limit.Encode(w)
}

// DecodeDisk is the other way. It fails with the errors of this package.
func DecodeDisk(r *wire.Reader) Disk {
	d := Disk{Backend: r.U32(), ReadOnly: r.Bool(), ID: readText(r, MaxDiskID, ErrDiskID),
		Format: Format(r.U8()), Backing: readBacking(r), Own: readOwn(r)}
	d.Limit.Decode(r)
	if err := d.validate(); err != nil {
		r.Fail(err)
	} else if err := checkBackends(append([]uint32{d.Backend}, d.Own...)); err != nil {
		r.Fail(err)
	}
	return d
}

// Encode writes one network card, for a message of its own; DecodeNIC reads and validates
// it.
func (n *NIC) Encode(w *wire.Writer) {
	w.U32(n.Backend)
	w.Fixed(n.MAC[:])
	n.Receive.Encode(w)
	n.Send.Encode(w)
	w.Bool(n.Down)
}

// DecodeNIC is the other way. It fails with the errors of this package.
func DecodeNIC(r *wire.Reader) NIC {
	n := NIC{Backend: r.U32()}
	r.Fixed(n.MAC[:])
	n.Receive.Decode(r)
	n.Send.Decode(r)
	n.Down = r.Bool()
	if err := n.validate(); err != nil {
		r.Fail(err)
	} else if err := checkBackends([]uint32{n.Backend}); err != nil {
		r.Fail(err)
	}
	return n
}

func readNICs(r *wire.Reader) (nics []NIC) {
	n := int(r.U8())
	if n > MaxNICs {
		r.Fail(ErrNICs)
	}
	for range n {
		c := NIC{Backend: r.U32()}
		r.Fixed(c.MAC[:])
		if r.Err() != nil {
			return nil
		}
		nics = append(nics, c)
	}
	return nics
}

// readText gives a text that is too long an error of its own.
func readText(r *wire.Reader, limit int, tooLong error) string {
	const unlimited = 1 << 30
	b := r.Blob(unlimited)
	if len(b) > limit {
		r.Fail(tooLong)
		return ""
	}
	return string(b)
}
