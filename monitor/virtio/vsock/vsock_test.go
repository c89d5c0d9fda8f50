// SPDX-License-Identifier: Apache-2.0

package vsock_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"vmctl/monitor/virtio"
	"vmctl/monitor/virtio/virtiotest"
	"vmctl/monitor/virtio/vsock"
)

func TestConfig(t *testing.T) {
	g := newGuest(t)
	if got := binary.LittleEndian.Uint64(g.drv.Config(0, 8)); got != cid {
		t.Errorf("CID %d", got)
	}
}

func TestHostConnects(t *testing.T) {
	g := newGuest(t)
	p, h := g.fromHost(52)
	h.say("hello, guest")
	g.want(data, "hello, guest")
	g.send(p.answer(data), "hello, host")
	h.hear("hello, host")

	// Half of it, and then the other.
	if err := h.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	g.wantShut(sends)
	g.send(p.answer(data), "still here")
	h.hear("still here")
	h.Close()
	g.wantShut(both)
	g.send(p.answer(data), "too late, and no harm")
	if g.idle.Load() != 0 {
		t.Error("idle, with a connection")
	}
	g.send(p.answer(reset), "")
	g.none()
	if n := g.idle.Load(); n != 1 {
		t.Errorf("idle %d times", n)
	}
}

func TestHostCloses(t *testing.T) {
	g := newGuest(t)
	p, h := g.fromHost(52)
	h.say("last words")
	h.Close()
	g.want(data, "last words")
	g.wantShut(both)
	g.send(p.answer(reset), "")
	g.none()
}

// What comes behind the hello is the guest's.
func TestHostHurries(t *testing.T) {
	g := newGuest(t)
	h := g.hello("CONNECT 1\nbefore the answer")
	p := g.want(request, "")
	g.send(p.answer(response), "")
	h.hear(fmt.Sprintf("OK %d\n", p.SrcPort))
	g.want(data, "before the answer")
}

func TestGuestRefuses(t *testing.T) {
	g := newGuest(t)
	h := g.hello("CONNECT 4294967294\n")
	g.send(g.want(request, "").answer(reset), "")
	h.end()
	g.none()
}

func TestGuestConnects(t *testing.T) {
	g := newGuest(t)
	h := g.toHost(1000, 80)
	g.send(to(data, 1000, 80), "GET /")
	h.hear("GET /")
	p := to(shutdown, 1000, 80)
	p.Flags = sends
	g.send(p, "")
	h.end()
	h.say("200")
	g.want(data, "200")
	p.Flags = receives
	g.send(p, "")
	g.want(reset, "")
	g.none()
	if _, err := h.Write([]byte("more")); err == nil {
		t.Error("the host can still write")
	}
}

// A guest that receives no more still sends.
func TestGuestHearsNothing(t *testing.T) {
	g := newGuest(t)
	h := g.toHost(1000, 80)
	p := to(shutdown, 1000, 80)
	p.Flags = receives
	g.send(p, "")
	if _, err := h.Write([]byte("not heard")); err == nil {
		t.Error("the host can still write")
	}
	g.send(to(data, 1000, 80), "heard")
	h.hear("heard")
}

func TestGuestIsRefused(t *testing.T) {
	g := newGuest(t)
	g.send(to(request, 1000, 1), "") // nobody to ask
	g.want(reset, "")
	g.send(to(request, 1000, 80), "")
	g.dev.Dialed((<-g.asks)[0], -1)
	g.want(reset, "")
	g.send(to(request, 1000, 80), "")
	a := <-g.asks
	g.send(to(reset, 1000, 80), "") // it changed its mind
	g.none()
	g.dev.Dialed(a[0], -1)
	g.dev.Dialed(a[0]+1, -1) // nobody's
	h := g.toHost(1000, 80)
	h.say("at last")
	g.want(data, "at last")
}

// A host that says nothing is not waited for.
func TestNobodyAnswers(t *testing.T) {
	t.Parallel()
	g := newGuest(t)
	h := g.hello("CONNECT 3\n")
	silent := g.hello("")
	g.want(request, "")
	g.send(to(request, 1000, 80), "")
	g.want(reset, "")
	g.want(reset, "")
	g.none()
	h.end()
	silent.end()
}

