// SPDX-License-Identifier: Apache-2.0

// Package wire is what the lab and the agent in its machine say to each other:
// frames over one virtio-serial port. Raw bytes of the command travel in
// frames of their own kind, so nothing that a kernel or a boot loader prints
// can mix with them.
package wire

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
)

// PortName is the virtio-serial port's name, PortFolder where guests find it.
const (
	PortName   = "lab"
	PortFolder = "/sys/class/virtio-ports"
)

// Log marks in the kernel log. Only what stands between them is judged.
const (
	MarkBegin = "lab: begin"
	MarkEnd   = "lab: end"
)

// Folders and the file of the initramfs that the agent looks for.
const (
	RootModules  = "/lab/modules"
	OtherModules = "/lab/others"
	ModuleFile   = "/lab/vmm.ko"
)

// ModuleCopy is where the command finds the module that is loaded, should it
// want to load it again.
const ModuleCopy = "/run/vmm.ko"

// MaxPayload bounds one frame, in bytes.
const MaxPayload = 64 << 10

// Kind says what a frame carries.
type Kind byte

// Frames to the machine.
const (
	Start  Kind = 'S' // JSON of Command
	Stdin  Kind = 'i' // bytes; an empty one is the end of input
	Resize Kind = 'w' // JSON of Size
	Nudge  Kind = 'n' // nothing: it interrupts the machine
)

// Frames from the machine.
const (
	Hello  Kind = 'H' // the root is there; empty
	Stdout Kind = 'o' // bytes
	Stderr Kind = 'e' // bytes
	Done   Kind = 'D' // JSON of Result; the last frame
)

// Size is a terminal's, in characters.
type Size struct{ Rows, Cols uint16 }

// Command is what the machine shall run, as root, in its root folder's view.
type Command struct {
	Argv   []string
	Env    []string // NAME=VALUE
	Dir    string   // working folder
	TTY    bool     // give it a terminal instead of pipes
	Size   Size     // of that terminal
	Module bool     // load /lab/vmm.ko first, unload it afterwards
	Cover  string   // then copy what was counted of its lines here
}

// Result is how the command ended and what it left.
type Result struct {
	Status int    // exit status, 128 + signal where one killed it
	Leak   string // why the module could not be unloaded; empty if it could
	Error  string // why the command could not be run at all; empty if it could
}

// ErrPayload is returned for a frame above MaxPayload.
var ErrPayload = errors.New("wire: frame too large")

// Writer writes frames. It is safe for concurrent use.
type Writer struct {
	mu sync.Mutex
	w  io.Writer
}

// NewWriter returns a Writer on w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Send writes one frame.
func (w *Writer) Send(k Kind, payload []byte) error {
	if len(payload) > MaxPayload {
		return ErrPayload
	}
	frame := make([]byte, 5, 5+len(payload))
	frame[0] = byte(k)
	binary.BigEndian.PutUint32(frame[1:], uint32(len(payload)))
	frame = append(frame, payload...)
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err := w.w.Write(frame)
	return err
}

// SendJSON writes v as one frame.
func (w *Writer) SendJSON(k Kind, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("wire: %w", err)
	}
	return w.Send(k, b)
}

// Stream is an io.Writer whose bytes become frames of kind k.
func (w *Writer) Stream(k Kind) io.Writer { return stream{w, k} }

type stream struct {
	w *Writer
	k Kind
}

func (s stream) Write(p []byte) (int, error) {
	for n := 0; n < len(p); {
		end := min(n+MaxPayload, len(p))
		if err := s.w.Send(s.k, p[n:end]); err != nil {
			return n, err
		}
		n = end
	}
	return len(p), nil
}

// Read reads one frame. The error is io.EOF only between two frames.
func Read(r io.Reader) (Kind, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > MaxPayload {
		return 0, nil, ErrPayload
	}
	payload := make([]byte, n)
	if _, err := io.ReadFull(r, payload); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	return Kind(head[0]), payload, nil
}
