// SPDX-License-Identifier: Apache-2.0

package vsock

import (
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ports are what tells the connections of a guest apart.
type ports struct{ host, guest uint32 }

type state uint8

const (
	asked     state = iota // the guest wants it, and the host was asked
	requested              // the host wants it, and the guest was asked
	open
	dying // the guest is owed a reset, and then it is gone
	gone
)

// What a connection has to tell the guest.
const (
	oweRequest = 1 << iota
	oweResponse
	oweReset
	oweCredit
	oweAsk // for the guest's credit
)

// conn is one connection. The device's lock guards it.
type conn struct {
	ports
	state state
	file  *os.File // the host's end; nil as long as there is none
	raw   syscall.RawConn
	timer *time.Timer // resets it when it is not stopped before

	owes   int
	inLine bool

	// From the guest. All counts are of bytes since the beginning, as they travel.
	got       uint32
	forwarded uint32 // to the host
	told      uint32 // of those, as far as the guest knows
	buffer    []byte // what the host did not take yet
	draining  bool   // a goroutine hands that on
	guestShut uint32 // what the guest shut down

	// To the guest.
	sent           uint32
	guestBuffer    uint32 // as the guest says
	guestForwarded uint32 // likewise
	readable       bool   // the host may have something
	askedCredit    bool   // since the guest gave some
	hostShut       uint32 // what the host shut down
	toldShut       uint32 // of that, what the guest was told
}

func (c *conn) over() bool { return c.state >= dying }

// credit is how many bytes the guest takes. What it says may be anything.
func (c *conn) credit() int {
	under := c.sent - c.guestForwarded
	if under >= c.guestBuffer {
		return 0
	}
	return int(min(c.guestBuffer-under, bufferSize))
}

// wants reports whether what the host has is for the guest.
func (c *conn) wants() bool {
	return c.state == open && c.readable && c.guestShut&shutReceive == 0
}

// busy reports whether there is a packet to send.
func (c *conn) busy() bool {
	return c.owes != 0 || c.hostShut != c.toldShut || c.wants() && (c.credit() > 0 || !c.askedCredit)
}

// mark puts a connection in line if it has something for the guest.
func (d *Device) mark(c *conn) {
	if c.inLine || !c.busy() || c.state == gone {
		return
	}
	c.inLine = true
	d.line = append(d.line, c)
	signal(d.wake)
}

// die ends a connection by a reset.
func (d *Device) die(c *conn) {
	if c.over() {
		return
	}
	d.release(c)
	c.state, c.owes, c.hostShut = dying, oweReset, c.toldShut
	d.mark(c)
}

// release gives up all that a connection holds.
func (d *Device) release(c *conn) {
	if c.file != nil {
		c.file.Close() // all that could fail failed before
	}
	if c.timer != nil {
		c.timer.Stop()
	}
	c.buffer = nil
	if i := slices.Index(d.waiting, c); i >= 0 {
		d.waiting = slices.Delete(d.waiting, i, i+1)
	}
}

// remove forgets a connection.
func (d *Device) remove(c *conn) {
	if c.state == gone {
		return
	}
	d.release(c)
	c.state = gone
	if i := slices.Index(d.line, c); i >= 0 {
		d.line = slices.Delete(d.line, i, i+1)
	}
	delete(d.conns, c.ports)
	if len(d.conns) == 0 {
		d.idle()
	}
}

// expire ends a connection some time from now.
func (d *Device) expire(c *conn, after time.Duration) {
	c.timer = time.AfterFunc(after, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.die(c)
	})
}

// join gives a connection its socket, and begins to move data.
func (d *Device) join(c *conn, file *os.File) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	c.file, c.raw, c.state, c.readable = file, raw, open, true
	return nil
}

// creditLow tells the guest of room in the buffer, when it knows of little.
func (d *Device) creditLow(c *conn) {
	if c.forwarded-c.told >= bufferSize/2 {
		c.owes |= oweCredit
		d.mark(c)
	}
}

// hostLeft is when the host takes nothing any more. What it sent before is still
// for the guest.
func (d *Device) hostLeft(c *conn) {
	c.forwarded, c.buffer = c.got, nil
	c.hostShut |= shutReceive
	d.creditLow(c)
	d.mark(c)
}

// finish shuts down towards the host what the guest shut down, when the host has
// all that came before.
func (d *Device) finish(c *conn) {
	switch {
	case len(c.buffer) > 0 || c.draining:
	case c.guestShut == shutBoth:
		d.die(c)
	case c.guestShut&shutSend != 0:
		c.shutdown(unix.SHUT_WR)
	}
}

// shutdown fails for a socket that has no peer any more, and then there is nothing
// to shut down.
func (c *conn) shutdown(how int) {
	_ = c.raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), how) })
}

// drain hands on what the host did not take at once.
func (d *Device) drain(c *conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for !c.over() && len(c.buffer) > 0 {
		piece := c.buffer
		d.mu.Unlock()
		n, err := send(c.raw, [][]byte{piece}, true)
		d.mu.Lock()
		switch {
		case c.over(), c.hostShut&shutReceive != 0: // and there is no buffer any more
		case err != nil:
			d.hostLeft(c)
		default:
			c.forwarded += uint32(n)
			if c.buffer = c.buffer[n:]; len(c.buffer) == 0 {
				c.buffer = nil // and its array
			}
			d.creditLow(c)
		}
	}
	c.draining = false
	if !c.over() {
		d.finish(c)
	}
}

// watch waits until there is something to read.
func (d *Device) watch(c *conn) {
	c.readable = false
	d.work.Go(func() {
		// The look comes after the runtime began to listen for news: what came
		// before that would not be told.
		err := c.raw.Read(func(fd uintptr) bool {
			return peek(int(fd)) != unix.EAGAIN
		})
		d.mu.Lock()
		defer d.mu.Unlock()
		if err == nil && !c.over() {
			c.readable = true
			d.mark(c)
		}
	})
}

// watchEnd waits until a host that sends no more takes nothing either.
func (d *Device) watchEnd(c *conn) {
	d.work.Go(func() {
		err := c.raw.Read(func(fd uintptr) bool {
			return takesNothing(int(fd))
		})
		d.mu.Lock()
		defer d.mu.Unlock()
		if err == nil && !c.over() {
			d.hostLeft(c)
		}
	})
}
