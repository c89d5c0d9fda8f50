// SPDX-License-Identifier: Apache-2.0

//go:build lab

package kabi

import (
	"errors"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/abi"
	"vmctl/tools/lab/wire"
)

// goneTime is how soon the end of a monitor must be known.
const goneTime = time.Second

// hireMonitor makes a VM whose monitor is a child in some role, which got a
// descriptor of its own that may only run.
func hireMonitor(t *testing.T, role string) (*machine, *child) {
	t.Helper()
	m := newMachine(t, created)
	run, err := m.vm.Delegate(abi.RightRun)
	ok(t, err)
	c := startChild(t, role, []int{run.FD()}, nil)
	closeAll(t, run)
	return m, c
}

// hireRunner is hireMonitor, and the guest runs.
func hireRunner(t *testing.T, role string) (*machine, *child) {
	t.Helper()
	m, c := hireMonitor(t, role)
	c.want("running")
	for end := time.Now().Add(10 * time.Second); m.info().State != abi.VMStateRunning; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("state %v, want running", m.info().State)
		}
	}
	return m, c
}

// wantGone waits for the VM to be stopped because its monitor went away.
func (m *machine) wantGone(since time.Time) {
	m.t.Helper()
	stop, err := m.vm.Poll(10_000)
	for errors.Is(err, unix.EINTR) {
		stop, err = m.vm.Poll(10_000)
	}
	ok(m.t, err)
	if !stop {
		m.t.Fatal("the VM still runs after 10 s")
	}
	if took := time.Since(since); took > goneTime {
		m.t.Errorf("known after %v, want less than %v", took, goneTime)
	}
	m.wantState(abi.VMStateStopped, abi.ReasonMonitorGone)
}

func TestMonitorKilled(t *testing.T) {
	m, c := hireRunner(t, "monitor")
	if got := m.info().Monitor; got != uint32(c.cmd.Process.Pid) {
		t.Errorf("monitor %d, want %d", got, c.cmd.Process.Pid)
	}
	start := time.Now()
	ok(t, c.cmd.Process.Signal(unix.SIGKILL))
	m.wantGone(start)
}

// TestMonitorStoppedFromOutside ends a VM that the caller does not run.
func TestMonitorStoppedFromOutside(t *testing.T) {
	m, c := hireRunner(t, "monitor")
	m.stopNow()
	c.want("shutdown")
	c.wait()
	m.wantState(abi.VMStateStopped, abi.ReasonOperator)
}

// TestMonitorExec shows that a monitor that becomes another program is gone,
// though the process and its descriptor live on.
func TestMonitorExec(t *testing.T) {
	m, c := hireMonitor(t, "monitor-exec")
	c.want("exec")
	m.wantGone(time.Now())
	ok(t, c.cmd.Process.Signal(unix.Signal(0)))
	ok(t, c.in.Close())
	c.wait()
}

// TestMonitorHeir shows that duplicates in another process keep nothing alive
// once the monitor is dead.
func TestMonitorHeir(t *testing.T) {
	m, c := hireRunner(t, "monitor-heir")
	start := time.Now()
	ok(t, c.cmd.Process.Signal(unix.SIGKILL))
	m.wantGone(start)
	if stop, err := m.vm.Poll(0); err != nil || !stop {
		t.Errorf("stopped %v, %v", stop, err)
	}
	ok(t, c.in.Close())
}

// TestMonitorCloses closes the descriptor that did VM_BIND, under a vCPU that
// runs.
func TestMonitorCloses(t *testing.T) {
	m := newMachine(t, created)
	run, err := m.vm.Delegate(abi.RightRun)
	ok(t, err)
	ok(t, run.Bind())
	cpu, err := run.CreateVCPU(0)
	ok(t, err)
	defer closeAll(t, cpu)
	ok(t, cpu.MapRun())
	m.cpu, m.mem = cpu, pages(t, memSize)
	ok(t, run.MapMemory(region(0, 0, m.mem)))
	m.load(count)
	done := runner(cpu)
	m.whenCounting()

	dup, err := unix.FcntlInt(uintptr(run.FD()), unix.F_DUPFD_CLOEXEC, 0)
	ok(t, err)
	closeAll(t, run)
	m.wantState(abi.VMStateRunning, abi.ReasonNone)

	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	ok(t, err)
	ok(t, unix.Sendmsg(pair[0], []byte{0}, unix.UnixRights(dup), nil, 0))
	ok(t, unix.Close(dup))
	m.wantState(abi.VMStateRunning, abi.ReasonNone) // it is on its way

	start := time.Now()
	ok(t, unix.Close(pair[0]))
	ok(t, unix.Close(pair[1]))
	m.wantGone(start)
	wantEnd(t, "RUN after the descriptor was closed", done, unix.ESHUTDOWN)
}

// TestMonitorLives shows that a monitor alone keeps its VM, and takes it along.
func TestMonitorLives(t *testing.T) {
	m, c := hireRunner(t, "monitor")
	d := m.dev
	id := m.id
	closeAll(t, m.vm)
	vm, err := d.Open(id, abi.RightObserve)
	ok(t, err)
	if i, err := vm.Info(); err != nil || i.State != abi.VMStateRunning {
		t.Errorf("state %v, %v: the monitor's descriptors keep the VM", i.State, err)
	}
	closeAll(t, vm)
	c.kill()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		vm, err := d.Open(id, abi.RightObserve)
		if errors.Is(err, unix.ENOENT) {
			break
		}
		ok(t, err)
		closeAll(t, vm)
		if time.Now().After(end) {
			t.Fatal("the VM outlives its last descriptor")
		}
	}
}

