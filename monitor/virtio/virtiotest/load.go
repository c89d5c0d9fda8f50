// SPDX-License-Identifier: Apache-2.0

package virtiotest

import (
	"bytes"
	"testing"

	"vmctl/monitor/virtio"
	"vmctl/monitor/wire"
)

// Load lets a machine go on from what a device is said to have been saved as, which may
// be anything, and with a guest that follows no rule; see Hostile. A state that no
// driver could have brought the device into must be refused, or do no harm. One that
// the device gets into must not: it can be saved, and is taken again.
func Load(t testing.TB, newDevice func() virtio.Device, state, program []byte) {
	d := plug(t, newDevice())
	if d.load(state) != nil {
		return
	}
	d.dev.Resume()
	d.run(program)
	d.dev.Pause()
	again := d.save()
	d.dev.Resume()
	d.recover()
	if err := plug(t, newDevice()).load(again); err != nil {
		t.Errorf("what was saved cannot be restored: %v", err)
	}
}

// States are states for Load, each with a few programs: of a device that nobody touched,
// of one at work, and of one that is broken.
func States(f *testing.F, newDevice func() virtio.Device) {
	f.Helper()
	var states [][]byte
	states = append(states, plug(f, newDevice()).save())
	d := New(f, newDevice(), 0)
	d.dev.Pause()
	states = append(states, d.save())
	for _, q := range d.queues {
		q.avail.Store32(0, 0x8000<<16) // far from what there is
	}
	d.dev.Resume()
	for len(d.Broken()) == 0 {
		<-d.queues[0].raised
	}
	d.dev.Pause()
	states = append(states, d.save())
	chain := []byte{4, 0, 0, 0, 0x30, 0, 16, 0, 0, 1, 1, 4, 0, 1, 0, 0x31, 0, 16, 0, 0, 2, 0, 6, 0, 0, 6, 1, 0}
	for _, s := range states {
		f.Add(s, []byte{})
		f.Add(s, bytes.Repeat(chain, 16))
	}
}

func (d *Driver) load(state []byte) error {
	r := wire.NewReader(order, state)
	d.host.Load(r)
	d.dev.Load(r)
	return r.Close()
}

func (d *Driver) save() []byte {
	w := wire.NewWriter(order, nil)
	d.host.Save(w)
	if err := d.dev.Save(w); err != nil {
		d.t.Errorf("saved: %v", err)
	}
	return w.Bytes()
}
