// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"vmctl/monitor/console/proto"
)

// consoleOf is a terminal on a console that play is the other end of.
func consoleOf(t *testing.T, play func(ctx context.Context, c *websocket.Conn) error) (context.Context, *terminal) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	ended := make(chan error, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err == nil {
			err = play(ctx, c)
		}
		ended <- err
	}))
	c, _, err := websocket.Dial(ctx, strings.Replace(s.URL, "http", "ws", 1), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := <-ended; err != nil {
			t.Error(err)
		}
		c.CloseNow()
		s.Close()
	})
	return ctx, &terminal{conn: c}
}

func data(text string) []byte { return append([]byte{byte(proto.TypeData)}, text...) }

// However the guest's output is cut, the prompt is found; a question for the
// cursor's place may stand behind it.
func TestPromptIsFound(t *testing.T) {
	for _, parts := range [][]string{
		{"boot\r\nguest# "},
		{"boot\r\nguest# \x1b[6n"},
		{"boot\r\ngue", "st# \x1b[", "6n"},
	} {
		ctx, term := consoleOf(t, func(ctx context.Context, c *websocket.Conn) error {
			for _, p := range parts {
				if err := c.Write(ctx, websocket.MessageBinary, data(p)); err != nil {
					return err
				}
			}
			return nil
		})
		if err := term.expect(ctx, prompt, nil); err != nil {
			t.Errorf("%q: %v", parts, err)
		}
	}
}

// A console that is silent for long asks whether its viewer is still there.
func TestPingIsAnswered(t *testing.T) {
	ctx, term := consoleOf(t, func(ctx context.Context, c *websocket.Conn) error {
		if err := c.Write(ctx, websocket.MessageBinary, []byte{byte(proto.TypePing)}); err != nil {
			return err
		}
		_, answer, err := c.Read(ctx)
		if err != nil {
			return err
		}
		if want := []byte{byte(proto.TypePong)}; !bytes.Equal(answer, want) {
			return fmt.Errorf("answered %x, want %x", answer, want)
		}
		return c.Write(ctx, websocket.MessageBinary, data("guest# "))
	})
	if err := term.expect(ctx, prompt, nil); err != nil {
		t.Fatal(err)
	}
}
