// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

// Where a guest finds things. Memory ends at areaSize; what is above is a device.
const (
	codeAddr  = 0x1000
	codeEach  = 0x100
	dataAddr  = 0x5000
	emptyAddr = 0x6000 // zeros
	stackAddr = 0x8000
	doorAddr  = 0x30000
	portAddr  = 0x10
)

// stays are the programs from which a run may not come back by itself.
var stays = map[int]bool{0: true, 4: true, 9: true}

// programs are tiny guests, 16-bit, at codeAddr and each codeEach on.
var programs = [][]byte{
	{0xf4, 0xeb, 0xfd},                               // hlt; again
	{0xb0, 1, 0xe6, portAddr, 0xeb, 0xfc},            // out port, al; again
	{0xe4, portAddr, 0xe6, portAddr + 1, 0xeb, 0xfa}, // in al, port; out port+1, al; again
	// inc dword [data]; out port, al; again: each RUN leaves a dirty page
	{0x66, 0xff, 0x06, dataAddr & 0xff, dataAddr >> 8, 0xe6, portAddr, 0xeb, 0xf7},
	// inc dword [data]; again: a loop that never exits
	{0x66, 0xff, 0x06, dataAddr & 0xff, dataAddr >> 8, 0xeb, 0xf9},
	// xor eax, eax; cpuid; out port, al; again
	{0x66, 0x31, 0xc0, 0x0f, 0xa2, 0xe6, portAddr, 0xeb, 0xf7},
	// mov ax, door>>4; mov es, ax; xor di, di; mov byte es:[di], 7; again
	{0xb8, doorAddr >> 4 & 0xff, doorAddr >> 12, 0x8e, 0xc0, 0x31, 0xff, 0x26, 0xc6, 0x05, 7, 0xeb, 0xfa},
	// the same with: mov eax, es:[di]
	{0xb8, doorAddr >> 4 & 0xff, doorAddr >> 12, 0x8e, 0xc0, 0x31, 0xff, 0x26, 0x66, 0x8b, 0x05, 0xeb, 0xf9},
	// lidt [empty]; int3: a triple fault
	{0x0f, 0x01, 0x1e, emptyAddr & 0xff, emptyAddr >> 8, 0xcc},
	// sti; hlt; again: waits for interrupts
	{0xfb, 0xf4, 0xeb, 0xfd},
	// mov si, code; mov cx, 64; mov dx, port; rep outsb; again
	{0xbe, 0, codeAddr >> 8, 0xb9, 64, 0, 0xba, portAddr, 0, 0xf3, 0x6e, 0xeb, 0xf3},
	// mov ecx, 0xdead0000; wrmsr; a fault, its handler at 0:0 is whatever is there
	{0x66, 0xb9, 0, 0, 0xad, 0xde, 0x0f, 0x30, 0xf4},
	// vmcall of KVM, number 1, then out
	{0x66, 0xb8, 1, 0, 0, 0, 0x0f, 0x01, 0xc1, 0xe6, portAddr, 0xeb, 0xf3},
}

// image is what an area holds at first.
func image() []byte {
	mem := make([]byte, areaSize)
	for i, p := range programs {
		copy(mem[codeAddr+i*codeEach:], p)
	}
	return mem
}
