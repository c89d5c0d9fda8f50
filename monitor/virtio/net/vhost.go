// SPDX-License-Identifier: Apache-2.0

package net

import (
	"errors"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"vmctl/monitor/mem"
	"vmctl/monitor/pci"
	"vmctl/monitor/virtio"
)

// Commands of a vhost (linux/vhost.h).
const (
	vhostGetFeatures  = 0x8008af00
	vhostSetFeatures  = 0x4008af00
	vhostSetOwner     = 0xaf01
	vhostSetMemTable  = 0x4008af03
	vhostSetVringNum  = 0x4008af10
	vhostSetVringAddr = 0x4028af11
	vhostSetVringBase = 0x4008af12
	vhostSetVringKick = 0x4008af20
	vhostSetVringCall = 0x4008af21
	vhostSetVringErr  = 0x4008af22
	vhostSetBackend   = 0x4008af30
)

// VhostCommands are those that an engine uses, for the filter of system calls.
var VhostCommands = []uint64{vhostGetFeatures, vhostSetFeatures, vhostSetOwner, vhostSetMemTable, vhostSetVringNum,
	vhostSetVringAddr, vhostSetVringBase, vhostSetVringKick, vhostSetVringCall, vhostSetVringErr, vhostSetBackend}

// vringState and vringFile are arguments of commands for one ring.
type (
	vringState struct{ index, num uint32 }
	vringFile  struct {
		index uint32
		fd    int32
	}
	vringAddr struct {
		index, flags           uint32
		desc, used, avail, log uint64
	}
	memTable struct {
		count, padding uint32
		regions        [maxRegions]memRegion
	}
	memRegion struct{ guest, size, user, padding uint64 }
)

const maxRegions = 2 // of guest memory: mem.Regions

// ErrVhost is a file that is no vhost of a network card.
var ErrVhost = errors.New("network card's second file is no vhost-net, or cannot do what a tap can")

// kernel moves packets by vhost-net: a worker in the kernel takes notifications from
// the queues' bells and guest memory as it is.
type kernel struct {
	tap    int // the device's
	vhost  int
	memory *mem.Memory
	bells  []int
	calls  []*os.File // by which it says that a queue has something for the driver, whose vector is masked
	faults *os.File   // by which it says that the driver broke a rule
	work   sync.WaitGroup

	mu     sync.Mutex      // guards what follows
	queues []*virtio.Queue // nil while it stands still
}

func (k *kernel) call(what string, request uintptr, argument unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(k.vhost), request, uintptr(argument))
	if errno != 0 {
		return os.NewSyscallError(what, errno)
	}
	return nil
}

func (k *kernel) attach(bells []int) error {
	k.bells = bells
	if err := k.call("VHOST_SET_OWNER", vhostSetOwner, nil); err != nil {
		return errors.Join(ErrVhost, err)
	}
	var can uint64
	if err := k.call("VHOST_GET_FEATURES", vhostGetFeatures, unsafe.Pointer(&can)); err != nil {
		return errors.Join(ErrVhost, err)
	}
	if need := k.share(^uint64(0)); can&need != need {
		return ErrVhost
	}
	table := memTable{count: uint32(len(k.memory.Regions()))}
	for i, r := range k.memory.Regions() {
		table.regions[i] = memRegion{guest: r.Base, size: r.Len(), user: r.HostAddr()}
	}
	if err := k.call("VHOST_SET_MEM_TABLE", vhostSetMemTable, unsafe.Pointer(&table)); err != nil {
		return err
	}
	for range numQueues {
		f, err := newEvent("call")
		if err != nil {
			return err
		}
		k.calls = append(k.calls, f)
	}
	var err error
	if k.faults, err = newEvent("faults"); err != nil {
		return err
	}
	for i, f := range k.calls {
		k.work.Go(func() { k.listen(f, func(queues []*virtio.Queue) { queues[i].Interrupt() }) })
	}
	k.work.Go(func() { k.listen(k.faults, func(queues []*virtio.Queue) { queues[0].Fail(virtio.ErrRequest) }) })
	return nil
}

