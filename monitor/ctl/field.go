// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"vmctl/abi"
	"vmctl/monitor/spec"
	"vmctl/monitor/wire"
)

// The fields of each message, in the order in which they travel.

// maxSpec bounds the encoding of a spec in bytes. It is above what a valid one
// takes, so that a command line that is too long is told from a broken message.
const maxSpec = 32 << 10

func (m Configure) encode(w *wire.Writer) { w.Blob(m.Spec.Encode(nil)) }

func (m *Configure) decode(r *wire.Reader) {
	b := r.Blob(maxSpec)
	if r.Err() != nil {
		return
	}
	s, err := spec.Decode(b)
	if err != nil {
		r.Fail(err)
	}
	m.Spec = s
}

func (m Restore) encode(w *wire.Writer) { Configure(m).encode(w) }

func (m *Restore) decode(r *wire.Reader) { (*Configure)(m).decode(r) }

func (m ConsoleGrant) encode(w *wire.Writer) {
	w.Fixed(m.TokenHash[:])
	w.String(m.Session)
	w.String(m.User)
	w.U64(uint64(m.ExpiresUnix))
	w.U8(uint8(m.Mode))
}

func (m *ConsoleGrant) decode(r *wire.Reader) {
	r.Fixed(m.TokenHash[:])
	m.Session, m.User = r.String(MaxIdentity), r.String(MaxIdentity)
	m.ExpiresUnix = int64(r.U64())
	m.Mode = readMode(r)
}

func readMode(r *wire.Reader) Mode {
	m := Mode(r.U8())
	if m != ReadWrite && m != ReadOnly {
		r.Fail(wire.ErrValue)
	}
	return m
}

func (m ConsoleClose) encode(w *wire.Writer) {
	w.String(m.Session)
	w.String(m.User)
	w.String(m.Reason)
}

func (m *ConsoleClose) decode(r *wire.Reader) {
	m.Session, m.User, m.Reason = r.String(MaxIdentity), r.String(MaxIdentity), r.String(maxText)
}

func (m HelloReply) encode(w *wire.Writer) {
	w.U16(m.Protocol)
	w.String(m.Version)
	w.U8(uint8(m.State))
}

func (m *HelloReply) decode(r *wire.Reader) {
	m.Protocol, m.Version, m.State = r.U16(), r.String(maxVersion), State(r.U8())
}

func (m StatusReply) encode(w *wire.Writer) {
	w.U8(uint8(m.State))
	w.U32(uint32(m.Reason))
	w.U32(m.Resets)
	w.U32(m.VCPUs)
	w.U64(m.MemoryBytes)
	w.U32(m.ConsoleViewers)
}

func (m *StatusReply) decode(r *wire.Reader) {
	m.State, m.Reason, m.Resets = State(r.U8()), abi.Reason(r.U32()), r.U32()
	m.VCPUs, m.MemoryBytes, m.ConsoleViewers = r.U32(), r.U64(), r.U32()
}

func (m Balloon) encode(w *wire.Writer)  { w.U64(m.Target) }
func (m *Balloon) decode(r *wire.Reader) { m.Target = r.U64() }

func (m BalloonReply) encode(w *wire.Writer) {
	w.U64(m.Target)
	w.U64(m.Actual)
	g := m.Memory
	for _, v := range []uint64{g.Total, g.Free, g.Available, g.Caches, g.MajorFaults} {
		w.U64(v)
	}
}

func (m *BalloonReply) decode(r *wire.Reader) {
	m.Target, m.Actual = r.U64(), r.U64()
	g := &m.Memory
	g.Total, g.Free, g.Available, g.Caches, g.MajorFaults = r.U64(), r.U64(), r.U64(), r.U64(), r.U64()
}

func (m DiskSwitch) encode(w *wire.Writer) {
	w.U8(m.Disk)
	w.U32(m.Backend)
}

func (m *DiskSwitch) decode(r *wire.Reader) { m.Disk, m.Backend = r.U8(), r.U32() }

func (m DiskMerge) encode(w *wire.Writer) {
	w.U8(m.Disk)
	w.U8(uint8(m.Do))
}

func (m *DiskMerge) decode(r *wire.Reader) {
	if m.Disk, m.Do = r.U8(), MergeStep(r.U8()); m.Do > MergeAbort {
		r.Fail(wire.ErrValue)
	}
}

func (m DiskMergeReply) encode(w *wire.Writer) {
	w.U8(uint8(m.State))
	w.U64(m.Done)
	w.U64(m.Total)
	w.U8(uint8(len(m.Backends)))
	for _, n := range m.Backends {
		w.U32(n)
	}
	w.String(cut(m.Text, maxText))
}

