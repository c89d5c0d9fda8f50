// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"

	"vmctl/tools/lab/wire"
)

// execute runs the command to its end, with its input and output on the port.
func execute(c wire.Command, port io.Reader, w *wire.Writer) wire.Result {
	if len(c.Argv) == 0 {
		return wire.Result{Error: "no command"}
	}
	os.Clearenv()
	for _, e := range c.Env {
		if name, value, ok := cutEnv(e); ok {
			os.Setenv(name, value)
		}
	}
	cmd := exec.Command(c.Argv[0], c.Argv[1:]...)
	cmd.Dir = c.Dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if c.TTY {
		return onTerminal(cmd, c.Size, port, w)
	}
	return onPipes(cmd, port, w)
}

func cutEnv(s string) (name, value string, ok bool) {
	for i := range len(s) {
		if s[i] == '=' {
			return s[:i], s[i+1:], i > 0
		}
	}
	return "", "", false
}

func onPipes(cmd *exec.Cmd, port io.Reader, w *wire.Writer) wire.Result {
	var ends [3][2]*os.File
	for i := range ends {
		r, wr, err := os.Pipe()
		if err != nil {
			return wire.Result{Error: err.Error()}
		}
		ends[i] = [2]*os.File{r, wr}
	}
	in, out, errs := ends[0], ends[1], ends[2]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in[0], out[1], errs[1]
	err := cmd.Start()
	in[0].Close()
	out[1].Close()
	errs[1].Close()
	if err != nil {
		return notStarted(err)
	}
	// Ends with the machine: the port has no end of its own.
	go feed(port, in[1], nil)
	return finish(cmd,
		pump(w.Stream(wire.Stdout), out[0]),
		pump(w.Stream(wire.Stderr), errs[0]))
}

func onTerminal(cmd *exec.Cmd, size wire.Size, port io.Reader, w *wire.Writer) wire.Result {
	master, slave, err := openTerminal(size)
	if err != nil {
		return wire.Result{Error: err.Error()}
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr.Setctty = true
	err = cmd.Start()
	slave.Close()
	if err != nil {
		return notStarted(err)
	}
	go feed(port, master, master)
	return finish(cmd, pump(w.Stream(wire.Stdout), master))
}

// pump copies until nobody holds the other end; a terminal says EIO then.
func pump(w io.Writer, r io.Reader) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		io.Copy(w, r)
	}()
	return done
}

// finish waits for the command, ends all that it left behind, and with that
// also its output.
func finish(cmd *exec.Cmd, outputs ...<-chan struct{}) wire.Result {
	res := wire.Result{Status: reap(cmd.Process.Pid)}
	if res.Leak = killAll(); res.Leak != "" {
		return res
	}
	for _, o := range outputs {
		<-o
	}
	return res
}

// feed passes input frames on. tty is nil where there is no terminal to resize.
func feed(port io.Reader, in io.WriteCloser, tty *os.File) {
	for {
		kind, payload, err := wire.Read(port)
		if err != nil {
			return
		}
		switch {
		case kind == wire.Stdin && len(payload) == 0 && tty == nil:
			in.Close()
		case kind == wire.Stdin:
			in.Write(payload) // a command that does not read is none of ours
		case kind == wire.Resize && tty != nil:
			var s wire.Size
			if json.Unmarshal(payload, &s) == nil {
				setSize(tty, s)
			}
		}
	}
}

func openTerminal(size wire.Size) (master, slave *os.File, err error) {
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		master.Close()
		return nil, nil, fmt.Errorf("terminal: %w", err)
	}
	setSize(master, size)
	return master, slave, nil
}

func setSize(tty *os.File, s wire.Size) {
	ws := &unix.Winsize{Row: s.Rows, Col: s.Cols}
	unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, ws)
}

// notStarted answers as a shell does: 127 for what is not there, 126 would be
// ours, so everything else is an error of the lab's user.
func notStarted(err error) wire.Result {
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		return wire.Result{Status: 127, Error: err.Error()}
	}
	return wire.Result{Status: 1, Error: err.Error()}
}
