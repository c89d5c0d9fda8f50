// SPDX-License-Identifier: Apache-2.0

// Package uring is the little of io_uring that a disk needs. A ring is made
// disabled, is given the files that it may touch and the operations that it may do
// to them, and only then enabled: the kernel refuses all else from then on, as
// filters of system calls do not see what a ring does.
package uring

import (
	"errors"
	"os"
	"slices"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Numbers of <linux/io_uring.h>.
const (
	setupCQSize       = 1 << 3
	setupRDisabled    = 1 << 6
	setupSingleIssuer = 1 << 12
	setupDeferTaskrun = 1 << 13

	featSingleMmap = 1 << 0
	featNoDrop     = 1 << 1
	featExtArg     = 1 << 8

	offRings = 0
	offSQEs  = 0x10000000

	enterGetEvents = 1 << 0
	enterExtArg    = 1 << 3

	registerFiles        = 2
	registerWorkers      = 19
	registerRestrictions = 11
	registerEnable       = 12

	restrictRegister = 0
	restrictOp       = 1
	restrictFlags    = 2
	restrictRequired = 3

	sqeFixedFile = 1 << 0

	opReadv     = 1
	opWritev    = 2
	opFsync     = 3
	opFallocate = 17
	opRead      = 22
	opWrite     = 23

	fsyncData = 1 << 0
)

// How many threads of the kernel may work for a ring, on files and on all else.
const (
	fileWorkers  = 4
	otherWorkers = 1
)

// What a ring may do, and what more if it writes.
var (
	readOperations  = []uint8{opReadv, opFsync, opRead}
	writeOperations = []uint8{opWritev, opFallocate, opWrite}
)

// retryPause is between two tries to hand over operations that the kernel does not take.
const retryPause = time.Millisecond

// ErrUnsupported is a kernel whose rings lack what this package needs.
var ErrUnsupported = errors.New("uring: rings of this kernel cannot do it")

type sqOffsets struct {
	head, tail, mask, entries, flags, dropped, array, resv uint32
	addr                                                   uint64
}

type cqOffsets struct {
	head, tail, mask, entries, overflow, cqes, flags, resv uint32
	addr                                                   uint64
}

type params struct {
	sqEntries, cqEntries, flags, threadCPU, threadIdle, features, wqFD uint32
	resv                                                               [3]uint32
	sq                                                                 sqOffsets
	cq                                                                 cqOffsets
}

type sqe struct {
	op      uint8
	flags   uint8
	ioprio  uint16
	file    int32
	off     uint64
	addr    uint64
	len     uint32
	opFlags uint32
	tag     uint64
	_       [3]uint64
}

type cqe struct {
	tag   uint64
	res   int32
	flags uint32
}

// wakeUp says when a thread that waits in the ring is woken at the latest.
type wakeUp struct {
	mask    uint64
	maskLen uint32
	_       uint32
	after   *unix.Timespec
}

type restriction struct {
	kind  uint16
	value uint8
	_     uint8
	_     [3]uint32
}

// Ring is a ring. The thread that made it is the only one to use it, and the
// kernel cancels what a thread has under way when it ends.
type Ring struct {
	fd       int
	rings    []byte
	entries  []byte // of the submission queue
	sqes     []sqe
	cqes     []cqe
	sqHead   *uint32
	sqTail   *uint32
	cqHead   *uint32
	cqTail   *uint32
	tail     uint32 // of the submission queue, with what is not published
	unsent   uint32
	queueLen uint32
}

// New makes a ring for files, of which operations name the index, that takes
// entries operations at once and has room for completions. Unless it writes, it can do
// nothing that changes a file. The calling goroutine must be locked to its thread. errors.Is: ErrUnsupported, and unix.Errno where
// rings are refused.
func New(entries, completions int, files []int, writes bool) (*Ring, error) {
	// With the first flags completions are worked on when this thread asks for
	// them, instead of interrupting it: Linux 6.1 and newer.
	var p params
	var errno unix.Errno
	for _, more := range []uint32{setupSingleIssuer | setupDeferTaskrun, 0} {
		p = params{flags: setupCQSize | setupRDisabled | more, cqEntries: uint32(completions)}
		fd, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(entries), uintptr(unsafe.Pointer(&p)), 0)
		if errno = e; e == 0 {
			r := &Ring{fd: int(fd)}
			if err := r.open(&p, files, writes); err != nil {
				return nil, errors.Join(err, r.Close())
			}
			return r, nil
		}
		if e != unix.EINVAL {
			break
		}
	}
	return nil, os.NewSyscallError("io_uring_setup", errno)
}

