// SPDX-License-Identifier: Apache-2.0

//go:build lab

package kabi

import (
	"fmt"
	"testing"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"vmctl/abi"
)

// deviceMessage is a row of device-get.
type deviceMessage struct {
	vm, dev, inode uint64
	backend        uint32
	kind           abi.BackendKind
	state          abi.BackendState
	roles          []abi.Role
	writable       bool
}

// vcpuMessage is a row of vcpu-get.
type vcpuMessage struct {
	vm, kicks, parks, parked uint64
	index                    uint32
	state                    abi.VCPUState
	paused, unsettled        bool
}

// rows asks for a dump, of one VM or with 0 of all, and parses its messages. The
// first one has seq and instance, and nothing else.
func (f *family) rows(t *testing.T, cmd uint8, idAttr, seqAttr, instanceAttr uint16, vm uint64, parse func(*netlink.AttributeDecoder)) {
	t.Helper()
	var attrs []byte
	if vm != 0 {
		ae := netlink.NewAttributeEncoder()
		ae.Uint64(idAttr, vm)
		var err error
		attrs, err = ae.Encode()
		ok(t, err)
	}
	msgs, _, err := f.request(cmd, netlink.Dump, attrs)
	ok(t, err)
	if len(msgs) == 0 {
		t.Fatalf("command %d: no head", cmd)
	}
	var seq, instance uint64
	for i, m := range msgs {
		ad, err := netlink.NewAttributeDecoder(m.Data)
		ok(t, err)
		if i == 0 {
			for ad.Next() {
				switch ad.Type() {
				case seqAttr:
					seq = ad.Uint64()
				case instanceAttr:
					instance = ad.Uint64()
				case abi.AVMPad:
				default:
					t.Errorf("command %d: attribute %d in the head", cmd, ad.Type())
				}
			}
		} else {
			parse(ad)
		}
		ok(t, ad.Err())
	}
	if seq == 0 || instance == 0 {
		t.Errorf("command %d: head with number %d of %x", cmd, seq, instance)
	}
}

func (f *family) devices(t *testing.T, vm uint64) (rows []deviceMessage) {
	t.Helper()
	f.rows(t, abi.CmdDeviceGet, abi.ADevVMID, abi.ADevEventSeq, abi.ADevInstance, vm, func(ad *netlink.AttributeDecoder) {
		var d deviceMessage
		for ad.Next() {
			switch ad.Type() {
			case abi.ADevPad:
			case abi.ADevVMID:
				d.vm = ad.Uint64()
			case abi.ADevBackend:
				d.backend = ad.Uint32()
			case abi.ADevKind:
				d.kind = abi.BackendKind(ad.Uint32())
			case abi.ADevState:
				d.state = abi.BackendState(ad.Uint32())
			case abi.ADevRole:
				d.roles = append(d.roles, abi.Role(ad.Uint32()))
			case abi.ADevDev:
				d.dev = ad.Uint64()
			case abi.ADevInode:
				d.inode = ad.Uint64()
			case abi.ADevWritable:
				d.writable = ad.Flag()
			default:
				t.Errorf("device-get: unknown attribute %d", ad.Type())
			}
		}
		rows = append(rows, d)
	})
	return rows
}

func (f *family) vcpus(t *testing.T, vm uint64) (rows []vcpuMessage) {
	t.Helper()
	f.rows(t, abi.CmdVCPUGet, abi.AVCPUVMID, abi.AVCPUEventSeq, abi.AVCPUInstance, vm, func(ad *netlink.AttributeDecoder) {
		var v vcpuMessage
		for ad.Next() {
			switch ad.Type() {
			case abi.AVCPUPad:
			case abi.AVCPUVMID:
				v.vm = ad.Uint64()
			case abi.AVCPUIndex:
				v.index = ad.Uint32()
			case abi.AVCPUState:
				v.state = abi.VCPUState(ad.Uint32())
			case abi.AVCPUPaused:
				v.paused = ad.Flag()
			case abi.AVCPUUnsettled:
				v.unsettled = ad.Flag()
			case abi.AVCPUKicks:
				v.kicks = ad.Uint64()
			case abi.AVCPUParks:
				v.parks = ad.Uint64()
			case abi.AVCPUParked:
				v.parked = ad.Uint64()
			default:
				t.Errorf("vcpu-get: unknown attribute %d", ad.Type())
			}
		}
		rows = append(rows, v)
	})
	return rows
}

