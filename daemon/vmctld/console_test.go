// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"net"
	"testing"
	"time"

	"vmctl/daemon/api"
	"vmctl/frontdoor/sign"
	"vmctl/monitor/console/proto"
)

// open opens a console with a token, as vmhttp or vmctl do.
func (r *rig) open(token api.ConsoleToken, session string) (*proto.Client, error) {
	r.t.Helper()
	c, err := net.Dial("unix", token.Socket)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	client, _, err := proto.NewClient(c, &proto.Hello{Token: []byte(token.Token), Session: session})
	return client, err
}

func (r *rig) types(c *proto.Client, text, answer string) {
	r.t.Helper()
	if err := c.Type([]byte(text)); err != nil {
		r.t.Fatal(err)
	}
	var got []byte
	for len(got) < len(answer) {
		f, err := c.Next()
		if err != nil {
			r.t.Fatal(err)
		}
		if f.Type == proto.TypeData {
			got = append(got, f.Payload...)
		}
	}
	if string(got) != answer {
		r.t.Fatalf("console says %q, want %q", got, answer)
	}
}

func closedWith(err error) proto.Code {
	var c *proto.Close
	if errors.As(err, &c) {
		return c.Code
	}
	return 0
}

// TestConsole: before power-on, through it, over the daemon's death; one token,
// one console.
func TestConsole(t *testing.T) {
	r := newRig(t)
	v := r.create("a", "runs")
	w := r.watch("")
	token := want[api.ConsoleToken](r, r.do("POST", "/v1/vms/a:consoleToken", ""), 200)
	if life := time.Until(token.ExpiresAt); life <= 0 || life > time.Minute || len(token.Token) < 22 || token.Console != "serial0" {
		t.Errorf("token %+v", token)
	}
	if s := r.get("a").Status.State; s != api.StateOff {
		t.Errorf("a console made the VM %s", s)
	}
	console, err := r.open(token, "")
	if err != nil {
		t.Fatal(err)
	}
	if d := data[api.ConsoleData](r, w.await(api.EventConsoleOpened, v.ID)); d.User == "" || d.Mode != api.ConsoleReadWrite {
		t.Errorf("opened %+v", d)
	}
	r.types(console, "hello", "HELLO")
	monitors := r.monitors()
	r.power("a", "powerOn") // in the same monitor
	if now := r.monitors(); len(now) != 1 || now[0] != monitors[0] {
		t.Errorf("monitors %v, before %v", now, monitors)
	}
	r.types(console, "again", "AGAIN")
	if _, err := r.open(token, ""); closedWith(err) != proto.TokenUsed {
		t.Errorf("a used token: %v", err)
	}
	foreign := want[api.ConsoleToken](r, r.do("POST", "/v1/vms/a:consoleToken", `{"mode":"ro"}`), 200)
	if _, err := r.open(foreign, "somebody-else"); closedWith(err) != proto.TokenUnknown {
		t.Errorf("a foreign token: %v", err)
	}
	r.kill()
	r.start()
	r.types(console, "still", "STILL")
	next, err := r.open(want[api.ConsoleToken](r, r.do("POST", "/v1/vms/a:consoleToken", ""), 200), "")
	if err != nil {
		t.Fatal(err)
	}
	r.types(next, "new", "NEW")
	r.power("a", "powerOff")
}

// TestConsoleEndsWithItsSession: logging out closes it.
func TestConsoleEndsWithItsSession(t *testing.T) {
	f := newFront(t, "--grant", "local:op=operator")
	f.create("a", "runs")
	op := f.login(session, "local:op")
	console, err := f.open(want[api.ConsoleToken](f.rig, f.as(op, "POST", "/v1/vms/a:consoleToken", ""), 200), session)
	if err != nil {
		t.Fatal(err)
	}
	f.types(console, "hi", "HI")
	f.as(&sign.Identity{User: "service:vmhttp"}, "DELETE", "/v1/sessions/"+session, "")
	for {
		if _, err := console.Next(); err != nil {
			if closedWith(err) != proto.SessionEnded {
				t.Errorf("closed with %v", err)
			}
			return
		}
	}
}
