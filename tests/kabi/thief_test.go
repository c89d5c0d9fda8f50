// SPDX-License-Identifier: Apache-2.0

//go:build lab

package kabi

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"vmctl/abi"
)

// A thief is a thread of a hostile monitor that duplicates every descriptor
// number in sight while another thread binds VMs and makes vCPUs, so as to catch
// what KVM installs for a moment. A caught VM is a hole in everything; a caught
// vCPU must end the VM as tampered before it has a guest to run.

// thieves share the window of numbers that the next descriptors get.
type thieves struct {
	from, to int
	busy     atomic.Bool
	start    [thiefCount]chan struct{} // closed at the end
	ready    chan struct{}             // one is at it
	loot     chan []int                // what one has got
}

const (
	thiefCount = 2
	lootFrom   = 4096 // duplicates go to numbers from here on
	lootMost   = 64   // by one thief in one round
)

// newThieves hires them. They hold their threads in bare system calls, so there
// must be more threads for Go code than they take.
func newThieves(t *testing.T) *thieves {
	old := runtime.GOMAXPROCS(thiefCount + 2)
	t.Cleanup(func() { runtime.GOMAXPROCS(old) })
	s := &thieves{ready: make(chan struct{}, thiefCount), loot: make(chan []int, thiefCount)}
	for i := range s.start {
		s.start[i] = make(chan struct{})
		go s.steal(s.start[i])
	}
	return s
}

// steal duplicates in a loop, from each start until nobody is busy.
func (s *thieves) steal(start <-chan struct{}) {
	runtime.LockOSThread()
	for range start {
		var loot []int
		s.ready <- struct{}{}
		for s.busy.Load() {
			for fd := s.from; fd < s.to && len(loot) < lootMost; fd++ {
				got, _, errno := unix.RawSyscall(unix.SYS_FCNTL, uintptr(fd), unix.F_DUPFD_CLOEXEC, lootFrom)
				if errno == 0 {
					loot = append(loot, int(got))
				}
			}
		}
		s.loot <- loot
	}
}

// during lets the thieves steal while f works with the numbers from on, and
// returns what they have got.
func (s *thieves) during(from, width int, f func()) []int {
	s.from, s.to = from, from+width
	s.busy.Store(true)
	for _, c := range s.start {
		c <- struct{}{}
	}
	for range s.start {
		<-s.ready
	}
	f()
	s.busy.Store(false)
	var all []int
	for range s.start {
		all = append(all, <-s.loot...)
	}
	return all
}

func (s *thieves) end() {
	for _, c := range s.start {
		close(c)
	}
}

// raw tells whether a descriptor is KVM's own, and of which kind, and closes it.
func raw(t *testing.T, fd int) string {
	t.Helper()
	name, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	ok(t, err)
	ok(t, unix.Close(fd))
	if strings.Contains(name, "kvm-vm") {
		return "vm"
	}
	if strings.Contains(name, "kvm-vcpu") {
		return "vcpu"
	}
	return ""
}

// nextFD is the lowest number that is free.
func nextFD(t *testing.T) int {
	t.Helper()
	fd, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 0)
	ok(t, err)
	ok(t, unix.Close(fd))
	return fd
}

