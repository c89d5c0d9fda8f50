// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func all(r io.Reader) (list []string, err error) {
	m := newMessages(r)
	for {
		msg, err := m.next()
		if err != nil {
			return list, err
		}
		list = append(list, fmt.Sprintf("%s|%s|%s|%s|%v", msg.id, msg.event, msg.data, msg.comment, msg.isComment))
	}
}

func TestMessages(t *testing.T) {
	in := ": hello\n\n" +
		"id: 1\nevent: a\ndata: one\n\n" +
		"id:2\r\nevent:b\r\ndata:two\r\n\r\n" + // no space, other line ends
		"data: three\ndata:  four\n\n" + // two lines, one space is data
		": between\nid: 5\n: inside\ndata: five\n\n" +
		"\n\n" +
		"retry: 10\nunknown\n\n" +
		"id: 6\ndata: cut off\n"
	want := []string{"|||hello|true", "1|a|one||false", "2|b|two||false", "||three\n four||false", "|||between|true", "5||five||false", "||||false"}
	for name, r := range map[string]io.Reader{"whole": strings.NewReader(in), "by bytes": iotest.OneByteReader(strings.NewReader(in))} {
		got, err := all(r)
		if !errors.Is(err, io.EOF) || strings.Join(got, "\x00") != strings.Join(want, "\x00") {
			t.Errorf("%s: read %q, %v", name, got, err)
		}
	}
}

// FuzzMessages shows that no stream makes the reader panic or keep more than
// its bound, and that reading in pieces gives the same.
func FuzzMessages(f *testing.F) {
	f.Add([]byte("id: 1\nevent: a\ndata: {}\n\n: x\n\n"))
	f.Add([]byte("data\n\r\n:\n\ndata:\n\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		whole, _ := all(bytes.NewReader(in))
		pieces, _ := all(iotest.OneByteReader(bytes.NewReader(in)))
		if strings.Join(whole, "\x00") != strings.Join(pieces, "\x00") {
			t.Errorf("whole %q, in pieces %q", whole, pieces)
		}
	})
}
