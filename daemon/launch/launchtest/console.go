// SPDX-License-Identifier: Apache-2.0

package launchtest

import (
	"bytes"
	"crypto/sha256"
	"net"
	"os"
	"sync"
	"time"

	"vmctl/monitor/console/proto"
	"vmctl/monitor/ctl"
)

// consoles is a console that answers what is typed in capitals.
type consoles struct {
	mu      sync.Mutex
	grants  map[[32]byte]ctl.ConsoleGrant // [mu]
	used    map[[32]byte]bool             // [mu]
	viewers map[uint32]*viewer            // [mu]
	next    uint32                        // [mu]
}

type viewer struct {
	conn    net.Conn
	session string
}

func newConsoles() *consoles {
	return &consoles{grants: make(map[[32]byte]ctl.ConsoleGrant), used: make(map[[32]byte]bool), viewers: make(map[uint32]*viewer)}
}

func (c *consoles) grant(g ctl.ConsoleGrant) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.grants[g.TokenHash] = g
}

func (c *consoles) count() uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return uint32(len(c.viewers))
}

// close ends the consoles of a session, or all.
func (c *consoles) close(session string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, v := range c.viewers {
		if session == "" || v.session == session {
			v.conn.Write(proto.AppendClose(nil, proto.Close{Code: proto.SessionEnded, Text: "session ended"}))
			v.conn.Close()
		}
	}
}

func (c *consoles) accept(fd int, tell func(ctl.Message)) {
	l, err := net.FileListener(os.NewFile(uintptr(fd), "console"))
	if err != nil {
		panic(err)
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go c.serve(conn, tell)
	}
}

// admit spends a token.
func (c *consoles) admit(h *proto.Hello) (ctl.ConsoleGrant, proto.Code) {
	hash := sha256.Sum256(h.Token)
	c.mu.Lock()
	defer c.mu.Unlock()
	g, ok := c.grants[hash]
	switch {
	case c.used[hash]:
		return g, proto.TokenUsed
	case !ok || g.Session != h.Session:
		return g, proto.TokenUnknown
	case time.Now().UnixMilli() > g.ExpiresUnix:
		return g, proto.TokenExpired
	}
	c.used[hash] = true
	return g, 0
}

func (c *consoles) serve(conn net.Conn, tell func(ctl.Message)) {
	defer conn.Close()
	in := proto.NewScanner(conn, proto.MaxPayload)
	f, err := in.Next()
	if err != nil || f.Type != proto.TypeHello {
		return
	}
	h, err := proto.ParseHello(f.Payload)
	if err != nil {
		return
	}
	g, code := c.admit(&h)
	if code != 0 {
		conn.Write(proto.AppendClose(nil, proto.Close{Code: code}))
		return
	}
	c.mu.Lock()
	c.next++
	id := c.next
	c.viewers[id] = &viewer{conn: conn, session: g.Session}
	c.mu.Unlock()
	tell(&ctl.ConsoleOpened{Viewer: id, Session: g.Session, User: g.User, Address: h.Address, Mode: g.Mode})
	conn.Write(proto.AppendOK(nil, proto.OK{Viewer: id, Writer: g.Mode == ctl.ReadWrite}))
	c.echo(conn, in, g.Mode == ctl.ReadWrite)
	c.mu.Lock()
	delete(c.viewers, id)
	c.mu.Unlock()
	tell(&ctl.ConsoleClosed{Viewer: id, Session: g.Session, User: g.User, Reason: "left"})
}

func (c *consoles) echo(conn net.Conn, in *proto.Scanner, writer bool) {
	for {
		f, err := in.Next()
		if err != nil {
			return
		}
		if f.Type == proto.TypeData && writer {
			conn.Write(proto.AppendFrame(nil, proto.TypeData, bytes.ToUpper(f.Payload)))
		}
	}
}
