// SPDX-License-Identifier: Apache-2.0

package console_test

import (
	"bytes"
	"runtime"
	"testing"
	"time"

	"vmctl/monitor/virtio"
	"vmctl/monitor/virtio/console"
	"vmctl/monitor/virtio/virtiotest"
)

func TestOutput(t *testing.T) {
	var printed []byte
	drv := virtiotest.New(t, console.New(func(b byte) { printed = append(printed, b) }, func() {}), 0)
	long := bytes.Repeat([]byte("0123456789abcdef"), 1000)
	drv.Do(1, virtiotest.Request{Read: [][]byte{[]byte("hello, "), []byte("host\n")}}, virtiotest.Request{Read: [][]byte{long}})
	if want := append([]byte("hello, host\n"), long...); !bytes.Equal(printed, want) {
		t.Errorf("%d bytes were printed, want %d", len(printed), len(want))
	}
}

func TestInput(t *testing.T) {
	room := make(chan struct{}, 10)
	d := console.New(func(byte) {}, func() { room <- struct{}{} })
	take := func(typed string, want int) {
		t.Helper()
		if n, active := d.Receive([]byte(typed)); n != want || !active {
			t.Errorf("took %d bytes of %q, active %v", n, typed, active)
		}
	}
	if n, active := d.Receive([]byte("lost")); n != 0 || active {
		t.Error("takes input without a driver")
	}
	drv := virtiotest.New(t, d, 0)
	<-room // of another port, so far
	take("too early", 0)
	bufs := drv.Begin(0, virtiotest.Request{Write: []int{2, 3}}, virtiotest.Request{Write: []int{4}})
	select {
	case <-room:
	case <-time.After(20 * time.Second):
		t.Fatal("does not say that there is room")
	}
	take("typed", 5)
	take("and more", 4)
	drv.Do(0) // waits for both
	if got := string(bufs[0].Write[0]) + string(bufs[0].Write[1]) + string(bufs[1].Write[0]); got != "typedand " {
		t.Errorf("the guest reads %q", got)
	}
	// A notification that came late may have said already that there is room: who
	// waits has to ask again.
	for len(room) > 0 {
		<-room
	}
	take("still full", 0)
	drv.Reset()
	if _, active := d.Receive(nil); len(room) == 0 || active {
		t.Error("after a reset who waits for room is not told")
	}
}

// watched tells which queues the console works on.
type watched struct {
	*console.Device
	queues []*virtio.Queue
}

func (w *watched) Start(features uint64, queues []*virtio.Queue) {
	w.queues = queues
	w.Device.Start(features, queues)
}

// What the guest was printing when its machine was paused is printed, and once.
func TestOutputAcrossAPause(t *testing.T) {
	var printed []byte
	begun, stopping := make(chan struct{}), make(chan struct{})
	w := new(watched)
	w.Device = console.New(func(b byte) {
		if len(printed) == 0 {
			close(begun)
			<-stopping
		}
		printed = append(printed, b)
	}, func() {})
	drv := virtiotest.New(t, w, 0)
	text := bytes.Repeat([]byte("0123456789abcdef"), 2000)
	drv.Begin(1, virtiotest.Request{Read: [][]byte{text[:100], text[100:]}})
	<-begun
	paused := make(chan struct{})
	go func() {
		drv.Pause()
		close(paused)
	}()
	for !w.queues[1].Stopping() {
		runtime.Gosched()
	}
	close(stopping)
	<-paused
	drv.Resume()
	drv.Do(1, virtiotest.Request{Read: [][]byte{[]byte("end")}})
	if want := string(text) + "end"; string(printed) != want {
		t.Errorf("%d bytes were printed, want %d", len(printed), len(want))
	}
}

func TestSize(t *testing.T) {
	d := console.New(func(byte) {}, func() {})
	drv := virtiotest.New(t, d, 0)
	if !d.Resize(132, 43) || d.Resize(132, 43) {
		t.Error("does not know what a change is")
	}
	if got := drv.Config(0, 4); !bytes.Equal(got, make([]byte, 4)) {
		t.Errorf("changed without a word: %v", got)
	}
	drv.Changed()
	if got := drv.Config(0, 8); !bytes.Equal(got, []byte{132, 0, 43, 0, 0, 0, 0, 0}) || drv.Generation() != 1 || drv.Changes() != 1 {
		t.Errorf("size %v, generation %d, %d interrupts", got, drv.Generation(), drv.Changes())
	}
	drv.Pause()
	d.Resize(80, 25)
	drv.Changed() // nobody is told while nobody runs
	drv.Resume()
	if got := drv.Config(0, 4); !bytes.Equal(got, []byte{80, 0, 25, 0}) || drv.Changes() != 2 {
		t.Errorf("after a pause: size %v, %d interrupts", got, drv.Changes())
	}
}
