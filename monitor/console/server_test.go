// SPDX-License-Identifier: Apache-2.0

package console_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"vmctl/monitor/console"
	"vmctl/monitor/console/proto"
)

// pipes is a listener whose connections the test makes.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func (p *pipes) Accept() (console.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, os.ErrClosed
	}
}

func (p *pipes) Close() error { close(p.done); return nil }

// desk is a server with what it reported.
type desk struct {
	*console.Server
	t      *testing.T
	pipes  *pipes
	closed chan string // "user: reason"
	opened chan string // "user"
}

func newDesk(t *testing.T) *desk { return deskWith(t, openScroll(t, scrollFile(t))) }

func deskWith(t *testing.T, scroll *console.Scroll) *desk {
	d := &desk{
		t: t, pipes: &pipes{conns: make(chan net.Conn), done: make(chan struct{})},
		closed: make(chan string, 64), opened: make(chan string, 64),
	}
	d.Server = console.NewServer(d.pipes, scroll, console.Events{
		Opened: func(v console.Viewer) { d.opened <- v.User },
		Closed: func(v console.Viewer, reason string) { d.closed <- v.User + ": " + reason },
		Fault:  func(op string, err error) { t.Errorf("%s: %v", op, err) },
	})
	t.Cleanup(func() {
		if err := d.Close(proto.Shutdown, "test is over"); err != nil {
			t.Error(err)
		}
	})
	return d
}

func (d *desk) print(text string) {
	for _, b := range []byte(text) {
		d.Put(b)
	}
}

func (d *desk) dial() net.Conn {
	near, far := net.Pipe()
	d.pipes.conns <- far
	near.SetDeadline(time.Now().Add(10 * time.Second))
	d.t.Cleanup(func() { near.Close() })
	return near
}

func (d *desk) grant(token, user string, write bool) {
	d.t.Helper()
	g := console.Grant{Hash: sha256.Sum256([]byte(token)), Session: "of " + user, User: user, Expires: time.Now().Add(time.Minute), Write: write}
	if err := d.Grant(g); err != nil {
		d.t.Fatal(err)
	}
}

// screen is a viewer that keeps what it sees.
type screen struct {
	*proto.Client
	t       *testing.T
	conn    net.Conn
	ok      proto.OK
	text    []byte
	at      uint64 // offset behind text
	gap     uint64 // bytes that were said to be missing
	viewers []proto.Viewer
}

func (d *desk) hello(token, user string, offset uint64) (*screen, error) {
	conn := d.dial()
	c, ok, err := proto.NewClient(conn, &proto.Hello{Token: []byte(token), Session: "of " + user, Address: "test", Offset: offset})
	return &screen{Client: c, t: d.t, conn: conn, ok: ok, at: offset}, err
}

func (d *desk) view(user string, write bool) *screen {
	d.t.Helper()
	d.grant("token of "+user, user, write)
	s, err := d.hello("token of "+user, user, 0)
	if err != nil {
		d.t.Fatal(err)
	}
	return s
}

// one takes a frame.
func (s *screen) one() error {
	f, err := s.Next()
	if err != nil {
		return err
	}
	switch f.Type {
	case proto.TypeHistory:
		at, p, err := proto.ParseHistory(f.Payload)
		if err != nil {
			return err
		}
		if at < s.at {
			s.t.Errorf("history at %d comes again after %d", at, s.at)
		}
		s.gap += at - s.at
		s.text, s.at = append(s.text, p...), at+uint64(len(p))
	case proto.TypeData:
		s.text, s.at = append(s.text, f.Payload...), s.at+uint64(len(f.Payload))
	case proto.TypeViewers:
		s.viewers, err = proto.ParseViewers(f.Payload)
	}
	return err
}

// until takes frames until done.
func (s *screen) until(what string, done func() bool) {
	s.t.Helper()
	for !done() {
		if err := s.one(); err != nil {
			s.t.Fatalf("waiting for %s: %v; text %q, viewers %+v", what, err, s.text, s.viewers)
		}
	}
}

func (s *screen) untilText(text string) {
	s.t.Helper()
	s.until(text, func() bool { return bytes.Contains(s.text, []byte(text)) })
}

// untilWriter takes frames until the list says who writes.
func (s *screen) untilWriter(user string) {
	s.t.Helper()
	s.until("writer "+user, func() bool {
		return slices.ContainsFunc(s.viewers, func(v proto.Viewer) bool { return v.Writer && v.User == user })
	})
}

