// SPDX-License-Identifier: Apache-2.0

// Package legacy has the devices of the PC that a Linux guest expects on the
// ISA bus: serial port, clock, and the registers that reset and power off.
//
// Each is a [vmctl/monitor/bus] device. Every access is a guest's: whatever it
// writes, in whatever order, costs a bounded time and no memory.
package legacy

import "sync"

// COM1 is where the first serial port is, and its interrupt.
const (
	COM1     = 0x3f8
	COM1Line = 4
	// UARTRegisters is how many registers a UART has.
	UARTRegisters = 8
)

// Registers of a 16550, by offset. The first two are a divisor when lcrDLAB is
// set; the third is iir to read and fcr to write.
const (
	regData = iota
	regIER
	regIIR
	regLCR
	regMCR
	regLSR
	regMSR
	regScratch
)

const (
	ierReceive  = 1 << 0
	ierTransmit = 1 << 1
	ierAll      = 0x0f

	iirNone     = 0x01
	iirTransmit = 0x02
	iirReceive  = 0x04
	iirFIFO     = 0xc0

	fcrEnable       = 1 << 0
	fcrClearReceive = 1 << 1

	lcrDLAB = 1 << 7

	mcrLoop = 1 << 4
	mcrAll  = 0x1f

	lsrReady = 1 << 0
	lsrEmpty = 0x60 // transmitter holding register and shifter

	msrPresent = 0xb0 // carrier, data set ready, clear to send
)

// backlog is how many received bytes wait for the guest.
const backlog = 256

// UART is a 16550A. What the guest sends leaves at once, so the transmitter is
// always empty.
type UART struct {
	send func(b byte)
	line func(up bool)
	room func()

	mu       sync.Mutex // guards what follows; send and line are called under it
	ier, lcr uint8
	mcr, scr uint8
	divisor  [2]uint8
	fifo     bool
	sent     bool // the interrupt "transmitter is empty" is pending
	up       bool // level of the interrupt line
	full     bool // somebody waits for room
	in       [backlog]byte
	inHead   int
	inLen    int
}

// NewUART makes a serial port. send gets each byte that the guest sends, line
// every change of the interrupt line; both are called with the port locked, from
// any vCPU. room is called after a Receive that took less than it was given, when
// there is room again.
func NewUART(send func(b byte), line func(up bool), room func()) *UART {
	return &UART{send: send, line: line, room: room}
}

// Reset puts the port into the state that it has after power-on.
func (u *UART) Reset() {
	u.mu.Lock()
	u.ier, u.lcr, u.mcr, u.scr, u.divisor = 0, 0, 0, 0, [2]uint8{}
	u.fifo, u.sent, u.inLen = false, false, 0
	u.update()
	u.mu.Unlock()
	u.makeRoom()
}

// Receive hands the guest bytes to read, and returns how many it took.
func (u *UART) Receive(p []byte) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.mcr&mcrLoop != 0 { // the line is cut: what comes in is lost
		return len(p)
	}
	n := 0
	for n < len(p) && u.push(p[n]) {
		n++
	}
	u.full = n < len(p)
	u.update()
	return n
}

func (u *UART) push(b byte) bool {
	if u.inLen == backlog {
		return false
	}
	u.in[(u.inHead+u.inLen)%backlog] = b
	u.inLen++
	return true
}

func (u *UART) pop() uint8 {
	if u.inLen == 0 {
		return 0
	}
	b := u.in[u.inHead]
	u.inHead = (u.inHead + 1) % backlog
	u.inLen--
	return b
}

// makeRoom tells a sender that found no room when half of it is free.
func (u *UART) makeRoom() {
	u.mu.Lock()
	call := u.full && u.inLen <= backlog/2
	if call {
		u.full = false
	}
	u.mu.Unlock()
	if call {
		u.room()
	}
}

// update sets the interrupt line to what the registers say.
func (u *UART) update() {
	up := u.ier&ierReceive != 0 && u.inLen > 0 || u.ier&ierTransmit != 0 && u.sent
	if up != u.up {
		u.up = up
		u.line(up)
	}
}

// In reads a register.
func (u *UART) In(reg uint8) uint8 {
	u.mu.Lock()
	v := u.read(reg)
	u.mu.Unlock()
	if reg == regData {
		u.makeRoom()
	}
	return v
}

func (u *UART) read(reg uint8) uint8 {
	if u.lcr&lcrDLAB != 0 && reg <= regIER {
		return u.divisor[reg]
	}
	switch reg {
	case regData:
		v := u.pop()
		u.update()
		return v
	case regIER:
		return u.ier
	case regIIR:
		return u.identify()
	case regLCR:
		return u.lcr
	case regMCR:
		return u.mcr
	case regLSR:
		if u.inLen > 0 {
			return lsrEmpty | lsrReady
		}
		return lsrEmpty
	case regMSR:
		return u.modem()
	case regScratch:
		return u.scr
	}
	return 0xff
}

// identify names the interrupt that comes first. Being named ends the
// transmitter's.
func (u *UART) identify() uint8 {
	v := uint8(iirNone)
	switch {
	case u.ier&ierReceive != 0 && u.inLen > 0:
		v = iirReceive
	case u.ier&ierTransmit != 0 && u.sent:
		v = iirTransmit
		u.sent = false
		u.update()
	}
	if u.fifo {
		v |= iirFIFO
	}
	return v
}

// modem gives the state of the modem's lines; in loopback they are our own
// outputs DTR, RTS, OUT1, OUT2 as DSR, CTS, RI, DCD. Linux probes with it.
func (u *UART) modem() uint8 {
	if u.mcr&mcrLoop == 0 {
		return msrPresent
	}
	return u.mcr&1<<5 | u.mcr&2<<3 | u.mcr&4<<4 | u.mcr&8<<4
}

// Out writes a register.
func (u *UART) Out(reg uint8, v uint8) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.lcr&lcrDLAB != 0 && reg <= regIER {
		u.divisor[reg] = v
		return
	}
	switch reg {
	case regData:
		u.transmit(v)
	case regIER:
		// Enabling the transmitter's interrupt while it is empty raises it.
		if v&^u.ier&ierTransmit != 0 {
			u.sent = true
		}
		u.ier = v & ierAll
		u.update()
	case regIIR: // fcr
		u.fifo = v&fcrEnable != 0
		if v&fcrClearReceive != 0 {
			u.inLen = 0
			u.update()
		}
	case regLCR:
		u.lcr = v
	case regMCR:
		u.mcr = v & mcrAll
	case regScratch:
		u.scr = v
	}
}

func (u *UART) transmit(v uint8) {
	if u.mcr&mcrLoop != 0 {
		u.push(v)
	} else {
		u.send(v)
	}
	u.sent = true
	u.update()
}
