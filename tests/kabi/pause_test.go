// SPDX-License-Identifier: Apache-2.0

//go:build lab

package kabi

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"vmctl/abi"
)

// Monitors that do not want to be paused, or cannot be reached as others are.

// hireCounter makes a VM whose monitor is a child that counts in memory that this
// process sees, with one vCPU, in a way that the child's role says. It returns
// the thread that runs it.
func hireCounter(t *testing.T, way string) (*machine, *child, int) {
	t.Helper()
	m := newMachine(t, created)
	mem, fd := sharedPages(t, memSize)
	m.mem = mem
	run, err := m.vm.Delegate(abi.RightRun)
	ok(t, err)
	c := startChild(t, "counter", []int{run.FD(), fd}, nil)
	closeAll(t, run)
	fmt.Fprintln(c.in, way)
	tid, err := strconv.Atoi(<-c.lines)
	ok(t, err)
	return m, c, tid
}

// roleCounter is the monitor of a counting guest.
func roleCounter() error {
	mem, err := unix.Mmap(4, 0, memSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	var way string
	if _, err := fmt.Scanln(&way); err != nil {
		return err
	}
	vm := inherited()
	if err := vm.Bind(); err != nil {
		return err
	}
	cpu, err := vm.CreateVCPU(0)
	if err != nil {
		return err
	}
	copy(mem[codeAddr:], count)
	sregs, err := cpu.Sregs()
	if err != nil {
		return err
	}
	sregs.Cs.Base, sregs.Cs.Selector = 0, 0
	if err := errors.Join(cpu.MapRun(), vm.MapMemory(region(0, 0, mem)), cpu.SetSregs(&sregs),
		cpu.SetRegs(&abi.KVMRegs{Rip: codeAddr, Rflags: 2})); err != nil {
		return err
	}
	runtime.LockOSThread()
	switch way {
	case "deaf":
		blockSignals()
	case "ring":
		if err := ringInterrupts(); err != nil {
			return err
		}
	}
	fmt.Println(unix.Gettid())
	if err := runThrough(cpu); !errors.Is(err, unix.ESHUTDOWN) {
		return fmt.Errorf("run: %w", err)
	}
	fmt.Println("shutdown")
	return nil
}

func blockSignals() {
	all := unix.Sigset_t{}
	for i := range all.Val {
		all.Val[i] = ^uint64(0)
	}
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &all, nil); err != nil {
		panic(err) // a call that cannot fail with a valid set
	}
}

// ringInterrupts gives the calling thread task work of another kind all the time:
// each byte that comes through a pipe completes a poll of an io_uring that this
// thread has set up, which KVM_RUN returns EINTR for.
func ringInterrupts() error {
	ring, err := newPollRing()
	if err != nil {
		return err
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return err
	}
	if err := ring.pollForEver(pipe[0]); err != nil {
		return err
	}
	go func() {
		for {
			// The pipe may be full, which is as good.
			_, _ = unix.Write(pipe[1], []byte{0})
			unix.Nanosleep(&unix.Timespec{Nsec: 300_000}, nil)
		}
	}()
	return nil
}

// pollRing is as much of an io_uring as one poll needs.
type pollRing struct {
	fd   int
	ring []byte
	sqes []byte
	at   [10]uint32 // offsets of the submission ring: linux/io_uring.h, io_sqring_offsets
}

func newPollRing() (*pollRing, error) {
	params := make([]byte, 120) // struct io_uring_params
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&params[0])), 0)
	if errno != 0 {
		return nil, fmt.Errorf("io_uring_setup: %w", errno)
	}
	r := &pollRing{fd: int(fd), at: fromBytes[[10]uint32](params[40:])}
	var err error
	if r.ring, err = unix.Mmap(r.fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, err
	}
	const offSQEs = 0x10000000
	r.sqes, err = unix.Mmap(r.fd, offSQEs, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return r, err
}

func (r *pollRing) close() error {
	return errors.Join(unix.Munmap(r.sqes), unix.Munmap(r.ring), unix.Close(r.fd))
}