// TestBindOnce shows that a VM has one monitor.
func TestBindOnce(t *testing.T) {
	m, c := hireRunner(t, "monitor")
	wantErr(t, "VM_BIND of a VM that has a monitor", m.vm.Bind(), unix.EBUSY)
	m.stopNow()
	c.want("shutdown")
	wantErr(t, "VM_BIND of a stopped VM", m.vm.Bind(), unix.ESHUTDOWN)
}

// TestFork forks a monitor: the child's copy of the memory map is another one,
// may do nothing, and ends nothing when it goes.
func TestFork(t *testing.T) {
	m := newMachine(t, withMem)
	m.load(outLoop(outPort))
	m.wantIO(outPort, 1)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	fd := uintptr(m.cpu.FD())
	pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno == 0 && pid == 0 {
		// Nothing of Go works here but bare system calls.
		_, _, errno = unix.RawSyscall(unix.SYS_IOCTL, fd, abi.IOCVCPURun, 0)
		for {
			unix.RawSyscall(unix.SYS_EXIT_GROUP, uintptr(errno), 0, 0)
		}
	}
	if errno != 0 {
		t.Fatal(errno)
	}
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(int(pid), &status, 0, nil)
		if !errors.Is(err, unix.EINTR) {
			ok(t, err)
			break
		}
	}
	if got := unix.Errno(status.ExitStatus()); got != unix.EIO {
		t.Errorf("RUN in a forked child: %v, want EIO", got)
	}
	m.wantState(abi.VMStateRunning, abi.ReasonNone)
	m.wantIO(outPort, 1)
}

// TestDeathOrder takes a VM apart in every order of its parts.
func TestDeathOrder(t *testing.T) {
	orders := [][]int{{0, 1, 2, 3}, {3, 2, 1, 0}, {1, 0, 3, 2}, {2, 3, 0, 1}, {0, 3, 1, 2}, {2, 1, 0, 3}}
	for _, order := range orders {
		d := openDevice(t)
		vm, id, err := d.Create(newUUID(), "order")
		ok(t, err)
		ok(t, vm.Bind())
		cpu, err := vm.CreateVCPU(0)
		ok(t, err)
		size, err := cpu.RunSize()
		ok(t, err)
		area, err := unix.Mmap(cpu.FD(), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		ok(t, err)
		mem, err := unix.Mmap(-1, 0, memSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		ok(t, err)
		ok(t, vm.MapMemory(region(0, 0, mem)))
		parts := []func() error{vm.Close, cpu.Close, func() error { return unix.Munmap(area) }, func() error { return unix.Munmap(mem) }}
		for _, i := range order {
			ok(t, parts[i]())
		}
		_, err = d.Open(id, abi.RightObserve)
		wantErr(t, "VM_OPEN of what is gone", err, unix.ENOENT)
	}
}

// TestKillStorm kills monitors at any moment of their lives.
func TestKillStorm(t *testing.T) {
	for i := range 12 {
		m, c := hireMonitor(t, "monitor")
		if i%3 == 0 {
			c.want("running")
		}
		time.Sleep(time.Duration(i) * 3 * time.Millisecond)
		c.kill()
		i := m.info()
		if i.State != abi.VMStateCreated && (i.State != abi.VMStateStopped || i.Reason != abi.ReasonMonitorGone) {
			t.Errorf("state %v reason %v after the monitor's death", i.State, i.Reason)
		}
	}
}

// TestUnloadAmidDeaths removes the module as soon as it can be removed after the
// death of a monitor with a running guest, and at every try before: nothing of a
// VM may be on its way in the module's code when its last reference goes.
func TestUnloadAmidDeaths(t *testing.T) {
	const name = "vmm"
	var owner unix.Stat_t
	ok(t, unix.Stat(abi.DevicePath, &owner))
	reload := func() {
		t.Helper()
		f, err := os.Open(wire.ModuleCopy)
		ok(t, err)
		defer closeAll(t, f)
		ok(t, unix.FinitModule(int(f.Fd()), "", 0))
		ok(t, os.Chown(abi.DevicePath, int(owner.Uid), int(owner.Gid)))
		ok(t, os.Chmod(abi.DevicePath, os.FileMode(owner.Mode&0o777)))
	}
	unload := func() error { return unix.DeleteModule(name, unix.O_NONBLOCK) }
	for i := range 20 {
		var lives []*child
		for range 1 + i%3 {
			lives = append(lives, startChild(t, "whole-life", nil, nil))
		}
		if i%4 != 0 { // else in the middle of their first steps
			for _, c := range lives {
				c.want("running")
			}
			wantErr(t, "unloading under a running guest", unload(), unix.EAGAIN)
		}
		for _, c := range lives {
			ok(t, c.cmd.Process.Kill())
		}
		end := time.Now().Add(10 * time.Second)
		err := unload()
		for errors.Is(err, unix.EAGAIN) && time.Now().Before(end) {
			err = unload()
		}
		if err != nil {
			t.Fatalf("round %d: the module cannot be unloaded: %v", i, err)
		}
		for _, c := range lives {
			c.kill()
		}
		reload()
	}
}
