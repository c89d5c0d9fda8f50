// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/creack/pty"

	"vmctl/daemon/api"
	"vmctl/monitor/console/proto"
)

const consoleToken = "one-time-token"

// guest is the console of a VM with one viewer: the monitor's end.
type guest struct {
	t     *testing.T
	conn  io.ReadWriteCloser
	scan  *proto.Scanner
	typed chan string
	sizes chan proto.Resize
	takes chan struct{}
	gone  chan struct{} // closed when the viewer left
	ok    proto.OK
}

func newGuest(t *testing.T, conn io.ReadWriteCloser) *guest {
	return &guest{t: t, conn: conn, scan: proto.NewScanner(conn, proto.MaxPayload), typed: make(chan string, 100),
		sizes: make(chan proto.Resize, 100), takes: make(chan struct{}, 10), gone: make(chan struct{}),
		ok: proto.OK{Viewer: 7, Writer: true, Offset: 12}}
}

// sends writes a frame, or part of one for a peer that breaks off. A viewer
// that left is no error here: what it must have seen the test looks for.
func (g *guest) sends(frame []byte) { _, _ = g.conn.Write(frame) }

func (g *guest) prints(text string) { g.sends(proto.AppendFrame(nil, proto.TypeData, []byte(text))) }
func (g *guest) stays()             { <-g.gone }

func (g *guest) closes(code proto.Code, text string) {
	g.sends(proto.AppendClose(nil, proto.Close{Code: code, Text: text}))
}

// reads takes in what the viewer sends until it leaves.
func (g *guest) reads() {
	defer close(g.gone)
	for {
		f, err := g.scan.Next()
		if err != nil {
			return
		}
		switch f.Type {
		case proto.TypeData:
			g.typed <- string(f.Payload)
		case proto.TypeTake:
			g.takes <- struct{}{}
		case proto.TypeResize:
			if size, err := proto.ParseResize(f.Payload); err == nil {
				g.sizes <- size
			}
		}
	}
}

// waits collects what is typed until it is all of want.
func (g *guest) waits(want string) {
	var got string
	for limit := time.After(10 * time.Second); got != want; {
		select {
		case s := <-g.typed:
			got += s
		case <-limit:
			g.t.Errorf("typed %q, want %q", got, want)
			return
		}
	}
}

// consoleHost serves the API and one console on unix sockets; plays is what
// the console does after it said OK.
func consoleHost(t *testing.T, plays func(*guest), ok ...proto.OK) (socket string, s *stub) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		g := newGuest(t, conn)
		if len(ok) > 0 {
			g.ok = ok[0]
		}
		f, err := g.scan.Next()
		if err != nil {
			t.Error(err)
			return
		}
		hello, err := proto.ParseHello(f.Payload)
		if err != nil || string(hello.Token) != consoleToken {
			t.Errorf("hello is %+v, %v", hello, err)
		}
		g.serve(plays)
	}()
	t.Cleanup(func() { l.Close(); <-done })
	s = newStub(t)
	s.token = api.ConsoleToken{Token: consoleToken, ExpiresAt: epoch.Add(time.Minute), Console: "serial0", Socket: path}
	return onSocket(t, s), s
}

// serve lets a viewer in. A guest with Viewer 0 says no by itself.
func (g *guest) serve(plays func(*guest)) {
	if g.ok.Viewer != 0 {
		g.sends(proto.AppendOK(nil, g.ok))
	}
	read := make(chan struct{})
	go func() { defer close(read); g.reads() }()
	plays(g)
	g.conn.Close()
	<-read
}

