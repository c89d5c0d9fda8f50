// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/term"

	"vmctl/frontdoor/login"
)

// passwd sets a password while vmhttp runs or not; it is the way back in for
// whoever is on the machine. The account's sessions end within seconds.
func passwd(ctx context.Context, args []string, t terminal) (err error) {
	f := newFlags("vmhttp passwd")
	stateDir := f.String("state-dir", defaultState, "`folder` of the accounts")
	create := f.Bool("create", false, "make the account if there is none of this name")
	generate := f.Bool("generate", false, "make a random password and print it")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() != 1 {
		return errors.New("passwd takes one account's name, after the flags")
	}
	name := f.Arg(0)
	if err := login.CheckName(name); err != nil {
		return err
	}
	if err := harden(); err != nil {
		return err
	}
	store, err := login.OpenStore(ctx, accountsFile(*stateDir), false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	password := login.NewPassword()
	if !*generate {
		if password, err = ask(t, name); err != nil {
			return fmt.Errorf("read password: %w", err)
		}
	}
	if err := store.SetPassword(ctx, name, password, *create, time.Now()); err != nil {
		return fmt.Errorf("account %s: %w", name, err)
	}
	if *generate {
		_, err = fmt.Fprintf(t.out, "user %s, password %s\n", name, password)
	}
	return err
}

// ask reads a password twice from a terminal without showing it, else one line.
func ask(t terminal, name string) (string, error) {
	fd := int(t.in.Fd())
	if !term.IsTerminal(fd) {
		line, err := bufio.NewReader(io.LimitReader(t.in, 4096)).ReadString('\n')
		if err == io.EOF && line != "" {
			err = nil
		}
		for len(line) > 0 && (line[len(line)-1] == '\n' || line[len(line)-1] == '\r') {
			line = line[:len(line)-1]
		}
		return line, err
	}
	var typed [2]string
	for i, prompt := range []string{"new password of " + name + ": ", "again: "} {
		fmt.Fprint(t.out, prompt)
		b, err := term.ReadPassword(fd)
		fmt.Fprintln(t.out)
		if err != nil {
			return "", err
		}
		typed[i] = string(b)
	}
	if typed[0] != typed[1] {
		return "", errors.New("the two are not the same")
	}
	return typed[0], nil
}
