// SPDX-License-Identifier: Apache-2.0

//go:build lab

package kabi

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"vmctl/abi"
)

func dialTest(t *testing.T) *family {
	t.Helper()
	f, err := dialFamily()
	ok(t, err)
	t.Cleanup(func() { ok(t, f.close()) })
	return f
}

// matches compares a message with what GET_INFO says.
func (vm *vmMessage) matches(t *testing.T, i abi.VMInfo) {
	t.Helper()
	if vm.id != i.ID || vm.uuid != i.UUID || vm.name != i.NameString() || vm.state != i.State || vm.reason != i.Reason ||
		vm.paused != i.Paused || vm.owner != i.Owner || vm.monitor != i.Monitor || vm.vcpus != i.VCPUs ||
		vm.memory != i.Memory || vm.created != i.Created {
		t.Errorf("netlink says %+v\nGET_INFO says %+v", *vm, i)
	}
	if len(vm.exitData) != 4 || [4]uint64(vm.exitData) != i.ExitData {
		t.Errorf("exit data %x, want %x", vm.exitData, i.ExitData)
	}
	if len(vm.unknown) > 0 {
		t.Errorf("attributes that vmm.h does not have: %v", vm.unknown)
	}
}

func TestGet(t *testing.T) {
	f := dialTest(t)
	for at := created; at <= stopped; at++ {
		m := newMachine(t, at)
		got, err := f.get(m.id)
		ok(t, err)
		got.matches(t, m.info())
		if got.command != abi.CmdVMGet {
			t.Errorf("answer is command %d", got.command)
		}
	}
}

func TestGetRefuses(t *testing.T) {
	f := dialTest(t)
	m := newMachine(t, destroyed)
	_, err := f.get(m.id)
	wantErr(t, "a destroyed VM", err, unix.ENOENT)
	_, err = f.get(1 << 60)
	wantErr(t, "a VM that never was", err, unix.ENOENT)

	attrs := func(fill func(*netlink.AttributeEncoder)) []byte {
		ae := netlink.NewAttributeEncoder()
		fill(ae)
		b, err := ae.Encode()
		ok(t, err)
		return b
	}
	for name, b := range map[string][]byte{
		"no number":         nil,
		"number too short":  attrs(func(ae *netlink.AttributeEncoder) { ae.Uint32(abi.AVMID, 1) }),
		"another attribute": attrs(func(ae *netlink.AttributeEncoder) { ae.Uint64(abi.AVMID, 1); ae.Uint32(abi.AVMState, 1) }),
		"unknown attribute": attrs(func(ae *netlink.AttributeEncoder) { ae.Uint64(abi.AVMID, 1); ae.Uint32(99, 1) }),
	} {
		_, _, err := f.request(abi.CmdVMGet, 0, b)
		var op *netlink.OpError
		if !errors.As(err, &op) || !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ERANGE) {
			t.Errorf("%s: %v, want EINVAL or ERANGE", name, err)
		} else if op.Message == "" && name != "no number" { // which has its attribute's number instead
			t.Errorf("%s: no text with %v", name, err)
		}
	}
	for _, cmd := range []uint8{0, abi.CmdVMNtf, 77} {
		_, _, err := f.request(cmd, 0, nil)
		wantErr(t, fmt.Sprintf("command %d", cmd), err, unix.EOPNOTSUPP)
	}
}

// TestDump lists more VMs than one message holds, each of them once.
func TestDump(t *testing.T) {
	f := dialTest(t)
	if d, err := f.dump(); err != nil || len(d.vms) != 0 {
		t.Fatalf("%d VMs before the test, %v", len(d.vms), err)
	}
	const n = 150
	want := map[uint64]bool{}
	d := openDevice(t)
	for i := range n {
		vm, id, err := d.Create(newUUID(), fmt.Sprintf("dump-%d-%s", i, strings.Repeat("x", 40)))
		ok(t, err)
		defer closeAll(t, vm)
		want[id] = true
	}
	all, err := f.dump()
	ok(t, err)
	for _, vm := range all.vms {
		if !want[vm.id] {
			t.Errorf("VM %d twice, or not ours", vm.id)
		}
		delete(want, vm.id)
		if !vm.sawState || !vm.sawOwner || vm.event != 0 {
			t.Fatalf("row without state or owner, or with an event: %+v", vm)
		}
	}
	if len(want) > 0 {
		t.Errorf("%d of %d VMs missing", len(want), n)
	}
}