func TestConsoleAtATerminal(t *testing.T) {
	socket, stub := consoleHost(t, func(g *guest) {
		g.sends(proto.AppendHistory(nil, 0, []byte("booting\r\n")))
		g.sends(proto.AppendHistory(nil, 1033, []byte("login: ")))
		if size := <-g.sizes; size != (proto.Resize{Cols: 80, Rows: 24}) {
			t.Errorf("the size is %v", size)
		}
		g.sends(proto.AppendFrame(nil, proto.TypePing, nil))
		g.waits("ls\r\x03\x1dx") // Ctrl-C is the guest's; the escape key twice is sent once
		g.prints("file\r\n")
		g.stays()
	})
	s := newSeat(t)
	done := s.start(t.Context(), map[string]string{"VMCTL_SOCKET": socket}, "console", "web")
	s.sees("vmctl: connected to serial0 of web; to leave, press Ctrl-] and then q")
	s.sees("booting\r\n")
	s.sees("vmctl: 1 KiB of output are not kept")
	s.sees("login: ")
	s.types("ls\r\x03\x1d\x1dx")
	s.sees("file")
	s.types("\x1d")
	s.types("?")
	s.sees("after Ctrl-]: q or . leaves")
	s.types("\x1dq")
	s.ends(done, 0)
	if !strings.Contains(stub.saw(), `POST /v1/vms/web:consoleToken {"mode":"rw"}`) {
		t.Errorf("asked for %s", stub.saw())
	}
}

func TestConsoleFollowsTheSize(t *testing.T) {
	socket, _ := consoleHost(t, func(g *guest) {
		<-g.sizes
		g.prints("ready")
		if size := <-g.sizes; size != (proto.Resize{Cols: 100, Rows: 40}) {
			t.Errorf("the new size is %v", size)
		}
		g.closes(proto.Shutdown, "the VM was powered off")
	})
	s := newSeat(t)
	done := s.start(t.Context(), map[string]string{"VMCTL_SOCKET": socket}, "console", "web")
	s.sees("ready")
	if err := pty.Setsize(s.tty, &pty.Winsize{Cols: 100, Rows: 40}); err != nil {
		t.Fatal(err)
	}
	// The terminal is not the controlling one of the test: the signal that the
	// kernel sends with a new size comes from here.
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if err := self.Signal(syscall.SIGWINCH); err != nil {
		t.Fatal(err)
	}
	s.ends(done, 0)
	s.sees("the console closed: the VM was powered off (shutdown)")
}

func TestConsoleEnds(t *testing.T) {
	cases := []struct {
		name   string
		plays  func(*guest)
		status int
		want   string
	}{
		{"session ended", func(g *guest) { g.closes(proto.SessionEnded, "you were logged\x1b[2J out") }, 1, "the console closed: you were logged"},
		{"slow", func(g *guest) { g.closes(proto.Slow, "too slow") }, 1, "too slow (slow)"},
		{"unknown code", func(g *guest) { g.closes(999, "new") }, 1, "new (unknown)"},
		{"no word", func(*guest) {}, 1, "the connection to the console was lost"},
		{"half a frame", func(g *guest) { g.sends([]byte{byte(proto.TypeData), 0, 0, 9, 'x'}) }, 1, "was lost"},
		{"unknown frame", func(g *guest) { g.sends([]byte{0xff, 0, 0, 0}) }, 1, "unknown type"},
		{"frame too long", func(g *guest) { g.sends([]byte{byte(proto.TypeData), 0xff, 0xff, 0xff}) }, 1, "too long"},
		{"bad history", func(g *guest) { g.sends(proto.AppendFrame(nil, proto.TypeHistory, []byte("x"))) }, 1, "console web"},
		{"bad viewers", func(g *guest) { g.sends(proto.AppendFrame(nil, proto.TypeViewers, []byte{0xff, 0xff})) }, 1, "console web"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			socket, _ := consoleHost(t, c.plays)
			s := newSeat(t)
			done := s.start(t.Context(), map[string]string{"VMCTL_SOCKET": socket}, "console", "web")
			s.ends(done, c.status)
			s.sees(c.want)
			if strings.Contains(s.text(), "\x1b[2J") {
				t.Errorf("the peer moved the cursor: %q", s.text())
			}
		})
	}
}

