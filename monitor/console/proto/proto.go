// SPDX-License-Identifier: Apache-2.0

// Package proto is the protocol of a VM's console: frames on a stream socket,
// between the monitor and whoever shows the console.
//
// A frame is a type byte, a length of three bytes, and that many bytes of
// payload, MaxPayload at most; numbers are big endian. Through the front door a
// frame is one binary WebSocket message: the type byte and the payload.
//
//	client                      server
//	Hello  -------------------->
//	       <--------------------  OK, or Close
//	       <--------------------  History...     what was printed before
//	       <--------------------  Data, Viewers, Ping
//	Data, Take, Resize, Pong -->
//	       <--------------------  Close
//
// Offsets count the bytes that the guest printed since the console's file was
// made. After OK every byte comes once and in order: History carries the offset
// it begins at, and one that is above the end of what came before is a gap, of
// which nothing is kept.
package proto

import (
	"encoding/binary"
	"errors"

	"vmctl/monitor/wire"
)

// Subprotocol is the name of this protocol on a WebSocket.
const Subprotocol = "vmctl.console.v1"

// Limits of the protocol, in bytes.
const (
	HeaderLen  = 4
	MaxPayload = 64<<10 - HeaderLen
	MaxToken   = 128
	MaxName    = 256 // of a session, a user and an address
	MaxText    = 256
	MaxViewers = 32
)

// Errors of a frame that cannot be read.
var (
	ErrType    = errors.New("frame of an unknown type")
	ErrTooLong = errors.New("frame is too long")
)

// Type is the kind of a frame.
type Type uint8

// Types of frames. C: the client sends it; S: the server.
const (
	TypeHello   Type = 0x01 // C: Hello, the first frame
	TypeOK      Type = 0x02 // S: OK, the first frame
	TypeHistory Type = 0x03 // S: History
	TypeData    Type = 0x04 // C: typed bytes; S: printed bytes
	TypeViewers Type = 0x05 // S: Viewers
	TypeTake    Type = 0x06 // C: no payload: become the writer
	TypeResize  Type = 0x07 // C: Resize
	TypePing    Type = 0x08 // S: no payload
	TypePong    Type = 0x09 // C: no payload
	TypeClose   Type = 0x0a // S: Close, the last frame
)

// Code says why the server closes.
type Code uint16

// Codes of Close. On a WebSocket the close code is 4000 and this.
const (
	TokenUnknown Code = 1 // nobody granted this token
	TokenUsed    Code = 2
	TokenExpired Code = 3
	Slow         Code = 4 // the viewer did not read, or did not answer
	Superseded   Code = 5 // too many viewers
	SessionEnded Code = 6
	VMDeleted    Code = 7
	Shutdown     Code = 8 // the monitor ends
	Protocol     Code = 9 // the viewer broke the protocol
)

var codeNames = [...]string{
	"", "tokenUnknown", "tokenUsed", "tokenExpired", "slow", "superseded", "sessionEnded", "vmDeleted", "shutdown", "protocol",
}

// String returns the code's name, such as "tokenUsed".
func (c Code) String() string {
	if c >= TokenUnknown && int(c) < len(codeNames) {
		return codeNames[c]
	}
	return "unknown"
}

// WebSocketBase is what is added to a Code on a WebSocket.
const WebSocketBase = 4000

// Hello is the first frame of a client.
type Hello struct {
	Token   []byte // as it was given out
	Session string // login session that the token is bound to
	Address string // of the viewer, as its proxy sees it
	// Offset is where the viewer's copy ends: history before it is not sent.
	// 0: send all.
	Offset uint64
}

// OK admits a viewer.
type OK struct {
	Viewer uint32 // number of this viewer
	Writer bool   // it may type
	Offset uint64 // end of what was printed so far
}

// Viewer is one of those who see the console.
type Viewer struct {
	ID     uint32
	User   string
	Writer bool
}

// Resize is the size of the viewer's terminal. The writer's is the guest's, unless
// its console is a serial port, which has none.
type Resize struct{ Cols, Rows uint16 }

// Close is the last frame of the server.
type Close struct {
	Code Code
	Text string
}

// Error returns the code and the text, so that a Close can be an error.
func (c *Close) Error() string { return "console closed: " + c.Code.String() + ": " + c.Text }

var order = binary.BigEndian

// begin starts a frame; finish puts its length in.
func begin(buf []byte, t Type) *wire.Writer {
	return wire.NewWriter(order, append(buf, byte(t), 0, 0, 0))
}

