// SPDX-License-Identifier: Apache-2.0

// Package machine is one virtual machine: it sets the platform up through the
// VM's descriptor, runs its processors, and resets or ends it.
//
//	New ──► ready ──Run──► running ──cause──► all processors parked
//	                          ▲                   │        │
//	                          └── reset, policy restart    └── anything else: End
//
// Each processor has one goroutine, locked to its thread, that does what the
// goroutine in Run hands it, on all processors at once. A cause (the guest resets
// or powers off, KVM gives up, the operator asks) is noted once, the first wins;
// a kick brings every processor out of the guest, and only then is it acted upon.
// So nothing but the devices is ever touched by two processors at a time.
package machine

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/abi"
	"vmctl/monitor/acpi"
	"vmctl/monitor/boot"
	"vmctl/monitor/bus"
	"vmctl/monitor/legacy"
	"vmctl/monitor/listen"
	"vmctl/monitor/mem"
	"vmctl/monitor/pci"
	"vmctl/monitor/saved"
	"vmctl/monitor/spec"
	"vmctl/monitor/virtio/balloon"
	"vmctl/monitor/virtio/console"
	"vmctl/monitor/virtio/vsock"
)

// Output takes what the guest prints. It is called from processors and must be
// quick.
type Output interface {
	Put(b byte)
	// Room says that the console takes input again.
	Room()
}

// Config is what a machine is made of.
type Config struct {
	Spec   spec.Spec
	VM     *abi.VM  // with the rights run and observe; stays the caller's
	Kernel *os.File // or the firmware, if Spec says so
	Initrd *os.File // nil: none. Both must stay open as long as the machine.
	// Saved is what the machine is to go on from; nil: from power-on.
	Saved  *saved.Files
	Output Output
	// Vsock is where the host's programs connect to the sockets of a guest with a CID.
	Vsock *listen.Socket
	// Dial asks for a socket of the host's that the guest wants to connect to: see
	// vsock.New.
	Dial func(number, port uint32) bool
	// Idle is called, and must be quick, when the last of those sockets was closed.
	Idle func()
	// Reset is called, from Run's goroutine, when the guest was reset and before
	// it runs again.
	Reset func(count uint32)
	// Detached is called, from any goroutine, when the guest has let go of a device that
	// it was asked to.
	Detached func(nic bool, number uint8)
	// Broken is called, from any goroutine and once for each device and reset, when
	// the guest's driver broke a rule: the device waits for a reset.
	Broken func(device string, err error)
}

// End says how a machine ended.
type End struct {
	Reason abi.Reason
	Data   [4]uint64
	Text   string
}

// image is what a machine boots: it can be loaded again and again.
type image interface {
	// Check reports whether it fits into memory, without touching it.
	Check(*mem.Memory) error
	// Load puts it into memory, which is zero.
	Load(*mem.Memory) (boot.Entry, error)
	// Generation is the address at which the guest finds what generation it is.
	Generation() uint64
}

// Machine is one virtual machine.
type Machine struct {
	vm       *abi.VM
	spec     spec.Spec // its disks and network cards are those that are there: they are guarded by mu
	onBoot   func(count uint32)
	onBroken func(device string, err error)
	onGone   func(nic bool, number uint8)

	mu      sync.Mutex // guards what follows: devices come and go
	devices []*device
	fixed   fixed
	disks   []*disk // by number; nil: detached
	nics    []*nic  // likewise

	memory  *mem.Memory
	image   image
	ports   bus.Space
	mmio    bus.Space
	pci     *pci.Host
	routes  *routes
	slots   legacy.Slots
	output  Output
	hvc     *console.Device // nil: the serial port is the console
	balloon *balloon.Device
	vsock   *vsock.Device // nil: the guest has no CID
	uart    *legacy.UART
	rtc     *legacy.RTC
	debug   legacy.Debug
	resetIO legacy.ResetRegister
	fwcfg   *legacy.FWCfg // nil: no firmware
	pm      *legacy.PM
	// generation tells the guest that it is another one when it was restored: it has
	// numbers then, believed to be random and unique, that a copy of it has too.
	generation [16]byte
	cpus       []*cpu
	chips      platform
	workers    sync.WaitGroup

	quiet   atomic.Bool   // devices are paused: they take no input
	saved   *saved.Reader // until it is restored
	places  []place       // where devices are to be, in turn, likewise
	ramFile *os.File

	turn   sync.Mutex            // who does something to a machine that stands still: Run between two runs, or Save
	cause  atomic.Pointer[cause] // why the processors are to park; nil while they run
	resets atomic.Uint32
}

