// SPDX-License-Identifier: Apache-2.0

package abi

import "unsafe"

// packet is the argument of a command by class: the head, and the payload behind
// it without a hole. T must be one of the generated structures, or a uint64.
type packet[T any] struct {
	head Payload
	body T
}

// none is the payload of a class that has none.
type none struct{}

// get asks for the payload of a class; body is what goes in.
func get[T any](f *file, op string, req uintptr, class uint32, body T) (T, error) {
	p := packet[T]{head: Payload{Class: class}, body: body}
	p.head.Size = uint32(unsafe.Sizeof(p.head) + unsafe.Sizeof(p.body))
	_, err := f.call(op, req, unsafe.Pointer(&p))
	return p.body, err
}

// set hands over the payload of a class and returns what the kernel returned.
func set[T any](f *file, op string, req uintptr, class uint32, body *T) (int, error) {
	p := packet[T]{head: Payload{Class: class}, body: *body}
	p.head.Size = uint32(unsafe.Sizeof(p.head) + unsafe.Sizeof(p.body))
	return f.call(op, req, unsafe.Pointer(&p))
}

// list is a payload of one counted list: a head H that ends with the list's
// length or begins with it, and entries E right behind it.
type list[H, E any] struct {
	buf []uint64 // aligned as the kernel wants it
	n   int
}

// newList makes room for n entries behind the payload's head.
func newList[H, E any](class uint32, n int) *list[H, E] {
	var l list[H, E]
	size := l.bytes(n)
	l.buf, l.n = make([]uint64, (size+7)/8), n
	*(*Payload)(unsafe.Pointer(&l.buf[0])) = Payload{Size: uint32(size), Class: class}
	return &l
}

// bytes is the size of head, list head and n entries.
func (l *list[H, E]) bytes(n int) int {
	var h H
	var e E
	return int(unsafe.Sizeof(Payload{}) + unsafe.Sizeof(h) + uintptr(n)*unsafe.Sizeof(e))
}

// head is the structure in front of the entries.
func (l *list[H, E]) head() *H { return (*H)(unsafe.Pointer(&l.buf[1])) }

// entries is the list, all of it.
func (l *list[H, E]) entries() []E {
	var h H
	first := unsafe.Add(unsafe.Pointer(&l.buf[0]), unsafe.Sizeof(Payload{})+unsafe.Sizeof(h))
	return unsafe.Slice((*E)(first), l.n)
}

// arg is the address that goes to the kernel.
func (l *list[H, E]) arg() unsafe.Pointer { return unsafe.Pointer(&l.buf[0]) }
