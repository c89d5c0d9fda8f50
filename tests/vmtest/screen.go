// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"bytes"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"vmctl/monitor/console/proto"
)

// Screen is a viewer of a console that keeps what it sees.
type Screen struct {
	t       testing.TB
	conn    net.Conn
	Client  *proto.Client
	OK      proto.OK
	Text    []byte
	Offset  uint64 // behind the last byte seen
	Gap     uint64 // bytes that are kept no more
	Viewers []proto.Viewer
	seen    int // how much of Text Expect has passed
}

// Attach connects a viewer with a token. errors.As: *proto.Close when it is
// refused.
func (v *VMX) Attach(token []byte, user string, offset uint64) (*Screen, error) {
	v.t.Helper()
	conn, err := net.Dial("unix", v.ConsoleSocket())
	v.must(err)
	v.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(Timeout))
	c, ok, err := proto.NewClient(conn, &proto.Hello{Token: token, Session: "of " + user, Address: "test", Offset: offset})
	return &Screen{t: v.t, conn: conn, Client: c, OK: ok, Offset: offset}, err
}

// Close leaves.
func (s *Screen) Close() { s.conn.Close() }

// Next takes one frame, for which it waits as long as Timeout.
func (s *Screen) Next() error {
	if err := s.conn.SetDeadline(time.Now().Add(Timeout)); err != nil {
		return err
	}
	f, err := s.Client.Next()
	if err != nil {
		return err
	}
	switch f.Type {
	case proto.TypeHistory:
		at, p, err := proto.ParseHistory(f.Payload)
		if err != nil {
			return err
		}
		s.Gap += at - s.Offset
		s.Text, s.Offset = append(s.Text, p...), at+uint64(len(p))
	case proto.TypeData:
		s.Text, s.Offset = append(s.Text, f.Payload...), s.Offset+uint64(len(f.Payload))
	case proto.TypeViewers:
		s.Viewers, err = proto.ParseViewers(f.Payload)
	}
	return err
}

// Until takes frames until done.
func (s *Screen) Until(what string, done func() bool) {
	s.t.Helper()
	for !done() {
		if err := s.Next(); err != nil {
			s.t.Fatalf("waiting for %s: %v\nthe console shows:\n%s", what, err, s.tail())
		}
	}
}

// tail is the end of what was seen.
func (s *Screen) tail() []byte { return s.Text[max(0, len(s.Text)-4000):] }

// Expect waits for a text behind what was expected before.
func (s *Screen) Expect(text string) {
	s.t.Helper()
	var at int
	s.Until(text, func() bool {
		at = bytes.Index(s.Text[s.seen:], []byte(text))
		return at >= 0
	})
	s.seen += at + len(text)
}

// Seen is how much of Text was passed.
func (s *Screen) Seen() int { return s.seen }

// Run types a command into the guest's shell and returns what it prints.
func (s *Screen) Run(command string) string {
	s.t.Helper()
	// The marks are not in the echo of the line in this form.
	s.Type("echo be''gin; " + command + "; echo en''d\n")
	s.Expect("begin\r\n")
	from := s.seen
	s.Expect("end\r\n")
	return strings.TrimSuffix(strings.ReplaceAll(string(s.Text[from:s.seen-len("end\r\n")]), "\r\n", "\n"), "\n")
}

// Type types.
func (s *Screen) Type(text string) {
	s.t.Helper()
	if err := s.Client.Type([]byte(text)); err != nil {
		s.t.Fatal(err)
	}
}

// Resize says how large the screen is.
func (s *Screen) Resize(cols, rows uint16) {
	s.t.Helper()
	if _, err := s.conn.Write(proto.AppendResize(nil, proto.Resize{Cols: cols, Rows: rows})); err != nil {
		s.t.Fatal(err)
	}
}

// UntilClose takes frames until the server closes, and returns its last words.
func (s *Screen) UntilClose() proto.Close {
	s.t.Helper()
	for {
		if err := s.Next(); err != nil {
			var c *proto.Close
			if !errors.As(err, &c) {
				s.t.Fatalf("the console ended without a close: %v\nit shows:\n%s", err, s.tail())
			}
			return *c
		}
	}
}
