// SPDX-License-Identifier: Apache-2.0

package net

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/monitor/rate"
	"vmctl/monitor/virtio"
)

const (
	// maxFrame is the largest packet that a tap gives to who takes segments, with
	// its header: IFF_VNET_HDR, and 64 KiB and an Ethernet header.
	maxFrame = HeaderSize + 14 + 1<<16
	// plainFrame is the largest to others: an MTU of 1500, and a VLAN's tag.
	plainFrame = HeaderSize + 1518
	// maxSend is above what a driver sends: a tap would take all of a larger one in
	// kernel memory before it refuses it.
	maxSend = 1 << 17
	// batch is how many packets go before the guest hears of them.
	batch = 64
	// maxVec is how many pieces a system call takes: UIO_MAXIOV of linux/uio.h.
	maxVec = 1024

	// here is the offset of what has none: preadv2(2). The filter of system calls has
	// no readv, as disks need the other.
	here = -1

	bufferCount = 10 // where num_buffers is in the header: virtio 1.2, 5.1.6
)

// own moves packets by a goroutine for each direction, as fast as limits allow, or drops
// them.
type own struct {
	tap  *os.File
	conn syscall.RawConn
	work sync.WaitGroup
	halt chan struct{} // closed by stop

	receiving, sending *rate.Bucket
	down               bool
}

func (o *own) limit(opt Options) {
	o.receiving, o.sending, o.down = rate.NewBucket(opt.Receive, time.Now), rate.NewBucket(opt.Send, time.Now), opt.Down
}

func (o *own) attach([]int) (err error) {
	o.conn, err = o.tap.SyscallConn()
	return err
}

func (o *own) start(features uint64, receive, send *virtio.Queue) error {
	if err := o.tap.SetDeadline(time.Time{}); err != nil {
		return err
	}
	o.halt = make(chan struct{})
	if o.down {
		o.work.Go(o.drain)
		o.work.Go(func() { o.send(send) })
		return nil
	}
	r := &receiver{own: o, q: receive, need: plainFrame, mergeable: features&featureMergeable != 0}
	if features&(featureGuestTSO4|featureGuestTSO6) != 0 {
		r.need = maxFrame
	}
	o.work.Go(r.run)
	o.work.Go(func() { o.send(send) })
	return nil
}

func (o *own) stop() {
	if o.halt != nil { // it is nil when a driver set up one queue only
		close(o.halt)
	}
	// It fails for who is closed, and then nobody waits.
	_ = o.tap.SetDeadline(time.Unix(1, 0))
	o.work.Wait()
	o.halt = nil
}

// wait sleeps until a limit allows for the next packet. It reports false when the device
// is being stopped.
func (o *own) wait(delay time.Duration) bool {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-o.halt:
		return false
	}
}

// drain loses what comes for a guest whose link is down: what waited in the tap would be
// stale when it is up again.
func (o *own) drain() {
	lost := [][]byte{make([]byte, maxFrame)}
	for {
		if _, err := o.read(lost, true); err != nil {
			return
		}
	}
}

// send hands what comes on a queue to the tap. What the tap does not take is lost,
// as on any wire.
func (o *own) send(q *virtio.Queue) {
	var c virtio.Chain
	for {
		q.Disarm()
		for n := 0; ; n++ {
			if d := o.sending.Delay(); d > 0 {
				if q.Signal(); !o.wait(d) {
					break
				}
			}
			if !q.Pop(&c) {
				break
			}
			if len(c.Write) > 0 || len(c.Read) > maxVec || c.ReadLen() < HeaderSize || c.ReadLen() > maxSend {
				q.Fail(virtio.ErrRequest)
				break
			}
			if !o.down {
				o.sending.Take(c.ReadLen() - HeaderSize)
				o.write(c.Read)
			}
			q.Push(c.Head, 0)
			if n%batch == batch-1 {
				q.Signal()
			}
		}
		q.Signal()
		if q.Arm() && !q.Wait() {
			return
		}
	}
}

func (o *own) write(packet [][]byte) {
	// EAGAIN waits for room; any other error loses the packet: the interface is
	// down, or the guest's header says what is not so.
	_ = o.conn.Write(func(fd uintptr) bool {
		_, err := unix.Pwritev2(int(fd), packet, here, 0)
		return err != unix.EAGAIN
	})
}