// pollForEver submits a multi-shot poll: it completes again and again.
func (r *pollRing) pollForEver(fd int) error {
	const opPollAdd, pollMulti = 6, 1
	sqe := r.sqes[:64]
	sqe[0] = opPollAdd
	copy(sqe[4:], bytesOf(int32(fd)))
	copy(sqe[24:], bytesOf(uint32(pollMulti))) // len
	copy(sqe[28:], bytesOf(uint32(unix.POLLIN)))
	copy(r.ring[r.at[6]:], bytesOf(uint32(0))) // array[0]: the first entry
	copy(r.ring[r.at[1]:], bytesOf(uint32(1))) // tail
	n, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), 1, 0, 0, 0, 0)
	if errno != 0 || n != 1 {
		return fmt.Errorf("io_uring_enter: %d entries, %w", n, errno)
	}
	return nil
}

// pausedAndResumed pauses, looks that the guest stands, and that it goes on.
func (m *machine) pausedAndResumed() {
	m.t.Helper()
	m.whenCountedFrom(m.counter())
	m.mustPause(abi.PauseOperator)
	at := m.counter()
	time.Sleep(3 * time.Millisecond)
	if now := m.counter(); now != at {
		m.t.Errorf("the guest counted from %d to %d behind the gate", at, now)
	}
	ok(m.t, m.vm.Resume(abi.PauseOperator))
	m.whenCountedFrom(at)
}

// TestPauseUnwilling pauses monitors that block every signal, and such whose
// thread is interrupted all the time by somebody else's task work.
func TestPauseUnwilling(t *testing.T) {
	for _, way := range []string{"plain", "deaf", "ring"} {
		t.Run(way, func(t *testing.T) {
			m, c, _ := hireCounter(t, way)
			for range 20 {
				m.pausedAndResumed()
			}
			m.stopNow()
			c.want("shutdown")
			c.wait()
		})
	}
}

// TestPauseSIGSTOP pauses a monitor that is stopped, and stops one that is paused.
func TestPauseSIGSTOP(t *testing.T) {
	m, c, tid := hireCounter(t, "plain")
	m.whenCountedFrom(m.counter())
	pid := c.cmd.Process.Pid
	ok(t, unix.Kill(pid, unix.SIGSTOP))
	whenThread(t, pid, tid, "T")
	m.mustPause(abi.PauseOperator)
	at := m.counter()
	ok(t, unix.Kill(pid, unix.SIGCONT))
	m.whenVCPU(0, abi.VCPUStateParked)
	ok(t, unix.Kill(pid, unix.SIGSTOP))
	whenThread(t, pid, tid, "T")
	ok(t, m.vm.Resume(abi.PauseOperator))
	if now := m.counter(); now != at {
		t.Errorf("the guest of a stopped monitor counted from %d to %d", at, now)
	}
	ok(t, unix.Kill(pid, unix.SIGCONT))
	m.whenCountedFrom(at)
	m.pausedAndResumed()
}

// whenThread waits until a thread is in a state, by its letter in stat(5).
func whenThread(t *testing.T, pid, tid int, letter string) {
	t.Helper()
	path := fmt.Sprintf("/proc/%d/task/%d/stat", pid, tid)
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		text, err := os.ReadFile(path)
		ok(t, err)
		_, after, _ := strings.Cut(string(text), ") ")
		if strings.HasPrefix(after, letter) {
			return
		}
	}
	t.Fatalf("thread %d is not in state %s", tid, letter)
}

// TestPauseTraced pauses a monitor whose thread a debugger holds.
func TestPauseTraced(t *testing.T) {
	m, _, tid := hireCounter(t, "plain")
	m.whenCountedFrom(m.counter())
	runtime.LockOSThread() // the debugger is this thread
	defer runtime.UnlockOSThread()
	ok(t, unix.PtraceSeize(tid))
	ok(t, unix.PtraceInterrupt(tid))
	var ws unix.WaitStatus
	_, err := unix.Wait4(tid, &ws, unix.WALL, nil)
	for errors.Is(err, unix.EINTR) {
		_, err = unix.Wait4(tid, &ws, unix.WALL, nil)
	}
	ok(t, err)
	if !ws.Stopped() {
		t.Fatalf("status %#x, want stopped", ws)
	}
	m.mustPause(abi.PauseOperator)
	at := m.counter()
	ok(t, unix.PtraceDetach(tid))
	m.whenVCPU(0, abi.VCPUStateParked)
	if now := m.counter(); now != at {
		t.Errorf("the guest counted from %d to %d behind the gate", at, now)
	}
	ok(t, m.vm.Resume(abi.PauseOperator))
	m.whenCountedFrom(at)
}

