// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/monitor/console/proto"
)

var (
	errLeft    = errors.New("left by the escape key")
	errMatched = errors.New("the output matched")
	errLimit   = errors.New("the time is over")
)

// view shows a console until one of its ends: the console closes, the user
// leaves, the output matches, the time is over, a signal comes.
//
// Goroutines feed it from the console, the keyboard and the terminal's size.
// They are over before run returns (see over), and the terminal is as it was.
type view struct {
	p    *program
	link link
	opt  consoleOptions
	me   uint32    // our number among the viewers
	skip uint64    // history below this offset is not shown
	next uint64    // offset that history should go on at
	term *terminal // nil when the input is none

	outbox  chan func() error // what is to be sent, in order
	writer  atomic.Bool
	mayType chan struct{} // closed when we became the writer for the first time
	typing  sync.Once

	recent  []byte // end of the output, for waitFor; the receiver's own
	viewers int    // the receiver's own
}

// recentMax is how much output waitFor sees at once, in bytes.
const recentMax = 4096

// outboxMax is how many pieces of typing wait for a guest that does not take
// them. The keyboard itself never waits, or Ctrl-] would not work.
const outboxMax = 64

// outputLimit is how long the last output may take at the end.
const outputLimit = 2 * time.Second

func (v *view) run(ctx context.Context, title string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if v.opt.limit > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, v.opt.limit, errLimit)
		defer stop()
	}
	in, err := newInput(v.p.in)
	if err != nil {
		return err
	}
	if isTerminal(v.p.in) {
		if v.term, err = rawTerminal(v.p.in); err != nil {
			in.close()
			return err
		}
		defer v.term.restore()
		v.notice("connected to %s; to leave, press Ctrl-] and then q (? for help)", title)
	}

	var tasks sync.WaitGroup
	start := func(do func(context.Context) error) {
		tasks.Go(func() {
			if v.term != nil {
				defer v.term.guard()
			}
			if err := do(ctx); err != nil {
				cancel(err)
			}
		})
	}
	start(v.receive)
	start(v.post)
	if !v.opt.readOnly || v.term != nil {
		start(func(ctx context.Context) error { return v.send(ctx, in) })
	}
	if v.term != nil {
		start(v.follow)
	}
	if v.opt.take {
		v.outbox <- v.link.take
	}
	<-ctx.Done()
	v.link.close()
	in.stop()
	if over(&tasks) {
		in.close()
	}
	return v.end(context.Cause(ctx))
}

// over waits for the goroutines. All they wait for has been ended, but for
// output that nobody takes, such as that of a pager: over is false then, and
// the process ends with a write under way.
func over(tasks *sync.WaitGroup) bool {
	done := make(chan struct{})
	go func() { tasks.Wait(); close(done) }()
	select {
	case <-done:
		return true
	case <-time.After(outputLimit):
		return false
	}
}

// end makes the result of what ended the view.
func (v *view) end(cause error) error {
	if v.term != nil {
		v.term.restore()
		fmt.Fprintln(v.p.errOut)
	}
	var closed *proto.Close
	switch {
	case errors.Is(cause, errLeft), errors.Is(cause, errMatched):
		return nil
	case errors.Is(cause, errLimit) && v.opt.waitFor == nil:
		return nil
	case errors.Is(cause, errLimit):
		return fmt.Errorf("the output did not match within %s", v.opt.limit)
	case errors.As(cause, &closed) && v.opt.waitFor != nil:
		return fmt.Errorf("the console closed before the output matched: %s", reason(closed))
	case errors.As(cause, &closed) && closed.Code == proto.Shutdown:
		fmt.Fprintf(v.p.errOut, "vmctl: the console closed: %s\n", oneLine(reason(closed)))
		return nil
	case errors.As(cause, &closed):
		return fmt.Errorf("the console closed: %s", reason(closed))
	case errors.Is(cause, io.EOF), errors.Is(cause, io.ErrUnexpectedEOF),
		errors.Is(cause, unix.ECONNRESET): // it ended with input that it had not read
		return errors.New("the connection to the console was lost")
	}
	return cause
}

// receive shows what the console sends.
func (v *view) receive(context.Context) error {
	for {
		f, err := v.link.next()
		if err != nil {
			return err
		}
		switch f.Type {
		case proto.TypeData:
			err = v.show(f.Payload)
		case proto.TypeHistory:
			err = v.history(f.Payload)
		case proto.TypeViewers:
			err = v.seen(f.Payload)
		}
		if err != nil {
			return err
		}
	}
}

// history shows what was printed before, and says where a part is missing.
func (v *view) history(payload []byte) error {
	offset, printed, err := proto.ParseHistory(payload)
	if err != nil {
		return err
	}
	end := offset + uint64(len(printed))
	if end <= v.skip {
		return nil
	}
	if offset < v.skip {
		printed, offset = printed[v.skip-offset:], v.skip
	}
	if offset > v.next {
		v.notice("%s of output are not kept", size(int64(offset-v.next)))
	}
	v.next = end
	return v.show(printed)
}

