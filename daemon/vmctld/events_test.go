// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"vmctl/daemon/api"
)

// watcher reads a stream of events.
type watcher struct {
	r    *rig
	resp *http.Response
	in   *bufio.Scanner
	ch   chan sse
}

type sse struct {
	id, event string
	data      []byte
}

func (r *rig) watch(query string, header ...string) *watcher {
	r.t.Helper()
	req, err := http.NewRequest("GET", "http://vmctld/v1/events"+query, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := r.http.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	return r.stream(resp)
}

func (r *rig) stream(resp *http.Response) *watcher {
	r.t.Helper()
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" {
		r.t.Fatalf("stream: %d %v", resp.StatusCode, resp.Header)
	}
	w := &watcher{r: r, resp: resp, in: bufio.NewScanner(resp.Body), ch: make(chan sse)}
	w.in.Buffer(nil, 1<<20)
	r.t.Cleanup(func() { resp.Body.Close() })
	go w.scan()
	return w
}

func (w *watcher) scan() {
	defer close(w.ch)
	var e sse
	for w.in.Scan() {
		line := w.in.Bytes()
		switch {
		case len(line) == 0 && e.event != "":
			w.ch <- e
			e = sse{}
		case bytes.HasPrefix(line, []byte("id: ")):
			e.id = string(line[4:])
		case bytes.HasPrefix(line, []byte("event: ")):
			e.event = string(line[7:])
		case bytes.HasPrefix(line, []byte("data: ")):
			e.data = bytes.Clone(line[6:])
		}
	}
}

// next returns the next event; false at the end of the stream.
func (w *watcher) next() (sse, bool) {
	w.r.t.Helper()
	select {
	case e, ok := <-w.ch:
		return e, ok
	case <-time.After(20 * time.Second):
		w.r.t.Fatal("no event came")
		return sse{}, false
	}
}

// await returns the next event of a kind of a VM; numbers must have no gaps.
func (w *watcher) await(kind api.EventKind, vm string) api.Event {
	w.r.t.Helper()
	for {
		raw, ok := w.next()
		if !ok {
			w.r.t.Fatalf("stream ended before %s", kind)
		}
		var e api.Event
		if err := json.Unmarshal(raw.data, &e); err != nil {
			w.r.t.Fatalf("%s: %v", raw.data, err)
		}
		if raw.id != fmt.Sprint(e.Seq) || raw.event != string(e.Kind) {
			w.r.t.Fatalf("frame %s %s around %s", raw.id, raw.event, raw.data)
		}
		if e.Kind == kind && (vm == "" || e.VM != nil && e.VM.ID == vm) {
			return e
		}
	}
}

func data[T any](r *rig, e api.Event) T {
	r.t.Helper()
	var v T
	if err := json.Unmarshal(e.Data, &v); err != nil {
		r.t.Fatalf("%s: %v", e.Data, err)
	}
	return v
}

// TestGuestEnds: whatever ends a run is told with its reason.
func TestGuestEnds(t *testing.T) {
	r := newRig(t)
	w := r.watch("?since=0")
	for _, c := range []struct {
		kernel  string
		reason  api.StopReason
		claimed bool
	}{{"powersoff", api.StopPoweroff, true}, {"panics", api.StopPanic, true}, {"crashes", api.StopMonitorGone, false}} {
		vm := r.create(c.kernel, c.kernel)
		r.ask(vm.ID, "powerOn")
		stop := data[api.LastStop](r, w.await(api.EventVMStopped, vm.ID))
		if stop.Reason != c.reason || stop.Claimed != c.claimed || stop.Detail == "" || stop.RunID == 0 {
			t.Errorf("%s: %+v", c.kernel, stop)
		}
		r.until("off", func() bool { return r.get(vm.ID).Status.State == api.StateOff })
		if kept := r.get(vm.ID).Status.LastStop; kept == nil || kept.Reason != c.reason {
			t.Errorf("%s: kept %+v", c.kernel, kept)
		}
	}
	vm := r.create("resets", "resets")
	r.power(vm.ID, "powerOn")
	if reset := data[api.ResetData](r, w.await(api.EventVMReset, vm.ID)); reset.Count != 1 || reset.RunID != r.get(vm.ID).Status.RunID {
		t.Errorf("reset: %+v", reset)
	}
	if s := r.get(vm.ID).Status.State; s != api.StateRunning {
		t.Errorf("after a reset: %s", s)
	}
}

// TestMonitorKilled: an event with the reason within a second.
func TestMonitorKilled(t *testing.T) {
	r := newRig(t)
	vm := r.create("a", "runs")
	r.power("a", "powerOn")
	w := r.watch("")
	killed := time.Now()
	r.killMonitors()
	stop := data[api.LastStop](r, w.await(api.EventVMStopped, vm.ID))
	if took := time.Since(killed); took > time.Second {
		t.Errorf("told after %v", took)
	}
	if stop.Reason != api.StopMonitorGone || stop.Claimed {
		t.Errorf("reason %+v", stop)
	}
	r.until("off", func() bool { return r.get("a").Status.State == api.StateOff })
	r.power("a", "powerOn")
}

// TestEventsResume: list, then watch; a reader that comes back misses nothing.
func TestEventsResume(t *testing.T) {
	r := newRig(t)
	vm := r.create("a", "runs")
	list := want[api.VMList](r, r.do("GET", "/v1/vms", ""), 200)
	w := r.watch(fmt.Sprintf("?since=%d", list.EventSeq))
	r.power("a", "powerOn")
	first := w.await(api.EventVMState, vm.ID)
	if first.Seq <= list.EventSeq || data[api.VMStatus](r, first).State != api.StateStarting {
		t.Fatalf("first event after the list: %+v", first)
	}
	w.resp.Body.Close()
	r.power("a", "powerOff")
	again := r.watch("", "Last-Event-ID", fmt.Sprint(first.Seq))
	last := first.Seq
	for {
		raw, _ := again.next()
		var e api.Event
		if err := json.Unmarshal(raw.data, &e); err != nil {
			t.Fatal(err)
		}
		if e.Seq != last+1 {
			t.Fatalf("event %d after %d", e.Seq, last)
		}
		last = e.Seq
		if e.Kind == api.EventVMState && data[api.VMStatus](r, e).State == api.StateOff {
			break
		}
	}
	r.kill()
	r.start()
	if e := r.watch("", "Last-Event-ID", fmt.Sprint(last-1)).await(api.EventVMState, vm.ID); e.Seq != last {
		t.Errorf("after a restart: %d, want %d", e.Seq, last)
	}
	raw, _ := r.watch("?since=1000000").next() // a number that never was
	var end api.StreamEnd
	if err := json.Unmarshal(raw.data, &end); err != nil || raw.event != "reset" || end.Seq < last || raw.id != fmt.Sprint(end.Seq) {
		t.Errorf("reset: %s %s %v", raw.event, raw.data, err)
	}
}

// TestStreamEnds: a daemon that stops says so.
func TestStreamEnds(t *testing.T) {
	r := newRig(t)
	w := r.watch("")
	r.stop()
	raw, ok := w.next()
	if !ok || raw.event != "dropped" || !strings.Contains(string(raw.data), "daemon stops") {
		t.Errorf("%v %s %s", ok, raw.event, raw.data)
	}
	r.start()
}
