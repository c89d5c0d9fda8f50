// SPDX-License-Identifier: Apache-2.0

//go:build lab

package kabi

import (
	"errors"
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"vmctl/abi"
)

// What the module says about its limits is where it begins to refuse, and what
// was refused leaves no trace.

func TestLimitVMs(t *testing.T) {
	d := openDevice(t)
	l, err := d.Limits()
	ok(t, err)
	var vms []*abi.VM
	defer func() {
		for _, vm := range vms {
			closeAll(t, vm)
		}
	}()
	for uint32(len(vms)) < l.MaxVMs {
		vm, _, err := d.Create(newUUID(), "many")
		if err != nil {
			t.Fatalf("VM %d of %d: %v", len(vms)+1, l.MaxVMs, err)
		}
		vms = append(vms, vm)
	}
	files := len(openFiles())
	_, _, err = d.Create(newUUID(), "one-more")
	wantErr(t, "one more", err, unix.ENOSPC)
	if now := len(openFiles()); now != files {
		t.Errorf("%d descriptors, %d before the refusal", now, files)
	}
	ok(t, vms[0].Destroy())
	vm, _, err := d.Create(newUUID(), "room-again")
	ok(t, err)
	vms = append(vms, vm)
}

func TestLimitVCPUs(t *testing.T) {
	m := newMachine(t, bound)
	l, err := m.vm.Limits()
	ok(t, err)
	_, err = m.vm.CreateVCPU(^uint32(0))
	wantOneOf(t, "number beyond all", err, unix.EINVAL, unix.ENOSPC)
	for i := range l.MaxVCPUs {
		m.newVCPU(i)
	}
	_, err = m.vm.CreateVCPU(0)
	wantOneOf(t, "a number twice", err, unix.EEXIST, unix.ENOSPC)
	_, err = m.vm.CreateVCPU(l.MaxVCPUs)
	wantErr(t, "one more", err, unix.ENOSPC)
	if n := m.info().VCPUs; n != l.MaxVCPUs {
		t.Errorf("%d vCPUs, want %d", n, l.MaxVCPUs)
	}
}

func TestVCPUTwice(t *testing.T) {
	m := newMachine(t, withVCPU)
	_, err := m.vm.CreateVCPU(0)
	wantErr(t, "a number twice", err, unix.EEXIST)
	closeAll(t, m.cpu)
	_, err = m.vm.CreateVCPU(0)
	wantErr(t, "the number of a closed vCPU", err, unix.EEXIST)
	if n := m.info().VCPUs; n != 1 {
		t.Errorf("%d vCPUs, want 1", n)
	}
}

func TestLimitMemslots(t *testing.T) {
	m := newMachine(t, withVCPU)
	l, err := m.vm.Limits()
	ok(t, err)
	mem := pages(t, 4096)
	for i := range l.MaxMemSlots {
		if err := m.vm.MapMemory(region(i, uint64(i+1)<<12, mem)); err != nil {
			t.Fatalf("slot %d of %d: %v", i, l.MaxMemSlots, err)
		}
	}
	wantOneOf(t, "one more slot", m.vm.MapMemory(region(l.MaxMemSlots, uint64(l.MaxMemSlots+1)<<12, mem)), unix.ENOSPC, unix.EINVAL)
	ok(t, m.vm.MapMemory(abi.KVMUserspaceMemoryRegion{Slot: 3}))
	ok(t, m.vm.MapMemory(region(3, 4<<12, mem)))
}

