// SPDX-License-Identifier: Apache-2.0

package login

import (
	"net/netip"
	"sync"
	"time"
)

// Limits on wrong passwords. A single address is held back well before it
// could use up what a user has over all addresses, so that nobody can lock an
// operator out from one place.
var (
	pairLimit    = limit{12 * time.Second, 5}
	addressLimit = limit{3 * time.Second, 20}
	userLimit    = limit{2 * time.Second, 40}
)

// maxBuckets bounds what strangers can make us remember, per kind of bucket.
const maxBuckets = 8192

// limit is a burst of attempts, and one more each interval.
type limit struct {
	interval time.Duration
	burst    float64
}

// limiter holds back those who guess passwords, by address and by user. An
// attempt costs when it begins and is given back when the password was right,
// so that many at once are counted too; golang.org/x/time/rate has no way to
// give back.
type limiter struct {
	mu      sync.Mutex
	pair    buckets // guarded by mu, as the others
	address buckets
	user    buckets
}

func newLimiter() *limiter {
	return &limiter{pair: newBuckets(pairLimit), address: newBuckets(addressLimit), user: newBuckets(userLimit)}
}

// attempt takes from each bucket; when one is empty it takes from none and
// says how long that lasts. refund puts back what was taken.
func (l *limiter) attempt(addr netip.Addr, user string, now time.Time) (refund func(), wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	place := network(addr)
	taken := []*bucket{
		l.pair.get(place+" "+user, now), l.address.get(place, now), l.user.get(user, now),
	}
	for _, b := range taken {
		wait = max(wait, b.wait(now))
	}
	if wait > 0 {
		return nil, wait
	}
	for _, b := range taken {
		b.left--
	}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, b := range taken {
			b.left = min(b.left+1, b.limit.burst)
		}
	}, 0
}

// network is what one customer has: an IPv4 address, or an IPv6 /64.
func network(addr netip.Addr) string {
	addr = addr.Unmap().WithZone("")
	if addr.Is6() {
		if p, err := addr.Prefix(64); err == nil {
			return p.String()
		}
	}
	return addr.String()
}

// bucket holds left attempts as of the time at.
type bucket struct {
	limit limit
	left  float64
	at    time.Time
}

func (b *bucket) fill(now time.Time) {
	if d := now.Sub(b.at); d > 0 {
		b.left = min(b.limit.burst, b.left+float64(d)/float64(b.limit.interval))
		b.at = now
	}
}

// wait is the time until there is an attempt to take.
func (b *bucket) wait(now time.Time) time.Duration {
	b.fill(now)
	if b.left >= 1 {
		return 0
	}
	return max(time.Millisecond, time.Duration((1-b.left)*float64(b.limit.interval)))
}

// buckets are made when first needed and forgotten when full again, which is
// the same as never used. While there is no room, all new ones share one.
type buckets struct {
	limit  limit
	by     map[string]*bucket
	shared *bucket
}

func newBuckets(l limit) buckets {
	return buckets{l, make(map[string]*bucket), &bucket{limit: l, left: l.burst}}
}

func (b *buckets) get(key string, now time.Time) *bucket {
	if have := b.by[key]; have != nil {
		return have
	}
	if len(b.by) >= maxBuckets {
		b.purge(now)
	}
	if len(b.by) >= maxBuckets {
		return b.shared
	}
	fresh := &bucket{b.limit, b.limit.burst, now}
	b.by[key] = fresh
	return fresh
}

func (b *buckets) purge(now time.Time) {
	for key, have := range b.by {
		if have.fill(now); have.left >= b.limit.burst {
			delete(b.by, key)
		}
	}
}
