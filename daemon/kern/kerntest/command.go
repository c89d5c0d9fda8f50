// SPDX-License-Identifier: Apache-2.0

package kerntest

import (
	"net"
	"os"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"vmctl/abi"
)

// What the host allows.
const (
	maxVMs      = 1024
	maxVCPUs    = 64
	maxBackends = 64
)

// device serves one opener of the device.
func (k *Kernel) device(c *net.UnixConn, m message, _ []*os.File) bool {
	if m.Op == "netlink" {
		k.netlink(c)
		return false
	}
	v, errno := k.createOrOpen(&m)
	if errno != 0 {
		return send(c, message{Errno: errno}) == nil
	}
	return k.reply(c, v, m.Rights)
}

func (k *Kernel) createOrOpen(m *message) (*fakeVM, unix.Errno) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if errno := k.fail[m.Op]; errno != 0 {
		return nil, errno
	}
	switch m.Op {
	case "open":
		if v := k.vms[m.ID]; v != nil {
			return v, 0
		}
		return nil, unix.ENOENT
	case "create":
		for _, v := range k.vms {
			if uuid.UUID(v.info.UUID) == m.UUID {
				return nil, unix.EEXIST
			}
		}
		if len(k.vms) >= maxVMs {
			return nil, unix.ENOSPC
		}
		v := k.newVM(m.UUID, m.Name)
		k.tell(v, note{event: abi.EventCreated})
		return v, 0
	}
	return nil, unix.ENOTTY
}

// reply answers with a new descriptor.
func (k *Kernel) reply(c *net.UnixConn, v *fakeVM, rights abi.Right) bool {
	f, err := k.handOut(v, rights)
	if err != nil {
		return send(c, message{Errno: unix.EMFILE}) == nil
	}
	defer f.Close()
	return send(c, message{ID: v.info.ID}, f) == nil
}

// call is one command on a VM descriptor.
type call struct {
	vm    *fakeVM
	conn  *net.UnixConn
	m     message
	files []*os.File
}

// states is a set of abi.VMState.
type states uint32

func in(all ...abi.VMState) states {
	var s states
	for _, a := range all {
		s |= 1 << a
	}
	return s
}

var (
	created   = in(abi.VMStateCreated)
	bound     = in(abi.VMStateBound)
	live      = in(abi.VMStateBound, abi.VMStateRunning)
	untilStop = created | live
	anyState  = untilStop | in(abi.VMStateStopped)
)

// row says what a command needs and does, as the module's table does. do is
// called with mu.
type row struct {
	right   abi.Right
	states  states
	monitor bool // from the descriptor that did bind alone
	do      func(*Kernel, *call) message
}

var table = map[string]row{
	"config":     {right: abi.RightControl, states: created, do: (*Kernel).config},
	"attach":     {right: abi.RightControl, states: untilStop, do: (*Kernel).attach},
	"detach":     {right: abi.RightControl, states: untilStop, do: (*Kernel).detach},
	"pause":      {right: abi.RightControl, states: untilStop, do: (*Kernel).pause},
	"resume":     {right: abi.RightControl, states: untilStop, do: (*Kernel).resume},
	"stop":       {right: abi.RightControl, states: untilStop, do: (*Kernel).stopByOperator},
	"destroy":    {right: abi.RightControl, states: anyState, do: (*Kernel).destroyByOperator},
	"bind":       {right: abi.RightRun, states: created, do: (*Kernel).bind},
	"vcpu":       {right: abi.RightRun, states: bound, monitor: true, do: (*Kernel).makeVCPU},
	"run":        {right: abi.RightRun, states: live, monitor: true, do: (*Kernel).run},
	"report":     {right: abi.RightRun, states: live, monitor: true, do: (*Kernel).report},
	"backend":    {right: abi.RightRun, states: live, monitor: true, do: (*Kernel).take},
	"giveBack":   {right: abi.RightRun, states: anyState, monitor: true, do: (*Kernel).giveBack},
	"stats":      {right: abi.RightObserve, states: anyState, do: (*Kernel).vmStats},
	"vcpu-stats": {right: abi.RightObserve, states: anyState, do: (*Kernel).oneVCPU},
}

// command serves a VM descriptor.
func (k *Kernel) command(c *net.UnixConn, v *fakeVM, rights abi.Right, m message, files []*os.File) bool {
	k.mu.Lock()
	if m.Op == "info" { // of a VM that is destroyed too
		i := v.info
		i.Rights = rights
		k.mu.Unlock()
		return send(c, message{Info: &i}) == nil
	}
	if m.Op == "delegate" {
		errno := k.fail[m.Op]
		if errno == 0 && (rights&abi.RightDelegate == 0 || m.Rights&^rights != 0) {
			errno = unix.EACCES
		}
		k.mu.Unlock()
		if errno != 0 {
			return send(c, message{Errno: errno}) == nil
		}
		return k.reply(c, v, m.Rights)
	}
	r := k.execute(&call{vm: v, conn: c, m: m, files: files}, rights)
	k.mu.Unlock()
	return send(c, r, r.files...) == nil
}

// execute is called with mu.
func (k *Kernel) execute(c *call, rights abi.Right) message {
	r, known := table[c.m.Op]
	state := c.vm.info.State
	errno := k.fail[c.m.Op]
	switch {
	case errno != 0:
	case !known:
		errno = unix.ENOTTY
	case r.right&^rights != 0:
		errno = unix.EACCES
	case k.vms[c.vm.info.ID] != c.vm, r.states&in(state) == 0 && state == abi.VMStateStopped:
		errno = unix.ESHUTDOWN
	case r.states&in(state) == 0:
		errno = unix.EBUSY
	case r.monitor && c.vm.bound != c.conn:
		errno = unix.EIO
	}
	if errno != 0 {
		return message{Errno: errno}
	}
	return r.do(k, c)
}

