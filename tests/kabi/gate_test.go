// SPDX-License-Identifier: Apache-2.0

//go:build lab

package kabi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/abi"
)

// The gate: after VM_PAUSE has returned 0, no guest instruction begins until the
// last holder resumes, whatever the threads of the monitor do.

// soon is the deadline of a pause that must not need it: far more than an
// emulated machine under load takes.
func soon() uint64 { return monotonic() + uint64(20*time.Second) }

// monotonic is CLOCK_MONOTONIC in nanoseconds.
func monotonic() uint64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err) // a clock that every kernel has
	}
	return uint64(ts.Nano())
}

// pause pauses, again when a signal of the Go runtime comes between.
func pause(vm *abi.VM, holder abi.Pause, deadline uint64) (abi.Paused, error) {
	for {
		p, err := vm.Pause(holder, deadline)
		if !errors.Is(err, unix.EINTR) {
			return p, err
		}
	}
}

// mustPause pauses a VM whose threads can all be had.
func (m *machine) mustPause(holder abi.Pause) abi.Paused {
	m.t.Helper()
	p, err := pause(m.vm, holder, soon())
	ok(m.t, err)
	if p.Running != 0 {
		m.t.Errorf("%d vCPUs run in a paused VM", p.Running)
	}
	return p
}

const maxCounters = 8

// counterAt is the counter of a vCPU.
func counterAt(mem []byte, i int) uint32 { return binary.LittleEndian.Uint32(mem[dataAddr+4*i:]) }

// counters are those of all vCPUs.
func counters(mem []byte) (c [maxCounters]uint32) {
	for i := range c {
		c[i] = counterAt(mem, i)
	}
	return c
}

// countAt is: inc dword [dataAddr+4*i]; jmp back.
func countAt(i int) []byte {
	at := dataAddr + 4*i
	return []byte{0x66, 0xff, 0x06, byte(at), byte(at >> 8), 0xeb, 0xf9}
}

// sharedPages is guest memory that children can see too, by its descriptor.
func sharedPages(t testing.TB, size int) ([]byte, int) {
	t.Helper()
	fd, err := unix.MemfdCreate("kabi-memory", unix.MFD_CLOEXEC)
	ok(t, err)
	t.Cleanup(func() { ok(t, unix.Close(fd)) })
	ok(t, unix.Ftruncate(fd, int64(size)))
	mem, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	ok(t, err)
	t.Cleanup(func() { ok(t, unix.Munmap(mem)) })
	return mem, fd
}

// counting is a VM of several vCPUs, each of which counts in a loop, with a thread
// of its own.
type counting struct {
	*machine
	memFD int
	done  []<-chan error
}

func newCounting(t *testing.T, cpus int) *counting {
	t.Helper()
	m := &counting{machine: newMachine(t, withVCPU)}
	all := []*abi.VCPU{m.cpu}
	for i := 1; i < cpus; i++ {
		all = append(all, m.newVCPU(uint32(i)))
	}
	m.mem, m.memFD = sharedPages(t, memSize)
	ok(t, m.vm.MapMemory(region(0, 0, m.mem)))
	for i, c := range all {
		addr := codeAddr + 16*i
		copy(m.mem[addr:], countAt(i))
		m.start(c, uint64(addr))
		m.done = append(m.done, stubborn(c))
	}
	return m
}

// whenAllCounted waits until every counter has moved on from before.
func (m *counting) whenAllCounted(before [maxCounters]uint32) {
	m.t.Helper()
	for i := range m.done {
		for end := time.Now().Add(20 * time.Second); counterAt(m.mem, i) == before[i]; time.Sleep(100 * time.Microsecond) {
			if time.Now().After(end) {
				m.t.Fatalf("vCPU %d does not run", i)
			}
		}
	}
}

func (m *counting) end() {
	m.t.Helper()
	m.stopNow()
	for i, d := range m.done {
		wantEnd(m.t, fmt.Sprintf("RUN of vCPU %d", i), d, unix.ESHUTDOWN)
	}
}

// rounds is how often the gate is hammered.
func rounds(t testing.TB) int {
	t.Helper()
	text := os.Getenv("VMM_ROUNDS")
	if text == "" {
		return 500
	}
	n, err := strconv.Atoi(text)
	ok(t, err)
	return n
}

