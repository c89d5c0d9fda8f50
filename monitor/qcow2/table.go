// SPDX-License-Identifier: Apache-2.0

package qcow2

import "math/bits"

// Fields of entries of the tables. Reserved bits are 0.
const (
	flagCopied = 1 << 63
	flagPacked = 1 << 62
	flagZeros  = 1 << 0
	offsetMask = 1<<56 - 1<<9

	subclusters = 32 // of a cluster, if there are any
)

// kind says where the bytes of a part of a disk are.
type kind uint8

const (
	behind kind = iota // in the backing file, or zeros where there is none
	zeros
	data
	packed // compressed
)

// extent is where so many bytes of a disk are.
type extent struct {
	kind kind
	host uint64 // of data where in the file; of packed the fields of the entry
	n    uint64
}

// find says where the bytes from an offset on are: of the n bytes those that are alike
// and lie side by side.
func (i *Image) find(l *layer, off, n uint64) (extent, error) {
	e, err := i.one(l, off)
	for err == nil && e.n < n && e.kind != packed {
		var next extent
		if next, err = i.one(l, off+e.n); err != nil {
			// What comes before it can be read.
			err = nil
			break
		}
		if next.kind != e.kind || e.kind == data && next.host != e.host+e.n {
			break
		}
		e.n += next.n
	}
	e.n = min(e.n, n)
	return e, err
}

// one looks into one cluster, or over all of a table that is not there.
func (i *Image) one(l *layer, off uint64) (extent, error) {
	table := off >> (l.clusterBits + l.l2Bits())
	v, err := i.tables.entry(l, l.l1+8*table, 1)
	if err != nil {
		return extent{}, err
	}
	l2 := v[0] & offsetMask
	switch {
	case v[0]&^(flagCopied|offsetMask) != 0:
		return extent{}, l.corrupt("reserved bits of an L1 entry")
	case l2 == 0:
		covers := uint64(1) << (l.clusterBits + l.l2Bits())
		return extent{kind: behind, n: covers - off&(covers-1)}, nil
	case l2%l.cluster() != 0:
		return extent{}, l.corrupt("L2 table that is not aligned")
	}
	index := off >> l.clusterBits & (1<<l.l2Bits() - 1)
	words := 1
	if l.extended {
		words = 2
	}
	if v, err = i.tables.entry(l, l2+8*uint64(words)*index, words); err != nil {
		return extent{}, err
	}
	inside := off & (l.cluster() - 1)
	switch {
	case v[0]&flagPacked != 0:
		// The map of subclusters is 0, and QEMU does not look at it.
		return extent{packed, v[0] &^ (flagPacked | flagCopied), l.cluster() - inside}, nil
	case l.extended:
		return l.subcluster(v[0], v[1], inside)
	}
	return l.plain(v[0], inside)
}

// plain is a cluster of one entry.
func (l *layer) plain(entry, inside uint64) (extent, error) {
	e := extent{n: l.cluster() - inside}
	flags := uint64(flagCopied | offsetMask)
	if l.version == 3 {
		flags |= flagZeros
	}
	host := entry & offsetMask
	switch {
	case entry&^flags != 0:
		return e, l.corrupt("reserved bits of an L2 entry")
	case entry&flagZeros != 0:
		e.kind = zeros
		return e, nil
	case host == 0:
		return e, nil
	}
	e.kind, e.host = data, host+inside
	return e, l.inFile(host)
}

// subcluster is a cluster of 32 subclusters: which of them are allocated is in the low
// half of the map, and which are zeros in the high one.
func (l *layer) subcluster(entry, sub, inside uint64) (extent, error) {
	alloc, clear := uint32(sub), uint32(sub>>32)
	host := entry & offsetMask
	switch {
	case entry&^(flagCopied|offsetMask) != 0:
		return extent{}, l.corrupt("reserved bits of an L2 entry")
	case alloc&clear != 0 || host == 0 && alloc != 0:
		return extent{}, l.corrupt("map of subclusters")
	}
	size := l.cluster() / subclusters
	first := inside / size
	// Of this subcluster and those behind it, so many are alike.
	var e extent
	alike := ^(alloc | clear)
	switch {
	case alloc>>first&1 != 0:
		e.kind, e.host, alike = data, host+inside, alloc
	case clear>>first&1 != 0:
		e.kind, alike = zeros, clear
	}
	run := min(uint64(bits.TrailingZeros32(^(alike >> first))), subclusters-first)
	e.n = (first+run)*size - inside
	if e.kind == data {
		return e, l.inFile(host)
	}
	return e, nil
}

// inFile checks where a cluster is. It may end behind the file: what was never written
// of a new cluster is not there.
func (l *layer) inFile(host uint64) error {
	switch {
	case host%l.cluster() != 0:
		return l.corrupt("cluster that is not aligned")
	case host >= l.end:
		return l.corrupt("cluster behind the file")
	}
	return nil
}

func (l *layer) corrupt(what string) error {
	return &fileError{l.index, what, ErrCorrupt}
}