// TestDumpInterrupted changes the inventory under a dump: whoever heeds the flag
// gets every VM that was there all the time, once.
func TestDumpInterrupted(t *testing.T) {
	f := dialTest(t)
	d := openDevice(t)
	keep := map[uint64]bool{}
	for range 100 {
		vm, id, err := d.Create(newUUID(), "keep-"+strings.Repeat("x", 50))
		ok(t, err)
		defer closeAll(t, vm)
		keep[id] = true
	}
	change := func() error {
		vm, _, err := d.Create(newUUID(), "come-and-go")
		if err != nil {
			return err
		}
		return vm.Close()
	}
	complete := func(d dumped) {
		t.Helper()
		seen := map[uint64]int{}
		for _, vm := range d.vms {
			seen[vm.id]++
		}
		for id := range keep {
			if seen[id] != 1 {
				t.Errorf("VM %d is in the dump %d times", id, seen[id])
			}
		}
	}

	// Between the first part and the second, a change is always told.
	seq, err := f.send(abi.CmdVMGet, netlink.Dump, nil)
	ok(t, err)
	ok(t, change())
	_, raw, err := f.answer(seq)
	ok(t, err)
	if !interrupted(raw) {
		t.Error("a change between two parts of a dump is not told")
	}

	// At any other moment it is told, or did no harm.
	var told int
	for range 100 {
		changed := make(chan error, 1)
		go func() { changed <- change() }()
		all, err := f.dump()
		ok(t, err) // one change comes and goes: it cannot interrupt ten dumps
		complete(all)
		told += all.interrupted
		ok(t, <-changed)
	}
	t.Logf("%d of 100 changes interrupted a dump", told)
}

// TestNotifications follows a VM through its life.
func TestNotifications(t *testing.T) {
	f := dialTest(t)
	ok(t, f.join())
	m := newMachine(t, withMem)
	m.load(outLoop(outPort))
	m.wantIO(outPort, 1)
	ok(t, m.vm.Report(abi.ReasonReset, [4]uint64{5, 6, 7, 8}))
	ok(t, m.vm.Stop())
	ok(t, m.vm.Destroy())
	want := []struct {
		event  abi.Event
		state  abi.VMState
		reason abi.Reason
	}{
		{abi.EventCreated, abi.VMStateCreated, abi.ReasonNone},
		{abi.EventBound, abi.VMStateBound, abi.ReasonNone},
		{abi.EventRunning, abi.VMStateRunning, abi.ReasonNone},
		{abi.EventReset, abi.VMStateRunning, abi.ReasonReset},
		{abi.EventStopped, abi.VMStateStopped, abi.ReasonOperator},
		{abi.EventDestroyed, abi.VMStateStopped, abi.ReasonOperator},
	}
	got := collect(t, f, len(want))
	for i, w := range want {
		g := got[i]
		if g.id != m.id || g.event != w.event || g.state != w.state || g.reason != w.reason {
			t.Errorf("%d: VM %d %v, state %v reason %v, want VM %d %v, %v %v",
				i, g.id, g.event, g.state, g.reason, m.id, w.event, w.state, w.reason)
		}
		if g.command != abi.CmdVMNtf || g.uuid != m.info().UUID || g.time == 0 || g.instance == 0 {
			t.Errorf("%d: %+v", i, g)
		}
		if i > 0 && (g.seq != got[i-1].seq+1 || g.time < got[i-1].time) {
			t.Errorf("number %d at %d after %d at %d", g.seq, g.time, got[i-1].seq, got[i-1].time)
		}
	}
	if data := [4]uint64(got[3].exitData); data != [4]uint64{5, 6, 7, 8} {
		t.Errorf("data of the reset: %x", data)
	}
}

// collect reads n notifications.
func collect(t *testing.T, f *family, n int) []vmMessage {
	t.Helper()
	var got []vmMessage
	for len(got) < n {
		vms, err := f.next(10 * time.Second)
		if err != nil {
			t.Fatalf("after %d of %d notifications: %v", len(got), n, err)
		}
		got = append(got, vms...)
	}
	return got
}

