// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"errors"
	"testing"

	"vmctl/monitor/saved"
)

// rooms counts how often input is asked for.
type rooms int

func (*rooms) Put(byte) {}
func (r *rooms) Room()  { *r++ }

// A machine that is being reset, or about to be, is not saved, and takes input again.
func TestSaveBusy(t *testing.T) {
	for what, prepare := range map[string]func(*Machine){
		"being reset":     func(m *Machine) { m.turn.Lock() },
		"about to be":     func(m *Machine) { m.stop(cause{reset: true}) },
		"about to be off": func(m *Machine) { m.guestOff() },
	} {
		var asked rooms
		m := &Machine{output: &asked}
		prepare(m)
		if err := m.Save(saved.Files{}); !errors.Is(err, ErrBusy) || m.quiet.Load() || asked != 1 {
			t.Errorf("%s: %v, quiet %v, asked for input %d times", what, err, m.quiet.Load(), asked)
		}
	}
}
