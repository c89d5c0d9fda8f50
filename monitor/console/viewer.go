// SPDX-License-Identifier: Apache-2.0

package console

import (
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"vmctl/monitor/console/proto"
)

// viewer is one admitted connection. One goroutine receives (serve), one sends
// (send); the last that ends closes nothing: serve does, when both are over.
type viewer struct {
	Viewer
	conn Conn
	wake chan struct{} // has room for one: there is something to send
	// piece is what the sender reads from the scrollback at a time.
	piece []byte

	// Guarded by the server's mu.
	at   uint64       // what was printed before is sent
	live bool         // history is over
	list bool         // the list of viewers changed
	bye  *proto.Close // last words, not sent yet
	size proto.Resize // of its terminal; zero: not known

	reason string // why it ended; set by end, under once
	once   sync.Once
	ended  atomic.Bool
}

// say gives the viewer its last words, unless it has some. Needs the server's mu.
func (v *viewer) say(c proto.Close) {
	if v.bye == nil {
		v.bye = &c
		signal(v.wake)
	}
}

// end notes the first reason and makes both goroutines come to an end.
func (v *viewer) end(reason string) {
	v.once.Do(func() {
		v.reason = reason
		v.ended.Store(true)
		v.conn.SetReadDeadline(longAgo)
		v.conn.SetWriteDeadline(longAgo)
	})
}

// serve owns a connection from accept to close.
func (s *Server) serve(conn Conn) {
	defer conn.Close()
	scan := proto.NewScanner(conn, proto.MaxTyped)
	v := s.welcome(conn, scan)
	if v == nil {
		return
	}
	s.events.Opened(v.Viewer)
	var sender sync.WaitGroup
	over := make(chan struct{})
	sender.Go(func() { s.send(v, over) })
	err := s.receive(v, scan)
	if reason := s.part(v, err); reason != "" {
		v.end(reason)
	}
	close(over)
	sender.Wait()
	s.leave(v)
	s.events.Closed(v.Viewer, v.reason)
}

// welcome waits for the hello and answers it. nil: the connection is over.
func (s *Server) welcome(conn Conn, scan *proto.Scanner) *viewer {
	defer func() {
		s.mu.Lock()
		delete(s.strangers, conn)
		s.mu.Unlock()
	}()
	s.mu.Lock()
	if s.shutBy.IsZero() {
		conn.SetReadDeadline(time.Now().Add(helloTimeout))
		conn.SetWriteDeadline(time.Now().Add(helloTimeout))
	}
	s.mu.Unlock()
	f, err := scan.Next()
	if err != nil && !errors.Is(err, proto.ErrType) && !errors.Is(err, proto.ErrTooLong) {
		return nil
	}
	no := proto.Close{Code: proto.Protocol, Text: "the first frame must be hello"}
	if err == nil && f.Type == proto.TypeHello {
		if h, err := proto.ParseHello(f.Payload); err == nil {
			var v *viewer
			if v, no = s.admit(conn, &h); v != nil {
				return v
			}
		}
	}
	// A stranger that does not read gets no answer.
	_, _ = conn.Write(proto.AppendClose(nil, no))
	return nil
}

// receive does what the viewer says until it stops.
func (s *Server) receive(v *viewer, scan *proto.Scanner) error {
	for {
		v.conn.SetReadDeadline(time.Now().Add(readTimeout))
		if v.ended.Load() { // the sender gave up, and its deadline was just undone
			return os.ErrClosed
		}
		f, err := scan.Next()
		if err != nil {
			return err
		}
		switch f.Type {
		case proto.TypeData:
			s.typed(v, f.Payload)
		case proto.TypeTake:
			s.take(v)
		case proto.TypePong:
		case proto.TypeResize:
			size, err := proto.ParseResize(f.Payload)
			if err != nil {
				return err
			}
			s.sized(v, size)
		default:
			return proto.ErrOrder
		}
	}
}

