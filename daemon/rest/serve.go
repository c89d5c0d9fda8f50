// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"vmctl/daemon/auth"
	"vmctl/daemon/auth/peer"
)

// Times and limits of a connection. A stream of events sets its own deadlines.
const (
	headerTimeout = 10 * time.Second
	readTimeout   = 30 * time.Second
	answerTimeout = maxWait + 30*time.Second
	idleTimeout   = 2 * time.Minute
	stopTimeout   = 5 * time.Second
	maxConns      = 8192 // of one socket
)

// Identify says who is behind a request on one of the sockets. The error is
// an *api.Error.
type Identify func(r *http.Request, body []byte, cred peer.Cred) (*auth.Caller, error)

type credKey struct{}

// conn is what is known of a connection: who is at its other end, and, on the
// socket of local callers, what that is worth, looked up once.
type conn struct {
	cred  peer.Cred
	err   error
	local *auth.Caller
}

// Local identifies callers of api.sock by their socket.
func Local(r *http.Request, _ []byte, _ peer.Cred) (*auth.Caller, error) {
	c := r.Context().Value(credKey{}).(*conn)
	if c.local == nil {
		c.local = auth.Local(c.cred) // one request at a time on a connection: HTTP/1
	}
	return c.local, nil
}

// Serve answers on l until ctx ends; then streams are told, and what is being
// answered may end.
func (s *Server) Serve(ctx context.Context, l net.Listener, id Identify) error {
	srv := newHTTP(s.Handler(id), s.log)
	srv.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		k := &conn{}
		k.cred, k.err = credOf(c)
		return context.WithValue(ctx, credKey{}, k)
	}
	return serve(ctx, srv, l)
}

// ServeHandler answers on l with a handler that needs nobody's name, such as
// that of metrics.
func ServeHandler(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) error {
	srv := newHTTP(h, log)
	srv.WriteTimeout = answerTimeout
	return serve(ctx, srv, l)
}

func newHTTP(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{Handler: h, ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeader, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}
}

func serve(ctx context.Context, srv *http.Server, l net.Listener) error {
	// Requests do not end with ctx: streams are told why, writes are answered.
	srv.BaseContext = func(net.Listener) context.Context { return context.WithoutCancel(ctx) }
	done := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		sctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		err := srv.Shutdown(sctx)
		if err != nil {
			err = errors.Join(err, srv.Close())
		}
		done <- err
	})
	err := srv.Serve(&limited{Listener: l, room: make(chan struct{}, maxConns)})
	if stop() {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return <-done
}

// credOf asks who is at the other end of a connection of limited.
func credOf(c net.Conn) (peer.Cred, error) {
	l, ok := c.(*limitedConn)
	if !ok {
		return peer.Cred{}, errors.New("not a connection of this server")
	}
	u, ok := l.Conn.(*net.UnixConn)
	if !ok {
		return peer.Cred{}, errors.New("not a unix socket")
	}
	return peer.Of(u)
}

// limited accepts only while there is room; the others wait in the backlog.
// (netutil.LimitListener hides the connection that credOf needs.)
type limited struct {
	net.Listener
	room chan struct{}
}

// Accept waits for room and for a connection.
func (l *limited) Accept() (net.Conn, error) {
	l.room <- struct{}{}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.room
		return nil, err
	}
	return &limitedConn{Conn: c, room: l.room}, nil
}

type limitedConn struct {
	net.Conn
	room chan struct{}
	once sync.Once
}

// Close gives the room back.
func (c *limitedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { <-c.room })
	return err
}
