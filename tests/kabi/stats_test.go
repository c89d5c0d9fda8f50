// SPDX-License-Identifier: Apache-2.0

//go:build lab

package kabi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/abi"
)

func TestStatsVM(t *testing.T) {
	m := newMachine(t, created)
	s, err := m.vm.Stats()
	ok(t, err)
	if s != (abi.VMStats{}) {
		t.Errorf("a fresh VM has %+v", s)
	}
	m.mustPause(abi.PauseOperator)
	m.mustPause(abi.PauseSnapshot) // the gate is shut already
	time.Sleep(3 * time.Millisecond)
	s, err = m.vm.Stats()
	ok(t, err)
	if s.Pauses != 1 || s.PausedNs < uint64(3*time.Millisecond) {
		t.Errorf("%d pauses of %d ns while paused", s.Pauses, s.PausedNs)
	}
	ok(t, m.vm.Resume(abi.PauseOperator))
	ok(t, m.vm.Resume(abi.PauseSnapshot))
	before, err := m.vm.Stats()
	ok(t, err)
	time.Sleep(3 * time.Millisecond)
	s, err = m.vm.Stats()
	ok(t, err)
	if s.PausedNs != before.PausedNs {
		t.Error("time of an open gate counts as paused")
	}
	ok(t, m.vm.Bind())
	m.platform()
	m.cpu = m.newVCPU(0)
	m.memory()
	ok(t, m.vm.MapMemory(region(1, 1<<20, pages(t, 8192))))
	ok(t, m.vm.MapMemory(abi.KVMUserspaceMemoryRegion{Slot: 1}))
	ok(t, m.vm.Report(abi.ReasonReset, [4]uint64{}))
	s, err = m.vm.Stats()
	ok(t, err)
	if s.Memory != memSize || s.MemoryPeak != memSize+8192 || s.MemSlots != 1 || s.Resets != 1 || s.VCPUs != 1 {
		t.Errorf("statistics %+v", s)
	}
}

func TestStatsVCPU(t *testing.T) {
	m := newMachine(t, withMem)
	_, err := m.vm.VCPUStats(1)
	wantErr(t, "a vCPU that is not there", err, unix.ENOENT)
	m.load(count)
	s, err := m.vm.VCPUStats(0)
	ok(t, err)
	if s != (abi.VCPUStats{State: abi.VCPUStateFresh}) {
		t.Errorf("a fresh vCPU has %+v", s)
	}
	done := stubborn(m.cpu)
	m.whenCounting()
	m.mustPause(abi.PauseOperator)
	m.whenVCPU(0, abi.VCPUStateParked)
	time.Sleep(3 * time.Millisecond)
	s, err = m.vm.VCPUStats(0)
	ok(t, err)
	if s.Kicks == 0 || s.Parks == 0 || s.ParkedNs < uint64(3*time.Millisecond) {
		t.Errorf("a parked vCPU has %+v", s)
	}
	m.stopNow()
	wantEnd(t, "RUN", done, unix.ESHUTDOWN)
	if s, err := m.vm.VCPUStats(0); err != nil || s.State != abi.VCPUStateOutside {
		t.Errorf("a vCPU of a stopped VM has %+v, %v", s, err)
	}
}

// kvmStat finds one number in KVM's binary statistics: see
// Documentation/virt/kvm/api.rst, 4.133.
func kvmStat(t *testing.T, blob []byte, name string) uint64 {
	t.Helper()
	h := fromBytes[abi.KVMStatsHeader](blob)
	size := 16 + int(h.NameSize)
	for i := range int(h.NumDesc) {
		d := blob[int(h.DescOffset)+i*size:][:size]
		if n, _, _ := bytes.Cut(d[16:], []byte{0}); string(n) == name {
			return binary.LittleEndian.Uint64(blob[int(h.DataOffset)+int(binary.LittleEndian.Uint32(d[8:])):])
		}
	}
	t.Fatalf("KVM has no statistic %q", name)
	return 0
}

// TestStatsKVM reads KVM's own numbers from a process that is not the monitor,
// while the vCPU runs, and after its end.
func TestStatsKVM(t *testing.T) {
	m := newMachine(t, withMem)
	m.load(outLoop(outPort))
	for range 50 {
		m.wantIO(outPort, 1)
	}
	watch, err := m.vm.Delegate(abi.RightObserve)
	ok(t, err)
	defer closeAll(t, watch)
	blob, err := watch.KVMStats(0)
	ok(t, err)
	if n := kvmStat(t, blob, "io_exits"); n < 50 {
		t.Errorf("%d port accesses, want 50 at least", n)
	}
	blob, err = watch.KVMStats(abi.StatsOfVM)
	ok(t, err)
	kvmStat(t, blob, "remote_tlb_flush")
	_, err = watch.KVMStats(7)
	wantErr(t, "a vCPU that is not there", err, unix.ENOENT)
	copy(m.mem[codeAddr:], count)
	m.start(m.cpu, codeAddr)
	done := stubborn(m.cpu)
	m.whenCounting()
	_, err = watch.KVMStats(0) // does not wait for the run
	ok(t, err)
	m.stopNow()
	wantEnd(t, "RUN", done, unix.ESHUTDOWN)
	_, err = watch.KVMStats(0)
	ok(t, err)

	fresh := newMachine(t, created)
	_, err = fresh.vm.KVMStats(abi.StatsOfVM)
	wantErr(t, "before BIND", err, unix.EBUSY)
	_, err = fresh.vm.KVMStats(0)
	wantErr(t, "no vCPU", err, unix.ENOENT)
}

