// SPDX-License-Identifier: Apache-2.0

package api

import (
	"regexp"
	"time"
)

// Limits of a VM's spec.
const (
	MaxVCPUs     = 64
	MinMemory    = 16 << 20 // bytes
	MaxMemory    = 1 << 40  // bytes
	MemoryUnit   = 4096     // memoryBytes is a multiple of it
	MaxCmdline   = 2047     // bytes
	MaxPath      = 1024     // bytes
	MaxDisks     = 16
	MaxBacking   = 15 // files behind a disk's own
	MaxNICs      = 8
	MaxSerial    = 20 // bytes: virtio 1.2, 5.2.6
	MinCID       = 3  // virtio 1.2, 5.10.4
	MaxCID       = 1<<32 - 2
	MinRateBytes = 4 << 10 // per second
	MaxRateBytes = 1 << 40 // per second
	MaxRateOps   = 1e9     // per second
	MaxBurst     = 60000   // milliseconds
	NamePattern  = `^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$`
	IdentPattern = `^([a-z]([a-z0-9-]{0,61}[a-z0-9])?|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})$`
)

// VM is one virtual machine: what was asked for, and what is.
type VM struct {
	ID         string    `json:"id" format:"uuid" doc:"Never changes, never used again"`
	Name       string    `json:"name" doc:"Unique on this host"`
	Generation int64     `json:"generation" minimum:"1" doc:"Grows with each change of name or spec; the ETag"`
	Spec       VMSpec    `json:"spec"`
	Seed       *SeedSize `json:"seed,omitempty" doc:"Of its seed, if it has one; what is in it only an admin sees: getSeed"`
	Status     VMStatus  `json:"status"`
	CreatedAt  time.Time `json:"createdAt"`
	UpdatedAt  time.Time `json:"updatedAt" doc:"Of the last change of name, spec or state"`
}

// VMSpec is what an operator decides about a VM.
type VMSpec struct {
	VCPUs        int         `json:"vcpus" required:"false" minimum:"1" maximum:"64" default:"1" doc:"Number of virtual CPUs"`
	MemoryBytes  int64       `json:"memoryBytes" required:"false" minimum:"16777216" maximum:"1099511627776" multipleOf:"4096" default:"536870912" doc:"Guest memory"`
	BalloonBytes int64       `json:"balloonBytes,omitempty" minimum:"0" maximum:"1099494850560" multipleOf:"4096" doc:"How much of its memory the guest is to give back to the host, as far as it can do without it; 16 MiB stay with it at least. getBalloon tells how much it has given"`
	Boot         BootSpec    `json:"boot" required:"false" doc:"What it boots; without a kernel its firmware looks for a system on its disks"`
	Disks        []DiskSpec  `json:"disks,omitempty" maxItems:"16" doc:"In the order in which the guest finds them"`
	NICs         []NICSpec   `json:"nics,omitempty" maxItems:"8" doc:"Network cards, in the order in which the guest finds them"`
	Vsock        *VsockSpec  `json:"vsock,omitempty" doc:"Sockets between the guest and programs on the host; without it the guest has none"`
	Console      ConsoleKind `json:"console" required:"false" enum:"serial,virtio" default:"serial" doc:"The device that the VM's console is: ttyS0, or hvc0 once the guest has its driver"`
	OnReset      ResetPolicy `json:"onReset" required:"false" enum:"restart,stop" default:"restart" doc:"What a reset by the guest does"`
	OnPoweroff   EndPolicy   `json:"onPoweroff" required:"false" enum:"stop,restart" default:"stop" doc:"What becomes of the VM when the guest powers off"`
	OnCrash      EndPolicy   `json:"onCrash" required:"false" enum:"stop,restart" default:"stop" doc:"What becomes of it after a panic, a triple fault, or the end of its monitor; restarts are further and further apart"`
}

// BootSpec is what a VM boots: a kernel, or what the host's firmware finds on the VM's
// disks. Paths are relative to the host's boot folder, or absolute and beneath it; no
// part of them may be a symbolic link.
type BootSpec struct {
	Kernel  string `json:"kernel,omitempty" maxLength:"1024" doc:"bzImage, or an ELF with a PVH entry; without one the VM boots from its disks"`
	Initrd  string `json:"initrd,omitempty" maxLength:"1024" doc:"Initial RAM disk, of a kernel"`
	Cmdline string `json:"cmdline,omitempty" maxLength:"2047" doc:"Command line, of a kernel"`
}

