// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"

	"vmctl/daemon/api"
)

// A VM is named by its uuid or its name. What can be neither is refused with
// ErrNameInvalid before anything is sent: it could reach another route.

// CreateVM makes a VM that is off. ErrExists: the name is taken.
func (c *Client) CreateVM(ctx context.Context, vm api.VMCreate) (*api.VM, error) {
	out := new(api.VM)
	if err := c.do(ctx, call{method: http.MethodPost, path: "/v1/vms", body: vm}, out); err != nil {
		return nil, err
	}
	return out, nil
}

// VM returns one VM, or ErrNotFound.
func (c *Client) VM(ctx context.Context, vm string) (*api.VM, error) {
	path, err := vmPath(vm, "")
	if err != nil {
		return nil, err
	}
	out := new(api.VM)
	if err := c.do(ctx, call{method: http.MethodGet, path: path}, out); err != nil {
		return nil, err
	}
	return out, nil
}

// Seed returns what is in a VM's seed. ErrNotFound: it has none; ErrForbidden: it is not
// for everyone who sees the VM.
func (c *Client) Seed(ctx context.Context, vm string) (*api.Seed, error) {
	path, err := vmPath(vm, "/seed")
	if err != nil {
		return nil, err
	}
	out := new(api.Seed)
	if err := c.do(ctx, call{method: http.MethodGet, path: path}, out); err != nil {
		return nil, err
	}
	return out, nil
}

// VMs walks all VMs by name. An error ends the walk.
func (c *Client) VMs(ctx context.Context) iter.Seq2[api.VM, error] {
	return pages(ctx, func(ctx context.Context, cursor string) ([]api.VM, string, error) {
		page, err := c.VMPage(ctx, cursor, 0)
		if err != nil {
			return nil, "", err
		}
		return page.Items, page.NextCursor, nil
	})
}

// VMPage returns one page of VMs; limit 0 leaves its length to the server.
func (c *Client) VMPage(ctx context.Context, cursor string, limit int) (*api.VMList, error) {
	q := url.Values{}
	set(q, "cursor", cursor)
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	out := new(api.VMList)
	if err := c.do(ctx, call{method: http.MethodGet, path: "/v1/vms", query: q}, out); err != nil {
		return nil, err
	}
	return out, nil
}

// ChangeVM changes a VM that has that generation. ErrPreconditionFailed: it has another;
// ErrStateConflict: that cannot change in its state.
func (c *Client) ChangeVM(ctx context.Context, vm string, generation int64, change api.VMChange) (*api.VM, error) {
	path, err := vmPath(vm, "")
	if err != nil {
		return nil, err
	}
	out := new(api.VM)
	if err := c.do(ctx, call{method: http.MethodPatch, path: path, body: change, match: generation}, out); err != nil {
		return nil, err
	}
	return out, nil
}

// SetBalloon says how much of its memory a VM's guest is to give back, in bytes.
// ErrStateConflict: something else is being done with it.
func (c *Client) SetBalloon(ctx context.Context, vm string, bytes int64) (*api.VM, error) {
	path, err := vmPath(vm, ":setBalloon")
	if err != nil {
		return nil, err
	}
	out := new(api.VM)
	if err := c.do(ctx, call{method: http.MethodPost, path: path, body: api.BalloonTarget{BalloonBytes: bytes}}, out); err != nil {
		return nil, err
	}
	return out, nil
}

// Balloon returns what the guest of a VM has given back. ErrStateConflict: none is up.
func (c *Client) Balloon(ctx context.Context, vm string) (*api.Balloon, error) {
	path, err := vmPath(vm, "/balloon")
	if err != nil {
		return nil, err
	}
	out := new(api.Balloon)
	if err := c.do(ctx, call{method: http.MethodGet, path: path}, out); err != nil {
		return nil, err
	}
	return out, nil
}

// DeleteVM asks for the end of a VM that is off; ErrStateConflict otherwise.
func (c *Client) DeleteVM(ctx context.Context, vm string) (*api.Task, error) {
	return c.change(ctx, http.MethodDelete, vm, "")
}

// PowerOn asks for a start; ErrStateConflict unless the VM is off.
func (c *Client) PowerOn(ctx context.Context, vm string) (*api.Task, error) {
	return c.change(ctx, http.MethodPost, vm, ":powerOn")
}

// PowerOff asks for an immediate end of the run; ErrStateConflict when off.
func (c *Client) PowerOff(ctx context.Context, vm string) (*api.Task, error) {
	return c.change(ctx, http.MethodPost, vm, ":powerOff")
}

// Shutdown presses the power button of a running VM. The task is done when it was
// pressed: what the guest makes of it is its own affair.
func (c *Client) Shutdown(ctx context.Context, vm string) (*api.Task, error) {
	return c.change(ctx, http.MethodPost, vm, ":shutdown")
}

