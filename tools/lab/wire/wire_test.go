// SPDX-License-Identifier: Apache-2.0

package wire_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand"
	"testing"

	"vmctl/tools/lab/wire"
)

func TestFramesComeBack(t *testing.T) {
	var b bytes.Buffer
	w := wire.NewWriter(&b)
	for _, p := range [][]byte{nil, []byte("x"), bytes.Repeat([]byte{0, 255}, wire.MaxPayload/2)} {
		if err := w.Send(wire.Stdout, p); err != nil {
			t.Fatal(err)
		}
		kind, got, err := wire.Read(&b)
		if err != nil || kind != wire.Stdout || !bytes.Equal(got, p) {
			t.Errorf("%d bytes: %c, %d bytes, %v", len(p), kind, len(got), err)
		}
	}
}

func TestStreamKeepsEveryByte(t *testing.T) {
	data := make([]byte, 3*wire.MaxPayload+17)
	rand.New(rand.NewSource(1)).Read(data)
	var b, got bytes.Buffer
	n, err := wire.NewWriter(&b).Stream(wire.Stderr).Write(data)
	if n != len(data) || err != nil {
		t.Fatalf("Write = %d, %v", n, err)
	}
	for {
		kind, p, err := wire.Read(&b)
		if err == io.EOF {
			break
		}
		if err != nil || kind != wire.Stderr {
			t.Fatalf("%c, %v", kind, err)
		}
		got.Write(p)
	}
	if !bytes.Equal(got.Bytes(), data) {
		t.Error("bytes differ")
	}
}

func TestBadFrames(t *testing.T) {
	if err := wire.NewWriter(io.Discard).Send(wire.Stdin, make([]byte, wire.MaxPayload+1)); !errors.Is(err, wire.ErrPayload) {
		t.Errorf("Send: %v", err)
	}
	for name, c := range map[string]struct {
		bytes string
		want  error
	}{
		"nothing":   {"", io.EOF},
		"cut head":  {"o\x00\x00", io.ErrUnexpectedEOF},
		"cut body":  {"o\x00\x00\x00\x05abc", io.ErrUnexpectedEOF},
		"no body":   {"o\x00\x00\x00\x05", io.ErrUnexpectedEOF},
		"too large": {"o\xff\xff\xff\xff", wire.ErrPayload},
	} {
		if _, _, err := wire.Read(bytes.NewReader([]byte(c.bytes))); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}
