// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
)

// maxMessage bounds one message of an event stream, in bytes.
const maxMessage = 4 << 20

var errMessage = errors.New("a message of the event stream is larger than 4 MiB")

// message is one message of an event stream. A comment is a message of its
// own here: it shows that the stream is alive.
type message struct {
	id, event string
	data      []byte
	comment   string // without its colon
	isComment bool
}

// messages reads the format of the HTML standard's server-sent events.
type messages struct {
	r *bufio.Reader
}

func newMessages(r io.Reader) *messages { return &messages{bufio.NewReaderSize(r, 16<<10)} }

// next returns the next message; io.EOF at the end of the stream, where a
// message that was cut off is dropped as the standard asks.
func (m *messages) next() (message, error) {
	var msg message
	size, fields := 0, 0
	for {
		line, err := m.line(maxMessage - size)
		if err != nil {
			return message{}, err
		}
		size += len(line)
		switch {
		case len(line) == 0 && fields > 0:
			msg.data = bytes.TrimSuffix(msg.data, []byte("\n"))
			return msg, nil
		case len(line) == 0:
		case line[0] == ':':
			if fields == 0 {
				return message{isComment: true, comment: strings.TrimSpace(string(line[1:]))}, nil
			}
		default:
			fields++
			msg.add(line)
		}
	}
}

func (msg *message) add(line []byte) {
	name, value, _ := bytes.Cut(line, []byte(":"))
	value = bytes.TrimPrefix(value, []byte(" "))
	switch string(name) {
	case "id":
		msg.id = string(value)
	case "event":
		msg.event = string(value)
	case "data":
		msg.data = append(append(msg.data, value...), '\n')
	}
}

// line reads one line of at most limit bytes, without its end.
func (m *messages) line(limit int) ([]byte, error) {
	var line []byte
	for {
		part, err := m.r.ReadSlice('\n')
		if len(line)+len(part) > limit {
			return nil, errMessage
		}
		line = append(line, part...)
		switch {
		case err == nil:
			return bytes.TrimRight(line, "\r\n"), nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}
