// SPDX-License-Identifier: Apache-2.0

package console

import (
	"encoding/binary"
	"errors"
	"io"
)

// Layout of the scrollback file: a header, the first mebibyte that was printed,
// and a ring with the last.
const (
	scrollMagic  = "vmctl-scroll-1\n\x00"
	scrollHeader = 4096
	// Keep is how much of the start, and how much of the end, is kept in bytes.
	Keep = 1 << 20
	// ScrollSize is the greatest size of the file in bytes.
	ScrollSize = scrollHeader + 2*Keep
	totalAt    = int64(len(scrollMagic))
)

// ErrScroll is a file that is no scrollback and is not empty either.
var ErrScroll = errors.New("not a scrollback file")

// store is the part of a file that a Scroll uses.
type store interface {
	io.ReaderAt
	io.WriterAt
}

// Scroll is what a console printed, by offset from its first byte: the first and
// the last mebibyte of it. It lies in a file that outlives the monitor. It has
// no lock.
type Scroll struct {
	file  store
	total uint64
}

// OpenScroll takes the file up where it ends, or begins it when it is empty.
// errors.Is: ErrScroll, and the errors of the file.
func OpenScroll(file store) (*Scroll, error) {
	head := make([]byte, len(scrollMagic)+8)
	n, err := file.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return nil, err
	}
	s := &Scroll{file: file}
	if n == 0 {
		copy(head, scrollMagic)
		_, err := file.WriteAt(head, 0)
		return s, err
	}
	if n < len(head) || string(head[:len(scrollMagic)]) != scrollMagic {
		return nil, ErrScroll
	}
	s.total = binary.LittleEndian.Uint64(head[len(scrollMagic):])
	if s.total > 1<<62 {
		return nil, ErrScroll
	}
	return s, nil
}

// Total is how many bytes were ever printed.
func (s *Scroll) Total() uint64 { return s.total }

// Append adds bytes at the end. After an error the end is where it was.
func (s *Scroll) Append(p []byte) error {
	at := s.total
	for len(p) > 0 {
		pos, room := place(at)
		n := min(uint64(len(p)), room)
		if _, err := s.file.WriteAt(p[:n], pos); err != nil {
			return err
		}
		at, p = at+n, p[n:]
	}
	// The bytes come before the count that vouches for them.
	var count [8]byte
	binary.LittleEndian.PutUint64(count[:], at)
	if _, err := s.file.WriteAt(count[:], totalAt); err != nil {
		return err
	}
	s.total = at
	return nil
}

// Next is the first offset from at on that is still kept: at itself, or the end
// of the gap that at lies in. It is Total when there is nothing more.
func (s *Scroll) Next(at uint64) uint64 {
	at = min(at, s.total)
	if at >= Keep && s.total-at > Keep {
		return max(Keep, s.total-Keep)
	}
	return at
}

// Read fills p with what was printed from at on, which must be kept, and returns
// how much there was in one piece; 0 at the end.
func (s *Scroll) Read(at uint64, p []byte) (int, error) {
	if at >= s.total {
		return 0, nil
	}
	pos, room := place(at)
	n := min(uint64(len(p)), room, s.total-at)
	got, err := s.file.ReadAt(p[:n], pos)
	if uint64(got) == n {
		return got, nil
	}
	if err == nil || err == io.EOF {
		err = ErrScroll // somebody cut the file
	}
	return got, err
}

// place is where the byte at an offset lies in the file, and how many follow it
// there.
func place(at uint64) (pos int64, room uint64) {
	if at < Keep {
		return scrollHeader + int64(at), Keep - at
	}
	in := (at - Keep) % Keep
	return scrollHeader + Keep + int64(in), Keep - in
}