// receiver is the direction to the guest. It holds as many buffers as the next
// packet may need: of which size that is, is known when it is there.
type receiver struct {
	*own
	q         *virtio.Queue
	need      int // bytes that a packet may have
	mergeable bool

	held  []virtio.Chain // buffers of the guest, in order
	spare []virtio.Chain
	vec   [][]byte
	room  int    // bytes of vec that are the guest's
	spill []byte // takes what they have no room for; such a packet is lost
}

func (r *receiver) run() {
	for {
		if !r.fill() {
			if r.q.Stopping() || r.q.Arm() && !r.q.Wait() {
				return
			}
			continue
		}
		r.q.Disarm()
		if err := r.receive(); err != nil {
			return // stopped: all that is held stays the driver's, which resets
		}
	}
}

// fill takes buffers until the largest packet has room, or there are no more, and
// reports whether there is any. A driver that does not merge gets a packet in one.
func (r *receiver) fill() bool {
	r.vec, r.room = r.vec[:0], 0
	for i := range r.held {
		r.gather(&r.held[i])
	}
	for r.room < r.need && (r.mergeable || len(r.held) == 0) {
		var c virtio.Chain
		if n := len(r.spare); n > 0 {
			c, r.spare = r.spare[n-1], r.spare[:n-1]
		}
		if !r.q.Pop(&c) {
			r.spare = append(r.spare, c)
			break
		}
		if len(c.Read) > 0 || c.WriteLen() <= HeaderSize || len(r.vec)+len(c.Write) >= maxVec {
			r.q.Fail(virtio.ErrRequest)
			return false
		}
		r.held = append(r.held, c)
		r.gather(&c)
	}
	if len(r.held) == 0 || r.q.Over() {
		return false
	}
	if r.room < r.need {
		if r.spill == nil {
			r.spill = make([]byte, maxFrame)
		}
		r.vec = append(r.vec, r.spill[:r.need-r.room])
	}
	return true
}

func (r *receiver) gather(c *virtio.Chain) {
	r.vec = append(r.vec, c.Write...)
	r.room += int(c.WriteLen())
}

// receive reads packets until there is none, and waits for the first.
func (r *receiver) receive() error {
	for n := 0; ; n++ {
		if d := r.receiving.Delay(); d > 0 {
			if r.q.Signal(); !r.wait(d) {
				return os.ErrClosed
			}
		}
		got, err := r.read(r.vec, n == 0)
		if err != nil || got == 0 {
			r.q.Signal()
			return err
		}
		r.receiving.Take(uint64(max(got-HeaderSize, 0)))
		if got <= r.room {
			r.deliver(got)
		}
		if n%batch == batch-1 {
			r.q.Signal()
		}
		if !r.fill() {
			r.q.Signal()
			return nil
		}
	}
}

// read reads a packet. 0: there is none.
func (o *own) read(vec [][]byte, wait bool) (n int, err error) {
	var failed error
	err = o.conn.Read(func(fd uintptr) bool {
		n, failed = unix.Preadv2(int(fd), vec, here, 0)
		return failed != unix.EAGAIN || !wait
	})
	if err != nil {
		return 0, err
	}
	if failed != nil && !errors.Is(failed, unix.EAGAIN) {
		return 0, failed
	}
	return max(n, 0), nil
}

// deliver gives the buffers that a packet is in to the driver.
func (r *receiver) deliver(size int) {
	used, left := 0, size
	for used == 0 || left > 0 && used < len(r.held) {
		left -= int(min(r.held[used].WriteLen(), uint64(left)))
		used++
	}
	putCount(r.held[0].Write, uint16(used))
	left = size
	for i := range used {
		c := &r.held[i]
		n := int(min(c.WriteLen(), uint64(left)))
		left -= n
		r.q.Push(c.Head, uint32(n))
	}
	r.spare = append(r.spare, r.held[:used]...)
	r.held = append(r.held[:0], r.held[used:]...)
}

// putCount writes num_buffers, which may be in any two of the buffer's pieces.
func putCount(pieces [][]byte, n uint16) {
	at := 0
	for _, p := range pieces {
		for i := range p {
			switch at {
			case bufferCount:
				p[i] = byte(n)
			case bufferCount + 1:
				p[i] = byte(n >> 8)
				return
			}
			at++
		}
	}
}
