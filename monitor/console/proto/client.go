// SPDX-License-Identifier: Apache-2.0

package proto

import (
	"errors"
	"io"
	"sync"
)

// ErrOrder is a frame that does not belong where it came.
var ErrOrder = errors.New("frame does not belong here")

// Client is the viewer's end of a console. One goroutine calls Next; any may
// call the other methods.
type Client struct {
	stream io.ReadWriter
	scan   *Scanner

	mu  sync.Mutex // guards buf, and keeps frames apart
	buf []byte
}

// NewClient says hello on a connected stream and waits for the answer.
// errors.As: *Close when the server says no.
func NewClient(stream io.ReadWriter, h *Hello) (*Client, OK, error) {
	c := &Client{stream: stream, scan: NewScanner(stream, MaxPayload)}
	if _, err := stream.Write(AppendHello(nil, h)); err != nil {
		return nil, OK{}, err
	}
	f, err := c.scan.Next()
	if err != nil {
		return nil, OK{}, err
	}
	switch f.Type {
	case TypeOK:
		ok, err := ParseOK(f.Payload)
		return c, ok, err
	case TypeClose:
		return nil, OK{}, closed(f.Payload)
	}
	return nil, OK{}, ErrOrder
}

func closed(payload []byte) error {
	c, err := ParseClose(payload)
	if err != nil {
		return err
	}
	return &c
}

// Next waits for a frame of the types History, Data and Viewers; it answers
// Ping itself. errors.As: *Close when the server closed. errors.Is: io.EOF when
// the server is gone without a word.
func (c *Client) Next() (Frame, error) {
	for {
		f, err := c.scan.Next()
		if err != nil {
			return Frame{}, err
		}
		switch f.Type {
		case TypePing:
			if err := c.send(TypePong, nil); err != nil {
				return Frame{}, err
			}
		case TypeClose:
			return Frame{}, closed(f.Payload)
		case TypeHistory, TypeData, TypeViewers:
			return f, nil
		default:
			return Frame{}, ErrOrder
		}
	}
}

// Type sends what was typed, of any length.
func (c *Client) Type(typed []byte) error {
	for len(typed) > 0 {
		n := min(len(typed), MaxTyped)
		if err := c.send(TypeData, typed[:n]); err != nil {
			return err
		}
		typed = typed[n:]
	}
	return nil
}

// MaxTyped is how many bytes one Data of a client may carry: a server refuses
// more.
const MaxTyped = 4096

// Take asks to become the writer; Viewers tells whether it was granted.
func (c *Client) Take() error { return c.send(TypeTake, nil) }

func (c *Client) send(t Type, payload []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.buf = AppendFrame(c.buf[:0], t, payload)
	_, err := c.stream.Write(c.buf)
	return err
}
