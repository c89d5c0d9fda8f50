// SPDX-License-Identifier: Apache-2.0

// Package vsock is virtio's socket device: stream sockets between the guest and
// programs on the host, which have unix sockets there, as with Firecracker.
//
// Who connects to the VM's listening socket and sends "CONNECT PORT\n" is connected
// to that port of the guest's, and gets "OK HOSTPORT\n" before the first byte; a guest
// that does not listen there ends the connection. A guest that connects to a port of
// the host's, CID 2, is connected to a listening socket that has the path of the VM's,
// an underscore and the port.
//
// A monitor can open no path, and must not: it asks the daemon, which connects and
// hands the socket over. So this needs no right that a monitor lacks, a guest reaches
// the sockets of its own folder alone, and what is taken from a monitor's jail stays
// taken. The price is that a guest's attempts fail while there is no daemon; what is
// connected stays.
//
// A guest is bounded in all that it can take: MaxConnections, bufferSize bytes of each
// that the host does not read, and a few requests at a time to the daemon. The data
// that goes to the guest is in the host's socket until the guest has room, and in no
// memory of the monitor's. No connection waits for another one's reader.
package vsock

import (
	"os"
	"sync"
	"time"

	"vmctl/monitor/listen"
	"vmctl/monitor/virtio"
)

const (
	deviceType = 19
	class      = 0x078000 // communication, of no kind that PCI knows
	queueSize  = 128

	featureStream = 1 << 0

	receiveQueue = 0
	sendQueue    = 1
	eventQueue   = 2
	numQueues    = 3

	// HostCID is the host's, for all guests.
	HostCID = 2
	// MinCID and MaxCID bound those of guests; others have a meaning of their own.
	MinCID = 3
	MaxCID = 1<<32 - 2

	// MaxConnections is how many there are at a time, with those that begin or end.
	MaxConnections = 128
	// bufferSize is how many bytes of a connection may wait for the host, and how
	// many a packet has at the most.
	bufferSize = 64 << 10
	// maxStray is how many resets may wait that are of no connection. With more,
	// nothing is taken from the guest until it takes some.
	maxStray = 64

	// openTime is how long either side has to answer a request, and closeTime how long
	// the guest has to confirm that both are done.
	openTime  = 5 * time.Second
	closeTime = 8 * time.Second
)

// Device is the socket device.
type Device struct {
	cid      uint32
	listener *listen.Socket
	dial     func(id, port uint32) bool
	idle     func()
	hosts    sync.WaitGroup // goroutines of who says hello
	work     sync.WaitGroup // goroutines between Start and Stop
	wake     chan struct{}  // has room for one: there is something for the guest, or room
	room     chan struct{}  // has room for one: a stray reset went
	closed   chan struct{}
	stop     chan struct{} // of this start

	mu         sync.Mutex // guards what follows
	started    bool
	closing    bool
	conns      map[ports]*conn
	line       []*conn // that have something for the guest, in turn
	stray      []header
	strayTurn  bool
	lastPort   uint32            // of the host's
	waiting    []*conn           // of which the daemon is not asked yet
	asks       map[uint32]*ask   // by number
	lastAsk    uint32            // its number
	strangers  map[*os.File]bool // that did not say hello yet
	events     *virtio.Queue
	eventChain virtio.Chain
	resetOwed  bool // the guest is to hear of a transport reset
}

// New makes one for a guest with this CID, from MinCID to MaxCID. It takes over the
// socket where the host's programs connect, which may be nil.
//
// dial asks for a connection to a port of the host's; it must neither wait nor call
// back. If it returns true, Dialed is called with the same number some time, or the
// guest is refused after a while; else it is refused at once.
// idle is called when the last connection has ended, and must be quick.
func New(cid uint32, listener *listen.Socket, dial func(id, port uint32) bool, idle func()) *Device {
	return &Device{
		cid: cid, listener: listener, dial: dial, idle: idle,
		wake: make(chan struct{}, 1), room: make(chan struct{}, 1), closed: make(chan struct{}),
		conns: make(map[ports]*conn), asks: make(map[uint32]*ask), strangers: make(map[*os.File]bool),
	}
}