// DiskSpec is a disk: an image in the host's folder of disks. A path is relative to
// the folder, or absolute and beneath it; no part of it may be a symbolic link.
type DiskSpec struct {
	Path     string        `json:"path" minLength:"1" maxLength:"1024" doc:"A raw one has whole sectors of 512 bytes; one VM at a time may write to it"`
	ReadOnly bool          `json:"readOnly,omitempty" doc:"Any number of VMs may read it at a time"`
	Serial   string        `json:"serial,omitempty" maxLength:"20" pattern:"^[ -~]*$" doc:"What the guest sees as its serial number"`
	Format   DiskFormat    `json:"format,omitempty" enum:"raw,qcow2,overlay" doc:"What the file holds: raw if it is left out, and never guessed; qcow2 goes with readOnly; overlay is what was written above its backing files, and a file that is empty becomes one"`
	Own      bool          `json:"own,omitempty" doc:"vmctld made the file, for a snapshot, in a folder of its own, and removes it with the VM; not to be set by a caller. In a change, a disk that is given as it was named keeps what is above"`
	Backing  []BackingSpec `json:"backing,omitempty" maxItems:"15" doc:"Of qcow2 and overlay: its backing file, that one's, and so on, all of them; the names inside the images are not used"`
	Limit    *RateLimit    `json:"limit,omitempty" doc:"Of its requests, and of the bytes that they read and write"`
}

// RateLimit is how much a device does in a second at the most. What is over it waits.
type RateLimit struct {
	BytesPerSecond int64 `json:"bytesPerSecond,omitempty" minimum:"4096" maximum:"1099511627776" doc:"Without it any number"`
	OpsPerSecond   int64 `json:"opsPerSecond,omitempty" minimum:"1" maximum:"1000000000" doc:"Requests of a disk, packets of a network card; without it any number"`
	BurstMillis    int   `json:"burstMillis,omitempty" minimum:"1" maximum:"60000" doc:"For how long it saves what it did not use, to use it at once; 100 if it is left out"`
}

// BackingSpec is a backing file of an image.
type BackingSpec struct {
	Path   string     `json:"path" minLength:"1" maxLength:"1024" doc:"In the folder of disks"`
	Format DiskFormat `json:"format,omitempty" enum:"raw,qcow2,overlay" doc:"raw if it is left out; then it is the last. Overlays come first"`
	Own    bool       `json:"own,omitempty" doc:"As of a disk: what is above such a file can be merged into it"`
}

// Named returns the disk as it was named, without the overlays of its snapshots, and how
// many those are.
func (d DiskSpec) Named() (named DiskSpec, snapshots int) {
	for d.Own && len(d.Backing) > 0 {
		b := d.Backing[0]
		d.Path, d.Format, d.Own, d.Backing = b.Path, b.Format, b.Own, d.Backing[1:]
		snapshots++
	}
	return d, snapshots
}

// DiskFormat says what the bytes of a file mean.
type DiskFormat string

// Formats of files; an empty one is raw.
const (
	FormatRaw   DiskFormat = "raw"
	FormatQCOW2 DiskFormat = "qcow2"
	// FormatOverlay is vmctl's own: package monitor/overlay describes it.
	FormatOverlay DiskFormat = "overlay"
)

// NICSpec is a network card on a bridge of the host.
type NICSpec struct {
	Bridge string `json:"bridge" minLength:"1" maxLength:"15" doc:"A bridge that vmctld was allowed to put VMs on"`
	MAC    string `json:"mac,omitempty" pattern:"^([0-9a-f][02468ace]:([0-9a-f]{2}:){4}[0-9a-f]{2})$" doc:"Its address; given when the VM is created if it is left out"`
	// Limits are the guest's: what it receives, and what it sends.
	ReceiveLimit *RateLimit `json:"receiveLimit,omitempty" doc:"Of what the guest receives"`
	SendLimit    *RateLimit `json:"sendLimit,omitempty" doc:"Of what the guest sends"`
	LinkDown     bool       `json:"linkDown,omitempty" doc:"As if its cable were unplugged: nothing goes through, and the guest sees that"`
}

// VsockSpec is sockets between the guest and the host, which has unix sockets in the
// folder vsock/ID of the daemon's run folder. Who connects to v.sock there and sends
// "CONNECT PORT\n" reaches that port of the guest's; what the guest sends to a port of
// the host's, CID 2, reaches who listens at v.sock_PORT.
type VsockSpec struct {
	CID int64 `json:"cid,omitempty" minimum:"3" maximum:"4294967294" doc:"The guest's address, unique on this host; given when the VM is created if it is left out"`
}

// ConsoleKind says which device of the guest is the VM's console.
type ConsoleKind string

// Devices that can be the console.
const (
	ConsoleSerial ConsoleKind = "serial"
	ConsoleVirtio ConsoleKind = "virtio"
)

