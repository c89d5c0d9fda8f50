// SPDX-License-Identifier: Apache-2.0

//go:build lab

package vmtest_test

import "encoding/binary"

// code is machine code of 64-bit mode that runs wherever it lies: a guest that needs no
// compiler. Each of its steps uses RAX, RCX, RDX, RSI and RDI as it likes.
type code []byte

var order = binary.LittleEndian

// bytes appends instructions.
func (c *code) bytes(b ...byte) { *c = append(*c, b...) }

// word and long append an instruction that ends with a number.
func (c *code) word(v uint32, instruction ...byte) {
	*c = order.AppendUint32(append(*c, instruction...), v)
}

func (c *code) long(v uint64, instruction ...byte) {
	*c = order.AppendUint64(append(*c, instruction...), v)
}

// sized appends an instruction whose opcode for bytes is one less than that for more.
func (c *code) sized(size int, opcode byte, operands ...byte) {
	switch size {
	case 1:
		opcode--
	case 2:
		c.bytes(0x66)
	case 8:
		c.bytes(0x48)
	}
	c.bytes(append([]byte{opcode}, operands...)...)
}

// out and in access a port by 1, 2 or 4 bytes.
func (c *code) out(size int, port uint16, v uint32) {
	c.word(uint32(port), 0xba) // mov edx, port
	c.word(v, 0xb8)            // mov eax, v
	c.sized(size, 0xef)        // out dx, eax
}

func (c *code) in(size int, port uint16) {
	c.word(uint32(port), 0xba) // mov edx, port
	c.sized(size, 0xed)        // in eax, dx
}

// outs and ins move n units between a port and memory.
func (c *code) outs(size int, port uint16, from uint64, n uint32) {
	c.word(uint32(port), 0xba) // mov edx, port
	c.long(from, 0x48, 0xbe)   // mov rsi, from
	c.word(n, 0xb9)            // mov ecx, n
	c.bytes(0xf3)              // rep
	c.sized(size, 0x6f)        // outs
}

func (c *code) ins(size int, port uint16, to uint64, n uint32) {
	c.word(uint32(port), 0xba) // mov edx, port
	c.long(to, 0x48, 0xbf)     // mov rdi, to
	c.word(n, 0xb9)            // mov ecx, n
	c.bytes(0xf3)              // rep
	c.sized(size, 0x6d)        // ins
}

// store and load access memory by 1, 2, 4 or 8 bytes.
func (c *code) store(size int, addr, v uint64) {
	c.long(addr, 0x48, 0xbf)  // mov rdi, addr
	c.long(v, 0x48, 0xb8)     // mov rax, v
	c.sized(size, 0x89, 0x07) // mov [rdi], rax
}

func (c *code) load(size int, addr uint64) {
	c.long(addr, 0x48, 0xbf)  // mov rdi, addr
	c.sized(size, 0x8b, 0x07) // mov rax, [rdi]
}

// add reads and writes in one instruction.
func (c *code) add(size int, addr uint64) {
	c.long(addr, 0x48, 0xbf)  // mov rdi, addr
	c.sized(size, 0x01, 0x07) // add [rdi], rax
}

// copy moves n bytes one by one.
func (c *code) copy(to, from uint64, n uint32) {
	c.long(to, 0x48, 0xbf)   // mov rdi, to
	c.long(from, 0x48, 0xbe) // mov rsi, from
	c.word(n, 0xb9)          // mov ecx, n
	c.bytes(0xf3, 0xa4)      // rep movsb
}

// pause lets others work.
func (c *code) pause(n uint32) {
	c.word(n, 0xb9)     // mov ecx, n
	c.bytes(0xf3, 0x90) // again: pause
	c.bytes(0xff, 0xc9) // dec ecx
	c.bytes(0x75, 0xfa) // jnz again
}

// until reads a byte until one of some bits is set, or n times.
func (c *code) until(addr uint64, bits byte, n uint32) {
	c.long(addr, 0x48, 0xbf)  // mov rdi, addr
	c.word(n, 0xb9)           // mov ecx, n
	c.bytes(0xf6, 0x07, bits) // again: test byte [rdi], bits
	c.bytes(0x75, 0x04)       // jnz done
	c.bytes(0xff, 0xc9)       // dec ecx
	c.bytes(0x75, 0xf7)       // jnz again; done:
}

