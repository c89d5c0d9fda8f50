// SPDX-License-Identifier: Apache-2.0

package kern

import (
	"context"
	"errors"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"vmctl/abi"
	"vmctl/daemon/vm"
)

const (
	dumpTimeout = 10 * time.Second
	dumpTries   = 8
)

// Dialer opens a generic netlink connection, all of whose calls end at the
// deadline; the zero time is none.
type Dialer func(deadline time.Time) (*genetlink.Conn, error)

// Dial is the Dialer of the kernel of this host.
func Dial(deadline time.Time) (*genetlink.Conn, error) {
	c, err := genetlink.Dial(&netlink.Config{Strict: true})
	if err != nil {
		return nil, &Error{Op: "netlink dial", Err: err}
	}
	if err := c.SetDeadline(deadline); err != nil {
		c.Close()
		return nil, &Error{Op: "netlink deadline", Err: err}
	}
	return c, nil
}

// query is a command of the family.
type query struct {
	op    string
	cmd   uint8
	of    uint16 // attribute of the request; 0: it has none
	value uint64 // of that attribute
	head  head
}

// head is where the first message of a dump says how far the dump reaches.
type head struct{ seq, instance uint16 }

var (
	headOfVMs      = head{abi.AVMEventSeq, abi.AVMInstance}
	headOfVCPUs    = head{abi.AVCPUEventSeq, abi.AVCPUInstance}
	headOfBackends = head{abi.ADevEventSeq, abi.ADevInstance}
)

// message encodes the request.
func (q *query) message() (genetlink.Message, error) {
	m := genetlink.Message{Header: genetlink.Header{Command: q.cmd, Version: abi.GenlVersion}}
	if q.of == 0 {
		return m, nil
	}
	e := netlink.NewAttributeEncoder()
	e.Uint64(q.of, q.value)
	var err error
	m.Data, err = e.Encode()
	return m, err
}

var (
	errAttrs    = errors.New("message without number or uuid")
	errPosition = errors.New("dump that does not say how far it reaches")
)

// ofRun returns the query for one run, or for all when it is 0.
func (q query) ofRun(attr uint16, run uint64) query {
	if run != 0 {
		q.of, q.value = attr, run
	}
	return q
}

// list runs a dump command. Its first message has no object: it says how far
// the dump reaches, also when nothing follows.
func list[T any](ctx context.Context, k *Kernel, q query, parse func(*netlink.AttributeDecoder) (T, error)) (position, []T, error) {
	msgs, err := k.dump(ctx, &q)
	if err != nil {
		return position{}, nil, &Error{Op: q.op, Err: err}
	}
	var at position
	rows := make([]T, 0, len(msgs))
	for i, m := range msgs {
		d, err := netlink.NewAttributeDecoder(m.Data)
		switch {
		case err != nil:
		case i == 0:
			at, err = q.head.parse(d)
		default:
			var row T
			row, err = parse(d)
			rows = append(rows, row)
		}
		if err != nil {
			return position{}, nil, &Error{Op: q.op, Err: err}
		}
	}
	if at.instance == 0 {
		return position{}, nil, &Error{Op: q.op, Err: errPosition}
	}
	return at, rows, nil
}

// orNumber is err, or that the message names no run.
func orNumber(err error, run uint64) error {
	if err == nil && run == 0 {
		return errAttrs
	}
	return err
}

func (h head) parse(d *netlink.AttributeDecoder) (position, error) {
	var at position
	for d.Next() {
		switch d.Type() {
		case h.seq:
			at.seq = d.Uint64()
		case h.instance:
			at.instance = d.Uint64()
		}
	}
	return at, d.Err()
}

// dump asks until the answer was not interrupted by a VM that came or went. When
// VMs come and go faster than that, the last answer is as good: a VM that was
// there all the time is in it once, since the kernel goes by numbers; and what
// became of the others has a number above that of the answer's first message, so
// that it comes as a notice.
func (k *Kernel) dump(ctx context.Context, q *query) (msgs []genetlink.Message, err error) {
	c, family, err := k.open(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	for range dumpTries {
		var whole bool
		if msgs, whole, err = dumpOnce(c, family, q); err != nil || whole {
			break
		}
	}
	return msgs, err
}

func dumpOnce(c *genetlink.Conn, family uint16, q *query) (msgs []genetlink.Message, whole bool, err error) {
	req, err := q.message()
	if err != nil {
		return nil, false, err
	}
	sent, err := c.Send(req, family, netlink.Request|netlink.Dump)
	if err != nil {
		return nil, false, err
	}
	msgs, raw, err := c.Receive()
	if err != nil {
		return nil, false, err
	}
	if err := netlink.Validate(sent, raw); err != nil {
		return nil, false, err
	}
	for _, m := range raw {
		if m.Header.Flags&netlink.DumpInterrupted != 0 {
			return msgs, false, nil
		}
	}
	return msgs, true, nil
}

// open connects and resolves the family.
func (k *Kernel) open(ctx context.Context) (*genetlink.Conn, uint16, error) {
	deadline := time.Now().Add(dumpTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	c, err := k.dial(deadline)
	if err != nil {
		return nil, 0, err
	}
	family, err := c.GetFamily(abi.GenlName)
	if err != nil {
		c.Close()
		return nil, 0, &Error{Op: "netlink family " + abi.GenlName, Err: err}
	}
	return c, family.ID, nil
}

// one runs a command that has one message for an answer. errors.Is: vm.ErrNoRun.
func (k *Kernel) one(ctx context.Context, q query) (*netlink.AttributeDecoder, error) {
	req, err := q.message()
	if err != nil {
		return nil, err
	}
	c, family, err := k.open(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	msgs, err := c.Execute(req, family, netlink.Request)
	if errors.Is(err, unix.ENOENT) {
		return nil, vm.ErrNoRun
	}
	if err != nil {
		return nil, err
	}
	if len(msgs) != 1 {
		return nil, errAttrs
	}
	return netlink.NewAttributeDecoder(msgs[0].Data)
}
