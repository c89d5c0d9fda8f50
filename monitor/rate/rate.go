// SPDX-License-Identifier: Apache-2.0

// Package rate bounds how much a device does in a second. A bucket of tokens may be
// overdrawn by one operation, and lets the next begin at the moment when that is paid
// for: nothing has to be held back once it was begun, an operation may be larger than
// the burst, and what waits sleeps exactly as long as it must.
package rate

import (
	"errors"
	"sync"
	"time"

	"vmctl/monitor/wire"
)

// Limits of a Limit.
const (
	MinBytes = 4 << 10 // below, one request of a guest takes longer than it waits for any
	MaxBytes = 1 << 40
	MaxOps   = 1e9
	MaxBurst = time.Minute
	// DefaultBurst evens out what a host is late by.
	DefaultBurst = 100 * time.Millisecond
)

// ErrLimit is a Limit that is none.
var ErrLimit = errors.New("limit must be 4096 to 2^40 bytes, or 1 to 10^9 operations, in a second, with a burst of at most a minute")

// Limit is how much is done in a second at the most. The zero Limit limits nothing.
type Limit struct {
	Bytes uint64 // per second; 0: any number
	Ops   uint64 // likewise
	// Burst is how long a device saves what it did not use, to use it at once:
	// milliseconds, 0 for DefaultBurst.
	Burst uint32
}

// None reports that nothing is limited.
func (l Limit) None() bool { return l.Bytes == 0 && l.Ops == 0 }

// Validate checks the limits. errors.Is: ErrLimit.
func (l Limit) Validate() error {
	switch {
	case l.Bytes != 0 && (l.Bytes < MinBytes || l.Bytes > MaxBytes), l.Ops > MaxOps,
		l.Burst > uint32(MaxBurst/time.Millisecond), l.None() && l.Burst != 0:
		return ErrLimit
	}
	return nil
}

// Encode writes a limit; Decode reads it, and does not validate.
func (l *Limit) Encode(w *wire.Writer) {
	w.U64(l.Bytes)
	w.U64(l.Ops)
	w.U32(l.Burst)
}

// Decode is the other way.
func (l *Limit) Decode(r *wire.Reader) { l.Bytes, l.Ops, l.Burst = r.U64(), r.U64(), r.U32() }

// Bucket keeps a limit. Any goroutine may call Delay and Take.
type Bucket struct {
	now     func() time.Time
	limited bool // not written while it is used

	mu         sync.Mutex // guards what follows
	bytes, ops meter
}

// NewBucket is a bucket of a valid limit, and full.
func NewBucket(l Limit, now func() time.Time) *Bucket {
	burst := DefaultBurst
	if l.Burst != 0 {
		burst = time.Duration(l.Burst) * time.Millisecond
	}
	return &Bucket{now: now, limited: !l.None(), bytes: meter{perSecond: l.Bytes, burst: burst}, ops: meter{perSecond: l.Ops, burst: burst}}
}

// Delay is how long it is until the next operation may begin; 0: it may now.
func (b *Bucket) Delay() time.Duration {
	if !b.limited {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	return max(b.bytes.paid.Sub(now), b.ops.paid.Sub(now), 0)
}

// Take takes what one operation of so many bytes needs, 4 GiB at the most.
func (b *Bucket) Take(bytes uint64) {
	if !b.limited {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	b.bytes.take(bytes, now)
	b.ops.take(1, now)
}

// meter is a bucket of one kind, kept as a time: that by which all is paid for that was
// taken. It is at most a burst ago.
type meter struct {
	perSecond uint64
	burst     time.Duration
	paid      time.Time
	rest      uint64 // of a nanosecond, in 1/perSecond: so that no rate is rounded
}

func (m *meter) take(n uint64, now time.Time) {
	if m.perSecond == 0 {
		return
	}
	if full := now.Add(-m.burst); m.paid.Before(full) {
		m.paid, m.rest = full, 0
	}
	// Below 2^62, and so is what is added: a time in less than 150 years.
	owed := n*uint64(time.Second) + m.rest
	m.paid, m.rest = m.paid.Add(time.Duration(owed/m.perSecond)), owed%m.perSecond
}
