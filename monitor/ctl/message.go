// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"vmctl/abi"
	"vmctl/monitor/rate"
	"vmctl/monitor/spec"
	"vmctl/monitor/wire"
)

// Type is the kind of a message. A reply has its request's type with replyBit.
type Type uint16

const (
	replyBit Type = 0x8000

	typeHello        Type = 1
	typeConfigure    Type = 2
	typeStart        Type = 3
	typeStatus       Type = 4
	typePowerButton  Type = 5
	typeReset        Type = 6
	typeShutdown     Type = 7
	typeConsoleGrant Type = 8
	typeConsoleClose Type = 9
	typeBalloon      Type = 10
	typeVsockDialed  Type = 11
	typeSave         Type = 12
	typeRestore      Type = 13
	typeDiskSwitch   Type = 14
	typeDiskMerge    Type = 15
	typeSetDisk      Type = 16
	typeSetNIC       Type = 17
	typeAttachDisk   Type = 18
	typeAttachNIC    Type = 19
	typeDetach       Type = 20

	typeGuestReset    Type = 0x4001
	typeStopped       Type = 0x4002
	typeConsoleOpened Type = 0x4003
	typeConsoleClosed Type = 0x4004
	typeDeviceBroken  Type = 0x4005
	typeVsockDial     Type = 0x4006
	typeDetached      Type = 0x4007
)

// Limits of fields, in bytes.
const (
	maxText    = 1024
	maxVersion = 64
	// MaxIdentity bounds a session, a user and an address.
	MaxIdentity = 256
)

// State is how far a monitor is.
type State uint8

// States of a monitor.
const (
	Idle       State = 1 // no VM yet: consoles may attach
	Configured State = 2 // the VM is set up
	Running    State = 3 // Start was given
	Stopped    State = 4 // the VM ended: the process is about to exit
)

var stateNames = [...]string{"unknown", "idle", "configured", "running", "stopped"}

// String returns the state in one word.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return stateNames[0]
}

// Mode is what a console grant allows.
type Mode uint8

// Modes of a console grant.
const (
	ReadWrite Mode = 1 // may type, and take the writer's place
	ReadOnly  Mode = 2
)

// MergeState is how far the merge of a disk is.
type MergeState uint8

// States of a merge.
const (
	NotMerging  MergeState = 0
	Merging     MergeState = 1 // the uppermost file is being written into the one behind it
	Merged      MergeState = 2 // it is, and both are written to
	MergeFailed MergeState = 3 // it could not be, and both are used still
)

// MergeStep is what a DiskMerge asks for.
type MergeStep uint8

// Steps of a merge. Each may be asked for again.
const (
	MergeLook   MergeStep = 0 // nothing but the reply
	MergeBegin  MergeStep = 1
	MergeFinish MergeStep = 2 // the uppermost file is left
	MergeAbort  MergeStep = 3 // it stays
)

// Message is a request, a reply or an event of this package.
type Message interface {
	kind() Type
	encode(w *wire.Writer)
}

// decoder is a message that can be read.
type decoder interface {
	Message
	decode(r *wire.Reader)
}

// empty is a message without fields.
type empty struct{}

func (empty) encode(*wire.Writer) {}
func (empty) decode(*wire.Reader) {}

