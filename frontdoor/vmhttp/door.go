// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"vmctl/frontdoor/console"
	"vmctl/frontdoor/edge"
	"vmctl/frontdoor/login"
	"vmctl/frontdoor/page"
	"vmctl/frontdoor/problem"
	"vmctl/frontdoor/proxy"
	"vmctl/frontdoor/sign"
	"vmctl/frontdoor/ui"
	"vmctl/frontdoor/upstream"
)

// door is all that serves, put together but not yet listening.
type door struct {
	options  options
	log      *slog.Logger
	out      io.Writer
	store    *login.Store
	daemon   *upstream.Client
	keeper   *login.Keeper
	consoles *console.Handler
	cert     *edge.Certificate
	handler  http.Handler
}

// open reads keys and state; what the first start makes, it makes here.
func open(ctx context.Context, o options, log *slog.Logger, out io.Writer) (_ *door, err error) {
	d := &door{options: o, log: log, out: out}
	signer, err := openSigner(o.frontKey)
	if err != nil {
		return nil, err
	}
	origins, err := edge.NewOrigins(o.origins)
	if err != nil {
		return nil, err
	}
	files, err := openUI(o.ui)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.stateDir, 0o700); err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	if d.cert, err = openCertificate(o, log); err != nil {
		return nil, err
	}
	if d.store, err = login.OpenStore(ctx, accountsFile(o.stateDir), true); err != nil {
		return nil, err
	}
	if err := firstAccount(ctx, d.store, o.firstPasswordFile, out, time.Now()); err != nil {
		return nil, errors.Join(err, d.store.Close())
	}
	d.daemon = upstream.New(o.frontSock, signer)
	d.keeper = login.NewKeeper(d.store, register{d.daemon}, time.Now, log)
	d.handler = edge.Wrap(d.routes(files, origins), origins, log, time.Now)
	return d, nil
}

func openSigner(keyFile string) (*sign.Signer, error) {
	key, err := sign.ReadKey(keyFile)
	if err != nil {
		return nil, err
	}
	return sign.NewSigner(key, time.Now)
}

// openUI takes the built-in interface, or a folder that cannot be left.
func openUI(dir string) (fs.FS, error) {
	if dir == "" {
		return ui.Files(), nil
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open interface: %w", err)
	}
	return root.FS(), nil // open as long as the process
}

func openCertificate(o options, log *slog.Logger) (*edge.Certificate, error) {
	cert, key := o.tlsCert, o.tlsKey
	if cert == "" {
		cert, key = filepath.Join(o.stateDir, "tls", "cert.pem"), filepath.Join(o.stateDir, "tls", "key.pem")
		var names []string
		for _, origin := range o.origins {
			if u, err := url.Parse(origin); err == nil {
				names = append(names, u.Hostname())
			}
		}
		if _, err := edge.EnsureCertificate(cert, key, names, time.Now()); err != nil {
			return nil, err
		}
	}
	return edge.LoadCertificate(cert, key, time.Now, log)
}

func (d *door) routes(files fs.FS, origins *edge.Origins) http.Handler {
	logins := login.NewService(d.store, d.keeper, time.Now, d.log)
	d.consoles = &console.Handler{Dir: d.options.consoleDir, Daemon: d.daemon, Logins: logins, Keeper: d.keeper, Origins: origins, Log: d.log}
	api := proxy.New(d.daemon, logins, d.keeper, d.log)
	mux := http.NewServeMux()
	mux.Handle("/api/v1", api)
	mux.Handle(proxy.Prefix, api)
	mux.Handle("/auth/v1/", logins.Handler())
	mux.Handle("/console/{id}", d.consoles)
	mux.Handle(page.Prefix, page.Handler(files))
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, page.Prefix, http.StatusFound) })
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		problem.Write(w, http.StatusNotFound, problem.NotFound, "no such path")
	})
	return mux
}

// register tells vmctld of sessions.
type register struct{ daemon *upstream.Client }

func (g register) Register(ctx context.Context, s login.Session) error {
	return g.daemon.PutSession(ctx, upstream.Session{ID: s.ID, Principal: s.Principal(), ExpiresAt: s.ExpiresAt.UTC(), Address: s.Address})
}
func (g register) Ended(ctx context.Context, id string) error { return g.daemon.EndSession(ctx, id) }
func (g register) IsEnded(err error) bool                     { return errors.Is(err, upstream.ErrEnded) }

// greet prints how to get in, and by which certificate to know us.
func (d *door) greet(listeners []net.Listener) error {
	for _, ln := range listeners {
		if _, err := fmt.Fprintf(d.out, "listening on https://%s/\n", address(ln.Addr())); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(d.out, "certificate SHA-256 %s\n", d.cert.Fingerprint())
	return err
}

// address names this host where a socket listens on all addresses.
func address(a net.Addr) string {
	host, port, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		if host, err = os.Hostname(); err != nil {
			host = "localhost"
		}
	}
	return net.JoinHostPort(host, port)
}

func (d *door) close() error {
	d.daemon.Close()
	return d.store.Close()
}
