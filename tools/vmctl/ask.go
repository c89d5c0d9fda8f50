// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

const maxAnswer = 1024 // bytes of a line that is asked for

var (
	errNoAnswer   = errors.New("no answer")
	errLongAnswer = errors.New("the answer is too long")
)

// ask prints a question on the error stream and reads one line.
func (p *program) ask(ctx context.Context, question string) (string, error) {
	fmt.Fprint(p.errOut, question)
	return p.line(ctx)
}

// askSecret does the same without showing what is typed. From something that
// is no terminal it reads a line and asks nothing.
func (p *program) askSecret(ctx context.Context, question string) (string, error) {
	if !isTerminal(p.in) {
		return p.line(ctx)
	}
	t, err := mutedTerminal(p.in)
	if err != nil {
		return "", err
	}
	defer t.restore()
	defer fmt.Fprintln(p.errOut)
	return p.ask(ctx, question)
}

// line reads up to a line's end, byte by byte so that nothing behind it is
// taken, and gives up when ctx is done.
func (p *program) line(ctx context.Context) (string, error) {
	in, err := newInput(p.in)
	if err != nil {
		return "", err
	}
	defer in.close()
	defer context.AfterFunc(ctx, in.stop)()
	var line []byte
	for b := make([]byte, 1); ; {
		_, err := in.Read(b)
		switch {
		case ctx.Err() != nil:
			return "", context.Cause(ctx)
		case errors.Is(err, io.EOF) && len(line) == 0:
			return "", errNoAnswer
		case errors.Is(err, io.EOF) || err == nil && b[0] == '\n':
			return strings.TrimSuffix(string(line), "\r"), nil
		case err != nil:
			return "", err
		case len(line) == maxAnswer:
			return "", errLongAnswer
		}
		line = append(line, b[0])
	}
}