// Requests. Each is answered by a reply with the same id.
type (
	// Hello asks who is there; answered by HelloReply.
	Hello struct{ empty }

	// Configure binds the VM and sets the machine up. Descriptors: the VM
	// (rights run and observe), the kernel, and the initrd if there is one; or the
	// firmware instead, if Spec says so; and last, if Spec has a CID, the listening
	// stream socket where the host's programs connect to the guest's. Disks are not
	// among them: they are attached to the VM before, and Spec has the numbers of
	// their backends.
	// After an error the process exits, and the text says why.
	Configure struct{ Spec spec.Spec }

	// Restore is Configure for a machine that Save wrote: it is made of the same Spec.
	// Descriptors: the VM, the state, the memory (both as Save filled them, the memory
	// for reading at least), and then those of Configure behind the VM, for when the
	// guest resets. If the files are none that fit, nothing was done to the VM.
	Restore struct{ Spec spec.Spec }

	// Save writes the machine to two empty regular files, open for reading and
	// writing: the state and the memory. State: running, and the VM is paused with no
	// exit unsettled. It stays paused, and goes on when it is resumed: a save that
	// failed has changed nothing. The files are on the medium, their times need not be.
	Save struct{ empty }

	// Start lets the guest run. State: configured.
	Start struct{ empty }

	// Status asks how the monitor is; answered by StatusReply.
	Status struct{ empty }

	// PowerButton presses the guest's power button. State: running.
	PowerButton struct{ empty }

	// Reset resets the guest inside the same VM, whatever the policy says.
	// State: running.
	Reset struct{ empty }

	// Shutdown ends the monitor now, in any state. The reply comes before the
	// end.
	Shutdown struct{ empty }

	// ConsoleGrant admits one console connection that brings the token whose
	// SHA-256 this is. It can be used once.
	ConsoleGrant struct {
		TokenHash   [32]byte
		Session     string // login session, MaxIdentity bytes at most
		User        string // principal, MaxIdentity bytes at most
		ExpiresUnix int64  // milliseconds
		Mode        Mode
	}

	// ConsoleClose ends the consoles, and the unused grants, of a session, or
	// of a user when Session is empty.
	ConsoleClose struct {
		Session string
		User    string
		Reason  string // shown to the viewer
	}

	// Balloon says how much memory the guest is to give to the host, in bytes, or
	// KeepTarget; answered by BalloonReply. States: configured, running.
	Balloon struct{ Target uint64 }

	// DiskSwitch lets a disk go on in a new overlay above its files, which are only read
	// from then on. Disk is its place in the spec; Backend is the number of a backend of
	// one empty file. After an error nothing has changed. State: running.
	DiskSwitch struct {
		Disk    uint8
		Backend uint32
	}

	// DiskMerge asks for the merge of a disk's uppermost file into the one behind it, or
	// how it is; answered by DiskMergeReply. State: running.
	DiskMerge struct {
		Disk uint8
		Do   MergeStep
	}

	// VsockDialed answers VsockDial. Descriptor: a stream socket that is connected to
	// who listens there, or none if nobody does. States: configured, running.
	VsockDialed struct{ Number uint32 }

	// SetDisk changes the limit of a disk. State: running.
	SetDisk struct {
		Disk  uint8 // its number
		Limit rate.Limit
	}

	// AttachDisk puts a disk into the machine while its guest runs. AttachReply has its
	// number, which DiskSwitch, DiskMerge, SetDisk and Detach take: the lowest that no disk
	// has; those of Spec are numbered by their place. State: running.
	AttachDisk struct{ Disk spec.Disk }

	// AttachNIC puts a network card into it, likewise.
	AttachNIC struct{ NIC spec.NIC }

	// Detach asks the guest to let go of a device, which Detached tells; until then, or
	// until the guest is reset, it works. It may be asked again. State: running.
	Detach struct {
		IsNIC  bool // and no disk
		Number uint8
	}

	// SetNIC changes limits and link of a network card; the guest sees what becomes of
	// the link. State: running.
	SetNIC struct {
		NIC           uint8 // its number
		Receive, Send rate.Limit
		Down          bool
	}
)

// KeepTarget is no target of a balloon: it is only asked.
const KeepTarget = 1<<64 - 1

// Replies that have fields. All others are Done.
type (
	// HelloReply answers Hello.
	HelloReply struct {
		Protocol uint16
		Version  string // of vmx
		State    State
	}

	// StatusReply answers Status.
	StatusReply struct {
		State          State
		Reason         abi.Reason // of the last change: of a reset too
		Resets         uint32     // of the guest, since Start
		VCPUs          uint32
		MemoryBytes    uint64
		ConsoleViewers uint32
	}

	// BalloonReply answers Balloon, in bytes. What the guest has given is its own
	// word, and comes later than the target.
	BalloonReply struct {
		Target, Actual uint64
		Memory         GuestMemory
	}

	// GuestMemory is what the guest told last of its memory, in bytes; all are 0 as
	// long as it told nothing. Each Balloon asks it for newer figures.
	GuestMemory struct {
		Total, Free, Available, Caches uint64
		MajorFaults                    uint64 // number, since its boot
	}

	// AttachReply answers AttachDisk and AttachNIC.
	AttachReply struct {
		of     Type
		Number uint8
	}

	// DiskMergeReply answers DiskMerge. While the state is Merged, either the chain with
	// the uppermost file or that without it is the disk after a power cut.
	DiskMergeReply struct {
		State       MergeState
		Done, Total uint64   // bytes
		Backends    []uint32 // of the disk's own files, the uppermost first
		Text        string   // why it failed, for people
	}

	// Done answers every other request. Kind is the request's type.
	Done struct {
		empty
		of Type
	}
)

