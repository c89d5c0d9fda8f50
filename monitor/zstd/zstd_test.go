// SPDX-License-Identifier: Apache-2.0

package zstd_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	kzstd "github.com/klauspost/compress/zstd"

	"vmctl/monitor/zstd"
)

// contents are bytes that are packed in many ways.
func contents(r *rand.Rand) []byte {
	n := r.IntN(1 << r.IntN(22))
	b := make([]byte, 0, n+64)
	for len(b) < n {
		switch r.IntN(6) {
		case 0:
			for range r.IntN(1000) {
				b = append(b, byte(r.Uint32()))
			}
		case 1:
			b = append(b, bytes.Repeat([]byte{byte(r.Uint32())}, r.IntN(5000))...)
		case 2:
			for range r.IntN(3000) {
				b = append(b, "etaoin shrdlu"[min(r.IntN(13), r.IntN(13))])
			}
		case 3:
			if len(b) > 0 {
				from := r.IntN(len(b))
				b = append(b, b[from:min(from+r.IntN(3000), len(b))]...)
			}
		case 4:
			b = fmt.Appendf(b, "line %d of %d;", r.IntN(100), len(b))
		case 5:
			for range r.IntN(500) {
				b = append(b, byte(r.IntN(4)))
			}
		}
	}
	return b[:n]
}

func encoders(t testing.TB) (list []*kzstd.Encoder) {
	t.Helper()
	for _, l := range []kzstd.EncoderLevel{kzstd.SpeedFastest, kzstd.SpeedDefault, kzstd.SpeedBetterCompression, kzstd.SpeedBestCompression} {
		for _, crc := range []bool{false, true} {
			e, err := kzstd.NewWriter(nil, kzstd.WithEncoderLevel(l), kzstd.WithEncoderCRC(crc), kzstd.WithSingleSegment(crc))
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, e)
		}
	}
	return list
}

// What another implementation packs comes back, and not a byte behind it is needed.
func TestComesBack(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	var d zstd.Decoder
	list := encoders(t)
	for i := range 400 {
		want := contents(r)
		packed := list[i%len(list)].EncodeAll(want, nil)
		got := make([]byte, len(want))
		if err := d.Decode(got, append(packed, "and what is not its own"...)); len(want) > 0 && (err != nil || !bytes.Equal(got, want)) {
			t.Fatalf("%d: %d bytes of %d: %v", i, len(packed), len(want), err)
		}
		for _, n := range []int{len(want) - 1, len(want) + 1} {
			if n > 0 {
				if err := d.Decode(make([]byte, n), packed); !errors.Is(err, zstd.ErrCorrupt) {
					t.Fatalf("%d: %d bytes for %d: %v", i, n, len(want), err)
				}
			}
		}
		if len(packed) > 12 && len(want) > 0 {
			if err := d.Decode(got, packed[:len(packed)/2]); !errors.Is(err, zstd.ErrCorrupt) {
				t.Fatalf("%d: half of it: %v", i, err)
			}
		}
	}
}

// The program of the format's authors packs at every level.
func TestOfZstd(t *testing.T) {
	if _, err := exec.LookPath("zstd"); err != nil {
		t.Fatalf("%v: install zstd", err)
	}
	r := rand.New(rand.NewPCG(2, 1))
	path := filepath.Join(t.TempDir(), "f")
	var d zstd.Decoder
	for level := 1; level <= 22; level++ {
		want := contents(r)
		for len(want) < 1000 {
			want = contents(r)
		}
		if err := os.WriteFile(path, want, 0o600); err != nil {
			t.Fatal(err)
		}
		packed, err := exec.Command("zstd", "--ultra", "-"+strconv.Itoa(level), "-c", path).Output()
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(want))
		if err := d.Decode(got, packed); err != nil || !bytes.Equal(got, want) {
			t.Errorf("level %d: %d bytes of %d: %v", level, len(packed), len(want), err)
		}
	}
}

// differs compares what is made of any bytes with what another implementation makes. It
// refuses more or less: a checksum, what comes behind the frame.
func differs(t *testing.T, other *kzstd.Decoder, d *zstd.Decoder, packed []byte, n int) (same bool) {
	t.Helper()
	got := make([]byte, n)
	if d.Decode(got, packed) != nil {
		return false
	}
	want, err := other.DecodeAll(packed, make([]byte, 0, n))
	if err == nil && len(want) == n && !bytes.Equal(got, want) {
		t.Errorf("%d other bytes of %x", n, packed)
	}
	return err == nil
}

func newOther(t testing.TB) *kzstd.Decoder {
	t.Helper()
	other, err := kzstd.NewReader(nil, kzstd.WithDecoderConcurrency(1), kzstd.WithDecoderMaxMemory(4<<20), kzstd.IgnoreChecksum(true))
	if err != nil {
		t.Fatal(err)
	}
	return other
}

// Damaged bytes are refused, or make what they make elsewhere.
func TestDamaged(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 1))
	other := newOther(t)
	var d zstd.Decoder
	same := 0
	for _, e := range encoders(t) {
		want := contents(r)
		for len(want) < 1000 || len(want) > 100000 {
			want = contents(r)
		}
		packed := e.EncodeAll(want, nil)
		for range 1000 {
			b := bytes.Clone(packed)
			for range 1 + r.IntN(3) {
				b[r.IntN(len(b))] ^= 1 << r.IntN(8)
			}
			if differs(t, other, &d, b, len(want)) {
				same++
			}
		}
	}
	if same == 0 {
		t.Error("nothing damaged could be unpacked by both")
	}
}

func FuzzDecode(f *testing.F) {
	r := rand.New(rand.NewPCG(4, 1))
	for _, e := range encoders(f) {
		for range 4 {
			b := contents(r)
			b = b[:min(len(b), 3000)]
			f.Add(e.EncodeAll(b, nil), uint16(len(b)))
		}
	}
	other := newOther(f)
	var d zstd.Decoder
	f.Fuzz(func(t *testing.T, packed []byte, n uint16) { differs(t, other, &d, packed, int(n)) })
}

func BenchmarkDecode(b *testing.B) {
	var want []byte
	for i := 0; len(want) < 64<<10; i++ {
		want = fmt.Appendf(want, "line %d of a file of text that is packed, %x\n", i, i*i)
	}
	want = want[:64<<10]
	packed := encoders(b)[2].EncodeAll(want, nil)
	got := make([]byte, len(want))
	b.SetBytes(int64(len(want)))
	var d zstd.Decoder
	for b.Loop() {
		if err := d.Decode(got, packed); err != nil {
			b.Fatal(err)
		}
	}
}