func TestBadHellos(t *testing.T) {
	g := newGuest(t)
	for _, text := range []string{
		"\n", "CONNECT\n", "CONNECT \n", "CONNECT x\n", "connect 1\n", "CONNECT 1 \n", "CONNECT -1\n", "CONNECT +1\n", "CONNECT 0x1\n",
		"CONNECT 4294967295\n", "CONNECT 4294967296\n", "CONNECT 00000000001\n", strings.Repeat("x", 100), "CONNECT 1\r\n",
	} {
		h := g.hello(text)
		if b, _ := io.ReadAll(h); len(b) > 0 {
			t.Errorf("%q is answered by %q", text, b)
		}
	}
	g.fromHost(1)
	g.drv.Reset()
	h := g.hello("CONNECT 1\n") // there is nobody
	h.end()
}

// TestMalformed: each is answered by a reset, and nothing stays.
func TestMalformed(t *testing.T) {
	for _, c := range []struct {
		name string
		op   uint16
		bend func(p *packet)
		// stray: it is none of the connection, which stays.
		stray bool
	}{
		{"type", data, func(p *packet) { p.Type = 2 }, true},
		{"source", data, func(p *packet) { p.SrcCID = 8 }, true},
		{"source of 64 bits", data, func(p *packet) { p.SrcCID = 1<<32 + cid }, true},
		{"destination", data, func(p *packet) { p.DstCID = 3 }, true},
		{"port", data, func(p *packet) { p.DstPort++ }, true},
		{"other end of nothing", shutdown, func(p *packet) { p.SrcPort++ }, true},
		{"response to nothing", response, func(p *packet) { p.SrcPort++ }, true},
		{"credit for nothing", update, func(p *packet) { p.SrcPort++ }, true},
		{"request with data", request, func(p *packet) { p.SrcPort++; p.Len = 4 }, true},
		{"operation", 0, func(p *packet) {}, false},
		{"next operation", 8, func(p *packet) {}, false},
		{"length", data, func(p *packet) { p.Len = 5 }, false},
		{"much length", data, func(p *packet) { p.Len = 1<<32 - 1 }, false},
		{"second request", request, func(p *packet) {}, false},
		{"second response", response, func(p *packet) {}, false},
		{"no flags", shutdown, func(p *packet) {}, false},
		{"unknown flags", shutdown, func(p *packet) { p.Flags = 7 }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newGuest(t)
			h := g.toHost(1000, 80)
			p := to(c.op, 1000, 80)
			c.bend(&p)
			g.send(p, "1234")
			r, _ := g.recv(4096)
			if r.Op != reset || r.SrcPort != p.DstPort || r.DstPort != p.SrcPort || r.SrcCID != p.DstCID || r.DstCID != p.SrcCID || r.Type != p.Type {
				t.Errorf("answer %v to %v", r, p)
			}
			if c.stray {
				g.send(to(data, 1000, 80), "it stays")
				h.hear("it stays")
				return
			}
			h.end()
			g.none()
			p.Op = reset
			g.send(p, "") // is answered by nothing
			g.toHost(1000, 80)
		})
	}
}

func TestDataAfterTheEnd(t *testing.T) {
	g := newGuest(t)
	h := g.toHost(1000, 80)
	p := to(shutdown, 1000, 80)
	p.Flags = sends
	g.send(p, "")
	h.end()
	g.send(to(data, 1000, 80), "more")
	g.want(reset, "")
	g.none()
}

func TestDataBeforeTheBeginning(t *testing.T) {
	g := newGuest(t)
	h := g.hello("CONNECT 1\n")
	p := g.want(request, "")
	g.send(p.answer(data), "early")
	g.want(reset, "")
	h.end()
	g.send(to(request, 1000, 80), "")
	g.send(to(data, 1000, 80), "early")
	g.want(reset, "")
	g.none()
}

