// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"context"
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"vmctl/monitor/spec"
)

// ErrGone is a call on a connection that ended.
var ErrGone = errors.New("monitor is gone")

// Client is vmctld's end of the control connection of one monitor. Its methods
// may be called by several goroutines. One goroutine of its own receives, from
// NewClient to Close.
type Client struct {
	conn   *Conn
	events func(Message)
	done   chan struct{}

	mu    sync.Mutex // guards next, calls and err
	next  uint32
	calls map[uint32]chan Packet
	err   error // why the connection ended
}

// Dial connects to the control socket of a monitor at path. See NewClient.
func Dial(path string, events func(Message)) (*Client, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	err = ignoreEINTR(func() error { return unix.Connect(fd, &unix.SockaddrUnix{Name: path}) })
	if err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("connect", err)
	}
	return NewClient(fd, events)
}

// NewClient takes over a connected socket. events is called for each event, from
// the receiving goroutine: it must not block and must not call Close. What it
// gets is a *GuestReset, *VMStopped, *ConsoleOpened, *ConsoleClosed,
// *DeviceBroken or *VsockDial.
func NewClient(fd int, events func(Message)) (*Client, error) {
	conn, err := NewConn(fd)
	if err != nil {
		return nil, err
	}
	c := &Client{conn: conn, events: events, done: make(chan struct{}), calls: make(map[uint32]chan Packet)}
	go c.receive()
	return c, nil
}

// Done is closed when the connection ended: the monitor is gone, or another
// connection took its place.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err says why the connection ended, after Done.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the connection and waits for the receiving goroutine. The monitor
// goes on.
func (c *Client) Close() error {
	err := c.conn.Close()
	<-c.done
	return err
}

func (c *Client) receive() {
	defer close(c.done)
	for {
		p, fds, err := c.conn.Recv()
		CloseAll(fds) // a monitor has none to give
		if err != nil {
			c.conn.Close()
			c.fail(err)
			return
		}
		if p.ID == 0 {
			c.events(p.Body)
			continue
		}
		c.mu.Lock()
		if reply := c.calls[p.ID]; reply != nil {
			delete(c.calls, p.ID)
			reply <- p // has room for one
		}
		c.mu.Unlock()
	}
}

// fail ends every call that still waits.
func (c *Client) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
	for _, reply := range c.calls {
		close(reply)
	}
	c.calls = nil
}

// Call sends a request with copies of descriptors and waits for its reply.
// errors.Is: ErrGone, an *Error with the reply's code, ctx's error.
func (c *Client) Call(ctx context.Context, request Message, fds ...int) (Message, error) {
	reply := make(chan Packet, 1)
	c.mu.Lock()
	if c.calls == nil {
		c.mu.Unlock()
		return nil, ErrGone
	}
	c.next++
	if c.next == 0 {
		c.next = 1
	}
	id := c.next
	c.calls[id] = reply
	c.mu.Unlock()

	if err := c.conn.Send(Packet{ID: id, Body: request}, fds...); err != nil {
		c.forget(id)
		return nil, errors.Join(ErrGone, err)
	}
	select {
	case p, ok := <-reply:
		if !ok {
			return nil, ErrGone
		}
		return p.Body, p.Err()
	case <-ctx.Done():
		c.forget(id)
		return nil, ctx.Err()
	}
}

func (c *Client) forget(id uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.calls, id)
}

// Hello asks who is there.
func (c *Client) Hello(ctx context.Context) (*HelloReply, error) {
	return answer[*HelloReply](c.Call(ctx, Hello{}))
}

// Status asks how the monitor is.
func (c *Client) Status(ctx context.Context) (*StatusReply, error) {
	return answer[*StatusReply](c.Call(ctx, Status{}))
}

// Configure hands over the VM, the kernel, the initrd (-1: none), and the listening
// socket of a guest with a CID. The caller's descriptors stay its own.
func (c *Client) Configure(ctx context.Context, s spec.Spec, vm, kernel, initrd, vsock int) error {
	_, err := c.Call(ctx, Configure{Spec: s}, append([]int{vm}, bootFiles(s, kernel, initrd, vsock)...)...)
	return err
}

