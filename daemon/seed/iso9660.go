// SPDX-License-Identifier: Apache-2.0

package seed

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"unicode/utf16"
)

// An ISO 9660 file system (ECMA-119, 4th edition) with files in its root folder alone.
// It is there twice: once with the names of ISO 9660, beside which stand those of Rock
// Ridge (IEEE P1282, which Unix reads), and once with those of Joliet (which Windows
// reads). Both have the same contents.
//
// It is written here since a seed may hold secrets, and is nowhere but in memory: the
// library of the field (diskfs/go-diskfs 1.9.4) makes an image by way of files in a
// folder of the host, with the time of the day in it, and brings ten modules along.
//
//	sector  0  system area: nothing
//	       16  primary volume descriptor
//	       17  supplementary volume descriptor, of Joliet
//	       18  end of the descriptors
//	       19  path tables of both, in both byte orders
//	       23  root folders of both
//	       25  contents
const (
	sector = 2048 // bytes

	primaryAt    = 16
	jolietAt     = 17
	terminatorAt = 18
	tablesAt     = 19
	rootsAt      = 23
	contentsAt   = 25

	pathTableSize = 10 // bytes: of one folder, the root
)

// file is a file with its name as ISO 9660 has it, as Rock Ridge and Joliet do, and what
// is in it.
type file struct{ short, name, text string }

// extent is where something lies, in bytes and sectors.
type extent struct{ at, size int }

// image returns the file system.
func image(files []file) []byte {
	img := make([]byte, contentsAt*sector)
	extents := make([]extent, len(files))
	for i, f := range files {
		extents[i] = extent{at: len(img) / sector, size: len(f.text)}
		img = append(img, f.text...)
		img = append(img, make([]byte, -len(f.text)&(sector-1))...)
	}
	for i, v := range []volume{
		{kind: 1, at: primaryAt, label: label, blank: " ", rockRidge: true},
		{kind: 2, at: jolietAt, label: ucs2(label), blank: "\x00 ", escape: "%/E"}, // UCS-2, level 3
	} {
		little, root := tablesAt+2*i, extent{at: rootsAt + i, size: sector}
		copy(img[v.at*sector:], v.descriptor(len(img)/sector, little, root))
		copy(img[little*sector:], pathTable(binary.LittleEndian, root))
		copy(img[(little+1)*sector:], pathTable(binary.BigEndian, root))
		copy(img[root.at*sector:], v.folder(root, files, extents))
	}
	copy(img[terminatorAt*sector:], "\xffCD001\x01")
	return img
}

// volume is one of the two views of the files.
type volume struct {
	kind      byte
	at        int
	label     string
	blank     string // that unused texts are filled with
	escape    string // which characters it has; "": those of ISO 9660
	rockRidge bool
}

// descriptor makes the volume's descriptor (8.4 and 8.5). little is the sector of its
// path table in little endian, which that in big endian follows.
func (v *volume) descriptor(sectors, little int, root extent) []byte {
	b := make([]byte, sector)
	text := func(from, to int, s string) {
		copy(b[from-1:to], strings.Repeat(v.blank, sector))
		copy(b[from-1:to], s)
	}
	both := func(at, value, size int) { putBoth(b[at-1:], value, size) } // places count from 1, as there
	copy(b, string(v.kind)+"CD001\x01")
	text(9, 40, "")
	text(41, 72, v.label)
	both(81, sectors, 4)
	copy(b[88:120], v.escape)
	both(121, 1, 2) // volumes
	both(125, 1, 2) // this one
	both(129, sector, 2)
	both(133, pathTableSize, 4)
	binary.LittleEndian.PutUint32(b[140:], uint32(little))
	binary.BigEndian.PutUint32(b[148:], uint32(little+1))
	copy(b[156:190], record(root, "\x00", true, nil))
	text(191, 813, "") // who made it, with what, and files that say more
	for at := 814; at < 882; at += 17 {
		copy(b[at-1:at+16], "0000000000000000") // a time that is not told (8.4.26.1)
	}
	b[881] = 1 // version of the structure
	return b
}

// pathTable makes the list of all folders (9.4).
func pathTable(order binary.ByteOrder, root extent) []byte {
	b := make([]byte, pathTableSize)
	b[0] = 1 // length of its name, which is a zero
	order.PutUint32(b[2:], uint32(root.at))
	order.PutUint16(b[6:], 1) // what it is in
	return b
}

// folder makes the root folder: itself, what it is in, which is itself, and the files.
func (v *volume) folder(root extent, files []file, extents []extent) []byte {
	var self, parent []byte
	if v.rockRidge {
		self = slices.Concat(sharing(), mode(folderMode, 2), extension())
		parent = mode(folderMode, 2)
	}
	b := append(record(root, "\x00", true, self), record(root, "\x01", true, parent)...)
	for i, f := range files {
		r := record(extents[i], ucs2(f.name+";1"), false, nil)
		if v.rockRidge {
			r = record(extents[i], f.short, false, append(mode(fileMode, 1), alternateName(f.name)...))
		}
		b = append(b, r...)
	}
	return b
}

// record makes a directory record (9.1), with what Rock Ridge adds. Its time is the
// first second of 1970.
func record(e extent, name string, isFolder bool, system []byte) []byte {
	b := make([]byte, 33, 255)
	putBoth(b[2:], e.at, 4)
	putBoth(b[10:], e.size, 4)
	copy(b[18:], []byte{70, 1, 1})
	if isFolder {
		b[25] = 2
	}
	putBoth(b[28:], 1, 2) // volume
	b[32] = byte(len(name))
	b = append(b, name...)
	if len(b)%2 != 0 {
		b = append(b, 0)
	}
	b = append(b, system...)
	if len(b)%2 != 0 {
		b = append(b, 0)
	}
	b[0] = byte(len(b))
	return b
}

// Modes of Unix: root may read, for nobody else needs to.
const (
	folderMode = 0o040500
	fileMode   = 0o100400
)

// sharing says that there is more behind the records (SUSP 1.12, SP).
func sharing() []byte { return []byte{'S', 'P', 7, 1, 0xbe, 0xef, 0} }

// extension names what is shared (ER). What is told to people besides is left out.
func extension() []byte {
	const id = "RRIP_1991A"
	return append([]byte{'E', 'R', byte(8 + len(id)), 1, byte(len(id)), 0, 0, 1}, id...)
}

// mode is what Unix knows of a file: mode, links, owner and group (PX).
func mode(mode, links int) []byte {
	b := make([]byte, 36)
	copy(b, []byte{'P', 'X', byte(len(b)), 1})
	putBoth(b[4:], mode, 4)
	putBoth(b[12:], links, 4)
	return b
}

// alternateName is a file's name on Unix (NM).
func alternateName(name string) []byte {
	return append([]byte{'N', 'M', byte(5 + len(name)), 1, 0}, name...)
}

// putBoth puts a number twice, in either byte order (7.2.3, 7.3.3).
func putBoth(b []byte, value, size int) {
	if size == 2 {
		binary.LittleEndian.PutUint16(b, uint16(value))
		binary.BigEndian.PutUint16(b[2:], uint16(value))
		return
	}
	binary.LittleEndian.PutUint32(b, uint32(value))
	binary.BigEndian.PutUint32(b[4:], uint32(value))
}

// ucs2 is how Joliet writes text.
func ucs2(s string) string {
	var b bytes.Buffer
	for _, u := range utf16.Encode([]rune(s)) {
		b.Write(binary.BigEndian.AppendUint16(nil, u))
	}
	return b.String()
}
