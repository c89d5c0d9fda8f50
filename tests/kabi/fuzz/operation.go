// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"fmt"
	"reflect"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// op is the number of an operation.
type op uint16

// field is a number in an argument.
type field struct{ off, width int }

// operation is a kind of call: a command of the module, each class of its own, or
// something that is done around them.
type operation struct {
	name   string
	req    uintptr // 0: none of our ioctls
	class  uint32
	on     kind
	size   int     // of the argument, 0: none
	fields []field // of the argument
	nl     bool    // a request of the netlink family
	ends   bool    // the machine ends with it: seldom in a free choice

	// build makes c what is usually valid. It may change all but c.op.
	build func(g *gen, c *call)
	// after takes what the kernel wrote, when it succeeded.
	after func(t *thread, c *call, arg []byte)
	// do makes a call that is no ioctl of ours.
	do func(t *thread, c *call) unix.Errno

	// A payload that was got is kept under stash, and set again with changes.
	stash int
	keeps bool
}

// command says whether the call goes to the module by itself.
func (o *operation) command() bool { return o.req != 0 || o.nl }

// ops are all operations, in the order in which they are reported.
var ops = slices.Concat(deviceOps(), controlOps(), backendOps(), setupOps(), platformOps(), stateOps(),
	regsOps(), vcpuOps(), oddCommandOps(), netlinkOps(), fdOps(), lowOps(), passOps(), fileOps(), areaOps(), processOps())

var opNamed = func() map[string]op {
	m := make(map[string]op, len(ops))
	for i := range ops {
		m[ops[i].name] = op(i)
	}
	return m
}()

// named finds an operation that must be there.
func named(name string) op {
	o, ok := opNamed[name]
	if !ok {
		panic(fmt.Sprintf("no operation %q", name))
	}
	return o
}

const headSize = 8 // of the size and the word behind it

// whole is a command whose argument is one structure with its size in front.
func whole[T any](name string, req uintptr, on kind, build func(*gen, *call)) operation {
	return operation{name: name, req: req, on: on, size: int(unsafe.Sizeof(*new(T))),
		fields: fieldsOf(reflect.TypeFor[T](), 0), build: build}
}

// classed is a command by class with a payload.
func classed[T any](name string, req uintptr, class uint32, on kind, build func(*gen, *call)) operation {
	return operation{name: name, req: req, class: class, on: on, size: headSize + int(unsafe.Sizeof(*new(T))),
		fields: append([]field{{0, 4}, {4, 4}}, fieldsOf(reflect.TypeFor[T](), headSize)...), build: build}
}

// maxFields bounds what is known of a long array.
const maxFields = 64

// fieldsOf lists the numbers in a structure; of bytes in an array only the first.
func fieldsOf(t reflect.Type, off int) []field {
	var list []field
	switch t.Kind() {
	case reflect.Struct:
		for i := range t.NumField() {
			list = append(list, fieldsOf(t.Field(i).Type, off+int(t.Field(i).Offset))...)
		}
	case reflect.Array:
		n := t.Len()
		if t.Elem().Kind() == reflect.Uint8 {
			n = min(n, 1)
		}
		for i := range min(n, maxFields) {
			list = append(list, fieldsOf(t.Elem(), off+i*int(t.Elem().Size()))...)
		}
	default:
		list = append(list, field{off, int(t.Size())})
	}
	return list[:min(len(list), 4*maxFields)]
}

// in is the structure at an offset of the argument.
func in[T any](c *call, off int) *T {
	return (*T)(unsafe.Pointer(&c.arg[off : off+int(unsafe.Sizeof(*new(T)))][0]))
}
