// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/tools/lab/klog"
	"vmctl/tools/lab/wire"
)

// Bounds of what the machine may take, beside the command itself.
const (
	bootTime  = 2 * time.Minute  // to the agent's hello, on a busy host
	endTime   = 5 * time.Second  // to the last line of the log, after the result
	graceTime = 30 * time.Second // to the result, after the kernel has broken
	nudgeTime = time.Second
	tailLines = 40
)

// session is one machine's life: it starts QEMU, gives the agent the command,
// passes the streams on, reads the kernel's log, and judges.
type session struct {
	lab     *lab
	command wire.Command
	stdin   io.Reader
	stdout  io.Writer
	stderr  io.Writer
	resize  <-chan wire.Size
	timeout time.Duration // of the command; 0 is none
	dmesg   string        // file to keep the kernel's log in

	qemu   *exec.Cmd
	said   bytes.Buffer // QEMU's own words
	port   *os.File
	out    *wire.Writer
	nudges bool
	hello  chan struct{}
	answer chan answer
	log    kernelLog
}

// answer is how the talk with the agent ended.
type answer struct {
	result wire.Result
	err    error
}

// run boots the machine and returns the exit code of the lab.
func (s *session) run(ctx context.Context, m *machine, mod *module) (int, error) {
	initrd, err := machineInitrd(m.starter, mod)
	if err != nil {
		return exitLab, err
	}
	defer initrd.Close()
	s.hello, s.answer = make(chan struct{}), make(chan answer, 1)
	s.nudges = !m.icount // there each instruction counts
	s.log.init()
	if err := s.start(m, initrd); err != nil {
		return exitLab, err
	}
	go func() { s.answer <- s.talk() }()
	result, err := s.wait(ctx)
	s.stop()
	return s.judge(result, err)
}

// start runs QEMU with our ends of its two sockets.
func (s *session) start(m *machine, initrd *os.File) error {
	logOurs, logTheirs, err := socketPair("log")
	if err != nil {
		return err
	}
	defer logTheirs.Close()
	portOurs, portTheirs, err := socketPair("port")
	if err != nil {
		logOurs.Close()
		return err
	}
	defer portTheirs.Close()
	words := append(m.tree.program("usr/bin/qemu-system-x86_64", "qemu-system-x86_64"), m.arguments()...)
	s.qemu = exec.Command(words[0], words[1:]...)
	s.qemu.Env = append(os.Environ(), "QEMU_MODULE_DIR="+m.tree.dir+"/usr/lib/x86_64-linux-gnu/qemu")
	s.qemu.ExtraFiles = []*os.File{initrd, logTheirs, portTheirs}
	s.qemu.Stdout, s.qemu.Stderr = &s.said, &s.said
	// Its own group, so that a terminal's Ctrl-C comes to the lab alone; killed
	// by the kernel if the lab dies without a chance to do it.
	s.qemu.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	asOwnRoot(s.qemu.SysProcAttr)
	if err := s.qemu.Start(); err != nil {
		logOurs.Close()
		portOurs.Close()
		return fmt.Errorf("start qemu: %w", err)
	}
	s.port, s.out = portOurs, wire.NewWriter(portOurs)
	s.log.read(logOurs)
	return nil
}

func socketPair(name string) (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socket of the %s: %w", name, err)
	}
	unix.SetNonblock(fds[0], true) // so that closing it ends a read
	return os.NewFile(uintptr(fds[0]), name), os.NewFile(uintptr(fds[1]), name), nil
}

// talk reads the agent's frames to the last one.
func (s *session) talk() answer {
	for {
		kind, payload, err := wire.Read(s.port)
		if err != nil {
			return answer{err: fmt.Errorf("the machine went away: %w", err)}
		}
		switch kind {
		case wire.Hello:
			close(s.hello)
			if err := s.out.SendJSON(wire.Start, s.command); err != nil {
				return answer{err: err}
			}
			go s.feed()
		case wire.Stdout:
			_, err = s.stdout.Write(payload)
		case wire.Stderr:
			_, err = s.stderr.Write(payload)
		case wire.Done:
			var r wire.Result
			err = json.Unmarshal(payload, &r)
			return answer{r, err}
		default:
			err = fmt.Errorf("unknown frame %q from the machine", kind)
		}
		if err != nil {
			return answer{err: err}
		}
	}
}

// feed passes our input on. A read of it cannot be broken off: it ends with the
// input or with this program.
func (s *session) feed() {
	if s.nudges {
		go s.nudge()
	}
	if s.resize != nil {
		go func() {
			for size := range s.resize {
				s.out.SendJSON(wire.Resize, size)
			}
		}()
	}
	if s.stdin != nil {
		io.Copy(s.out.Stream(wire.Stdin), s.stdin)
	}
	s.out.Send(wire.Stdin, nil)
}

// nudge interrupts the machine now and then, as long as its port is open. QEMU's
// emulation of SVM may lose the interrupt of a timer that comes while a guest is
// entered; a machine with one processor would stand still until there is another.
func (s *session) nudge() {
	for s.out.Send(wire.Nudge, nil) == nil {
		time.Sleep(nudgeTime)
	}
}

