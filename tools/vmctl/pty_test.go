// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/term"
)

// seat is a terminal with somebody in front of it.
type seat struct {
	t      *testing.T
	ptm    *os.File // the person's side
	tty    *os.File // the program's side
	before *term.State

	mu   sync.Mutex
	seen bytes.Buffer
	more chan struct{} // has an entry when something came
}

func newSeat(t *testing.T) *seat {
	t.Helper()
	ptm, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	if err := pty.Setsize(tty, &pty.Winsize{Cols: 80, Rows: 24}); err != nil {
		t.Fatal(err)
	}
	before, err := term.GetState(int(tty.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	s := &seat{t: t, ptm: ptm, tty: tty, before: before, more: make(chan struct{}, 1)}
	read := make(chan struct{})
	go func() { defer close(read); s.read() }()
	t.Cleanup(func() { tty.Close(); ptm.Close(); <-read })
	return s
}

func (s *seat) read() {
	buf := make([]byte, 4096)
	for {
		n, err := s.ptm.Read(buf)
		s.mu.Lock()
		s.seen.Write(buf[:n])
		s.mu.Unlock()
		select {
		case s.more <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

func (s *seat) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen.String()
}

// sees waits until a text is on the screen.
func (s *seat) sees(want string) {
	s.t.Helper()
	for limit := time.After(10 * time.Second); !strings.Contains(s.text(), want); {
		select {
		case <-s.more:
		case <-limit:
			s.t.Fatalf("%q is not on the screen:\n%q", want, s.text())
		}
	}
}

func (s *seat) types(keys string) {
	s.t.Helper()
	if _, err := io.WriteString(s.ptm, keys); err != nil {
		s.t.Fatal(err)
	}
}

// restored checks that the terminal is as it was.
func (s *seat) restored() {
	s.t.Helper()
	now, err := term.GetState(int(s.tty.Fd()))
	if err != nil {
		s.t.Fatal(err)
	}
	if !reflect.DeepEqual(now, s.before) {
		s.t.Error("the terminal is in another mode than before")
	}
}

// start runs a command at the seat; its status comes on the channel.
func (s *seat) start(ctx context.Context, env map[string]string, args ...string) <-chan int {
	p := &program{in: s.tty, out: s.tty, errOut: s.tty, getenv: func(k string) string { return env[k] }, now: func() time.Time { return epoch }}
	done := make(chan int, 1)
	go func() { done <- p.run(ctx, args) }()
	return done
}

// ends waits for a command's status and checks the terminal after it.
func (s *seat) ends(done <-chan int, want int) {
	s.t.Helper()
	select {
	case status := <-done:
		if status != want {
			s.t.Errorf("status %d, want %d; screen:\n%q", status, want, s.text())
		}
	case <-time.After(10 * time.Second):
		s.t.Fatalf("it does not end; screen:\n%q", s.text())
	}
	s.restored()
}

func TestLoginAtATerminal(t *testing.T) {
	srv, print := onTLS(t, &door{stub: newStub(t)})
	env := map[string]string{"HOME": t.TempDir(), "VMCTL_SERVER": srv.URL}
	s := newSeat(t)
	done := s.start(t.Context(), env, "login")
	s.sees("Is it the same? [yes/no] ")
	screen := strings.NewReplacer(":", "", "\r\n  ", "").Replace(s.text())
	if !strings.Contains(strings.ToLower(screen), print) {
		t.Errorf("the fingerprint %s is not shown: %q", print, s.text())
	}
	s.types("yes\n")
	s.sees("User: ")
	s.types("admin\n")
	s.sees("Password of admin: ")
	s.types("pass word\n")
	s.ends(done, 0)
	s.sees("logged in at " + srv.URL)
	if strings.Contains(s.text(), "pass word") {
		t.Errorf("the password is on the screen: %q", s.text())
	}
	s.ends(s.start(t.Context(), env, "vm", "show", "web"), 0)
}

func TestCertificateIsNotConfirmed(t *testing.T) {
	srv, _ := onTLS(t, &door{stub: newStub(t)})
	s := newSeat(t)
	done := s.start(t.Context(), map[string]string{"HOME": t.TempDir(), "VMCTL_SERVER": srv.URL}, "login", "-u", "admin")
	s.sees("[yes/no] ")
	s.types("y\n")
	s.ends(done, 1)
	s.sees("was not confirmed; nothing was sent")
}

func TestPasswordPromptIsInterrupted(t *testing.T) {
	srv, print := onTLS(t, &door{stub: newStub(t)})
	s := newSeat(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := s.start(ctx, map[string]string{"HOME": t.TempDir(), "VMCTL_SERVER": srv.URL}, "login", "-u", "admin", "--fingerprint", print)
	s.sees("Password of admin: ")
	s.types("half a pass")
	cancel()
	s.ends(done, 130)
}

// TestSignalsRestoreTheTerminal runs vmctl as a process of its own at the
// terminal and ends it in each way that a process can answer to.
func TestSignalsRestoreTheTerminal(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT} {
		t.Run(signal.String(), func(t *testing.T) {
			socket, _ := consoleHost(t, func(c *guest) { c.prints("login: "); c.stays() })
			s := newSeat(t)
			cmd := exec.Command(os.Args[0], "console", "web")
			cmd.Env = []string{"VMCTL_TEST_MAIN=1", "VMCTL_SOCKET=" + socket, "HOME=" + t.TempDir(), "GORACE=atexit_sleep_ms=0"}
			cmd.Stdin, cmd.Stdout, cmd.Stderr = s.tty, s.tty, s.tty
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			s.sees("login: ")
			if err := cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			err := cmd.Wait()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != statusInterrupted {
				t.Errorf("ended with %v", err)
			}
			s.restored()
		})
	}
}
