// SPDX-License-Identifier: Apache-2.0

package legacy

import (
	"encoding/binary"
	"sync"
)

// Where firmware finds its configuration: QEMU's "fw_cfg", which SeaBIOS, OVMF and
// Linux know (docs/specs/fw_cfg.rst). A key is written to the first port, and its
// bytes are read one by one from the second. There is no DMA and nothing to write.
const (
	FWCfgBase  = 0x510
	FWCfgPorts = 2
)

// Keys of the configuration that is no file. Each other key reads as zeros.
const (
	fwSignature = 0x00
	fwID        = 0x01
	fwCPUs      = 0x05
	fwMaxCPUs   = 0x0f
	fwDirectory = 0x19
	fwFirstFile = 0x20

	fwTraditional = 1 << 0 // interface without DMA
	fwNameSize    = 56
)

// FWFile is a file of the configuration, whose name is at most 55 bytes.
type FWFile struct {
	Name string
	Data []byte
}

// FWCfg is the configuration that firmware reads.
type FWCfg struct {
	items map[uint16][]byte

	mu  sync.Mutex // guards what follows
	key uint16
	at  int
}

// NewFWCfg makes the configuration of a machine with that many processors.
func NewFWCfg(cpus uint32, files []FWFile) *FWCfg {
	n := binary.LittleEndian.AppendUint16(nil, uint16(cpus))
	c := &FWCfg{items: map[uint16][]byte{
		fwSignature: []byte("QEMU"), fwID: {fwTraditional, 0, 0, 0}, fwCPUs: n, fwMaxCPUs: n,
	}}
	dir := binary.BigEndian.AppendUint32(nil, uint32(len(files)))
	for i, f := range files {
		key := fwFirstFile + uint16(i)
		c.items[key] = f.Data
		dir = binary.BigEndian.AppendUint32(dir, uint32(len(f.Data)))
		dir = binary.BigEndian.AppendUint16(dir, key)
		dir = append(dir, 0, 0)
		var name [fwNameSize]byte
		copy(name[:fwNameSize-1], f.Name)
		dir = append(dir, name[:]...)
	}
	c.items[fwDirectory] = dir
	return c
}

// Reset chooses the first key again.
func (c *FWCfg) Reset() { c.choose(0) }

func (c *FWCfg) choose(key uint16) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.key, c.at = key, 0
}

// Read reads the next bytes of what was chosen; behind its end are zeros.
func (c *FWCfg) Read(port uint64, data []byte) {
	if port != 1 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	item := c.items[c.key]
	clear(data)
	n := copy(data, item[c.at:])
	c.at += n
}

// Write chooses a key, by two bytes at once.
func (c *FWCfg) Write(port uint64, data []byte) {
	if port == 0 && len(data) == 2 {
		c.choose(binary.LittleEndian.Uint16(data))
	}
}
