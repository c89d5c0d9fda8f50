// SPDX-License-Identifier: Apache-2.0

//go:build lab

package kabi

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"

	"vmctl/abi"
)

// vmMessage is what a reply, a row of a dump or a notification says.
type vmMessage struct {
	id, memory, created   uint64
	seq, time, instance   uint64
	uuid                  [abi.UUIDLen]byte
	name                  string
	state                 abi.VMState
	reason                abi.Reason
	event                 abi.Event
	paused                abi.Pause
	owner, monitor, vcpus uint32
	count, backend        uint32
	limit                 abi.Limit
	exitData              []uint64
	command               uint8
	unknown               []uint16
	sawState, sawOwner    bool
}

// family is a socket of the generic netlink family.
type family struct {
	conn *genetlink.Conn
	fam  genetlink.Family
}

func dialFamily() (*family, error) {
	conn, err := genetlink.Dial(&netlink.Config{Strict: true})
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	fam, err := conn.GetFamily(abi.GenlName)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("family %s: %w", abi.GenlName, err)
	}
	return &family{conn, fam}, nil
}

func (f *family) close() error { return f.conn.Close() }

// join makes the socket receive notifications.
func (f *family) join() error {
	for _, g := range f.fam.Groups {
		if g.Name == abi.GenlMCGroupEvents {
			return f.conn.JoinGroup(g.ID)
		}
	}
	return fmt.Errorf("no group %s", abi.GenlMCGroupEvents)
}

// request sends one command with raw attributes.
func (f *family) request(cmd uint8, flags netlink.HeaderFlags, attrs []byte) ([]genetlink.Message, []netlink.Message, error) {
	seq, err := f.send(cmd, flags, attrs)
	if err != nil {
		return nil, nil, err
	}
	return f.answer(seq)
}

// send sends one command and returns its number. The kernel has made the first
// part of a dump when send returns, and makes the others as they are read.
func (f *family) send(cmd uint8, flags netlink.HeaderFlags, attrs []byte) (uint32, error) {
	req := genetlink.Message{Header: genetlink.Header{Command: cmd, Version: abi.GenlVersion}, Data: attrs}
	sent, err := f.conn.Send(req, f.fam.ID, flags|netlink.Request)
	return sent.Header.Sequence, err
}

// answer reads all parts of the answer to the command of that number.
func (f *family) answer(seq uint32) ([]genetlink.Message, []netlink.Message, error) {
	msgs, raw, err := f.conn.Receive()
	if err != nil {
		return nil, nil, err
	}
	for _, r := range raw {
		if r.Header.Sequence != seq {
			return nil, nil, fmt.Errorf("answer to %d, asked %d", r.Header.Sequence, seq)
		}
	}
	return msgs, raw, nil
}

// get asks for one VM.
func (f *family) get(id uint64) (vmMessage, error) {
	ae := netlink.NewAttributeEncoder()
	ae.Uint64(abi.AVMID, id)
	attrs, err := ae.Encode()
	if err != nil {
		return vmMessage{}, err
	}
	msgs, _, err := f.request(abi.CmdVMGet, 0, attrs)
	if err != nil {
		return vmMessage{}, err
	}
	if len(msgs) != 1 {
		return vmMessage{}, fmt.Errorf("%d answers, want 1", len(msgs))
	}
	return parseVM(msgs[0])
}

// dumped is the answer to a dump: a head that names no object, and the rows.
type dumped struct {
	head        vmMessage
	vms         []vmMessage
	interrupted int // dumps that had to be done again
}

// dump lists all VMs. An interrupted dump is done again, as the flag asks for.
func (f *family) dump() (dumped, error) {
	var d dumped
	for ; d.interrupted < 10; d.interrupted++ {
		msgs, raw, err := f.request(abi.CmdVMGet, netlink.Dump, nil)
		if err != nil {
			return d, err
		}
		if !interrupted(raw) {
			return d, d.take(msgs)
		}
	}
	return d, errors.New("dump: interrupted ten times")
}

// interrupted tells whether the inventory changed while the dump was made.
func interrupted(raw []netlink.Message) bool {
	return slices.ContainsFunc(raw, func(m netlink.Message) bool {
		return m.Header.Flags&netlink.DumpInterrupted != 0
	})
}

// take reads the messages of a whole dump.
func (d *dumped) take(msgs []genetlink.Message) error {
	for i, m := range msgs {
		vm, err := parseVM(m)
		if err != nil {
			return err
		}
		if i == 0 {
			d.head = vm
		} else {
			d.vms = append(d.vms, vm)
		}
	}
	if len(msgs) == 0 || d.head.id != 0 || d.head.instance == 0 {
		return fmt.Errorf("dump: %d messages, the first is %+v, want one without object", len(msgs), d.head)
	}
	return nil
}

// next waits for a notification.
func (f *family) next(timeout time.Duration) ([]vmMessage, error) {
	if err := f.conn.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return nil, err
	}
	msgs, _, err := f.conn.Receive()
	if err != nil {
		return nil, err
	}
	var vms []vmMessage
	for _, m := range msgs {
		vm, err := parseVM(m)
		if err != nil {
			return nil, err
		}
		vms = append(vms, vm)
	}
	return vms, nil
}

func parseVM(m genetlink.Message) (vmMessage, error) {
	vm := vmMessage{command: m.Header.Command}
	ad, err := netlink.NewAttributeDecoder(m.Data)
	if err != nil {
		return vm, err
	}
	for ad.Next() {
		switch ad.Type() {
		case abi.AVMPad:
		case abi.AVMID:
			vm.id = ad.Uint64()
		case abi.AVMUUID:
			if copy(vm.uuid[:], ad.Bytes()) != len(vm.uuid) {
				return vm, errors.New("uuid: not 16 bytes")
			}
		case abi.AVMName:
			vm.name = ad.String()
		case abi.AVMState:
			vm.state, vm.sawState = abi.VMState(ad.Uint32()), true
		case abi.AVMPaused:
			vm.paused = abi.Pause(ad.Uint32())
		case abi.AVMReason:
			vm.reason = abi.Reason(ad.Uint32())
		case abi.AVMExitData:
			vm.exitData = append(vm.exitData, ad.Uint64())
		case abi.AVMOwner:
			vm.owner, vm.sawOwner = ad.Uint32(), true
		case abi.AVMMonitor:
			vm.monitor = ad.Uint32()
		case abi.AVMVCPUs:
			vm.vcpus = ad.Uint32()
		case abi.AVMMemory:
			vm.memory = ad.Uint64()
		case abi.AVMCreated:
			vm.created = ad.Uint64()
		case abi.AVMEvent:
			vm.event = abi.Event(ad.Uint32())
		case abi.AVMEventSeq:
			vm.seq = ad.Uint64()
		case abi.AVMEventTime:
			vm.time = ad.Uint64()
		case abi.AVMEventCount:
			vm.count = ad.Uint32()
		case abi.AVMLimit:
			vm.limit = abi.Limit(ad.Uint32())
		case abi.AVMBackend:
			vm.backend = ad.Uint32()
		case abi.AVMInstance:
			vm.instance = ad.Uint64()
		default:
			vm.unknown = append(vm.unknown, ad.Type())
		}
	}
	return vm, ad.Err()
}