// TestNotAPacket: what has no header cannot be answered. The device is broken then, and
// nobody on the host waits for the guest to reset it.
func TestNotAPacket(t *testing.T) {
	for _, c := range []struct {
		name  string
		queue int
		r     virtiotest.Request
	}{
		{"short", 1, virtiotest.Request{Read: [][]byte{make([]byte, 43)}}},
		{"to write", 1, virtiotest.Request{Read: [][]byte{make([]byte, 44)}, Write: []int{1}}},
		{"no room", 0, virtiotest.Request{Write: []int{44}}},
		{"to read", 0, virtiotest.Request{Read: [][]byte{make([]byte, 44)}, Write: []int{4096}}},
		{"event", 2, virtiotest.Request{Write: []int{3}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newGuest(t)
			if c.queue == 2 {
				g.dev.TransportReset()
			}
			h := g.toHost(999, 80)
			if c.queue == 0 { // it is looked at when there is something
				g.send(to(request, 1000, 1), "")
			}
			if r := g.drv.Do(c.queue, c.r); r != nil || len(g.drv.Broken()) != 1 || g.drv.Broken()[0] != virtio.ErrRequest {
				t.Errorf("%v, %v", r, g.drv.Broken())
			}
			h.end()
			g.hello("CONNECT 52\n").end()
			g.drv.Reset()
			g.drv.Start(0)
			h = g.toHost(1000, 80)
			h.say("again")
			g.want(data, "again")
		})
	}
}

// TestCreditOfTheGuest: it gets no more than it has room for.
func TestCreditOfTheGuest(t *testing.T) {
	g := newGuest(t)
	p := to(request, 1000, 80)
	p.BufAlloc = 10
	g.send(p, "")
	h := g.dialed(80)
	g.want(response, "")
	h.say("0123456789abcdefghijklmnop")
	g.want(data, "0123456789")
	g.want(ask, "")
	p.Op, p.FwdCnt = update, 4
	g.send(p, "")
	g.want(data, "abcd")
	g.want(ask, "")
	p.FwdCnt, p.BufAlloc = 5, 1<<32-1 // it may say anything
	g.send(p, "")
	g.want(data, "efghijklmnop")
	h.say("x")
	g.want(data, "x")
	p.FwdCnt = 1 << 31 // more than it got
	g.send(p, "")
	h.say("y")
	p.FwdCnt, p.BufAlloc = 27, 0
	for op := uint16(0); op != ask; { // one or the other
		q, _ := g.recv(4096)
		if op = q.Op; op == data {
			g.send(p, "")
			h.say("z")
		}
	}
	p.BufAlloc = 100
	g.send(p, "")
}

// TestCreditOfTheHost: a host that does not read is waited for, and costs what the
// guest was promised.
func TestCreditOfTheHost(t *testing.T) {
	g := newGuest(t)
	h := g.toHost(1000, 80)
	g.send(to(ask, 1000, 80), "")
	p := g.want(update, "")
	window := p.BufAlloc - p.FwdCnt
	if window < 1<<16 || window > 1<<20 {
		t.Fatalf("%d bytes", window)
	}
	// Fill the socket, and then the buffer.
	piece, sent := strings.Repeat("0123456789abcdef", 1<<10), uint32(0)
	for p.BufAlloc-(sent-p.FwdCnt) >= uint32(len(piece)) {
		g.send(to(data, 1000, 80), piece)
		sent += uint32(len(piece))
		g.send(to(ask, 1000, 80), "")
		p = g.want(update, "")
		if sent > plenty*64 {
			t.Fatal("the socket takes anything")
		}
	}
	// It goes on when the host reads, and the guest hears of it.
	other := g.toHost(1001, 81) // not in the way of another
	g.send(to(data, 1001, 81), "other")
	other.hear("other")
	got := make([]byte, sent)
	if _, err := io.ReadFull(h, got); err != nil || !bytes.Equal(got, bytes.Repeat([]byte(piece), int(sent)/len(piece))) {
		t.Fatal("other bytes", err)
	}
	for p.FwdCnt != sent {
		p = g.want(update, "")
	}
}

