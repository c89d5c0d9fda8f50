// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"vmctl/frontdoor/login"
)

// firstAccount makes the account admin when there is no account at all. Its
// password goes to a new file, or is printed: this once.
func firstAccount(ctx context.Context, s *login.Store, file string, out io.Writer, now time.Time) error {
	empty, err := s.Empty(ctx)
	if err != nil || !empty {
		return err
	}
	password := login.NewPassword()
	if file != "" {
		if err := writePassword(file, password); err != nil {
			return fmt.Errorf("write first password: %w", err)
		}
	}
	if err := s.SetPassword(ctx, login.Admin, password, true, now); err != nil {
		return fmt.Errorf("make first account: %w", err)
	}
	if file != "" {
		_, err = fmt.Fprintf(out, "first login: user %s, password in %s\n", login.Admin, file)
	} else {
		_, err = fmt.Fprintf(out, "first login: user %s, password %s (shown this once)\n", login.Admin, password)
	}
	return err
}

// writePassword replaces what a start left that died before it had made the
// account, and writes through no link.
func writePassword(file, password string) error {
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(password + "\n")
	return errors.Join(err, f.Sync(), f.Close())
}
