// SPDX-License-Identifier: Apache-2.0

package vsock_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/monitor/listen"
	"vmctl/monitor/virtio/virtiotest"
	"vmctl/monitor/virtio/vsock"
)

const (
	cid     = 7
	timeout = 20 * time.Second

	request, response, reset, shutdown, data, update, ask = 1, 2, 3, 4, 5, 6, 7

	receives, sends, both = 1, 2, 3 // what is shut down
	plenty                = 1 << 20
)

// packet is a packet as virtio 1.2, 5.10.6, has it.
type packet struct {
	SrcCID, DstCID   uint64
	SrcPort, DstPort uint32
	Len              uint32
	Type, Op         uint16
	Flags            uint32
	BufAlloc, FwdCnt uint32
}

// guest is a guest with this device, and the host around it.
type guest struct {
	t    *testing.T
	dev  *vsock.Device
	drv  *virtiotest.Driver
	path string
	out  sync.Mutex // one packet at a time
	asks chan [2]uint32
	idle atomic.Int32 // how often it was
}

func newGuest(t *testing.T) *guest {
	g := &guest{t: t, path: filepath.Join(t.TempDir(), "v.sock"), asks: make(chan [2]uint32, 1000)}
	l, err := net.Listen("unix", g.path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Dup(int(f.Fd()))
	f.Close()
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	if err != nil {
		t.Fatal(err)
	}
	s, err := listen.Open(fd, "vsock")
	if err != nil {
		t.Fatal(err)
	}
	g.dev = vsock.New(cid, s, func(id, port uint32) bool {
		if port == 1 {
			return false
		}
		g.asks <- [2]uint32{id, port}
		return true
	}, func() { g.idle.Add(1) })
	g.drv = virtiotest.New(t, g.dev, 0)
	return g
}

// to is a packet to the host, that all is right with.
func to(op uint16, src, dst uint32) packet {
	return packet{SrcCID: cid, DstCID: vsock.HostCID, SrcPort: src, DstPort: dst, Type: 1, Op: op, BufAlloc: plenty}
}

// answer is a packet in the other direction.
func (p packet) answer(op uint16) packet { return to(op, p.DstPort, p.SrcPort) }

func (p packet) String() string {
	return fmt.Sprintf("{%d:%d to %d:%d, type %d op %d flags %d, %d bytes, credit %d - %d}",
		p.SrcCID, p.SrcPort, p.DstCID, p.DstPort, p.Type, p.Op, p.Flags, p.Len, p.BufAlloc, p.FwdCnt)
}

// send sends a packet, whose length is that of the body unless it has one.
func (g *guest) send(p packet, body string) {
	g.t.Helper()
	if p.Len == 0 {
		p.Len = uint32(len(body))
	}
	b, err := binary.Append(nil, binary.LittleEndian, p)
	if err != nil {
		g.t.Fatal(err)
	}
	g.out.Lock()
	defer g.out.Unlock()
	// The header lies across buffers, and the last has some of the body.
	pieces := [][]byte{b[:5], b[5:40], append(b[40:], body...)}
	g.drv.Do(1, virtiotest.Request{Read: pieces})
}

// recv waits for the next packet. It offers a buffer of size bytes.
func (g *guest) recv(size int) (p packet, body string) {
	g.t.Helper()
	r := g.drv.Do(0, virtiotest.Request{Write: []int{10, 40, size - 50}})
	if r == nil {
		g.t.Fatal("broken:", g.drv.Broken())
	}
	var b []byte
	for _, w := range r[0].Write {
		b = append(b, w...)
	}
	if n, err := binary.Decode(b, binary.LittleEndian, &p); err != nil || n != 44 || r[0].Len != n+int(p.Len) {
		g.t.Fatalf("%d bytes of %v, %v", r[0].Len, p, err)
	}
	return p, string(b[44:][:p.Len])
}

// want waits for a packet of a kind.
func (g *guest) want(op uint16, body string) packet {
	g.t.Helper()
	p, got := g.recv(4096)
	if p.Op != op || got != body || p.Type != 1 || p.SrcCID != vsock.HostCID || p.DstCID != cid {
		g.t.Fatalf("got %v %.40q, want op %d and %q", p, got, op, body)
	}
	return p
}

func (g *guest) wantShut(flags uint32) {
	g.t.Helper()
	if p := g.want(shutdown, ""); p.Flags != flags {
		g.t.Fatalf("shutdown %d, want %d", p.Flags, flags)
	}
}

// none waits until there are no connections.
func (g *guest) none() {
	g.t.Helper()
	for end := time.Now().Add(timeout); g.dev.Connections() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			g.t.Fatal("connections stay:", g.dev.Connections())
		}
	}
}

// host is a program on the host.
type host struct {
	t *testing.T
	*net.UnixConn
}

func newHost(t *testing.T, c net.Conn) *host {
	t.Helper()
	if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &host{t, c.(*net.UnixConn)}
}

// hello connects to the VM's socket and says that.
func (g *guest) hello(text string) *host {
	g.t.Helper()
	c, err := net.Dial("unix", g.path)
	if err != nil {
		g.t.Fatal(err)
	}
	h := newHost(g.t, c)
	h.say(text)
	return h
}

func (h *host) say(text string) {
	h.t.Helper()
	if _, err := io.WriteString(h, text); err != nil {
		h.t.Fatal(err)
	}
}

// hear waits for that.
func (h *host) hear(text string) {
	h.t.Helper()
	b := make([]byte, len(text))
	if _, err := io.ReadFull(h, b); err != nil || string(b) != text {
		h.t.Fatalf("hears %q, %v; want %q", b, err, text)
	}
}

// end waits for the end.
func (h *host) end() {
	h.t.Helper()
	if b, err := io.ReadAll(h); err != nil || len(b) > 0 {
		h.t.Fatalf("hears %q, %v; want the end", b, err)
	}
}

// fromHost is a connection that the host began: its packets, and the host's end.
func (g *guest) fromHost(port uint32) (packet, *host) {
	g.t.Helper()
	h := g.hello(fmt.Sprintf("CONNECT %d\n", port))
	p := g.want(request, "")
	if p.DstPort != port || p.BufAlloc == 0 {
		g.t.Fatal(p)
	}
	g.send(p.answer(response), "")
	h.hear(fmt.Sprintf("OK %d\n", p.SrcPort))
	return p, h
}

// dialed waits until the daemon is asked for a connection, and makes one.
func (g *guest) dialed(port uint32) *host {
	g.t.Helper()
	var a [2]uint32
	select {
	case a = <-g.asks:
	case <-time.After(timeout):
		g.t.Fatal("nobody is asked")
	}
	if a[1] != port {
		g.t.Fatalf("port %d, want %d", a[1], port)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		g.t.Fatal(err)
	}
	f := os.NewFile(uintptr(pair[1]), "host")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		g.t.Fatal(err)
	}
	g.dev.Dialed(a[0], pair[0])
	return newHost(g.t, c)
}

// toHost is a connection that the guest began.
func (g *guest) toHost(src, dst uint32) *host {
	g.t.Helper()
	g.send(to(request, src, dst), "")
	h := g.dialed(dst)
	if p := g.want(response, ""); p.SrcPort != dst || p.DstPort != src {
		g.t.Fatal(p)
	}
	return h
}
