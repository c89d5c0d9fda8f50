// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"errors"
	"os"
	"time"

	"vmctl/daemon/api"
)

// This file is what the package needs of others: package kern is the Kernel,
// launch the Launcher, network the Network, store the Store.

// RunState is the state of a kernel VM.
type RunState int

// The states of a kernel VM, in their order.
const (
	RunCreated RunState = iota + 1
	RunBound
	RunRunning
	RunStopped
)

// Holders is the set of those who keep the gate of a kernel VM shut.
type Holders uint32

// Who may hold the gate.
const (
	HeldByOperator Holders = 1 << iota
	HeldBySnapshot
)

// Run is one kernel VM: one power cycle of a VM.
type Run struct {
	ID      uint64 // never used again
	UUID    string
	Name    string
	State   RunState
	Paused  Holders        // none: the gate is open
	Reason  api.StopReason // why it stopped; empty before
	Claimed bool           // the reason is the monitor's word
	Data    [4]uint64      // belongs to Reason
	Ended   time.Time      // when it stopped; zero before, and where the kernel does not say
	Monitor int            // process id; 0 before it is bound
}

// NoticeKind is what a notice of the kernel says.
type NoticeKind int

// Notices that matter to a VM; Other are all the rest.
const (
	NoticeOther NoticeKind = iota
	NoticeRunning
	NoticePaused
	NoticeResumed
	NoticeAttached
	NoticeDetached
	NoticeLimit
	NoticeReset
	NoticeStopped
	NoticeDestroyed
)

// Update is what the kernel says: one notice, or, after notices may have been
// lost, all there is.
type Update struct {
	Kind    NoticeKind
	Run     Run    // of a notice
	Seq     uint64 // number of the notice; of a dump: valid up to
	Count   uint32 // of NoticeReset and NoticeLimit: how often it happened
	Limit   string // of NoticeLimit: which one, such as "vcpus"
	Backend uint32 // of NoticeAttached and NoticeDetached: its number
	Dump    []Run  // not nil: everything the kernel has
	Anew    bool   // of a dump: the module was loaded anew, its numbers began again
	Lost    error  // not nil: notices stopped; a dump follows when they are back
}

// Kernel is the module vmm. Errors may be *api.Error; what else comes is told
// as CodeKernelFailed.
type Kernel interface {
	// Create makes a kernel VM. The error is ErrRunExists when the uuid has one.
	Create(uuid, name string) (Handle, uint64, error)
	// Open opens one by its number. The error is ErrNoRun when there is none.
	Open(id uint64) (Handle, error)
	// List returns all there are, and the number of the last notice in them.
	List(ctx context.Context) ([]Run, uint64, error)
	// Ended returns the runs that stopped, as far as the kernel remembers: also
	// those that List has no more, because nobody held them.
	Ended(ctx context.Context) ([]Run, error)
	// Claims returns the disks that runs have, also runs that are gone.
	Claims(ctx context.Context) ([]Claim, error)
	// Attached returns what a run has, in the order in which it was attached.
	Attached(ctx context.Context, run uint64) ([]Attached, error)
}

// Attached is a disk or a network card that a run has.
type Attached struct {
	Backend uint32 // its number there: higher than those of all before, and never used again
	IsNIC   bool
}

// Claim is a disk that a run has.
type Claim struct {
	Run        uint64
	Backend    uint32 // its number there
	Dev, Inode uint64 // as stat tells them, of a regular file
	Draining   bool   // it is given back as soon as I/O under way has ended
}

var (
	// ErrRunExists says that a uuid has a kernel VM already.
	ErrRunExists = errors.New("kernel has a VM with that uuid")
	// ErrNoRun says that the kernel has no VM with that number.
	ErrNoRun = errors.New("kernel has no such VM")
	// ErrStopped says that a kernel VM is stopped already.
	ErrStopped = errors.New("kernel VM is stopped")
	// ErrDiskClaimed says that a disk has a writer, or is to have one and has readers.
	ErrDiskClaimed = errors.New("disk is claimed")
	// ErrMonitorGone says that no monitor answers.
	ErrMonitorGone = errors.New("monitor is gone")
	// ErrNoDevice says that a monitor has no such device.
	ErrNoDevice = errors.New("monitor has no such device")
	// ErrRefused says that a monitor did not want to, and nothing has changed.
	ErrRefused = errors.New("monitor refused")
)

