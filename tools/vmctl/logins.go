// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// login is what is kept of one server. The fingerprint outlives the session:
// who logs in again must meet the same server.
type login struct {
	Server      string    `json:"server"`
	User        string    `json:"user,omitempty"`
	Session     string    `json:"session,omitempty"` // a secret
	ExpiresAt   time.Time `json:"expiresAt,omitzero"`
	Fingerprint string    `json:"fingerprint,omitempty"` // empty: the system's authorities decide
}

// logins is the folder of logins, one file for each server, so that two logins
// at the same time do not lose each other. Folder and files are the user's
// alone; wider permissions are refused, not repaired: the secrets in them may
// have been read.
type logins struct{ dir string }

const maxLogin = 64 << 10 // bytes of a file

var errNoHome = errors.New("neither XDG_CONFIG_HOME nor HOME is set: there is no place to keep a login")

func (p *program) logins() logins {
	base := p.getenv("XDG_CONFIG_HOME")
	if !filepath.IsAbs(base) {
		if base = p.getenv("HOME"); base == "" {
			return logins{}
		}
		base = filepath.Join(base, ".config")
	}
	return logins{filepath.Join(base, "vmctl")}
}

func (l logins) path(server string) string {
	return filepath.Join(l.dir, url.PathEscape(strings.TrimPrefix(server, "https://"))+".login")
}

// load returns the login of a server; fs.ErrNotExist if there is none.
func (l logins) load(server string) (login, error) {
	if l.dir == "" {
		return login{}, errNoHome
	}
	if err := private(l.dir); err != nil {
		return login{}, err
	}
	path := l.path(server)
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return login{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return login{}, err
	}
	if err := owned(path, info, 0); err != nil {
		return login{}, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxLogin))
	if err != nil {
		return login{}, err
	}
	var kept login
	if err := json.Unmarshal(text, &kept); err != nil || kept.Server != server {
		return login{}, fmt.Errorf("%s: not a login for %s; remove it and log in again", path, server)
	}
	return kept, nil
}

// save replaces the login of a server as a whole.
func (l logins) save(kept login) error {
	if l.dir == "" {
		return errNoHome
	}
	if err := os.MkdirAll(filepath.Dir(l.dir), 0o700); err != nil {
		return err
	}
	if err := os.Mkdir(l.dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := private(l.dir); err != nil {
		return err
	}
	text, err := json.MarshalIndent(kept, "", "  ")
	if err != nil {
		return err
	}
	return replace(l.path(kept.Server), append(text, '\n'))
}

// forget removes all that is kept of a server.
func (l logins) forget(server string) error {
	return os.Remove(l.path(server))
}

// replace writes a file that is there whole or not at all, with mode 0600.
func replace(path string, text []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(text); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// private checks the folder; one that is not there is in order.
func private(dir string) error {
	info, err := os.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return owned(dir, info, fs.ModeDir)
}

// owned checks that a file is of the kind, this user's, and nobody else's.
func owned(path string, info fs.FileInfo, kind fs.FileMode) error {
	stat, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case info.Mode().Type() != kind:
		return fmt.Errorf("%s: not a plain file or folder", path)
	case !ok || int(stat.Uid) != os.Geteuid():
		return fmt.Errorf("%s: belongs to another user", path)
	case info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("%s: has mode %04o, so others may know its secrets: log out, remove it and log in again", path, info.Mode().Perm())
	}
	return nil
}