func (r *Ring) open(p *params, files []int, writes bool) error {
	unix.CloseOnExec(r.fd)
	if p.features&featSingleMmap == 0 || p.features&featNoDrop == 0 || p.features&featExtArg == 0 {
		return ErrUnsupported
	}
	if err := r.restrict(files, writes); err != nil {
		return err
	}
	size := max(int(p.sq.array+p.sqEntries*4), int(p.cq.cqes)+int(p.cqEntries)*int(unsafe.Sizeof(cqe{})))
	var err error
	if r.rings, err = r.mmap(offRings, size); err != nil {
		return err
	}
	if r.entries, err = r.mmap(offSQEs, int(p.sqEntries)*int(unsafe.Sizeof(sqe{}))); err != nil {
		return err
	}
	word := func(off uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.rings[off])) }
	r.sqHead, r.sqTail = word(p.sq.head), word(p.sq.tail)
	r.cqHead, r.cqTail = word(p.cq.head), word(p.cq.tail)
	r.sqes = unsafe.Slice((*sqe)(unsafe.Pointer(&r.entries[0])), p.sqEntries)
	r.cqes = unsafe.Slice((*cqe)(unsafe.Pointer(&r.rings[p.cq.cqes])), p.cqEntries)
	r.queueLen = p.sqEntries
	array := unsafe.Slice(word(p.sq.array), p.sqEntries)
	for i := range array {
		array[i] = uint32(i)
	}
	return r.register(registerEnable, nil, 0)
}

func (r *Ring) mmap(off int64, size int) ([]byte, error) {
	b, err := unix.Mmap(r.fd, off, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	return b, os.NewSyscallError("mmap", err)
}

// restrict says what the ring may do, which holds from when it is enabled.
func (r *Ring) restrict(files []int, writes bool) error {
	table := make([]int32, len(files))
	for i, fd := range files {
		table[i] = int32(fd)
	}
	if err := r.register(registerFiles, unsafe.Pointer(unsafe.SliceData(table)), len(table)); err != nil {
		return err
	}
	// The kernel's own threads for what would block count as the user's, of whom the
	// monitor may have so many and no more: Linux 5.15 and newer.
	workers := [2]uint32{fileWorkers, otherWorkers}
	if err := r.register(registerWorkers, unsafe.Pointer(&workers), len(workers)); err != nil {
		return errors.Join(ErrUnsupported, err)
	}
	list := []restriction{
		// All that may be registered is what enables the ring. To name nothing here
		// would leave everything allowed on newer kernels.
		{kind: restrictRegister, value: registerEnable},
		{kind: restrictFlags, value: sqeFixedFile}, {kind: restrictRequired, value: sqeFixedFile},
	}
	operations := readOperations
	if writes {
		operations = slices.Concat(operations, writeOperations)
	}
	for _, op := range operations {
		list = append(list, restriction{kind: restrictOp, value: op})
	}
	return r.register(registerRestrictions, unsafe.Pointer(unsafe.SliceData(list)), len(list))
}

func (r *Ring) register(op uintptr, arg unsafe.Pointer, n int) error {
	_, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(r.fd), op, uintptr(arg), uintptr(n), 0, 0)
	if errno != 0 {
		return os.NewSyscallError("io_uring_register", errno)
	}
	return nil
}

// Close gives the ring back. The kernel cancels what is under way, some time later.
func (r *Ring) Close() error {
	var errs []error
	for _, b := range [][]byte{r.rings, r.entries} {
		if b != nil {
			errs = append(errs, unix.Munmap(b))
		}
	}
	return errors.Join(append(errs, unix.Close(r.fd))...)
}