// tombs are what is left of VMs that are gone, the oldest first.
func (f *family) tombs(t *testing.T) []vmMessage {
	t.Helper()
	msgs, _, err := f.request(abi.CmdTombGet, netlink.Dump, nil)
	ok(t, err)
	var d dumped
	ok(t, d.take(msgs))
	return d.vms
}

func (f *family) tomb(id uint64) (vmMessage, error) {
	ae := netlink.NewAttributeEncoder()
	ae.Uint64(abi.AVMID, id)
	attrs, err := ae.Encode()
	if err != nil {
		return vmMessage{}, err
	}
	var msgs []genetlink.Message
	if msgs, _, err = f.request(abi.CmdTombGet, 0, attrs); err != nil {
		return vmMessage{}, err
	}
	if len(msgs) != 1 {
		return vmMessage{}, fmt.Errorf("%d answers, want 1", len(msgs))
	}
	return parseVM(msgs[0])
}

func TestDeviceGet(t *testing.T) {
	f := dialTest(t)
	path := diskAt(t)
	var st unix.Stat_t
	ok(t, unix.Stat(path, &st))
	a, b := newMachine(t, created), newMachine(t, created)
	disk := a.mustAttach(path, unix.O_RDWR)
	nic, err := b.vm.AttachNIC(abi.Part{FD: nullFile(t), Role: abi.RoleTap}, abi.Part{FD: nullFile(t), Role: abi.RoleVhost})
	ok(t, err)
	all := f.devices(t, 0)
	if len(all) != 2 {
		t.Fatalf("%d backends, want 2: %+v", len(all), all)
	}
	d, n := all[0], all[1]
	if d.vm != a.id || d.backend != disk || d.kind != abi.BackendDisk || d.state != abi.BackendStateAttached ||
		d.dev != st.Dev || d.inode != st.Ino || !d.writable || fmt.Sprint(d.roles) != "[data]" {
		t.Errorf("disk %+v, want device %d inode %d", d, st.Dev, st.Ino)
	}
	if n.vm != b.id || n.backend != nic || n.kind != abi.BackendNIC || fmt.Sprint(n.roles) != "[tap vhost]" || n.writable || n.inode != 0 {
		t.Errorf("NIC %+v", n)
	}
	if one := f.devices(t, b.id); len(one) != 1 || one[0].vm != b.id {
		t.Errorf("backends of VM %d: %+v", b.id, one)
	}
	if none := f.devices(t, 1<<60); len(none) != 0 {
		t.Errorf("backends of no VM: %+v", none)
	}
}

func TestVCPUGet(t *testing.T) {
	f := dialTest(t)
	m := newCounting(t, 3)
	m.whenAllCounted([maxCounters]uint32{})
	other := newMachine(t, withVCPU)
	all := f.vcpus(t, 0)
	if len(all) != 4 {
		t.Fatalf("%d vCPUs, want 4: %+v", len(all), all)
	}
	for i, v := range all[:3] {
		if v.vm != m.id || v.index != uint32(i) || v.state != abi.VCPUStateRunning || v.paused {
			t.Errorf("vCPU %+v, want number %d running", v, i)
		}
	}
	if v := all[3]; v.vm != other.id || v.state != abi.VCPUStateFresh {
		t.Errorf("vCPU %+v, want a fresh one of VM %d", v, other.id)
	}
	m.mustPause(abi.PauseOperator)
	for i := range uint32(3) {
		m.whenVCPU(i, abi.VCPUStateParked)
	}
	for _, v := range f.vcpus(t, m.id) {
		if v.vm != m.id || v.state != abi.VCPUStateParked || v.kicks == 0 || v.parks == 0 || v.parked == 0 || v.unsettled {
			t.Errorf("vCPU of a paused VM: %+v", v)
		}
	}
	if none := f.vcpus(t, 1<<60); len(none) != 0 {
		t.Errorf("vCPUs of no VM: %+v", none)
	}
	m.end()
}

