// SPDX-License-Identifier: Apache-2.0

// Package ctl is the control protocol between vmctld's launcher and a monitor:
// one message per packet on a SOCK_SEQPACKET socket, descriptors beside it.
//
// A packet begins with 16 bytes, little endian: u16 version, u16 type, u32 id,
// u32 status, u32 length of what follows. A request has an id other than 0; its
// reply has the same id, the type with the top bit set, and status 0 or a [Code]
// with a text. An event has the id 0.
//
// Both ends are here: [Conn] carries packets, [Client] is vmctld's side.
package ctl

import (
	"encoding/binary"
	"errors"

	"vmctl/monitor/wire"
)

// Limits of the protocol.
const (
	Version    = 1
	MaxMessage = 64 << 10 // bytes of a packet
	MaxFDs     = 6        // descriptors beside a packet
	headerLen  = 16
)

var (
	// ErrVersion is a packet of another version.
	ErrVersion = errors.New("packet of another version")
	// ErrType is a packet whose type is not known.
	ErrType = errors.New("packet of an unknown type")
	// ErrLength is a packet whose header gives another length than it has.
	ErrLength = errors.New("packet of another length than its header says")
)

var order = binary.LittleEndian

// Packet is a message as it travels. A reply with a Status other than OK has no
// Body, but a Text.
type Packet struct {
	ID     uint32
	Status Code
	Text   string
	Body   Message
	kind   Type
}

// Err is the error that a reply carries, or nil.
func (p *Packet) Err() error {
	if p.Status == OK {
		return nil
	}
	return &Error{p.Status, p.Text}
}

// Refusal is the reply that says no to the request in p.
func Refusal(p *Packet, e *Error) Packet {
	return Packet{ID: p.ID, Status: e.Code, Text: e.Text, kind: p.kind | replyBit}
}

// Append appends the encoding of the packet to buf.
func (p *Packet) Append(buf []byte) []byte {
	kind := p.kind
	if p.Body != nil {
		kind = p.Body.kind()
	}
	w := wire.NewWriter(order, buf)
	w.U16(Version)
	w.U16(uint16(kind))
	w.U32(p.ID)
	w.U32(uint32(p.Status))
	w.U32(0)
	start := len(w.Bytes())
	if p.Status != OK {
		w.String(cut(p.Text, maxText))
	} else if p.Body != nil {
		p.Body.encode(w)
	}
	out := w.Bytes()
	order.PutUint32(out[start-4:], uint32(len(out)-start))
	return out
}

// Parse reads a packet, to the last byte. With an error other than ErrVersion,
// ErrLength and wire.ErrShort the packet's id is right, so that it can be
// refused. errors.Is: the errors of ctl, spec and wire.
func Parse(msg []byte) (Packet, error) {
	r := wire.NewReader(order, msg)
	version, kind := r.U16(), Type(r.U16())
	p := Packet{ID: r.U32(), Status: Code(r.U32()), kind: kind}
	length := r.U32()
	switch {
	case r.Err() != nil:
		return Packet{}, r.Err()
	case version != Version:
		return Packet{}, ErrVersion
	case int64(length) != int64(len(msg)-headerLen):
		return Packet{}, ErrLength
	}
	if p.Status != OK {
		p.Text = r.String(maxText)
		return p, r.Close()
	}
	body := fresh(kind)
	if body == nil {
		return p, ErrType
	}
	body.decode(r)
	if err := r.Close(); err != nil {
		return p, err
	}
	p.Body = body
	return p, nil
}

// fresh returns the message of a type to be read into, or nil. What Parse
// returns is always a pointer.
func fresh(kind Type) decoder {
	switch kind {
	case typeHello:
		return new(Hello)
	case typeConfigure:
		return new(Configure)
	case typeStart:
		return new(Start)
	case typeStatus:
		return new(Status)
	case typePowerButton:
		return new(PowerButton)
	case typeReset:
		return new(Reset)
	case typeShutdown:
		return new(Shutdown)
	case typeConsoleGrant:
		return new(ConsoleGrant)
	case typeConsoleClose:
		return new(ConsoleClose)
	case typeSave:
		return new(Save)
	case typeRestore:
		return new(Restore)
	case typeBalloon:
		return new(Balloon)
	case typeDiskSwitch:
		return new(DiskSwitch)
	case typeDiskMerge:
		return new(DiskMerge)
	case typeVsockDialed:
		return new(VsockDialed)
	case typeSetDisk:
		return new(SetDisk)
	case typeSetNIC:
		return new(SetNIC)
	case typeAttachDisk:
		return new(AttachDisk)
	case typeAttachNIC:
		return new(AttachNIC)
	case typeDetach:
		return new(Detach)
	case typeAttachDisk | replyBit, typeAttachNIC | replyBit:
		return &AttachReply{of: kind &^ replyBit}
	case typeDetached:
		return new(Detached)
	case typeBalloon | replyBit:
		return new(BalloonReply)
	case typeDiskMerge | replyBit:
		return new(DiskMergeReply)
	case typeHello | replyBit:
		return new(HelloReply)
	case typeStatus | replyBit:
		return new(StatusReply)
	case typeGuestReset:
		return new(GuestReset)
	case typeStopped:
		return new(VMStopped)
	case typeConsoleOpened:
		return new(ConsoleOpened)
	case typeConsoleClosed:
		return new(ConsoleClosed)
	case typeDeviceBroken:
		return new(DeviceBroken)
	case typeVsockDial:
		return new(VsockDial)
	}
	if of := kind &^ replyBit; kind&replyBit != 0 && of >= typeConfigure && of <= typeDetach {
		return &Done{of: of}
	}
	return nil
}