// TestPauseKilled kills a monitor while it is being paused, and while it waits.
func TestPauseKilled(t *testing.T) {
	for i := range 10 {
		m, c, _ := hireCounter(t, "plain")
		m.whenCountedFrom(m.counter())
		if i%2 == 0 {
			m.mustPause(abi.PauseSnapshot)
		}
		ok(t, c.cmd.Process.Signal(unix.SIGKILL))
		_, err := pause(m.vm, abi.PauseOperator, soon())
		if err != nil {
			wantErr(t, "PAUSE of a dying monitor", err, unix.ESHUTDOWN)
		}
		m.wantGone(time.Now())
	}
}

// TestPauseFrozen freezes a paused monitor by its control group, opens the gate,
// and thaws it.
func TestPauseFrozen(t *testing.T) {
	const root = "/sys/fs/cgroup"
	if err := unix.Mount("cgroup2", root, "cgroup2", 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
		t.Fatal(err)
	}
	group := filepath.Join(root, "kabi")
	ok(t, os.Mkdir(group, 0o755))
	m, c, _ := hireCounter(t, "plain")
	defer func() {
		c.kill()
		// The group is free a moment after its last process was reaped.
		for end := time.Now().Add(5 * time.Second); os.Remove(group) != nil; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the control group stays")
			}
		}
	}()
	write := func(file, text string) {
		t.Helper()
		ok(t, os.WriteFile(filepath.Join(group, file), []byte(text), 0o644))
	}
	frozen := func(want string) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
			text, err := os.ReadFile(filepath.Join(group, "cgroup.events"))
			ok(t, err)
			if strings.Contains(string(text), "frozen "+want) {
				return
			}
		}
		t.Fatalf("not frozen %s", want)
	}
	write("cgroup.procs", strconv.Itoa(c.cmd.Process.Pid))
	m.whenCountedFrom(m.counter())
	m.mustPause(abi.PauseOperator)
	m.whenVCPU(0, abi.VCPUStateParked)
	write("cgroup.freeze", "1")
	frozen("1")
	at := m.counter()
	ok(t, m.vm.Resume(abi.PauseOperator))
	time.Sleep(3 * time.Millisecond)
	if now := m.counter(); now != at {
		t.Errorf("the guest of a frozen monitor counted from %d to %d", at, now)
	}
	write("cgroup.freeze", "0")
	m.whenCountedFrom(at)
	// The other way round: frozen in the guest, then paused.
	write("cgroup.freeze", "1")
	frozen("1")
	m.mustPause(abi.PauseOperator)
	at = m.counter()
	write("cgroup.freeze", "0")
	m.whenVCPU(0, abi.VCPUStateParked)
	if now := m.counter(); now != at {
		t.Errorf("the guest counted from %d to %d behind the gate", at, now)
	}
	ok(t, m.vm.Resume(abi.PauseOperator))
	m.whenCountedFrom(at)
}

// TestPauseSuspended suspends the machine as far as its freezer while a VM is
// paused and another runs: neither stands in the way, and both go on afterwards.
func TestPauseSuspended(t *testing.T) {
	if err := os.WriteFile("/sys/power/pm_test", []byte("freezer"), 0o644); err != nil {
		t.Fatalf("%v: the kernel cannot try a suspend", err)
	}
	defer func() { ok(t, os.WriteFile("/sys/power/pm_test", []byte("none"), 0o644)) }()
	ok(t, os.WriteFile("/sys/module/suspend/parameters/pm_test_delay", []byte("1"), 0o644))
	paused, _, _ := hireCounter(t, "deaf")
	runs, _, _ := hireCounter(t, "plain")
	paused.whenCountedFrom(paused.counter())
	runs.whenCountedFrom(runs.counter())
	paused.mustPause(abi.PauseOperator)
	at := paused.counter()
	ok(t, os.WriteFile("/sys/power/state", []byte("freeze"), 0o644))
	if now := paused.counter(); now != at {
		t.Errorf("the guest counted from %d to %d behind the gate", at, now)
	}
	runs.whenCountedFrom(runs.counter())
	runs.pausedAndResumed()
	ok(t, paused.vm.Resume(abi.PauseOperator))
	paused.whenCountedFrom(at)
}

