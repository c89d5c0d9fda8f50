// SPDX-License-Identifier: Apache-2.0

//go:build lab

package kabi

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/mdlayher/genetlink"
	"golang.org/x/sys/unix"

	"vmctl/abi"
	"vmctl/daemon/api"
	"vmctl/daemon/kern"
	"vmctl/daemon/vm"
)

// tinyBuffer is a socket's buffer with room for a few notices.
const tinyBuffer = 4096

// journalSize is how many events the module keeps.
const journalSize = 4096

// dialTiny is the daemon's dialer with a tiny buffer.
func dialTiny(deadline time.Time) (*genetlink.Conn, error) {
	c, err := kern.Dial(deadline)
	if err != nil {
		return nil, err
	}
	return c, c.SetReadBuffer(tinyBuffer)
}

// watched is a reader as the daemon has it, after its first dump.
type watched struct {
	*testing.T
	kernel  *kern.Kernel
	updates chan vm.Update
	seq     uint64 // of what was read last
	dumps   int
}

func watch(t *testing.T, k *kern.Kernel) *watched {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w := &watched{T: t, kernel: k, updates: make(chan vm.Update)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		k.Watch(ctx, w.updates)
	}()
	t.Cleanup(func() { cancel(); <-done })
	if u := w.next(); u.Dump == nil {
		t.Fatalf("%+v, want a dump", u)
	}
	return w
}

// next returns the next update, which follows on the last one.
func (w *watched) next() vm.Update {
	w.Helper()
	select {
	case u := <-w.updates:
		if u.Lost != nil || u.Anew || u.Dump == nil && u.Seq != w.seq+1 || u.Seq < w.seq {
			w.Fatalf("%+v after %d", u, w.seq)
		}
		if u.Dump != nil {
			w.dumps++
		}
		w.seq = u.Seq
		return u
	case <-time.After(10 * time.Second):
		w.Fatalf("nothing came after %d", w.seq)
		return vm.Update{}
	}
}

// flood makes VMs come and go: three events each.
func flood(d *abi.Device, n int) error {
	for range n {
		v, _, err := d.Create(newUUID(), "flood")
		if err != nil {
			return err
		}
		if err := v.Close(); err != nil {
			return err
		}
	}
	return nil
}

// TestWatchOverflow: a reader whose socket overflows, and that reads nothing for
// a while, gets every event that the module keeps, once and in order.
func TestWatchOverflow(t *testing.T) {
	d := openDevice(t)
	w := watch(t, kern.NewWith(abi.DevicePath, dialTiny))
	first := w.seq
	ok(t, flood(d, 1300))
	for w.seq < first+3900 {
		w.next()
	}
	if w.dumps != 1 {
		t.Errorf("%d dumps, want the first alone", w.dumps)
	}
	// While it reads what it missed, more is dropped, and then nothing follows
	// that would show the gap.
	ok(t, flood(d, 1300))
	for w.seq < first+3900+2000 {
		w.next()
	}
	ok(t, flood(d, 20))
	for w.seq < first+3900+3960 {
		w.next()
	}
	if w.dumps != 1 {
		t.Errorf("%d dumps, want the first alone", w.dumps)
	}
}

// TestWatchBeyondJournal: a reader that missed more than the module keeps gets a
// dump, and what ended last is remembered.
func TestWatchBeyondJournal(t *testing.T) {
	d := openDevice(t)
	m := newMachine(t, created)
	w := watch(t, kern.NewWith(abi.DevicePath, dialTiny))
	first := w.seq
	ok(t, flood(d, 2000))
	for w.seq < first+6000 {
		if u := w.next(); u.Dump != nil && (len(u.Dump) != 1 || u.Dump[0].ID != m.id) {
			t.Errorf("dump %+v, want VM %d alone", u.Dump, m.id)
		}
	}
	if w.dumps != 2 {
		t.Errorf("%d dumps, want the first and one more", w.dumps)
	}
	ends, err := w.kernel.Ended(context.Background())
	ok(t, err)
	if len(ends) < journalSize/3 || ends[len(ends)-1].ID != m.id+2000 {
		t.Fatalf("%d ends, the last %+v, want VM %d", len(ends), ends[len(ends)-1], m.id+2000)
	}
	for i := range ends[1:] {
		if e := ends[i+1]; e.ID != ends[i].ID+1 || e.Reason != api.StopDestroyed {
			t.Fatalf("%+v after VM %d", e, ends[i].ID)
		}
	}
}

