// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"vmctl/monitor/ctl"
	"vmctl/monitor/listen"
)

// queue is how many events wait for a slow vmctld. One that is further behind
// loses its connection, and asks for the status when it comes back.
const queue = 64

// handler answers a request; see monitor.handle.
type handler func(ctl.Message, []int) (ctl.Message, *ctl.Error, func())

// control serves the control socket. The newest connection is vmctld; one that
// it takes the place of is closed.
type control struct {
	listener *listen.Socket
	handle   handler
	work     sync.WaitGroup
	events   chan ctl.Message
	closing  chan struct{}

	mu   sync.Mutex // guards conn
	conn *ctl.Conn
}

func newControl(listener *listen.Socket, h handler) *control {
	return &control{listener: listener, handle: h, events: make(chan ctl.Message, queue), closing: make(chan struct{})}
}

func (c *control) start() {
	c.work.Go(c.accept)
	c.work.Go(c.sendEvents)
}

// close sends the events that are left, for as long as the peer takes them, and
// ends.
func (c *control) close(timeout time.Duration) {
	ended := make(chan struct{})
	close(c.closing)
	if err := c.listener.Close(); err != nil {
		logLine("", "control close", err)
	}
	go func() {
		c.work.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(timeout):
	}
}

func (c *control) connected() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conn != nil
}

// event sends an event to vmctld, if there is one, without waiting.
func (c *control) event(m ctl.Message) {
	select {
	case c.events <- m:
	default:
		c.replace(nil)
	}
}

// offer is event for what a guest can cause as often as it likes: such never fills
// the queue, and nobody loses a connection over it. It reports whether somebody will
// have it.
func (c *control) offer(m ctl.Message) bool {
	if !c.connected() || len(c.events) >= queue/2 {
		return false
	}
	c.event(m)
	return true
}

// replace makes conn the connection, or nil none.
func (c *control) replace(conn *ctl.Conn) {
	c.mu.Lock()
	old := c.conn
	c.conn = conn
	c.mu.Unlock()
	if old != nil {
		old.Close()
	}
}

// drop ends conn if it still is the connection.
func (c *control) drop(conn *ctl.Conn) {
	c.mu.Lock()
	if c.conn == conn {
		c.conn = nil
	}
	c.mu.Unlock()
	conn.Close()
}

func (c *control) sendEvents() {
	for {
		select {
		case m := <-c.events:
			c.send(m)
		case <-c.closing:
			for {
				select {
				case m := <-c.events:
					c.send(m)
				default:
					c.replace(nil)
					return
				}
			}
		}
	}
}

func (c *control) send(m ctl.Message) {
	c.mu.Lock()
	conn := c.conn
	c.mu.Unlock()
	if conn == nil {
		return
	}
	if err := conn.Send(ctl.Packet{Body: m}); err != nil {
		c.drop(conn)
	}
}

func (c *control) accept() {
	for {
		fd, err := c.listener.Accept()
		if err != nil {
			if !errors.Is(err, os.ErrClosed) {
				logLine("", "control accept", err)
			}
			return
		}
		conn, err := ctl.NewConn(fd)
		if err != nil {
			logLine("", "control accept", err)
			continue
		}
		c.replace(conn)
		c.work.Go(func() { c.requests(conn) })
	}
}

// requests answers what comes over one connection, in order.
func (c *control) requests(conn *ctl.Conn) {
	defer c.drop(conn)
	for {
		p, fds, err := conn.Recv()
		switch {
		case err == nil:
		case p.ID != 0:
			// It has an id, so that it can be told what is wrong.
			ctl.CloseAll(fds)
			if conn.Send(ctl.Refusal(&p, unreadable(err))) != nil {
				return
			}
			continue
		default:
			ctl.CloseAll(fds)
			if !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrClosed) {
				logLine("", "control receive", err)
			}
			return
		}
		if !c.answer(conn, &p, fds) {
			return
		}
	}
}

// unreadable is the answer to a request that Parse refused.
func unreadable(err error) *ctl.Error {
	if errors.Is(err, ctl.ErrType) {
		return &ctl.Error{Code: ctl.UnknownRequest, Text: err.Error()}
	}
	if e := refusal(err); e.Code != ctl.Internal {
		return e
	}
	return &ctl.Error{Code: ctl.BadMessage, Text: err.Error()}
}

// answer reports whether the connection goes on.
func (c *control) answer(conn *ctl.Conn, p *ctl.Packet, fds []int) bool {
	if p.ID == 0 || p.Body == nil {
		ctl.CloseAll(fds)
		return p.ID != 0 // an event to us is none of the protocol
	}
	reply, refused, after := c.handle(p.Body, fds)
	out := ctl.Packet{ID: p.ID, Body: reply}
	if refused != nil {
		out = ctl.Refusal(p, refused)
	}
	err := conn.Send(out)
	if after != nil {
		after()
	}
	return err == nil
}
