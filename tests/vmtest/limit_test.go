// SPDX-License-Identifier: Apache-2.0

//go:build lab

package vmtest_test

import (
	"os"
	"testing"
	"time"

	"vmctl/abi"
	"vmctl/monitor/ctl"
	"vmctl/monitor/rate"
	"vmctl/monitor/spec"
	"vmctl/tests/vmtest"
)

// TestLimits: a guest's disk is no faster than its limit says, also when that is changed
// while it runs, and the guest sees its network card's link go and come.
func TestLimits(t *testing.T) {
	const size = 8 << 20
	path, _ := newDisk(t, size)
	vhost, err := os.OpenFile("/dev/vhost-net", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	v, s := boot(t, vmtest.Config{
		Initrd: withDrivers, Cmdline: "console=hvc0 panic=-1 quiet", Console: spec.Virtio,
		Disks: []vmtest.Disk{{Path: path}}, NICs: []vmtest.NIC{{Tap: newTap(t), Vhost: vhost, MAC: guestMAC}},
	})
	read := func() time.Duration {
		began := time.Now()
		s.Run("dd if=/dev/vda of=/dev/null bs=64k count=64 iflag=direct 2>/dev/null")
		return time.Since(began)
	}
	unlimited := read()
	for _, perSecond := range []uint64{1 << 20, 512 << 10} {
		if err := v.Client.SetDisk(v.Context(), ctl.SetDisk{Limit: rate.Limit{Bytes: perSecond, Burst: 1}}); err != nil {
			t.Fatal(err)
		}
		took, want := read(), time.Duration(4<<20)*time.Second/time.Duration(perSecond)
		t.Logf("4 MiB at %d bytes/s took %v of %v, and %v without a limit", perSecond, took, want, unlimited)
		// No request waits longer than it must, and takes then what it takes without a limit.
		if took < want*98/100 || took > want*11/10+2*unlimited {
			t.Errorf("4 MiB at %d bytes/s took %v, and not %v", perSecond, took, want)
		}
	}
	if err := v.Client.SetDisk(v.Context(), ctl.SetDisk{Disk: 1}); err == nil {
		t.Error("the limit of a disk was set that is not there")
	}
	s.Run("ip link set eth0 up; ip addr add " + guestAddr + "/24 dev eth0")
	link := func(down bool, carrier, pings string) {
		t.Helper()
		if err := v.Client.SetNIC(v.Context(), ctl.SetNIC{Down: down}); err != nil {
			t.Fatal(err)
		}
		if got := s.Run("i=0; until [ $(cat /sys/class/net/eth0/carrier) = " + carrier + " ] || [ $i = 100 ]; do i=$((i+1)); sleep 0.1; done; cat /sys/class/net/eth0/carrier"); got != carrier {
			t.Fatalf("carrier is %q, not %s", got, carrier)
		}
		if got := s.Run("ping -c 2 -W 5 " + hostAddr + " | grep -c 'bytes from'"); got != pings {
			t.Errorf("%s of 2 pings came back with carrier %s", got, carrier)
		}
	}
	link(true, "0", "0")
	link(false, "1", "2")
	link(true, "0", "0")

	s.Type("reboot -f\n")
	vmtest.Event[*ctl.GuestReset](v)
	s.Expect(prompt)
	s.Run("ip link set eth0 up; ip addr add " + guestAddr + "/24 dev eth0")
	link(true, "0", "0") // as it was before the reset
	link(false, "1", "2")
	s.Type("poweroff -f\n")
	end(t, v, abi.ReasonPoweroff)
}
