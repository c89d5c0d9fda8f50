// SPDX-License-Identifier: Apache-2.0

package vsock

import (
	"golang.org/x/sys/unix"

	"vmctl/monitor/virtio"
)

// batch is how many packets go before the guest hears of them.
const batch = 16

// toGuest fills the guest's buffers with packets.
func (d *Device) toGuest(q *virtio.Queue) {
	var c virtio.Chain
	var body [][]byte
	held := false // c is to be filled
	for n := 0; ; {
		if !d.pending() {
			q.Signal()
			if !d.rest() {
				return
			}
			continue
		}
		if !held {
			if !q.Pop(&c) {
				q.Signal()
				d.part(q)
				if q.Arm() && !d.rest() {
					return
				}
				q.Disarm()
				continue
			}
			if len(c.Read) > 0 || c.WriteLen() <= headerSize {
				q.Fail(virtio.ErrRequest)
				d.part(q)
				continue
			}
		}
		body = cut(body[:0], c.Write, headerSize, bufferSize)
		size := d.packet(c.Write, body)
		held = size == 0
		if held {
			continue
		}
		q.Push(c.Head, uint32(size))
		if n++; n%batch == 0 {
			q.Signal()
		}
	}
}

// pending reports whether there is something for the guest.
func (d *Device) pending() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.line) > 0 || len(d.stray) > 0
}

// rest waits for something new, and reports false when the device is being stopped.
func (d *Device) rest() bool {
	select {
	case <-d.wake:
		return true
	case <-d.stop:
		return false
	}
}

// packet writes the next packet, and returns how many bytes it has; 0: there is none
// after all. body is what of the buffers is behind the header.
func (d *Device) packet(buffers, body [][]byte) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := len(d.stray); n > 0 && (d.strayTurn || len(d.line) == 0) {
		h := d.stray[0]
		d.stray = d.stray[1:]
		d.strayTurn = false
		signal(d.room)
		h.put(buffers)
		return headerSize
	}
	d.strayTurn = true
	if len(d.line) == 0 {
		return 0
	}
	c := d.line[0]
	d.line = d.line[1:]
	c.inLine = false
	h := d.next(c)
	switch h.op {
	case 0:
		return 0
	case opData:
		n := d.data(c, body)
		if n == 0 {
			return 0
		}
		h.size = uint32(n)
	}
	d.mark(c) // behind all others
	h.srcCID, h.dstCID, h.srcPort, h.dstPort = HostCID, uint64(d.cid), c.host, c.guest
	h.kind, h.buffer, h.forwarded = typeStream, bufferSize, c.forwarded
	c.told, c.owes = c.forwarded, c.owes&^oweCredit
	h.put(buffers)
	return headerSize + int(h.size)
}

// next is what a connection sends next; op 0: nothing.
func (d *Device) next(c *conn) (h header) {
	take := func(what int) bool {
		was := c.owes & what
		c.owes &^= what
		return was != 0
	}
	switch {
	case take(oweReset):
		h.op = opReset
		d.remove(c)
	case take(oweRequest):
		h.op = opRequest
	case take(oweResponse):
		h.op = opResponse
	case c.wants() && c.credit() > 0:
		h.op = opData
	case c.hostShut != c.toldShut:
		h.op, h.flags = opShutdown, c.hostShut
		c.toldShut = c.hostShut
		if c.hostShut == shutBoth {
			d.expire(c, closeTime)
		}
	case c.owes&oweCredit != 0: // in every header
		h.op = opCreditUpdate
	case c.wants() && !c.askedCredit:
		h.op = opCreditRequest
		c.askedCredit = true
	}
	return h
}

// data reads from the host's socket into the guest's memory, and returns how many
// bytes; 0: there is nothing now. It lets go of the lock meanwhile.
func (d *Device) data(c *conn, body [][]byte) int {
	var some [8][]byte
	room := cut(some[:0], body, 0, c.credit())
	raw := c.raw
	d.mu.Unlock()
	n, err := receive(raw, room)
	left := n == 0 && err == nil && closed(raw)
	d.mu.Lock()
	switch {
	case c.over():
		return 0
	case err == unix.EAGAIN:
		d.watch(c)
	case err != nil:
		d.die(c)
		return 0
	case n == 0:
		c.readable = false
		c.hostShut |= shutSend
		if left {
			d.hostLeft(c)
		} else {
			d.watchEnd(c)
		}
	}
	if n <= 0 {
		d.mark(c)
		return 0
	}
	c.sent += uint32(n)
	if n < total(room) { // it has no more, most likely
		d.watch(c)
	}
	return n
}

func total(buffers [][]byte) (n int) {
	for _, b := range buffers {
		n += len(b)
	}
	return n
}

