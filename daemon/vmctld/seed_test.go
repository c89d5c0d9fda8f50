// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vmctl/daemon/api"
	"vmctl/daemon/seed"
)

func withSeed(name, texts string) string {
	return fmt.Sprintf(`{"name":%q,"spec":{"memoryBytes":67108864,"boot":{"kernel":"runs"}},"seed":%s}`, name, texts)
}

// seedDisks returns the disks of seeds that monitors of this rig have.
func (r *rig) seedDisks() (disks [][]byte) {
	r.t.Helper()
	for _, pid := range r.monitors() {
		links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, link := range links {
			if to, err := os.Readlink(link); err != nil || !strings.HasPrefix(to, "/memfd:cidata") {
				continue
			}
			disk, err := os.ReadFile(link)
			if err != nil {
				r.t.Fatal(err)
			}
			disks = append(disks, disk)
		}
	}
	return disks
}

// TestSeed: the monitor has one more disk with what the guest is to read, also after a
// restart of the daemon; it goes with the run, and the seed with the VM.
func TestSeed(t *testing.T) {
	r := newRig(t)
	r.disk("d")
	const user, network = "#cloud-config\n# caf\u00e9\n", "version: 2\n"
	vm := want[api.VM](r, r.do("POST", "/v1/vms", withSeed("a", fmt.Sprintf(`{"userData":%q,"networkConfig":%q}`, user, network))), 201)
	r.made[vm.ID] = true
	if vm.Seed == nil || *vm.Seed != (api.SeedSize{UserDataBytes: len(user), NetworkConfigBytes: len(network)}) {
		t.Errorf("%+v", vm.Seed)
	}
	texts := seed.Texts{UserData: user, NetworkConfig: network, MetaData: `instance-id: "` + vm.ID + "\"\nlocal-hostname: \"a\"\n"}
	for _, again := range []func(){func() {}, func() { r.kill(); r.start() }} {
		r.power("a", "powerOn")
		var disk bytes.Buffer
		if err := seed.Write(&disk, texts); err != nil {
			t.Fatal(err)
		}
		if got := r.seedDisks(); len(got) != 1 || !bytes.Equal(got[0], disk.Bytes()) {
			t.Errorf("the monitor has %d disks of seeds, or another", len(got))
		}
		again()
		r.power("a", "powerOff")
		r.nothingRuns()
	}
	got := r.do("GET", "/v1/vms/a/seed", "")
	if s := want[api.Seed](r, got, 200); s != (api.Seed{UserData: user, NetworkConfig: network}) || got.header.Get("Cache-Control") != "no-store" {
		t.Errorf("%+v %v", s, got.header)
	}
	r.end(want[api.TaskAccepted](r, r.do("DELETE", "/v1/vms/a", ""), 202).Task)
	r.refused(r.do("GET", "/v1/vms/"+vm.ID+"/seed", ""), 404, api.CodeNotFound)

	r.create("none", "runs")
	r.refused(r.do("GET", "/v1/vms/none/seed", ""), 404, api.CodeNotFound)
	full := want[api.VM](r, r.do("POST", "/v1/vms", withSeed("full", `{"metaData":"`+strings.Repeat("x", api.MaxSeed)+`"}`)), 201)
	r.made[full.ID] = true
	r.power("full", "powerOn")
	if got := r.seedDisks(); len(got) != 1 || bytes.Contains(got[0], []byte("local-hostname")) {
		t.Errorf("%d disks of seeds, or with more than was asked for", len(got))
	}
	r.power("full", "powerOff")
	// All disks that a VM can have, and the seed.
	disks := make([]string, api.MaxDisks)
	for i := range disks {
		name := fmt.Sprintf("d%d", i)
		r.disk(name)
		disks[i] = `{"path":"` + name + `"}`
	}
	many := want[api.VM](r, r.do("POST", "/v1/vms", `{"name":"many","seed":{},"spec":{"memoryBytes":67108864,"boot":{"kernel":"runs"},"disks":[`+strings.Join(disks, ",")+`]}}`), 201)
	r.made[many.ID] = true
	r.power("many", "powerOn")
	if got := r.seedDisks(); len(got) != 1 {
		t.Errorf("%d disks of seeds beside 16 others", len(got))
	}
	r.power("many", "powerOff")
}