// untilClose takes frames until the server closes.
func (s *screen) untilClose() proto.Close {
	s.t.Helper()
	for {
		if err := s.one(); err != nil {
			var c *proto.Close
			if !errors.As(err, &c) {
				s.t.Fatalf("ended without a close: %v", err)
			}
			return *c
		}
	}
}

// keyboard collects what was typed, up to a limit.
type keyboard struct {
	mu    sync.Mutex
	text  []byte
	limit int
	got   chan struct{}
}

func newKeyboard(limit int) *keyboard { return &keyboard{limit: limit, got: make(chan struct{}, 1)} }

func (k *keyboard) input(p []byte) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := min(len(p), k.limit-len(k.text))
	k.text = append(k.text, p[:n]...)
	select {
	case k.got <- struct{}{}:
	default:
	}
	return n
}

func (k *keyboard) until(t *testing.T, text string) {
	t.Helper()
	for {
		k.mu.Lock()
		now := string(k.text)
		k.mu.Unlock()
		if now == text {
			return
		}
		select {
		case <-k.got:
		case <-time.After(10 * time.Second):
			t.Fatalf("typed %q, want %q", now, text)
		}
	}
}

func TestHistoryThenLive(t *testing.T) {
	d := newDesk(t)
	d.print("before ")
	a := d.view("a", true)
	a.untilText("before ")
	d.print("after")
	a.untilText("before after")
	if !a.ok.Writer || a.gap != 0 {
		t.Errorf("%+v, gap %d", a.ok, a.gap)
	}
}

func TestReattachGoesOnWhereItEnded(t *testing.T) {
	d := newDesk(t)
	d.print("one two ")
	a := d.view("a", true)
	a.untilText("two ")
	a.conn.Close()
	d.print("three")
	d.grant("again", "a", true)
	b, err := d.hello("again", "a", a.at)
	if err != nil {
		t.Fatal(err)
	}
	b.untilText("three")
	if string(b.text) != "three" {
		t.Errorf("saw %q", b.text)
	}
}

func TestLongHistoryHasAGap(t *testing.T) {
	scroll := openScroll(t, scrollFile(t))
	scroll.Append([]byte(strings.Repeat("x", 3*console.Keep) + "end"))
	d := deskWith(t, scroll)
	a := d.view("a", false)
	a.untilText("end")
	if a.gap != console.Keep+3 || len(a.text) != 2*console.Keep {
		t.Errorf("gap of %d bytes, %d seen", a.gap, len(a.text))
	}
}

func TestOneWriterManyReaders(t *testing.T) {
	d, k := newDesk(t), newKeyboard(1000)
	d.SetInput(k.input)
	a, b, c := d.view("a", true), d.view("b", true), d.view("c", false)
	if !a.ok.Writer || b.ok.Writer || c.ok.Writer {
		t.Fatalf("writers: %v %v %v", a.ok.Writer, b.ok.Writer, c.ok.Writer)
	}
	for _, s := range []*screen{a, b, c} {
		s.until("three viewers", func() bool { return len(s.viewers) == 3 })
	}
	var readers sync.WaitGroup
	for _, s := range []*screen{b, c} {
		readers.Go(func() { s.Type([]byte("ignored")) })
	}
	a.Type([]byte("from a"))
	k.until(t, "from a")
	readers.Wait() // what a reader typed must be on its way before it takes over

	go c.Take() // may not
	go b.Take()
	for _, s := range []*screen{a, b, c} {
		s.untilWriter("b")
	}
	go a.Type([]byte("ignored"))
	b.Type([]byte(", from b"))
	k.until(t, "from a, from b")
	d.print("x")
	for _, s := range []*screen{a, b, c} {
		s.untilText("x")
	}

	b.conn.Close()
	a.untilWriter("a")
	c.untilWriter("a")
	a.conn.Close()
	c.until("no writer", func() bool { return len(c.viewers) == 1 && !c.viewers[0].Writer })
}

func TestTypingWaitsForRoom(t *testing.T) {
	d, k := newDesk(t), newKeyboard(3)
	d.SetInput(k.input)
	a := d.view("a", true)
	go func() {
		for a.one() == nil {
		}
	}()
	a.Type([]byte("abcdef"))
	k.until(t, "abc")
	k.mu.Lock()
	k.limit = 100
	k.mu.Unlock()
	d.Room()
	k.until(t, "abcdef")
}