// New binds the VM to this process and makes the machine ready to run. After an
// error the VM is of no more use. errors.Is: the errors of boot and mem, those of
// the files, and unix.Errno from the module.
func New(c Config) (*Machine, error) {
	m := &Machine{vm: c.VM, spec: c.Spec, onBoot: c.Reset, onBroken: c.Broken, onGone: c.Detached, output: c.Output}
	if c.Spec.CID != 0 {
		m.vsock = vsock.New(c.Spec.CID, c.Vsock, c.Dial, c.Idle)
	}
	if _, err := unix.Getrandom(m.generation[:], 0); err != nil {
		return nil, os.NewSyscallError("getrandom", err)
	}
	if err := m.open(c); err != nil {
		m.Close()
		return nil, err
	}
	if err := m.build(); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// open looks at the files and makes memory, before the VM is touched: what is
// wrong with them is known without it.
func (m *Machine) open(c Config) error {
	info, err := c.Kernel.Stat()
	if err != nil {
		return err
	}
	if m.memory, err = mem.New(c.Spec.MemoryBytes); err != nil {
		return err
	}
	if c.Spec.Firmware {
		err = m.openFirmware(c.Kernel, info.Size())
	} else {
		err = m.openKernel(c, info.Size())
	}
	if err == nil {
		err = m.image.Check(m.memory)
	}
	if err == nil && c.Saved != nil {
		err = m.openSaved(c.Saved)
	}
	return err
}

func (m *Machine) openKernel(c Config, size int64) error {
	im := &boot.Image{Cmdline: c.Spec.Cmdline}
	var err error
	if im.Kernel, err = boot.ParseKernel(c.Kernel, size); err != nil {
		return err
	}
	if c.Initrd != nil {
		info, err := c.Initrd.Stat()
		if err != nil {
			return err
		}
		im.Initrd, im.InitrdSize = c.Initrd, info.Size()
	}
	m.image = im
	im.Tables, err = acpi.New(acpi.Reduced, c.Spec.VCPUs, acpi.Base)
	return err
}

// openFirmware lets firmware boot the machine, which reads there what it is made of.
func (m *Machine) openFirmware(file *os.File, size int64) error {
	f, err := boot.ParseFirmware(file, size, m.spec.VCPUs, m.memory)
	if err != nil {
		return err
	}
	m.image, m.fwcfg = f, legacy.NewFWCfg(m.spec.VCPUs, f.Config())
	return m.ports.Add(legacy.FWCfgBase, legacy.FWCfgPorts, m.fwcfg)
}

// build makes platform and processors in the order that KVM and the module want:
// the interrupt chips before processors, processors before memory.
func (m *Machine) build() error {
	if err := m.addDevices(); err != nil {
		return err
	}
	if err := m.vm.Bind(); err != nil {
		return err
	}
	if err := m.chips.create(m.vm); err != nil {
		return err
	}
	if err := m.addCPUs(); err != nil {
		return err
	}
	if err := m.addVirtio(); err != nil {
		return err
	}
	if m.saved != nil {
		if err := m.memory.MapFile(int(m.ramFile.Fd())); err != nil {
			return err
		}
	}
	for slot, r := range m.memory.Regions() {
		err := m.vm.MapMemory(abi.KVMUserspaceMemoryRegion{
			Slot: uint32(slot), GuestPhysAddr: r.Base, MemorySize: r.Len(), UserspaceAddr: r.HostAddr(),
		})
		if err != nil {
			return err
		}
	}
	if m.saved != nil {
		return m.restore()
	}
	return m.load()
}

func (m *Machine) addDevices() error {
	line := func(up bool) { m.setLine(legacy.COM1Line, up) }
	m.uart = legacy.NewUART(m.output.Put, line, m.output.Room)
	m.rtc = legacy.NewRTC(time.Now)
	m.slots.Eject = m.eject
	m.pm = &legacy.PM{Off: m.guestOff, Reduced: !m.spec.Firmware, Line: func(up bool) { m.setLine(acpi.EventLine, up) }}
	m.pci, m.routes = pci.NewHost(), newRoutes(m.vm)
	reset := func() { m.stop(cause{reset: true, text: "guest reset"}) }
	m.resetIO.Reset = reset
	panicked := func() { m.stop(cause{end: End{Reason: abi.ReasonPanic, Text: "guest kernel panicked"}}) }
	return errors.Join(
		m.ports.AddRegisters(legacy.COM1, legacy.UARTRegisters, m.uart),
		m.ports.AddRegisters(legacy.RTCBase, legacy.RTCRegisters, m.rtc),
		m.ports.AddRegisters(legacy.I8042Base, legacy.I8042Registers, &legacy.I8042{Reset: reset}),
		m.ports.Add(legacy.ResetPort, 1, &m.resetIO),
		m.ports.AddRegisters(legacy.SleepBase, legacy.SleepRegisters, &legacy.Sleep{Off: m.guestOff}),
		m.ports.AddRegisters(legacy.PMBase, legacy.PMRegisters, m.pm),
		m.ports.AddRegisters(legacy.SlotsBase, legacy.SlotsSize, &m.slots),
		m.ports.AddRegisters(legacy.PanicPort, legacy.PanicRegisters, &legacy.Panic{Panicked: panicked}),
		m.ports.AddRegisters(legacy.DebugPort, legacy.DebugRegisters, &m.debug),
		m.pci.Attach(&m.ports, &m.mmio),
	)
}

// guestOff is what the guest does to power off.
func (m *Machine) guestOff() {
	m.stop(cause{end: End{Reason: abi.ReasonPoweroff, Text: "guest powered off"}})
}

// setLine drives an interrupt line. It fails only when the VM is stopped, which
// the processors learn by themselves.
func (m *Machine) setLine(line uint32, up bool) {
	var level uint32
	if up {
		level = 1
	}
	_ = m.vm.SignalLine(line, level)
}

// Receive hands the guest bytes to read from its console, and returns how many it
// took; Output.Room says when to go on.
func (m *Machine) Receive(p []byte) int {
	if m.quiet.Load() {
		return 0
	}
	if m.hvc != nil {
		if n, active := m.hvc.Receive(p); active {
			return n
		}
	}
	return m.uart.Receive(p)
}

// Resize tells the guest the size of who looks at its console. A serial port has
// none.
func (m *Machine) Resize(cols, rows uint16) {
	if m.hvc != nil && m.hvc.Resize(cols, rows) {
		m.fixed.console.Changed()
	}
}

// Balloon says how much memory the guest is to give to the host, in bytes, or keeps
// what it was told, and returns the target and what the guest says that it gave.
func (m *Machine) Balloon(target uint64, keep bool) (uint64, uint64) {
	if !keep && m.balloon.SetTarget(target) {
		m.fixed.balloon.Changed()
	}
	return m.balloon.Sizes()
}

// GuestMemory is what the guest told last of its memory; see balloon.Stats.
func (m *Machine) GuestMemory() balloon.Stats { return m.balloon.Stats() }

// Dialed is the answer to Config.Dial; see vsock.Device.
func (m *Machine) Dialed(number uint32, fd int) {
	if m.vsock != nil {
		m.vsock.Dialed(number, fd)
		return
	}
	unix.Close(fd) // who sent it knows no better
}

// PowerButton presses the power button.
func (m *Machine) PowerButton() { m.pm.Press() }

// Reset resets the guest, whatever the policy says.
func (m *Machine) Reset() { m.stop(cause{reset: true, operator: true, text: "operator reset"}) }

// Stop ends the machine.
func (m *Machine) Stop(reason abi.Reason, text string) {
	m.stop(cause{end: End{Reason: reason, Text: text}})
}

// Resets is how often the guest was reset.
func (m *Machine) Resets() uint32 { return m.resets.Load() }

// Close frees processors, devices and memory, after Run returned.
func (m *Machine) Close() error {
	var errs []error
	for _, c := range m.cpus {
		close(c.jobs)
	}
	m.workers.Wait()
	for _, c := range m.cpus {
		errs = append(errs, c.fd.Close())
	}
	m.cpus = nil
	errs = append(errs, m.closeDevices())
	if m.memory != nil {
		errs = append(errs, m.memory.Close())
	}
	return errors.Join(errs...)
}