func TestConsoleIsRefused(t *testing.T) {
	socket, _ := consoleHost(t, func(g *guest) { g.closes(proto.TokenUsed, "the token was used") }, proto.OK{})
	s := newSeat(t)
	s.ends(s.start(t.Context(), map[string]string{"VMCTL_SOCKET": socket}, "console", "web"), 1)
	s.sees("vmctl: console web: open console: the token was used (tokenUsed)")
}

func TestEveryCloseHasAReason(t *testing.T) {
	for code := proto.TokenUnknown; code <= proto.Protocol; code++ {
		if got := reason(&proto.Close{Code: code}); strings.HasPrefix(got, " ") || !strings.HasSuffix(got, "("+code.String()+")") {
			t.Errorf("code %d gives %q", code, got)
		}
	}
}

func TestKeyboardChangesHands(t *testing.T) {
	viewers := func(mine bool) []byte {
		return proto.AppendViewers(nil, []proto.Viewer{{ID: 3, User: "local:eve\x1b", Writer: !mine}, {ID: 7, User: "unix:0", Writer: mine}})
	}
	socket, _ := consoleHost(t, func(g *guest) {
		g.sends(viewers(false))
		<-g.takes
		g.sends(viewers(true))
		g.waits("mine")
		g.sends(viewers(false))
		g.stays()
	}, proto.OK{Viewer: 7})
	s := newSeat(t)
	done := s.start(t.Context(), map[string]string{"VMCTL_SOCKET": socket}, "console", "web")
	s.sees("connected")
	s.types("lost")
	s.sees("another viewer has the keyboard; Ctrl-] t takes it over")
	s.types("\x1dt")
	s.sees("you have the keyboard")
	s.types("mine")
	s.sees("local:eve\uFFFD has the keyboard")
	s.types("\x1d.")
	s.ends(done, 0)
}

func TestReadOnlyConsole(t *testing.T) {
	socket, stub := consoleHost(t, func(g *guest) {
		g.prints("hi")
		g.stays()
		if len(g.typed) != 0 || len(g.takes) != 0 {
			t.Error("something was typed")
		}
	}, proto.OK{Viewer: 7})
	s := newSeat(t)
	done := s.start(t.Context(), map[string]string{"VMCTL_SOCKET": socket}, "console", "web", "--read-only")
	s.sees("hi")
	s.types("x")
	s.sees("read-only: nothing is typed")
	s.types("\x1dt")
	s.sees("cannot be taken over")
	s.types("\x1dq")
	s.ends(done, 0)
	if !strings.Contains(stub.saw(), `{"mode":"ro"}`) {
		t.Errorf("asked for %s", stub.saw())
	}
}

func TestConsoleInAScript(t *testing.T) {
	echo := func(g *guest) {
		g.sends(proto.AppendHistory(nil, 0, []byte("old: 42\r\n")))
		g.waits("echo $((6*7))\n")
		g.prints("$ echo $((6*7))\r\n")
		g.prints("4")
		g.prints("2\r\n")
		g.stays()
	}
	cases := []struct {
		name   string
		args   string
		in     string
		plays  func(*guest)
		status int
		out    string
		errOut string
	}{
		{"answer", "--no-history --wait-for ^42$ --timeout 10s", "echo $((6*7))\n", echo, 0, "$ echo $((6*7))\r\n42\r\n", ""},
		{"history matches", "--wait-for old", "", func(g *guest) { g.sends(proto.AppendHistory(nil, 0, []byte("old: 42\r\n"))); g.stays() }, 0, "old: 42\r\n", ""},
		{"no match", "--wait-for never --timeout 100ms", "", func(g *guest) { g.prints("x"); g.stays() }, 1, "x", "did not match within 100ms"},
		{"time is over", "--timeout 100ms", "", func(g *guest) { g.prints("x"); g.stays() }, 0, "x", ""},
		{"closed first", "--wait-for never", "", func(g *guest) { g.closes(proto.Shutdown, "off") }, 1, "", "closed before the output matched: off (shutdown)"},
		{"power-off", "", "halt\n", func(g *guest) { g.waits("halt\n"); g.prints("bye"); g.closes(proto.Shutdown, "off") }, 0, "bye", "the console closed: off (shutdown)"},
		{"long input", "--timeout 10s --wait-for done", strings.Repeat("x", 10000), func(g *guest) { g.waits(strings.Repeat("x", 10000)); g.prints("done"); g.stays() }, 0, "done", ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			socket, _ := consoleHost(t, c.plays, proto.OK{Viewer: 7, Writer: true, Offset: 9})
			u := newUser(t, "VMCTL_SOCKET", socket)
			u.in = c.in
			out, errOut, status := u.run(append([]string{"console", "web"}, strings.Fields(c.args)...)...)
			if status != c.status || out != c.out || !strings.Contains(errOut, c.errOut) || c.errOut == "" && errOut != "" {
				t.Errorf("status %d, output %q, error %q", status, out, errOut)
			}
		})
	}
}

