// SPDX-License-Identifier: Apache-2.0

// Package wire writes and reads the fields of a message, one after the other.
// It knows no types, uses no reflection, and reads hostile bytes: a [Reader]
// never panics and never allocates more than it was given.
//
// Numbers have a fixed width. A string or a byte field is a u32 length and that
// many bytes.
package wire

import (
	"encoding/binary"
	"errors"
)

var (
	// ErrShort is a message that ends inside a field.
	ErrShort = errors.New("message ends inside a field")
	// ErrTrailing is a message with bytes behind its last field.
	ErrTrailing = errors.New("bytes behind the last field")
	// ErrTooLong is a field that is longer than its limit.
	ErrTooLong = errors.New("field is too long")
	// ErrValue is a field whose value is never valid, such as a bool of 2.
	ErrValue = errors.New("field has a value that is never valid")
)

// Order is the byte order of a message.
type Order interface {
	binary.ByteOrder
	binary.AppendByteOrder
}

// Writer appends fields. Its zero value is not usable; see NewWriter.
type Writer struct {
	order Order
	buf   []byte
}

// NewWriter returns a writer that appends to buf.
func NewWriter(order Order, buf []byte) *Writer { return &Writer{order: order, buf: buf} }

// Bytes returns what was written so far.
func (w *Writer) Bytes() []byte { return w.buf }

// U8 appends one byte.
func (w *Writer) U8(v uint8) { w.buf = append(w.buf, v) }

// U16 appends two bytes.
func (w *Writer) U16(v uint16) { w.buf = w.order.AppendUint16(w.buf, v) }

// U32 appends four bytes.
func (w *Writer) U32(v uint32) { w.buf = w.order.AppendUint32(w.buf, v) }

// U64 appends eight bytes.
func (w *Writer) U64(v uint64) { w.buf = w.order.AppendUint64(w.buf, v) }

// Bool appends one byte, 0 or 1.
func (w *Writer) Bool(v bool) {
	if v {
		w.U8(1)
	} else {
		w.U8(0)
	}
}

// Blob appends a length and the bytes.
func (w *Writer) Blob(v []byte) {
	w.U32(uint32(len(v)))
	w.buf = append(w.buf, v...)
}

// String appends a length and the bytes of v.
func (w *Writer) String(v string) {
	w.U32(uint32(len(v)))
	w.buf = append(w.buf, v...)
}

// Fixed appends the bytes without a length.
func (w *Writer) Fixed(v []byte) { w.buf = append(w.buf, v...) }

// Reader takes fields off a message. After the first error every field is zero;
// Close says what went wrong.
type Reader struct {
	order Order
	buf   []byte
	err   error
}

// NewReader returns a reader of msg, which it does not copy.
func NewReader(order Order, msg []byte) *Reader { return &Reader{order: order, buf: msg} }

// take returns the next n bytes, or nil after an error.
func (r *Reader) take(n int) []byte {
	if r.err != nil {
		return nil
	}
	if n > len(r.buf) {
		r.err = ErrShort
		return nil
	}
	b := r.buf[:n:n]
	r.buf = r.buf[n:]
	return b
}

// U8 takes one byte.
func (r *Reader) U8() uint8 {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

// U16 takes two bytes.
func (r *Reader) U16() uint16 {
	if b := r.take(2); b != nil {
		return r.order.Uint16(b)
	}
	return 0
}

// U32 takes four bytes.
func (r *Reader) U32() uint32 {
	if b := r.take(4); b != nil {
		return r.order.Uint32(b)
	}
	return 0
}

// U64 takes eight bytes.
func (r *Reader) U64() uint64 {
	if b := r.take(8); b != nil {
		return r.order.Uint64(b)
	}
	return 0
}

// Bool takes one byte that must be 0 or 1.
func (r *Reader) Bool() bool {
	v := r.U8()
	if v > 1 {
		r.Fail(ErrValue)
	}
	return v == 1
}

// Blob takes a length and that many bytes, limit at most. They are part of the
// message, not a copy.
func (r *Reader) Blob(limit int) []byte {
	n := r.U32()
	if uint64(n) > uint64(limit) {
		r.Fail(ErrTooLong)
		return nil
	}
	return r.take(int(n))
}

// String takes a length and that many bytes, limit at most.
func (r *Reader) String(limit int) string { return string(r.Blob(limit)) }

// Fixed fills v.
func (r *Reader) Fixed(v []byte) { copy(v, r.take(len(v))) }

// Rest takes all that is left.
func (r *Reader) Rest() []byte { return r.take(len(r.buf)) }

// Fail makes err the reader's error, unless it has one already.
func (r *Reader) Fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// Err returns the error so far.
func (r *Reader) Err() error { return r.err }

// Close returns the first error; bytes that nobody took are one.
func (r *Reader) Close() error {
	if r.err == nil && len(r.buf) > 0 {
		r.err = ErrTrailing
	}
	return r.err
}
