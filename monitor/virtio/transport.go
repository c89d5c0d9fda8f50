// SPDX-License-Identifier: Apache-2.0

package virtio

import (
	"errors"
	"sync"
	"sync/atomic"

	"vmctl/monitor/mem"
	"vmctl/monitor/pci"
)

// Numbers of the PCI transport (virtio 1.2, 4.1).
const (
	pciVendor   = 0x1af4
	pciDevice   = 0x1040 // and the type of the device
	pciRevision = 1

	capVendor    = 0x09
	capCommon    = 1
	capNotify    = 2
	capISR       = 3
	capDevice    = 4
	capPCI       = 5
	capBodySize  = 14 // without id and link
	capLength    = 16
	notifyFactor = 4
)

// Status of a device (2.1).
const (
	statusDriverOK   = 1 << 2
	statusFeaturesOK = 1 << 3
	statusNeedsReset = 1 << 6
	statusDriver     = 0x8f // the bits that the driver sets
)

// What is where in the device's only BAR.
const (
	barSize     = 0x4000
	commonAt    = 0x0000
	commonSize  = 56
	isrAt       = 0x0400
	isrSize     = 4
	deviceAt    = 0x0800
	deviceEnd   = 0x1000
	notifyAt    = 0x1000
	notifyEnd   = 0x2000
	vectorsAt   = 0x2000
	vectorsEnd  = vectorsAt + pci.MSIXSize
	noVector    = 0xffff
	isrQueue    = 1 << 0
	isrConfig   = 1 << 1
	maxQueues   = pci.MaxVectors - 1
	featureSets = 2 // of 32 bits
)

// Env is what a transport needs of its machine.
type Env struct {
	Memory   *mem.Memory
	Messages pci.Messages
	// Doorbell lets writes to an address ring an eventfd, or no longer.
	Doorbell func(addr uint64, fd int, on bool) error
	// Broken is told, from any goroutine, when the driver broke a rule.
	Broken func(error)
}

// Transport is one virtio device on the PCI bus.
type Transport struct {
	dev      Device
	kind     Kind
	env      Env
	function *pci.Function
	msix     *pci.MSIX

	status       atomic.Uint32
	isr          atomic.Uint32
	configVector atomic.Uint32
	life         *life // of the queues since the last reset

	mu           sync.Mutex // guards what follows
	config       []byte     // always of the same length
	generation   uint8      // of config
	offered      uint64
	accepted     uint64
	deviceSelect uint32
	driverSelect uint32
	queueSelect  uint16
	queues       []slot
	started      bool
	base         uint64 // of the BAR
	visible      bool   // whether it answers there
	rung         bool   // whether doorbells are there
}

// slot is what the driver said about one queue.
type slot struct {
	size    uint16
	enabled bool
	vector  *atomic.Uint32
	at      rings
	bell    *bell
	queue   Queue
	tie     *pci.Tie // or nil
}

// NewTransport puts a device on a function of its own. It takes the device over.
func NewTransport(dev Device, env Env) (*Transport, *pci.Function, error) {
	k := dev.Kind()
	t := &Transport{dev: dev, kind: k, env: env, config: dev.Config(), offered: k.Features | commonFeatures}
	t.life = &life{fail: t.broken}
	for range k.Queues {
		b, err := newBell()
		if err != nil {
			return nil, nil, errors.Join(err, t.Close())
		}
		t.queues = append(t.queues, slot{bell: b, vector: new(atomic.Uint32)})
	}
	t.clear()
	bells := make([]int, len(t.queues))
	for i := range t.queues {
		bells[i] = t.queues[i].bell.fd
	}
	f, err := t.newFunction()
	if err == nil {
		err = dev.Attach(bells)
	}
	if err != nil {
		return nil, nil, errors.Join(err, t.Close())
	}
	t.function = f
	return t, f, nil
}

func (t *Transport) newFunction() (*pci.Function, error) {
	f := pci.NewFunction(pci.ID{
		Vendor: pciVendor, Device: pciDevice + t.kind.Type, SubVendor: pciVendor, Subsystem: pciDevice + t.kind.Type,
		Class: t.kind.Class, Revision: pciRevision,
	})
	f.Own(t)
	err := f.SetBAR(0, barSize, t)
	for _, c := range []struct {
		kind         uint8
		at, size     uint32
		more, change []byte // behind the common fields, and what of it may be written
		dev          pci.Capability
	}{
		{kind: capCommon, at: commonAt, size: commonSize},
		{kind: capISR, at: isrAt, size: isrSize},
		{kind: capDevice, at: deviceAt, size: uint32(max(len(t.config), 4))},
		{kind: capNotify, at: notifyAt, size: uint32(notifyFactor * max(t.kind.Queues, 1)), more: order.AppendUint32(nil, notifyFactor)},
		{kind: capPCI, more: make([]byte, 4), change: []byte{255, 255, 255, 255}, dev: (*pciWindow)(t)},
	} {
		body := make([]byte, capBodySize, capBodySize+4)
		body[0], body[1] = byte(capLength+len(c.more)), c.kind
		order.PutUint32(body[6:], c.at)
		order.PutUint32(body[10:], c.size)
		writable := make([]byte, capBodySize)
		if c.dev != nil { // BAR, offset and length are the driver's
			copy(writable[2:], []byte{255, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255})
		}
		_, e := f.AddCapability(capVendor, append(body, c.more...), append(writable, c.change...), c.dev)
		err = errors.Join(err, e)
	}
	var e error
	t.msix, e = f.AddMSIX(t.kind.Queues+1, 0, vectorsAt, t.env.Messages)
	return f, errors.Join(err, e)
}

