// SPDX-License-Identifier: Apache-2.0

package abi

import "unsafe"

// Raw is a structure of the kernel as it lies in memory: to write it down, and to fill
// it again. T is a type of this package, which has no pointers.
func Raw[T any](v *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v))
}

// RawList is the same of many.
func RawList[T any](v []T) []byte {
	var one T
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), uintptr(len(v))*unsafe.Sizeof(one))
}
