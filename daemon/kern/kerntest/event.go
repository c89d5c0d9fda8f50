// SPDX-License-Identifier: Apache-2.0

package kerntest

import (
	"net"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"vmctl/abi"
)

// As many events and tombs as the module keeps.
const (
	eventsKept = 4096
	tombsKept  = 1024
)

const listenerQueue = 256 // notices that wait for one listener

// note is a VM at the moment of an event.
type note struct {
	info    abi.VMInfo
	seq     uint64
	time    uint64 // CLOCK_MONOTONIC in nanoseconds; of a tomb: of its end
	event   abi.Event
	count   uint32
	limit   abi.Limit
	backend uint32
}

// tell numbers what happened to v, keeps it, and sends it to who listens. Called
// with mu.
func (k *Kernel) tell(v *fakeVM, n note) {
	k.seq++
	n.info, n.seq, n.count, n.time = v.info, k.seq, 1, monotonic()
	if n.event == abi.EventStopped {
		v.ended = n.time
	}
	k.journal = last(append(k.journal, n), eventsKept)
	if n.event == abi.EventDestroyed {
		tomb := n
		tomb.event, tomb.time = 0, v.ended
		k.tombs = last(append(k.tombs, tomb), tombsKept)
	}
	if k.lose > 0 {
		k.lose--
		return
	}
	m := k.message(abi.CmdVMNtf, netlink.Header{}, n.attributes(n.seq, k.instance))
	for l := range k.listeners {
		l.post(m)
	}
}

func monotonic() uint64 {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		panic(err) // there is no such Linux
	}
	return uint64(now.Nano())
}

// last returns the last n of notes, in what may be another slice.
func last(notes []note, n int) []note {
	if len(notes) < 2*n {
		return notes
	}
	return append(make([]note, 0, 2*n), notes[len(notes)-n:]...)
}

// kept are those of notes that the module would still have.
func kept(notes []note, n int) []note { return notes[max(0, len(notes)-n):] }

// listener is a socket that has joined the group of events. When its queue is
// full it drops what comes until the queue was empty, and says so once.
type listener struct {
	c       *net.UnixConn
	queue   chan netlink.Message
	dropped bool // [mu]
	say     bool // [mu]
}

// post is called with mu.
func (l *listener) post(m netlink.Message) {
	if !l.dropped {
		select {
		case l.queue <- m:
			return
		default:
		}
		l.dropped, l.say = true, true
	}
}

// next returns what is to be sent before m. Called with mu.
func (l *listener) next(m netlink.Message) []netlink.Message {
	l.dropped = l.dropped && len(l.queue) > 0
	if !l.say {
		return []netlink.Message{m}
	}
	l.say = false
	return []netlink.Message{{Header: netlink.Header{Type: netlink.Overrun}}, m}
}

// listen sends what is told to c until it is closed.
func (k *Kernel) listen(c *net.UnixConn) {
	l := &listener{c: c, queue: make(chan netlink.Message, listenerQueue)}
	k.mu.Lock()
	k.listeners[l] = struct{}{}
	k.mu.Unlock()
	gone := make(chan struct{})
	k.wg.Add(1)
	go func() {
		defer k.wg.Done()
		defer close(gone)
		c.Read(make([]byte, 1)) // a listener says nothing: what comes is its end
	}()
	err := sendNetlink(c, ack)
	for err == nil {
		select {
		case m := <-l.queue:
			k.mu.Lock()
			msgs := l.next(m)
			k.mu.Unlock()
			err = sendNetlink(c, msgs...)
		case <-gone:
			err = net.ErrClosed
		}
	}
	c.Close()
	<-gone
	k.mu.Lock()
	delete(k.listeners, l)
	k.mu.Unlock()
}