// DefaultVMSpec returns the spec that a VM gets where a request is silent.
func DefaultVMSpec() VMSpec {
	return VMSpec{VCPUs: 1, MemoryBytes: 512 << 20, Console: ConsoleSerial, OnReset: ResetRestart, OnPoweroff: EndStop, OnCrash: EndStop}
}

// ResetPolicy says what happens when the guest resets itself.
type ResetPolicy string

// What a guest's reset does.
const (
	ResetRestart ResetPolicy = "restart" // same run, from the start
	ResetStop    ResetPolicy = "stop"    // the VM powers off
)

// EndPolicy says what becomes of a VM whose run has ended by itself.
type EndPolicy string

// What becomes of it.
const (
	EndStop    EndPolicy = "stop"    // it stays off
	EndRestart EndPolicy = "restart" // it is powered on again
)

// VMStatus is what a VM does now.
type VMStatus struct {
	State     State      `json:"state" enum:"off,starting,running,paused,stopping"`
	RunID     uint64     `json:"runId,omitempty" doc:"The kernel's number of this power cycle; never used again"`
	Since     time.Time  `json:"since" doc:"When this state began"`
	LastStop  *LastStop  `json:"lastStop,omitempty" doc:"Why the last run ended"`
	RestartAt *time.Time `json:"restartAt,omitempty" doc:"When its policy powers it on again; powerOff keeps it off"`
	Saved     *Saved     `json:"saved,omitempty" doc:"What powerOn goes on from; powerOff forgets it"`
	Restarts  int        `json:"restarts,omitempty" doc:"Starts by policy since somebody asked for one, or since a run that lasted"`
	Allowed   []Verb     `json:"allowed" nullable:"false" enum:"powerOn,powerOff,shutdown,reset,pause,resume,save,snapshot,merge,attachDisk,detachDisk,attachNic,detachNic,consoleToken,delete" doc:"What can be asked of the VM in this state"`
}

// State is the state of a VM.
type State string

// The states of a VM. Package vm draws how they follow each other.
const (
	StateOff      State = "off"
	StateStarting State = "starting"
	StateRunning  State = "running"
	StatePaused   State = "paused"
	StateStopping State = "stopping"
)

// Verb is something that can be asked of a VM.
type Verb string

// What can be asked of a VM.
const (
	VerbPowerOn      Verb = "powerOn"
	VerbPowerOff     Verb = "powerOff"
	VerbShutdown     Verb = "shutdown"
	VerbReset        Verb = "reset"
	VerbPause        Verb = "pause"
	VerbResume       Verb = "resume"
	VerbSave         Verb = "save"
	VerbSnapshot     Verb = "snapshot" // of a disk
	VerbMerge        Verb = "merge"    // of a disk
	VerbAttachDisk   Verb = "attachDisk"
	VerbDetachDisk   Verb = "detachDisk"
	VerbAttachNIC    Verb = "attachNic"
	VerbDetachNIC    Verb = "detachNic"
	VerbConsoleToken Verb = "consoleToken"
	VerbDelete       Verb = "delete"
)

// Saved is a machine that was written down.
type Saved struct {
	At    time.Time `json:"at"`
	Bytes int64     `json:"bytes" doc:"Room that it takes on the host"`
}

// LastStop says why a run ended.
type LastStop struct {
	Reason  StopReason `json:"reason" enum:"poweroff,operator,monitorGone,tampered,tripleFault,panic,internalError,reset,destroyed"`
	Claimed bool       `json:"claimed" doc:"True: the monitor says so, and the kernel vouches for nothing"`
	At      time.Time  `json:"at"`
	Detail  string     `json:"detail" doc:"For people"`
	RunID   uint64     `json:"runId" doc:"The run that ended"`
}

// StopReason is why a run ended.
type StopReason string

// Why a run ended. The first four are seen by the kernel; the others are
// claims of the monitor.
const (
	StopOperator      StopReason = "operator"
	StopMonitorGone   StopReason = "monitorGone"
	StopTampered      StopReason = "tampered"
	StopDestroyed     StopReason = "destroyed"
	StopPoweroff      StopReason = "poweroff"
	StopReset         StopReason = "reset"
	StopTripleFault   StopReason = "tripleFault"
	StopPanic         StopReason = "panic"
	StopInternalError StopReason = "internalError"
)

// VMRef names a VM beside another object. The name is the one it had then.
type VMRef struct {
	ID   string `json:"id" format:"uuid"`
	Name string `json:"name"`
}

// VMCreate is the body of POST /v1/vms.
type VMCreate struct {
	Name string `json:"name" pattern:"^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$" patternDescription:"lower-case letters, digits and inner hyphens, beginning with a letter, at most 63" minLength:"1" maxLength:"63"`
	Spec VMSpec `json:"spec"`
	Seed *Seed  `json:"seed,omitempty" doc:"For the guest's cloud-init: one more disk, read-only and behind the others, of the form NoCloud"`
}