// TestPauseHammer pauses and resumes eight counting vCPUs from two processes, as
// two holders. Whoever holds the gate sees no counter move.
func TestPauseHammer(t *testing.T) {
	m := newCounting(t, maxCounters)
	m.whenAllCounted([maxCounters]uint32{})
	control, err := m.vm.Delegate(abi.RightControl)
	ok(t, err)
	c := startChild(t, "hammer", []int{control.FD(), m.memFD}, nil)
	closeAll(t, control)
	n := rounds(t)
	fmt.Fprintln(c.in, n)
	before := counters(m.mem)
	ok(t, hammer(m.vm, m.mem, abi.PauseOperator, n))
	c.want("done")
	c.wait()
	m.whenAllCounted(before)
	if p := m.info().Paused; p != 0 {
		t.Errorf("held by %v after the last resume", p)
	}
	s, err := m.vm.Stats()
	ok(t, err)
	if s.Pauses == 0 || s.PausedNs == 0 {
		t.Errorf("statistics say %d pauses, %d ns", s.Pauses, s.PausedNs)
	}
	m.end()
}

// hammer pauses and resumes, and looks for counters that move in between.
func hammer(vm *abi.VM, mem []byte, holder abi.Pause, n int) error {
	rng := rand.New(rand.NewPCG(uint64(holder), 7))
	for i := range n {
		p, err := pause(vm, holder, soon())
		if err != nil {
			return fmt.Errorf("round %d: %w, %d running", i, err, p.Running)
		}
		before := counters(mem)
		for range rng.IntN(20) {
			unix.Nanosleep(&unix.Timespec{Nsec: 20_000}, nil)
		}
		if after := counters(mem); after != before {
			return fmt.Errorf("round %d: counters moved from %v to %v behind the gate", i, before, after)
		}
		if err := vm.Resume(holder); err != nil {
			return fmt.Errorf("round %d: %w", i, err)
		}
		for range rng.IntN(10) {
			runtime.Gosched()
		}
	}
	return nil
}

// roleHammer hammers a VM that another process runs.
func roleHammer() error {
	mem, err := unix.Mmap(4, 0, memSize, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	var n int
	if _, err := fmt.Scanln(&n); err != nil {
		return err
	}
	if err := hammer(inherited(), mem, abi.PauseSnapshot, n); err != nil {
		return err
	}
	fmt.Println("done")
	return nil
}

// TestPauseHolders shows that the gate opens with the last holder, and that
// holders do not count.
func TestPauseHolders(t *testing.T) {
	m := newCounting(t, 2)
	m.whenAllCounted([maxCounters]uint32{})
	m.mustPause(abi.PauseOperator)
	m.mustPause(abi.PauseOperator) // waits again, and holds it once
	m.mustPause(abi.PauseSnapshot)
	if p := m.info().Paused; p != abi.PauseAll {
		t.Errorf("held by %v, want both", p)
	}
	at := counters(m.mem)
	ok(t, m.vm.Resume(abi.PauseOperator))
	wantErr(t, "second RESUME of a holder", m.vm.Resume(abi.PauseOperator), unix.EALREADY)
	time.Sleep(5 * time.Millisecond)
	if now := counters(m.mem); now != at {
		t.Errorf("counters moved from %v to %v while one holder is left", at, now)
	}
	ok(t, m.vm.Resume(abi.PauseSnapshot))
	m.whenAllCounted(at)
	wantErr(t, "RESUME of an open gate", m.vm.Resume(abi.PauseSnapshot), unix.EALREADY)
	m.end()
}

func TestPauseRefuses(t *testing.T) {
	m := newMachine(t, withMem)
	for _, holder := range []abi.Pause{0, abi.PauseAll, 4, 1 << 31} {
		_, err := m.vm.Pause(holder, abi.Forever)
		wantErr(t, fmt.Sprintf("PAUSE as %v", holder), err, unix.EINVAL)
		wantErr(t, fmt.Sprintf("RESUME as %v", holder), m.vm.Resume(holder), unix.EINVAL)
	}
	if p := m.info().Paused; p != 0 {
		t.Errorf("held by %v after refusals", p)
	}
}

// TestPauseStages pauses VMs that do not run yet: what comes later waits.
func TestPauseStages(t *testing.T) {
	m := newMachine(t, created)
	m.mustPause(abi.PauseOperator)
	ok(t, m.vm.Bind())
	m.platform()
	m.cpu = m.newVCPU(0)
	ok(t, m.cpu.MapRun())
	m.memory()
	m.load(count)
	done := stubborn(m.cpu)
	m.whenVCPU(0, abi.VCPUStateParked)
	if n := m.counter(); n != 0 {
		t.Errorf("the guest of a paused VM counted to %d", n)
	}
	m.wantState(abi.VMStateBound, abi.ReasonNone)
	ok(t, m.vm.Resume(abi.PauseOperator))
	m.whenCountedFrom(0)
	m.stopNow()
	wantEnd(t, "RUN", done, unix.ESHUTDOWN)
}

// whenVCPU waits until a vCPU is in a state.
func (m *machine) whenVCPU(index uint32, want abi.VCPUState) {
	m.t.Helper()
	var s abi.VCPUStats
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Microsecond) {
		var err error
		s, err = m.vm.VCPUStats(index)
		ok(m.t, err)
		if s.State == want {
			return
		}
	}
	m.t.Fatalf("vCPU %d is %v, want %v", index, s.State, want)
}