// Pause asks that no instruction of a running VM begins; ErrStateConflict otherwise.
func (c *Client) Pause(ctx context.Context, vm string) (*api.Task, error) {
	return c.change(ctx, http.MethodPost, vm, ":pause")
}

// Resume asks that a paused VM goes on; ErrStateConflict unless it is paused.
func (c *Client) Resume(ctx context.Context, vm string) (*api.Task, error) {
	return c.change(ctx, http.MethodPost, vm, ":resume")
}

// Save asks that a running VM is written down and stopped: PowerOn goes on from there,
// PowerOff forgets it. ErrStateConflict unless it runs.
func (c *Client) Save(ctx context.Context, vm string) (*api.Task, error) {
	return c.change(ctx, http.MethodPost, vm, ":save")
}

// Snapshot asks that a disk, by its place from 0 on, keeps what it has now, and goes on
// in a new overlay. ErrStateConflict unless the VM runs, is paused, or is off.
func (c *Client) Snapshot(ctx context.Context, vm string, disk int) (*api.Task, error) {
	return c.change(ctx, http.MethodPost, vm, "/disks/"+strconv.Itoa(disk)+":snapshot")
}

// Merge asks that the newest snapshot of a disk is merged into the one behind it.
// ErrStateConflict unless the VM runs or is paused.
func (c *Client) Merge(ctx context.Context, vm string, disk int) (*api.Task, error) {
	return c.change(ctx, http.MethodPost, vm, "/disks/"+strconv.Itoa(disk)+":merge")
}

// AttachDisk asks that a VM has one more disk, at once if it is up. ErrStateConflict unless
// it runs, is paused, or is off.
func (c *Client) AttachDisk(ctx context.Context, vm string, disk api.DiskSpec) (*api.Task, error) {
	return c.changeWith(ctx, vm, ":attachDisk", api.DiskAttach{Disk: disk})
}

// DetachDisk asks that a VM loses the disk of that path, as soon as its guest lets go of it.
// ErrNotFound: it has none; ErrStateConflict unless it runs or is off.
func (c *Client) DetachDisk(ctx context.Context, vm, path string) (*api.Task, error) {
	return c.changeWith(ctx, vm, ":detachDisk", api.DiskDetach{Path: path})
}

// AttachNIC is AttachDisk for a network card.
func (c *Client) AttachNIC(ctx context.Context, vm string, nic api.NICSpec) (*api.Task, error) {
	return c.changeWith(ctx, vm, ":attachNic", api.NICAttach{NIC: nic})
}

// DetachNIC is DetachDisk for the network card of that address.
func (c *Client) DetachNIC(ctx context.Context, vm, mac string) (*api.Task, error) {
	return c.changeWith(ctx, vm, ":detachNic", api.NICDetach{MAC: mac})
}

// Reset asks for a reset of the running VM; ErrStateConflict unless it runs.
func (c *Client) Reset(ctx context.Context, vm string) (*api.Task, error) {
	return c.change(ctx, http.MethodPost, vm, ":reset")
}

func (c *Client) change(ctx context.Context, method, vm, verb string) (*api.Task, error) {
	path, err := vmPath(vm, verb)
	if err != nil {
		return nil, err
	}
	return c.accepted(ctx, call{method: method, path: path})
}

func (c *Client) changeWith(ctx context.Context, vm, verb string, body any) (*api.Task, error) {
	path, err := vmPath(vm, verb)
	if err != nil {
		return nil, err
	}
	return c.accepted(ctx, call{method: http.MethodPost, path: path, body: body})
}

func (c *Client) accepted(ctx context.Context, what call) (*api.Task, error) {
	var out api.TaskAccepted
	if err := c.do(ctx, what, &out); err != nil {
		return nil, err
	}
	return &out.Task, nil
}

// ConsoleToken returns a token that opens the VM's console once, within 60 s.
func (c *Client) ConsoleToken(ctx context.Context, vm string, mode api.ConsoleMode) (*api.ConsoleToken, error) {
	path, err := vmPath(vm, ":consoleToken")
	if err != nil {
		return nil, err
	}
	out := new(api.ConsoleToken)
	body := api.ConsoleTokenRequest{Mode: mode}
	if err := c.do(ctx, call{method: http.MethodPost, path: path, body: body}, out); err != nil {
		return nil, err
	}
	return out, nil
}

func vmPath(vm, rest string) (string, error) {
	if !api.ValidIdent(vm) {
		return "", &Error{Code: api.CodeNameInvalid, Detail: fmt.Sprintf("%q is neither a VM's name nor a uuid", vm)}
	}
	return "/v1/vms/" + vm + rest, nil
}