func TestLimitMemory(t *testing.T) {
	m := newMachine(t, withMem)
	l, err := m.vm.Limits()
	ok(t, err)
	room, err := unix.Mmap(-1, 0, 1<<30, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	ok(t, err)
	defer func() { ok(t, unix.Munmap(room)) }()
	r := region(1, 1<<32, room)
	r.MemorySize = l.MaxMemory - memSize + 4096
	wantErr(t, "one page too many", m.vm.MapMemory(r), unix.ENOSPC)
	r.MemorySize = l.MaxMemory + 4096
	wantErr(t, "more than all", m.vm.MapMemory(r), unix.ENOSPC)
	if got := m.info().Memory; got != memSize {
		t.Errorf("%d bytes mapped after refusals, want %d", got, memSize)
	}
}

func TestLimitDoorbells(t *testing.T) {
	m := newMachine(t, withMem)
	l, err := m.vm.Limits()
	ok(t, err)
	bell := eventFD(t)
	door := func(i uint32) abi.KVMIOEventFD {
		return abi.KVMIOEventFD{Addr: 1<<20 + 8*uint64(i), Len: 4, FD: int32(bell)}
	}
	for i := range l.MaxDoorbells {
		if err := m.vm.MapMMIO(door(i)); err != nil {
			t.Fatalf("doorbell %d of %d: %v", i, l.MaxDoorbells, err)
		}
	}
	wantErr(t, "one more doorbell", m.vm.MapMMIO(door(l.MaxDoorbells)), unix.ENOSPC)
	gone := door(5)
	gone.Flags = abi.KVMIOEventFDFlagDeassign
	ok(t, m.vm.MapMMIO(gone))
	ok(t, m.vm.MapMMIO(door(5)))
}

// TestLimitFiles runs out of descriptors in every command that makes one.
func TestLimitFiles(t *testing.T) {
	m := newMachine(t, withVCPU)
	fresh := newMachine(t, created)
	var old unix.Rlimit
	ok(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &old))
	// All numbers below the limit are in use: fill the holes.
	low := uint64(64)
	var fill []int
	for {
		fd, err := unix.FcntlInt(uintptr(m.vm.FD()), unix.F_DUPFD_CLOEXEC, 0)
		ok(t, err)
		fill = append(fill, fd)
		if uint64(fd) >= low {
			break
		}
	}
	ok(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: low, Max: old.Max}))
	_, _, createErr := m.dev.Create(newUUID(), "no-room")
	_, openErr := m.dev.Open(m.id, abi.RightObserve)
	_, delegateErr := m.vm.Delegate(abi.RightObserve)
	_, vcpuErr := m.vm.CreateVCPU(1)
	bindErr := fresh.vm.Bind()
	ok(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &old))
	for _, fd := range fill {
		ok(t, unix.Close(fd))
	}
	wantErr(t, "VM_CREATE", createErr, unix.EMFILE)
	wantErr(t, "VM_OPEN", openErr, unix.EMFILE)
	wantErr(t, "VM_DELEGATE", delegateErr, unix.EMFILE)
	wantErr(t, "VCPU_CREATE", vcpuErr, unix.EMFILE)
	if bindErr != nil && !errors.Is(bindErr, unix.EMFILE) {
		t.Errorf("VM_BIND: %v, want success or EMFILE", bindErr)
	}
	if n := m.info().VCPUs; n != 1 {
		t.Errorf("%d vCPUs after a refusal, want 1", n)
	}
	c, err := m.vm.CreateVCPU(1)
	ok(t, err)
	closeAll(t, c)
}

// setParameter changes a parameter of the module, until the test ends.
func setParameter(t *testing.T, name, value string) {
	t.Helper()
	path := "/sys/module/vmm/parameters/" + name
	old, err := os.ReadFile(path)
	ok(t, err)
	ok(t, os.WriteFile(path, []byte(value), 0o644))
	t.Cleanup(func() { ok(t, os.WriteFile(path, old, 0o644)) })
}

