// SPDX-License-Identifier: Apache-2.0

package virtio

import (
	"bytes"
	"errors"

	"vmctl/monitor/wire"
)

var (
	errOtherDevice = errors.New("device has other features or queues")
	errImpossible  = errors.New("no driver can have set a device up so")
)

// Pause returns when the device has settled what it does; it begins nothing until
// Resume. No processor runs.
func (t *Transport) Pause() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.halt()
}

// Alter changes a device while it stands still, with all settled that it did, and tells
// the driver when its configuration is another; what is in the queues waits meanwhile.
// Processors may run, and wait when they touch the device. It must not be called from what
// Stop waits for. The error is change's.
func (t *Transport) Alter(change func() error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	started := t.started
	t.halt()
	err := change()
	if started {
		t.resume()
	}
	if config := t.dev.Config(); !bytes.Equal(config, t.config) {
		t.change(config)
	}
	return err
}

// Resume lets a device go on that the driver had started, unless it does.
func (t *Transport) Resume() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.resume() {
		t.interrupt(t.configVector.Load(), isrConfig) // of a save it may be another's
	}
}

func (t *Transport) resume() bool {
	if t.started || t.status.Load()&statusDriverOK == 0 {
		return false
	}
	t.start(true)
	// What came between is not known: both sides look.
	for i := range t.queues {
		if s := &t.queues[i]; s.enabled {
			s.bell.ring()
			t.interrupt(s.vector.Load(), isrQueue)
		}
	}
	return true
}

// Save writes what the driver said, and what the device knows. The device is paused. The
// error is the device's.
func (t *Transport) Save(w *wire.Writer) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	w.U64(t.offered)
	w.U64(t.accepted)
	w.U32(t.status.Load())
	w.U32(t.isr.Load())
	w.U32(t.configVector.Load())
	w.U8(t.generation)
	w.U32(t.deviceSelect)
	w.U32(t.driverSelect)
	w.U16(t.queueSelect)
	w.U16(uint16(len(t.queues)))
	for i := range t.queues {
		s := &t.queues[i]
		w.U16(s.size)
		w.Bool(s.enabled)
		w.U32(s.vector.Load())
		w.U64(s.at.desc)
		w.U64(s.at.avail)
		w.U64(s.at.used)
	}
	if k, ok := t.dev.(Keeper); ok {
		return k.Save(w)
	}
	return nil
}

// Load is the other way, for a device that was never touched; Resume starts it. What no
// driver could have said is refused: the device relies on that.
func (t *Transport) Load(r *wire.Reader) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r.U64() != t.offered {
		r.Fail(errOtherDevice)
	}
	t.accepted = r.U64()
	status, isr := r.U32(), r.U32()
	t.status.Store(status)
	t.isr.Store(isr)
	t.configVector.Store(r.U32())
	t.generation = r.U8()
	t.deviceSelect, t.driverSelect, t.queueSelect = r.U32(), r.U32(), r.U16()
	if int(r.U16()) != len(t.queues) {
		r.Fail(errOtherDevice)
		return
	}
	possible := status&^(statusDriver|statusNeedsReset) == 0 && isr&^(isrQueue|isrConfig) == 0 &&
		(status&statusFeaturesOK != 0 && t.agreeable() || status&(statusFeaturesOK|statusDriverOK) == 0) &&
		t.isVector(t.configVector.Load())
	for i := range t.queues {
		s := &t.queues[i]
		s.size, s.enabled = r.U16(), r.Bool()
		s.vector.Store(r.U32())
		s.at = rings{desc: r.U64(), avail: r.U64(), used: r.U64()}
		possible = possible && s.size <= t.kind.Size && t.isVector(s.vector.Load())
	}
	if !possible {
		r.Fail(errImpossible)
	}
	if k, ok := t.dev.(Keeper); ok {
		k.Load(r)
		t.config = t.dev.Config()
	}
}