// Restore hands over the VM, what Save wrote, and the boot files as Configure does. The
// caller's descriptors stay its own.
func (c *Client) Restore(ctx context.Context, s spec.Spec, vm, state, memory, kernel, initrd, vsock int) error {
	_, err := c.Call(ctx, Restore{Spec: s}, append([]int{vm, state, memory}, bootFiles(s, kernel, initrd, vsock)...)...)
	return err
}

// bootFiles are those behind the VM in Configure.
func bootFiles(s spec.Spec, kernel, initrd, vsock int) []int {
	fds := []int{kernel}
	if initrd >= 0 {
		fds = append(fds, initrd)
	}
	if s.CID != 0 {
		fds = append(fds, vsock)
	}
	return fds
}

// Save has the machine written to two empty files. The caller's descriptors stay its own.
func (c *Client) Save(ctx context.Context, state, memory int) error {
	_, err := c.Call(ctx, Save{}, state, memory)
	return err
}

// Balloon sets the target of the guest's balloon in bytes, unless it is KeepTarget, and
// asks what it has.
func (c *Client) Balloon(ctx context.Context, target uint64) (*BalloonReply, error) {
	return answer[*BalloonReply](c.Call(ctx, Balloon{target}))
}

// DiskSwitch lets a disk go on in a new overlay.
func (c *Client) DiskSwitch(ctx context.Context, disk uint8, backend uint32) error {
	return c.do(ctx, DiskSwitch{disk, backend})
}

// DiskMerge does a step of the merge of a disk, and returns how it is then.
func (c *Client) DiskMerge(ctx context.Context, disk uint8, do MergeStep) (*DiskMergeReply, error) {
	return answer[*DiskMergeReply](c.Call(ctx, DiskMerge{disk, do}))
}

// AttachDisk puts a disk into the machine, and returns its number.
func (c *Client) AttachDisk(ctx context.Context, d spec.Disk) (uint8, error) {
	return c.attach(ctx, AttachDisk{d})
}

// AttachNIC puts a network card into the machine, and returns its number.
func (c *Client) AttachNIC(ctx context.Context, n spec.NIC) (uint8, error) {
	return c.attach(ctx, AttachNIC{n})
}

func (c *Client) attach(ctx context.Context, m Message) (uint8, error) {
	r, err := answer[*AttachReply](c.Call(ctx, m))
	if err != nil {
		return 0, err
	}
	return r.Number, nil
}

// Detach asks the guest to let go of a device; Detached follows when it has.
func (c *Client) Detach(ctx context.Context, m Detach) error { return c.do(ctx, m) }

// SetDisk changes a disk.
func (c *Client) SetDisk(ctx context.Context, m SetDisk) error { return c.do(ctx, m) }

// SetNIC changes a network card.
func (c *Client) SetNIC(ctx context.Context, m SetNIC) error { return c.do(ctx, m) }

// Start lets the guest run.
func (c *Client) Start(ctx context.Context) error { return c.do(ctx, Start{}) }

// PowerButton presses the guest's power button.
func (c *Client) PowerButton(ctx context.Context) error { return c.do(ctx, PowerButton{}) }

// Reset resets the guest.
func (c *Client) Reset(ctx context.Context) error { return c.do(ctx, Reset{}) }

// Shutdown ends the monitor.
func (c *Client) Shutdown(ctx context.Context) error { return c.do(ctx, Shutdown{}) }

// VsockDialed hands over a connected socket, or -1 if there is none. The caller's
// descriptor stays its own.
func (c *Client) VsockDialed(ctx context.Context, number uint32, fd int) error {
	var fds []int
	if fd >= 0 {
		fds = append(fds, fd)
	}
	_, err := c.Call(ctx, VsockDialed{Number: number}, fds...)
	return err
}

// ConsoleGrant admits one console connection.
func (c *Client) ConsoleGrant(ctx context.Context, g ConsoleGrant) error { return c.do(ctx, g) }

// ConsoleClose ends the consoles of a session or user.
func (c *Client) ConsoleClose(ctx context.Context, m ConsoleClose) error { return c.do(ctx, m) }

func (c *Client) do(ctx context.Context, request Message) error {
	_, err := c.Call(ctx, request)
	return err
}

// answer gives a reply its type.
func answer[M Message](m Message, err error) (M, error) {
	reply, ok := m.(M)
	if err == nil && !ok {
		err = ErrType
	}
	return reply, err
}
