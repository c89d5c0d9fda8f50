// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/coder/websocket"

	"vmctl/monitor/console/proto"
)

const typed = "uname -a; echo $((6*7))"

// The shell may ask where the cursor is behind its prompt. The answer is a line of
// its own that begins with what only a running guest prints; the typed text,
// echoed, cannot look like it.
var (
	prompt = regexp.MustCompile(`(?m)[#$] (\x1b\[6n)?$`)
	answer = regexp.MustCompile(`(?m)^(Linux .*)\r?\n42\r?$`)
)

// check does what a user does first: console open, power on, type, read,
// power off.
func check(ctx context.Context, b *browser, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	var t *terminal
	err := step("opening the console before power-on", func() error {
		c, err := b.console(ctx, name)
		t = &terminal{conn: c}
		return err
	})
	if err != nil {
		return err
	}
	defer t.conn.CloseNow()
	if err := step("powering it on", func() error { return b.verb(ctx, name, "powerOn") }); err != nil {
		return err
	}
	if err := step("waiting for the guest's shell", func() error { return t.expect(ctx, prompt, nil) }); err != nil {
		return err
	}
	var said []string
	if err := step("typing "+typed, func() error {
		t.seen.Reset()
		if err := t.send(ctx, typed+"\n"); err != nil {
			return err
		}
		return t.expect(ctx, answer, &said)
	}); err != nil {
		return err
	}
	fmt.Printf("\n    %s\n    42\n\n", strings.TrimSpace(said[1]))
	return step("powering it off", func() error { return b.verb(ctx, name, "powerOff") })
}

// terminal is a console with what it has shown.
type terminal struct {
	conn *websocket.Conn
	seen strings.Builder
}

func (t *terminal) send(ctx context.Context, text string) error {
	return t.conn.Write(ctx, websocket.MessageBinary, append([]byte{byte(proto.TypeData)}, text...))
}

// expect reads until the output matches.
func (t *terminal) expect(ctx context.Context, re *regexp.Regexp, match *[]string) error {
	for {
		if m := re.FindStringSubmatch(t.seen.String()); m != nil {
			if match != nil {
				*match = m
			}
			return nil
		}
		if t.seen.Len() > 1<<20 {
			return errors.New("the console printed 1 MiB without it")
		}
		_, msg, err := t.conn.Read(ctx)
		if err != nil {
			return fmt.Errorf("%w; the console's last words: %q", err, tail(t.seen.String(), 300))
		}
		if len(msg) == 0 {
			return errors.New("an empty console message")
		}
		switch proto.Type(msg[0]) {
		case proto.TypeData:
			t.seen.Write(msg[1:])
		case proto.TypeHistory:
			if len(msg) >= 9 {
				t.seen.Write(msg[9:])
			}
		case proto.TypePing:
			if err := t.conn.Write(ctx, websocket.MessageBinary, []byte{byte(proto.TypePong)}); err != nil {
				return err
			}
		}
	}
}

func tail(s string, n int) string {
	return s[max(0, len(s)-n):]
}
