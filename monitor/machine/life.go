// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"vmctl/abi"
	"vmctl/monitor/spec"
)

// cause is why the processors park.
type cause struct {
	reset    bool // start again, if the policy or the operator says so
	operator bool
	silent   bool // the kernel knows already
	text     string
	end      End
}

// stop notes a cause, unless there is one already, and brings all processors
// out of the guest. An end is stronger than a reset that was not begun. Anybody
// may call it.
func (m *Machine) stop(c cause) {
	for {
		old := m.cause.Load()
		if old != nil && (c.reset || !old.reset) {
			return
		}
		if m.cause.CompareAndSwap(old, &c) {
			break
		}
	}
	for _, cpu := range m.cpus {
		_ = cpu.fd.Kick() // fails only when the VM is stopped
	}
}

// Run runs the guest until it ends, and says how it did. The kernel is told.
func (m *Machine) Run() End {
	if m.quiet.Load() { // it was saved
		m.goOn()
	}
	for {
		m.all((*cpu).run)
		m.turn.Lock() // at an end for good: there is nothing to save any more
		// What comes from here on is the next cause: it ends the next run at once.
		c := m.cause.Swap(nil)
		end := c.end
		if c.reset {
			if c.operator || m.spec.OnReset == spec.Restart {
				err := m.reset()
				if err == nil {
					m.turn.Unlock()
					continue
				}
				end = m.kernelSays(End{Reason: abi.ReasonInternalError, Text: "reset: " + err.Error()})
			} else {
				end = End{Reason: abi.ReasonReset, Text: c.text}
			}
		}
		m.settle()
		return m.report(end, c.silent)
	}
}

// report tells the kernel how the guest ended. When the VM was stopped meanwhile
// the kernel's word stands.
func (m *Machine) report(end End, silent bool) End {
	end.Data[3] = uint64(m.debug.Last())
	if silent || end.Reason < abi.ReasonPoweroff {
		return end
	}
	if err := m.vm.Report(end.Reason, end.Data); err != nil {
		return m.kernelSays(end)
	}
	return end
}

// kernelSays is the end as the kernel knows it, or otherwise.
func (m *Machine) kernelSays(otherwise End) End {
	info, err := m.vm.Info()
	if err != nil || info.State != abi.VMStateStopped {
		return otherwise
	}
	return End{Reason: info.Reason, Data: info.ExitData, Text: "stopped: " + info.Reason.String()}
}

// reset takes processors, chips, devices and memory back to power-on and loads
// the kernel anew. All processors are parked.
func (m *Machine) reset() error {
	count := m.resets.Add(1)
	if err := m.vm.Report(abi.ReasonReset, [4]uint64{uint64(count)}); err != nil {
		return err
	}
	// Processors first: while they have a paravirtual clock or an asynchronous
	// page fault area, KVM writes to guest memory.
	m.all((*cpu).restore)
	for _, c := range m.cpus {
		if c.err != nil {
			return c.err
		}
	}
	m.uart.Reset()
	m.rtc.Reset()
	if m.fwcfg != nil {
		m.fwcfg.Reset()
	}
	m.pm.Reset()
	m.slots.Reset()
	m.settle() // before memory is cleared: devices write to it
	if err := m.chips.put(m.vm, 0); err != nil {
		return err
	}
	if err := m.memory.Clear(); err != nil {
		return err
	}
	if err := m.load(); err != nil {
		return err
	}
	m.onBoot(count)
	return nil
}

// load puts the image into memory and the first processor at its entry.
func (m *Machine) load() error {
	entry, err := m.image.Load(m.memory)
	if err != nil {
		return err
	}
	if err := m.memory.Write(m.image.Generation(), m.generation[:]); err != nil {
		return err
	}
	return m.cpus[0].enter(entry)
}

// all lets every processor do the same on its own thread, and waits for all.
func (m *Machine) all(job func(*cpu)) {
	for _, c := range m.cpus {
		c.jobs <- job
	}
	for _, c := range m.cpus {
		<-c.done
	}
}
