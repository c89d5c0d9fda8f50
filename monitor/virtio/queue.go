// SPDX-License-Identifier: Apache-2.0

package virtio

import (
	"encoding/binary"
	"errors"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"vmctl/monitor/mem"
)

// MaxQueue is the most descriptors that a queue has.
const MaxQueue = 256

// What a driver does wrong with a queue. After any of them the device needs a
// reset: it looks at no queue any more.
var (
	ErrQueueSize  = errors.New("size of the queue is not a power of 2, or too large")
	ErrIndex      = errors.New("more available buffers than the queue has room for")
	ErrDescriptor = errors.New("descriptor outside its table")
	ErrChain      = errors.New("chain that is longer than the queue, or has a loop")
	ErrIndirect   = errors.New("indirect table that may not be there, or of an odd size")
	ErrOrder      = errors.New("buffer to read behind one to write")
	ErrEmpty      = errors.New("buffer of no bytes")
	ErrTooLong    = errors.New("chain of more than 4 GiB")
	ErrRequest    = errors.New("chain that is no request of this device")
)

// Flags of descriptors and rings (virtio 1.2, 2.7).
const (
	descSize     = 16
	descNext     = 1 << 0
	descWrite    = 1 << 1
	descIndirect = 1 << 2

	ringHead    = 4 // flags and index
	availFlags  = 0
	ringIndex   = 2
	availEntry  = 2
	usedEntry   = 8
	noInterrupt = 1 << 0
	noNotify    = 1 << 0

	maxChainBytes = 1 << 32
)

// Chain is what a driver made available at once: buffers of guest memory, which
// it may change at any time. It is filled by Pop and can be used again.
type Chain struct {
	Head  uint16   // names it in Push
	Read  [][]byte // what the driver wrote
	Write [][]byte // where the device is to write
}

// ReadLen and WriteLen are the bytes of all buffers together.
func (c *Chain) ReadLen() uint64  { return total(c.Read) }
func (c *Chain) WriteLen() uint64 { return total(c.Write) }

func total(buffers [][]byte) (n uint64) {
	for _, b := range buffers {
		n += uint64(len(b))
	}
	return n
}

// Queue is a split virtqueue. One goroutine calls Pop, Arm and Disarm; any may
// call Push and Signal.
type Queue struct {
	mem    *mem.Memory
	size   uint16
	desc   []byte
	avail  mem.Shared
	used   mem.Shared
	event  bool // FeatureEvent was agreed on
	multi  bool // FeatureIndirect was
	bell   *bell
	life   *life
	raise  func()
	direct func(tell func(fd int))

	next    uint16 // of the available ring, to look at
	resumed bool   // it was worked on before

	mu     sync.Mutex // guards what follows
	flags  uint16     // of the used ring
	put    uint16     // index of the used ring
	raised uint16     // put at the last Signal
}

// life is what the queues of a device share.
type life struct {
	stopping atomic.Bool
	broken   atomic.Bool
	fail     func(error)
}

func (l *life) over() bool { return l.stopping.Load() || l.broken.Load() }

// end breaks the device until it is reset.
func (l *life) end(err error) {
	if !l.broken.Swap(true) {
		l.fail(err)
	}
}

// bell is the eventfd by which a driver says that there is something new.
type bell struct {
	fd   int
	file *os.File
}

func newBell() (*bell, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	return &bell{fd: fd}, nil
}

var one = binary.NativeEndian.AppendUint64(nil, 1)

func (b *bell) ring() {
	// It could only fail because it rings already.
	_, _ = unix.Write(b.fd, one)
}

// wait sleeps until it rings, without a thread.
func (b *bell) wait() error {
	if b.file == nil {
		if err := unix.SetNonblock(b.fd, true); err != nil {
			return err
		}
		b.file = os.NewFile(uintptr(b.fd), "bell")
	}
	var count [8]byte
	_, err := b.file.Read(count[:])
	return err
}

func (b *bell) close() error {
	if b.file != nil {
		return b.file.Close()
	}
	return unix.Close(b.fd)
}

// rings is where a queue is in guest memory.
type rings struct{ desc, avail, used uint64 }

// open looks where the rings are. errors.Is: ErrQueueSize, mem.ErrRange,
// mem.ErrAlign.
func (q *Queue) open(m *mem.Memory, size uint16, at rings) error {
	if size == 0 || size > MaxQueue || size&(size-1) != 0 {
		return ErrQueueSize
	}
	n := uint64(size)
	if at.desc%descSize != 0 {
		return mem.ErrAlign
	}
	var err error
	if q.desc, err = m.At(at.desc, n*descSize); err != nil {
		return err
	}
	if q.avail, err = m.Share(at.avail, ringHead+n*availEntry+2, 2); err != nil {
		return err
	}
	// The word around the last half word may be used: its rest is ours to keep.
	if q.used, err = m.Share(at.used, ringHead+n*usedEntry+2, 4); err != nil {
		return err
	}
	q.mem, q.size, q.next, q.flags, q.put, q.raised, q.resumed = m, size, 0, 0, 0, 0, false
	return nil
}

// resume goes on with rings that were worked on before. All that a device took it has
// given back, or takes again: what it gave back is as far as it has come.
func (q *Queue) resume() {
	at := q.used.Load16(ringIndex)
	q.next, q.put, q.raised, q.resumed = at, at, at, true
}

// Resumed reports that the driver is the one that the device had before: it was paused,
// or the machine was restored. Else it is a driver that begins.
func (q *Queue) Resumed() bool { return q.resumed }