// TestTooMuch: a guest that sends more than it was promised loses the connection.
func TestTooMuch(t *testing.T) {
	g := newGuest(t)
	g.toHost(1000, 80)
	piece := strings.Repeat("x", 1<<15)
	p := packet{}
	for i := 0; p.Op != reset; i++ {
		if i > 1000 {
			t.Fatal("it takes anything")
		}
		g.send(to(data, 1000, 80), piece)
		g.send(to(ask, 1000, 80), "")
		p, _ = g.recv(4096)
	}
	g.none()
}

// TestManyConnections: no more than there may be, and all work at once.
func TestManyConnections(t *testing.T) {
	g := newGuest(t)
	var hosts []*host
	for i := range uint32(vsock.MaxConnections) {
		hosts = append(hosts, g.toHost(1000+i, 80))
	}
	g.send(to(request, 1, 80), "")
	g.want(reset, "")
	g.hello("CONNECT 1\n").end()
	for i, h := range hosts {
		h.say(fmt.Sprint("to ", i))
	}
	for range hosts {
		p, body := g.recv(4096)
		if i := p.DstPort - 1000; p.Op != data || body != fmt.Sprint("to ", i) {
			t.Fatalf("%v %q", p, body)
		}
	}
	for i, h := range hosts {
		g.send(to(data, 1000+uint32(i), 80), fmt.Sprint("from ", i))
		h.hear(fmt.Sprint("from ", i))
	}
	g.drv.Reset()
	for _, h := range hosts {
		h.end()
	}
	g.none()
	g.drv.Start(0)
	g.toHost(1000, 80)
}

// TestAsksAreFew: the daemon is asked for some at a time, and all come.
func TestAsksAreFew(t *testing.T) {
	g := newGuest(t)
	const many = 100
	for i := range uint32(many) {
		g.send(to(request, 1000+i, 80), "")
	}
	if n := len(g.asks); n == 0 || n > 16 {
		t.Errorf("%d asks at once", n)
	}
	for range many {
		g.dialed(80)
	}
	for range many {
		g.want(response, "")
	}
}

// TestStrangersAreFew: who says nothing is in nobody's way for long.
func TestStrangersAreFew(t *testing.T) {
	g := newGuest(t)
	var silent []*host
	for range 40 {
		c, err := net.Dial("unix", g.path)
		if err != nil {
			t.Fatal(err)
		}
		silent = append(silent, newHost(t, c))
	}
	ended := 0
	for _, h := range silent {
		h.SetDeadline(time.Now().Add(50 * time.Millisecond))
		if _, err := h.Read(make([]byte, 1)); err == io.EOF {
			ended++
		}
	}
	if ended != 40-16 {
		t.Errorf("%d were sent away", ended)
	}
	silent[0].Close()
	for end := time.Now().Add(timeout); ; time.Sleep(time.Millisecond) { // until its place is free
		h := g.hello("CONNECT 5\n")
		h.SetDeadline(time.Now().Add(100 * time.Millisecond))
		if _, err := h.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if time.Now().After(end) {
			t.Fatal("no place becomes free")
		}
	}
	g.want(request, "")
}

// TestStrays: a guest that asks for more answers than it takes is not served until it
// takes some, and then it is.
func TestStrays(t *testing.T) {
	g := newGuest(t)
	h := g.toHost(1000, 80)
	const many = 300
	var sent sync.WaitGroup
	sent.Go(func() {
		for i := range uint32(many) {
			g.send(to(data, 1, 2+i), "")
		}
		g.send(to(data, 1000, 80), "after all")
	})
	for i := range uint32(many) {
		if p := g.want(reset, ""); p.SrcPort != 2+i {
			t.Fatal(p)
		}
	}
	sent.Wait()
	h.hear("after all")
	// A flood that nobody takes the answers to ends with a reset of the device.
	for range 64 {
		g.send(to(data, 1, 2), "")
	}
	g.drv.Begin(1, virtiotest.Request{Read: [][]byte{make([]byte, 44)}})
	g.drv.Reset()
	g.drv.Start(0)
	g.toHost(1000, 80)
}