// A writer that waits for room is not the writer any more when another takes its
// place, and what it typed does not come later.
func TestTakeFromAWaitingWriter(t *testing.T) {
	d, k := newDesk(t), newKeyboard(3)
	d.SetInput(k.input)
	a, b := d.view("a", true), d.view("b", true)
	go func() {
		for a.one() == nil {
		}
	}()
	a.Type([]byte("abcdef"))
	k.until(t, "abc")
	b.Take()
	b.untilWriter("b")
	k.mu.Lock()
	k.limit = 100
	k.mu.Unlock()
	d.Room()
	b.Type([]byte("xyz"))
	k.until(t, "abcxyz")
}

func refused(t *testing.T, err error) proto.Code {
	t.Helper()
	var c *proto.Close
	if !errors.As(err, &c) {
		t.Fatalf("not refused: %v", err)
	}
	return c.Code
}

func TestTokens(t *testing.T) {
	d := newDesk(t)
	d.grant("good", "a", true)
	if _, err := d.hello("bad", "a", 0); refused(t, err) != proto.TokenUnknown {
		t.Errorf("unknown token: %v", err)
	}
	if _, err := d.hello("good", "b", 0); refused(t, err) != proto.TokenUnknown {
		t.Errorf("token of another session: %v", err)
	}
	if _, err := d.hello("good", "a", 0); err != nil {
		t.Errorf("good token: %v", err)
	}
	if _, err := d.hello("good", "a", 0); refused(t, err) != proto.TokenUsed {
		t.Errorf("used token: %v", err)
	}
	old := console.Grant{Hash: sha256.Sum256([]byte("old")), Session: "of a", User: "a", Expires: time.Now().Add(-time.Second)}
	if err := d.Grant(old); err != nil {
		t.Fatal(err)
	}
	if _, err := d.hello("old", "a", 0); refused(t, err) != proto.TokenExpired {
		t.Errorf("expired token: %v", err)
	}
}

func TestGrantsAreBounded(t *testing.T) {
	d := newDesk(t)
	for i := range console.MaxGrants {
		d.grant(fmt.Sprint(i), "a", false)
	}
	g := console.Grant{User: "a", Expires: time.Now().Add(time.Minute)}
	if err := d.Grant(g); !errors.Is(err, console.ErrGrants) {
		t.Fatalf("got %v", err)
	}
	d.End("", "a", "")
	d.grant("fresh", "a", false)
	if _, err := d.hello("3", "a", 0); refused(t, err) != proto.TokenUnknown {
		t.Errorf("a grant that was taken back: %v", err)
	}
}

func TestExpiredGrantsMakeRoom(t *testing.T) {
	d := newDesk(t)
	for range console.MaxGrants {
		if err := d.Grant(console.Grant{Expires: time.Now().Add(-time.Second)}); err != nil {
			t.Fatal(err)
		}
	}
	d.grant("fresh", "a", false)
}

func TestViewersAreBounded(t *testing.T) {
	d := newDesk(t)
	for i := range proto.MaxViewers {
		d.view(fmt.Sprint(i), false)
	}
	d.grant("more", "more", false)
	if _, err := d.hello("more", "more", 0); refused(t, err) != proto.Superseded {
		t.Errorf("got %v", err)
	}
	if n := d.Viewers(); n != proto.MaxViewers {
		t.Errorf("%d viewers", n)
	}
}

func TestEndOfASession(t *testing.T) {
	d := newDesk(t)
	a, b := d.view("a", true), d.view("b", true)
	d.End("of a", "", "logged out")
	if c := a.untilClose(); c.Code != proto.SessionEnded || c.Text != "logged out" {
		t.Errorf("%+v", c)
	}
	if got := <-d.closed; got != "a: sessionEnded" {
		t.Errorf("reported %q", got)
	}
	b.untilWriter("b")
}