// clear is the state of a device that was never touched.
func (t *Transport) clear() {
	t.status.Store(0)
	t.isr.Store(0)
	t.configVector.Store(noVector)
	t.accepted, t.deviceSelect, t.driverSelect, t.queueSelect = 0, 0, 0, 0
	for i := range t.queues {
		s := &t.queues[i]
		s.size, s.enabled, s.at = t.kind.Size, false, rings{}
		s.vector.Store(noVector)
	}
}

// Reset takes the device back to power-on, after it has settled what it does.
func (t *Transport) Reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reset()
}

func (t *Transport) reset() {
	t.halt()
	t.clear()
}

// halt lets the device settle what it does.
func (t *Transport) halt() {
	if t.started {
		t.life.stopping.Store(true)
		for i := range t.queues {
			t.queues[i].bell.ring()
		}
		t.dev.Stop()
		for i := range t.queues {
			if s := &t.queues[i]; s.tie != nil {
				s.tie.Cut()
				s.tie = nil
			}
		}
		t.started = false
	}
	t.placeBells()
}

// Close ends the device.
func (t *Transport) Close() error {
	t.Reset()
	errs := []error{t.dev.Close()}
	for i := range t.queues {
		errs = append(errs, t.queues[i].bell.close())
	}
	return errors.Join(errs...)
}

// Changed tells the driver that the device's configuration is another. It must not
// be called from what Stop waits for.
func (t *Transport) Changed() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.change(t.dev.Config())
}

func (t *Transport) change(config []byte) {
	t.config = config
	t.generation++
	if t.started {
		t.interrupt(t.configVector.Load(), isrConfig)
	}
}

// Moved follows the BAR. The bus calls it with the function's state at rest.
func (t *Transport) Moved() {
	t.mu.Lock()
	defer t.mu.Unlock()
	base, visible := t.function.BAR(0)
	if base == t.base && visible == t.visible {
		return
	}
	t.visible = false
	t.placeBells()
	t.base, t.visible = base, visible
	t.placeBells()
}

// placeBells puts the doorbells of a started device where its BAR is. One that is
// refused costs an exit for each notification, and no more.
func (t *Transport) placeBells() {
	want := t.started && t.visible
	if want == t.rung {
		return
	}
	t.rung = want
	for i := range t.queues {
		if s := &t.queues[i]; s.enabled {
			_ = t.env.Doorbell(t.base+notifyAt+notifyFactor*uint64(i), s.bell.fd, want)
		}
	}
}

// broken is called once between two resets.
func (t *Transport) broken(err error) {
	t.env.Broken(err)
	if t.status.Or(statusNeedsReset)&statusDriverOK != 0 {
		t.interrupt(t.configVector.Load(), isrConfig)
	}
}

// interrupt sends the message of a vector. A driver that uses none finds the
// cause when it looks.
func (t *Transport) interrupt(vector, cause uint32) {
	if t.msix.Enabled() {
		t.msix.Raise(int(vector))
	} else {
		t.isr.Or(cause)
	}
}

// start lets the device work: from the beginning of its queues, or where it had come.
func (t *Transport) start(resume bool) {
	t.life = &life{fail: t.broken}
	t.life.broken.Store(t.status.Load()&statusNeedsReset != 0)
	queues := make([]*Queue, len(t.queues))
	for i := range t.queues {
		s := &t.queues[i]
		if !s.enabled {
			continue
		}
		q := &s.queue
		if err := q.open(t.env.Memory, s.size, s.at); err != nil {
			t.life.end(err)
			return
		}
		if resume {
			q.resume()
		}
		q.event, q.multi = t.accepted&FeatureEvent != 0, t.accepted&FeatureIndirect != 0
		q.bell, q.life = s.bell, t.life
		q.raise = func() { t.interrupt(s.vector.Load(), isrQueue) }
		q.direct = func(tell func(fd int)) { s.tie = t.msix.Tie(int(s.vector.Load()), tell) }
		queues[i] = q
	}
	t.started = true
	t.dev.Start(t.accepted, queues)
	t.placeBells()
}