// Handle is a descriptor of a kernel VM with all rights.
type Handle interface {
	// RunFile makes the descriptor that a monitor needs. The caller closes it.
	RunFile() (*os.File, error)
	// Run asks for the facts.
	Run() (Run, error)
	// Stop ends it; it waits until no guest instruction runs. The error is
	// ErrStopped when it was stopped before.
	Stop() error
	// AttachDisk gives it a disk, for writing if the file is open for that, with the
	// files behind it, and returns the disk's number there. The caller closes the
	// files. The error is ErrDiskClaimed when another has one of them.
	AttachDisk(file *os.File, backing ...*os.File) (uint32, error)
	// Detach takes a disk or a network card away; the monitor has its files until it
	// closes them. One that is away is no error.
	Detach(backend uint32) error
	// AttachNIC gives it a network card, with a vhost if that is not nil, and returns
	// the card's number there. The caller closes the files.
	AttachNIC(tap, vhost *os.File) (uint32, error)
	// Pause shuts the gate for one holder, and returns when no guest instruction
	// begins any more, or with an error when a vCPU's thread could not be had in the
	// time: the gate is shut then, too. For a snapshot the monitor has nothing half
	// done when it returns.
	Pause(by Holders, timeout time.Duration) error
	// Resume ends that; whether the guest goes on depends on other holders.
	Resume(by Holders) error
	// Destroy takes it out of the kernel's inventory; it stops it if need be.
	Destroy() error
	Close() error
}

// Process names a process beyond the reuse of its number.
type Process struct {
	PID   int
	Start uint64 // clock ticks since boot, as in /proc/PID/stat
}

// MonitorSpec is what a monitor is spawned for.
type MonitorSpec struct {
	UUID        string
	Name        string
	UID         uint32 // its own, also its gid
	MemoryBytes int64  // of the guest, for its limits
}

// Launcher starts and finds monitors.
type Launcher interface {
	// Start spawns a monitor and connects to it.
	Start(ctx context.Context, spec MonitorSpec) (Monitor, error)
	// Attach connects to a monitor that an earlier daemon spawned. The error is
	// ErrMonitorGone when there is none.
	Attach(ctx context.Context, spec MonitorSpec, p Process) (Monitor, error)
	// Sweep ends what an earlier daemon spawned for a VM and was killed before it
	// could record: every process of the VM but keep.
	Sweep(spec MonitorSpec, keep Process) error
	// Forget removes what is left of a VM that was deleted.
	Forget(uuid string) error
	// ConsoleSocket is where local callers reach the console.
	ConsoleSocket(uuid string) string
}

// Network makes the host's ends of network cards. Errors may be *api.Error.
type Network interface {
	// Check says whether a VM may have such a card.
	Check(nic api.NICSpec) error
	// Open makes the host's end of a run's card: a tap, which goes with its last file,
	// and a vhost or nil.
	Open(run uint64, index int, nic api.NICSpec) (tap, vhost *os.File, err error)
}

// ConsoleGrant admits one viewer once.
type ConsoleGrant struct {
	Hash    [32]byte // SHA-256 of the token
	Session string
	User    string
	Expires time.Time
	Mode    api.ConsoleMode
}

// Monitor is a connection to the monitor of one VM. Calls end with the context
// or with the connection. Errors may be *api.Error; what else comes is told as
// CodeMonitorFailed.
type Monitor interface {
	Process() Process
	// Configure hands over the run descriptor and the boot files, and what the VM was
	// saved to if it is to go on from that; the caller
	// still closes its own.
	Configure(ctx context.Context, spec api.VMSpec, backends Backends, run *os.File, files *Files) error
	Start(ctx context.Context) error
	// Save writes the machine, whose gate a snapshot keeps shut, to empty files.
	Save(ctx context.Context, files *SavedFiles) error
	// Disks and network cards have numbers: their places in the spec that the machine
	// began with. See Plugged.

	// SwitchDisk lets a disk go on in an empty file that was attached, above what it is
	// made of. After an error of the monitor's nothing has changed.
	SwitchDisk(ctx context.Context, disk int, attached uint32) error
	// MergeDisk does a step of the merge of a disk, and says how it is then.
	MergeDisk(ctx context.Context, disk int, step MergeStep) (Merge, error)
	Reset(ctx context.Context) error
	// SetDisk and SetNIC give one, of a guest that runs, the limits and the link that it
	// is to have now.
	SetDisk(ctx context.Context, number int, d api.DiskSpec) error
	SetNIC(ctx context.Context, number int, n api.NICSpec) error
	// AttachDisk and AttachNIC put one that the run has into the machine, and return its
	// number: one that is free. errors.Is: ErrRefused.
	AttachDisk(ctx context.Context, d api.DiskSpec, attached uint32) (int, error)
	AttachNIC(ctx context.Context, n api.NICSpec, attached uint32) (int, error)
	// Detach asks the guest to let go of one, which a report tells; it may be asked again.
	// errors.Is: ErrNoDevice, which is one that it has let go of; ErrRefused.
	Detach(ctx context.Context, isNIC bool, number int) error
	// SetBalloon says how much memory the guest is to give back, in bytes.
	SetBalloon(ctx context.Context, bytes int64) error
	// Balloon says how much it has given.
	Balloon(ctx context.Context) (api.Balloon, error)
	// PowerButton presses the guest's power button.
	PowerButton(ctx context.Context) error
	// Shutdown ends the monitor.
	Shutdown(ctx context.Context) error
	Grant(ctx context.Context, g ConsoleGrant) error
	// CloseConsoles ends the consoles of a session, or all when it is empty.
	CloseConsoles(ctx context.Context, session, reason string) error
	// Viewers returns how many consoles are open.
	Viewers(ctx context.Context) (int, error)
	// Reports yields what the monitor tells by itself; closed when the
	// connection ends.
	Reports() <-chan Report
	// Gone is closed when the process has ended and was reaped.
	Gone() <-chan struct{}
	// Kill ends the process. Gone follows.
	Kill() error
	// Close ends the connection and leaves the process alone.
	Close() error
}