// limit is what a VM is allowed: the lower of its own and the host's.
func limit(own, host uint32) uint32 {
	if own == 0 {
		return host
	}
	return min(own, host)
}

// reach tells that a command of v went beyond a limit.
func (k *Kernel) reach(v *fakeVM, l abi.Limit) {
	v.stats.LimitHits++
	k.tell(v, note{event: abi.EventLimit, limit: l})
}

func (k *Kernel) config(c *call) message {
	l := c.m.Config
	if l.MaxVCPUs > maxVCPUs || l.MaxBackends > maxBackends {
		return message{Errno: unix.ENOSPC}
	}
	if l.MaxVCPUs != 0 {
		c.vm.limits.MaxVCPUs = l.MaxVCPUs
	}
	if l.MaxBackends != 0 {
		c.vm.limits.MaxBackends = l.MaxBackends
	}
	k.tell(c.vm, note{event: abi.EventConfigured})
	return message{}
}

// isHolder reports whether p is one of those who may hold the gate.
func isHolder(p abi.Pause) bool { return p == abi.PauseOperator || p == abi.PauseSnapshot }

func (k *Kernel) pause(c *call) message {
	v := c.vm
	if !isHolder(c.m.Holder) {
		return message{Errno: unix.EINVAL}
	}
	if v.info.Paused == 0 {
		v.paused = time.Now()
		v.stats.Pauses++
		for _, p := range v.vcpus {
			if p.ran {
				p.kicks++
				p.parks++
			}
		}
	}
	if v.info.Paused&c.m.Holder == 0 {
		v.info.Paused |= c.m.Holder
		k.tell(v, note{event: abi.EventPaused})
	}
	return message{}
}

func (k *Kernel) resume(c *call) message {
	v := c.vm
	switch {
	case !isHolder(c.m.Holder):
		return message{Errno: unix.EINVAL}
	case v.info.Paused&c.m.Holder == 0:
		return message{Errno: unix.EALREADY}
	}
	v.info.Paused &^= c.m.Holder
	if v.info.Paused == 0 {
		v.stats.PausedNs += uint64(time.Since(v.paused))
	}
	k.tell(v, note{event: abi.EventResumed})
	return message{}
}

func (k *Kernel) stopByOperator(c *call) message {
	k.stop(c.vm, abi.ReasonOperator, [4]uint64{})
	return message{}
}

func (k *Kernel) destroyByOperator(c *call) message {
	k.destroy(c.vm)
	return message{}
}

func (k *Kernel) bind(c *call) message {
	c.vm.info.State, c.vm.info.Monitor, c.vm.bound = abi.VMStateBound, c.m.PID, c.conn
	k.tell(c.vm, note{event: abi.EventBound})
	return message{}
}

func (k *Kernel) makeVCPU(c *call) message {
	v := c.vm
	switch {
	case v.vcpus[c.m.Index] != nil:
		return message{Errno: unix.EEXIST}
	case v.info.VCPUs >= limit(v.limits.MaxVCPUs, maxVCPUs):
		k.reach(v, abi.LimitVCPUs)
		return message{Errno: unix.ENOSPC}
	}
	v.vcpus[c.m.Index] = &vcpu{}
	v.info.VCPUs++
	return message{}
}

// run is VCPU_RUN of every vCPU. Behind a shut gate the caller has to wait.
func (k *Kernel) run(c *call) message {
	v := c.vm
	if v.info.Paused != 0 {
		return message{Errno: unix.EAGAIN}
	}
	for _, p := range v.vcpus {
		p.ran = true
	}
	if v.info.State == abi.VMStateBound {
		v.info.State = abi.VMStateRunning
		k.tell(v, note{event: abi.EventRunning})
	}
	return message{}
}

func (k *Kernel) report(c *call) message {
	switch {
	case c.m.Reason < abi.ReasonPoweroff || c.m.Reason > abi.ReasonInternalError:
		return message{Errno: unix.EINVAL}
	case c.m.Reason == abi.ReasonReset:
		c.vm.stats.Resets++
		c.vm.info.Reason, c.vm.info.ExitData = abi.ReasonReset, c.m.Data
		k.tell(c.vm, note{event: abi.EventReset})
	default:
		k.stop(c.vm, c.m.Reason, c.m.Data)
	}
	return message{}
}

func (k *Kernel) vmStats(c *call) message {
	s := c.vm.stats
	if c.vm.info.Paused != 0 {
		s.PausedNs += uint64(time.Since(c.vm.paused))
	}
	s.VCPUs, s.Backends = c.vm.info.VCPUs, k.backendsOf(c.vm)
	return message{Stats: &s}
}

func (k *Kernel) oneVCPU(c *call) message {
	if c.vm.vcpus[c.m.Index] == nil {
		return message{Errno: unix.ENOENT}
	}
	s := c.vm.vcpuStats(c.m.Index)
	return message{VCPU: &s}
}

func (v *fakeVM) vcpuStats(index uint32) abi.VCPUStats {
	p := v.vcpus[index]
	s := abi.VCPUStats{VCPU: index, State: abi.VCPUStateFresh, Kicks: p.kicks, Parks: p.parks}
	switch {
	case !p.ran:
		return s
	case v.info.State == abi.VMStateStopped:
		s.State = abi.VCPUStateOutside
	case v.info.Paused != 0:
		s.State = abi.VCPUStateParked
	default:
		s.State = abi.VCPUStateRunning
	}
	s.ParkedNs = v.stats.PausedNs
	if v.info.Paused != 0 {
		s.ParkedNs += uint64(time.Since(v.paused))
	}
	return s
}
