// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"

	"vmctl/daemon/client"
)

var errNoServer = usageError{errors.New("needs --server https://host:port; the socket knows you by your uid")}

func (p *program) loginCommand() *cobra.Command {
	var user, fingerprint string
	cmd := &cobra.Command{
		Use: "login --server URL", Short: "Log in at a server and keep the session", Args: words(0, 0),
		Long: "Log in at a vmhttp. The password is read from the terminal without showing it,\n" +
			"or is the first line of the input. A certificate that no authority vouches for\n" +
			"is pinned: its fingerprint is shown and must be confirmed, or given with\n" +
			"--fingerprint.",
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p.started = true
			if err := p.login(cmd.Context(), user, fingerprint); err != nil {
				return fmt.Errorf("login: %w", err)
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&user, "user", "u", "", "name of the account (default: asked for)")
	cmd.Flags().StringVar(&fingerprint, "fingerprint", "", "SHA-256 of the server's certificate, as vmhttp prints it at its start")
	return cmd
}

func (p *program) login(ctx context.Context, user, fingerprint string) error {
	_, server, err := p.target()
	if err != nil {
		return err
	}
	if server == "" {
		return errNoServer
	}
	pin, err := p.pin(ctx, server, fingerprint)
	if err != nil {
		return err
	}
	// The session that this one replaces is sent along, and ends with it.
	old, _ := p.logins().load(server)
	cfg := client.Config{Server: server, Fingerprint: pin, Session: old.Session, UserAgent: "vmctl/" + version()}
	if user == "" {
		if !isTerminal(p.in) {
			return usageError{errors.New("needs --user where it cannot ask")}
		}
		if user, err = p.ask(ctx, "User: "); err != nil {
			return err
		}
	}
	kept, err := p.newSession(ctx, cfg, user)
	if err != nil {
		return err
	}
	if err := p.logins().save(kept); err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.out, "logged in at %s as %s until %s\n", server, clean(kept.User), p.date(kept.ExpiresAt))
	return err
}

func (p *program) newSession(ctx context.Context, cfg client.Config, user string) (login, error) {
	c, err := client.New(cfg)
	if err != nil {
		return login{}, err
	}
	defer c.Close()
	password, err := p.askSecret(ctx, fmt.Sprintf("Password of %s: ", clean(user)))
	if err != nil {
		return login{}, fmt.Errorf("read password: %w", err)
	}
	if cfg.Session, err = c.Login(ctx, user, password); err != nil {
		return login{}, err
	}
	in, err := client.New(cfg)
	if err != nil {
		return login{}, err
	}
	defer in.Close()
	session, err := in.Session(ctx)
	if err != nil {
		return login{}, err
	}
	return login{Server: cfg.Server, User: session.User, Session: cfg.Session,
		ExpiresAt: session.ExpiresAt, Fingerprint: cfg.Fingerprint}, nil
}

// pin decides which certificate the server must show: the one of the flag,
// else the one it showed at the last login, else one that an authority
// vouches for (no pin), else the one that the user confirms.
func (p *program) pin(ctx context.Context, server, flag string) (string, error) {
	if flag != "" {
		pin, err := client.ParseFingerprint(flag)
		if err != nil {
			return "", usageError{err}
		}
		return pin.String(), nil
	}
	kept, err := p.logins().load(server)
	if err == nil && kept.Fingerprint != "" {
		return kept.Fingerprint, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	pin, trusted, err := client.ProbeCertificate(ctx, server)
	if err != nil || trusted {
		return "", err
	}
	if !isTerminal(p.in) {
		return "", fmt.Errorf("no authority vouches for the certificate of %s and nobody is here to confirm it; "+
			"compare its SHA-256 %s with what vmhttp printed and give it with --fingerprint", server, pin)
	}
	answer, err := p.ask(ctx, fmt.Sprintf("No authority vouches for the certificate of %s. Its SHA-256 is\n  %s\n"+
		"vmhttp printed it at its first start. Is it the same? [yes/no] ", server, wrapped(pin.String())))
	if err != nil {
		return "", err
	}
	if !strings.EqualFold(strings.TrimSpace(answer), "yes") {
		return "", errors.New("the certificate was not confirmed; nothing was sent")
	}
	return pin.String(), nil
}

// wrapped breaks a fingerprint in the middle, for 80 columns.
func wrapped(pin string) string {
	half := len(pin)/2 + 1
	return pin[:half] + "\n  " + pin[half:]
}

func (p *program) logoutCommand() *cobra.Command {
	var forget bool
	cmd := &cobra.Command{
		Use: "logout --server URL", Short: "End the session at a server", Args: words(0, 0),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p.started = true
			if err := p.logout(cmd.Context(), forget); err != nil {
				return fmt.Errorf("logout: %w", err)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&forget, "forget", false, "forget the server's pinned certificate as well")
	return cmd
}

// logout ends the session at the server first: one that could not be ended
// there stays known here, so that it can be tried again.
func (p *program) logout(ctx context.Context, forget bool) error {
	_, server, err := p.target()
	if err != nil {
		return err
	}
	if server == "" {
		return errNoServer
	}
	kept, err := p.logins().load(server)
	if errors.Is(err, fs.ErrNotExist) {
		return notLoggedIn{server}
	}
	if err != nil {
		return err
	}
	if kept.Session != "" {
		if err := endSession(ctx, kept); err != nil {
			return err
		}
	}
	if forget {
		return p.logins().forget(server)
	}
	return p.logins().save(login{Server: server, Fingerprint: kept.Fingerprint})
}

func endSession(ctx context.Context, kept login) error {
	c, err := client.New(client.Config{Server: kept.Server, Session: kept.Session, Fingerprint: kept.Fingerprint})
	if err != nil {
		return err
	}
	defer c.Close()
	err = c.Logout(ctx)
	if errors.Is(err, client.ErrUnauthenticated) { // ended already
		return nil
	}
	return err
}