func TestScriptsDoNotTypeIntoTheVoid(t *testing.T) {
	socket, _ := consoleHost(t, func(g *guest) { g.stays() }, proto.OK{Viewer: 7})
	u := newUser(t, "VMCTL_SOCKET", socket)
	u.in = "halt\n"
	if _, errOut, status := u.run("console", "web"); status != 1 || !strings.Contains(errOut, "give --take or --read-only") {
		t.Errorf("status %d, %q", status, errOut)
	}
	socket, _ = consoleHost(t, func(g *guest) {
		<-g.takes
		g.sends(proto.AppendViewers(nil, []proto.Viewer{{ID: 7, Writer: true}}))
		g.waits("halt\n")
		g.closes(proto.Shutdown, "off")
	}, proto.OK{Viewer: 7})
	u = newUser(t, "VMCTL_SOCKET", socket)
	u.in = "halt\n"
	if _, errOut, status := u.run("console", "web", "--take"); status != 0 {
		t.Errorf("with --take: status %d, %q", status, errOut)
	}
}

// TestGuestThatTakesNothing: the escape key works while typing is held up.
func TestGuestThatTakesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			t.Error(err)
		} else if _, err := conn.Write(proto.AppendOK(nil, proto.OK{Viewer: 1, Writer: true})); err != nil {
			t.Error(err)
		}
		accepted <- conn // and reads nothing
	}()
	stub := newStub(t)
	stub.token = api.ConsoleToken{Token: consoleToken, Console: "serial0", Socket: path}
	s := newSeat(t)
	done := s.start(t.Context(), map[string]string{"VMCTL_SOCKET": onSocket(t, stub)}, "console", "web")
	s.sees("connected")
	paste := strings.Repeat("x", 4000)
	for range 2000 {
		s.types(paste)
		if strings.Contains(s.text(), "the last keys are lost") {
			break
		}
	}
	s.sees("the last keys are lost")
	s.types("\x1dq")
	s.ends(done, 0)
	(<-accepted).Close()
}

