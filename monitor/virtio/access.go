// SPDX-License-Identifier: Apache-2.0

package virtio

import (
	"vmctl/monitor/pci"
)

// Registers of the common configuration (virtio 1.2, 4.1.4.3).
const (
	regDeviceSelect = 0
	regDevice       = 4
	regDriverSelect = 8
	regDriver       = 12
	regConfigVector = 16
	regNumQueues    = 18
	regStatus       = 20
	regGeneration   = 21
	regQueueSelect  = 22
	regQueueSize    = 24
	regQueueVector  = 26
	regQueueEnable  = 28
	regQueueNotify  = 30
	regDesc         = 32
	regAvail        = 40
	regUsed         = 48
)

// Read answers in the BAR.
func (t *Transport) Read(offset uint64, data []byte) {
	end := offset + uint64(len(data))
	switch {
	case end <= commonAt+commonSize:
		image := t.common()
		copy(data, image[offset:])
	case offset >= isrAt && end <= isrAt+isrSize:
		clear(data)
		if offset == isrAt {
			data[0] = byte(t.isr.Swap(0))
		}
	case offset >= deviceAt && end <= deviceEnd:
		clear(data)
		t.mu.Lock()
		defer t.mu.Unlock()
		if at := offset - deviceAt; at < uint64(len(t.config)) {
			copy(data, t.config[at:])
		}
	case offset >= notifyAt && end <= notifyEnd:
		clear(data)
	case offset >= vectorsAt && end <= vectorsEnd:
		t.msix.Read(offset-vectorsAt, data)
	}
}

// Write takes a write to the BAR. A notification comes here only where there is
// no doorbell.
func (t *Transport) Write(offset uint64, data []byte) {
	end := offset + uint64(len(data))
	switch {
	case end <= commonAt+commonSize:
		t.mu.Lock()
		defer t.mu.Unlock()
		t.setCommon(int(offset), data)
	case offset >= notifyAt && end <= notifyEnd:
		if i := (offset - notifyAt) / notifyFactor; i < uint64(len(t.queues)) {
			t.queues[i].bell.ring()
		}
	case offset >= vectorsAt && end <= vectorsEnd:
		t.msix.Write(offset-vectorsAt, data)
	}
}

// common is the common configuration as the driver reads it now.
func (t *Transport) common() (b [commonSize]byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	order.PutUint32(b[regDeviceSelect:], t.deviceSelect)
	order.PutUint32(b[regDevice:], part(t.offered, t.deviceSelect))
	order.PutUint32(b[regDriverSelect:], t.driverSelect)
	order.PutUint32(b[regDriver:], part(t.accepted, t.driverSelect))
	order.PutUint16(b[regConfigVector:], uint16(t.configVector.Load()))
	order.PutUint16(b[regNumQueues:], uint16(len(t.queues)))
	b[regStatus], b[regGeneration] = byte(t.status.Load()), t.generation
	order.PutUint16(b[regQueueSelect:], t.queueSelect)
	s := t.selected()
	if s == nil {
		return b // a queue of size 0 is none
	}
	order.PutUint16(b[regQueueSize:], s.size)
	order.PutUint16(b[regQueueVector:], uint16(s.vector.Load()))
	if s.enabled {
		b[regQueueEnable] = 1
	}
	order.PutUint16(b[regQueueNotify:], t.queueSelect)
	order.PutUint64(b[regDesc:], s.at.desc)
	order.PutUint64(b[regAvail:], s.at.avail)
	order.PutUint64(b[regUsed:], s.at.used)
	return b
}

// part is 32 bits of a set of features.
func part(features uint64, n uint32) uint32 {
	if n >= featureSets {
		return 0
	}
	return uint32(features >> (32 * n))
}

func (t *Transport) selected() *slot {
	if int(t.queueSelect) < len(t.queues) {
		return &t.queues[t.queueSelect]
	}
	return nil
}

// setCommon takes a write of one whole register; any other does nothing. The two
// halves of an address may come one by one.
func (t *Transport) setCommon(reg int, data []byte) {
	switch len(data) {
	case 1:
		if reg == regStatus {
			t.setStatus(uint32(data[0]))
		}
	case 2:
		t.setShort(reg, order.Uint16(data))
	case 4:
		t.setWord(reg, order.Uint32(data))
	case 8:
		if reg >= regDesc && reg%8 == 0 {
			t.setWord(reg, order.Uint32(data))
			t.setWord(reg+4, order.Uint32(data[4:]))
		}
	}
}