// Events. Nobody answers them; those that nobody is connected for are lost, and
// Status has what they said.
type (
	// GuestReset: the guest was reset and runs again.
	GuestReset struct{ Count uint32 }

	// VMStopped: the VM ended, and the monitor exits with Reason as status.
	VMStopped struct {
		Reason abi.Reason
		Data   [4]uint64 // as in VM_REPORT
		Text   string    // for people
	}

	// DeviceBroken: the guest's driver broke a rule of a device, which works no
	// more until the guest resets it. It is told once for each device and reset
	// of the guest.
	DeviceBroken struct {
		Device string // such as "disk0"
		Text   string // which rule, for people
	}

	// Detached: the guest let go of a device, whose files are closed.
	Detached struct {
		IsNIC  bool
		Number uint8
	}

	// VsockDial: the guest wants to connect to a port of the host's; VsockDialed is to
	// follow. A monitor has few of them open at a time.
	VsockDial struct {
		Number uint32
		Port   uint32
	}

	// ConsoleOpened: a viewer was admitted.
	ConsoleOpened struct {
		Viewer  uint32
		Session string
		User    string
		Address string // as the viewer's proxy claims it
		Mode    Mode
	}

	// ConsoleClosed: a viewer is gone.
	ConsoleClosed struct {
		Viewer  uint32
		Session string
		User    string
		Reason  string // name of a code of the console protocol, or "left"
	}
)

func (Hello) kind() Type          { return typeHello }
func (Configure) kind() Type      { return typeConfigure }
func (Start) kind() Type          { return typeStart }
func (Status) kind() Type         { return typeStatus }
func (PowerButton) kind() Type    { return typePowerButton }
func (Reset) kind() Type          { return typeReset }
func (Shutdown) kind() Type       { return typeShutdown }
func (ConsoleGrant) kind() Type   { return typeConsoleGrant }
func (ConsoleClose) kind() Type   { return typeConsoleClose }
func (Save) kind() Type           { return typeSave }
func (Restore) kind() Type        { return typeRestore }
func (Balloon) kind() Type        { return typeBalloon }
func (DiskSwitch) kind() Type     { return typeDiskSwitch }
func (DiskMerge) kind() Type      { return typeDiskMerge }
func (SetDisk) kind() Type        { return typeSetDisk }
func (SetNIC) kind() Type         { return typeSetNIC }
func (AttachDisk) kind() Type     { return typeAttachDisk }
func (AttachNIC) kind() Type      { return typeAttachNIC }
func (Detach) kind() Type         { return typeDetach }
func (r AttachReply) kind() Type  { return r.of | replyBit }
func (Detached) kind() Type       { return typeDetached }
func (DiskMergeReply) kind() Type { return typeDiskMerge | replyBit }
func (VsockDialed) kind() Type    { return typeVsockDialed }
func (BalloonReply) kind() Type   { return typeBalloon | replyBit }
func (HelloReply) kind() Type     { return typeHello | replyBit }
func (StatusReply) kind() Type    { return typeStatus | replyBit }
func (d Done) kind() Type         { return d.of | replyBit }
func (GuestReset) kind() Type     { return typeGuestReset }
func (VMStopped) kind() Type      { return typeStopped }
func (ConsoleOpened) kind() Type  { return typeConsoleOpened }
func (ConsoleClosed) kind() Type  { return typeConsoleClosed }
func (DeviceBroken) kind() Type   { return typeDeviceBroken }
func (VsockDial) kind() Type      { return typeVsockDial }

// AttachedWith is the reply to a request that attaches a device.
func AttachedWith(request Message, number uint8) AttachReply {
	return AttachReply{of: request.kind(), Number: number}
}

// DoneWith is the reply without fields to a request.
func DoneWith(request Message) Done { return Done{of: request.kind()} }
