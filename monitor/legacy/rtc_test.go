// SPDX-License-Identifier: Apache-2.0

package legacy_test

import (
	"testing"
	"time"

	"vmctl/monitor/legacy"
)

var noon = time.Date(2031, 12, 31, 13, 45, 59, 0, time.UTC)

// wall is a clock that a test moves.
type wall struct{ t time.Time }

func (w *wall) now() time.Time { return w.t }

func get(r *legacy.RTC, reg uint8) uint8 { r.Out(0, reg); return r.In(1) }

func put(r *legacy.RTC, reg, v uint8) { r.Out(0, reg); r.Out(1, v) }

func shows(t *testing.T, r *legacy.RTC, want map[uint8]uint8) {
	t.Helper()
	for reg, v := range want {
		if got := get(r, reg); got != v {
			t.Errorf("register %#x shows %#x, want %#x", reg, got, v)
		}
	}
}

func TestTimeInBCD(t *testing.T) {
	r := legacy.NewRTC((&wall{noon}).now)
	shows(t, r, map[uint8]uint8{0: 0x59, 2: 0x45, 4: 0x13, 6: 4, 7: 0x31, 8: 0x12, 9: 0x31, 0x32: 0x20, 0x0a: 0x26, 0x0b: 2, 0x0c: 0, 0x0d: 0x80})
}

func TestTimeInBinaryAndTwelveHours(t *testing.T) {
	w := &wall{noon}
	r := legacy.NewRTC(w.now)
	put(r, 0x0b, 4)
	shows(t, r, map[uint8]uint8{0: 59, 2: 45, 4: 0x81, 9: 31})
	for hour, want := range map[int]uint8{0: 12, 1: 1, 11: 11, 12: 0x8c, 23: 0x8b} {
		w.t = time.Date(2031, 1, 1, hour, 0, 0, 0, time.UTC)
		if got := get(r, 4); got != want {
			t.Errorf("hour %d shows %#x, want %#x", hour, got, want)
		}
	}
}

func TestGuestSetsTheTime(t *testing.T) {
	w := &wall{noon}
	r := legacy.NewRTC(w.now)
	put(r, 0x0b, 0x82)
	for reg, v := range map[uint8]uint8{0: 0x10, 2: 0x20, 4: 0x08, 7: 0x15, 8: 0x06, 9: 0x40, 0x32: 0x20} {
		put(r, reg, v)
	}
	w.t = w.t.Add(time.Hour)
	put(r, 0x0b, 2)
	w.t = w.t.Add(5 * time.Second)
	shows(t, r, map[uint8]uint8{0: 0x15, 2: 0x20, 4: 0x08, 7: 0x15, 8: 0x06, 9: 0x40})
	r.Reset()
	shows(t, r, map[uint8]uint8{9: 0x40})
}

func TestSetOneFieldOfARunningClock(t *testing.T) {
	r := legacy.NewRTC((&wall{noon}).now)
	put(r, 2, 0x07)
	shows(t, r, map[uint8]uint8{0: 0x59, 2: 0x07, 4: 0x13})
}

func TestMemoryStays(t *testing.T) {
	r := legacy.NewRTC((&wall{noon}).now)
	put(r, 0x7f, 0xa5)
	put(r, 0xff, 0x5a) // the top bit of the index masks the NMI
	r.Reset()
	shows(t, r, map[uint8]uint8{0x7f: 0x5a})
}

func FuzzRTC(f *testing.F) {
	f.Add([]byte{0x0b, 0x82, 9, 0xff, 0x0b, 0x06})
	f.Fuzz(func(t *testing.T, ops []byte) {
		r := legacy.NewRTC((&wall{noon}).now)
		for len(ops) >= 2 {
			put(r, ops[0], ops[1])
			get(r, ops[1])
			ops = ops[2:]
		}
		if get(r, 0x0a)&0x80 != 0 {
			t.Fatal("an update is in progress for ever")
		}
	})
}
