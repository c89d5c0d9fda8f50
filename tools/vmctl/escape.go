// SPDX-License-Identifier: Apache-2.0

package main

// escapeKey is Ctrl-], as in telnet and virsh.
const escapeKey = 0x1d

// command is what a key after the escape key asks for.
type command int

const (
	commandNone    command = iota
	commandQuit            // q or .
	commandTake            // t
	commandHelp            // ? or h
	commandUnknown         // any other
)

const escapeHelp = "after Ctrl-]: q or . leaves, t takes the keyboard over, Ctrl-] sends itself, ? shows this"

// escapes finds the escape key in what is typed. It keeps what a key at the
// end of one piece begins for the next piece.
type escapes struct{ begun bool }

// next splits off the keys up to the first command. rest is what follows that
// command; it is to be given to the next call.
func (e *escapes) next(keys []byte) (plain []byte, cmd command, rest []byte) {
	for i, key := range keys {
		switch {
		case !e.begun && key == escapeKey:
			e.begun = true
		case !e.begun:
			plain = append(plain, key)
		default:
			e.begun = false
			if key == escapeKey {
				plain = append(plain, key)
				continue
			}
			return plain, commandOf(key), keys[i+1:]
		}
	}
	return plain, commandNone, nil
}

func commandOf(key byte) command {
	switch key {
	case 'q', 'Q', '.':
		return commandQuit
	case 't', 'T':
		return commandTake
	case '?', 'h':
		return commandHelp
	}
	return commandUnknown
}
