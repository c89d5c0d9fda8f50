// SPDX-License-Identifier: Apache-2.0

//go:build lab

package vmtest_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"vmctl/abi"
	"vmctl/monitor/ctl"
	"vmctl/monitor/spec"
	"vmctl/tests/vmtest"
)

// TestHotPlug: a stock guest finds disks and network cards that come while it runs, uses
// them, and lets go of them when it is asked to; their backends are free then. What it was
// asked to let go of is gone after a reset, too.
func TestHotPlug(t *testing.T) {
	first, _ := newDisk(t, diskSize)
	machine := vmtest.Config{
		Initrd: withDrivers, Cmdline: "console=hvc0 panic=-1 quiet", Console: spec.Virtio,
		Disks: []vmtest.Disk{{Path: first, ID: "first"}},
	}
	v, s := boot(t, machine)
	client, ctx := v.Client, v.Context()
	until := func(what, command string) {
		t.Helper()
		if got := s.Run("i=0; until " + command + " || [ $i = 200 ]; do i=$((i+1)); sleep 0.1; done; " + command + " && echo yes"); got != "yes" {
			t.Fatalf("never: %s", what)
		}
	}
	sum := s.Run(pattern)
	for round := range 3 {
		path, _ := newDisk(t, diskSize)
		d := v.AttachDisk(vmtest.Disk{Path: path, ID: "second"})
		n, err := client.AttachDisk(ctx, d)
		if err != nil || n != 1 {
			t.Fatalf("round %d: the disk is number %d: %v", round, n, err)
		}
		if _, err := client.AttachDisk(ctx, d); !errors.Is(err, &ctl.Error{Code: ctl.SpecInvalid}) {
			t.Errorf("the same backend again: %v", err)
		}
		until("the guest has the disk", "[ -b /dev/vdb ]")
		if got := s.Run("cat /sys/block/vdb/serial; dd if=/tmp/p of=/dev/vdb bs=64k oflag=direct 2>/dev/null; dd if=/dev/vdb bs=1M count=1 iflag=direct 2>/dev/null | md5sum | cut -c1-32"); got != "second"+sum {
			t.Errorf("round %d: the guest says %q", round, got)
		}
		if err := client.Detach(ctx, ctl.Detach{Number: 1}); err != nil {
			t.Fatal(err)
		}
		if e := vmtest.Event[*ctl.Detached](v); *e != (ctl.Detached{Number: 1}) {
			t.Fatalf("%+v was detached", e)
		}
		until("the disk is gone", "[ ! -b /dev/vdb ]")
		if err := v.VM.Detach(d.Backend); err != nil {
			t.Errorf("round %d: its backend: %v", round, err)
		}
		if err := client.SetDisk(ctx, ctl.SetDisk{Disk: 1}); !errors.Is(err, &ctl.Error{Code: ctl.DiskInvalid}) {
			t.Errorf("a disk that is gone is changed: %v", err)
		}
	}
	if err := client.Detach(ctx, ctl.Detach{Number: 7}); !errors.Is(err, &ctl.Error{Code: ctl.DiskInvalid}) {
		t.Errorf("a disk that never was: %v", err)
	}

	vhost, err := os.OpenFile("/dev/vhost-net", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	tap := newTap(t)
	keepTap(t, tap)
	c := v.AttachNIC(vmtest.NIC{Tap: tap, Vhost: vhost, MAC: guestMAC})
	if n, err := client.AttachNIC(ctx, c); err != nil || n != 0 {
		t.Fatalf("the card is number %d: %v", n, err)
	}
	until("the guest has the card", "[ -e /sys/class/net/eth0 ]")
	if got := s.Run("ip link set eth0 up; ip addr add " + guestAddr + "/24 dev eth0; ping -c 3 -W 20 " + hostAddr + " | grep -c 'bytes from'"); got != "3" {
		t.Errorf("%s of 3 pings came back", got)
	}

	// What goes on from a save has the devices that came, with their numbers, in their slots.
	third, _ := newDisk(t, diskSize)
	if n, err := client.AttachDisk(ctx, v.AttachDisk(vmtest.Disk{Path: third, ID: "third"})); err != nil || n != 1 {
		t.Fatalf("the disk is number %d: %v", n, err)
	}
	until("the guest has the disk", "[ -b /dev/vdb ]")
	const where = "ls -l /sys/bus/pci/devices | sed 's/.*> //'; ls -l /sys/class/block/vdb /sys/class/net/eth0 | sed 's/.*> //'"
	s.Run("dd if=/tmp/p of=/dev/vdb bs=64k oflag=direct 2>/dev/null")
	if err := client.Detach(ctx, ctl.Detach{Number: 0}); err != nil {
		t.Fatal(err)
	}
	if e := vmtest.Event[*ctl.Detached](v); *e != (ctl.Detached{Number: 0}) {
		t.Fatalf("%+v was detached", e)
	}
	slots := s.Run(where)
	files := saveTo(t, v)
	if err := v.VM.Stop(); err != nil {
		t.Fatal(err)
	}
	v.Wait()
	if vhost, err = os.OpenFile("/dev/vhost-net", os.O_RDWR, 0); err != nil {
		t.Fatal(err)
	}
	other, _ := newDisk(t, diskSize)
	wrong := machine
	wrong.Disks = []vmtest.Disk{{Path: other, ID: "third"}}
	wrong.Saved = &files
	if err := vmtest.Start(t).Configure(wrong); !errors.Is(err, &ctl.Error{Code: ctl.SaveInvalid}) {
		t.Errorf("restored with other devices: %v", err)
	}
	machine.Disks = []vmtest.Disk{{None: true}, {Path: third, ID: "third"}}
	machine.NICs = []vmtest.NIC{{Tap: openTap(t), Vhost: vhost, MAC: guestMAC}}
	v, s = restore(t, machine, files)
	client, ctx = v.Client, v.Context()
	if got := s.Run(where); got != slots || !strings.Contains(got, "vdb") {
		t.Errorf("before the save:\n%s\nand after:\n%s", slots, got)
	}
	if got := s.Run("dd if=/dev/vdb bs=1M count=1 iflag=direct 2>/dev/null | md5sum | cut -c1-32; ping -c 3 -W 20 " + hostAddr + " | grep -c 'bytes from'"); got != sum+"\n3" {
		t.Errorf("after the save: %q", got)
	}
	if n, err := client.AttachDisk(ctx, v.AttachDisk(vmtest.Disk{Path: first, ID: "first"})); err != nil || n != 0 {
		t.Fatalf("the disk is number %d: %v", n, err)
	}
	until("the guest has the disk", "[ -b /dev/vda ]")
	if err := client.Detach(ctx, ctl.Detach{Number: 1}); err != nil {
		t.Fatal(err)
	}
	if e := vmtest.Event[*ctl.Detached](v); *e != (ctl.Detached{Number: 1}) {
		t.Fatalf("%+v was detached", e)
	}

	// It does not listen: the reset takes what it was asked for.
	if _, err := v.VM.Pause(abi.PauseOperator, 1<<63-1); err != nil {
		t.Fatal(err)
	}
	if err := client.Detach(ctx, ctl.Detach{IsNIC: true}); err != nil {
		t.Fatal(err)
	}
	if err := client.Reset(ctx); err != nil {
		t.Fatal(err)
	}
	if err := v.VM.Resume(abi.PauseOperator); err != nil {
		t.Fatal(err)
	}
	if e := vmtest.Event[*ctl.Detached](v); *e != (ctl.Detached{IsNIC: true}) {
		t.Errorf("%+v was detached", e)
	}
	s.Expect(prompt)
	if got := s.Run("ls /sys/class/net /sys/block | grep -c 'eth0\\|vdb'; cat /sys/block/vda/serial"); got != "0\nfirst" {
		t.Errorf("after the reset: %q", got)
	}
	s.Type("poweroff -f\n")
	end(t, v, abi.ReasonPoweroff)
}
