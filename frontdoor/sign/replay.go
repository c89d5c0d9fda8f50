// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"bytes"
	"container/heap"
	"time"
)

// maxSeen bounds the memory of the cache to about 10 MiB. At our own signer's
// lifetime it takes more than 8,000 requests a second to reach it.
const maxSeen = 1 << 17

// replayCache remembers the nonces that were used until they have expired.
// When it is full it forgets the oldest and from then on refuses whatever was
// made no later than that one: it may refuse too much, but never too little.
type replayCache struct {
	most   int
	nonces map[[nonceSize]byte]struct{}
	order  nonceHeap
	floor  [nonceSize]byte // all up to here are refused
}

func newReplayCache(most int) replayCache {
	return replayCache{most: most, nonces: make(map[[nonceSize]byte]struct{})}
}

// add records the nonce of p. Errors: ErrReplayed, ErrStale.
func (c *replayCache) add(p params, now time.Time) error {
	c.purge(now)
	if _, ok := c.nonces[p.nonce]; ok {
		return ErrReplayed
	}
	if bytes.Compare(p.nonce[:], c.floor[:]) <= 0 {
		return ErrStale
	}
	if len(c.order) >= c.most {
		oldest := c.order[0]
		if bytes.Compare(p.nonce[:], oldest.nonce[:]) <= 0 {
			return ErrStale
		}
		c.floor = oldest.nonce
		c.drop()
	}
	c.nonces[p.nonce] = struct{}{}
	heap.Push(&c.order, p)
	return nil
}

// purge drops from the oldest on what no longer can be accepted: everything
// lives MaxLife at most, whatever its own expires says.
func (c *replayCache) purge(now time.Time) {
	for len(c.order) > 0 && now.Round(0).Sub(c.order[0].made()) > MaxLife+skew {
		c.drop()
	}
}

func (c *replayCache) drop() {
	delete(c.nonces, c.order[0].nonce)
	heap.Pop(&c.order)
}

// nonceHeap orders by nonce, which begins with the time: oldest first.
type nonceHeap []params

func (h nonceHeap) Len() int           { return len(h) }
func (h nonceHeap) Less(i, j int) bool { return bytes.Compare(h[i].nonce[:], h[j].nonce[:]) < 0 }
func (h nonceHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *nonceHeap) Push(x any)        { *h = append(*h, x.(params)) }

func (h *nonceHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}
