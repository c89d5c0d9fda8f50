// SPDX-License-Identifier: Apache-2.0

// Package console serves a VM's console to those who show it: one viewer types,
// all read, and whoever comes late gets what was printed before.
//
// What the guest prints goes into the scrollback, and nowhere else; each viewer
// has an offset in it and a goroutine that sends what lies between that offset
// and the end. So a viewer needs no queue, a slow one costs no memory and delays
// nobody, and one that falls behind what is kept is closed with a reason.
//
// Locks, in the order in which they are taken: fitting, typing, the serial port's own,
// mu, pending. Nothing is sent to a socket under any of them.
package console

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"vmctl/monitor/console/proto"
)

// Timing of the protocol.
const (
	helloTimeout = 5 * time.Second
	pingInterval = 20 * time.Second
	readTimeout  = 3 * pingInterval // a viewer that answers no ping is gone
	writeTimeout = 10 * time.Second
	byeTimeout   = 2 * time.Second
	// coalesce is how long output is collected after some was sent: the first
	// byte goes out at once, a flood in few pieces.
	coalesce = 4 * time.Millisecond
)

const (
	pendingSize  = 16 << 10 // bytes printed and not in the scrollback yet
	pieceSize    = 16 << 10 // bytes of one frame
	maxStrangers = 16       // connections that did not say hello yet
)

// Conn is a connection to a viewer.
type Conn interface {
	io.ReadWriteCloser
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
}

// Listener hands out connections until it is closed.
type Listener interface {
	Accept() (Conn, error)
	Close() error
}

// Viewer is one who sees the console.
type Viewer struct {
	ID      uint32
	Session string
	User    string
	Address string // as the viewer's proxy claims it
	Write   bool   // may type
}

// Events tells what happens to viewers. The functions are called from the
// viewers' goroutines and must not block.
type Events struct {
	Opened func(Viewer)
	Closed func(v Viewer, reason string)
	// Fault is called once when output can no longer be kept, or when nobody can
	// connect any more.
	Fault func(op string, err error)
}

// Server is the console of one VM.
type Server struct {
	listener Listener
	events   Events
	work     sync.WaitGroup
	done     chan struct{}
	printed  chan struct{} // has room for one: something is pending
	faulty   sync.Once
	closing  sync.Once

	fitting sync.Mutex // held while the size is read and told

	typing sync.Mutex // guards input and resize, and keeps what two writers type apart
	room   sync.Cond  // on typing: there is room, or a writer is no longer one
	input  func(p []byte) int
	resize func(cols, rows uint16)
	writer atomic.Uint32 // number of the viewer that types, 0: nobody

	mu        sync.Mutex // guards what follows
	scroll    *Scroll
	tokens    tokens
	viewers   []*viewer     // in the order in which they came
	strangers map[Conn]bool // that did not say hello yet
	lastID    uint32
	shutBy    time.Time // when everybody must be gone; zero before Close

	pendingMu sync.Mutex // guards what follows
	pending   []byte
	spare     []byte
}

// NewServer serves the console on listener from now on.
func NewServer(listener Listener, scroll *Scroll, events Events) *Server {
	s := &Server{
		listener: listener, events: events, scroll: scroll,
		done: make(chan struct{}), printed: make(chan struct{}, 1),
		strangers: make(map[Conn]bool),
		pending:   make([]byte, 0, pendingSize), spare: make([]byte, 0, pendingSize),
	}
	s.room.L = &s.typing
	s.work.Go(s.accept)
	s.work.Go(s.flushLoop)
	return s
}

// SetInput says where typed bytes go; before, and after nil, they are lost. It
// returns how many it took, and Room is called when it takes more.
func (s *Server) SetInput(input func(p []byte) int) {
	s.typing.Lock()
	s.input = input
	s.typing.Unlock()
}

// SetResize says who is told the size of the writer's terminal, whenever another
// one types or its size changes. Nothing of the server's is locked meanwhile.
func (s *Server) SetResize(resize func(cols, rows uint16)) {
	s.typing.Lock()
	s.resize = resize
	s.typing.Unlock()
	s.fit()
}

// fit tells the size of the writer's terminal, if it is known.
func (s *Server) fit() {
	s.fitting.Lock() // or an older size could be told last
	defer s.fitting.Unlock()
	var size proto.Resize
	s.mu.Lock()
	for _, v := range s.viewers {
		if v.ID == s.writer.Load() {
			size = v.size
		}
	}
	s.mu.Unlock()
	s.typing.Lock()
	resize := s.resize
	s.typing.Unlock()
	if resize != nil && size != (proto.Resize{}) {
		resize(size.Cols, size.Rows)
	}
}

// sized takes down the size of a viewer's terminal.
func (s *Server) sized(v *viewer, size proto.Resize) {
	s.mu.Lock()
	v.size = size
	s.mu.Unlock()
	if s.writer.Load() == v.ID {
		s.fit()
	}
}

// Room says that input takes more.
func (s *Server) Room() {
	s.typing.Lock()
	s.room.Broadcast()
	s.typing.Unlock()
}

// Put takes a byte that the guest printed. It does not block on any viewer.
func (s *Server) Put(b byte) {
	for {
		s.pendingMu.Lock()
		n := len(s.pending)
		if n < cap(s.pending) {
			s.pending = append(s.pending, b)
			s.pendingMu.Unlock()
			if n == 0 {
				signal(s.printed)
			}
			return
		}
		s.pendingMu.Unlock()
		s.flush()
	}
}

