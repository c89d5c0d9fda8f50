// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"

	"vmctl/frontdoor/edge"
)

const (
	headerTimeout = 10 * time.Second // also of the TLS handshake
	idleTimeout   = 2 * time.Minute
	maxHeader     = 32 << 10
	stopTimeout   = 10 * time.Second
)

// listeners are those that the service manager passed, or a new one.
func (d *door) listeners() ([]net.Listener, error) {
	passed, err := activation.Listeners()
	if err != nil {
		return nil, fmt.Errorf("take passed sockets: %w", err)
	}
	var all []net.Listener
	for _, ln := range passed {
		if ln != nil {
			all = append(all, ln)
		}
	}
	if len(all) > 0 {
		return all, nil
	}
	ln, err := net.Listen("tcp", d.options.listen)
	if err != nil {
		return nil, err
	}
	return []net.Listener{ln}, nil
}

func (d *door) server() *http.Server {
	return &http.Server{
		Handler:           d.handler,
		TLSConfig:         d.cert.Config(),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: 128,
			SendPingTimeout:      30 * time.Second,
			WriteByteTimeout:     time.Minute,
		},
		// What strangers do wrong in a handshake is no news.
		ErrorLog: slog.NewLogLogger(d.log.Handler(), slog.LevelDebug),
	}
}

// serve listens until ctx is done, then lets requests end and closes streams
// and consoles with a reason.
func (d *door) serve(ctx context.Context) error {
	lns, err := d.listeners()
	if err != nil {
		return err
	}
	return d.serveOn(ctx, lns)
}

func (d *door) serveOn(ctx context.Context, lns []net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	srv := d.server()
	failed := make(chan error, len(lns))
	var running sync.WaitGroup
	running.Go(func() { d.keeper.Run(ctx) })
	for _, ln := range lns {
		running.Go(func() { failed <- srv.ServeTLS(edge.Limit(ln), "", "") })
	}
	err := d.greet(lns)
	if err == nil {
		_, err = daemon.SdNotify(false, daemon.SdNotifyReady)
	}
	if err == nil {
		select {
		case err = <-failed:
		case <-ctx.Done():
		}
	}
	cancel() // ends what runs in sessions
	err = errors.Join(err, d.stop(srv))
	running.Wait()
	return err
}

func (d *door) stop(srv *http.Server) error {
	_, err := daemon.SdNotify(false, daemon.SdNotifyStopping)
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if e := srv.Shutdown(ctx); e != nil {
		err = errors.Join(err, e, srv.Close())
	}
	d.consoles.Wait()
	return err
}