func (m *DiskMergeReply) decode(r *wire.Reader) {
	if m.State = MergeState(r.U8()); m.State > MergeFailed {
		r.Fail(wire.ErrValue)
	}
	m.Done, m.Total = r.U64(), r.U64()
	for range r.U8() {
		m.Backends = append(m.Backends, r.U32())
	}
	m.Text = r.String(maxText)
}

func (m VsockDialed) encode(w *wire.Writer)  { w.U32(m.Number) }
func (m *VsockDialed) decode(r *wire.Reader) { m.Number = r.U32() }

func (m SetDisk) encode(w *wire.Writer) {
	w.U8(m.Disk)
	m.Limit.Encode(w)
}

func (m *SetDisk) decode(r *wire.Reader) {
	m.Disk = r.U8()
	m.Limit.Decode(r)
	if m.Limit.Validate() != nil {
		r.Fail(spec.ErrDiskLimit)
	}
}

func (m AttachDisk) encode(w *wire.Writer) { m.Disk.Encode(w) }

func (m *AttachDisk) decode(r *wire.Reader) { m.Disk = spec.DecodeDisk(r) }

func (m AttachNIC) encode(w *wire.Writer) { m.NIC.Encode(w) }

func (m *AttachNIC) decode(r *wire.Reader) { m.NIC = spec.DecodeNIC(r) }

func (m Detach) encode(w *wire.Writer) {
	w.Bool(m.IsNIC)
	w.U8(m.Number)
}

func (m *Detach) decode(r *wire.Reader) { m.IsNIC, m.Number = r.Bool(), r.U8() }

func (m AttachReply) encode(w *wire.Writer)  { w.U8(m.Number) }
func (m *AttachReply) decode(r *wire.Reader) { m.Number = r.U8() }

func (m Detached) encode(w *wire.Writer) {
	w.Bool(m.IsNIC)
	w.U8(m.Number)
}

func (m *Detached) decode(r *wire.Reader) { m.IsNIC, m.Number = r.Bool(), r.U8() }

func (m SetNIC) encode(w *wire.Writer) {
	w.U8(m.NIC)
	m.Receive.Encode(w)
	m.Send.Encode(w)
	w.Bool(m.Down)
}

func (m *SetNIC) decode(r *wire.Reader) {
	m.NIC = r.U8()
	m.Receive.Decode(r)
	m.Send.Decode(r)
	if m.Down = r.Bool(); m.Receive.Validate() != nil || m.Send.Validate() != nil {
		r.Fail(spec.ErrNICLimit)
	}
}

func (m VsockDial) encode(w *wire.Writer) {
	w.U32(m.Number)
	w.U32(m.Port)
}

func (m *VsockDial) decode(r *wire.Reader) { m.Number, m.Port = r.U32(), r.U32() }

func (m GuestReset) encode(w *wire.Writer)  { w.U32(m.Count) }
func (m *GuestReset) decode(r *wire.Reader) { m.Count = r.U32() }

func (m VMStopped) encode(w *wire.Writer) {
	w.U32(uint32(m.Reason))
	for _, d := range m.Data {
		w.U64(d)
	}
	w.String(cut(m.Text, maxText))
}

func (m *VMStopped) decode(r *wire.Reader) {
	m.Reason = abi.Reason(r.U32())
	for i := range m.Data {
		m.Data[i] = r.U64()
	}
	m.Text = r.String(maxText)
}

func (m DeviceBroken) encode(w *wire.Writer) {
	w.String(cut(m.Device, maxText))
	w.String(cut(m.Text, maxText))
}

func (m *DeviceBroken) decode(r *wire.Reader) {
	m.Device, m.Text = r.String(maxText), r.String(maxText)
}

func (m ConsoleOpened) encode(w *wire.Writer) {
	w.U32(m.Viewer)
	w.String(m.Session)
	w.String(m.User)
	w.String(m.Address)
	w.U8(uint8(m.Mode))
}

func (m *ConsoleOpened) decode(r *wire.Reader) {
	m.Viewer, m.Session, m.User = r.U32(), r.String(MaxIdentity), r.String(MaxIdentity)
	m.Address, m.Mode = r.String(MaxIdentity), readMode(r)
}

func (m ConsoleClosed) encode(w *wire.Writer) {
	w.U32(m.Viewer)
	w.String(m.Session)
	w.String(m.User)
	w.String(m.Reason)
}

func (m *ConsoleClosed) decode(r *wire.Reader) {
	m.Viewer, m.Session, m.User, m.Reason = r.U32(), r.String(MaxIdentity), r.String(MaxIdentity), r.String(maxText)
}

// cut shortens a text of ours to its limit.
func cut(s string, limit int) string {
	if len(s) > limit {
		return s[:limit]
	}
	return s
}