// TestConfigSet lowers the limits of one VM.
func TestConfigSet(t *testing.T) {
	m := newMachine(t, created)
	host, err := m.dev.Limits()
	ok(t, err)
	ok(t, m.vm.ConfigSet(abi.VMConfigSet{MaxVCPUs: 2, MaxMemSlots: 3, MaxDoorbells: 2, MaxBackends: 1, MaxMemory: memSize}))
	ok(t, m.vm.ConfigSet(abi.VMConfigSet{MaxVCPUs: 1})) // leaves the others
	l, err := m.vm.Limits()
	ok(t, err)
	want := host
	want.MaxVCPUs, want.MaxMemSlots, want.MaxDoorbells, want.MaxBackends, want.MaxMemory = 1, 3, 2, 1, memSize
	if l != want {
		t.Errorf("limits %+v, want %+v", l, want)
	}
	for name, c := range map[string]abi.VMConfigSet{
		"vcpus": {MaxVCPUs: host.MaxVCPUs + 1}, "memslots": {MaxMemSlots: host.MaxMemSlots + 1},
		"doorbells": {MaxDoorbells: host.MaxDoorbells + 1}, "backends": {MaxBackends: host.MaxBackends + 1},
		"memory": {MaxMemory: host.MaxMemory + 1},
	} {
		wantErr(t, name+" above the host's", m.vm.ConfigSet(c), unix.ENOSPC)
	}
	m.mustAttach(diskAt(t), unix.O_RDWR)
	_, err = m.attach(diskAt(t), unix.O_RDWR)
	wantErr(t, "second backend", err, unix.ENOSPC)
	ok(t, m.vm.Bind())
	m.platform()
	m.cpu = m.newVCPU(0)
	_, err = m.vm.CreateVCPU(1)
	wantErr(t, "second vCPU", err, unix.ENOSPC)
	wantErr(t, "slot 3", m.vm.MapMemory(region(3, 0, pages(t, 4096))), unix.ENOSPC)
	m.memory()
	wantErr(t, "one page more", m.vm.MapMemory(region(1, 1<<20, pages(t, 4096))), unix.ENOSPC)
	for i := range uint64(3) {
		err := m.vm.MapMMIO(abi.KVMIOEventFD{Addr: 1<<20 + 8*i, Len: 4, FD: int32(eventFD(t))})
		if i < 2 {
			ok(t, err)
		} else {
			wantErr(t, "third doorbell", err, unix.ENOSPC)
		}
	}
	s, err := m.vm.Stats()
	ok(t, err)
	if s.LimitHits != 5 || s.Backends != 1 || s.VCPUs != 1 || s.MemSlots != 1 || s.Doorbells != 2 || s.Memory != memSize {
		t.Errorf("statistics %+v", s)
	}
}

// TestLimitsOfHost changes the module's parameters under VMs: they hold for what
// comes after.
func TestLimitsOfHost(t *testing.T) {
	a, b := newMachine(t, withVCPU), newMachine(t, bound)
	setParameter(t, "host_vcpus", "2")
	b.newVCPU(0)
	_, err := a.vm.CreateVCPU(1)
	wantErr(t, "third vCPU of the host", err, unix.ENOSPC)
	c := newMachine(t, bound)
	_, err = c.vm.CreateVCPU(0)
	wantErr(t, "vCPU of another VM", err, unix.ENOSPC)
	setParameter(t, "host_vcpus", "3")
	c.newVCPU(0)
	ok(t, a.cpu.Close()) // KVM keeps it
	_, err = b.vm.CreateVCPU(1)
	wantErr(t, "fourth vCPU of the host", err, unix.ENOSPC)
	ok(t, a.vm.Close())
	b.newVCPU(1)

	setParameter(t, "host_memory", strconv.Itoa(memSize+4096))
	ok(t, b.vm.MapMemory(region(0, 0, pages(t, memSize))))
	wantErr(t, "memory of another VM", c.vm.MapMemory(region(0, 0, pages(t, 8192))), unix.ENOSPC)
	ok(t, c.vm.MapMemory(region(0, 0, pages(t, 4096))))
	wantErr(t, "one page more", c.vm.MapMemory(region(1, 1<<20, pages(t, 4096))), unix.ENOSPC)
	ok(t, b.vm.MapMemory(abi.KVMUserspaceMemoryRegion{}))
	ok(t, c.vm.MapMemory(region(1, 1<<20, pages(t, 4096))))

	setParameter(t, "max_memslots", "1")
	wantErr(t, "slot beyond the new limit", c.vm.MapMemory(region(2, 2<<20, pages(t, 4096))), unix.ENOSPC)
	ok(t, c.vm.MapMemory(abi.KVMUserspaceMemoryRegion{Slot: 1})) // what is there can go
	setParameter(t, "max_vms", "2")
	_, _, err = a.dev.Create(newUUID(), "third")
	wantErr(t, "third VM", err, unix.ENOSPC)
}

// TestParametersRefuse writes what no limit can be.
func TestParametersRefuse(t *testing.T) {
	for name, values := range map[string][]string{
		"max_vms": {"0", "-1", "4294967296", "x", ""}, "max_memslots": {"0", "32765"}, "max_memory": {"0", "9223372036854775808", "-1"},
	} {
		path := "/sys/module/vmm/parameters/" + name
		before, err := os.ReadFile(path)
		ok(t, err)
		for _, v := range values {
			if err := os.WriteFile(path, []byte(v), 0o644); err == nil && v != "" {
				t.Errorf("%s took %q", name, v)
			}
		}
		after, err := os.ReadFile(path)
		ok(t, err)
		if string(after) != string(before) {
			t.Errorf("%s went from %s to %s", name, before, after)
		}
	}
}
