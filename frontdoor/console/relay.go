// SPDX-License-Identifier: Apache-2.0

package console

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"

	"vmctl/frontdoor/login"
	"vmctl/monitor/console/proto"
)

const (
	helloTimeout = 10 * time.Second // for the monitor's first word
	// silence is how long a monitor may say nothing: it pings each 20 s.
	silence      = 70 * time.Second
	writeTimeout = 20 * time.Second // for either side to take one frame
	pingEvery    = 20 * time.Second
	touchEvery   = time.Minute
	maxReason    = 123 // bytes that a close frame has for its text
)

// end is why a console was closed, as the browser is told.
type end struct {
	code websocket.StatusCode
	text string
}

func endOf(code proto.Code, text string) end {
	return end{websocket.StatusCode(proto.WebSocketBase + int(code)), text}
}

// relay says hello to the monitor and then passes frames between both sides.
// It returns when either side closes, breaks the protocol or does not keep up,
// or when ctx is done; by then nothing of it runs any more. used is called at
// most once a minute while something is typed.
//
// One goroutine for each direction, each with one buffer: a side that does
// not read stops the other, and no more than one frame is held of each.
func relay(ctx context.Context, ws *websocket.Conn, monitor net.Conn, hello *proto.Hello, used func()) end {
	l := &link{ws: ws, monitor: monitor, used: used, ends: make(chan end, 4)}
	ws.SetReadLimit(1 + proto.MaxPayload)
	if err := l.send(proto.AppendHello(nil, hello)); err != nil {
		why := end{websocket.StatusInternalError, "the monitor does not read"}
		l.close(why)
		return why
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	var parts sync.WaitGroup
	for _, part := range []func(context.Context) end{l.typed, l.printed, l.ping} {
		parts.Go(func() { l.ends <- part(run) })
	}
	var why end
	select {
	case why = <-l.ends:
	case <-ctx.Done():
		why = sessionOver(ctx)
	}
	// The close frame goes first: to cancel a call of ws breaks its connection.
	l.close(why)
	stop()
	parts.Wait()
	return why
}

func sessionOver(ctx context.Context) end {
	var ended *login.EndedError
	if errors.As(context.Cause(ctx), &ended) {
		return endOf(proto.SessionEnded, "the login session has ended: "+ended.Reason)
	}
	return endOf(proto.Shutdown, "the front door is stopping")
}

type link struct {
	ws      *websocket.Conn
	monitor net.Conn
	used    func()
	ends    chan end
}

// close ends both sides, which wakes whoever waits for them. It takes at most
// 10 s, when the browser does not answer.
func (l *link) close(why end) {
	_ = l.monitor.Close()
	_ = l.ws.Close(why.code, reason(why.text)) // the peer may be gone already
	_ = l.ws.CloseNow()
}

// reason cuts a text at a character to what a close frame has room for.
func reason(text string) string {
	text = strings.ToValidUTF8(text, "?")
	for len(text) > maxReason {
		_, n := utf8.DecodeLastRuneInString(text)
		text = text[:len(text)-n]
	}
	return text
}

func (l *link) send(frame []byte) error {
	if err := l.monitor.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	_, err := l.monitor.Write(frame)
	return err
}

// typed passes the browser's frames to the monitor.
func (l *link) typed(ctx context.Context) end {
	var buf []byte
	var touched time.Time
	for {
		kind, message, err := l.ws.Read(ctx)
		if err != nil {
			return browserGone(err)
		}
		if text := refuse(kind, message); text != "" {
			return endOf(proto.Protocol, text)
		}
		buf = proto.AppendFrame(buf[:0], proto.Type(message[0]), message[1:])
		if err := l.send(buf); err != nil {
			return end{websocket.StatusInternalError, "the monitor does not read"}
		}
		if proto.Type(message[0]) == proto.TypeData && time.Since(touched) >= touchEvery {
			touched = time.Now()
			l.used()
		}
	}
}

// refuse says what is wrong with a browser's message, "" for nothing.
func refuse(kind websocket.MessageType, message []byte) string {
	if kind != websocket.MessageBinary || len(message) == 0 {
		return "a message must be binary and begin with its type"
	}
	switch t := proto.Type(message[0]); {
	case t == proto.TypeHello || !t.FromClient():
		return "a browser must not send this type of frame"
	case t == proto.TypeData && len(message)-1 > proto.MaxTyped:
		return "too much was typed at once"
	case t == proto.TypeResize && len(message) != 5:
		return "a size has four bytes"
	case (t == proto.TypeTake || t == proto.TypePong) && len(message) != 1:
		return "this type of frame carries nothing"
	}
	return ""
}

func browserGone(err error) end {
	if errors.Is(err, websocket.ErrMessageTooBig) {
		return endOf(proto.Protocol, "a message is too long")
	}
	if code := websocket.CloseStatus(err); code != -1 {
		return end{websocket.StatusNormalClosure, "closed by the browser"}
	}
	return end{websocket.StatusGoingAway, "the browser is gone"}
}

// printed passes the monitor's frames to the browser, Close as a close code.
func (l *link) printed(ctx context.Context) end {
	frames := proto.NewScanner(l.monitor, proto.MaxPayload)
	var buf []byte
	for wait := helloTimeout; ; wait = silence {
		if err := l.monitor.SetReadDeadline(time.Now().Add(wait)); err != nil {
			return monitorGone(err)
		}
		f, err := frames.Next()
		if err != nil {
			return monitorGone(err)
		}
		if f.Type == proto.TypeClose {
			return closedBy(f.Payload)
		}
		if !f.Type.FromServer() {
			return end{websocket.StatusInternalError, "the monitor broke the protocol"}
		}
		buf = append(append(buf[:0], byte(f.Type)), f.Payload...)
		if err := l.write(ctx, buf); err != nil {
			return endOf(proto.Slow, "the browser does not read")
		}
	}
}

func (l *link) write(ctx context.Context, message []byte) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	return l.ws.Write(ctx, websocket.MessageBinary, message)
}

func closedBy(payload []byte) end {
	c, err := proto.ParseClose(payload)
	if err != nil {
		return end{websocket.StatusInternalError, "the monitor broke the protocol"}
	}
	if c.Code == 0 || int(c.Code) > 999 { // 4000 to 4999 are for applications
		c.Code = proto.Protocol
	}
	if c.Text == "" {
		c.Text = c.Code.String()
	}
	return endOf(c.Code, c.Text)
}

func monitorGone(err error) end {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return end{websocket.StatusInternalError, "the monitor does not answer"}
	case errors.Is(err, proto.ErrType), errors.Is(err, proto.ErrTooLong):
		return end{websocket.StatusInternalError, "the monitor broke the protocol"}
	}
	return endOf(proto.Shutdown, "the VM's monitor is gone")
}

// ping keeps the way open through proxies that close what is silent, and
// finds out when a browser is gone without a word.
func (l *link) ping(ctx context.Context) end {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return end{websocket.StatusGoingAway, "closed"}
		case <-tick.C:
		}
		pong, cancel := context.WithTimeout(ctx, pingEvery)
		err := l.ws.Ping(pong)
		cancel()
		if err != nil {
			return endOf(proto.Slow, "the browser does not answer")
		}
	}
}
