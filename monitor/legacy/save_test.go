// SPDX-License-Identifier: Apache-2.0

package legacy

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"vmctl/monitor/wire"
)

// keeper is a device that is saved, and what a guest does to it.
type keeper struct {
	save func(*wire.Writer)
	load func(*wire.Reader)
	do   func(reg, v byte) // writes, and reads
}

// keepers makes one of each kind.
func keepers() []keeper {
	registers := func(out func(uint8, uint8), in func(uint8) uint8, n uint8) func(reg, v byte) {
		return func(reg, v byte) {
			out(reg%n, v)
			in(v % n)
		}
	}
	space := func(write, read func(uint64, []byte)) func(reg, v byte) {
		return func(reg, v byte) {
			write(uint64(reg&1), []byte{v, reg >> 1}[:1+v&1])
			read(uint64(v&1), make([]byte, 1<<(reg&3)))
		}
	}
	u := NewUART(func(byte) {}, func(bool) {}, func() {})
	c := NewRTC(time.Now)
	p := &PM{Off: func() {}, Line: func(bool) {}}
	f := NewFWCfg(3, []FWFile{{"a", []byte("what is in it")}})
	r := &ResetRegister{Reset: func() {}}
	d := new(Debug)
	return []keeper{
		{u.Save, u.Load, func(reg, v byte) {
			if reg > 0xf0 {
				u.Receive(bytes.Repeat([]byte{v}, int(v)))
			}
			registers(u.Out, u.In, UARTRegisters)(reg, v)
		}},
		{c.Save, c.Load, registers(c.Out, c.In, RTCRegisters)},
		{p.Save, p.Load, registers(p.Out, p.In, PMRegisters)},
		{f.Save, f.Load, space(f.Write, f.Read)},
		{r.Save, r.Load, space(r.Write, r.Read)},
		{d.Save, d.Load, registers(d.Out, d.In, DebugRegisters)},
	}
}

func (k keeper) saved() []byte {
	w := wire.NewWriter(binary.LittleEndian, nil)
	k.save(w)
	return w.Bytes()
}

func (k keeper) loaded(state []byte) error {
	r := wire.NewReader(binary.LittleEndian, state)
	k.load(r)
	return r.Close()
}

// FuzzLoad lets each device go on from anything, and what it comes to is what another
// goes on from.
func FuzzLoad(f *testing.F) {
	for i, k := range keepers() {
		f.Add(byte(i), k.saved(), []byte{})
		for n := range byte(64) {
			k.do(n*37, n*59)
		}
		f.Add(byte(i), k.saved(), []byte{1, 0xff, 0, 1, 0xff, 0xff, 3, 0x80, 0, 7})
	}
	f.Fuzz(func(t *testing.T, kind byte, state, program []byte) {
		pick := func() keeper {
			all := keepers()
			return all[int(kind)%len(all)]
		}
		k, again := pick(), pick()
		if k.loaded(state) != nil {
			return
		}
		for ; len(program) > 1; program = program[2:] {
			k.do(program[0], program[1])
		}
		saved := k.saved()
		if err := again.loaded(saved); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again.saved(), saved) {
			t.Errorf("saved %x, and from that %x", saved, again.saved())
		}
	})
}
