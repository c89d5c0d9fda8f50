// SPDX-License-Identifier: Apache-2.0

package rng

import "testing"

func TestFill(t *testing.T) {
	a, b := make([]byte, 100), make([]byte, 8192)
	if n := fill([][]byte{a, b}); n != maxBytes {
		t.Errorf("%d bytes", n)
	}
	zeros := 0
	for _, v := range append(a, b[:maxBytes-100]...) {
		if v == 0 {
			zeros++
		}
	}
	if zeros > maxBytes/64 {
		t.Errorf("%d bytes of %d are zero", zeros, maxBytes)
	}
	for _, v := range b[maxBytes-100:] {
		if v != 0 {
			t.Fatal("more was filled than it said")
		}
	}
	if n := fill(nil); n != 0 {
		t.Errorf("%d bytes of none", n)
	}
}
