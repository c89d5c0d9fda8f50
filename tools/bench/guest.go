// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"vmctl/tools/lab/cpio"
)

// prompt is that of the shell of the lab's nested guest.
const prompt = "guest# "

// loader is where the guest has the program of tools/bench/load.
const loader = "/load"

// guest is a guest at its shell, under one monitor or the other.
type guest struct {
	name string
	pid  int       // of its monitor
	out  io.Reader // its serial line
	in   io.Writer
	end  func() error
}

// pump reads a serial line all the time: a console closes on who does not answer it.
type pump struct {
	chunks chan []byte
	rest   []byte
	err    error // why it ended, once chunks is closed
}

func newPump(line io.Reader) *pump {
	p := &pump{chunks: make(chan []byte, 256)}
	go func() {
		defer close(p.chunks)
		for {
			buf := make([]byte, 4096)
			n, err := line.Read(buf)
			if n > 0 {
				p.chunks <- buf[:n]
			}
			if err != nil {
				p.err = err
				return
			}
		}
	}()
	return p
}

// Read returns what came.
func (p *pump) Read(b []byte) (int, error) {
	if len(p.rest) == 0 {
		chunk, ok := <-p.chunks
		if !ok {
			return 0, p.err
		}
		p.rest = chunk
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// drain returns when the line has ended.
func (p *pump) drain() {
	for range p.chunks {
	}
}

// withLoader writes an initramfs to a folder that has a program beside all else.
func withLoader(initrd, program, dir string) (string, error) {
	b, err := os.ReadFile(initrd)
	if err != nil {
		return "", err
	}
	load, err := os.ReadFile(program)
	if err != nil {
		return "", err
	}
	out := bytes.NewBuffer(b)
	w := cpio.NewWriter(out)
	if err := errors.Join(w.File(loader[1:], 0o755, load), w.Close()); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "initrd")
	return path, os.WriteFile(path, out.Bytes(), 0o600)
}

// guestOfVMX boots a guest under vmx, as far as its shell.
func guestOfVMX(ctx context.Context, program string, img images) (*guest, error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return nil, err
	}
	m, err := startVMX(program, dir)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	line, err := m.console(ctx) // before power-on
	if err != nil {
		return nil, errors.Join(fmt.Errorf("console: %w", err), m.end(), os.RemoveAll(dir))
	}
	p := newPump(line)
	g := &guest{name: "vmx", pid: m.process.Pid, out: p, in: line}
	g.end = func() error {
		err := line.Close()
		p.drain()
		return errors.Join(err, m.end(), os.RemoveAll(dir))
	}
	err = m.powerOn(ctx, img)
	if err == nil {
		err = waitMarker(p, prompt)
	}
	if err != nil {
		return nil, errors.Join(err, g.end())
	}
	return g, nil
}

// guestOfQEMU boots a guest under QEMU, as far as its shell.
func guestOfQEMU(ctx context.Context, m peer, img images) (*guest, error) {
	q, err := startQEMU(ctx, m, img)
	if err != nil {
		return nil, err
	}
	var complaint string
	p := newPump(q.out)
	g := &guest{name: m.name, pid: q.cmd.Process.Pid, out: p, in: q.in}
	g.end = func() error {
		q.stop()
		p.drain()
		complaint = q.end()
		return nil
	}
	if err := waitMarker(p, prompt); err != nil {
		return nil, errors.Join(err, g.end(), errors.New(complaint))
	}
	return g, nil
}

// run types a command and returns what it prints.
func (g *guest) run(command string) (string, error) {
	// The marks are not in the echo of the line in this form.
	const begin, end = "begin\r\n", "end\r\n"
	if _, err := io.WriteString(g.in, "echo be''gin; "+command+" 2>&1; echo en''d\n"); err != nil {
		return "", err
	}
	var text []byte
	buf := make([]byte, 4096)
	for {
		n, err := g.out.Read(buf)
		text = append(text, buf[:n]...)
		if _, after, ok := bytes.Cut(text, []byte(begin)); ok {
			if said, _, ok := bytes.Cut(after, []byte(end)); ok {
				return strings.TrimSpace(strings.ReplaceAll(string(said), "\r\n", "\n")), nil
			}
		}
		if err != nil {
			return "", fmt.Errorf("%s: %s: %w\n%s", g.name, command, err, tail(string(text), 15))
		}
	}
}

// load runs the loader and returns the nanoseconds that each operation took.
func (g *guest) load(arguments string) (float64, error) {
	said, err := g.run(loader + " " + arguments)
	if err != nil {
		return 0, err
	}
	count, took, _ := strings.Cut(said, " ")
	n, err1 := strconv.ParseUint(count, 10, 64)
	ns, err2 := strconv.ParseUint(took, 10, 64)
	if err1 != nil || err2 != nil || n == 0 || ns == 0 {
		return 0, fmt.Errorf("%s: load %s: %s", g.name, arguments, said)
	}
	return float64(ns) / float64(n), nil
}
