// SPDX-License-Identifier: Apache-2.0

package kerntest

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"vmctl/abi"
	"vmctl/daemon/kern"
	"vmctl/daemon/vm"
)

// Client is the daemon's way to the fake kernel at a path: a kern.Kernel whose
// ioctls go there, as its netlink does.
type Client struct {
	*kern.Kernel
	path string
}

// NewClient returns the kernel whose device is the socket at path.
func NewClient(path string) *Client {
	k := &Client{path: path}
	k.Kernel = kern.NewWith(path, k.dialNetlink)
	return k
}

func (k *Client) dial() (*net.UnixConn, error) {
	c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: k.path, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("fake kernel: %w", err)
	}
	return c, nil
}

// device sends one request to the device and returns the descriptor of the
// reply.
func (k *Client) device(m message) (message, *VM, error) {
	c, err := k.dial()
	if err != nil {
		return message{}, nil, err
	}
	defer c.Close()
	if err := send(c, m); err != nil {
		return message{}, nil, err
	}
	r, files, err := receive(c)
	if err != nil {
		return r, nil, err
	}
	if r.Errno != 0 {
		return r, nil, r.Errno
	}
	if len(files) != 1 {
		return r, nil, errors.New("fake kernel: no descriptor came")
	}
	v, err := NewVM(files[0])
	return r, v, err
}

// CreateVM is VM_CREATE.
func (k *Client) CreateVM(id uuid.UUID, name string) (*VM, uint64, error) {
	r, v, err := k.device(message{Op: "create", UUID: id, Name: name, Rights: abi.RightAll})
	return v, r.ID, err
}

// OpenVM is VM_OPEN.
func (k *Client) OpenVM(id uint64, rights abi.Right) (*VM, error) {
	_, v, err := k.device(message{Op: "open", ID: id, Rights: rights})
	return v, err
}

// Create makes a VM.
func (k *Client) Create(id, name string) (vm.Handle, uint64, error) {
	u, err := uuid.Parse(id)
	if err != nil {
		return nil, 0, err
	}
	v, number, err := k.CreateVM(u, name)
	if errors.Is(err, unix.EEXIST) {
		return nil, 0, vm.ErrRunExists
	}
	if err != nil {
		return nil, 0, err
	}
	return handle{v}, number, nil
}

// Open opens a VM.
func (k *Client) Open(id uint64) (vm.Handle, error) {
	v, err := k.OpenVM(id, abi.RightAll)
	if errors.Is(err, unix.ENOENT) {
		return nil, vm.ErrNoRun
	}
	if err != nil {
		return nil, err
	}
	return handle{v}, nil
}

// Facts are those of a module with KVM.
func (k *Client) Facts(context.Context) (kern.Facts, error) {
	return kern.Facts{ABI: abi.ABINumber, MaxVMs: maxVMs, MaxVCPUs: maxVCPUs, KVM: true, Instance: 1}, nil
}