// TestWatchFlood reads while VMs come and go.
func TestWatchFlood(t *testing.T) {
	d := openDevice(t)
	w := watch(t, kern.NewWith(abi.DevicePath, dialTiny))
	first, flooded := w.seq, make(chan error, 1)
	go func() { flooded <- flood(d, 2000) }()
	for w.seq < first+6000 {
		w.next()
	}
	ok(t, <-flooded)
	t.Logf("%d dumps", w.dumps)
}

// roleWatch prints the updates of a reader until it is killed.
func roleWatch() error {
	updates := make(chan vm.Update)
	go kern.New(abi.DevicePath).Watch(context.Background(), updates)
	for u := range updates {
		switch {
		case u.Lost != nil:
			return u.Lost
		case u.Dump != nil:
			fmt.Println("dump")
		default:
			fmt.Println(u.Run.ID, u.Kind == vm.NoticeStopped, u.Run.Reason)
		}
	}
	return errors.New("the updates ended")
}

// TestWatchKilled: a reader is killed, VMs end in every way, and the next reader
// learns how, in that order.
func TestWatchKilled(t *testing.T) {
	first := startChild(t, "watch", nil, nil)
	first.want("dump")
	gone, monitor := hireMonitor(t, "monitor")
	monitor.want("running")
	stopped, destroyed, crashed := newMachine(t, bound), newMachine(t, running), newMachine(t, bound)
	for line := range first.lines {
		if line == fmt.Sprint(crashed.id, " false ") { // created
			break
		}
	}
	first.kill()
	ok(t, flood(openDevice(t), 10))
	ok(t, stopped.vm.Stop())
	ok(t, destroyed.vm.Destroy())
	ok(t, monitor.cmd.Process.Signal(unix.SIGKILL))
	gone.wantGone(time.Now())
	ok(t, crashed.vm.Report(abi.ReasonPanic, [4]uint64{1, 2, 3, 4}))
	ok(t, gone.vm.Destroy())

	k := kern.New(abi.DevicePath)
	w := watch(t, k)
	ends, err := k.Ended(context.Background())
	ok(t, err)
	want := []struct {
		id     uint64
		reason api.StopReason
	}{{stopped.id, api.StopOperator}, {destroyed.id, api.StopDestroyed}, {gone.id, api.StopMonitorGone}, {crashed.id, api.StopPanic}}
	var got []vm.Run
	for _, e := range ends {
		for _, v := range want {
			if e.ID == v.id {
				got = append(got, e)
			}
		}
	}
	if len(got) != len(want) {
		t.Fatalf("ends %+v", got)
	}
	for i, v := range want {
		if got[i].ID != v.id || got[i].Reason != v.reason || got[i].State != vm.RunStopped {
			t.Errorf("%d: %+v, want VM %d %s", i, got[i], v.id, v.reason)
		}
	}
	if got[3].Data != [4]uint64{1, 2, 3, 4} || !got[3].Claimed {
		t.Errorf("%+v", got[3])
	}
	tomb, err := k.Tomb(context.Background(), gone.id)
	ok(t, err)
	if tomb.Reason != api.StopMonitorGone {
		t.Errorf("tomb %+v", tomb)
	}
	last := w.seq
	ok(t, crashed.vm.Destroy())
	if u := w.next(); u.Seq != last+1 || u.Kind != vm.NoticeDestroyed || u.Run.ID != crashed.id {
		t.Errorf("%+v", u)
	}
}
