// SPDX-License-Identifier: Apache-2.0

package rate

import (
	"errors"
	"testing"
	"time"
)

// clock is a time that stands still until it is told.
type clock struct{ t time.Time }

func newClock() *clock                   { return &clock{time.Unix(1e9, 0)} }
func (c *clock) now() time.Time          { return c.t }
func (c *clock) advance(d time.Duration) { c.t = c.t.Add(d) }

// run does operations of a size, each as early as it may be, and says how long they took.
func run(b *Bucket, c *clock, n int, size uint64) time.Duration {
	start := c.t
	for range n {
		c.advance(b.Delay())
		b.Take(size)
	}
	c.advance(b.Delay())
	return c.t.Sub(start)
}

func TestExact(t *testing.T) {
	for name, tt := range map[string]struct {
		limit Limit
		n     int
		size  uint64
		want  time.Duration
	}{
		"nothing":          {Limit{}, 1000, 1 << 30, 0},
		"bytes":            {Limit{Bytes: 1 << 20, Burst: 1000}, 1024, 4096, 3 * time.Second},
		"operations":       {Limit{Ops: 100, Burst: 1000}, 1000, 4096, 9 * time.Second},
		"stricter of both": {Limit{Bytes: 1 << 20, Ops: 10, Burst: 1000}, 100, 4096, 9 * time.Second},
		"default burst":    {Limit{Ops: 100}, 110, 0, time.Second},
		"above the burst":  {Limit{Bytes: 1 << 20, Burst: 1}, 1, 1 << 30, 1024*time.Second - time.Millisecond},
		// 3 in a second have no whole number of nanoseconds.
		"no rounding": {Limit{Ops: 3, Burst: 1000}, 3003, 0, 1000 * time.Second},
		"of no bytes": {Limit{Bytes: MinBytes}, 1000, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClock()
			if got := run(NewBucket(tt.limit, c.now), c, tt.n, tt.size); got != tt.want {
				t.Errorf("took %v, want %v", got, tt.want)
			}
		})
	}
}

// TestBurst: what was not used is kept, but not more than a burst of it.
func TestBurst(t *testing.T) {
	c := newClock()
	b := NewBucket(Limit{Ops: 10, Burst: 1000}, c.now)
	run(b, c, 100, 0)
	for _, idle := range []time.Duration{0, 500 * time.Millisecond, time.Second, time.Hour} {
		c.advance(idle)
		saved := min(idle, time.Second)
		if got, want := run(b, c, 20, 0), 2*time.Second-saved; got != want {
			t.Errorf("after %v idle 20 took %v, want %v", idle, got, want)
		}
	}
}

// FuzzRate: whatever a guest asks for and whenever, it never gets more in any stretch of
// time than rate and burst allow and the one operation that may overdraw.
func FuzzRate(f *testing.F) {
	f.Add(uint32(10), uint16(100), []byte{1, 200, 3, 255, 0, 0, 9, 40})
	f.Fuzz(func(t *testing.T, ops uint32, burst uint16, program []byte) {
		l := Limit{Ops: uint64(ops%1000 + 1), Burst: uint32(burst%5000 + 1)}
		c := newClock()
		b := NewBucket(l, c.now)
		var begun []time.Time
		for _, p := range program {
			if c.advance(time.Duration(p) * time.Millisecond); b.Delay() > 0 {
				if p%2 == 0 {
					continue // gives up, and comes back
				}
				c.advance(b.Delay())
			}
			if d := b.Delay(); d != 0 {
				t.Fatalf("after the delay there is one of %v", d)
			}
			b.Take(1 << 20)
			begun = append(begun, c.t)
		}
		for i, from := range begun {
			for j, to := range begun[i:] {
				span := to.Sub(from) + time.Duration(l.Burst)*time.Millisecond
				if allowed := uint64(span)*l.Ops/uint64(time.Second) + 1; uint64(j) > allowed {
					t.Fatalf("%d in %v", j+1, to.Sub(from))
				}
			}
		}
	})
}

func TestValidate(t *testing.T) {
	for _, l := range []Limit{{}, {Bytes: MinBytes}, {Bytes: MaxBytes, Ops: MaxOps, Burst: 60000}, {Ops: 1, Burst: 1}} {
		if err := l.Validate(); err != nil {
			t.Errorf("%+v: %v", l, err)
		}
	}
	for _, l := range []Limit{{Bytes: 1}, {Bytes: MinBytes - 1}, {Bytes: MaxBytes + 1}, {Ops: MaxOps + 1}, {Ops: 1, Burst: 60001}, {Burst: 5}} {
		if err := l.Validate(); !errors.Is(err, ErrLimit) {
			t.Errorf("%+v: %v", l, err)
		}
	}
}
