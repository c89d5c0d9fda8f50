// SPDX-License-Identifier: Apache-2.0

//go:build lab

package kabi

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmctl/abi"
)

// create gives VM_CREATE with a raw name.
func create(t *testing.T, d *abi.Device, name []byte) error {
	t.Helper()
	c := abi.VMCreate{UUID: newUUID()}
	copy(c.Name[:], name)
	got, _, err := newArgument(t).ioctl(d.FD(), abi.IOCVMCreate, sized(c))
	if err == nil {
		ok(t, unix.Close(int(fromBytes[abi.VMCreate](got).FD)))
	}
	return err
}

func TestCreateNames(t *testing.T) {
	d := openDevice(t)
	for _, good := range []string{"a", "A.b_c-9", "-", ".", strings.Repeat("x", 63)} {
		wantErr(t, fmt.Sprintf("name %q", good), create(t, d, []byte(good)), nil)
	}
	for _, bad := range []string{
		"", "a b", "a/b", "a\n", "\x01", "ä", "a:b", "a\x00b", "\x00a", strings.Repeat("x", 64), "a\x00\x00\x00\x00\x00\x00\xff",
	} {
		wantErr(t, fmt.Sprintf("name %q", bad), create(t, d, []byte(bad)), unix.EINVAL)
	}
}

func TestCreateInfo(t *testing.T) {
	d := openDevice(t)
	uuid := newUUID()
	var before unix.Timespec
	ok(t, unix.ClockGettime(unix.CLOCK_MONOTONIC, &before))
	vm, id, err := d.Create(uuid, "first.VM")
	ok(t, err)
	defer closeAll(t, vm)
	i, err := vm.Info()
	ok(t, err)
	want := abi.VMInfo{
		ID: id, UUID: uuid, State: abi.VMStateCreated, Rights: abi.RightAll, Created: i.Created,
	}
	copy(want.Name[:], "first.VM")
	if i != want {
		t.Errorf("info %+v\nwant %+v", i, want)
	}
	if i.Created < uint64(before.Nano()) {
		t.Errorf("created at %d, the clock said %d before", i.Created, before.Nano())
	}
	if i.NameString() != "first.VM" {
		t.Errorf("name %q", i.NameString())
	}
}

func TestCreateUUID(t *testing.T) {
	d := openDevice(t)
	_, _, err := d.Create([abi.UUIDLen]byte{}, "zero")
	wantErr(t, "uuid of zeros", err, unix.EINVAL)
	uuid := newUUID()
	first, firstID, err := d.Create(uuid, "same")
	ok(t, err)
	_, _, err = d.Create(uuid, "other")
	wantErr(t, "uuid in use", err, unix.EEXIST)
	ok(t, first.Stop())
	_, _, err = d.Create(uuid, "other")
	wantErr(t, "uuid of a stopped VM", err, unix.EEXIST)
	ok(t, first.Destroy())
	second, secondID, err := d.Create(uuid, "same")
	ok(t, err)
	if secondID <= firstID {
		t.Errorf("number %d after %d: numbers are never used again", secondID, firstID)
	}
	closeAll(t, first, second)
	third, thirdID, err := d.Create(uuid, "same")
	ok(t, err)
	if thirdID <= secondID {
		t.Errorf("number %d after %d", thirdID, secondID)
	}
	closeAll(t, third)
}

func TestOpen(t *testing.T) {
	m := newMachine(t, withMem)
	for _, rights := range []abi.Right{abi.RightObserve, abi.RightControl, abi.RightAll} {
		vm, err := m.dev.Open(m.id, rights)
		ok(t, err)
		i, err := vm.Info()
		ok(t, err)
		if i.Rights != rights || i.ID != m.id {
			t.Errorf("opened with %v: rights %v number %d, want number %d", rights, i.Rights, i.ID, m.id)
		}
		closeAll(t, vm)
	}
	for _, rights := range []abi.Right{0, 1 << 4, abi.RightAll | 1<<31} {
		_, err := m.dev.Open(m.id, rights)
		wantErr(t, fmt.Sprintf("rights %#x", uint32(rights)), err, unix.EINVAL)
	}
	for _, id := range []uint64{0, m.id + 1000, 1 << 32, ^uint64(0)} {
		_, err := m.dev.Open(id, abi.RightObserve)
		wantErr(t, fmt.Sprintf("number %d", id), err, unix.ENOENT)
	}
}

// TestOpenKeeps shows that an opened descriptor keeps a VM that its maker closed.
func TestOpenKeeps(t *testing.T) {
	d := openDevice(t)
	vm, id, err := d.Create(newUUID(), "kept")
	ok(t, err)
	other, err := d.Open(id, abi.RightObserve)
	ok(t, err)
	closeAll(t, vm)
	if i, err := other.Info(); err != nil || i.State != abi.VMStateCreated {
		t.Errorf("state %v, %v", i.State, err)
	}
	closeAll(t, other)
	_, err = d.Open(id, abi.RightObserve)
	wantErr(t, "VM_OPEN after the last descriptor", err, unix.ENOENT)
}

func TestDelegate(t *testing.T) {
	m := newMachine(t, withMem)
	some, err := m.vm.Delegate(abi.RightRun | abi.RightDelegate)
	ok(t, err)
	defer closeAll(t, some)
	_, err = some.Delegate(abi.RightControl)
	wantErr(t, "a right that the descriptor lacks", err, unix.EACCES)
	less, err := some.Delegate(abi.RightRun)
	ok(t, err)
	defer closeAll(t, less)
	_, err = less.Delegate(abi.RightRun)
	wantErr(t, "without the right to delegate", err, unix.EACCES)
	if i, err := less.Info(); err != nil || i.Rights != abi.RightRun {
		t.Errorf("rights %v, %v", i.Rights, err)
	}
	for _, rights := range []abi.Right{0, 1 << 4} {
		_, err := m.vm.Delegate(rights)
		wantErr(t, fmt.Sprintf("rights %#x", uint32(rights)), err, unix.EINVAL)
	}
}

// TestHangUpNeedsNoRight polls with a descriptor that may only control.
func TestHangUpNeedsNoRight(t *testing.T) {
	m := newMachine(t, withMem)
	poor, err := m.dev.Open(m.id, abi.RightControl)
	ok(t, err)
	defer closeAll(t, poor)
	if stop, err := poor.Poll(0); err != nil || stop {
		t.Errorf("poll of a live VM: stopped %v, %v", stop, err)
	}
	ok(t, m.vm.Stop())
	if stop, err := poor.Poll(0); err != nil || !stop {
		t.Errorf("poll of a stopped VM: stopped %v, %v", stop, err)
	}
	if i, err := poor.Info(); err != nil || i.State != abi.VMStateStopped {
		t.Errorf("GET_INFO needs any right: %v, %v", i.State, err)
	}
}
