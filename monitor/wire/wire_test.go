// SPDX-License-Identifier: Apache-2.0

package wire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"vmctl/monitor/wire"
)

func message() []byte {
	w := wire.NewWriter(binary.LittleEndian, nil)
	w.U8(1)
	w.U16(0x0203)
	w.U32(0x04050607)
	w.U64(1 << 60)
	w.Bool(true)
	w.String("name")
	w.Blob([]byte{9})
	w.Fixed([]byte{7, 8})
	return w.Bytes()
}

// read takes the fields of message off msg.
func read(msg []byte) (string, error) {
	r := wire.NewReader(binary.LittleEndian, msg)
	ok := r.U8() == 1 && r.U16() == 0x0203 && r.U32() == 0x04050607 && r.U64() == 1<<60 && r.Bool()
	name := r.String(16)
	blob := r.Blob(1)
	var two [2]byte
	r.Fixed(two[:])
	if r.Err() == nil && (!ok || !bytes.Equal(blob, []byte{9}) || two != [2]byte{7, 8}) {
		return "", errors.New("other fields than were written")
	}
	return name, r.Close()
}

func TestFieldsComeBack(t *testing.T) {
	name, err := read(message())
	if err != nil || name != "name" {
		t.Fatalf("read %q, %v", name, err)
	}
}

func TestEveryCutIsShort(t *testing.T) {
	msg := message()
	for n := range msg {
		if _, err := read(msg[:n]); !errors.Is(err, wire.ErrShort) {
			t.Errorf("%d of %d bytes: %v, want ErrShort", n, len(msg), err)
		}
	}
}

func TestBytesBehindTheLastField(t *testing.T) {
	if _, err := read(append(message(), 0)); !errors.Is(err, wire.ErrTrailing) {
		t.Errorf("got %v, want ErrTrailing", err)
	}
}

func TestLengthBeyondTheLimit(t *testing.T) {
	r := wire.NewReader(binary.BigEndian, []byte{0xff, 0xff, 0xff, 0xff, 1})
	if b := r.Blob(16); b != nil {
		t.Errorf("got %d bytes", len(b))
	}
	if err := r.Close(); !errors.Is(err, wire.ErrTooLong) {
		t.Errorf("got %v, want ErrTooLong", err)
	}
}

func TestBoolOfTwo(t *testing.T) {
	r := wire.NewReader(binary.BigEndian, []byte{2})
	r.Bool()
	if err := r.Close(); !errors.Is(err, wire.ErrValue) {
		t.Errorf("got %v, want ErrValue", err)
	}
}