func (v *view) show(printed []byte) error {
	if _, err := v.p.out.Write(printed); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	if v.opt.waitFor == nil {
		return nil
	}
	for _, b := range printed {
		if b != '\r' {
			v.recent = append(v.recent, b)
		}
	}
	if v.opt.waitFor.Match(v.recent) {
		return errMatched
	}
	if over := len(v.recent) - recentMax; over > 0 {
		v.recent = append(v.recent[:0], v.recent[over:]...)
	}
	return nil
}

// seen takes in who else looks, and tells when the keyboard changes hands.
func (v *view) seen(payload []byte) error {
	viewers, err := proto.ParseViewers(payload)
	if err != nil {
		return err
	}
	var mine bool
	holder := "nobody"
	for _, viewer := range viewers {
		if viewer.Writer {
			holder = viewer.User
			mine = viewer.ID == v.me
		}
	}
	changed := mine != v.writer.Load() || len(viewers) != v.viewers && v.viewers != 0
	v.viewers = len(viewers)
	v.wrote(mine)
	switch {
	case !changed || v.term == nil:
	case mine:
		v.notice("viewers: %d; you have the keyboard", len(viewers))
	default:
		v.notice("viewers: %d; %s has the keyboard", len(viewers), clean(holder))
	}
	return nil
}

func (v *view) wrote(mine bool) {
	v.writer.Store(mine)
	if mine {
		v.typing.Do(func() { close(v.mayType) })
	}
}

// post sends what is in the outbox. A write under way ends with the link.
func (v *view) post(ctx context.Context) error {
	for {
		select {
		case do := <-v.outbox:
			if err := do(); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// send types what comes from the keyboard, or from a pipe once we may.
func (v *view) send(ctx context.Context, in *input) error {
	if v.term == nil {
		select {
		case <-v.mayType:
		case <-ctx.Done():
			return nil
		}
	}
	var e escapes
	buf := make([]byte, 4096)
	for {
		n, err := in.Read(buf)
		switch {
		case errors.Is(err, errInputEnded), errors.Is(err, io.EOF) && v.term == nil:
			return nil // a pipe at its end: the output goes on
		case errors.Is(err, io.EOF):
			return errors.New("the terminal is gone")
		case err != nil:
			return err
		}
		if v.term == nil {
			err = v.pass(ctx, bytes.Clone(buf[:n]))
		} else {
			err = v.keys(&e, buf[:n])
		}
		if err != nil {
			return err
		}
	}
}

// pass hands on what a pipe holds, as fast as the guest takes it.
func (v *view) pass(ctx context.Context, piece []byte) error {
	select {
	case v.outbox <- func() error { return v.link.typed(piece) }:
		return nil
	case <-ctx.Done():
		return errInputEnded
	}
}

func (v *view) keys(e *escapes, keys []byte) error {
	for len(keys) > 0 {
		plain, cmd, rest := e.next(keys)
		if len(plain) > 0 {
			v.typed(plain)
		}
		if err := v.obey(cmd); err != nil {
			return err
		}
		keys = rest
	}
	return nil
}

func (v *view) typed(keys []byte) {
	switch {
	case v.writer.Load():
		v.enqueue(func() error { return v.link.typed(keys) })
	case v.opt.readOnly:
		v.notice("read-only: nothing is typed; Ctrl-] q leaves")
	default:
		v.notice("another viewer has the keyboard; Ctrl-] t takes it over")
	}
}

func (v *view) enqueue(do func() error) {
	select {
	case v.outbox <- do:
	default:
		v.notice("the guest does not take what is typed; the last keys are lost")
	}
}

func (v *view) obey(cmd command) error {
	switch cmd {
	case commandQuit:
		return errLeft
	case commandTake:
		if v.opt.readOnly {
			v.notice("read-only: the keyboard cannot be taken over")
		} else {
			v.enqueue(v.link.take)
		}
	case commandHelp, commandUnknown:
		v.notice(escapeHelp)
	}
	return nil
}

// follow tells the console the size of the terminal.
func (v *view) follow(ctx context.Context) error {
	var failed error
	watchTerminal(v.term, ctx.Done(), func(cols, rows int) {
		if err := v.link.resize(cols, rows); err != nil && failed == nil {
			failed = err
		}
	})
	if ctx.Err() != nil {
		return nil
	}
	return failed
}

// notice prints a line of our own between what the guest prints.
func (v *view) notice(format string, args ...any) {
	line := "vmctl: " + fmt.Sprintf(format, args...)
	if v.term == nil {
		fmt.Fprintln(v.p.errOut, line)
		return
	}
	fmt.Fprint(v.p.errOut, "\r\n"+strings.ReplaceAll(line, "\n", "\r\n")+"\r\n")
}
