// SPDX-License-Identifier: Apache-2.0

package vsock

import "encoding/binary"

// Numbers of packets (virtio 1.2, 5.10.6).
const (
	headerSize = 44

	typeStream = 1

	opRequest       = 1
	opResponse      = 2
	opReset         = 3
	opShutdown      = 4
	opData          = 5
	opCreditUpdate  = 6
	opCreditRequest = 7

	shutReceive = 1 << 0 // who says so receives no more
	shutSend    = 1 << 1 // who says so sends no more
	shutBoth    = shutReceive | shutSend

	eventSize           = 4
	eventTransportReset = 0
)

var order = binary.LittleEndian

// header is what stands before each packet: struct virtio_vsock_hdr.
type header struct {
	srcCID, dstCID   uint64
	srcPort, dstPort uint32
	size             uint32 // of the data that follows, in bytes
	kind, op         uint16
	flags            uint32
	buffer           uint32 // bytes that who sends it takes
	forwarded        uint32 // bytes that it took out of its buffer so far
}

// readHeader takes a header off the front of buffers, which have at least its size.
func readHeader(buffers [][]byte) header {
	var raw [headerSize]byte
	at := 0
	for _, b := range buffers {
		at += copy(raw[at:], b)
	}
	b := raw[:]
	return header{
		srcCID: order.Uint64(b), dstCID: order.Uint64(b[8:]),
		srcPort: order.Uint32(b[16:]), dstPort: order.Uint32(b[20:]),
		size: order.Uint32(b[24:]), kind: order.Uint16(b[28:]), op: order.Uint16(b[30:]),
		flags: order.Uint32(b[32:]), buffer: order.Uint32(b[36:]), forwarded: order.Uint32(b[40:]),
	}
}

// put writes a header to the front of buffers, which have at least its size.
func (h *header) put(buffers [][]byte) {
	var raw [headerSize]byte
	b := raw[:0]
	b = order.AppendUint64(b, h.srcCID)
	b = order.AppendUint64(b, h.dstCID)
	b = order.AppendUint32(b, h.srcPort)
	b = order.AppendUint32(b, h.dstPort)
	b = order.AppendUint32(b, h.size)
	b = order.AppendUint16(b, h.kind)
	b = order.AppendUint16(b, h.op)
	for _, v := range []uint32{h.flags, h.buffer, h.forwarded} {
		b = order.AppendUint32(b, v)
	}
	fill(buffers, b)
}

// fill writes to the front of buffers as much as there is room for.
func fill(buffers [][]byte, b []byte) {
	for _, to := range buffers {
		b = b[copy(to, b):]
	}
}

// reset is the answer to a packet that is none of a connection.
func (h *header) reset() header {
	return header{srcCID: h.dstCID, dstCID: h.srcCID, srcPort: h.dstPort, dstPort: h.srcPort, kind: h.kind, op: opReset}
}

// cut appends to list what n bytes of buffers are from byte skip on. There may be
// fewer.
func cut(list, buffers [][]byte, skip, n int) [][]byte {
	for _, b := range buffers {
		k := min(skip, len(b))
		b, skip = b[k:], skip-k
		b = b[:min(n, len(b))]
		n -= len(b)
		if len(b) > 0 {
			list = append(list, b)
		}
	}
	return list
}
