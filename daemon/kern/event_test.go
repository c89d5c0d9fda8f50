// SPDX-License-Identifier: Apache-2.0

package kern

import (
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/mdlayher/netlink"

	"vmctl/abi"
	"vmctl/daemon/api"
	"vmctl/daemon/vm"
)

const testUUID = "11111111-2222-4333-8444-555555555555"

// encode returns a decoder of what fill encodes.
func encode(t *testing.T, fill func(*netlink.AttributeEncoder)) *netlink.AttributeDecoder {
	t.Helper()
	e := netlink.NewAttributeEncoder()
	fill(e)
	b, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	d, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestParseEvent(t *testing.T) {
	u := uuid.MustParse(testUUID)
	e, err := parseEvent(encode(t, func(e *netlink.AttributeEncoder) {
		e.Uint64(abi.AVMID, 7)
		e.Bytes(abi.AVMUUID, u[:])
		e.String(abi.AVMName, "web")
		e.Uint32(abi.AVMState, uint32(abi.VMStateStopped))
		e.Uint32(abi.AVMPaused, uint32(abi.PauseAll))
		e.Uint32(abi.AVMReason, uint32(abi.ReasonPanic))
		for i := range uint64(4) {
			e.Uint64(abi.AVMExitData, i+1)
		}
		e.Uint32(abi.AVMMonitor, 42)
		e.Uint32(abi.AVMEvent, 99) // of a later module
		e.Uint32(abi.AVMEventCount, 5)
		e.Uint32(abi.AVMLimit, uint32(abi.LimitMemory))
		e.Uint32(abi.AVMBackend, 6)
		e.Uint64(abi.AVMEventSeq, 9)
		e.Uint64(abi.AVMInstance, 3)
		e.Uint64(99, 99)
	}))
	if err != nil {
		t.Fatal(err)
	}
	want := event{position: position{seq: 9, instance: 3}, kind: 99, count: 5, limit: abi.LimitMemory, backend: 6,
		run: vm.Run{ID: 7, UUID: testUUID, Name: "web", State: vm.RunStopped, Paused: vm.HeldByOperator | vm.HeldBySnapshot,
			Reason: api.StopPanic, Claimed: true, Data: [4]uint64{1, 2, 3, 4}, Monitor: 42}}
	if e != want {
		t.Errorf("%+v, want %+v", e, want)
	}
	if k := noticeKind(e.kind); k != vm.NoticeOther {
		t.Errorf("an unknown event is notice %d", k)
	}
}

func TestParseParts(t *testing.T) {
	v, err := parseVCPU(encode(t, func(e *netlink.AttributeEncoder) {
		e.Uint64(abi.AVCPUVMID, 7)
		e.Uint32(abi.AVCPUIndex, 1)
		e.Uint32(abi.AVCPUState, uint32(abi.VCPUStateParked))
		e.Flag(abi.AVCPUPaused, true)
		e.Flag(abi.AVCPUUnsettled, true)
		e.Uint64(abi.AVCPUKicks, 2)
		e.Uint64(abi.AVCPUParks, 3)
		e.Uint64(abi.AVCPUParked, 4e9)
		e.Uint64(99, 99)
	}))
	if want := (VCPU{Run: 7, Index: 1, State: abi.VCPUStateParked, Paused: true, Unsettled: true, Kicks: 2, Parks: 3, Parked: 4 * time.Second}); err != nil || v != want {
		t.Errorf("%+v %v, want %+v", v, err, want)
	}
	b, err := parseBackend(encode(t, func(e *netlink.AttributeEncoder) {
		e.Uint64(abi.ADevVMID, 7)
		e.Uint32(abi.ADevBackend, 2)
		e.Uint32(abi.ADevKind, uint32(abi.BackendDisk))
		e.Uint32(abi.ADevState, uint32(abi.BackendStateDraining))
		e.Uint32(abi.ADevRole, uint32(abi.RoleData))
		e.Uint32(abi.ADevRole, uint32(abi.RoleBase))
		e.Uint64(abi.ADevDev, 3)
		e.Uint64(abi.ADevInode, 4)
		e.Flag(abi.ADevWritable, true)
		e.Uint64(99, 99)
	}))
	roles := []abi.Role{abi.RoleData, abi.RoleBase}
	if err != nil || b.Run != 7 || b.Number != 2 || b.Kind != abi.BackendDisk || b.State != abi.BackendStateDraining ||
		!slices.Equal(b.Roles, roles) || b.Dev != 3 || b.Inode != 4 || !b.Writable {
		t.Errorf("%+v %v", b, err)
	}
}

func TestParseRefuses(t *testing.T) {
	short := func(e *netlink.AttributeEncoder) {
		e.Uint64(abi.AVMID, 1)
		e.Bytes(abi.AVMUUID, []byte("short"))
	}
	narrow := func(e *netlink.AttributeEncoder) { e.Uint32(abi.AVMID, 1) }
	if _, err := parseEvent(encode(t, short)); err == nil {
		t.Error("a short uuid was taken")
	}
	for what, fill := range map[string]func(*netlink.AttributeEncoder){"nothing": func(*netlink.AttributeEncoder) {}, "a narrow number": narrow} {
		if _, err := parseEvent(encode(t, fill)); err == nil {
			t.Errorf("%s was taken for an event", what)
		}
		if _, err := parseVCPU(encode(t, fill)); err == nil {
			t.Errorf("%s was taken for a vCPU", what)
		}
		if _, err := parseBackend(encode(t, fill)); err == nil {
			t.Errorf("%s was taken for a backend", what)
		}
	}
}

// TestEnded: the journal has the order, and what it forgot is older.
func TestEnded(t *testing.T) {
	run := func(id uint64) vm.Run { return vm.Run{ID: id} }
	stopped := func(id uint64) event { return event{kind: abi.EventStopped, run: run(id)} }
	tombs := []vm.Run{run(2), run(1), run(5), run(4)}
	journal := []event{stopped(4), {kind: abi.EventDestroyed, run: run(2)}, stopped(6), stopped(5), {kind: abi.EventDestroyed, run: run(5)}}
	var ids []uint64
	for _, r := range ended(tombs, journal) {
		ids = append(ids, r.ID)
	}
	if want := []uint64{2, 1, 4, 6, 5}; !slices.Equal(ids, want) {
		t.Errorf("ended %v, want %v", ids, want)
	}
}