// TestPauseWaiting pauses a guest that waits in the kernel for an interrupt.
func TestPauseWaiting(t *testing.T) {
	m := newMachine(t, withMem)
	m.load(out8(outPort, 1), cli, hlt)
	m.wantIO(outPort, 1)
	done := stubborn(m.cpu)
	m.whenVCPU(0, abi.VCPUStateRunning)
	m.mustPause(abi.PauseOperator)
	m.whenVCPU(0, abi.VCPUStateParked)
	// The registers of a parked vCPU can be had.
	_, err := m.cpu.Regs()
	ok(t, err)
	ok(t, m.vm.Resume(abi.PauseOperator))
	m.whenVCPU(0, abi.VCPUStateRunning)
	m.stopNow()
	wantEnd(t, "RUN", done, unix.ESHUTDOWN)
}

// TestPauseOutside pauses a VM whose monitor holds an exit that it has not
// completed. VCPU_RUN completes it behind the gate and waits there: the guest's
// next instruction, which counts, does not come.
func TestPauseOutside(t *testing.T) {
	m := newMachine(t, withMem)
	m.load(in8(outPort)[:2], count)
	if r := m.run(); r.ExitReason != abi.KVMExitIO || r.IO().Direction != abi.KVMExitIOIn {
		t.Fatalf("exit reason %d, want a port read", r.ExitReason)
	}
	if p := m.mustPause(abi.PauseOperator); p.Unsettled != 1 {
		t.Errorf("%d vCPUs unsettled, want 1", p.Unsettled)
	}
	m.cpu.IOData()[0] = 0x5a
	done := stubborn(m.cpu)
	m.whenVCPU(0, abi.VCPUStateParked)
	if p := m.mustPause(abi.PauseSnapshot); p.Unsettled != 0 {
		t.Errorf("%d vCPUs unsettled after RUN, want 0", p.Unsettled)
	}
	r, err := m.cpu.Regs()
	ok(t, err)
	if r.Rax&0xff != 0x5a || r.Rip != codeAddr+2 {
		t.Errorf("rax %#x rip %#x: the access was not completed", r.Rax, r.Rip)
	}
	if n := m.counter(); n != 0 {
		t.Errorf("the guest counted to %d behind the gate", n)
	}
	ok(t, m.vm.Resume(abi.PauseOperator))
	ok(t, m.vm.Resume(abi.PauseSnapshot))
	m.whenCountedFrom(0)
	m.stopNow()
	wantEnd(t, "RUN", done, unix.ESHUTDOWN)
}

// TestPausePieces does the same with an access that KVM gives to the monitor in
// pieces: each piece is an exit of its own, also behind the gate.
func TestPausePieces(t *testing.T) {
	m := newMachine(t, withMem)
	// A doubleword beyond the memory that crosses a page.
	m.load(storeLong(0x2000, 0x0ffe, 0x11223344), count)
	if r := m.run(); r.ExitReason != abi.KVMExitMMIO {
		t.Fatalf("exit reason %d, want MMIO", r.ExitReason)
	}
	m.mustPause(abi.PauseOperator)
	// The rest of the access, perhaps none on this kernel.
	done := stubborn(m.cpu)
	for exits := 0; !m.parkedOr(done); exits++ {
		if r := m.cpu.RunArea().ExitReason; r != abi.KVMExitMMIO || exits > 4 {
			t.Fatalf("exit reason %d", r)
		}
		done = stubborn(m.cpu)
	}
	if n := m.counter(); n != 0 {
		t.Errorf("the guest counted to %d behind the gate", n)
	}
	m.stopNow()
	wantEnd(t, "RUN", done, unix.ESHUTDOWN)
}

