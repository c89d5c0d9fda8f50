// SPDX-License-Identifier: Apache-2.0

package vsock

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxStrangers is how many may be connected at a time that did not say hello yet,
	// and helloTime how long each has for that.
	maxStrangers = 16
	helloTime    = 5 * time.Second
	// retryTime is how long the device rests when the host has no descriptor for one
	// more connection.
	retryTime = 100 * time.Millisecond

	hello     = "CONNECT "
	helloSize = len(hello) + len("4294967295\n")
	anyPort   = 1<<32 - 1 // is no port

	// maxAsks is how many requests of the guest's the daemon has at a time.
	maxAsks = 16
)

var errHello = errors.New("no CONNECT and a port")

// accept takes those who connect to the VM's socket.
func (d *Device) accept() {
	for {
		fd, err := d.listener.Accept()
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			select {
			case <-d.closed:
				return
			case <-time.After(retryTime):
				continue
			}
		}
		file := os.NewFile(uintptr(fd), "vsock")
		d.mu.Lock()
		full := d.closing || len(d.strangers) >= maxStrangers
		if !full {
			d.strangers[file] = true
			d.hosts.Go(func() { d.greet(file) })
		}
		d.mu.Unlock()
		if full {
			file.Close()
		}
	}
}

// greet hears which port somebody wants.
func (d *Device) greet(file *os.File) {
	port, err := readHello(file)
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.strangers, file)
	if err != nil || !d.started || len(d.conns) >= MaxConnections {
		file.Close()
		return
	}
	c := &conn{ports: ports{d.freePort(port), port}, state: requested, owes: oweRequest, file: file}
	d.conns[c.ports] = c
	d.expire(c, openTime)
	d.mark(c)
}

// readHello reads the line that is to come first, and not a byte of what follows.
func readHello(file *os.File) (port uint32, err error) {
	if err := file.SetDeadline(time.Now().Add(helloTime)); err != nil {
		return 0, err
	}
	var line [helloSize]byte
	for n := range line {
		if _, err := file.Read(line[n : n+1]); err != nil {
			return 0, err
		}
		if line[n] != '\n' {
			continue
		}
		digits, ok := strings.CutPrefix(string(line[:n]), hello)
		number, err := strconv.ParseUint(digits, 10, 32)
		if !ok || err != nil || number == anyPort {
			return 0, errHello
		}
		return uint32(number), file.SetDeadline(time.Time{})
	}
	return 0, errHello
}

// accepted tells the host that the guest took the connection.
func (d *Device) accepted(c *conn) bool {
	c.timer.Stop()
	if d.join(c, c.file) != nil {
		return false
	}
	ok := "OK " + strconv.FormatUint(uint64(c.host), 10) + "\n"
	n, err := send(c.raw, [][]byte{[]byte(ok)}, false)
	return err == nil && n == len(ok) // it is the first that is sent: there is room
}

// ask is a connection that the daemon was asked for.
type ask struct {
	conn  *conn // it may be over meanwhile
	timer *time.Timer
}

// askMore asks the daemon for connections that wait, as many as it is to have at a
// time.
func (d *Device) askMore() {
	for len(d.waiting) > 0 && len(d.asks) < maxAsks {
		c := d.waiting[0]
		d.waiting = d.waiting[1:]
		d.lastAsk++
		id := d.lastAsk
		if !d.dial(id, c.host) {
			d.die(c)
			continue
		}
		d.asks[id] = &ask{conn: c, timer: time.AfterFunc(openTime, func() { d.answer(id, nil) })}
	}
}

// Dialed is the answer to a request for a connection: a stream socket that is
// connected, which it takes over, or a negative number if there is none.
func (d *Device) Dialed(id uint32, fd int) {
	if fd < 0 {
		d.answer(id, nil)
		return
	}
	if err := unix.SetNonblock(fd, true); err != nil { // os.NewFile looks whether it is
		unix.Close(fd)
		d.answer(id, nil)
		return
	}
	d.answer(id, os.NewFile(uintptr(fd), "vsock"))
}

// answer gives a connection its socket, or ends it without one.
func (d *Device) answer(id uint32, file *os.File) {
	d.mu.Lock()
	defer d.mu.Unlock()
	a := d.asks[id]
	if a != nil {
		a.timer.Stop()
		delete(d.asks, id)
		d.askMore()
	}
	switch {
	case a == nil || a.conn.over(): // too late
		if file != nil {
			file.Close()
		}
	case file == nil:
		d.die(a.conn)
	case d.join(a.conn, file) != nil:
		file.Close()
		d.die(a.conn)
	default:
		a.conn.owes |= oweResponse
		d.mark(a.conn)
	}
}