// TestThief binds VMs and makes vCPUs under the eyes of thieves.
func TestThief(t *testing.T) {
	wanted := 400
	if text := os.Getenv("VMM_THEFTS"); text != "" {
		var err error
		wanted, err = strconv.Atoi(text)
		ok(t, err)
	}
	const vcpus = 7 // of each VM
	made := 0
	d := openDevice(t)
	s := newThieves(t)
	defer s.end()
	var vmsCaught, vcpusCaught, undetected, tampered, dups int
	for made < wanted {
		vm, _, err := d.Create(newUUID(), "prey")
		ok(t, err)
		var bindErr, vcpuErr error
		var cpus []*abi.VCPU
		loot := s.during(nextFD(t), 3+vcpus, func() {
			bindErr = vm.Bind()
			for i := uint32(0); i < vcpus && bindErr == nil && vcpuErr == nil; i++ {
				var cpu *abi.VCPU
				if cpu, vcpuErr = vm.CreateVCPU(i); vcpuErr == nil {
					cpus = append(cpus, cpu)
				}
			}
		})
		ok(t, bindErr)
		made += 1 + len(cpus)
		i, err := vm.Info()
		ok(t, err)
		isTampered := i.State == abi.VMStateStopped && i.Reason == abi.ReasonTampered
		if isTampered {
			tampered++
		} else if vcpuErr != nil {
			t.Fatalf("VCPU_CREATE: %v, state %v reason %v", vcpuErr, i.State, i.Reason)
		}
		dups += len(loot)
		for _, fd := range loot {
			switch raw(t, fd) {
			case "vm":
				vmsCaught++
			case "vcpu":
				vcpusCaught++
				if !isTampered {
					undetected++
				}
			}
		}
		for _, cpu := range cpus {
			closeAll(t, cpu)
		}
		closeAll(t, vm)
	}
	t.Logf("%d creations, %d duplicates: %d VMs caught, %d vCPU descriptors caught for a moment, %d VMs stopped as tampered, %d undetected",
		made, dups, vmsCaught, vcpusCaught, tampered, undetected)
	if vmsCaught > 0 {
		t.Errorf("%d raw VM descriptors were caught", vmsCaught)
	}
	if undetected > 0 {
		t.Errorf("%d raw vCPU descriptors were caught unnoticed", undetected)
	}
}

// TestMischief lets threads of a child close and replace the numbers under a
// VCPU_CREATE. Whatever comes of it, the kernel goes on, and no VM that is not
// stopped has a descriptor of KVM beside it.
func TestMischief(t *testing.T) {
	c := startChild(t, "mischief", nil, nil)
	c.want("done")
	c.wait()
}

func roleMischief() error {
	runtime.GOMAXPROCS(4) // two vandals never rest
	d, err := abi.OpenDevice(abi.DevicePath)
	if err != nil {
		return err
	}
	null, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	var target atomic.Int32
	var stop atomic.Bool
	ended := make(chan struct{}, 2)
	vandal := func(f func(fd uintptr)) {
		runtime.LockOSThread()
		for !stop.Load() {
			if fd := target.Load(); fd > 0 {
				f(uintptr(fd))
			}
		}
		ended <- struct{}{}
	}
	go vandal(func(fd uintptr) { unix.RawSyscall(unix.SYS_CLOSE, fd, 0, 0) })
	go vandal(func(fd uintptr) { unix.RawSyscall(unix.SYS_DUP3, uintptr(null), fd, unix.O_CLOEXEC) })
	for range 100 {
		// A late vandal may hit the next VM's own descriptor.
		err := vandalised(d, &target)
		if err != nil && !errors.Is(err, unix.EBADF) && !errors.Is(err, unix.ENOTTY) {
			stop.Store(true)
			return err
		}
	}
	stop.Store(true)
	<-ended
	<-ended
	fmt.Println("done")
	return nil
}

// vandalised makes one vCPU while the numbers that it gets are being closed and
// replaced.
func vandalised(d *abi.Device, target *atomic.Int32) error {
	vm, _, err := d.Create(newUUID(), "mischief")
	if err != nil {
		return err
	}
	if err := vm.Bind(); err != nil {
		return err
	}
	free, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Close(free); err != nil {
		return err
	}
	target.Store(int32(free))
	_, vcpuErr := vm.CreateVCPU(0)
	target.Store(0)
	for fd := free; fd < free+4; fd++ {
		name, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
		if err != nil {
			continue
		}
		i, err := vm.Info()
		if err != nil {
			return err
		}
		if strings.Contains(name, "kvm-") && i.Reason != abi.ReasonTampered {
			return fmt.Errorf("descriptor %d is %s, the VM is %v %v, VCPU_CREATE said %w", fd, name, i.State, i.Reason, vcpuErr)
		}
		if err := unix.Close(fd); err != nil && !errors.Is(err, unix.EBADF) {
			return err
		}
	}
	return vm.Close()
}