// fromGuest takes the guest's packets.
func (d *Device) fromGuest(q *virtio.Queue) {
	var c virtio.Chain
	var body [][]byte
	for {
		q.Disarm()
		for n := 1; q.Pop(&c); n++ {
			if len(c.Write) > 0 || c.ReadLen() < headerSize {
				q.Fail(virtio.ErrRequest)
				break
			}
			h := readHeader(c.Read)
			body = cut(body[:0], c.Read, headerSize, int(min(h.size, bufferSize)))
			d.take(&h, body, c.ReadLen()-headerSize)
			q.Push(c.Head, 0)
			if n%batch == 0 {
				q.Signal()
			}
			if !d.strayRoom(q) {
				return
			}
		}
		q.Signal()
		d.part(q)
		if q.Arm() && !q.Wait() {
			return
		}
	}
}

// strayRoom waits until there is room for the answer to a packet that is none of a
// connection, and reports false when the device is being stopped.
func (d *Device) strayRoom(q *virtio.Queue) bool {
	for {
		d.mu.Lock()
		full := len(d.stray) >= maxStray
		d.mu.Unlock()
		if !full {
			return true
		}
		q.Signal()
		select {
		case <-d.room:
		case <-d.stop:
			return false
		}
	}
}

// take does what a packet says, which has as many bytes of data at the most.
func (d *Device) take(h *header, body [][]byte, most uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.started {
		return
	}
	if h.kind != typeStream || h.srcCID != uint64(d.cid) || h.dstCID != HostCID {
		d.refuse(h)
		return
	}
	p := ports{h.dstPort, h.srcPort}
	c := d.conns[p]
	switch {
	case h.op == opReset:
		if c != nil {
			d.remove(c)
		}
	case c == nil && h.op == opRequest && h.size == 0:
		d.request(p, h)
	case c == nil:
		d.refuse(h)
	case c.state == dying: // and the guest will hear of it
	case uint64(h.size) > most || !d.step(c, h, body):
		d.die(c)
	}
}

// refuse answers a packet that is none of a connection.
func (d *Device) refuse(h *header) {
	if h.op != opReset {
		d.stray = append(d.stray, h.reset())
		signal(d.wake)
	}
}

// request is a guest that wants to connect to the host.
func (d *Device) request(p ports, h *header) {
	if len(d.conns) >= MaxConnections {
		d.refuse(h)
		return
	}
	c := &conn{ports: p, state: asked}
	c.grant(h)
	d.conns[p] = c
	d.waiting = append(d.waiting, c)
	d.askMore()
}

// grant takes down what the guest says of its buffer.
func (c *conn) grant(h *header) {
	if h.buffer != c.guestBuffer || h.forwarded != c.guestForwarded {
		c.askedCredit = false
	}
	c.guestBuffer, c.guestForwarded = h.buffer, h.forwarded
}

// step does what a packet of a connection says, and reports false if it says nothing
// that it may say now.
func (d *Device) step(c *conn, h *header, body [][]byte) bool {
	c.grant(h)
	defer d.mark(c)
	switch h.op {
	case opResponse:
		return c.state == requested && d.accepted(c)
	case opShutdown:
		if c.state != open || h.flags == 0 || h.flags&^shutBoth != 0 {
			return false
		}
		d.guestShut(c, h.flags)
		return true
	case opData:
		return c.state == open && d.toHost(c, h.size, body)
	case opCreditUpdate:
		return true
	case opCreditRequest:
		c.owes |= oweCredit
		return true
	}
	return false
}

// guestShut takes down that the guest sends or receives no more.
func (d *Device) guestShut(c *conn, flags uint32) {
	added := flags &^ c.guestShut
	c.guestShut |= flags
	if added&shutReceive != 0 {
		c.shutdown(unix.SHUT_RD)
	}
	d.finish(c)
}

// toHost hands data to the host, or keeps what it does not take yet. It reports false
// if there must be none.
func (d *Device) toHost(c *conn, size uint32, body [][]byte) bool {
	if c.guestShut&shutSend != 0 || size > bufferSize-(c.got-c.forwarded) {
		return false
	}
	c.got += size
	if c.hostShut&shutReceive != 0 {
		d.hostLeft(c)
		return true
	}
	sent := 0
	if size > 0 && !c.draining {
		raw := c.raw
		d.mu.Unlock()
		n, err := send(raw, body, false)
		d.mu.Lock()
		if c.over() || c.hostShut&shutReceive != 0 { // it left meanwhile, and all counts as taken
			return true
		}
		if err != nil {
			d.hostLeft(c)
			return true
		}
		sent = n
		c.forwarded += uint32(n)
		d.creditLow(c)
	}
	var some [8][]byte
	for _, b := range cut(some[:0], body, sent, bufferSize) {
		c.buffer = append(c.buffer, b...)
	}
	if len(c.buffer) > 0 && !c.draining {
		c.draining = true
		d.work.Go(func() { d.drain(c) })
	}
	return true
}
