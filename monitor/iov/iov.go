// SPDX-License-Identifier: Apache-2.0

// Package iov is lists of buffers that are one behind the other, as system calls take
// them.
package iov

import "encoding/binary"

// Len is the bytes of all of them.
func Len(bufs [][]byte) (n uint64) {
	for _, b := range bufs {
		n += uint64(len(b))
	}
	return n
}

// Take cuts the first n bytes off a list, or all if there are fewer, and returns them. It
// uses the list's array.
func Take(bufs *[][]byte, n uint64) [][]byte {
	list := *bufs
	for k, b := range list {
		if uint64(len(b)) > n {
			head := list[:k:k]
			if n > 0 {
				head = append(head, b[:n])
			}
			list[k] = b[n:]
			*bufs = list[k:]
			return head
		}
		n -= uint64(len(b))
	}
	*bufs = nil
	return list
}

// Zero fills them with zeros.
func Zero(bufs [][]byte) {
	for _, b := range bufs {
		clear(b)
	}
}

// IsZero reports whether a buffer has nothing but zeros.
func IsZero(b []byte) bool {
	for ; len(b) >= 8; b = b[8:] {
		if binary.NativeEndian.Uint64(b) != 0 {
			return false
		}
	}
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