// VMChange is the body of PATCH /v1/vms/{id}: what is to be different, as RFC 7396 has it.
// While the VM is up or saved no more can be than balloonBytes, onPoweroff, onCrash, limits
// and links.
type VMChange struct {
	Name string         `json:"name,omitempty" pattern:"^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$" patternDescription:"lower-case letters, digits and inner hyphens, beginning with a letter, at most 63" minLength:"1" maxLength:"63" doc:"Of a VM that is off"`
	Spec map[string]any `json:"spec,omitempty" doc:"Fields of VMSpec: each takes the place of the one before, null brings back what it is when it is left out, and a list is given whole"`
}

// DiskAttach is the body of POST /v1/vms/{id}:attachDisk.
type DiskAttach struct {
	Disk DiskSpec `json:"disk"`
}

// DiskDetach is the body of POST /v1/vms/{id}:detachDisk.
type DiskDetach struct {
	Path string `json:"path" minLength:"1" maxLength:"1024" doc:"Of the disk, as in the VM's spec"`
}

// NICAttach is the body of POST /v1/vms/{id}:attachNic.
type NICAttach struct {
	NIC NICSpec `json:"nic"`
}

// NICDetach is the body of POST /v1/vms/{id}:detachNic.
type NICDetach struct {
	MAC string `json:"mac" minLength:"17" maxLength:"17" doc:"Of the network card, as in the VM's spec"`
}

// Device is a disk or a network card.
type Device struct {
	Disk *DiskSpec `json:"disk,omitempty"`
	NIC  *NICSpec  `json:"nic,omitempty"`
}

// BalloonTarget is the body of POST /v1/vms/{id}:setBalloon.
type BalloonTarget struct {
	BalloonBytes int64 `json:"balloonBytes" minimum:"0" maximum:"1099494850560" multipleOf:"4096" doc:"As in the VM's spec; 0: the guest may have all its memory"`
}

// Balloon is what a guest that is up has given back of its memory. But for the target it
// is the guest's word.
type Balloon struct {
	TargetBytes int64        `json:"targetBytes" minimum:"0" doc:"What it is to give back"`
	ActualBytes int64        `json:"actualBytes" minimum:"0" doc:"What it has given; that comes later than the target"`
	Memory      *GuestMemory `json:"memory,omitempty" doc:"What it told last; missing as long as it told nothing. It is asked for newer figures with each request"`
}

// GuestMemory is how a guest says that it uses its memory. What it does not tell is 0.
type GuestMemory struct {
	TotalBytes     int64 `json:"totalBytes" minimum:"0"`
	FreeBytes      int64 `json:"freeBytes" minimum:"0" doc:"Not used for anything"`
	AvailableBytes int64 `json:"availableBytes" minimum:"0" doc:"What it could use without swapping"`
	CachesBytes    int64 `json:"cachesBytes" minimum:"0" doc:"What it could do without, of files"`
	MajorFaults    int64 `json:"majorFaults" minimum:"0" doc:"How often it had to read a page from a disk since its boot"`
}

// VMList is one page of VMs, by name.
type VMList struct {
	Items      []VM   `json:"items" nullable:"false"`
	NextCursor string `json:"nextCursor,omitempty" doc:"Pass as cursor to get the next page"`
	EventSeq   int64  `json:"eventSeq" doc:"The page holds every event up to this number: watch from here"`
}

// ConsoleTokenRequest is the body of POST /v1/vms/{id}:consoleToken.
type ConsoleTokenRequest struct {
	Mode ConsoleMode `json:"mode,omitempty" enum:"rw,ro" default:"rw" doc:"ro: watch only"`
}

// ConsoleMode is what a console token allows.
type ConsoleMode string

// What a console token allows.
const (
	ConsoleReadWrite ConsoleMode = "rw"
	ConsoleReadOnly  ConsoleMode = "ro"
)

// ConsoleToken opens one console once.
type ConsoleToken struct {
	Token     string    `json:"token" doc:"128 bits or more; works once"`
	ExpiresAt time.Time `json:"expiresAt" doc:"At most 60 s from now"`
	Console   string    `json:"console" doc:"Name of the console"`
	Socket    string    `json:"socket" doc:"Unix socket of the console, for local callers"`
}

var (
	nameRE  = regexp.MustCompile(NamePattern)
	identRE = regexp.MustCompile(IdentPattern)
)

// ValidName reports whether s can be a VM's name.
func ValidName(s string) bool { return nameRE.MatchString(s) }

// ValidIdent reports whether s can name a VM in a path: a name or a uuid.
func ValidIdent(s string) bool { return identRE.MatchString(s) }