// Kind is what the driver finds.
func (*Device) Kind() virtio.Kind {
	return virtio.Kind{Type: deviceType, Class: class, Features: featureStream, Queues: numQueues, Size: queueSize}
}

// Config is the guest's CID.
func (d *Device) Config() []byte { return order.AppendUint64(nil, uint64(d.cid)) }

// Attach lets the host connect.
func (d *Device) Attach([]int) error {
	if d.listener != nil {
		d.hosts.Go(d.accept)
	}
	return nil
}

// Start serves the queues, once both that carry packets are there.
func (d *Device) Start(_ uint64, queues []*virtio.Queue) {
	d.stop = make(chan struct{})
	in, out := queues[receiveQueue], queues[sendQueue]
	if in == nil || out == nil {
		return // a driver that sets up one of them only has no use for it
	}
	d.mu.Lock()
	d.started, d.events, d.resetOwed = true, queues[eventQueue], false
	d.mu.Unlock()
	in.Disarm()
	d.work.Go(func() { d.toGuest(in) })
	d.work.Go(func() {
		for in.Wait() {
			signal(d.wake)
		}
	})
	d.work.Go(func() { d.fromGuest(out) })
	if q := queues[eventQueue]; q != nil {
		q.Disarm()
		d.work.Go(func() {
			for q.Wait() {
				d.mu.Lock()
				d.tell()
				d.mu.Unlock()
				d.part(q)
			}
		})
	}
}

// Stop ends that, and all connections.
func (d *Device) Stop() {
	d.mu.Lock()
	d.started, d.events = false, nil
	d.drop()
	d.mu.Unlock()
	close(d.stop)
	d.work.Wait()
}

// drop ends all connections without a word to the guest.
func (d *Device) drop() {
	for _, c := range d.conns {
		d.remove(c)
	}
	d.stray = nil
	signal(d.room)
}

// part ends all connections, and takes none, when the device is broken: the guest may
// never reset it, and nobody on the host is to wait for that.
func (d *Device) part(q *virtio.Queue) {
	if q.Over() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.started = false
		d.drop()
	}
}

// Close ends the listening, and who did not say hello yet.
func (d *Device) Close() error {
	d.mu.Lock()
	d.closing = true
	for f := range d.strangers {
		f.Close() // its goroutine ends
	}
	for id, a := range d.asks {
		a.timer.Stop()
		delete(d.asks, id)
	}
	d.mu.Unlock()
	close(d.closed)
	var err error
	if d.listener != nil {
		err = d.listener.Close()
	}
	d.hosts.Wait()
	return err
}

// TransportReset ends all connections, as after a restore they are none any more, and
// tells the guest, which then asks for its CID again.
func (d *Device) TransportReset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drop()
	d.resetOwed = true
	d.tell() // if that breaks the device, toGuest ends what begins after it
}

// tell tells the guest of a transport reset, if it has a buffer for that.
func (d *Device) tell() {
	q := d.events
	for q != nil && d.resetOwed {
		if !q.Pop(&d.eventChain) {
			if q.Arm() {
				return // it will be there some time
			}
			continue
		}
		if c := &d.eventChain; len(c.Read) > 0 || c.WriteLen() < eventSize {
			q.Fail(virtio.ErrRequest)
			return
		}
		fill(d.eventChain.Write, order.AppendUint32(nil, eventTransportReset))
		q.Push(d.eventChain.Head, eventSize)
		q.Signal()
		d.resetOwed = false
	}
}

// Connections is how many there are.
func (d *Device) Connections() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.conns)
}

// signal puts a token into a channel that has room for one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// freePort is the next port of the host's for connections that it begins: of those
// that nobody is given who listens, as with Firecracker.
func (d *Device) freePort(guest uint32) uint32 {
	const first, mask = 1 << 30, 1<<30 - 1
	for {
		d.lastPort++
		p := ports{first | d.lastPort&mask, guest}
		if d.conns[p] == nil { // there are fewer than ports
			return p.host
		}
	}
}