// TestNotificationOfDeath says within a second why a VM ended.
func TestNotificationOfDeath(t *testing.T) {
	f := dialTest(t)
	m, c := hireRunner(t, "monitor")
	ok(t, f.join())
	start := time.Now()
	ok(t, c.cmd.Process.Signal(unix.SIGKILL))
	got := collect(t, f, 1)[0]
	if got.id != m.id || got.event != abi.EventStopped || got.reason != abi.ReasonMonitorGone {
		t.Errorf("VM %d %v %v, want VM %d stopped, monitorGone", got.id, got.event, got.reason, m.id)
	}
	if took := time.Since(start); took > goneTime {
		t.Errorf("told after %v", took)
	}
}

// TestNumbersWithoutGaps makes events from several threads at once.
func TestNumbersWithoutGaps(t *testing.T) {
	f := dialTest(t)
	ok(t, f.conn.SetReadBuffer(8<<20))
	ok(t, f.join())
	const threads, each = 4, 25
	errs := make(chan error, threads)
	for range threads {
		go func() {
			d, err := abi.OpenDevice(abi.DevicePath)
			for i := 0; err == nil && i < each; i++ {
				var vm *abi.VM
				if vm, _, err = d.Create(newUUID(), "many"); err == nil {
					err = errors.Join(vm.Stop(), vm.Destroy(), vm.Close())
				}
			}
			errs <- errors.Join(err, d.Close())
		}()
	}
	for range threads {
		ok(t, <-errs)
	}
	got := collect(t, f, threads*each*3)
	last := map[uint64]abi.Event{}
	for i, g := range got {
		if i > 0 && g.seq != got[i-1].seq+1 {
			t.Fatalf("number %d after %d", g.seq, got[i-1].seq)
		}
		order := map[abi.Event]abi.Event{abi.EventCreated: 0, abi.EventStopped: abi.EventCreated, abi.EventDestroyed: abi.EventStopped}
		if before, known := order[g.event]; !known || last[g.id] != before {
			t.Errorf("VM %d: %v after %v", g.id, g.event, last[g.id])
		}
		last[g.id] = g.event
	}
}

// TestNumberOfDump ties a dump to the notifications: what it holds is valid up to
// its number.
func TestNumberOfDump(t *testing.T) {
	f, g := dialTest(t), dialTest(t)
	m := newMachine(t, created)
	ok(t, g.join())
	all, err := f.dump()
	ok(t, err)
	if len(all.vms) != 1 || all.vms[0].id != m.id {
		t.Fatalf("%d VMs", len(all.vms))
	}
	ok(t, m.vm.Stop())
	ntf := collect(t, g, 1)[0]
	if ntf.seq != all.head.seq+1 || ntf.instance != all.head.instance {
		t.Errorf("notification %d of %x after a dump valid up to %d of %x", ntf.seq, ntf.instance, all.head.seq, all.head.instance)
	}
}

// TestNetlinkPrivileges shows that the family answers the host's administrator
// alone.
func TestNetlinkPrivileges(t *testing.T) {
	elsewhere := func(cmd *exec.Cmd) {
		asRootElsewhere(cmd)
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWNET
	}
	ownNet := func(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET} }
	perm := unix.EPERM.Error()
	for _, tt := range []struct {
		who    string
		change func(*exec.Cmd)
		want   []string
	}{
		{"nobody", asNobody, []string{"get " + perm, "dump " + perm, "join " + perm}},
		{"root of a user namespace", asRootElsewhere, []string{"get " + perm, "dump " + perm, "join " + perm}},
		{"root of a user and network namespace", elsewhere, []string{"no family"}},
		{"root of a network namespace", ownNet, []string{"no family"}},
	} {
		c := startChild(t, "netlink", nil, tt.change)
		for _, line := range tt.want {
			got, open := <-c.lines
			if !open || got != line {
				t.Errorf("%s: %q, want %q %s", tt.who, got, line, c.err.String())
			}
		}
		c.wait()
	}
}

// roleNetlink tries all that the family offers and prints what came back.
func roleNetlink() error {
	f, err := dialFamily()
	if errors.Is(err, unix.ENOENT) {
		fmt.Println("no family")
		return nil
	}
	if err != nil {
		return err
	}
	say := func(what string, err error) {
		var errno unix.Errno
		if !errors.As(err, &errno) {
			fmt.Println(what, err)
			return
		}
		fmt.Println(what, errno.Error())
	}
	_, err = f.get(1)
	say("get", err)
	_, err = f.dump()
	say("dump", err)
	say("join", f.join())
	return f.close()
}
