// SPDX-License-Identifier: Apache-2.0

package virtio

import (
	"testing"

	"vmctl/monitor/mem"
	"vmctl/monitor/wire"
)

// A device is saved with a request that it has not seen, and another machine's goes on
// from there, as does the one that was saved.
func TestSaveAndLoad(t *testing.T) {
	a, b := newBoard(t), newBoard(t)
	a.start()
	d := &driver{t: t, ram: a.ram, size: 8, event: true}
	share := func(ram []byte) {
		m := mem.Over(ram)
		d.ram = ram
		d.avail, _ = m.Share(availAt, 4+16+2, 2)
		d.used, _ = m.Share(usedAt, 4+64+2, 4)
	}
	share(a.ram)
	d.desc(0, buffer{bufferAt, 4, 0, 0})
	for range 3 {
		d.add(0)
		a.set(notifyAt, 2, 0)
		<-a.sent
		d.take()
		d.want()
	}
	a.port.Pause()
	if a.dev.stops != 1 || len(a.bells) != 0 {
		t.Errorf("paused: %+v, %v", a.dev, a.bells)
	}
	d.add(0)
	w := wire.NewWriter(order, nil)
	a.host.Save(w)
	if err := a.port.Save(w); err != nil {
		t.Fatal(err)
	}
	copy(b.ram, a.ram)
	for n := range w.Bytes() {
		r := wire.NewReader(order, w.Bytes()[:n])
		c := newBoard(t)
		c.host.Load(r)
		c.port.Load(r)
		if r.Close() == nil {
			t.Fatalf("%d bytes of %d are enough", n, len(w.Bytes()))
		}
	}
	r := wire.NewReader(order, w.Bytes())
	b.host.Load(r)
	b.port.Load(r)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if b.dev.starts != 0 {
		t.Error("it works before it may")
	}
	took := d.seen
	for name, to := range map[string]*board{"restored": b, "saved": a} {
		share(to.ram)
		d.seen = took
		to.port.Resume()
		to.port.Resume() // goes on already
		if v := <-to.sent; v != 1 {
			t.Errorf("%s: vector %d", name, v)
		}
		for d.used.Load16(ringIndex) != took+1 {
			<-to.sent
		}
		if f := FeatureVersion1 | FeatureEvent | toyFeature; to.dev.features != uint64(f) || len(to.bells) != 1 || to.get(regStatus, 1) != 0xf {
			t.Errorf("%s: %+v, doorbells %v, status %#x", name, to.dev, to.bells, to.get(regStatus, 1))
		}
	}
	if len(a.broken)+len(b.broken) != 0 {
		t.Errorf("broken: %v, %v", a.broken, b.broken)
	}
}

// What was broken is broken, until it is reset.
func TestSaveBroken(t *testing.T) {
	a, b := newBoard(t), newBoard(t)
	a.start()
	a.dev.queues[0].Fail(ErrChain)
	a.port.Pause()
	w := wire.NewWriter(order, nil)
	if err := a.port.Save(w); err != nil {
		t.Fatal(err)
	}
	b.port.Load(wire.NewReader(order, w.Bytes()))
	b.port.Resume()
	if b.port.status.Load()&statusNeedsReset == 0 || !b.dev.queues[0].Over() {
		t.Error("it is whole again")
	}
	b.port.Reset()
	b.start()
	if b.dev.queues[0].Over() {
		t.Error("it is still broken after a reset")
	}
}

// What no driver could have said is refused.
func TestLoadImpossible(t *testing.T) {
	a := newBoard(t)
	a.start()
	a.port.Pause()
	w := wire.NewWriter(order, nil)
	if err := a.port.Save(w); err != nil {
		t.Fatal(err)
	}
	const accepted, status, isr, configVector, queues, size, enabled, vector = 8, 16, 20, 24, 39, 41, 43, 44
	for name, bend := range map[string]func(b []byte){
		"nothing":                    func([]byte) {},
		"other features":             func(b []byte) { b[0] ^= 1 },
		"a feature that is none":     func(b []byte) { b[accepted] |= 1 },
		"a device of old":            func(b []byte) { order.PutUint64(b[accepted:], FeatureEvent) },
		"ready, and nothing agreed":  func(b []byte) { b[status] &^= statusFeaturesOK },
		"a status that is none":      func(b []byte) { b[status] |= 0x10 },
		"a longer status":            func(b []byte) { b[status+1] = 1 },
		"a cause that is none":       func(b []byte) { b[isr] = 4 },
		"no vector for changes":      func(b []byte) { b[configVector] = 3 },
		"other queues":               func(b []byte) { b[queues]++ },
		"a queue that is too large":  func(b []byte) { b[size] = 32 },
		"a queue that is half there": func(b []byte) { b[enabled] = 2 },
		"a queue without a vector":   func(b []byte) { b[vector+2] = 1 },
	} {
		b := newBoard(t)
		state := append([]byte(nil), w.Bytes()...)
		bend(state)
		r := wire.NewReader(order, state)
		b.port.Load(r)
		if err := r.Close(); (err == nil) != (name == "nothing") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
