// SPDX-License-Identifier: Apache-2.0

package legacy_test

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"vmctl/monitor/bus"
	"vmctl/monitor/legacy"
)

// fwCfg is the configuration behind its ports, as firmware reads it.
type fwCfg struct{ ports bus.Space }

func newFWCfg(t *testing.T, cpus uint32, files ...legacy.FWFile) *fwCfg {
	t.Helper()
	f := &fwCfg{}
	if err := f.ports.Add(legacy.FWCfgBase, legacy.FWCfgPorts, legacy.NewFWCfg(cpus, files)); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fwCfg) read(key uint16, n int) []byte {
	f.ports.Write(legacy.FWCfgBase, binary.LittleEndian.AppendUint16(nil, key))
	b := make([]byte, n)
	for i := range b {
		f.ports.Read(legacy.FWCfgBase+1, b[i:i+1])
	}
	return b
}

func TestFWCfg(t *testing.T) {
	f := newFWCfg(t, 3, legacy.FWFile{Name: "etc/one", Data: []byte("first")}, legacy.FWFile{Name: strings.Repeat("n", 80), Data: []byte{7}})
	for key, want := range map[uint16]string{
		0: "QEMU\x00\x00", 1: "\x01\x00\x00\x00\x00", 5: "\x03\x00\x00", 0xf: "\x03\x00\x00",
		0x20: "first\x00", 0x21: "\x07\x00", 0x22: "\x00\x00", 0xffff: "\x00",
	} {
		if got := f.read(key, len(want)); string(got) != want {
			t.Errorf("key %#x is %q, want %q", key, got, want)
		}
	}
	dir := f.read(0x19, 4+2*64+1)
	first := append([]byte{0, 0, 0, 5, 0, 0x20, 0, 0}, "etc/one\x00"...)
	if n := binary.BigEndian.Uint32(dir); n != 2 || !bytes.HasPrefix(dir[4:], first) {
		t.Errorf("directory of %d files begins with %q", n, dir[4:20])
	}
	// A name that is too long ends before the next entry.
	if name := dir[4+64+8:][:56]; name[54] != 'n' || name[55] != 0 {
		t.Errorf("name is %q", name)
	}
}

// Accesses of odd sizes and to odd ports change nothing and read nothing.
func TestFWCfgOddAccesses(t *testing.T) {
	f := newFWCfg(t, 1)
	f.read(0, 1)
	for _, w := range []struct {
		port uint64
		data []byte
	}{{0, []byte{1}}, {0, []byte{1, 0, 0, 0}}, {1, []byte{1, 0}}} {
		f.ports.Write(legacy.FWCfgBase+w.port, w.data)
	}
	b := make([]byte, 2)
	f.ports.Read(legacy.FWCfgBase, b)
	if b[0] != 0xff || b[1] != 0xff {
		t.Errorf("the key reads as %x", b)
	}
	f.ports.Read(legacy.FWCfgBase+1, b)
	if string(b) != "EM" {
		t.Errorf("signature goes on with %q", b)
	}
	f.ports.Read(legacy.FWCfgBase+1, make([]byte, 8)) // across the end
	f.ports.Read(legacy.FWCfgBase+1, b)
	if b[0] != 0 || b[1] != 0 {
		t.Errorf("behind the end is %x", b)
	}
}

// However the two ports are used, a read gives what is there or zeros.
func FuzzFWCfg(f *testing.F) {
	f.Add([]byte{0x10, 0x19, 0, 0x03, 0x13, 0x83})
	f.Fuzz(func(t *testing.T, stream []byte) {
		c := newFWCfg(t, 1, legacy.FWFile{Name: "a", Data: []byte("text")})
		for len(stream) > 2 {
			port, size, write := legacy.FWCfgBase+uint64(stream[0]&1), int(stream[0]>>1&7)+1, stream[0]&0x10 != 0
			data := make([]byte, size)
			copy(data, stream[1:])
			if write {
				c.ports.Write(port, data)
			} else {
				c.ports.Read(port, data)
			}
			stream = stream[3:]
		}
	})
}
