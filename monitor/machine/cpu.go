// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"errors"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"vmctl/abi"
)

// cpu is one processor. Its goroutine is locked to a thread, as KVM likes it,
// and does what comes through jobs.
type cpu struct {
	m     *Machine
	index uint32
	fd    *abi.VCPU
	area  *abi.KVMRun
	fresh powerOn
	err   error // of the last restore
	jobs  chan func(*cpu)
	done  chan struct{}
}

// addCPUs makes all processors and takes down their state at power-on.
func (m *Machine) addCPUs() error {
	id, supported, err := m.processors()
	if err != nil {
		return err
	}
	for i := range m.spec.VCPUs {
		fd, err := m.vm.CreateVCPU(i)
		if err != nil {
			return err
		}
		c := &cpu{m: m, index: i, fd: fd, jobs: make(chan func(*cpu)), done: make(chan struct{})}
		m.cpus = append(m.cpus, c)
		m.workers.Go(c.work)
		if err := fd.MapRun(); err != nil {
			return err
		}
		c.area = fd.RunArea()
		if err := fd.SetCPUID(id.CPUID(supported, i)); err != nil {
			return err
		}
	}
	return m.takeDown()
}

func (c *cpu) work() {
	runtime.LockOSThread() // for good: the thread ends with the goroutine
	for job := range c.jobs {
		job(c)
		c.done <- struct{}{}
	}
}

// run runs the guest until there is a cause to park.
func (c *cpu) run() {
	for c.m.cause.Load() == nil {
		switch err := c.fd.Run(); err {
		case nil:
			c.exit()
		case unix.EINTR, unix.EAGAIN:
			// A kick, a signal of the Go runtime, or a processor that was woken
			// before it was started.
		case unix.ESHUTDOWN:
			end := c.m.kernelSays(End{Reason: abi.ReasonOperator, Text: "stopped"})
			c.m.stop(cause{silent: true, end: end})
		default:
			c.fail("run: "+err.Error(), errnoOf(err))
		}
	}
}

func errnoOf(err error) uint64 {
	var errno unix.Errno
	errors.As(err, &errno)
	return uint64(errno)
}

// exit does what the guest needs its monitor for.
func (c *cpu) exit() {
	switch reason := c.area.ExitReason; reason {
	case abi.KVMExitIO:
		c.port()
	case abi.KVMExitMMIO:
		c.memory()
	case abi.KVMExitHLT, abi.KVMExitIntr, abi.KVMExitIRQWindowOpen:
	case abi.KVMExitShutdown:
		c.tripleFault()
	case abi.KVMExitSystemEvent:
		c.systemEvent()
	case abi.KVMExitFailEntry:
		c.fail("processor refused to enter the guest", c.area.FailEntry().HardwareEntryFailureReason)
	case abi.KVMExitInternalError:
		e := c.area.InternalError()
		c.fail("KVM gave up: suberror "+strconv.FormatUint(uint64(e.Suberror), 10), uint64(e.Suberror))
	default:
		c.fail("exit that was not asked for: "+strconv.FormatUint(uint64(reason), 10), uint64(reason))
	}
}

// port does one or, for string instructions, many accesses to one port.
func (c *cpu) port() {
	io := *c.area.IO()
	data := c.fd.IOData()
	size := int(io.Size)
	if data == nil || size == 0 {
		c.fail("port access outside the run area", 0)
		return
	}
	for ; len(data) >= size; data = data[size:] {
		if one := data[:size:size]; io.Direction == abi.KVMExitIOIn {
			c.m.ports.Read(uint64(io.Port), one)
		} else {
			c.m.ports.Write(uint64(io.Port), one)
		}
	}
}

// memory does one access to guest-physical memory where there is no RAM.
func (c *cpu) memory() {
	mmio := c.area.MMIO()
	data := mmio.Data[:min(int(mmio.Len), len(mmio.Data))]
	if mmio.IsWrite != 0 {
		c.m.mmio.Write(mmio.PhysAddr, data)
	} else {
		c.m.mmio.Read(mmio.PhysAddr, data)
	}
}

func (c *cpu) tripleFault() {
	end := End{Reason: abi.ReasonTripleFault, Text: "triple fault of vcpu " + strconv.Itoa(int(c.index))}
	end.Data = c.where()
	c.m.stop(cause{end: end})
}

// where tells a person who debugs the guest what this processor was at.
func (c *cpu) where() (data [4]uint64) {
	data[0] = uint64(c.index)
	if r, err := c.fd.Regs(); err == nil {
		data[1] = r.Rip
	}
	if s, err := c.fd.Sregs(); err == nil {
		data[2] = s.Cr2
	}
	return data
}

func (c *cpu) systemEvent() {
	switch e := c.area.SystemEvent(); e.Type {
	case abi.KVMSystemEventShutdown:
		c.m.stop(cause{end: End{Reason: abi.ReasonPoweroff, Text: "guest powered off"}})
	case abi.KVMSystemEventReset:
		c.m.stop(cause{reset: true, text: "guest reset"})
	case abi.KVMSystemEventCrash:
		c.m.stop(cause{end: End{Reason: abi.ReasonPanic, Text: "guest crashed"}})
	default:
		c.fail("system event "+strconv.FormatUint(uint64(e.Type), 10), uint64(e.Type))
	}
}

// fail ends the machine with an internal error. Data: processor, RIP, CR2 of the
// processor; the detail is in the text.
func (c *cpu) fail(text string, detail uint64) {
	end := End{Reason: abi.ReasonInternalError, Text: "vcpu " + strconv.Itoa(int(c.index)) + ": " + text}
	end.Data = c.where()
	end.Data[2] = detail
	c.m.stop(cause{end: end})
}
