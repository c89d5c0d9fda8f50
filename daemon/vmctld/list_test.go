// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"vmctl/daemon/api"
)

// TestPages: every item once, in order, whatever the size of a page.
func TestPages(t *testing.T) {
	r := newRig(t)
	var names []string
	for i := range 7 {
		names = append(names, fmt.Sprintf("vm-%d", i))
		r.create(names[i], "runs")
		r.refused(r.do("POST", "/v1/vms/"+names[i]+":powerOff", ""), 409, api.CodeStateConflict)
	}
	for _, limit := range []int{1, 2, 3, 7, 8} {
		var got []string
		for cursor := ""; ; {
			page := want[api.VMList](r, r.do("GET", fmt.Sprintf("/v1/vms?limit=%d&cursor=%s", limit, cursor), ""), 200)
			for _, v := range page.Items {
				got = append(got, v.Name)
			}
			if cursor = page.NextCursor; cursor == "" {
				break
			}
		}
		if !slices.Equal(got, names) {
			t.Errorf("pages of %d: %v", limit, got)
		}
	}
	var ids []string
	for _, n := range names[:5] {
		task := r.ask(n, "powerOn")
		r.end(task)
		ids = append([]string{task.ID}, ids...)
	}
	var got []string
	for cursor := ""; ; {
		page := want[api.TaskList](r, r.do("GET", "/v1/tasks?limit=2&cursor="+cursor, ""), 200)
		for _, k := range page.Items {
			got = append(got, k.ID)
		}
		if cursor = page.NextCursor; cursor == "" {
			break
		}
	}
	if !slices.Equal(got, ids) {
		t.Errorf("tasks %v, want %v", got, ids)
	}
	one := want[api.TaskList](r, r.do("GET", "/v1/tasks?vm="+names[2]+"&state=succeeded", ""), 200)
	if len(one.Items) != 1 || one.Items[0].VM.Name != names[2] {
		t.Errorf("tasks of one VM: %+v", one.Items)
	}
}

// TestOwnPages: what is not about VMs.
func TestOwnPages(t *testing.T) {
	r := newRig(t)
	host := want[api.Host](r, r.do("GET", "/v1/host", ""), 200)
	if !host.Module.Present || host.Module.ABI != 1 || host.CPUs < 1 || host.MemoryBytes < 1<<20 || host.Kernel == "" {
		t.Errorf("host %+v", host)
	}
	if root := want[api.Root](r, r.do("GET", "/v1", ""), 200); !slices.Contains(root.Features, "vms") {
		t.Errorf("root %+v", root)
	}
	who := want[api.WhoAmI](r, r.do("GET", "/v1/whoami", ""), 200)
	if who.Principal != fmt.Sprintf("unix:%d", os.Getuid()) {
		t.Errorf("whoami %+v", who)
	}
	doc := want[map[string]any](r, r.do("GET", "/v1/openapi.json", ""), 200)
	if doc["openapi"] != "3.1.0" {
		t.Errorf("openapi %v", doc["openapi"])
	}
	if got := r.do("GET", "/v1", "", "X-Request-Id", "mine-1"); got.header.Get("X-Request-Id") != "mine-1" {
		t.Errorf("request id %q", got.header.Get("X-Request-Id"))
	}
	if got := r.do("GET", "/v1", "", "X-Request-Id", "two words"); got.header.Get("X-Request-Id") == "two words" {
		t.Error("a request id that does not belong into a log was taken")
	}
}

func (r *rig) metrics() string {
	r.t.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(r.dir, "run", "metrics.sock"))
	}}}
	resp, err := c.Get("http://vmctld/metrics")
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		r.t.Fatalf("metrics: %d %v", resp.StatusCode, err)
	}
	return string(text)
}

func TestMetrics(t *testing.T) {
	r := newRig(t)
	r.create("a", "runs")
	r.power("a", "powerOn")
	r.do("GET", "/nowhere", "")
	text := r.metrics()
	for _, line := range []string{
		`vmctld_build_info{version="dev"} 1`, `vmctld_vms{state="running"} 1`, `vmctld_vms{state="off"} 0`,
		`vmctld_tasks{state="succeeded"} 1`, `vmctld_collector_success{collector="tasks"} 1`,
		`vmctld_http_requests_total{method="POST",route="/v1/vms/{id}:powerOn",status="202"} 1`,
		`vmctld_http_requests_total{method="GET",route="other",status="404"} 1`,
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("no line %s in\n%s", line, text)
		}
	}
}

// TestNothingLeaks: descriptors and goroutines after many lives are those
// before.
func TestNothingLeaks(t *testing.T) {
	r := newRig(t)
	r.create("a", "runs")
	r.create("c", "corrupt")
	life := func() {
		r.power("a", "powerOn")
		console, err := r.open(want[api.ConsoleToken](r, r.do("POST", "/v1/vms/a:consoleToken", ""), 200), "")
		if err != nil {
			t.Fatal(err)
		}
		r.types(console, "x", "X")
		r.end(r.ask("c", "powerOn"))
		r.power("a", "powerOff")
		r.end(want[api.TaskAccepted](r, r.do("DELETE", "/v1/vms/"+r.create("d", "runs").ID, ""), 202).Task)
	}
	life()
	fds, gos := r.held()
	for range 5 {
		life()
	}
	r.until("what was taken is given back", func() bool {
		f, g := r.held()
		return f <= fds+2 && g <= gos+2 // database connections come and go
	})
}

// held returns the daemon's open descriptors and goroutines.
func (r *rig) held() (fds, goroutines int) {
	r.t.Helper()
	for line := range strings.Lines(r.metrics()) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && (name == "go_goroutines" || name == "process_open_fds") {
			n, err := strconv.Atoi(value)
			if err != nil {
				r.t.Fatal(err)
			}
			if name == "go_goroutines" {
				goroutines = n
			} else {
				fds = n
			}
		}
	}
	return fds, goroutines
}
