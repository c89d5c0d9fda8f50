// SPDX-License-Identifier: Apache-2.0

package legacy

import (
	"sync"
	"time"
)

// Where the clock is.
const (
	RTCBase      = 0x70
	RTCRegisters = 2
)

// Registers of the MC146818 behind the index port.
const (
	rtcSecond  = 0x00
	rtcMinute  = 0x02
	rtcHour    = 0x04
	rtcWeekday = 0x06
	rtcDay     = 0x07
	rtcMonth   = 0x08
	rtcYear    = 0x09
	rtcA       = 0x0a
	rtcB       = 0x0b
	rtcC       = 0x0c
	rtcD       = 0x0d
	// RTCCentury is the register that the ACPI tables name.
	RTCCentury = 0x32

	rtcCells = 128

	rtcADivider = 0x26 // 32.768 kHz, 1024 Hz; the bit "update in progress" is never set
	rtcBSet     = 1 << 7
	rtcBBinary  = 1 << 2
	rtcB24      = 1 << 1
	rtcDValid   = 1 << 7

	hourPM = 1 << 7
)

// RTC is the clock and its 128 bytes of memory. It has no interrupts: the
// periodic one and the alarm are not there, and the ACPI tables do not promise
// them. The guest can set the time; the host's clock is not touched.
type RTC struct {
	now func() time.Time

	mu     sync.Mutex // guards what follows
	index  uint8
	cells  [rtcCells]uint8
	offset time.Duration // the guest's clock less the host's
	held   date          // what the guest sets, while it does (rtcBSet)
}

// date is a time as its registers have it: while they are set one by one it need
// not be one that a calendar has.
type date struct{ year, month, day, hour, minute, second int }

func dateOf(t time.Time) date {
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	return date{year, int(month), day, hour, minute, second}
}

// time is the date's; what is too large for a field is carried over.
func (d date) time() time.Time {
	return time.Date(d.year, time.Month(d.month), d.day, d.hour, d.minute, d.second, 0, time.UTC)
}

// NewRTC makes a clock that shows now in UTC.
func NewRTC(now func() time.Time) *RTC {
	r := &RTC{now: now}
	r.Reset()
	return r
}

// Reset puts the control registers into the state after power-on. Time and
// memory have a battery and stay.
func (r *RTC) Reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.index = 0
	r.cells[rtcA], r.cells[rtcB] = rtcADivider, rtcB24
}

// In reads the index or the register that it names.
func (r *RTC) In(reg uint8) uint8 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if reg == 0 {
		return 0xff // the index cannot be read
	}
	switch r.index {
	case rtcC:
		return 0
	case rtcD:
		return rtcDValid
	case rtcSecond, rtcMinute, rtcHour, rtcWeekday, rtcDay, rtcMonth, rtcYear, RTCCentury:
		return r.field(r.date(), r.index)
	}
	return r.cells[r.index]
}

// Out writes the index or the register that it names.
func (r *RTC) Out(reg uint8, v uint8) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if reg == 0 {
		r.index = v % rtcCells // the top bit masks the NMI
		return
	}
	switch r.index {
	case rtcA:
		r.cells[rtcA] = v & 0x7f
	case rtcB:
		r.control(v)
	case rtcC, rtcD:
	case rtcSecond, rtcMinute, rtcHour, rtcWeekday, rtcDay, rtcMonth, rtcYear, RTCCentury:
		r.setField(r.index, v)
	default:
		r.cells[r.index] = v
	}
}

// control writes register B: while rtcBSet is set the clock stands still.
func (r *RTC) control(v uint8) {
	was := r.cells[rtcB] & rtcBSet
	switch {
	case v&rtcBSet != 0 && was == 0:
		r.held = r.date()
	case v&rtcBSet == 0 && was != 0:
		r.offset = r.held.time().Sub(r.now())
	}
	r.cells[rtcB] = v
}

// date is what the guest's clock shows.
func (r *RTC) date() date {
	if r.cells[rtcB]&rtcBSet != 0 {
		return r.held
	}
	return dateOf(r.now().Add(r.offset).UTC())
}

// field gives one register of a date, in the format that register B chooses.
func (r *RTC) field(d date, reg uint8) uint8 {
	var v int
	switch reg {
	case rtcSecond:
		v = d.second
	case rtcMinute:
		v = d.minute
	case rtcHour:
		return r.hour(d.hour)
	case rtcWeekday:
		v = int(d.time().Weekday()) + 1
	case rtcDay:
		v = d.day
	case rtcMonth:
		v = d.month
	case rtcYear:
		v = d.year % 100
	case RTCCentury:
		v = d.year / 100 % 100
	}
	return r.encode(v)
}

func (r *RTC) hour(h int) uint8 {
	if r.cells[rtcB]&rtcB24 != 0 {
		return r.encode(h)
	}
	v := r.encode((h+11)%12 + 1)
	if h >= 12 {
		v |= hourPM
	}
	return v
}

// setField sets one register of the guest's time. Values that no clock has, such
// as a month of 200, carry over into the next field once the clock runs.
func (r *RTC) setField(reg uint8, v uint8) {
	d := r.date()
	switch reg {
	case rtcSecond:
		d.second = r.decode(v)
	case rtcMinute:
		d.minute = r.decode(v)
	case rtcHour:
		d.hour = r.decodeHour(v)
	case rtcDay:
		d.day = r.decode(v)
	case rtcMonth:
		d.month = r.decode(v)
	case rtcYear:
		d.year = d.year/100*100 + r.decode(v)
	case RTCCentury:
		d.year = r.decode(v)*100 + d.year%100
	default:
		return // the weekday follows from the date
	}
	if r.cells[rtcB]&rtcBSet != 0 {
		r.held = d
	} else {
		r.offset = d.time().Sub(r.now())
	}
}

func (r *RTC) decodeHour(v uint8) int {
	if r.cells[rtcB]&rtcB24 != 0 {
		return r.decode(v)
	}
	h := r.decode(v&^hourPM) % 12
	if v&hourPM != 0 {
		h += 12
	}
	return h
}

func (r *RTC) encode(v int) uint8 {
	if r.cells[rtcB]&rtcBBinary != 0 {
		return uint8(v)
	}
	return uint8(v/10<<4 | v%10)
}

func (r *RTC) decode(v uint8) int {
	if r.cells[rtcB]&rtcBBinary != 0 {
		return int(v)
	}
	return int(v>>4)*10 + int(v&15)
}
