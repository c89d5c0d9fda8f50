// SPDX-License-Identifier: Apache-2.0

package mem

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What the kernel says of a program (elf(5), getauxval(3)).
const (
	auxHeaders     = 3
	auxHeaderSize  = 4
	auxHeaderCount = 5
	segmentLoad    = 1
	segmentHeaders = 6
	flagWrite      = 1 << 1
)

type programHeader struct {
	kind, flags            uint32
	offset, vaddr, paddr   uint64
	fileSize, size, aligns uint64
}

// ReleaseProgram gives back the pages of the program itself that are only read: what
// runs on is there again when it is touched, and what only set things up is not.
func ReleaseProgram() error {
	aux, err := unix.Auxv()
	if err != nil {
		return err
	}
	var at, size, count uintptr
	for _, a := range aux {
		switch a[0] {
		case auxHeaders:
			at = a[1]
		case auxHeaderSize:
			size = a[1]
		case auxHeaderCount:
			count = a[1]
		}
	}
	if at == 0 || size != unsafe.Sizeof(programHeader{}) {
		return nil // a kernel that does not say
	}
	headers := unsafe.Slice((*programHeader)(addr(at)), count)
	var moved uintptr // from where it says that it lies
	for _, h := range headers {
		if h.kind == segmentHeaders {
			moved = at - uintptr(h.vaddr)
		}
	}
	for _, h := range headers {
		if h.kind != segmentLoad || h.flags&flagWrite != 0 {
			continue
		}
		first := (moved + uintptr(h.vaddr)) &^ (pageSize - 1)
		end := (moved + uintptr(h.vaddr+h.size) + pageSize - 1) &^ (pageSize - 1)
		if err := unix.Madvise(unsafe.Slice((*byte)(addr(first)), end-first), unix.MADV_DONTNEED); err != nil {
			return os.NewSyscallError("madvise", err)
		}
	}
	return nil
}

// addr is a pointer to what is no object of Go's.
func addr(p uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&p)) }
