// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"net"
	"net/netip"
	"sync"
)

// Limits on open connections.
const (
	maxConnections = 2048
	maxPerAddress  = 256
)

// Limit bounds the connections of ln, in all and of each address: what comes
// above is closed at once, so that a single stranger cannot take all places.
func Limit(ln net.Listener) net.Listener {
	return &limitListener{Listener: ln, open: make(map[netip.Addr]int), most: maxConnections, each: maxPerAddress}
}

type limitListener struct {
	net.Listener
	most, each int

	mu   sync.Mutex
	all  int                // guarded by mu
	open map[netip.Addr]int // guarded by mu
}

func (l *limitListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		addr := remote(c)
		if l.enter(addr) {
			return &limitConn{Conn: c, leave: sync.OnceFunc(func() { l.exit(addr) })}, nil
		}
		_ = c.Close() // refused: nothing was said yet
	}
}

func remote(c net.Conn) netip.Addr {
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}

func (l *limitListener) enter(addr netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all >= l.most || l.open[addr] >= l.each {
		return false
	}
	l.all++
	l.open[addr]++
	return true
}

func (l *limitListener) exit(addr netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all--
	if l.open[addr]--; l.open[addr] == 0 {
		delete(l.open, addr)
	}
}

type limitConn struct {
	net.Conn
	leave func()
}

func (c *limitConn) Close() error {
	c.leave()
	return c.Conn.Close()
}