// part finds the reason for the end of receive. An empty one means that the
// sender is to say goodbye first, and knows the reason.
func (s *Server) part(v *viewer, err error) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case v.bye != nil:
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errLeft.Error()
	case errors.Is(err, os.ErrDeadlineExceeded):
		v.say(proto.Close{Code: proto.Slow, Text: "no answer"})
	case errors.Is(err, proto.ErrType), errors.Is(err, proto.ErrTooLong), errors.Is(err, proto.ErrOrder):
		v.say(proto.Close{Code: proto.Protocol, Text: err.Error()})
	default:
		return errLeft.Error()
	}
	return ""
}

// send sends the viewer everything, until its last words are sent, it cannot be
// reached, or over is closed and there are no last words.
func (s *Server) send(v *viewer, over <-chan struct{}) {
	frame := make([]byte, 0, proto.HeaderLen+8+pieceSize)
	ping := time.NewTicker(pingInterval)
	defer ping.Stop()
	frame = proto.AppendOK(frame, s.okFor(v))
	for {
		last := false
		if len(frame) == 0 {
			frame, last = s.next(v, frame)
		}
		if len(frame) > 0 {
			v.conn.SetWriteDeadline(s.writeBy())
			if _, err := v.conn.Write(frame); err != nil {
				v.end(writeFault(err))
				return
			}
			if last {
				v.end(s.lastWords(v).Code.String())
				return
			}
			frame = frame[:0]
			continue
		}
		select {
		case <-v.wake:
		case <-ping.C:
			frame = proto.AppendFrame(frame, proto.TypePing, nil)
		case <-over:
			if s.lastWords(v) == nil {
				return
			}
			over = nil
		}
	}
}

// writeBy is when a frame that is sent now must have been taken.
func (s *Server) writeBy() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.shutBy.IsZero() {
		return s.shutBy
	}
	return time.Now().Add(writeTimeout)
}

func writeFault(err error) string {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return proto.Slow.String()
	}
	return errLeft.Error()
}

func (s *Server) lastWords(v *viewer) *proto.Close {
	s.mu.Lock()
	defer s.mu.Unlock()
	return v.bye
}

func (s *Server) okFor(v *viewer) proto.OK {
	s.mu.Lock()
	defer s.mu.Unlock()
	return proto.OK{Viewer: v.ID, Writer: s.writer.Load() == v.ID, Offset: s.scroll.Total()}
}

// next makes the next frame for a viewer, empty if there is nothing to say. What
// was printed comes before last words, but not to one who is thrown out.
func (s *Server) next(v *viewer, frame []byte) (_ []byte, last bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v.bye == nil || v.bye.Code == proto.Shutdown {
		if frame = s.output(v, frame); len(frame) > 0 {
			return frame, false
		}
		if v.list && v.bye == nil {
			v.list = false
			return proto.AppendViewers(frame, s.listFor()), false
		}
	}
	if v.bye != nil {
		return proto.AppendClose(frame, *v.bye), true
	}
	return frame, false
}

// output makes a frame of what was printed at the viewer's offset, and moves it.
func (s *Server) output(v *viewer, frame []byte) []byte {
	at := s.scroll.Next(v.at)
	if at > v.at && v.live {
		v.bye = &proto.Close{Code: proto.Slow, Text: "too far behind"}
		return frame
	}
	n, err := s.scroll.Read(at, v.piece)
	if err != nil {
		s.fault("console scrollback", err)
		v.bye = &proto.Close{Code: proto.Shutdown, Text: "scrollback is gone"}
		v.at = s.scroll.Total()
		return frame
	}
	if n == 0 {
		v.at, v.live = at, true
		return frame
	}
	v.at = at + uint64(n)
	if v.live {
		return proto.AppendFrame(frame, proto.TypeData, v.piece[:n])
	}
	return proto.AppendHistory(frame, at, v.piece[:n])
}

func (s *Server) listFor() []proto.Viewer {
	writer := s.writer.Load()
	list := make([]proto.Viewer, 0, len(s.viewers))
	for _, v := range s.viewers {
		list = append(list, proto.Viewer{ID: v.ID, User: v.User, Writer: v.ID == writer})
	}
	return list
}
