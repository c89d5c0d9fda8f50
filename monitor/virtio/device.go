// SPDX-License-Identifier: Apache-2.0

// Package virtio is the part of virtio 1.2 that all devices share: split queues
// in guest memory, and the transport by which a driver finds a device on the PCI
// bus, agrees on features with it and starts it.
//
// A notification of the driver rings an eventfd in the kernel, and an interrupt
// is a write to another: neither is an exit to the monitor. A driver that breaks
// a rule of the queues breaks its device, which then waits for a reset.
package virtio

import (
	"encoding/binary"

	"vmctl/monitor/wire"
)

var order = binary.LittleEndian

// Features that are no device's own (virtio 1.2, 6).
const (
	FeatureIndirect = 1 << 28
	FeatureEvent    = 1 << 29
	FeatureVersion1 = 1 << 32

	commonFeatures = FeatureIndirect | FeatureEvent | FeatureVersion1
)

// Kind says what a device is; it never changes.
type Kind struct {
	Type     uint16 // number of virtio 1.2, 5
	Class    uint32 // of PCI
	Features uint64 // the device's own
	Queues   int
	Size     uint16 // of each queue at the most
}

// Device is what is behind a transport. The transport calls one method at a time.
type Device interface {
	Kind() Kind
	// Config is the device's configuration as the driver reads it.
	Config() []byte
	// Attach is called once and first, with the eventfds that notifications ring,
	// for devices that wait for them by other means than Queue.Wait.
	Attach(bells []int) error
	// Start lets the device work on its queues with the features that were agreed
	// on. A queue that the driver did not set up is nil.
	Start(features uint64, queues []*Queue)
	// Stop returns when the device has settled all that it took from its queues,
	// and touches guest memory no more. Their bells have rung.
	Stop()
	// Close ends a device that is not started.
	Close() error
}

// Keeper is a device that knows more than what is in its queues and its configuration,
// and is to know it after a machine was saved and restored. It is asked while it is
// stopped; what it loads is for the next Start. A device that cannot be saved, such as a
// disk whose medium fails, says so.
type Keeper interface {
	Save(*wire.Writer) error
	Load(*wire.Reader)
}
