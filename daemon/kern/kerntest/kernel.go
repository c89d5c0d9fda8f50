// SPDX-License-Identifier: Apache-2.0

// Package kerntest is a fake of the module vmm, for tests on a host without it
// and without privileges. A Kernel holds VMs and is reached through a unix
// socket in place of /dev/vmm, so it outlives a daemon that is killed. Each
// descriptor that it hands out is a socket: it can be passed on, is gone when
// its last copy is closed, and what can be done with it depends on its rights,
// as with the real ones. Sockets of generic netlink carry what real ones do, so
// that package kern reads the fake with the code that reads the module.
//
// It has no guests and no KVM: a vCPU that was run is in the guest from then on.
package kerntest

import (
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"vmctl/abi"
)

// Kernel is the fake module. It is safe for concurrent use.
type Kernel struct {
	began time.Time
	wg    sync.WaitGroup

	mu        sync.Mutex
	listener  *net.UnixListener
	vms       map[uint64]*fakeVM         // [mu]
	lastID    uint64                     // [mu]
	backends  []*backend                 // [mu] of all VMs, in the order of attaching
	journal   []note                     // [mu] the last of them
	tombs     []note                     // [mu] likewise
	seq       uint64                     // [mu] number of the last event
	instance  uint64                     // [mu]
	listeners map[*listener]struct{}     // [mu]
	conns     map[*net.UnixConn]struct{} // [mu] all that must end with Close
	fail      map[string]unix.Errno      // [mu] commands that fail
	interrupt int                        // [mu] dumps that are to be interrupted
	lose      int                        // [mu] notices that are to be lost
	closed    bool                       // [mu]
}

// fakeVM is a VM. All of it is guarded by Kernel.mu.
type fakeVM struct {
	info     abi.VMInfo
	limits   abi.VMConfigSet
	stats    abi.VMStats
	vcpus    map[uint32]*vcpu
	paused   time.Time              // since when
	ended    uint64                 // when it stopped, CLOCK_MONOTONIC in nanoseconds
	backends uint32                 // number of the last one
	bound    *net.UnixConn          // descriptor that did bind
	held     map[*net.UnixConn]bool // descriptors; nil: of a stranger, who keeps his
}

type vcpu struct {
	ran          bool
	kicks, parks uint64
}

// Listen returns a kernel whose device is a socket at path.
func Listen(path string) (*Kernel, error) {
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("fake kernel: %w", err)
	}
	k := &Kernel{listener: l, began: time.Now(), instance: 1, vms: make(map[uint64]*fakeVM), listeners: make(map[*listener]struct{}),
		conns: make(map[*net.UnixConn]struct{}), fail: make(map[string]unix.Errno)}
	k.wg.Add(1)
	go k.accept()
	return k, nil
}

// Close ends the kernel with all its descriptors.
func (k *Kernel) Close() {
	k.listener.Close()
	k.mu.Lock()
	k.closed = true
	for c := range k.conns {
		c.Close()
	}
	k.mu.Unlock()
	k.wg.Wait()
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, b := range k.backends {
		b.close()
	}
}

// Fail makes a command fail from now on; errno 0 makes it work again. Commands
// are those of the table in command.go, create, open and delegate, and those of
// netlink by their names in vmm.yaml, such as vm-get.
func (k *Kernel) Fail(op string, errno unix.Errno) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fail[op] = errno
}

// Cut breaks the sockets of all who listen.
func (k *Kernel) Cut() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for l := range k.listeners {
		l.c.Close()
	}
}

// Lose loses the next n notices, as when there is no memory: they have numbers,
// and nobody gets them.
func (k *Kernel) Lose(n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lose = n
}

// Interrupt marks the next n dumps of vm-get as interrupted; what is left of n
// is returned by a second call.
func (k *Kernel) Interrupt(n int) (left int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	left, k.interrupt = k.interrupt, n
	return left
}

// Reload takes all VMs away, and begins anew with all numbers. Who listens is
// told that the family is gone, and then nothing any more.
func (k *Kernel) Reload() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for l := range k.listeners {
		l.post(familyGone())
		delete(k.listeners, l)
	}
	clear(k.vms)
	k.journal, k.tombs, k.seq, k.lastID = nil, nil, 0, 0
	k.instance++
}