// MergeStep is what is asked of a merge.
type MergeStep int

// Steps of a merge. All but MergeFinish may be asked for again.
const (
	MergeLook MergeStep = iota
	MergeBegin
	MergeFinish // the uppermost file is left
	MergeAbort  // it stays
)

// MergeState is how far the merge of a disk is.
type MergeState int

// States of a merge.
const (
	NotMerging MergeState = iota
	Merging               // the uppermost file is being written into the one behind it
	Merged                // it is, and both are written to: either chain is the disk
	MergeBroke            // it could not be, and both are used still
)

// Merge is how the merge of a disk is.
type Merge struct {
	State       MergeState
	Done, Total uint64   // bytes
	Disks       []uint32 // the numbers of its own files, the uppermost first
	Text        string   // why it broke
}

// Report is what a monitor tells by itself. It is a claim.
type Report struct {
	ConsoleOpened *api.ConsoleData
	ConsoleClosed *api.ConsoleData
	Resets        uint64 // resets by the guest so far; 0 in other reports
	Stopped       string // text of an end; "" in other reports
	Broken        *api.BrokenData
	LetGo         bool // the guest let go of a device
}

// Record is a VM as the store keeps it.
type Record struct {
	VM      api.VM
	UID     uint32
	Monitor Process  // of the last monitor that was spawned
	Scrap   *Scrap   // nil: no disk has any
	Plugged *Plugged // nil: no device came or went in this run
}

// Scrap is a file of a disk that a snapshot or a merge has not ended with. When the disk
// has it for its uppermost file the snapshot is made, but for the monitor's word; else
// the file is to go.
type Scrap struct {
	Disk int    `json:"disk"`
	Path string `json:"path"`
}

// Store keeps records, tasks and events. Update runs fn in one transaction;
// when it returns nil, everything in it is durable and readers of events are told.
type Store interface {
	Update(ctx context.Context, fn func(Tx) error) error
	// Records returns all VMs.
	Records(ctx context.Context) ([]Record, error)
	// OpenTasks returns the tasks that did not end, oldest first.
	OpenTasks(ctx context.Context) ([]api.Task, error)
	// VMs returns all VMs by name and the number of the last event in them.
	VMs() ([]api.VM, int64)
	// FindVM returns a VM by uuid or name.
	FindVM(ident string) (api.VM, bool)
	// Seed returns the seed of a VM, or nil if it has none.
	Seed(ctx context.Context, id string) (*api.Seed, error)
}

// Tx is one transaction.
type Tx interface {
	// Insert adds a VM with a user id of its own from the range, and a CID of its own
	// if it has sockets. The error is
	// *api.Error with CodeExists or CodeLimitExceeded.
	Insert(r *Record, first, last uint32) error
	Put(r Record) error
	// Change is Put for a record whose name or spec is another; it gives a VM that is to
	// have sockets a CID of its own. The error is as that of Insert.
	Change(r *Record) error
	// PutSeed gives a VM a seed, which goes with the VM.
	PutSeed(id string, seed api.Seed) error
	Delete(id string) error
	PutTask(t api.Task) error
	// Event adds to the journal.
	Event(kind api.EventKind, vm *api.VMRef, data any) error
	// Audit adds a row to the audit log, for what no request asked for.
	Audit(actor, session, action, object string) error
	// Answer keeps what the request of this transaction is answered with, for
	// its idempotency key.
	Answer(v any) error
}