func TestTransportReset(t *testing.T) {
	g := newGuest(t)
	h := g.toHost(1000, 80)
	g.send(to(request, 1001, 81), "")
	late := <-g.asks
	event := g.drv.Begin(2, virtiotest.Request{Write: []int{2, 6}}) // in two pieces
	copy(event[0].Write[0], "xx")
	copy(event[0].Write[1], "xxx")
	g.dev.TransportReset()
	g.drv.Do(2)
	if got := string(event[0].Write[0]) + string(event[0].Write[1][:3]); got != "\x00\x00\x00\x00x" {
		t.Errorf("event %q", got)
	}
	h.end()
	g.none()
	g.dev.Dialed(late[0], -1)
	// Without a buffer it is told later, and once.
	g.dev.TransportReset()
	g.dev.TransportReset()
	if r := g.drv.Do(2, virtiotest.Request{Write: []int{4}}); r[0].Len != 4 {
		t.Errorf("%d bytes", r[0].Len)
	}
	g.drv.Begin(2, virtiotest.Request{Write: []int{8}})
	g.toHost(1000, 80)
}

// TestBulk: many connections with much to say, in both directions at once.
func TestBulk(t *testing.T) {
	const conns, bytes = 8, 1 << 20
	g := newGuest(t)
	type end struct {
		*host
		p                packet
		up, down         []byte
		sent, got, taken uint32
		window           uint32
	}
	ends := make(map[uint32]*end)
	r := rand.NewChaCha8([32]byte{1})
	var work sync.WaitGroup
	for i := range uint32(conns) {
		e := &end{host: g.toHost(1000+i, 80), p: to(data, 1000+i, 80), up: make([]byte, bytes), down: make([]byte, bytes), window: 1 << 16}
		r.Read(e.up)
		r.Read(e.down)
		ends[1000+i] = e
	}
	for _, e := range ends {
		work.Go(func() {
			e.Write(e.down)
			e.CloseWrite()
		})
		work.Go(func() {
			sum := sha256.New()
			if n, err := io.Copy(sum, e); n != bytes || err != nil || [32]byte(sum.Sum(nil)) != sha256.Sum256(e.up) {
				t.Errorf("host got %d bytes, %v", n, err)
			}
		})
	}
	var mu sync.Mutex // guards the ends' counts
	moved := make(chan struct{}, 1)
	work.Go(func() { // the guest sends
		rnd := rand.New(rand.NewPCG(1, 2))
		for left := conns; left > 0; {
			idle := true
			for _, e := range ends {
				mu.Lock()
				n := min(uint32(rnd.IntN(40000)), bytes-e.sent, e.window)
				e.window -= n
				p := e.p
				p.BufAlloc, p.FwdCnt = 30000, e.got
				mu.Unlock()
				if n == 0 {
					continue
				}
				idle = false
				g.send(p, string(e.up[e.sent:][:n]))
				if e.sent += n; e.sent == bytes {
					p.Op, p.Flags = shutdown, sends
					g.send(p, "")
					left--
				}
			}
			if idle {
				<-moved
			}
		}
	})
	for left := conns; left > 0; {
		p, body := g.recv(4096)
		e := ends[p.DstPort]
		mu.Lock()
		if p.Op == data && string(e.down[e.got:][:len(body)]) != body {
			t.Fatal("other bytes")
		}
		e.got += uint32(len(body))
		if seen := p.FwdCnt - e.taken; seen > 0 {
			e.taken, e.window = p.FwdCnt, e.window+seen
		}
		u := e.p
		u.Op, u.BufAlloc, u.FwdCnt = update, 30000, e.got
		mu.Unlock()
		select {
		case moved <- struct{}{}:
		default:
		}
		switch p.Op {
		case shutdown, reset:
			if e.got != bytes {
				t.Fatalf("%v after %d bytes", p, e.got)
			}
			left--
		case ask:
			g.send(u, "")
		case data, update:
		default:
			t.Fatal(p)
		}
	}
	work.Wait()
}
