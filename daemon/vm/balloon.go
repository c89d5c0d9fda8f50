// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"fmt"

	"vmctl/daemon/api"
)

// Balloon says what the guest of the VM with that uuid has given back of its memory. The
// error is an *api.Error.
func (inv *Inventory) Balloon(id string) (api.Balloon, error) {
	m := inv.machine(id)
	if m == nil {
		return api.Balloon{}, &api.Error{Code: api.CodeNotFound, Detail: "no such VM"}
	}
	return await(m, m.balloon)
}

// balloon asks the monitor. reply is called once, in the loop.
func (m *machine) balloon(reply func(api.Balloon, error)) {
	mon := m.mon
	switch {
	case m.closing || m.deleted:
		reply(api.Balloon{}, errGone(m))
		return
	case !m.up():
		reply(api.Balloon{}, &api.Error{Code: api.CodeStateConflict, Detail: fmt.Sprintf("the VM is %s: no guest has a balloon", m.state())})
		return
	case mon == nil || m.deaf:
		reply(api.Balloon{}, &api.Error{Code: api.CodeMonitorFailed, Detail: "no connection to the monitor"})
		return
	}
	m.work(func() func() {
		ctx, cancel := context.WithTimeout(m.ctx, callTimeout)
		defer cancel()
		b, err := mon.Balloon(ctx)
		return func() { reply(b, coded(api.CodeMonitorFailed, "balloon", err)) }
	})
}
