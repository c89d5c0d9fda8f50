// SPDX-License-Identifier: Apache-2.0

package proto

import "io"

// Frame is one frame as it was read.
type Frame struct {
	Type    Type
	Payload []byte
}

// FromClient reports whether a client may send frames of this type.
func (t Type) FromClient() bool {
	switch t {
	case TypeHello, TypeData, TypeTake, TypeResize, TypePong:
		return true
	}
	return false
}

// FromServer reports whether a server may send frames of this type.
func (t Type) FromServer() bool {
	switch t {
	case TypeOK, TypeHistory, TypeData, TypeViewers, TypePing, TypeClose:
		return true
	}
	return false
}

// Scanner reads frames from a stream. It keeps one buffer, which grows to the
// longest frame that was read.
type Scanner struct {
	src  io.Reader
	max  int
	head [HeaderLen]byte
	buf  []byte
}

// NewScanner returns a scanner of src that refuses payloads above max bytes.
func NewScanner(src io.Reader, max int) *Scanner { return &Scanner{src: src, max: max} }

// Next reads a frame; its payload is valid until the next call. errors.Is:
// io.EOF between frames, io.ErrUnexpectedEOF within one, ErrType, ErrTooLong,
// and the errors of the stream.
func (s *Scanner) Next() (Frame, error) {
	if _, err := io.ReadFull(s.src, s.head[:]); err != nil {
		return Frame{}, err
	}
	t := Type(s.head[0])
	n := int(s.head[1])<<16 | int(s.head[2])<<8 | int(s.head[3])
	if !t.FromClient() && !t.FromServer() {
		return Frame{}, ErrType
	}
	if n > s.max {
		return Frame{}, ErrTooLong
	}
	if n > cap(s.buf) {
		s.buf = make([]byte, n)
	}
	payload := s.buf[:n]
	if _, err := io.ReadFull(s.src, payload); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return Frame{}, err
	}
	return Frame{Type: t, Payload: payload}, nil
}