// TestOutputThatNobodyTakes: a pager that reads no more holds a write; a signal
// must end vmctl all the same.
func TestOutputThatNobodyTakes(t *testing.T) {
	socket, _ := consoleHost(t, func(g *guest) {
		for range 100 {
			g.prints(strings.Repeat("x", 4000)) // more than a pipe holds
		}
		g.stays()
	})
	s := newSeat(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	ctx, cancel := context.WithCancel(t.Context())
	p := &program{in: s.tty, out: w, errOut: s.tty, getenv: func(k string) string { return map[string]string{"VMCTL_SOCKET": socket}[k] }, now: time.Now}
	done := make(chan int, 1)
	go func() { done <- p.run(ctx, []string{"console", "web"}) }()
	s.sees("connected")
	cancel()
	s.ends(done, 130)
	r.Close() // lets the held write end
}

// relay passes frames between a guest at one end of a pipe and a WebSocket.
func relay(ctx context.Context, t *testing.T, ws *websocket.Conn, end net.Conn) {
	go func() {
		defer end.Close()
		for {
			_, message, err := ws.Read(ctx)
			if err != nil || len(message) == 0 {
				return
			}
			if _, err := end.Write(proto.AppendFrame(nil, proto.Type(message[0]), message[1:])); err != nil {
				return
			}
		}
	}()
	scan := proto.NewScanner(end, proto.MaxPayload)
	for {
		f, err := scan.Next()
		if err != nil {
			_ = ws.CloseNow()
			return
		}
		if f.Type == proto.TypeClose {
			c, err := proto.ParseClose(f.Payload)
			if err != nil {
				t.Error(err)
			}
			_ = ws.Close(websocket.StatusCode(proto.WebSocketBase+int(c.Code)), c.Text)
			return
		}
		if err := ws.Write(ctx, websocket.MessageBinary, append([]byte{byte(f.Type)}, f.Payload...)); err != nil {
			return
		}
	}
}

func TestConsoleThroughTheFrontDoor(t *testing.T) {
	s := newStub(t)
	s.token = api.ConsoleToken{Token: consoleToken, Console: "serial0"}
	mux := http.NewServeMux()
	mux.Handle("/", s)
	srv, print := onTLS(t, mux)
	mux.HandleFunc("/console/web", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("token") != consoleToken || r.Header.Get("Origin") != srv.URL {
			refuse(w, 403, api.CodeForbidden, "no")
			return
		}
		ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{proto.Subprotocol}})
		if err != nil {
			t.Error(err)
			return
		}
		near, far := net.Pipe()
		g := newGuest(t, near)
		done := make(chan struct{})
		go func() {
			defer close(done)
			g.serve(func(g *guest) {
				g.prints("login: ")
				g.sends(proto.AppendFrame(nil, proto.TypePing, nil))
				g.waits("root\r")
				g.closes(proto.SessionEnded, "you were logged out")
			})
		}()
		relay(r.Context(), t, ws, far)
		far.Close()
		<-done
	})
	env := map[string]string{"HOME": t.TempDir(), "VMCTL_SERVER": srv.URL}
	l := logins{filepath.Join(env["HOME"], ".config/vmctl")}
	if err := l.save(login{Server: srv.URL, Session: doorSecret, Fingerprint: print}); err != nil {
		t.Fatal(err)
	}
	seat := newSeat(t)
	done := seat.start(t.Context(), env, "console", "web")
	seat.sees("login: ")
	seat.types("root\r")
	seat.ends(done, 1)
	seat.sees("the console closed: you were logged out (sessionEnded)")

	s.token.Token = "other"
	seat.ends(seat.start(t.Context(), env, "console", "web"), 5)
	seat.sees("no (forbidden, request r-1)")
}

func TestEscapes(t *testing.T) {
	var e escapes
	feed := func(keys string) (plain string, cmds []command) {
		rest := []byte(keys)
		for len(rest) > 0 {
			var (
				p   []byte
				cmd command
			)
			p, cmd, rest = e.next(rest)
			plain += string(p)
			if cmd != commandNone {
				cmds = append(cmds, cmd)
			}
		}
		return plain, cmds
	}
	cases := []struct {
		keys, plain string
		cmds        []command
	}{
		{"abc", "abc", nil}, {"a\x1dqb", "ab", []command{commandQuit}}, {"\x1d", "", nil}, {".", "", []command{commandQuit}},
		{"\x1d\x1d\x1d\x1d", "\x1d\x1d", nil}, {"\x1dt\x1d?\x1dz", "", []command{commandTake, commandHelp, commandUnknown}}, {"q.", "q.", nil},
	}
	for _, c := range cases {
		plain, cmds := feed(c.keys)
		if plain != c.plain || len(cmds) != len(c.cmds) {
			t.Fatalf("%q gave %q, %v", c.keys, plain, cmds)
		}
		for i := range cmds {
			if cmds[i] != c.cmds[i] {
				t.Errorf("%q gave %v", c.keys, cmds)
			}
		}
	}
}