func TestCloseSendsWhatIsLeft(t *testing.T) {
	d := newDesk(t)
	a := d.view("a", true)
	a.until("list", func() bool { return len(a.viewers) == 1 })
	d.print("last words")
	closed := make(chan error)
	go func() { closed <- d.Close(proto.Shutdown, "guest powered off") }()
	if c := a.untilClose(); c.Code != proto.Shutdown || c.Text != "guest powered off" || string(a.text) != "last words" {
		t.Errorf("%+v after %q", c, a.text)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

func TestCloseDoesNotWaitForTheDeaf(t *testing.T) {
	d := newDesk(t)
	d.view("a", true)    // reads nothing more
	stranger := d.dial() // says nothing
	_ = stranger
	start := time.Now()
	d.Close(proto.Shutdown, "")
	if took := time.Since(start); took > 4*time.Second {
		t.Errorf("took %v", took)
	}
	if got := <-d.closed; got != "a: slow" {
		t.Errorf("reported %q", got)
	}
}

func TestLeaving(t *testing.T) {
	d := newDesk(t)
	a := d.view("a", true)
	if got := <-d.opened; got != "a" {
		t.Errorf("opened by %q", got)
	}
	a.conn.Close()
	if got := <-d.closed; got != "a: left" {
		t.Errorf("reported %q", got)
	}
}

func TestProtocolErrors(t *testing.T) {
	hello := proto.AppendHello(nil, &proto.Hello{Token: []byte("token of a"), Session: "of a"})
	for _, c := range []struct {
		name   string
		stream []byte
	}{
		{"no hello", proto.AppendFrame(nil, proto.TypeTake, nil)},
		{"hello of nothing", proto.AppendFrame(nil, proto.TypeHello, nil)},
		{"unknown type first", []byte{99, 0, 0, 0}},
		{"endless frame first", []byte{1, 0xff, 0xff, 0xff}},
		{"two hellos", append(bytes.Clone(hello), hello...)},
		{"frame of a server", proto.AppendFrame(bytes.Clone(hello), proto.TypePing, nil)},
		{"endless frame", append(bytes.Clone(hello), byte(proto.TypeData), 0xff, 0xff, 0xff)},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDesk(t)
			d.grant("token of a", "a", true)
			conn := d.dial()
			go conn.Write(c.stream)
			scan := proto.NewScanner(conn, proto.MaxPayload)
			for {
				f, err := scan.Next()
				if err != nil {
					t.Fatalf("ended without a close: %v", err)
				}
				if f.Type != proto.TypeClose {
					continue
				}
				if bye, err := proto.ParseClose(f.Payload); err != nil || bye.Code != proto.Protocol {
					t.Errorf("%+v, %v", bye, err)
				}
				if _, err := scan.Next(); err != io.EOF {
					t.Errorf("after close: %v", err)
				}
				return
			}
		})
	}
}

// A live viewer that does not read is closed when the ring laps it, and the
// guest is not delayed by it.
func TestSlowViewer(t *testing.T) {
	d := newDesk(t)
	a := d.view("a", false)
	d.print("live")
	a.untilText("live")
	d.print("x") // so that it is live, and stuck in sending
	line := strings.Repeat("y", 1000)
	for range 3 * console.Keep / len(line) {
		d.print(line)
	}
	if c := a.untilClose(); c.Code != proto.Slow {
		t.Errorf("%+v", c)
	}
	if got := <-d.closed; got != "a: slow" {
		t.Errorf("reported %q", got)
	}
}

// The guest's terminal is as large as that of who types.
func TestSizeIsTheWriters(t *testing.T) {
	d := newDesk(t)
	sizes := make(chan [2]uint16, 8)
	d.SetResize(func(cols, rows uint16) { sizes <- [2]uint16{cols, rows} })
	a, b := d.view("a", true), d.view("b", true)
	resize := func(s *screen, cols, rows uint16) {
		t.Helper()
		if _, err := s.conn.Write(proto.AppendResize(nil, proto.Resize{Cols: cols, Rows: rows})); err != nil {
			t.Fatal(err)
		}
	}
	want := func(cols, rows uint16) {
		t.Helper()
		select {
		case got := <-sizes:
			if got != [2]uint16{cols, rows} {
				t.Errorf("size %v, want %d by %d", got, cols, rows)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("not told of %d by %d", cols, rows)
		}
	}
	go func() { // nobody else takes what is sent to them
		for b.one() == nil {
		}
	}()
	go func() {
		for a.one() == nil {
		}
	}()
	resize(a, 80, 25)
	want(80, 25)
	resize(b, 132, 43)
	if err := b.Take(); err != nil {
		t.Fatal(err)
	}
	want(132, 43)
	b.conn.Close()
	want(80, 25)
	// A machine that comes later hears of it too.
	d.SetResize(func(cols, rows uint16) { sizes <- [2]uint16{cols, rows} })
	want(80, 25)
}