// TestVCPUGetMany lists more vCPUs than one message holds, each of them once.
func TestVCPUGetMany(t *testing.T) {
	f := dialTest(t)
	m := newMachine(t, bound)
	const n = 200
	for i := range uint32(n) {
		m.newVCPU(n - 1 - i)
	}
	other := newMachine(t, withVCPU)
	all := f.vcpus(t, 0)
	if len(all) != n+1 || all[n].vm != other.id {
		t.Fatalf("%d vCPUs, want %d", len(all), n+1)
	}
	for i, v := range all[:n] {
		if v.vm != m.id || v.index != uint32(i) {
			t.Fatalf("row %d: %+v", i, v)
		}
	}
}

// TestTombs reads what is left of VMs that are gone.
func TestTombs(t *testing.T) {
	f := dialTest(t)
	m := newMachine(t, running)
	_, err := f.tomb(m.id)
	wantErr(t, "tomb of a VM that is there", err, unix.ENOENT)
	ok(t, m.vm.Report(abi.ReasonPanic, [4]uint64{1, 2, 3, 4}))
	i := m.info()
	ok(t, m.vm.Destroy())
	got, err := f.tomb(m.id)
	ok(t, err)
	if got.id != m.id || got.uuid != i.UUID || got.name != i.NameString() || got.state != abi.VMStateStopped ||
		got.reason != abi.ReasonPanic || [4]uint64(got.exitData) != i.ExitData || got.event != 0 ||
		got.time < i.Created || got.time > monotonic() {
		t.Errorf("tomb %+v of %+v", got, i)
	}
	// The last 1,024 are kept, in the order of their ends.
	d := openDevice(t)
	var last uint64
	for range 1024 {
		vm, id, err := d.Create(newUUID(), "short-lived")
		ok(t, err)
		closeAll(t, vm)
		last = id
	}
	_, err = f.tomb(m.id)
	wantErr(t, "tomb of a VM that is long gone", err, unix.ENOENT)
	all := f.tombs(t)
	if len(all) != 1024 || all[1023].id != last || all[1023].reason != abi.ReasonDestroyed {
		t.Fatalf("%d tombs, the last %+v", len(all), all[len(all)-1])
	}
	for i := 1; i < len(all); i++ {
		if all[i].id != all[i-1].id+1 {
			t.Fatalf("tomb of VM %d behind that of VM %d", all[i].id, all[i-1].id)
		}
	}
}

// TestNotificationsOfControl follows what who controls a VM does to it.
func TestNotificationsOfControl(t *testing.T) {
	f := dialTest(t)
	ok(t, f.join())
	m := newMachine(t, created)
	ok(t, m.vm.ConfigSet(abi.VMConfigSet{MaxVCPUs: 1}))
	n := m.mustAttach(diskAt(t), unix.O_RDWR)
	m.mustPause(abi.PauseOperator)
	m.mustPause(abi.PauseSnapshot)
	ok(t, m.vm.Resume(abi.PauseOperator))
	ok(t, m.vm.Resume(abi.PauseSnapshot))
	ok(t, m.vm.Detach(n))
	ok(t, m.vm.Bind())
	_ = m.newVCPU(0)
	for range 3 {
		_, err := m.vm.CreateVCPU(1)
		wantErr(t, "one vCPU more than configured", err, unix.ENOSPC)
	}
	ok(t, m.vm.Stop())
	want := []struct {
		event   abi.Event
		paused  abi.Pause
		backend uint32
		limit   abi.Limit
		count   uint32
	}{
		{event: abi.EventCreated, count: 1},
		{event: abi.EventConfigured, count: 1},
		{event: abi.EventAttached, backend: n, count: 1},
		{event: abi.EventPaused, paused: abi.PauseOperator, count: 1},
		{event: abi.EventPaused, paused: abi.PauseAll, count: 1},
		{event: abi.EventResumed, paused: abi.PauseSnapshot, count: 1},
		{event: abi.EventResumed, count: 1},
		{event: abi.EventDetached, backend: n, count: 1},
		{event: abi.EventBound, count: 1},
		{event: abi.EventLimit, limit: abi.LimitVCPUs, count: 1},
		{event: abi.EventLimit, limit: abi.LimitVCPUs, count: 2},
		{event: abi.EventStopped, count: 1},
	}
	got := collect(t, f, len(want))
	for i, w := range want {
		g := got[i]
		if g.id != m.id || g.event != w.event || g.paused != w.paused || g.backend != w.backend || g.limit != w.limit || g.count != w.count {
			t.Errorf("%d: %v paused %v backend %d limit %v count %d, want %+v", i, g.event, g.paused, g.backend, g.limit, g.count, w)
		}
	}
}