// signal puts a token into a channel that has room for one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// flush moves what is pending into the scrollback and wakes the viewers.
func (s *Server) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pendingMu.Lock()
	out := s.pending
	s.pending, s.spare = s.spare[:0], out
	s.pendingMu.Unlock()
	if len(out) == 0 {
		return
	}
	if err := s.scroll.Append(out); err != nil {
		s.fault("console scrollback", err)
	}
	s.wakeAll()
}

func (s *Server) fault(op string, err error) {
	s.faulty.Do(func() { s.events.Fault(op, err) })
}

func (s *Server) wakeAll() {
	for _, v := range s.viewers {
		signal(v.wake)
	}
}

func (s *Server) flushLoop() {
	pause := time.NewTimer(coalesce)
	defer pause.Stop()
	for {
		select {
		case <-s.printed:
			s.flush()
		case <-s.done:
			return
		}
		pause.Reset(coalesce)
		select {
		case <-pause.C:
		case <-s.done:
			return
		}
	}
}

// Grant admits one viewer. errors.Is: ErrGrants.
func (s *Server) Grant(g Grant) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tokens.add(g, time.Now())
}

// Viewers is how many see the console.
func (s *Server) Viewers() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.viewers)
}

// End closes the consoles, and forgets the grants, of a session, or of a user
// when session is empty.
func (s *Server) End(session, user, reason string) {
	match := func(ofSession, ofUser string) bool {
		if session != "" {
			return ofSession == session
		}
		return user != "" && ofUser == user
	}
	s.mu.Lock()
	s.tokens.drop(func(g *Grant) bool { return match(g.Session, g.User) })
	for _, v := range s.viewers {
		if match(v.Session, v.User) {
			v.say(proto.Close{Code: proto.SessionEnded, Text: reason})
		}
	}
	s.mu.Unlock()
}

// Close sends viewers what is left, and a Close with the code, and waits until
// they have it, or for 2 s.
func (s *Server) Close(code proto.Code, text string) error {
	var err error
	s.closing.Do(func() {
		s.flush()
		s.mu.Lock()
		s.shutBy = time.Now().Add(byeTimeout)
		for _, v := range s.viewers {
			v.say(proto.Close{Code: code, Text: text})
			v.conn.SetWriteDeadline(s.shutBy)
		}
		for conn := range s.strangers {
			conn.SetReadDeadline(longAgo)
			conn.SetWriteDeadline(longAgo)
		}
		s.mu.Unlock()
		close(s.done)
		err = s.listener.Close()
		s.SetInput(nil)
		s.Room()
		s.work.Wait()
	})
	return err
}

func (s *Server) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			select {
			case <-s.done:
			default:
				s.fault("console accept", err)
			}
			return
		}
		s.mu.Lock()
		full := !s.shutBy.IsZero() || len(s.strangers) >= maxStrangers
		if !full {
			s.strangers[conn] = true
			s.work.Go(func() { s.serve(conn) })
		}
		s.mu.Unlock()
		if full {
			conn.Close()
		}
	}
}

// admit looks at a hello and makes a viewer of who sent it.
func (s *Server) admit(conn Conn, h *proto.Hello) (*viewer, proto.Close) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.shutBy.IsZero() {
		return nil, proto.Close{Code: proto.Shutdown}
	}
	g, code := s.tokens.take(h.Token, h.Session, time.Now())
	if code != 0 {
		return nil, proto.Close{Code: code}
	}
	if len(s.viewers) >= proto.MaxViewers {
		return nil, proto.Close{Code: proto.Superseded, Text: "too many viewers"}
	}
	s.lastID++
	v := &viewer{
		Viewer: Viewer{ID: s.lastID, Session: g.Session, User: g.User, Address: h.Address, Write: g.Write},
		conn:   conn, wake: make(chan struct{}, 1), at: h.Offset, piece: make([]byte, pieceSize),
	}
	s.viewers = append(s.viewers, v)
	if v.Write && s.writer.Load() == 0 {
		s.writer.Store(v.ID)
	}
	s.listChanged()
	return v, proto.Close{}
}

// leave takes a viewer off the list. The viewer that may type and came first
// types next.
func (s *Server) leave(v *viewer) {
	s.mu.Lock()
	for i := range s.viewers {
		if s.viewers[i] == v {
			s.viewers = append(s.viewers[:i], s.viewers[i+1:]...)
			break
		}
	}
	if s.writer.CompareAndSwap(v.ID, 0) {
		for _, o := range s.viewers {
			if o.Write {
				s.writer.Store(o.ID)
				break
			}
		}
	}
	s.listChanged()
	s.mu.Unlock()
	s.Room()
	s.fit()
}

// take makes a viewer the one who types, if it may.
func (s *Server) take(v *viewer) {
	if !v.Write {
		return
	}
	s.mu.Lock()
	s.writer.Store(v.ID)
	s.listChanged()
	s.mu.Unlock()
	s.Room()
	s.fit()
}

func (s *Server) listChanged() {
	for _, v := range s.viewers {
		v.list = true
		signal(v.wake)
	}
}

// typed hands over what a viewer typed, if it is the writer, and waits for room.
func (s *Server) typed(v *viewer, p []byte) {
	s.typing.Lock()
	defer s.typing.Unlock()
	for len(p) > 0 && s.input != nil && s.writer.Load() == v.ID {
		n := s.input(p)
		if p = p[n:]; len(p) > 0 {
			s.room.Wait()
		}
	}
}

// longAgo is a deadline that ends what goes on.
var longAgo = time.Unix(1, 0)

// errLeft is a viewer that closed its connection.
var errLeft = errors.New("left")
