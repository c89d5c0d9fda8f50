// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"vmctl/daemon/api"
)

// stubNetwork stands for bridges where the kernel is a fake: a character device is
// all that it knows of a tap.
type stubNetwork []string

func (s stubNetwork) Check(nic api.NICSpec) error {
	switch {
	case !slices.Contains(s, nic.Bridge):
		return &api.Error{Code: api.CodeNetworkInvalid, Detail: "not allowed"}
	case nic.Bridge == "vmctest-none":
		return &api.Error{Code: api.CodeNetworkMissing, Detail: "not there"}
	}
	return nil
}

func (s stubNetwork) Open(uint64, int, api.NICSpec) (tap, vhost *os.File, err error) {
	tap, err = os.OpenFile(os.DevNull, os.O_RDWR, 0)
	return tap, nil, err
}

// newBridge makes a bridge, on a host where there are some.
func (r *rig) newBridge(name string) {
	r.t.Helper()
	if r.kernel != nil {
		return
	}
	link := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}
	if err := netlink.LinkAdd(link); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { netlink.LinkDel(link) })
}

// taps are the names of the bridge's ports.
func (r *rig) taps(bridge string) (names []string) {
	r.t.Helper()
	if r.kernel != nil {
		return nil
	}
	master, err := netlink.LinkByName(bridge)
	if err != nil {
		r.t.Fatal(err)
	}
	links, err := netlink.LinkList()
	for errors.Is(err, netlink.ErrDumpInterrupted) { // a tap came or went meanwhile
		links, err = netlink.LinkList()
	}
	if err != nil {
		r.t.Fatal(err)
	}
	for _, l := range links {
		if a := l.Attrs(); a.MasterIndex == master.Attrs().Index {
			names = append(names, a.Name)
		}
	}
	return names
}

func withNICs(name, nics string) string {
	return fmt.Sprintf(`{"name":%q,"spec":{"memoryBytes":67108864,"boot":{"kernel":"runs"},"nics":[%s]}}`, name, nics)
}

// TestNIC: a VM keeps the address that its network card was given, and its taps are
// there while it runs and no longer, however it ends.
func TestNIC(t *testing.T) {
	r := newRig(t, "--bridge", "vmctest")
	r.newBridge("vmctest")
	vm := want[api.VM](r, r.do("POST", "/v1/vms", withNICs("a", `{"bridge":"vmctest"},{"bridge":"vmctest","mac":"52:54:00:00:00:01"}`)), 201)
	r.made[vm.ID] = true
	if n := vm.Spec.NICs; len(n) != 2 || len(n[0].MAC) != 17 || !strings.ContainsRune("26ae", rune(n[0].MAC[1])) || n[1].MAC != "52:54:00:00:00:01" {
		t.Fatalf("%+v", n)
	}
	for _, end := range []func(){
		func() { r.power("a", "powerOff") },
		func() { r.kill(); r.start(); r.power("a", "powerOff") },
	} {
		r.power("a", "powerOn")
		on := r.get("a")
		wanted := []string{fmt.Sprintf("vm%d-0", on.Status.RunID), fmt.Sprintf("vm%d-1", on.Status.RunID)}
		if got := r.taps("vmctest"); r.kernel == nil && !slices.Equal(got, wanted) {
			t.Errorf("taps %v, want %v", got, wanted)
		}
		if !slices.Equal(on.Spec.NICs, vm.Spec.NICs) {
			t.Errorf("another address: %+v", on.Spec.NICs)
		}
		end()
		r.until("the taps are gone", func() bool { return len(r.taps("vmctest")) == 0 })
	}
	r.nothingRuns()
}

// TestBadNIC: each is a clear error, and nothing is made.
func TestBadNIC(t *testing.T) {
	r := newRig(t, "--bridge", "vmctest", "--bridge", "vmctest-none", "--bridge", "lo")
	r.newBridge("vmctest")
	for _, c := range []struct {
		nics string
		code api.Code
	}{
		{`{}`, api.CodeNetworkInvalid},
		{`{"bridge":""}`, api.CodeNetworkInvalid},
		{`{"bridge":"docker0"}`, api.CodeNetworkInvalid},
		{`{"bridge":"vmctest-none"}`, api.CodeNetworkMissing},
		{`{"bridge":"vmctest","mac":"52:54:00:00:00"}`, api.CodeNetworkInvalid},
		{`{"bridge":"vmctest","mac":"53:54:00:00:00:01"}`, api.CodeNetworkInvalid},
		{`{"bridge":"vmctest","mac":"00:00:00:00:00:00"}`, api.CodeNetworkInvalid},
		{`{"bridge":"vmctest","queues":2}`, api.CodeUnknownField},
		{strings.Repeat(`{"bridge":"vmctest"},`, 8) + `{"bridge":"vmctest"}`, api.CodeNetworkInvalid},
	} {
		r.refused(r.do("POST", "/v1/vms", withNICs("bad", c.nics)), 422, c.code)
	}
	if r.kernel == nil {
		r.refused(r.do("POST", "/v1/vms", withNICs("bad", `{"bridge":"lo"}`)), 422, api.CodeNetworkInvalid) // is no bridge
	}
	if list := want[api.VMList](r, r.do("GET", "/v1/vms", ""), 200); len(list.Items) != 0 {
		t.Errorf("made: %+v", list.Items)
	}
}
