// SPDX-License-Identifier: Apache-2.0

// Package cpio writes archives in the "newc" format, the one that Linux
// unpacks as an initramfs. The same calls always give the same bytes: times
// are zero, owners are root, inode numbers count up.
package cpio

import (
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"strings"
)

// Mode bits of the entries that a Writer makes.
const (
	modeDir     = 0o040000
	modeFile    = 0o100000
	modeSymlink = 0o120000
	modeChar    = 0o020000
)

// ErrName is returned for a name that is empty, absolute, or not clean.
var ErrName = errors.New("cpio: name is not a clean relative path")

// ErrSize is returned for a file that the format's 32-bit size cannot hold.
var ErrSize = errors.New("cpio: file is larger than 4 GiB")

// Writer writes one archive. It is not safe for concurrent use.
type Writer struct {
	w    io.Writer
	ino  uint32
	made map[string]bool
}

// NewWriter starts an archive on w. Close ends it.
func NewWriter(w io.Writer) *Writer {
	return &Writer{w: w, made: make(map[string]bool)}
}

// Dir adds a folder and those above it that are not there yet.
func (w *Writer) Dir(name string, perm uint32) error {
	if err := w.parents(name); err != nil {
		return err
	}
	return w.dir(name, perm)
}

// File adds a regular file and the folders above it.
func (w *Writer) File(name string, perm uint32, data []byte) error {
	if err := w.parents(name); err != nil {
		return err
	}
	return w.entry(name, modeFile|perm&0o7777, 0, 0, data)
}

// Symlink adds a symbolic link and the folders above it.
func (w *Writer) Symlink(name, target string) error {
	if err := w.parents(name); err != nil {
		return err
	}
	return w.entry(name, modeSymlink|0o777, 0, 0, []byte(target))
}

// CharDevice adds a character device node and the folders above it.
func (w *Writer) CharDevice(name string, perm, major, minor uint32) error {
	if err := w.parents(name); err != nil {
		return err
	}
	return w.entry(name, modeChar|perm&0o7777, major, minor, nil)
}

// Close writes the trailer. It does not close the writer beneath.
func (w *Writer) Close() error {
	return w.raw("TRAILER!!!", header{nlink: 1}, nil)
}

func (w *Writer) parents(name string) error {
	if name == "" || path.IsAbs(name) || path.Clean(name) != name || strings.HasPrefix(name, "..") {
		return fmt.Errorf("%w: %q", ErrName, name)
	}
	for i, c := range name {
		if c != '/' {
			continue
		}
		if err := w.dir(name[:i], 0o755); err != nil {
			return err
		}
	}
	return nil
}

func (w *Writer) dir(name string, perm uint32) error {
	if name == "." || w.made[name] {
		return nil
	}
	w.made[name] = true
	return w.entry(name, modeDir|perm&0o7777, 0, 0, nil)
}

func (w *Writer) entry(name string, mode, major, minor uint32, data []byte) error {
	if uint64(len(data)) > math.MaxUint32 {
		return fmt.Errorf("%w: %q", ErrSize, name)
	}
	w.ino++
	h := header{ino: w.ino, mode: mode, nlink: 1, size: uint32(len(data)), major: major, minor: minor}
	return w.raw(name, h, data)
}

// header is what differs between entries; all else in the format is zero.
type header struct{ ino, mode, nlink, size, major, minor uint32 }

func (w *Writer) raw(name string, h header, data []byte) error {
	text := fmt.Sprintf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		h.ino, h.mode, 0, 0, h.nlink, 0, h.size, 0, 0, h.major, h.minor, len(name)+1, 0)
	text += name + "\x00"
	text += strings.Repeat("\x00", pad(len(text)))
	if _, err := io.WriteString(w.w, text); err != nil {
		return err
	}
	if _, err := w.w.Write(data); err != nil {
		return err
	}
	_, err := w.w.Write(make([]byte, pad(len(data))))
	return err
}

// pad is how many bytes bring n to a multiple of four.
func pad(n int) int { return -n & 3 }
