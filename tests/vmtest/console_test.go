// SPDX-License-Identifier: Apache-2.0

//go:build lab

package vmtest_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"vmctl/monitor/console/proto"
	"vmctl/monitor/ctl"
	"vmctl/tests/vmtest"
)

func refusedWith(t *testing.T, err error) proto.Code {
	t.Helper()
	var c *proto.Close
	if !errors.As(err, &c) {
		t.Fatalf("not refused: %v", err)
	}
	return c.Code
}

func writer(s *vmtest.Screen, user string) func() bool {
	return func() bool {
		for _, v := range s.Viewers {
			if v.Writer && v.User == user {
				return true
			}
		}
		return false
	}
}

func testConsole(t *testing.T, v *vmtest.VMX, s *vmtest.Screen) {
	t.Run("history", func(t *testing.T) {
		late := v.View("late", ctl.ReadOnly)
		late.Expect(prompt)
		late.Until("all", func() bool { return late.Offset >= late.OK.Offset })
		if late.OK.Writer || late.Gap != 0 {
			t.Errorf("%+v, gap %d", late.OK, late.Gap)
		}
		late.Close()
	})
	t.Run("one writer, many readers", func(t *testing.T) {
		a, b := v.View("a", ctl.ReadWrite), v.View("b", ctl.ReadOnly)
		a.Type("echo not''typed\n")
		b.Type("echo not''typed\n")
		s.Type("echo all''see\n")
		for _, x := range []*vmtest.Screen{s, a, b} {
			x.Expect("allsee")
			if bytes.Contains(x.Text, []byte("nottyped")) {
				t.Error("a reader typed")
			}
		}
		if err := a.Client.Take(); err != nil {
			t.Fatal(err)
		}
		for _, x := range []*vmtest.Screen{s, a, b} {
			x.Until("writer a", writer(x, "a"))
		}
		if got := a.Run("echo $((6*7))"); got != "42" {
			t.Errorf("6*7 is %q", got)
		}
		a.Close()
		s.Until("writer again", writer(s, "writer"))
		b.Close()
	})
	t.Run("tokens", func(t *testing.T) {
		if _, err := v.Attach([]byte("made up"), "a", 0); refusedWith(t, err) != proto.TokenUnknown {
			t.Error(err)
		}
		token := v.Grant("a", ctl.ReadWrite, time.Minute)
		if _, err := v.Attach(token, "b", 0); refusedWith(t, err) != proto.TokenUnknown {
			t.Errorf("foreign: %v", err)
		}
		first, err := v.Attach(token, "a", 0)
		if err != nil {
			t.Fatal(err)
		}
		first.Close()
		if _, err := v.Attach(token, "a", 0); refusedWith(t, err) != proto.TokenUsed {
			t.Errorf("used: %v", err)
		}
		if _, err := v.Attach(v.Grant("a", ctl.ReadWrite, -time.Second), "a", 0); refusedWith(t, err) != proto.TokenExpired {
			t.Errorf("expired: %v", err)
		}
	})
	t.Run("reattach", func(t *testing.T) {
		a := v.View("a", ctl.ReadOnly)
		a.Expect(prompt)
		a.Until("all", func() bool { return a.Offset >= a.OK.Offset })
		a.Close()
		s.Run("echo mean''while")
		b, err := v.Attach(v.Grant("b", ctl.ReadOnly, time.Minute), "b", a.Offset)
		if err != nil {
			t.Fatal(err)
		}
		b.Expect("meanwhile")
		if bytes.Contains(b.Text, []byte(prompt)) {
			t.Error("saw again what it had")
		}
	})
	t.Run("end of a session", func(t *testing.T) {
		a := v.View("a", ctl.ReadOnly)
		if err := v.Client.ConsoleClose(v.Context(), ctl.ConsoleClose{Session: "of a", Reason: "logged out"}); err != nil {
			t.Fatal(err)
		}
		if c := a.UntilClose(); c.Code != proto.SessionEnded || c.Text != "logged out" {
			t.Errorf("%+v", c)
		}
	})
	t.Run("paste", func(t *testing.T) {
		// More than the serial port holds, faster than the guest reads.
		text := strings.Repeat("0123456789abcdef", 128)
		s.Type("stty -echo -icanon; dd bs=1 count=2048 2>/dev/null | md5sum; stty sane\n")
		s.Expect("md5sum")
		s.Type(text)
		s.Expect("34b05cabcc8f59ac10f6f66fd8022d77")
	})
}