// next is the entry that comes next. The kernel takes what is there when there is
// no other room.
func (r *Ring) next() *sqe {
	full := func() bool { return r.tail-atomic.LoadUint32(r.sqHead) >= r.queueLen }
	for full() {
		// What it cannot take now it can when memory is free again. An error that
		// lasts is for Submit to tell.
		if _ = r.enter(0, 0); full() {
			time.Sleep(retryPause)
		}
	}
	e := &r.sqes[r.tail&(r.queueLen-1)]
	r.tail++
	r.unsent++
	*e = sqe{flags: sqeFixedFile}
	return e
}

// Transfer reads into buffers or writes from them, at an offset of a file. They
// must stay where they are, and so must the list. With sync a write is on the
// medium when it completes.
func (r *Ring) Transfer(tag uint64, file int, write bool, iov []unix.Iovec, off uint64, sync bool) {
	e := r.next()
	e.tag, e.file, e.off = tag, int32(file), off
	switch {
	case len(iov) == 1 && write:
		e.op = opWrite
	case len(iov) == 1:
		e.op = opRead
	case write:
		e.op = opWritev
	default:
		e.op = opReadv
	}
	if len(iov) == 1 {
		e.addr, e.len = uint64(uintptr(unsafe.Pointer(iov[0].Base))), uint32(iov[0].Len)
	} else {
		e.addr, e.len = uint64(uintptr(unsafe.Pointer(unsafe.SliceData(iov)))), uint32(len(iov))
	}
	if sync {
		e.opFlags = unix.RWF_DSYNC
	}
}

// Count reads the count of an eventfd into the heap, when there is one.
func (r *Ring) Count(tag uint64, file int, count *uint64) {
	e := r.next()
	e.op, e.tag, e.file = opRead, tag, int32(file)
	e.addr, e.len = uint64(uintptr(unsafe.Pointer(count))), uint32(unsafe.Sizeof(*count))
}

// Sync brings a file's data onto the medium.
func (r *Ring) Sync(tag uint64, file int) {
	e := r.next()
	e.op, e.tag, e.file, e.opFlags = opFsync, tag, int32(file), fsyncData
}

// Allocate is fallocate(2).
func (r *Ring) Allocate(tag uint64, file int, mode uint32, off, n uint64) {
	e := r.next()
	// The kernel has mode and length in each other's place.
	e.op, e.tag, e.file, e.off, e.addr, e.len = opFallocate, tag, int32(file), off, n, mode
}

// Forever is no end of a wait.
const Forever = time.Duration(1<<63 - 1)

// Submit hands all operations to the kernel, and waits so long for a completion.
func (r *Ring) Submit(wait time.Duration) error {
	if wait > 0 {
		return r.enter(1, wait)
	}
	return r.enter(0, 0)
}

// enter may be interrupted, which is no error: the caller looks and comes back.
func (r *Ring) enter(completions uintptr, wait time.Duration) error {
	atomic.StoreUint32(r.sqTail, r.tail)
	flags, arg, size := uintptr(enterGetEvents), unsafe.Pointer(nil), uintptr(0)
	if completions > 0 && wait != Forever {
		after := unix.NsecToTimespec(int64(wait))
		w := wakeUp{after: &after}
		flags, arg, size = flags|enterExtArg, unsafe.Pointer(&w), unsafe.Sizeof(w)
	}
	n, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(r.unsent), completions, flags, uintptr(arg), size)
	switch errno {
	case 0:
		r.unsent -= uint32(n)
		return nil
	case unix.EINTR, unix.EAGAIN, unix.EBUSY, unix.ETIME:
		return nil
	}
	return os.NewSyscallError("io_uring_enter", errno)
}

// Next returns a completion: the tag of its operation, and what the system call of
// that name returns, or a negative errno.
func (r *Ring) Next() (tag uint64, res int32, ok bool) {
	head := *r.cqHead // written by us alone
	if head == atomic.LoadUint32(r.cqTail) {
		return 0, 0, false
	}
	e := r.cqes[head&uint32(len(r.cqes)-1)]
	atomic.StoreUint32(r.cqHead, head+1)
	return e.tag, e.res, true
}