func finish(w *wire.Writer, start int) []byte {
	out := w.Bytes()
	n := len(out) - start - HeaderLen
	out[start+1], out[start+2], out[start+3] = byte(n>>16), byte(n>>8), byte(n)
	return out
}

// AppendFrame appends a frame with a payload that is known already: that of
// Data, Take, Ping, Pong, or one that is passed on. The payload must not be
// longer than MaxPayload.
func AppendFrame(buf []byte, t Type, payload []byte) []byte {
	w := begin(buf, t)
	w.Fixed(payload)
	return finish(w, len(buf))
}

// AppendHello appends the frame.
func AppendHello(buf []byte, h *Hello) []byte {
	w := begin(buf, TypeHello)
	w.Blob(h.Token)
	w.String(h.Session)
	w.String(h.Address)
	w.U64(h.Offset)
	return finish(w, len(buf))
}

// ParseHello reads the payload. The token is part of it, not a copy.
func ParseHello(payload []byte) (Hello, error) {
	r := wire.NewReader(order, payload)
	h := Hello{Token: r.Blob(MaxToken), Session: r.String(MaxName), Address: r.String(MaxName), Offset: r.U64()}
	return h, r.Close()
}

// AppendOK appends the frame.
func AppendOK(buf []byte, o OK) []byte {
	w := begin(buf, TypeOK)
	w.U32(o.Viewer)
	w.Bool(o.Writer)
	w.U64(o.Offset)
	return finish(w, len(buf))
}

// ParseOK reads the payload.
func ParseOK(payload []byte) (OK, error) {
	r := wire.NewReader(order, payload)
	o := OK{Viewer: r.U32(), Writer: r.Bool(), Offset: r.U64()}
	return o, r.Close()
}

// historyHead is the offset before the bytes of History.
const historyHead = 8

// MaxHistory is how many bytes one History can carry.
const MaxHistory = MaxPayload - historyHead

// AppendHistory appends the frame: bytes that were printed at offset.
func AppendHistory(buf []byte, offset uint64, printed []byte) []byte {
	w := begin(buf, TypeHistory)
	w.U64(offset)
	w.Fixed(printed)
	return finish(w, len(buf))
}

// ParseHistory reads the payload. The bytes are part of it, not a copy.
func ParseHistory(payload []byte) (offset uint64, printed []byte, err error) {
	r := wire.NewReader(order, payload)
	offset = r.U64()
	printed = r.Rest()
	return offset, printed, r.Close()
}

// AppendViewers appends the frame: all who see the console, MaxViewers at most.
func AppendViewers(buf []byte, viewers []Viewer) []byte {
	w := begin(buf, TypeViewers)
	w.U16(uint16(len(viewers)))
	for _, v := range viewers {
		w.U32(v.ID)
		w.String(v.User)
		w.Bool(v.Writer)
	}
	return finish(w, len(buf))
}

// ParseViewers reads the payload.
func ParseViewers(payload []byte) ([]Viewer, error) {
	r := wire.NewReader(order, payload)
	n := r.U16()
	if n > MaxViewers {
		r.Fail(wire.ErrTooLong)
	}
	var viewers []Viewer
	for i := uint16(0); i < n && r.Err() == nil; i++ {
		viewers = append(viewers, Viewer{ID: r.U32(), User: r.String(MaxName), Writer: r.Bool()})
	}
	if err := r.Close(); err != nil {
		return nil, err
	}
	return viewers, nil
}

// AppendResize appends the frame.
func AppendResize(buf []byte, s Resize) []byte {
	w := begin(buf, TypeResize)
	w.U16(s.Cols)
	w.U16(s.Rows)
	return finish(w, len(buf))
}

// ParseResize reads the payload.
func ParseResize(payload []byte) (Resize, error) {
	r := wire.NewReader(order, payload)
	s := Resize{Cols: r.U16(), Rows: r.U16()}
	return s, r.Close()
}

// AppendClose appends the frame. A text that is too long is cut.
func AppendClose(buf []byte, c Close) []byte {
	w := begin(buf, TypeClose)
	w.U16(uint16(c.Code))
	w.String(c.Text[:min(len(c.Text), MaxText)])
	return finish(w, len(buf))
}

// ParseClose reads the payload.
func ParseClose(payload []byte) (Close, error) {
	r := wire.NewReader(order, payload)
	c := Close{Code: Code(r.U16()), Text: r.String(MaxText)}
	return c, r.Close()
}
