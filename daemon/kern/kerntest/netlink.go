// SPDX-License-Identifier: Apache-2.0

package kerntest

import (
	"maps"
	"net"
	"slices"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/genetlink/genltest"
	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nltest"
	"golang.org/x/sys/unix"

	"vmctl/abi"
)

// family is what the controller says of ours.
var family = genetlink.Family{ID: 30, Name: abi.GenlName, Version: abi.GenlVersion,
	Groups: []genetlink.MulticastGroup{{ID: 5, Name: abi.GenlMCGroupEvents}}}

// joinType is the type of a message that asks for the notices, which is a
// socket option of real sockets.
const joinType = netlink.HeaderType(0xffff)

var ack = netlink.Message{Header: netlink.Header{Type: joinType}}

// netlink serves a socket of generic netlink.
func (k *Kernel) netlink(c *net.UnixConn) {
	for {
		m, err := receiveNetlink(c)
		if err != nil {
			return
		}
		if m.Header.Type == joinType {
			k.listen(c)
			return
		}
		answer, errno := k.ask(m)
		if errno != 0 {
			answer, _ = nltest.Error(int(errno), []netlink.Message{m})
		}
		if sendNetlink(c, answer...) != nil {
			return
		}
	}
}

// ask answers one request.
func (k *Kernel) ask(m netlink.Message) ([]netlink.Message, unix.Errno) {
	var req genetlink.Message
	if err := req.UnmarshalBinary(m.Data); err != nil {
		return nil, unix.EINVAL
	}
	if m.Header.Type == unix.GENL_ID_CTRL {
		msgs, err := genltest.ServeFamily(family, nil)(req, m)
		if err != nil || len(msgs) != 1 {
			return nil, unix.ENOENT
		}
		return []netlink.Message{k.message(msgs[0].Header.Command, m.Header, msgs[0].Data)}, 0
	}
	var value uint64
	d, err := netlink.NewAttributeDecoder(req.Data)
	if err != nil {
		return nil, unix.EINVAL
	}
	for d.Next() {
		value = d.Uint64()
	}
	if d.Err() != nil {
		return nil, unix.ERANGE
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if m.Header.Flags&netlink.Dump == 0 {
		return k.one(req.Header.Command, m.Header, value)
	}
	return k.dump(req.Header.Command, m.Header, value)
}

// one answers vm-get and tomb-get of one VM. Called with mu.
func (k *Kernel) one(cmd uint8, h netlink.Header, id uint64) ([]netlink.Message, unix.Errno) {
	var notes []note
	switch cmd {
	case abi.CmdVMGet:
		notes = k.vmNotes()
	case abi.CmdTombGet:
		notes = kept(k.tombs, tombsKept)
	default:
		return nil, unix.EOPNOTSUPP
	}
	for _, n := range notes {
		if n.info.ID == id {
			return []netlink.Message{k.message(cmd, h, n.attributes(k.seq, k.instance))}, 0
		}
	}
	return nil, unix.ENOENT
}

// dump answers the dumps. Called with mu.
func (k *Kernel) dump(cmd uint8, h netlink.Header, value uint64) ([]netlink.Message, unix.Errno) {
	var op string
	var rows [][]byte
	seqAttr, instanceAttr := uint16(abi.AVMEventSeq), uint16(abi.AVMInstance)
	switch cmd {
	case abi.CmdVMGet:
		op, rows = "vm-get", k.rows(k.vmNotes())
	case abi.CmdTombGet:
		op, rows = "tomb-get", k.rows(kept(k.tombs, tombsKept))
	case abi.CmdEventGet:
		op = "event-get"
		for _, n := range kept(k.journal, eventsKept) {
			if n.seq > value {
				rows = append(rows, n.attributes(n.seq, k.instance))
			}
		}
	case abi.CmdVCPUGet:
		op, rows = "vcpu-get", k.vcpuRows(value)
		seqAttr, instanceAttr = abi.AVCPUEventSeq, abi.AVCPUInstance
	case abi.CmdDeviceGet:
		op, rows = "device-get", k.backendRows(value)
		seqAttr, instanceAttr = abi.ADevEventSeq, abi.ADevInstance
	default:
		return nil, unix.EOPNOTSUPP
	}
	if errno := k.fail[op]; errno != 0 {
		return nil, errno
	}
	h.Flags = netlink.Multi
	head := attributes(func(e *netlink.AttributeEncoder) {
		e.Uint64(seqAttr, k.seq)
		e.Uint64(instanceAttr, k.instance)
	})
	msgs := []netlink.Message{k.message(cmd, h, head)}
	for _, r := range rows {
		msgs = append(msgs, k.message(cmd, h, r))
	}
	if cmd == abi.CmdVMGet && k.interrupt > 0 {
		k.interrupt--
		msgs[len(msgs)-1].Header.Flags |= netlink.DumpInterrupted
	}
	h.Type = netlink.Done
	return append(msgs, netlink.Message{Header: h}), 0
}

func (k *Kernel) vmNotes() []note {
	var notes []note
	for _, v := range k.all() {
		notes = append(notes, note{info: v.info})
	}
	return notes
}

func (k *Kernel) rows(notes []note) [][]byte {
	var rows [][]byte
	for _, n := range notes {
		rows = append(rows, n.attributes(k.seq, k.instance))
	}
	return rows
}

func (k *Kernel) vcpuRows(id uint64) [][]byte {
	var rows [][]byte
	for _, v := range k.all() {
		if id != 0 && v.info.ID != id {
			continue
		}
		for _, index := range slices.Sorted(maps.Keys(v.vcpus)) {
			s := v.vcpuStats(index)
			rows = append(rows, attributes(func(e *netlink.AttributeEncoder) {
				e.Uint64(abi.AVCPUVMID, v.info.ID)
				e.Uint32(abi.AVCPUIndex, index)
				e.Uint32(abi.AVCPUState, uint32(s.State))
				e.Uint64(abi.AVCPUKicks, s.Kicks)
				e.Uint64(abi.AVCPUParks, s.Parks)
				e.Uint64(abi.AVCPUParked, s.ParkedNs)
			}))
		}
	}
	return rows
}

func (k *Kernel) backendRows(id uint64) [][]byte {
	var rows [][]byte
	for _, b := range k.backends {
		if id == 0 || b.vm.info.ID == id {
			rows = append(rows, b.attributes())
		}
	}
	return rows
}

// attributes is the VM as vmm.yaml describes it, with the position of the answer.
func (n *note) attributes(seq, instance uint64) []byte {
	return attributes(func(e *netlink.AttributeEncoder) {
		e.Uint64(abi.AVMID, n.info.ID)
		e.Bytes(abi.AVMUUID, n.info.UUID[:])
		e.String(abi.AVMName, n.info.NameString())
		e.Uint32(abi.AVMState, uint32(n.info.State))
		e.Uint32(abi.AVMPaused, uint32(n.info.Paused))
		e.Uint32(abi.AVMReason, uint32(n.info.Reason))
		for _, w := range n.info.ExitData {
			e.Uint64(abi.AVMExitData, w)
		}
		e.Uint32(abi.AVMOwner, n.info.Owner)
		e.Uint32(abi.AVMMonitor, n.info.Monitor)
		e.Uint32(abi.AVMVCPUs, n.info.VCPUs)
		e.Uint64(abi.AVMMemory, n.info.Memory)
		e.Uint64(abi.AVMCreated, n.info.Created)
		if n.event != 0 {
			e.Uint32(abi.AVMEvent, uint32(n.event))
			e.Uint32(abi.AVMEventCount, n.count)
		}
		if n.time != 0 {
			e.Uint64(abi.AVMEventTime, n.time)
		}
		if n.limit != 0 {
			e.Uint32(abi.AVMLimit, uint32(n.limit))
		}
		if n.backend != 0 {
			e.Uint32(abi.AVMBackend, n.backend)
		}
		e.Uint64(abi.AVMEventSeq, seq)
		e.Uint64(abi.AVMInstance, instance)
	})
}

func attributes(fill func(*netlink.AttributeEncoder)) []byte {
	e := netlink.NewAttributeEncoder()
	fill(e)
	b, err := e.Encode()
	if err != nil {
		panic(err) // it is too long, which none of them can be
	}
	return b
}

// message answers h, which is zero for a notice.
func (k *Kernel) message(cmd uint8, h netlink.Header, data []byte) netlink.Message {
	body, _ := genetlink.Message{Header: genetlink.Header{Command: cmd, Version: abi.GenlVersion}, Data: data}.MarshalBinary() // never fails
	if h.Type == 0 {
		h.Type = netlink.HeaderType(family.ID)
	}
	return netlink.Message{Header: h, Data: body}
}

// familyGone is the controller's word that the module was unloaded.
func familyGone() netlink.Message {
	name := attributes(func(e *netlink.AttributeEncoder) { e.String(unix.CTRL_ATTR_FAMILY_NAME, family.Name) })
	return (*Kernel)(nil).message(unix.CTRL_CMD_DELFAMILY, netlink.Header{Type: unix.GENL_ID_CTRL}, name)
}