// wait lets the machine run to its result or to a bound.
func (s *session) wait(ctx context.Context) (wire.Result, error) {
	limit := time.NewTimer(bootTime)
	defer limit.Stop()
	hello, broken := s.hello, s.log.broken
	late := error(errBoot)
	for {
		select {
		case a := <-s.answer:
			if a.err == nil {
				s.log.waitEnd(endTime)
			}
			return a.result, a.err
		case <-hello:
			hello, late = nil, errTimeout
			if s.timeout > 0 {
				limit.Reset(s.timeout)
			} else {
				limit.Stop()
			}
		case <-broken:
			broken, late = nil, errBroken
			limit.Reset(graceTime)
		case <-limit.C:
			return wire.Result{}, late
		case <-ctx.Done():
			return wire.Result{}, context.Cause(ctx)
		}
	}
}

// stop ends QEMU, and with it every reader of its sockets.
func (s *session) stop() {
	s.qemu.Process.Kill()
	s.qemu.Wait()
	s.log.wait()
	s.port.Close()
}

// Why a session ended without a result.
var (
	errBoot    = fmt.Errorf("the machine did not come up within %v", bootTime)
	errTimeout = errors.New("the command took longer than --timeout allows")
	errBroken  = fmt.Errorf("the machine gave no result within %v after its kernel broke", graceTime)
)

// judge makes the exit code of what happened, and says why it is not the
// command's own.
func (s *session) judge(r wire.Result, err error) (int, error) {
	log := s.log.scanner
	if s.dmesg != "" {
		if err := os.WriteFile(s.dmesg, log.Log(), 0o644); err != nil {
			return exitLab, fmt.Errorf("keep the kernel log: %w", err)
		}
	}
	var stopped stopError
	switch {
	case errors.As(err, &stopped):
		return stopped.code, nil
	case len(log.Complaints()) > 0 || r.Leak != "":
		s.report(log.Complaints(), r.Leak)
		return exitKernel, nil
	case err == nil && r.Error == "":
		return r.Status, nil
	case err == nil && r.Status == 0:
		return exitLab, errors.New(r.Error)
	case err == nil:
		return r.Status, errors.New(r.Error)
	}
	s.showTail(log)
	if errors.Is(err, errTimeout) {
		return exitTimeout, fmt.Errorf("%w: %v", err, s.timeout)
	}
	if why := s.lastWords(log); why != "" {
		return exitLab, fmt.Errorf("%w: %s", err, why)
	}
	return exitLab, err
}

// showTail shows the log's end, if there is any.
func (s *session) showTail(log *klog.Scanner) {
	if len(log.Log()) == 0 {
		return
	}
	for _, line := range log.Tail(tailLines) {
		fmt.Fprintf(s.lab.out.w, "  | %s\n", line)
	}
}

// lastWords is what QEMU or the agent said before they went.
func (s *session) lastWords(log *klog.Scanner) string {
	if why := whyLine(s.said.String()); why != "" {
		return "qemu: " + why
	}
	var why string
	for _, line := range log.Tail(tailLines) {
		if _, text, ok := strings.Cut(line, "] lab: "); ok {
			why = strings.TrimSpace(text)
		}
	}
	return why
}

func (s *session) report(list []klog.Complaint, leak string) {
	for _, c := range list {
		s.lab.out.say("the kernel complained: %s", c.Kind)
		for _, line := range c.Trace {
			fmt.Fprintf(s.lab.out.w, "  | %s\n", line)
		}
	}
	if leak != "" {
		s.lab.out.say("left behind: %s", leak)
	}
}

// kernelLog reads and scans the log beside the session.
type kernelLog struct {
	scanner *klog.Scanner
	broken  chan struct{} // closed when the machine may not answer any more
	ended   chan struct{} // closed at the end mark
	done    chan struct{} // closed when there is no more log
}

func (k *kernelLog) init() {
	k.scanner = klog.NewScanner(wire.MarkBegin, wire.MarkEnd)
	k.broken, k.ended, k.done = make(chan struct{}), make(chan struct{}), make(chan struct{})
}

func (k *kernelLog) read(f *os.File) {
	go func() {
		defer close(k.done)
		defer f.Close()
		buf := make([]byte, 16<<10)
		for {
			n, err := f.Read(buf)
			if err != nil {
				return
			}
			k.take(buf[:n])
		}
	}()
}

func (k *kernelLog) take(p []byte) {
	k.scanner.Write(p)
	if k.scanner.Ended() && !closed(k.ended) {
		close(k.ended)
	}
	for _, c := range k.scanner.Complaints() {
		if c.Fatal && !closed(k.broken) {
			close(k.broken)
		}
	}
}

func closed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (k *kernelLog) waitEnd(limit time.Duration) {
	select {
	case <-k.ended:
	case <-k.done:
	case <-time.After(limit):
	}
}

// wait returns when the log was read to its end; only then may it be judged.
func (k *kernelLog) wait() { <-k.done }