// Rings is where a queue lies in this process, for who works on it in the monitor's
// stead: addresses, and the number of descriptors.
type Rings struct {
	Desc, Avail, Used uint64
	Size              uint32
	Next              uint16 // of the available ring, to begin with
}

// Rings returns that. Who has it obeys Device.Stop.
func (q *Queue) Rings() Rings {
	return Rings{Desc: mem.HostAddr(q.desc), Avail: q.avail.HostAddr(), Used: q.used.HostAddr(), Size: uint32(q.size), Next: q.next}
}

// Interrupt interrupts the driver, whatever it wants: for who looks at that itself.
func (q *Queue) Interrupt() { q.raise() }

// Direct lets who works on the queue in the monitor's stead interrupt without it: tell is
// called with the eventfd to write to, or pci.NoFile while Interrupt is to be called, now
// and until the device stands still. It must call nothing of the queue's.
func (q *Queue) Direct(tell func(fd int)) { q.direct(tell) }

// Over reports that the queue is to be left alone: the device is being stopped,
// or is broken.
func (q *Queue) Over() bool { return q.life.over() }

// Stopping reports that the device is being stopped.
func (q *Queue) Stopping() bool { return q.life.stopping.Load() }

// Wait sleeps until the driver notifies, and reports false when the device is
// being stopped.
func (q *Queue) Wait() bool {
	return !q.life.stopping.Load() && q.bell.wait() == nil && !q.life.stopping.Load()
}

// Fail breaks the device, as the driver broke a rule.
func (q *Queue) Fail(err error) { q.life.end(err) }

// Pop takes the next chain, and reports whether there was one. What breaks a rule
// breaks the device.
func (q *Queue) Pop(c *Chain) bool {
	if q.life.over() {
		return false
	}
	waiting := q.avail.Load16(ringIndex) - q.next
	if waiting == 0 {
		return false
	}
	// A driver that has no descriptor left cannot have made more available: without
	// this, what is under way would grow as fast as it counts.
	if waiting > q.size || q.underWay() >= q.size {
		q.Fail(ErrIndex)
		return false
	}
	c.Head = q.avail.Load16(ringHead + availEntry*int(q.next%q.size))
	c.Read, c.Write = c.Read[:0], c.Write[:0]
	if err := q.walk(c); err != nil {
		q.Fail(err)
		return false
	}
	q.next++
	return true
}

// underWay is how many chains were popped and not pushed.
func (q *Queue) underWay() uint16 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.next - q.put
}

// walk follows a chain. It takes at most as many steps as the queue has
// descriptors, and as many again in an indirect table.
func (q *Queue) walk(c *Chain) error {
	table, i, bytes, inner := q.desc, c.Head, uint64(0), false
	for steps := 0; ; steps++ {
		entries := len(table) / descSize
		if int(i) >= entries {
			return ErrDescriptor
		}
		if steps >= entries {
			return ErrChain
		}
		d := table[int(i)*descSize:][:descSize]
		addr, n := order.Uint64(d), order.Uint32(d[8:])
		flags, next := order.Uint16(d[12:]), order.Uint16(d[14:])
		if flags&descIndirect != 0 {
			if !q.multi || inner || flags&descNext != 0 || n == 0 || n%descSize != 0 || n/descSize > uint32(q.size) {
				return ErrIndirect
			}
			var err error
			if table, err = q.mem.At(addr, uint64(n)); err != nil {
				return err
			}
			i, inner, steps = 0, true, -1
			continue
		}
		if err := q.add(c, addr, n, flags&descWrite != 0); err != nil {
			return err
		}
		if bytes += uint64(n); bytes > maxChainBytes {
			return ErrTooLong
		}
		if flags&descNext == 0 {
			return nil
		}
		i = next
	}
}

func (q *Queue) add(c *Chain, addr uint64, n uint32, write bool) error {
	if n == 0 {
		return ErrEmpty
	}
	b, err := q.mem.At(addr, uint64(n))
	switch {
	case err != nil:
		return err
	case write:
		c.Write = append(c.Write, b)
	case len(c.Write) > 0:
		return ErrOrder
	default:
		c.Read = append(c.Read, b)
	}
	return nil
}

// Arm asks the driver for a notification of what comes next, and reports false
// when that is there already.
func (q *Queue) Arm() bool {
	if q.life.over() {
		return true
	}
	if q.event {
		q.used.Store16(ringHead+usedEntry*int(q.size), q.next)
	} else {
		q.setFlags(0)
	}
	return q.avail.Load16(ringIndex) == q.next
}

// Disarm asks for none while the queue is looked at anyway. With FeatureEvent the
// driver gives none until it passes the index of the last Arm again.
func (q *Queue) Disarm() {
	if !q.event {
		q.setFlags(noNotify)
	}
}

func (q *Queue) setFlags(v uint16) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.flags = v
	q.publish()
}

// publish writes flags and index of the used ring, which are one word: the driver
// must see no index between the old and the new one.
func (q *Queue) publish() { q.used.Store32(0, uint32(q.put)<<16|uint32(q.flags)) }

// Push gives a chain back, into which written bytes were written.
func (q *Queue) Push(head uint16, written uint32) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.used.Put64(ringHead+usedEntry*int(q.put%q.size), uint64(written)<<32|uint64(head))
	q.put++
	q.publish()
}

// Signal interrupts the driver if it wants to hear of what was pushed.
func (q *Queue) Signal() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.put == q.raised {
		return
	}
	wanted := q.avail.Load16(availFlags)&noInterrupt == 0
	if q.event {
		at := q.avail.Load16(ringHead + availEntry*int(q.size))
		wanted = q.put-at-1 < q.put-q.raised
	}
	q.raised = q.put
	if wanted {
		q.raise()
	}
}
