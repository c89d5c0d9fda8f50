// SPDX-License-Identifier: Apache-2.0

package kern

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"vmctl/abi"
	"vmctl/daemon/vm"
)

const (
	retryFirst = 100 * time.Millisecond
	retryMost  = 5 * time.Second
)

// Watch sends what the kernel says to updates until ctx ends, then closes it.
// It begins with a dump. Multicast loses messages when nobody reads in time;
// the numbers tell: on a gap, or when the socket says so, what is missing is
// read from the kernel's journal, or all is dumped. When the module is not
// there, or the connection breaks, that is told once per attempt, and tried
// again.
func (k *Kernel) Watch(ctx context.Context, updates chan<- vm.Update) {
	defer close(updates)
	retry := retryFirst
	w := &watcher{k: k, updates: updates}
	for ctx.Err() == nil {
		began := time.Now()
		err := w.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errOverrun) {
			continue
		}
		w.told = false
		if !w.send(ctx, vm.Update{Lost: err}) {
			return
		}
		if time.Since(began) > retryMost {
			retry = retryFirst
		}
		timer := time.NewTimer(retry)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		retry = min(2*retry, retryMost)
	}
}

// watcher is one reader of notices. Its goroutine is the caller's.
type watcher struct {
	k       *Kernel
	updates chan<- vm.Update
	at      position // of the last notice that was sent on
	told    bool     // a dump was sent, and no loss since
}

var (
	errOverrun  = errors.New("notices were dropped for want of room")
	errUnloaded = errors.New("the module was unloaded")
	errReloaded = errors.New("the module was loaded anew")
)

// follow listens on one socket until it breaks. The error is errOverrun when
// the kernel dropped notices: the socket goes on dropping them until it was read
// empty, and does not say so again, so only a new one is sure to have the next.
func (w *watcher) follow(ctx context.Context) error {
	c, err := w.k.dial(time.Time{})
	if err != nil {
		return err
	}
	// Closing is what ends Receive below.
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer func() {
		if stop() {
			c.Close()
		}
	}()
	if err := join(c); err != nil {
		return err
	}
	// Joined first: what happens after this is in the socket by then.
	if err := w.catchUp(ctx); err != nil {
		return err
	}
	for {
		msgs, raw, err := c.Receive()
		if errors.Is(err, unix.ENOBUFS) {
			return errOverrun
		}
		if err != nil {
			return &Error{Op: "netlink receive", Err: err}
		}
		for i := range msgs {
			if err := w.take(ctx, raw[i].Header.Type, msgs[i]); err != nil {
				return err
			}
		}
	}
}

// join asks for the notices of the module, and for those of generic netlink
// itself: when the module is unloaded, its own just stop.
func join(c *genetlink.Conn) error {
	family, err := c.GetFamily(abi.GenlName)
	if err != nil {
		return &Error{Op: "netlink family " + abi.GenlName, Err: err}
	}
	for _, g := range family.Groups {
		if g.Name != abi.GenlMCGroupEvents {
			continue
		}
		// The group that tells of families has their controller's number.
		if err := errors.Join(c.JoinGroup(unix.GENL_ID_CTRL), c.JoinGroup(g.ID)); err != nil {
			return &Error{Op: "netlink join " + g.Name, Err: err}
		}
		return nil
	}
	return &Error{Op: "netlink join", Err: fmt.Errorf("family %s has no group %s", abi.GenlName, abi.GenlMCGroupEvents)}
}

// take handles one message.
func (w *watcher) take(ctx context.Context, from netlink.HeaderType, m genetlink.Message) error {
	if from == unix.GENL_ID_CTRL {
		return unloaded(m)
	}
	if m.Header.Command != abi.CmdVMNtf {
		return nil
	}
	d, err := netlink.NewAttributeDecoder(m.Data)
	if err != nil {
		return &Error{Op: "vm-ntf", Err: err}
	}
	e, err := parseEvent(d)
	if err != nil {
		return &Error{Op: "vm-ntf", Err: err}
	}
	switch w.at.onNotice(e.position) {
	case handOn:
		w.notice(ctx, e)
	case fetch:
		return w.catchUp(ctx)
	case reconnect:
		return errReloaded
	}
	return nil
}

// unloaded is an error when m says that the module's family is gone.
func unloaded(m genetlink.Message) error {
	if m.Header.Command != unix.CTRL_CMD_DELFAMILY {
		return nil
	}
	d, err := netlink.NewAttributeDecoder(m.Data)
	if err != nil {
		return &Error{Op: "netlink family", Err: err}
	}
	for d.Next() {
		if d.Type() == unix.CTRL_ATTR_FAMILY_NAME && d.String() == abi.GenlName {
			return errUnloaded
		}
	}
	return nil
}

func (w *watcher) notice(ctx context.Context, e event) {
	w.at = e.position
	u := vm.Update{Kind: noticeKind(e.kind), Run: e.run, Seq: e.seq, Count: e.count, Backend: e.backend}
	if e.limit != 0 {
		u.Limit = e.limit.String()
	}
	w.send(ctx, u)
}

// catchUp sends the notices that were missed; when the kernel keeps them no
// more, or the reader is at no place yet, it sends everything instead.
func (w *watcher) catchUp(ctx context.Context) error {
	if !w.told {
		return w.dump(ctx)
	}
	end, missed, err := w.k.events(ctx, w.at.seq)
	if err != nil {
		return err
	}
	switch w.at.onJournal(end, missed) {
	case reconnect:
		return errReloaded
	case dump:
		return w.dump(ctx)
	}
	for _, e := range missed {
		w.notice(ctx, e)
	}
	return nil
}

// dump sends everything that the kernel has.
func (w *watcher) dump(ctx context.Context) error {
	at, runs, err := w.k.all(ctx)
	if err != nil {
		return err
	}
	w.send(ctx, vm.Update{Dump: runs, Seq: at.seq, Anew: w.at.instance != 0 && at.instance != w.at.instance})
	w.at, w.told = at, true
	return nil
}

func (w *watcher) send(ctx context.Context, u vm.Update) bool {
	select {
	case w.updates <- u:
		return true
	case <-ctx.Done():
		return false
	}
}

func noticeKind(e abi.Event) vm.NoticeKind {
	switch e {
	case abi.EventRunning:
		return vm.NoticeRunning
	case abi.EventPaused:
		return vm.NoticePaused
	case abi.EventResumed:
		return vm.NoticeResumed
	case abi.EventAttached:
		return vm.NoticeAttached
	case abi.EventDetached:
		return vm.NoticeDetached
	case abi.EventLimit:
		return vm.NoticeLimit
	case abi.EventReset:
		return vm.NoticeReset
	case abi.EventStopped:
		return vm.NoticeStopped
	case abi.EventDestroyed:
		return vm.NoticeDestroyed
	default:
		return vm.NoticeOther
	}
}