// TestStatsKVMRoom gives less room than there is to read.
func TestStatsKVMRoom(t *testing.T) {
	m := newMachine(t, withVCPU)
	arg := payload(abi.StatsKVM, bytesOf(abi.KVMStats{VCPU: 0, Bytes: 100}), make([]byte, 100))
	got, _, err := newArgument(t).ioctl(m.vm.FD(), abi.IOCVMGetStats, arg)
	ok(t, err)
	if n := fromBytes[abi.KVMStats](got[8:]).Bytes; n != 100 {
		t.Errorf("%d of 100 bytes filled", n)
	}
	if h := fromBytes[abi.KVMStatsHeader](got[16:]); h.NumDesc == 0 || h.DataOffset == 0 {
		t.Errorf("header %+v", h)
	}
	huge := payload(abi.StatsKVM, bytesOf(abi.KVMStats{VCPU: 0, Bytes: ^uint32(0)}), make([]byte, 100))
	_, _, err = newArgument(t).ioctl(m.vm.FD(), abi.IOCVMGetStats, huge)
	wantErr(t, "more room than the size has", err, unix.EINVAL)
}

// TestDirtyLog finds the page that a guest wrote, and it alone.
func TestDirtyLog(t *testing.T) {
	m := newMachine(t, withMem)
	_, err := m.vm.DirtyLog(0, memSize/4096)
	ok(t, err)
	m.load(store8(0, 0x5010, 1), out8(outPort, 1))
	m.wantIO(outPort, 1)
	log, err := m.vm.DirtyLog(0, memSize/4096)
	ok(t, err)
	// KVM may count the page of the code too, when it has mapped it.
	if log[0]&^(1<<(codeAddr>>12)) != 1<<5 {
		t.Errorf("pages %#x written, want number 5", log[0])
	}
	log, err = m.vm.DirtyLog(0, memSize/4096)
	ok(t, err)
	if log[0] != 0 {
		t.Errorf("pages %#x written after the log was read", log[0])
	}
	ok(t, m.vm.MapMemory(region(1, 1<<20, pages(t, 4096))))
	for name, slot := range map[string]uint32{"slot that is not logged": 1, "no slot": 5} {
		_, err = m.vm.DirtyLog(slot, 1)
		wantErr(t, name, err, unix.ENOENT)
	}
	_, err = m.vm.DirtyLog(1<<16, 1)
	wantErr(t, "another address space", err, unix.EINVAL)
	ok(t, m.vm.Stop())
	_, err = m.vm.DirtyLog(0, memSize/4096)
	ok(t, err)
}

const tracing = "/sys/kernel/tracing"

// TestTracepoints follows a VM's life in the trace buffer.
func TestTracepoints(t *testing.T) {
	if err := unix.Mount("tracefs", tracing, "tracefs", 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
		t.Fatal(err)
	}
	write := func(file, text string) {
		t.Helper()
		ok(t, os.WriteFile(filepath.Join(tracing, file), []byte(text), 0o644))
	}
	// The processors' clocks differ by more than lies between two of these events.
	write("trace_clock", "counter")
	defer write("trace_clock", "local")
	write("trace", "")
	write("events/vmm/enable", "1")
	defer write("events/vmm/enable", "0")
	m := newMachine(t, created)
	n := m.mustAttach(diskAt(t), unix.O_RDWR)
	ok(t, m.vm.ConfigSet(abi.VMConfigSet{MaxVCPUs: 1}))
	ok(t, m.vm.Bind())
	m.cpu = m.newVCPU(0)
	_, err := m.vm.CreateVCPU(1)
	wantErr(t, "second vCPU", err, unix.ENOSPC)
	ok(t, m.cpu.MapRun())
	m.memory()
	m.load(count)
	done := stubborn(m.cpu)
	m.whenCounting()
	m.mustPause(abi.PauseOperator)
	m.whenVCPU(0, abi.VCPUStateParked)
	at := m.counter()
	ok(t, m.vm.Resume(abi.PauseOperator))
	m.whenCountedFrom(at)
	ok(t, m.vm.Detach(n))
	m.stopNow()
	wantEnd(t, "RUN", done, unix.ESHUTDOWN)
	write("events/vmm/enable", "0")
	text, err := os.ReadFile(filepath.Join(tracing, "trace"))
	ok(t, err)
	rest := string(text)
	for _, want := range []string{
		"vmm_vm_state: vm=ID state=1 reason=0", "vmm_attach: vm=ID backend=1", "vmm_vm_state: vm=ID state=2 reason=0",
		"vmm_limit: vm=ID limit=1", "vmm_vm_state: vm=ID state=3 reason=0", "vmm_vm_pause: vm=ID holders=0x1",
		"vmm_vcpu_kick: vm=ID vcpu=0", "vmm_vcpu_park: vm=ID vcpu=0", "vmm_vm_resume: vm=ID holders=0", "vmm_vcpu_unpark: vm=ID vcpu=0",
		"vmm_vm_state: vm=ID state=4 reason=1",
	} {
		want = strings.ReplaceAll(want, "ID", strconv.FormatUint(m.id, 10))
		if strings.HasPrefix(want, "vmm_vcpu_kick") {
			// The kick of the pause, before or after it is told.
			if !strings.Contains(string(text), want) {
				t.Errorf("no %q in the trace", want)
			}
			continue
		}
		_, after, found := strings.Cut(rest, want)
		if !found {
			t.Errorf("no %q at its place in the trace:\n%s", want, text)
			break
		}
		rest = after
	}
	if want := "vmm_detach: vm=" + strconv.FormatUint(m.id, 10) + " backend=1"; !strings.Contains(string(text), want) {
		t.Errorf("no %q in the trace", want)
	}
}