func (t *Transport) setShort(reg int, v uint16) {
	s := t.selected()
	switch reg {
	case regConfigVector:
		t.configVector.Store(t.vector(v))
	case regQueueSelect:
		t.queueSelect = v
	case regQueueVector:
		if s != nil {
			s.vector.Store(t.vector(v))
			if s.tie != nil {
				s.tie.Move(int(s.vector.Load()))
			}
		}
	case regQueueSize:
		if t.open(s) && v <= t.kind.Size {
			s.size = v
		}
	case regQueueEnable:
		if t.open(s) && v == 1 {
			s.enabled = true
		}
	}
}

// vector is what a driver reads back after it chose a vector: none when there is
// no such.
func (t *Transport) vector(v uint16) uint32 {
	if !t.isVector(uint32(v)) {
		return noVector
	}
	return uint32(v)
}

// isVector reports whether a driver can have chosen a vector, or none.
func (t *Transport) isVector(v uint32) bool { return v == noVector || v <= uint32(len(t.queues)) }

// agreeable reports whether the device works with the features that the driver accepts.
func (t *Transport) agreeable() bool {
	return t.accepted&^t.offered == 0 && t.accepted&FeatureVersion1 != 0
}

// open reports whether a queue may be set up: before the driver is ready, and
// before it is enabled.
func (t *Transport) open(s *slot) bool {
	return s != nil && !s.enabled && t.status.Load()&statusDriverOK == 0
}

func (t *Transport) setWord(reg int, v uint32) {
	switch reg {
	case regDeviceSelect:
		t.deviceSelect = v
	case regDriverSelect:
		t.driverSelect = v
	case regDriver:
		if t.driverSelect < featureSets && t.status.Load()&statusFeaturesOK == 0 {
			shift := 32 * t.driverSelect
			t.accepted = t.accepted&^(0xffffffff<<shift) | uint64(v)<<shift
		}
	default:
		if s := t.selected(); reg >= regDesc && reg%4 == 0 && t.open(s) {
			at := []*uint64{&s.at.desc, &s.at.avail, &s.at.used}[(reg-regDesc)/8]
			shift := uint(reg%8) * 8
			*at = *at&^(0xffffffff<<shift) | uint64(v)<<shift
		}
	}
}

// setStatus takes a step of the driver. Steps are bits that are added; only a
// reset takes them away.
func (t *Transport) setStatus(v uint32) {
	old := t.status.Load()
	if v == 0 {
		t.reset()
		return
	}
	added := v & statusDriver &^ old
	if added&statusFeaturesOK != 0 && !t.agreeable() {
		added &^= statusFeaturesOK // the driver looks, and gives up
	}
	if (old|added)&statusFeaturesOK == 0 {
		added &^= statusDriverOK
	}
	t.status.Or(added)
	if added&statusDriverOK != 0 {
		t.start(false)
	}
}

// pciWindow is the capability by which firmware that cannot reach memory space
// gets into the BAR.
type pciWindow Transport

const (
	windowBAR    = 4
	windowOffset = 8
	windowLength = 12
	windowData   = 16
)

// target is the access that is asked for, if it is one.
func (w *pciWindow) target(body []byte, offset, size int) (at uint64, data []byte) {
	n := order.Uint32(body[windowLength:])
	at = uint64(order.Uint32(body[windowOffset:]))
	touches := offset < windowData+4 && offset+size > windowData
	if !touches || body[windowBAR] != 0 || (n != 1 && n != 2 && n != 4) || at%uint64(n) != 0 || at+uint64(n) > barSize {
		return 0, nil
	}
	return at, body[windowData:][:n]
}

// Reading fetches what the BAR has.
func (w *pciWindow) Reading(body []byte, offset, size int) {
	if at, data := w.target(body, offset, size); data != nil {
		for i := range data {
			data[i] = 0xff
		}
		(*Transport)(w).Read(at, data)
	}
}

// Written hands on what was written.
func (w *pciWindow) Written(body []byte, offset, size int) {
	if at, data := w.target(body, offset, size); data != nil {
		(*Transport)(w).Write(at, data)
	}
}

var _ pci.Capability = (*pciWindow)(nil)
