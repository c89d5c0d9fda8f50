// SPDX-License-Identifier: Apache-2.0

package balloon

import (
	"golang.org/x/sys/unix"

	"vmctl/monitor/virtio"
)

// Stats are what the guest tells of its memory, in bytes. All are 0 before it told
// anything, and each that it does not know.
type Stats struct {
	Total, Free, Available, Caches uint64
	MajorFaults                    uint64 // number, since its boot
}

// A statistic is a tag and a value (virtio 1.2, 5.5.6.3).
const (
	statSize      = 10
	statMajor     = 2
	statFree      = 4
	statTotal     = 5
	statAvailable = 6
	statCaches    = 7
	maxStats      = 4 << 10 // bytes; Linux sends 160
)

// Stats returns what the guest told last, and asks it for newer ones, which are there
// a moment later.
func (d *Device) Stats() Stats {
	d.mu.Lock()
	s := d.stats
	d.asked = true
	d.mu.Unlock()
	var one [8]byte
	order.PutUint64(one[:], 1)
	_, _ = unix.Write(d.bell, one[:]) // fails only when it has rung already
	return s
}

// serveStats keeps the driver's buffer until newer statistics are wanted: the driver
// fills it when it gets it back.
func (d *Device) serveStats(q *virtio.Queue) {
	var c virtio.Chain
	var head uint16
	held := false
	for {
		q.Disarm()
		if held && d.wanted() {
			q.Push(head, 0)
			q.Signal()
			held = false
		}
		for q.Pop(&c) {
			if held { // a driver has one buffer, and this one has more
				q.Push(head, 0)
			}
			head, held = c.Head, true
			if err := d.take(&c); err != nil {
				q.Fail(err)
				return
			}
		}
		if q.Arm() && !q.Wait() {
			return
		}
	}
}

// wanted reports whether somebody asked, and forgets it.
func (d *Device) wanted() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	asked := d.asked
	d.asked = false
	return asked
}

// take reads statistics; tags that are not known are left out.
func (d *Device) take(c *virtio.Chain) error {
	n := c.ReadLen()
	if len(c.Write) > 0 || n%statSize != 0 || n > maxStats {
		return virtio.ErrRequest
	}
	text := make([]byte, 0, n)
	for _, b := range c.Read {
		text = append(text, b...)
	}
	var s Stats
	for ; len(text) > 0; text = text[statSize:] {
		if field := s.field(order.Uint16(text)); field != nil {
			*field = order.Uint64(text[2:])
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stats = s
	return nil
}

func (s *Stats) field(tag uint16) *uint64 {
	switch tag {
	case statMajor:
		return &s.MajorFaults
	case statFree:
		return &s.Free
	case statTotal:
		return &s.Total
	case statAvailable:
		return &s.Available
	case statCaches:
		return &s.Caches
	}
	return nil
}