// TestPauseBusyOutside pauses a monitor whose thread spins outside the guest: it
// is out already, and waits when it comes.
func TestPauseBusyOutside(t *testing.T) {
	m := newMachine(t, withMem)
	m.load(out8(outPort, 1), count)
	m.wantIO(outPort, 1)
	var stop atomic.Bool
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		for spins := 0; !stop.Load(); spins++ {
		}
		done <- runThrough(m.cpu)
	}()
	start := time.Now()
	p := m.mustPause(abi.PauseOperator)
	if took := time.Since(start); took > time.Second {
		t.Errorf("a pause that has nothing to wait for took %v", took)
	}
	if p.Unsettled != 1 {
		t.Errorf("%d unsettled, want 1", p.Unsettled)
	}
	stop.Store(true)
	m.whenVCPU(0, abi.VCPUStateParked)
	if n := m.counter(); n != 0 {
		t.Errorf("the guest counted to %d behind the gate", n)
	}
	ok(t, m.vm.Resume(abi.PauseOperator))
	m.whenCountedFrom(0)
	m.stopNow()
	wantEnd(t, "RUN", done, unix.ESHUTDOWN)
}

// TestPauseDeadline pauses a vCPU whose thread cannot be had: its guest's memory
// is the monitor's to bring, and it does not. The error says so, the gate stays
// shut, and the pause succeeds when the memory has come.
func TestPauseDeadline(t *testing.T) {
	m := newMachine(t, withVCPU)
	m.mem = pages(t, memSize)
	fault := pages(t, 4096)
	copy(m.mem[codeAddr:], load8(0x8000, 0, outPort))
	ok(t, m.vm.MapMemory(region(0, 0, m.mem)))
	ok(t, m.vm.MapMemory(region(1, 0x80000, fault)))
	m.start(m.cpu, codeAddr)
	uffd := newUserFault(t, fault)
	done := stubborn(m.cpu)
	m.whenVCPU(0, abi.VCPUStateRunning)
	time.Sleep(20 * time.Millisecond) // into the fault, where no state tells
	p, err := pause(m.vm, abi.PauseOperator, monotonic()+uint64(200*time.Millisecond))
	// Newer kernels let a fault of KVM be interrupted: then all is well.
	if err != nil {
		wantErr(t, "PAUSE of a thread in a fault", err, unix.ETIMEDOUT)
		if p.Running != 1 {
			t.Errorf("%d vCPUs running, want 1", p.Running)
		}
		_, err = m.vm.Pause(abi.PauseOperator, 0)
		wantErr(t, "PAUSE with a deadline in the past", err, unix.ETIMEDOUT)
	}
	if held := m.info().Paused; held != abi.PauseOperator {
		t.Errorf("held by %v", held)
	}
	uffd.serve(t)
	m.mustPause(abi.PauseOperator)
	select {
	case err := <-done:
		t.Fatalf("RUN returned %v behind the gate", err)
	case <-time.After(5 * time.Millisecond):
	}
	ok(t, m.vm.Resume(abi.PauseOperator))
	wantEnd(t, "RUN", done, nil)
	if r := m.cpu.RunArea(); r.ExitReason != abi.KVMExitIO {
		t.Errorf("exit reason %d", r.ExitReason)
	}
}

// userFault is memory of which every first access waits until it is served.
type userFault struct {
	fd  int
	mem []byte
}

// Of linux/userfaultfd.h.
const (
	uffdioAPI      = 0xc018aa3f
	uffdioRegister = 0xc020aa00
	uffdioZeropage = 0xc020aa04
)

func newUserFault(t *testing.T, mem []byte) *userFault {
	t.Helper()
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK, 0, 0)
	if errno != 0 {
		t.Fatalf("userfaultfd: %v", errno)
	}
	u := &userFault{int(fd), mem}
	t.Cleanup(func() { ok(t, unix.Close(u.fd)) })
	u.ask(t, uffdioAPI, []uint64{0xaa, 0, 0})
	u.ask(t, uffdioRegister, []uint64{addressOf(mem), uint64(len(mem)), 1, 0}) // missing pages
	return u
}

func (u *userFault) ask(t *testing.T, req uintptr, arg []uint64) {
	t.Helper()
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(u.fd), req, uintptr(unsafe.Pointer(&arg[0])))
	if errno != 0 {
		t.Fatalf("userfaultfd %#x: %v", req, errno)
	}
}

func (u *userFault) serve(t *testing.T) {
	t.Helper()
	u.ask(t, uffdioZeropage, []uint64{addressOf(u.mem), uint64(len(u.mem)), 0, 0})
}
