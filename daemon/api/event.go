// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/json"
	"time"
)

// Event is one entry of the journal. Numbers have no gaps; a reader that may
// not see an event does not get it, and sees a gap there.
type Event struct {
	Seq  int64           `json:"seq" minimum:"1"`
	Time time.Time       `json:"time"`
	Kind EventKind       `json:"kind" enum:"vm.created,vm.changed,vm.deleted,vm.state,vm.stopped,vm.reset,vm.deviceBroken,vm.unknown,task.changed,console.opened,console.closed,session.started,session.ended,auth.refused,host.started,host.kernelLost,host.kernelBack"`
	VM   *VMRef          `json:"vm,omitempty"`
	Data json.RawMessage `json:"data" doc:"By kind; see the types named *Data"`
}

// EventKind says what happened.
type EventKind string

// What can happen, and what Data then holds.
const (
	EventVMCreated      EventKind = "vm.created"      // VM
	EventVMChanged      EventKind = "vm.changed"      // VM
	EventVMDeleted      EventKind = "vm.deleted"      // EmptyData
	EventVMState        EventKind = "vm.state"        // VMStatus
	EventVMStopped      EventKind = "vm.stopped"      // LastStop
	EventVMReset        EventKind = "vm.reset"        // ResetData
	EventVMDeviceBroken EventKind = "vm.deviceBroken" // BrokenData
	EventVMUnknown      EventKind = "vm.unknown"      // UnknownData: in the kernel, not in the inventory
	EventTaskChanged    EventKind = "task.changed"    // Task
	EventConsoleOpened  EventKind = "console.opened"  // ConsoleData
	EventConsoleClosed  EventKind = "console.closed"  // ConsoleData
	EventSessionStarted EventKind = "session.started" // SessionData
	EventSessionEnded   EventKind = "session.ended"   // SessionData
	EventAuthRefused    EventKind = "auth.refused"    // RefusedData
	EventHostStarted    EventKind = "host.started"    // StartedData
	EventHostKernelLost EventKind = "host.kernelLost" // LostData: the kernel's notifications stopped
	EventHostKernelBack EventKind = "host.kernelBack" // EmptyData
)

// EmptyData is the data of events that say all by their kind.
type EmptyData struct{}

// ResetData is the data of vm.reset.
type ResetData struct {
	RunID uint64 `json:"runId"`
	Count uint64 `json:"count" doc:"Resets of this run so far; more than one may be told at once"`
}

// BrokenData is the data of vm.deviceBroken: the guest's driver did what it must not,
// and the device stands still until the guest resets it.
type BrokenData struct {
	Device string `json:"device" doc:"Such as disk0"`
	Detail string `json:"detail" doc:"For people"`
}

// UnknownData is the data of vm.unknown.
type UnknownData struct {
	RunID uint64 `json:"runId"`
	UUID  string `json:"uuid"`
	Name  string `json:"name"`
}

// ConsoleData is the data of console.opened and console.closed.
type ConsoleData struct {
	Session string      `json:"session"`
	User    string      `json:"user"`
	Viewer  uint64      `json:"viewer" doc:"Number of the viewer in its console"`
	Mode    ConsoleMode `json:"mode" enum:"rw,ro"`
	Reason  string      `json:"reason,omitempty" doc:"Of closing"`
}

// SessionData is the data of session.started and session.ended.
type SessionData struct {
	Session   string `json:"session"`
	Principal string `json:"principal"`
}

// RefusedData is the data of auth.refused.
type RefusedData struct {
	Code    Code   `json:"code"`
	Address string `json:"address" doc:"As vmhttp claims it; empty when nothing could be believed"`
	Method  string `json:"method"`
	Path    string `json:"path"`
	PeerUID int64  `json:"peerUid"`
}

// StartedData is the data of host.started.
type StartedData struct {
	Version  string `json:"version"`
	Adopted  int    `json:"adopted" doc:"Running VMs found in the kernel"`
	Repaired int    `json:"repaired" doc:"VMs whose state differed from the record"`
}

// LostData is the data of host.kernelLost.
type LostData struct {
	Detail string `json:"detail"`
}

// StreamEnd is the data of the two events of a stream that are not in the
// journal: "reset" (list again, then watch from seq) and "dropped" (this
// reader was too slow, or its session ended).
type StreamEnd struct {
	Reason string `json:"reason"`
	Seq    int64  `json:"seq" doc:"Watch from here after listing again"`
}

// EventList is one page of the journal.
type EventList struct {
	Items []Event `json:"items" nullable:"false"`
}
