// SPDX-License-Identifier: Apache-2.0

package login

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"time"
)

// Admin is the account that the first start makes.
const Admin = "admin"

const (
	minPassword = 10
	maxPassword = 1024
)

var accountName = regexp.MustCompile(`^[a-z][a-z0-9._-]{0,31}$`)

// CheckName returns ErrName for what cannot be an account's name.
func CheckName(name string) error {
	if !accountName.MatchString(name) {
		return ErrName
	}
	return nil
}

// SetPassword gives an account a new password and ends its sessions; with
// create it makes the account where there is none. Errors: ErrName,
// ErrPassword, ErrNoAccount.
func (s *Store) SetPassword(ctx context.Context, name, password string, create bool, now time.Time) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if len(password) < minPassword || len(password) > maxPassword {
		return ErrPassword
	}
	hash := hashPassword(password)
	return s.tx(ctx, func(tx *sql.Tx) error {
		ms := now.UnixMilli()
		res, err := tx.ExecContext(ctx, "UPDATE accounts SET hash = ?, changed_at = ? WHERE name = ?", hash, ms, name)
		if err != nil {
			return fmt.Errorf("set password: %w", err)
		}
		if n, err := res.RowsAffected(); err != nil || n == 1 {
			return errors.Join(err, endSessionsOf(ctx, tx, name, "passwordChanged"))
		}
		if !create {
			return ErrNoAccount
		}
		_, err = tx.ExecContext(ctx, "INSERT INTO accounts (name, hash, created_at, changed_at) VALUES (?, ?, ?, ?)", name, hash, ms, ms)
		if err != nil {
			return fmt.Errorf("make account: %w", err)
		}
		return nil
	})
}

// Empty reports whether there is no account at all.
func (s *Store) Empty(ctx context.Context) (bool, error) {
	var n int
	if err := s.db.QueryRowContext(ctx, "SELECT count(*) FROM accounts").Scan(&n); err != nil {
		return false, fmt.Errorf("count accounts: %w", err)
	}
	return n == 0, nil
}

// passwordHash returns the hash of an account, or of none: the second is as
// much work to check as the first and fits no password.
func (s *Store) passwordHash(ctx context.Context, name string) (hash string, known bool, err error) {
	err = s.db.QueryRowContext(ctx, "SELECT hash FROM accounts WHERE name = ?", name).Scan(&hash)
	if errors.Is(err, sql.ErrNoRows) {
		return nobody, false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("read account: %w", err)
	}
	return hash, true, nil
}

// NewPassword makes a random password of 26 letters and digits (130 bits).
func NewPassword() string { return rand.Text() }
