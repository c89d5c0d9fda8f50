// SPDX-License-Identifier: Apache-2.0

package store

import "fmt"

// SetSchemaForTest makes the database look like that of another daemon.
func (s *Store) SetSchemaForTest(version int) error {
	_, err := s.write.Exec(fmt.Sprintf(`PRAGMA user_version = %d`, version))
	return err
}

// AuditForTest counts the rows of the audit log.
func (s *Store) AuditForTest() (n int, err error) {
	err = s.write.QueryRow(`SELECT count(*) FROM audit`).Scan(&n)
	return n, err
}
