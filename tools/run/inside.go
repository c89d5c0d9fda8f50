// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"vmctl/tools/run/chain"
)

// ready is what the machine tells the host once both daemons answer: one line
// of JSON on standard output.
type ready struct {
	User        string `json:"user"`
	Password    string `json:"password"`
	Fingerprint string `json:"fingerprint"`
}

// inside runs in the lab's machine: it lays out what packages would, starts
// both daemons and stays until its standard input ends or a signal comes.
func inside(bin, guestDir, listen string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	l, err := chain.LayOut(bin, guestDir)
	if err != nil {
		return err
	}
	daemon, err := l.StartDaemon(ctx)
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(listen)
	if err != nil {
		return err
	}
	r := ready{User: "admin"}
	front, err := l.StartFront(ctx, listen, func() bool {
		r.Fingerprint, err = fingerprint("127.0.0.1:" + port)
		return err == nil
	})
	if err != nil {
		return err
	}
	if r.Password, err = firstPassword(); err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case err = <-daemon.Done():
		err = fmt.Errorf("vmctld ended: %w", err)
	case err = <-front.Done():
		err = fmt.Errorf("vmhttp ended: %w", err)
	}
	return errors.Join(err, front.Stop(), daemon.Stop())
}

// firstPassword reads what vmhttp made for its first account.
func firstPassword() (string, error) {
	f, err := os.Open(chain.FirstPassword)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 1024))
	return strings.TrimSpace(string(b)), err
}
