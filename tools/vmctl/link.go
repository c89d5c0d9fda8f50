// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"sync"
	"time"

	"github.com/coder/websocket"

	"vmctl/daemon/client"
	"vmctl/monitor/console/proto"
)

// answerLimit is how long a console may take to admit us.
const answerLimit = 10 * time.Second

// link is a connection to a console that admitted us. One goroutine calls
// next, any may call the other methods. A guest that takes no input can hold
// typed for as long as it likes; close makes every call return.
type link interface {
	next() (proto.Frame, error) // of History, Data, Viewers; a *proto.Close at the end
	typed(keys []byte) error
	take() error
	resize(cols, rows int) error
	close()
}

// reason says why a console closed: in its own words, else by the code.
func reason(c *proto.Close) string {
	text := c.Text
	if text == "" {
		text = map[proto.Code]string{
			proto.TokenUnknown: "nobody gave this token out",
			proto.TokenUsed:    "the token was used before",
			proto.TokenExpired: "the token has expired",
			proto.Slow:         "this end read too slowly",
			proto.Superseded:   "there are too many viewers",
			proto.SessionEnded: "the login session ended",
			proto.VMDeleted:    "the VM was deleted",
			proto.Shutdown:     "the VM's monitor ended",
			proto.Protocol:     "this end broke the protocol",
		}[c.Code]
	}
	return fmt.Sprintf("%s (%s)", text, c.Code)
}

func notOpened(err error) error {
	var closed *proto.Close
	if errors.As(err, &closed) {
		return fmt.Errorf("open console: %s", reason(closed))
	}
	return fmt.Errorf("open console: %w", err)
}

// socketLink is the console's own socket.
type socketLink struct {
	*proto.Client
	conn net.Conn
}

func dialSocket(ctx context.Context, path, token string) (*socketLink, proto.OK, error) {
	dialer := net.Dialer{Timeout: answerLimit}
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, proto.OK{}, fmt.Errorf("connect console: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	l := &socketLink{conn: conn}
	err = conn.SetDeadline(time.Now().Add(answerLimit))
	var ok proto.OK
	if err == nil {
		l.Client, ok, err = proto.NewClient(conn, &proto.Hello{Token: []byte(token)})
	}
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil {
		conn.Close()
		return nil, proto.OK{}, notOpened(err)
	}
	return l, ok, nil
}

func (l *socketLink) next() (proto.Frame, error) { return l.Next() }
func (l *socketLink) close()                     { l.conn.Close() }

func (l *socketLink) typed(keys []byte) error { return l.Type(keys) }
func (l *socketLink) take() error             { return l.Take() }

func (l *socketLink) resize(cols, rows int) error {
	_, err := l.conn.Write(proto.AppendResize(nil, screen(cols, rows))) // one write is one frame
	return err
}

func screen(cols, rows int) proto.Resize {
	return proto.Resize{Cols: uint16(min(max(cols, 0), math.MaxUint16)), Rows: uint16(min(max(rows, 0), math.MaxUint16))}
}

// webLink is a WebSocket of vmhttp, which has said hello for us.
type webLink struct {
	conn *websocket.Conn
	ctx  context.Context // ends with close; a link is itself as long as a call
	end  context.CancelFunc
	mu   sync.Mutex // keeps messages of typed in order
}

var errMessage = errors.New("the console sent what is no frame")

func dialWeb(ctx context.Context, c *client.Client, vm, token string) (*webLink, proto.OK, error) {
	conn, err := c.DialConsole(ctx, vm, token, proto.Subprotocol)
	if err != nil {
		return nil, proto.OK{}, err
	}
	conn.SetReadLimit(1 + proto.MaxPayload) // a type byte and the payload
	l := &webLink{conn: conn}
	l.ctx, l.end = context.WithCancel(context.WithoutCancel(ctx))
	ok, err := l.admitted(ctx)
	if err != nil {
		l.close()
		return nil, proto.OK{}, notOpened(err)
	}
	return l, ok, nil
}

func (l *webLink) admitted(ctx context.Context) (proto.OK, error) {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	f, err := l.read(ctx)
	if err != nil {
		return proto.OK{}, err
	}
	if f.Type != proto.TypeOK {
		return proto.OK{}, errMessage
	}
	return proto.ParseOK(f.Payload)
}

// read returns the next frame of any type but Close, which is an error.
func (l *webLink) read(ctx context.Context) (proto.Frame, error) {
	kind, message, err := l.conn.Read(ctx)
	if err != nil {
		return proto.Frame{}, closing(err)
	}
	if kind != websocket.MessageBinary || len(message) == 0 {
		return proto.Frame{}, errMessage
	}
	f := proto.Frame{Type: proto.Type(message[0]), Payload: message[1:]}
	if f.Type == proto.TypeClose {
		c, err := proto.ParseClose(f.Payload)
		if err != nil {
			return proto.Frame{}, err
		}
		return proto.Frame{}, &c
	}
	return f, nil
}

// closing brings the close code of a WebSocket back to what the console said.
func closing(err error) error {
	var e websocket.CloseError
	if errors.As(err, &e) && e.Code > proto.WebSocketBase && e.Code < proto.WebSocketBase+1000 {
		return &proto.Close{Code: proto.Code(e.Code - proto.WebSocketBase), Text: e.Reason}
	}
	return err
}

func (l *webLink) next() (proto.Frame, error) {
	for {
		f, err := l.read(l.ctx)
		if err != nil {
			return proto.Frame{}, err
		}
		switch f.Type {
		case proto.TypePing:
			if err := l.send(proto.TypePong, nil); err != nil {
				return proto.Frame{}, err
			}
		case proto.TypeHistory, proto.TypeData, proto.TypeViewers:
			return f, nil
		default:
			return proto.Frame{}, errMessage
		}
	}
}

func (l *webLink) typed(keys []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(keys) > 0 {
		n := min(len(keys), proto.MaxTyped)
		if err := l.send(proto.TypeData, keys[:n]); err != nil {
			return err
		}
		keys = keys[n:]
	}
	return nil
}

func (l *webLink) take() error { return l.send(proto.TypeTake, nil) }

func (l *webLink) resize(cols, rows int) error {
	frame := proto.AppendResize(nil, screen(cols, rows))
	return l.send(proto.TypeResize, frame[proto.HeaderLen:])
}

func (l *webLink) send(t proto.Type, payload []byte) error {
	return l.conn.Write(l.ctx, websocket.MessageBinary, append([]byte{byte(t)}, payload...))
}

func (l *webLink) close() {
	l.end()
	l.conn.CloseNow()
}