// Add puts a VM there that no daemon made.
func (k *Kernel) Add(id, name string, state abi.VMState) uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	v := k.newVM(uuid.MustParse(id), name)
	v.info.State, v.held = state, nil
	return v.info.ID
}

func (k *Kernel) accept() {
	defer k.wg.Done()
	for {
		c, err := k.listener.AcceptUnix()
		if err != nil {
			return
		}
		k.serve(c, k.device)
	}
}

// serve runs handler for each message on c until it is closed.
func (k *Kernel) serve(c *net.UnixConn, handler func(c *net.UnixConn, m message, files []*os.File) bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		c.Close()
		return
	}
	k.conns[c] = struct{}{}
	k.wg.Add(1)
	go func() {
		defer k.wg.Done()
		defer k.drop(c)
		for {
			m, files, err := receive(c)
			again := err == nil && handler(c, m, files)
			for _, f := range files {
				f.Close()
			}
			if !again {
				return
			}
		}
	}()
}

// drop is the release of a descriptor: a monitor that lets go of its own is
// gone, and a VM that nobody holds any more.
func (k *Kernel) drop(c *net.UnixConn) {
	c.Close()
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.conns, c)
	for _, v := range k.vms {
		if v.bound == c {
			k.stop(v, abi.ReasonMonitorGone, [4]uint64{})
		}
		if v.held[c] {
			delete(v.held, c)
			if len(v.held) == 0 {
				k.destroy(v)
			}
		}
	}
	k.returnAll(c)
}

// newVM lists a VM. Called with mu.
func (k *Kernel) newVM(id uuid.UUID, name string) *fakeVM {
	k.lastID++
	v := &fakeVM{vcpus: make(map[uint32]*vcpu), held: make(map[*net.UnixConn]bool), info: abi.VMInfo{ID: k.lastID,
		Created: k.now(), UUID: id, State: abi.VMStateCreated, Owner: uint32(os.Getuid())}}
	copy(v.info.Name[:abi.NameLen-1], name)
	k.vms[v.info.ID] = v
	return v
}

func (k *Kernel) now() uint64 { return uint64(time.Since(k.began)) }

// stop ends a VM once. Called with mu.
func (k *Kernel) stop(v *fakeVM, reason abi.Reason, data [4]uint64) bool {
	if v.info.State == abi.VMStateStopped {
		return false
	}
	if v.info.Paused != 0 {
		v.stats.PausedNs += uint64(time.Since(v.paused))
	}
	v.info.State, v.info.Paused, v.info.Reason, v.info.ExitData = abi.VMStateStopped, 0, reason, data
	k.tell(v, note{event: abi.EventStopped})
	k.settle()
	return true
}

// destroy takes a VM away. Called with mu.
func (k *Kernel) destroy(v *fakeVM) {
	k.stop(v, abi.ReasonDestroyed, [4]uint64{})
	delete(k.vms, v.info.ID)
	k.tell(v, note{event: abi.EventDestroyed})
}

// all returns the VMs by number. Called with mu.
func (k *Kernel) all() []*fakeVM {
	var all []*fakeVM
	for _, id := range slices.Sorted(maps.Keys(k.vms)) {
		all = append(all, k.vms[id])
	}
	return all
}

// handOut makes a descriptor of a VM with some rights: our end is served, the
// other is returned.
func (k *Kernel) handOut(v *fakeVM, rights abi.Right) (*os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	theirs := os.NewFile(uintptr(fds[1]), fmt.Sprintf("fake-vm-%d", v.info.ID))
	c, err := fileConn(os.NewFile(uintptr(fds[0]), "fake-kernel"))
	if err != nil {
		theirs.Close()
		return nil, err
	}
	k.mu.Lock()
	if v.held != nil {
		v.held[c] = true
	}
	k.mu.Unlock()
	k.serve(c, func(c *net.UnixConn, m message, files []*os.File) bool { return k.command(c, v, rights, m, files) })
	return theirs, nil
}