// move copies some bits of a word.
func (c *code) move(to, from uint64, bits uint32) {
	c.load(4, from)
	c.word(bits, 0x25)     // and eax, bits
	c.long(to, 0x48, 0xbf) // mov rdi, to
	c.sized(4, 0x89, 0x07) // mov [rdi], eax
}

// say prints a text on the serial port, whatever was done to that.
func (c *code) say(text string) {
	c.out(1, com1+3, 3) // 8 bits, no divisor
	c.out(1, com1+4, 0) // no loop
	for _, b := range []byte(text) {
		c.out(1, com1, uint32(b))
	}
}

const com1 = 0x3f8

// sayAt prints a byte of memory.
func (c *code) sayAt(addr uint64) {
	c.load(1, addr)
	c.word(com1, 0xba) // mov edx, com1
	c.bytes(0xee)      // out dx, al
}

// deaf turns the local interrupt controller off: no message reaches the processor, be it
// one that resets it.
func (c *code) deaf() {
	c.word(0x1b, 0xb9)        // mov ecx, IA32_APIC_BASE
	c.bytes(0x0f, 0x32)       // rdmsr
	c.bytes(0x80, 0xe4, 0xf7) // and ah, not 8
	c.bytes(0x0f, 0x30)       // wrmsr
}

// wake starts the other processor.
func (c *code) wake() {
	const command, reset, start = 0xfee00300, 0xc4500, 0xc4600 // to all but oneself
	c.store(4, command, reset)
	c.pause(1 << 16)
	c.store(4, command, start|secondPage)
}

// halt sleeps for good.
func (c *code) halt() {
	c.bytes(0xfa)             // cli
	c.bytes(0xf4, 0xeb, 0xfd) // again: hlt; jmp again
}

// toBIOS is a jump in real mode to F000:at.
func toBIOS(at uint16) []byte { return []byte{0xea, byte(at), byte(at >> 8), 0, 0xf0} }

// longMode is what a processor does to get from real mode, where it runs at F000:at, to
// code in 64-bit mode. Behind it are its descriptors. The tables of pages are another's.
func longMode(at uint16, pages, start uint32) []byte {
	const segment = 0xf0000
	var c code
	c.bytes(0xfa, 0x2e, 0x66, 0x0f, 0x01, 0x16) // cli; lgdt cs:[pointer]
	pointer := len(c)
	c.bytes(0, 0)
	c.word(1<<5, 0x66, 0xb8)       // mov eax, PAE
	c.bytes(0x0f, 0x22, 0xe0)      // mov cr4, eax
	c.word(pages, 0x66, 0xb8)      // mov eax, pages
	c.bytes(0x0f, 0x22, 0xd8)      // mov cr3, eax
	c.word(0xc0000080, 0x66, 0xb9) // mov ecx, EFER
	c.bytes(0x0f, 0x32)            // rdmsr
	c.word(1<<8, 0x66, 0x0d)       // or eax, LME
	c.bytes(0x0f, 0x30)            // wrmsr
	c.bytes(0x0f, 0x20, 0xc0)      // mov eax, cr0
	c.word(1<<31|1, 0x66, 0x0d)    // or eax, PG or PE
	c.bytes(0x0f, 0x22, 0xc0)      // mov cr0, eax
	c.word(start, 0x66, 0xea)      // jmp 8:start
	c.bytes(8, 0)
	table := len(c)
	for _, d := range []uint64{0, 0x00af9b000000ffff, 0x00cf93000000ffff} {
		c.long(d)
	}
	order.PutUint16(c[pointer:], at+uint16(len(c)))
	c.bytes(3*8-1, 0)
	c.word(segment + uint32(at) + uint32(table))
	return c
}

// pageTables map the first 4 GiB one to one, in pages of 2 MiB, with tables at an address.
func pageTables(at uint64) []byte {
	const (
		size, perTable = 4096, 512
		table, page    = 0x63, 0xe3 // present, writable, used; large
	)
	b := make([]byte, 6*size)
	order.PutUint64(b, at+size|table)
	for i := range uint64(4) {
		order.PutUint64(b[size+8*i:], at+(2+i)*size|table)
	}
	for i := range uint64(4 * perTable) {
		order.PutUint64(b[2*size+8*i:], i<<21|page)
	}
	return b
}
