// SPDX-License-Identifier: Apache-2.0

package iov_test

import (
	"bytes"
	"testing"

	"vmctl/monitor/iov"
)

func TestTake(t *testing.T) {
	for n := range uint64(9) {
		list := [][]byte{[]byte("ab"), {}, []byte("cde"), []byte("f")}
		head := iov.Take(&list, n)
		got, rest := bytes.Join(head, nil), bytes.Join(list, nil)
		if want := min(n, 6); iov.Len(head) != want || string(got)+string(rest) != "abcdef" {
			t.Errorf("%d bytes: %q and %q", n, got, rest)
		}
		iov.Zero(list)
		if iov.Len(list) > 0 && !bytes.Equal(bytes.Join(list, nil), make([]byte, iov.Len(list))) {
			t.Errorf("%d bytes: %q is not zero", n, list)
		}
	}
}
