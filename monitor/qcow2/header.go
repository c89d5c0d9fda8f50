// SPDX-License-Identifier: Apache-2.0

package qcow2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
)

// Errors of Open. Each says what is wrong with the header of one file.
var (
	ErrMagic       = errors.New("file is no qcow2 image")
	ErrVersion     = errors.New("version of the qcow2 image is neither 2 nor 3")
	ErrHeader      = errors.New("header of the qcow2 image is damaged")
	ErrEncrypted   = errors.New("qcow2 image is encrypted")
	ErrDirty       = errors.New("qcow2 image was not closed by its last writer: let qemu-img check -r all repair it")
	ErrMarked      = errors.New("qcow2 image is marked as corrupt")
	ErrDataFile    = errors.New("qcow2 image keeps its data in another file")
	ErrFeature     = errors.New("qcow2 image needs a feature that is not known")
	ErrCompression = errors.New("qcow2 image has a compression that is not known")
)

// Numbers of the format (QEMU's docs/interop/qcow2.txt).
const (
	magic = 0x514649fb

	headerSize2 = 72
	headerSize3 = 104 // at the least
	compression = 104 // where the type of compression is, in a longer header

	minClusterBits = 9
	maxClusterBits = 21
	minExtendedL2  = 14          // cluster bits
	maxL1Size      = 32 << 20    // bytes
	maxSize        = 1<<63 - 512 // bytes: an offset has a sign
	maxBackingName = 1023        // bytes

	// headerPart is how much of an image its header is looked for in, in bytes. What
	// qemu-img writes is below 1 KiB.
	headerPart     = 64 << 10
	extensionEnd   = 0
	backingFormat  = 0xe2792aca
	featureDirty   = 1 << 0
	featureCorrupt = 1 << 1
	featureData    = 1 << 2
	featureCompr   = 1 << 3
	featureL2      = 1 << 4
	featuresKnown  = featureDirty | featureCorrupt | featureData | featureCompr | featureL2
)

// compressionType is how compressed clusters are.
type compressionType uint8

const (
	deflate   compressionType = 0
	zstandard compressionType = 1
)

var order = binary.BigEndian

// header is what the first cluster of an image says.
type header struct {
	version     uint32
	size        uint64 // of the disk, in bytes
	clusterBits uint
	extended    bool // entries of L2 tables have 32 subclusters each
	compression compressionType
	l1          uint64 // where the L1 table is
	l1Entries   uint64

	hasBacking    bool
	backing       string // name of the backing file
	backingFormat string // "" where the image does not say
}

// readHeader reads the header of an image whose file has so many bytes.
func readHeader(f *os.File, fileSize uint64) (*header, error) {
	b := make([]byte, min(headerPart, fileSize))
	if n, err := f.ReadAt(b, 0); n < len(b) {
		return nil, cut(err)
	}
	return parseHeader(b, fileSize)
}

func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// parseHeader checks all that reading depends on: afterwards no number of the header
// leads out of the file or overflows. b is the beginning of the file.
func parseHeader(b []byte, fileSize uint64) (*header, error) {
	if len(b) < 8 || order.Uint32(b) != magic {
		return nil, ErrMagic
	}
	h := &header{version: order.Uint32(b[4:])}
	if h.version != 2 && h.version != 3 {
		return nil, ErrVersion
	}
	length := uint64(headerSize2)
	if h.version == 3 {
		length = headerSize3
	}
	if uint64(len(b)) < length {
		return nil, ErrHeader
	}
	var features uint64
	if h.version == 3 {
		features, length = order.Uint64(b[72:]), uint64(order.Uint32(b[100:]))
	}
	if err := refused(features, order.Uint32(b[32:])); err != nil {
		return nil, err
	}
	bits := order.Uint32(b[20:])
	if bits < minClusterBits || bits > maxClusterBits {
		return nil, ErrHeader
	}
	h.clusterBits = uint(bits)
	first := min(uint64(len(b)), 1<<bits) // all of the header is in the first cluster
	if h.version == 3 && (length < headerSize3 || length > first || length%8 != 0) {
		return nil, ErrHeader
	}
	if length > compression {
		h.compression = compressionType(b[compression])
	}
	switch {
	case h.compression > zstandard:
		return nil, ErrCompression
	case (h.compression != deflate) != (features&featureCompr != 0):
		return nil, ErrHeader
	}
	h.extended = features&featureL2 != 0
	if err := h.tables(b, fileSize); err != nil {
		return nil, err
	}
	return h, h.chain(b[:first], length)
}

// refused says why an image with these incompatible features and this encryption
// cannot be read.
func refused(features uint64, encryption uint32) error {
	switch {
	case encryption != 0:
		return ErrEncrypted
	case features&^featuresKnown != 0:
		return ErrFeature
	case features&featureCorrupt != 0:
		return ErrMarked
	case features&featureDirty != 0:
		return ErrDirty
	case features&featureData != 0:
		return ErrDataFile
	}
	return nil
}

// tables takes the size of the disk and the place of the L1 table, which must be
// large enough for it.
func (h *header) tables(b []byte, fileSize uint64) error {
	h.size, h.l1 = order.Uint64(b[24:]), order.Uint64(b[40:])
	h.l1Entries = uint64(order.Uint32(b[36:]))
	if h.extended && h.clusterBits < minExtendedL2 {
		return ErrHeader
	}
	if h.size > maxSize || h.l1Entries > maxL1Size/8 || h.l1%(1<<h.clusterBits) != 0 {
		return ErrHeader
	}
	// Entries that are needed: the last byte's and those before it.
	var need uint64
	if h.size > 0 {
		need = (h.size-1)>>(h.clusterBits+h.l2Bits()) + 1
	}
	if h.l1Entries < need || need > 0 && (h.l1 == 0 || h.l1 > fileSize || fileSize-h.l1 < need*8) {
		return ErrHeader
	}
	return nil
}

// l2Bits is the logarithm of the number of entries of an L2 table, which has one
// cluster.
func (h *header) l2Bits() uint {
	if h.extended {
		return h.clusterBits - 4
	}
	return h.clusterBits - 3
}

// chain takes what the header says of a backing file. b is the first cluster; the
// extensions begin at length.
func (h *header) chain(b []byte, length uint64) error {
	end := uint64(len(b))
	at, n := order.Uint64(b[8:]), uint64(order.Uint32(b[16:]))
	if at != 0 {
		if n > maxBackingName || at < length || at > end || n > end-at {
			return ErrHeader
		}
		h.hasBacking, h.backing = n > 0, string(b[at:at+n])
		end = at
	}
	for rest := b[length:end]; len(rest) >= 8; {
		kind, n := order.Uint32(rest), uint64(order.Uint32(rest[4:]))
		if kind == extensionEnd {
			return nil
		}
		padded := (n + 7) &^ 7
		if rest = rest[8:]; padded > uint64(len(rest)) {
			return ErrHeader
		}
		if kind == backingFormat {
			h.backingFormat = string(bytes.TrimRight(rest[:n], "\x00"))
		}
		rest = rest[padded:]
	}
	return nil
}
