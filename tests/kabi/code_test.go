// SPDX-License-Identifier: Apache-2.0

//go:build lab

package kabi

// Code of tiny guests, 16-bit.

var (
	hlt = []byte{0xf4}
	cli = []byte{0xfa}
	// spin is: jmp to itself.
	spin = []byte{0xeb, 0xfe}
	// count is: inc dword [dataAddr]; jmp back.
	count = []byte{0x66, 0xff, 0x06, dataAddr & 0xff, dataAddr >> 8, 0xeb, 0xf9}
	// tripleFault is: lidt of an empty table; int3.
	tripleFault = []byte{0x0f, 0x01, 0x1e, 0x00, 0x20, 0xcc}
)

// out8 is: mov al, value; out port, al.
func out8(port, value byte) []byte { return []byte{0xb0, value, 0xe6, port} }

// outLoop is: mov al, 1; then out port, al for ever.
func outLoop(port byte) []byte { return []byte{0xb0, 1, 0xe6, port, 0xeb, 0xfc} }

// in8 is: in al, port; then out port+1, al.
func in8(port byte) []byte { return []byte{0xe4, port, 0xe6, port + 1} }

// store8 is: mov byte [di], value, with es:di at seg<<4+off.
func store8(seg, off uint16, value byte) []byte {
	return []byte{
		0xb8, byte(seg), byte(seg >> 8), 0x8e, 0xc0, // mov ax, seg; mov es, ax
		0xbf, byte(off), byte(off >> 8), // mov di, off
		0x26, 0xc6, 0x05, value, // mov byte es:[di], value
	}
}

// storeLong is: mov dword es:[di], value.
func storeLong(seg, off uint16, value uint32) []byte {
	return []byte{
		0xb8, byte(seg), byte(seg >> 8), 0x8e, 0xc0,
		0xbf, byte(off), byte(off >> 8),
		0x26, 0x66, 0xc7, 0x05, byte(value), byte(value >> 8), byte(value >> 16), byte(value >> 24),
	}
}

// load8 is: mov al, es:[di]; out port, al.
func load8(seg, off uint16, port byte) []byte {
	return []byte{
		0xb8, byte(seg), byte(seg >> 8), 0x8e, 0xc0,
		0xbf, byte(off), byte(off >> 8),
		0x26, 0x8a, 0x05, 0xe6, port,
	}
}

// waitIRQ is: sti; hlt; jmp back to hlt. Its handler counts.
var waitIRQ = []byte{0xfb, 0xf4, 0xeb, 0xfd}