// TestSeedIsSecret: what is in a seed is told to those who may make VMs, and nowhere
// else.
func TestSeedIsSecret(t *testing.T) {
	f := newFront(t, "--grant", "local:view=viewer", "--grant", "local:op=operator", "--grant", "local:admin=admin")
	view, op, admin := f.login(session+"v", "local:view"), f.login(session+"o", "local:op"), f.login(session+"a", "local:admin")
	const secret = "hunter2-hunter2"
	body := withSeed("a", fmt.Sprintf(`{"userData":%q}`, secret))
	made := f.do("POST", "/v1/vms", body, "Idempotency-Key", "k")
	f.made[want[api.VM](f.rig, made, 201).ID] = true
	again := f.do("POST", "/v1/vms", body, "Idempotency-Key", "k")
	f.power("a", "powerOn")
	f.power("a", "powerOff")
	f.refused(f.as(view, "GET", "/v1/vms/a/seed", ""), 403, api.CodeForbidden)
	f.refused(f.as(op, "GET", "/v1/vms/a/seed", ""), 403, api.CodeForbidden)
	if got := want[api.Seed](f.rig, f.as(admin, "GET", "/v1/vms/a/seed", ""), 200); got.UserData != secret {
		t.Errorf("an admin sees %+v", got)
	}
	told := map[string][]byte{
		"the answer":        made.body,
		"a repeated answer": again.body,
		"a refusal":         f.do("POST", "/v1/vms", body).body,
		"a bad request":     f.do("POST", "/v1/vms", withSeed("b", fmt.Sprintf(`{"userData":[%q]}`, secret))).body,
		"a NUL byte":        f.do("POST", "/v1/vms", withSeed("b", `{"userData":"`+secret+`\u0000"}`)).body,
		"the VM":            f.as(view, "GET", "/v1/vms/a", "").body,
		"the list":          f.as(view, "GET", "/v1/vms", "").body,
		"the tasks":         f.as(view, "GET", "/v1/tasks", "").body,
	}
	var events []byte
	for w := f.watch("?since=0"); !bytes.Contains(events, []byte(api.StateStopping)); {
		raw, ok := w.next()
		if !ok {
			t.Fatal("the stream ended")
		}
		events = append(events, raw.data...)
	}
	told["events"] = events
	f.stop()
	told["the log"] = []byte(f.log.String())
	for what, text := range told {
		if len(text) == 0 || bytes.Contains(text, []byte(secret)) {
			t.Errorf("%s: %s", what, text)
		}
	}
}

// TestBadSeed: each is a clear error with a stable code, and nothing is made.
func TestBadSeed(t *testing.T) {
	r := newRig(t)
	half := strings.Repeat("x", api.MaxSeed/2)
	for _, c := range []struct {
		what, seed string
		code       api.Code
	}{
		{"no object", `"#cloud-config"`, api.CodeSeedInvalid},
		{"a list", `[]`, api.CodeSeedInvalid},
		{"a text that is none", `{"userData":{"hostname":"a"}}`, api.CodeSeedInvalid},
		{"an unknown text", `{"vendorData":"x"}`, api.CodeUnknownField},
		{"NUL in user-data", `{"userData":"a\u0000"}`, api.CodeSeedInvalid},
		{"NUL in meta-data", `{"metaData":"\u0000"}`, api.CodeSeedInvalid},
		{"NUL in network-config", `{"networkConfig":"\u0000a"}`, api.CodeSeedInvalid},
		{"one byte too many", `{"userData":"` + half + `","metaData":"` + half + `","networkConfig":"x"}`, api.CodeSeedTooLarge},
		{"too many bytes, not characters", `{"userData":"` + half + strings.Repeat("é", api.MaxSeed/4) + `x"}`, api.CodeSeedTooLarge},
	} {
		t.Run(c.what, func(t *testing.T) {
			outer := r.t
			r.t = t
			defer func() { r.t = outer }()
			r.refused(r.do("POST", "/v1/vms", withSeed("bad", c.seed)), 422, c.code)
		})
	}
	r.refused(r.do("POST", "/v1/vms", withSeed("bad", `{"userData":"`+strings.Repeat("x", 1<<20)+`"}`)), 413, api.CodeTooLarge)
	r.refused(r.do("GET", "/v1/vms/nobody/seed", ""), 404, api.CodeNotFound)
	r.refused(r.do("POST", "/v1/vms/nobody/seed", ""), 405, api.CodeMethodNotAllowed)
	if list := want[api.VMList](r, r.do("GET", "/v1/vms", ""), 200); len(list.Items) != 0 {
		t.Errorf("made: %+v", list.Items)
	}
}
