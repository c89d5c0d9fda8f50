// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// vmName is the guest that is made.
const vmName = "demo"

// options say what to do on the host.
type options struct {
	bin    string
	kernel string
	port   int
	check  bool
	exec   string
}

// outside starts the lab's machine, waits for the chain in it, and drives it
// from the host through the front door.
func outside(ctx context.Context, o options) (err error) {
	port, err := freePort(o.port)
	if err != nil {
		return err
	}
	m, err := boot(o, port)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.stop()) }()

	var r ready
	if err := step("starting the machine, vmctld and vmhttp", func() error {
		r, err = m.wait(ctx)
		return err
	}); err != nil {
		return err
	}
	url := fmt.Sprintf("https://127.0.0.1:%d", port)
	b, err := newBrowser(url, r.Fingerprint)
	if err != nil {
		return err
	}
	defer b.close()
	if err := step("logging in", func() error { return b.login(ctx, r.User, r.Password) }); err != nil {
		return err
	}
	if err := step("creating the VM "+vmName, func() error { return b.create(ctx, vmName) }); err != nil {
		return err
	}
	switch {
	case o.exec != "":
		return command(ctx, o.exec, url, r)
	case o.check:
		return check(ctx, b, vmName)
	}
	if err := step("powering it on", func() error { return b.verb(ctx, vmName, "powerOn") }); err != nil {
		return err
	}
	fmt.Printf(`
  open      %s/ui/
  login     %s
  password  %s
  certificate, SHA-256
            %s

  curl -k -c /tmp/vmctl.cookies -H 'Content-Type: application/json' \
    -d '{"user":"%s","password":"%s"}' %s/auth/v1/login
  curl -k -b /tmp/vmctl.cookies %s/api/v1/vms

Ctrl-C ends it all.
`, url, r.User, r.Password, r.Fingerprint, r.User, r.Password, url, url)
	select {
	case <-ctx.Done():
	case err = <-m.done:
		m.done <- err
		return fmt.Errorf("the lab's machine ended: %w", err)
	}
	return nil
}

// step prints what is done and how long it took.
func step(what string, do func() error) error {
	fmt.Printf("• %s … ", what)
	start := time.Now()
	if err := do(); err != nil {
		fmt.Println("failed")
		return fmt.Errorf("%s: %w", what, err)
	}
	fmt.Printf("done (%.1f s)\n", time.Since(start).Seconds())
	return nil
}

// command runs a program against the chain, as the browser test does.
func command(ctx context.Context, line, url string, r ready) error {
	cmd := exec.CommandContext(ctx, "sh", "-c", line)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "VMCTL_URL="+url, "VMCTL_USER="+r.User,
		"VMCTL_PASSWORD="+r.Password, "VMCTL_FINGERPRINT="+r.Fingerprint, "VMCTL_VM="+vmName)
	return cmd.Run()
}

// freePort gives the wished port of the loopback interface, or any free one.
func freePort(wish int) (int, error) {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(wish)))
	if err != nil {
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return 0, err
		}
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// machine is a running `lab exec`.
type machine struct {
	cmd  *exec.Cmd
	out  io.Reader
	log  *os.File
	done chan error
}

// boot starts the machine in a process group of its own, so that Ctrl-C
// reaches it through stop alone.
func boot(o options, port int) (*machine, error) {
	root := filepath.Dir(filepath.Dir(o.bin))
	name := "run.log"
	if o.exec != "" {
		name = "run-exec.log" // a test's chain may stand beside another
	}
	log, err := os.Create(filepath.Join(root, "build", name))
	if err != nil {
		return nil, err
	}
	// One processor: where two interrupt each other, QEMU's emulation of SVM gets a
	// guest's registers wrong once in some twenty boots, and the guest hangs.
	cmd := exec.Command(filepath.Join(o.bin, "lab"), "exec", "--kernel", o.kernel, "--cpus", "1", "--memory", "4G", "--timeout", "0",
		"--forward", fmt.Sprintf("%d:8443", port), "--",
		filepath.Join(o.bin, "run"), "--inside", filepath.Join(root, "build", "guest"))
	cmd.Dir = root
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	return &machine{cmd, out, log, make(chan error, 1)}, nil
}

// wait reads the ready line; afterwards m.done tells of the machine's end.
func (m *machine) wait(ctx context.Context) (ready, error) {
	type result struct {
		r   ready
		err error
	}
	got := make(chan result, 1)
	go func() {
		var r ready
		in := bufio.NewReader(io.LimitReader(m.out, 1<<20))
		line, err := in.ReadBytes('\n')
		if err == nil {
			err = json.Unmarshal(line, &r)
		}
		got <- result{r, err}
		_, cerr := io.Copy(io.Discard, in)
		m.done <- errors.Join(cerr, m.cmd.Wait())
	}()
	select {
	case <-ctx.Done():
		return ready{}, ctx.Err()
	case g := <-got:
		if g.err != nil {
			return g.r, fmt.Errorf("the machine did not come up (%s has its words): %w", m.log.Name(), g.err)
		}
		return g.r, nil
	}
}

// stop ends the machine and waits until nothing of it is left.
func (m *machine) stop() error {
	fmt.Println("• stopping the machine")
	if err := m.cmd.Process.Signal(syscall.SIGINT); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-m.done:
	case <-time.After(30 * time.Second):
		return errors.Join(errors.New("the machine did not end in 30 s"), m.cmd.Process.Kill())
	}
	return m.log.Close()
}