// parkedOr waits until the thread of vCPU 0 waits at the gate, or has come back
// with an exit, for which it reports false.
func (m *machine) parkedOr(done <-chan error) bool {
	m.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		select {
		case err := <-done:
			ok(m.t, err)
			return false
		case <-time.After(time.Millisecond):
		}
		if s, err := m.vm.VCPUStats(0); err != nil || s.State == abi.VCPUStateParked {
			ok(m.t, err)
			return true
		}
	}
	m.t.Fatal("the thread neither waits nor comes back")
	return false
}

// TestParkedKick shows that a kick reaches who waits at the gate, and a signal
// does what it does to every waiting system call.
func TestParkedKick(t *testing.T) {
	m := newMachine(t, withMem)
	m.load(count)
	m.mustPause(abi.PauseOperator)
	for range 20 {
		done := runner(m.cpu)
		ok(t, m.cpu.Kick())
		wantEnd(t, "kicked RUN", done, unix.EINTR)
	}
	if n := m.counter(); n != 0 {
		t.Errorf("the guest counted to %d behind the gate", n)
	}
}

// TestParkedTwice gives VCPU_RUN from a second thread while the first waits at the
// gate.
func TestParkedTwice(t *testing.T) {
	m := newMachine(t, withMem)
	m.load(count)
	m.mustPause(abi.PauseOperator)
	done := stubborn(m.cpu)
	m.whenVCPU(0, abi.VCPUStateParked)
	wantOneOf(t, "second RUN", m.cpu.Run(), unix.EBUSY, unix.EINTR)
	ok(t, m.vm.Resume(abi.PauseOperator))
	m.whenCountedFrom(0)
	wantErr(t, "second RUN of an open gate", m.cpu.Run(), unix.EBUSY)
	m.stopNow()
	wantEnd(t, "RUN", done, unix.ESHUTDOWN)
}

// TestPauseStop stops a VM whose thread waits at the gate.
func TestPauseStop(t *testing.T) {
	m := newMachine(t, withMem)
	m.load(count)
	m.mustPause(abi.PauseOperator)
	done := stubborn(m.cpu)
	m.whenVCPU(0, abi.VCPUStateParked)
	m.stopNow()
	wantEnd(t, "RUN of a stopped VM", done, unix.ESHUTDOWN)
	_, err := m.vm.Pause(abi.PauseOperator, abi.Forever)
	wantErr(t, "PAUSE of a stopped VM", err, unix.ESHUTDOWN)
	if p := m.info().Paused; p != 0 {
		t.Errorf("a stopped VM is held by %v", p)
	}
}

// TestVCPUPause shuts the gate of one vCPU; the other runs on.
func TestVCPUPause(t *testing.T) {
	m := newCounting(t, 1)
	m.whenAllCounted([maxCounters]uint32{})
	err := m.cpu.Pause()
	for errors.Is(err, unix.EINTR) {
		err = m.cpu.Pause()
	}
	ok(t, err)
	at := m.counter()
	time.Sleep(3 * time.Millisecond)
	if now := m.counter(); now != at {
		t.Errorf("the guest counted from %d to %d behind its gate", at, now)
	}
	// The two gates are two.
	m.mustPause(abi.PauseOperator)
	ok(t, m.cpu.Resume())
	wantErr(t, "second VCPU_RESUME", m.cpu.Resume(), unix.EALREADY)
	ok(t, m.cpu.Pause())
	ok(t, m.vm.Resume(abi.PauseOperator))
	time.Sleep(3 * time.Millisecond)
	if now := m.counter(); now != at {
		t.Errorf("the guest counted from %d to %d behind one of two gates", at, now)
	}
	ok(t, m.cpu.Resume())
	m.whenCountedFrom(at)
	m.end()
}
