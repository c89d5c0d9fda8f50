// SPDX-License-Identifier: Apache-2.0

package qcow2

import (
	"bufio"
	"compress/flate"
	"io"
	"sync"

	"vmctl/monitor/zstd"
)

const (
	sector       = 512
	looseBytes   = 256 << 10 // of clusters that are kept
	maxLoose     = 8         // clusters
	inflateInput = 4096      // bytes that are read at once
)

// clustersFor is how many clusters of a size are kept.
func clustersFor(size int) int { return max(1, min(looseBytes/size, maxLoose)) }

// clusters unpacks compressed clusters, one at a time, and keeps the last ones: a
// guest reads a cluster in many pieces.
type clusters struct {
	room int

	mu      sync.Mutex // guards what follows
	kept    []*loose   // the last that was used is the last
	inflate io.ReadCloser
	input   *bufio.Reader
	unzstd  *zstd.Decoder
	packed  []byte // input of unzstd
}

// loose is a cluster that was unpacked.
type loose struct {
	from place
	data []byte
}

// read fills buffers from an offset inside a compressed cluster on. entry has the
// fields of its descriptor: a place in the file, and above it the number of sectors
// of 512 bytes, less the one in which it begins.
func (c *clusters) read(l *layer, entry, inside uint64, bufs [][]byte) error {
	split := 62 - (l.clusterBits - 8)
	at := entry & (1<<split - 1)
	n := (entry>>split+1)*sector - at%sector
	if at >= l.end {
		return l.corrupt("compressed cluster behind the file")
	}
	n = min(n, l.end-at) // the last sector need not be whole

	c.mu.Lock()
	defer c.mu.Unlock()
	cluster, err := c.get(l, at, n)
	if err != nil {
		return err
	}
	rest := cluster.data[inside:]
	for _, b := range bufs {
		rest = rest[copy(b, rest):]
	}
	return nil
}

// get returns a cluster whose n compressed bytes are there in the file.
func (c *clusters) get(l *layer, at, n uint64) (*loose, error) {
	from := place{l.index, at}
	for i, k := range c.kept {
		if k.from == from {
			copy(c.kept[i:], c.kept[i+1:])
			c.kept[len(c.kept)-1] = k
			return k, nil
		}
	}
	k := &loose{}
	if len(c.kept) >= c.room {
		k = c.kept[0]
		c.kept = c.kept[:copy(c.kept, c.kept[1:])]
	}
	if size := int(l.cluster()); cap(k.data) < size {
		k.data = make([]byte, size)
	} else {
		k.data = k.data[:size]
	}
	unpack := c.unpackDeflate
	if l.compression == zstandard {
		unpack = c.unpackZstd
	}
	if err := unpack(l, at, n, k.data); err != nil {
		return nil, err
	}
	k.from = from
	c.kept = append(c.kept, k)
	return k, nil
}

// unpackDeflate fills dst. What comes behind the compressed bytes is not theirs: only
// sectors are counted.
func (c *clusters) unpackDeflate(l *layer, at, n uint64, dst []byte) error {
	src := &section{l: l, at: at, n: n}
	if c.inflate == nil {
		c.input = bufio.NewReaderSize(src, inflateInput)
		c.inflate = flate.NewReader(c.input)
	} else {
		c.input.Reset(src)
		if err := c.inflate.(flate.Resetter).Reset(c.input, nil); err != nil {
			return err
		}
	}
	_, err := io.ReadFull(c.inflate, dst)
	c.input.Reset(nil)
	return src.failed(err, "compressed cluster")
}

// unpackZstd fills dst from the frame that there is; what comes behind it is not its own.
func (c *clusters) unpackZstd(l *layer, at, n uint64, dst []byte) error {
	if c.unzstd == nil {
		c.unzstd = new(zstd.Decoder)
	}
	if uint64(cap(c.packed)) < n {
		c.packed = make([]byte, n)
	}
	packed := c.packed[:n]
	if err := l.readFile([][]byte{packed}, at, n); err != nil {
		return err
	}
	if c.unzstd.Decode(dst, packed) != nil {
		return l.corrupt("compressed cluster")
	}
	return nil
}

// section reads a part of a file, front to back.
type section struct {
	l     *layer
	at, n uint64
	err   error // of the file
}

func (s *section) Read(p []byte) (int, error) {
	n := min(uint64(len(p)), s.n)
	if n == 0 {
		return 0, io.EOF
	}
	if s.err = s.l.readFile([][]byte{p[:n]}, s.at, n); s.err != nil {
		return 0, s.err
	}
	s.at, s.n = s.at+n, s.n-n
	return int(n), nil
}

// failed tells bytes that are damaged from a file that cannot be read.
func (s *section) failed(err error, what string) error {
	switch {
	case s.err != nil:
		return s.err
	case err != nil:
		return s.l.corrupt(what)
	}
	return nil
}
