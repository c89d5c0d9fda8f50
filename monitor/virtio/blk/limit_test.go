// SPDX-License-Identifier: Apache-2.0

package blk

import (
	"bytes"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"vmctl/monitor/rate"
)

// atLeast fails when what a limit makes last for a time was faster. How much slower it
// was is the machine's affair; the lab measures that.
func atLeast(t *testing.T, want time.Duration, do func()) {
	t.Helper()
	start := time.Now()
	if do(); time.Since(start) < want {
		t.Errorf("took %v, the limit makes it %v", time.Since(start), want)
	}
}

func TestLimit(t *testing.T) {
	both(t, func(t *testing.T, workers bool) {
		d, _, content := disk(t, workers, Options{Queues: 2, Limit: rate.Limit{Bytes: 1 << 20, Burst: 1}}, 0)
		atLeast(t, 120*time.Millisecond, func() { // 128 KiB, the last of them begun before it is paid for
			for range 8 {
				for _, r := range d.Do(0, read(0, 4096), read(8, 4096), read(0, 4096), read(8, 4096)) {
					if status(r) != statusOK || !bytes.Equal(r.Write[0], content[:4096]) && !bytes.Equal(r.Write[0], content[4096:8192]) {
						t.Fatal("other bytes")
					}
				}
			}
		})
	})
}

// FuzzLimit: what waits for a limit, on all queues, is neither lost nor disturbed by
// changes of it; and neither a change nor a reset waits for it.
func FuzzLimit(f *testing.F) {
	f.Add(true, uint16(500), []byte{1, 2, 3, 250, 9, 77})
	f.Add(false, uint16(500), []byte{1, 2, 3, 250, 9, 77})
	f.Fuzz(func(t *testing.T, workers bool, ops uint16, program []byte) {
		limit := rate.Limit{Ops: uint64(ops%5000 + 500), Burst: 1}
		d, path, content := disk(t, workers, Options{Queues: 2, Limit: limit}, 0)
		var mu sync.Mutex // guards content
		var all sync.WaitGroup
		for q := range 2 {
			all.Go(func() {
				r := rand.New(rand.NewPCG(uint64(q), uint64(ops)))
				for _, p := range program[:min(len(program), 16)] {
					first := uint64(q*diskSectors/2) + uint64(p)%(diskSectors/2-8)
					data := bytes.Repeat([]byte{byte(r.Uint32())}, sector*(1+r.IntN(8)))
					mu.Lock()
					copy(content[first*sector:], data)
					mu.Unlock()
					results := d.Do(q, write(first, data))
					if len(results) != 1 || status(results[0]) != statusOK {
						t.Error("a write is lost")
					}
				}
			})
		}
		for _, p := range program[:min(len(program), 16)] {
			d.Alter(func() error {
				d.Device().(limiter).SetLimit(rate.Limit{Ops: limit.Ops * uint64(1+p%2), Burst: 1})
				return nil
			})
		}
		all.Wait()
		// Two seconds for a request, and a reset that does not take so long.
		d.Alter(func() error { d.Device().(limiter).SetLimit(rate.Limit{Bytes: rate.MinBytes, Burst: 1}); return nil })
		d.Begin(0, read(0, 8192), read(0, 8192), read(0, 8192))
		d.Begin(1, read(0, 8192), read(0, 8192))
		d.Reset()
		if file, err := os.ReadFile(path); err != nil || !bytes.Equal(file, content) {
			t.Errorf("the file differs: %v", err)
		}
	})
}

// limiter is a disk, also one with workers.
type limiter interface{ SetLimit(rate.Limit) }

// TestAlterWhileHeldBack: requests that a limit would hold back for seconds are done as
// soon as it is lifted, in their order and all of them.
func TestAlterWhileHeldBack(t *testing.T) {
	both(t, func(t *testing.T, workers bool) {
		d, _, content := disk(t, workers, Options{Limit: rate.Limit{Bytes: rate.MinBytes, Burst: 1}}, 0)
		got := d.Begin(0, read(0, 8192), read(0, 4096), read(8, 4096), read(16, 4096))
		d.Alter(func() error { d.Device().(limiter).SetLimit(rate.Limit{}); return nil })
		d.Do(0)
		for i, r := range got[1:] {
			if !bytes.Equal(r.Write[0], content[i*4096:][:4096]) {
				t.Errorf("request %d was not done", i+1)
			}
		}
	})
}