// newEvent makes an eventfd that the runtime waits for.
func newEvent(name string) (*os.File, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// listen calls tell for each event, until the file is closed.
func (k *kernel) listen(f *os.File, tell func(queues []*virtio.Queue)) {
	var count [8]byte
	for {
		if _, err := f.Read(count[:]); err != nil {
			return
		}
		k.mu.Lock()
		if k.queues != nil {
			tell(k.queues)
		}
		k.mu.Unlock()
	}
}

// share are the features that are the vhost's affair: the others are the tap's.
func (*kernel) share(features uint64) uint64 {
	return features & (virtio.FeatureVersion1 | virtio.FeatureEvent | virtio.FeatureIndirect | featureMergeable)
}

func (k *kernel) start(features uint64, receive, send *virtio.Queue) error {
	k.mu.Lock()
	k.queues = []*virtio.Queue{receive, send}
	k.mu.Unlock()
	agreed := k.share(features)
	err := k.call("VHOST_SET_FEATURES", vhostSetFeatures, unsafe.Pointer(&agreed))
	for i, q := range k.queues {
		if err == nil {
			err = k.startRing(uint32(i), q.Rings())
		}
	}
	for i, q := range k.queues {
		if err == nil {
			q.Direct(func(fd int) { k.interruptBy(i, fd) })
		}
	}
	for i := range k.queues {
		if err == nil {
			err = k.setFile("VHOST_NET_SET_BACKEND", vhostSetBackend, uint32(i), k.tap)
		}
	}
	return err
}

func (k *kernel) startRing(i uint32, r virtio.Rings) error {
	size, base := vringState{i, r.Size}, vringState{i, uint32(r.Next)}
	addr := vringAddr{index: i, desc: r.Desc, used: r.Used, avail: r.Avail}
	if err := k.call("VHOST_SET_VRING_NUM", vhostSetVringNum, unsafe.Pointer(&size)); err != nil {
		return err
	}
	if err := k.call("VHOST_SET_VRING_BASE", vhostSetVringBase, unsafe.Pointer(&base)); err != nil {
		return err
	}
	if err := k.call("VHOST_SET_VRING_ADDR", vhostSetVringAddr, unsafe.Pointer(&addr)); err != nil {
		return err
	}
	return errors.Join(
		k.setFile("VHOST_SET_VRING_KICK", vhostSetVringKick, i, k.bells[i]),
		k.setEvent("VHOST_SET_VRING_CALL", vhostSetVringCall, i, k.calls[i]),
		k.setEvent("VHOST_SET_VRING_ERR", vhostSetVringErr, i, k.faults),
	)
}

// interruptBy lets a ring interrupt by a file, or by way of listen. If that fails it goes on
// as it did.
func (k *kernel) interruptBy(i, fd int) {
	if fd == pci.NoFile {
		_ = k.setEvent("VHOST_SET_VRING_CALL", vhostSetVringCall, uint32(i), k.calls[i])
		return
	}
	_ = k.setFile("VHOST_SET_VRING_CALL", vhostSetVringCall, uint32(i), fd)
}

func (k *kernel) setFile(what string, request uintptr, i uint32, fd int) error {
	f := vringFile{i, int32(fd)}
	return k.call(what, request, unsafe.Pointer(&f))
}

// setEvent leaves the file as it is: os.File.Fd would let it block.
func (k *kernel) setEvent(what string, request uintptr, i uint32, f *os.File) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	return errors.Join(conn.Control(func(fd uintptr) { err = k.setFile(what, request, i, int(fd)) }), err)
}

// stop takes the tap away, which waits for the worker.
func (k *kernel) stop() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range k.queues {
		// It fails for a ring that never had the tap.
		_ = k.setFile("VHOST_NET_SET_BACKEND", vhostSetBackend, uint32(i), -1)
	}
	k.queues = nil
}

func (k *kernel) close() error {
	errs := []error{unix.Close(k.vhost)}
	for _, f := range append(k.calls, k.faults) {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	k.work.Wait()
	return errors.Join(errs...)
}
