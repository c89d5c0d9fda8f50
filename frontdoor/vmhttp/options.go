// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
)

type options struct {
	listen            string
	frontSock         string
	consoleDir        string
	stateDir          string
	frontKey          string
	tlsCert, tlsKey   string
	origins           list
	ui                string
	firstPasswordFile string
	logLevel          slog.Level
}

// list is a flag that may be given more than once.
type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func newFlags(name string) *flag.FlagSet {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.SetOutput(os.Stderr)
	f.Usage = func() {
		fmt.Fprint(f.Output(), usage, "\n")
		f.PrintDefaults()
	}
	return f
}

const defaultState = "/var/lib/vmhttp"

func parseOptions(args []string) (options, error) {
	var o options
	f := newFlags("vmhttp")
	f.StringVar(&o.listen, "listen", ":8443", "`address` to listen on, unless the service manager passes sockets")
	f.StringVar(&o.frontSock, "front-sock", "/run/vmctl/front.sock", "vmctld's `socket` for the front door")
	f.StringVar(&o.consoleDir, "console-dir", "/run/vmctl/console", "`folder` of the VMs' console sockets")
	f.StringVar(&o.stateDir, "state-dir", defaultState, "`folder` of accounts, sessions and the first certificate")
	f.StringVar(&o.frontKey, "front-key", "", "`file` of the key shared with vmctld (default $CREDENTIALS_DIRECTORY/front-key)")
	f.StringVar(&o.tlsCert, "tls-cert", "", "PEM `file` of the certificate, read again when it changes (default: a self-signed one in the state folder)")
	f.StringVar(&o.tlsKey, "tls-key", "", "PEM `file` of the certificate's key")
	f.Var(&o.origins, "origin", "an `origin` besides our own whose pages may act, as https://host[:port]; also a name in a self-signed certificate; may be repeated")
	f.StringVar(&o.ui, "ui", "", "`folder` to serve the interface from, in place of the built-in one")
	f.StringVar(&o.firstPasswordFile, "first-password-file", "", "write the first password to this new `file` (0600) in place of printing it")
	f.TextVar(&o.logLevel, "log-level", slog.LevelInfo, "debug, info, warn or error")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unknown argument %q", f.Arg(0))
	}
	return o, o.complete()
}

func (o *options) complete() error {
	if (o.tlsCert == "") != (o.tlsKey == "") {
		return errors.New("--tls-cert and --tls-key come together")
	}
	if o.frontKey == "" {
		dir := os.Getenv("CREDENTIALS_DIRECTORY")
		if dir == "" {
			return errors.New("--front-key is needed: there is no $CREDENTIALS_DIRECTORY")
		}
		o.frontKey = filepath.Join(dir, "front-key")
	}
	return nil
}

func accountsFile(stateDir string) string { return filepath.Join(stateDir, "vmhttp.db") }

// terminal is where passwords are asked for.
type terminal struct {
	in  *os.File
	out io.Writer
}
