// SPDX-License-Identifier: Apache-2.0

// Package acpi writes the tables by which a guest finds its processors, its
// interrupt controllers and the devices that no bus announces.
//
// A machine that is entered at its kernel is of ACPI's "hardware-reduced" kind: no
// power management block, no PM timer, no SCI. Linux then leaves out the 8259 and the
// 8254 with their probes and calibration loops, each of whose accesses would be an
// exit. Power off goes through the sleep control register; the power button, and what
// else happens to the machine, through the interrupt of a "generic event device".
//
// A machine that firmware boots is a PC: the firmware uses the 8259, and a system that
// did not know of it would get its interrupts. Power off and the power button go
// through the power management block.
package acpi

import (
	"encoding/binary"
	"errors"
	"math/bits"

	"vmctl/monitor/legacy"
	"vmctl/monitor/pci"
)

// Where the tables lie in guest-physical memory when no firmware is to find room for
// them, and what is around them.
const (
	Base = 0xe0000 // of the RSDP; the other tables follow
	End  = 0x100000

	// Room is enough for the tables of any machine, in bytes, and for a page behind
	// them with what the machine tells by changing it.
	Room = 64 << 10
	page = 4096

	LocalAPIC = 0xfee00000
	IOAPIC    = 0xfec00000

	// EventLine is the level of a PC's SCI, and of a generic event device.
	EventLine = 9

	maxCPUs = 254 // with an xAPIC id
)

// ErrCPUs is a number of processors that the tables cannot hold.
var ErrCPUs = errors.New("acpi: number of processors must be 1 to 254")

var order = binary.LittleEndian

const headerLen = 36

// Kind is what kind of machine the tables describe.
type Kind bool

// Kinds of machines.
const (
	Reduced Kind = false // hardware-reduced
	PC      Kind = true
)

// Tables are all tables of one machine, by signature. FACS is a PC's.
type Tables struct {
	RSDP, XSDT, FADT, MADT, MCFG, DSDT, FACS []byte
	// Generation is where the guest finds the 16 bytes of the machine's generation.
	Generation uint64
	at         map[string]uint64
}

// New makes the tables of a machine with that many processors, for Room bytes from
// base on. errors.Is: ErrCPUs.
func New(kind Kind, cpus uint32, base uint64) (*Tables, error) {
	if cpus < 1 || cpus > maxCPUs {
		return nil, ErrCPUs
	}
	t := &Tables{Generation: base + Room - page, MADT: madt(kind, cpus), MCFG: mcfg()}
	t.DSDT = dsdt(kind, uint32(t.Generation))
	next := base + 64 // behind the RSDP
	place := func(table []byte) uint64 {
		at := next
		next = (next + uint64(len(table)) + 15) &^ 15
		return at
	}
	var facsAt uint64
	if kind == PC {
		next = (next + facsLen - 1) &^ (facsLen - 1) // it is aligned to its length
		t.FACS = facs()
		facsAt = place(t.FACS)
	}
	dsdtAt := place(t.DSDT)
	t.FADT = fadt(kind, dsdtAt, facsAt)
	fadtAt, madtAt, mcfgAt := place(t.FADT), place(t.MADT), place(t.MCFG)
	t.XSDT = xsdt(fadtAt, madtAt, mcfgAt)
	xsdtAt := place(t.XSDT)
	t.RSDP = rsdp(xsdtAt)
	t.at = map[string]uint64{"DSDT": dsdtAt, "FADT": fadtAt, "MADT": madtAt, "MCFG": mcfgAt, "XSDT": xsdtAt, "RSDP": base, "FACS": facsAt}
	return t, nil
}

// Write puts the tables into memory by way of write.
func (t *Tables) Write(write func(addr uint64, data []byte) error) error {
	for _, e := range []struct {
		name string
		data []byte
	}{{"RSDP", t.RSDP}, {"XSDT", t.XSDT}, {"FADT", t.FADT}, {"MADT", t.MADT}, {"MCFG", t.MCFG}, {"DSDT", t.DSDT}, {"FACS", t.FACS}} {
		if e.data == nil {
			continue // a reduced machine has no FACS
		}
		if err := write(t.at[e.name], e.data); err != nil {
			return err
		}
	}
	return nil
}

// table puts the common header before body and the checksum in.
func table(signature string, revision byte, body []byte) []byte {
	t := make([]byte, headerLen, headerLen+len(body))
	copy(t, signature)
	t[8] = revision
	copy(t[10:], "VMCTL ")
	copy(t[16:], "VMCTLVMX")
	order.PutUint32(t[24:], 1)
	copy(t[28:], "VMX ")
	order.PutUint32(t[32:], 1)
	t = append(t, body...)
	order.PutUint32(t[4:], uint32(len(t)))
	t[9] = checksum(t)
	return t
}

// checksum is the byte that makes the sum of all bytes 0.
func checksum(b []byte) byte {
	var sum byte
	for _, v := range b {
		sum += v
	}
	return -sum
}

func rsdp(xsdt uint64) []byte {
	const v1Len, v2Len = 20, 36
	b := make([]byte, v2Len)
	copy(b, "RSD PTR ")
	copy(b[9:], "VMCTL ")
	b[15] = 2
	order.PutUint32(b[20:], v2Len)
	order.PutUint64(b[24:], xsdt)
	b[8] = checksum(b[:v1Len])
	b[32] = checksum(b)
	return b
}

func xsdt(tables ...uint64) []byte {
	var body []byte
	for _, at := range tables {
		body = order.AppendUint64(body, at)
	}
	return table("XSDT", 1, body)
}

// Flags of the FADT (ACPI 6.5, 5.2.9).
const (
	fadtWBINVD          = 1 << 0
	fadtHalt            = 1 << 2 // C1 on all processors
	fadtNoPowerButton   = 1 << 4 // as a fixed feature
	fadtNoSleepButton   = 1 << 5
	fadtResetRegister   = 1 << 10
	fadtHeadless        = 1 << 12
	fadtHardwareReduced = 1 << 20

	bootLegacyDevices = 1 << 0 // the serial port
	bootNoVGA         = 1 << 2
	bootNoASPM        = 1 << 4
)

// Latencies that say that a processor has no such state.
const noC2, noC3 = 0xfff, 0xfff

func fadt(kind Kind, dsdt, facs uint64) []byte {
	const length = 276
	b := make([]byte, length-headerLen)
	at := func(offset int) []byte { return b[offset-headerLen:] }
	order.PutUint32(at(40), uint32(dsdt))
	at(108)[0] = legacy.RTCCentury
	// No keyboard controller: guests do not probe for it.
	order.PutUint16(at(109), bootLegacyDevices|bootNoVGA|bootNoASPM)
	const always = fadtWBINVD | fadtNoSleepButton | fadtResetRegister | fadtHeadless
	copy(at(116), ioRegister(legacy.ResetPort, 1))
	at(128)[0] = legacy.ResetValue
	at(131)[0] = 5 // minor version
	order.PutUint64(at(140), dsdt)
	if kind == Reduced {
		order.PutUint32(at(112), always|fadtNoPowerButton|fadtHardwareReduced)
		copy(at(244), ioRegister(legacy.SleepControl, 1))
		copy(at(256), ioRegister(legacy.SleepStatus, 1))
	} else {
		order.PutUint32(at(36), uint32(facs))
		order.PutUint16(at(46), EventLine)
		order.PutUint32(at(56), legacy.PMEvents)
		order.PutUint32(at(64), legacy.PMControl)
		at(88)[0], at(89)[0] = legacy.PMEventsLen, legacy.PMControlLen
		order.PutUint32(at(80), legacy.GPEStatus)
		at(92)[0] = legacy.GPELen
		order.PutUint16(at(96), noC2)
		order.PutUint16(at(98), noC3)
		order.PutUint32(at(112), always|fadtHalt)
		order.PutUint64(at(132), facs)
		copy(at(148), ioRegister(legacy.PMEvents, legacy.PMEventsLen))
		copy(at(172), ioRegister(legacy.PMControl, legacy.PMControlLen))
		copy(at(220), ioRegister(legacy.GPEStatus, legacy.GPELen))
	}
	copy(at(268), "VMCTL")
	return table("FACP", 6, b)
}

// ioRegister is a generic address structure of some bytes in port space, which are
// accessed by two at once where there are as many.
func ioRegister(port uint64, size byte) []byte {
	const systemIO = 1
	return order.AppendUint64([]byte{systemIO, 8 * size, 0, min(size, 2)}, port)
}

const facsLen = 64

// facs is where a system and its firmware would meet, if the machine slept.
func facs() []byte {
	b := make([]byte, facsLen)
	copy(b, "FACS")
	order.PutUint32(b[4:], facsLen)
	b[32] = 2 // version
	return b
}

func madt(kind Kind, cpus uint32) []byte {
	b := order.AppendUint32(nil, LocalAPIC)
	var chips uint32
	if kind == PC {
		chips = 1 // two 8259
	}
	b = order.AppendUint32(b, chips)
	for i := range cpus {
		const local, enabled = 0, 1
		b = append(b, local, 8, byte(i), byte(i))
		b = order.AppendUint32(b, enabled)
	}
	const io = 1
	b = append(b, io, 12, 0, 0)
	b = order.AppendUint32(b, IOAPIC)
	b = order.AppendUint32(b, 0) // its first interrupt
	if kind == PC {
		const override, isa, highLevel = 2, 0, 1 | 3<<2
		b = append(b, override, 10, isa, EventLine)
		b = order.AppendUint32(b, EventLine)
		b = order.AppendUint16(b, highLevel)
	}
	const nmi, allCPUs, lint1 = 4, 0xff, 1
	b = append(b, nmi, 6, allCPUs, 0, 0, lint1)
	return table("APIC", 5, b)
}

// mcfg says where the configuration spaces of the one bus are in memory.
func mcfg() []byte {
	b := make([]byte, 8) // reserved
	b = order.AppendUint64(b, pci.ECAMBase)
	b = order.AppendUint16(b, 0) // segment
	b = append(b, 0, 0)          // first and last bus
	return table("MCFG", 1, order.AppendUint32(b, 0))
}

// dsdt describes the devices. The generation's address is below 4 GiB, as all of ours.
func dsdt(kind Kind, generation uint32) []byte {
	serial := device("COM1",
		named("_HID", eisaID("PNP0501")), named("_UID", integer(1)),
		named("_CRS", resources(ports(legacy.COM1, legacy.UARTRegisters), edge(legacy.COM1Line))))
	clock := device("RTC0",
		named("_HID", eisaID("PNP0B00")),
		named("_CRS", resources(ports(legacy.RTCBase, legacy.RTCRegisters))))
	panicked := device("PEVT",
		named("_HID", text("QEMU0001")),
		named("_CRS", resources(ports(legacy.PanicPort, legacy.PanicRegisters))))
	// No routing of interrupt lines: devices have none, they send messages.
	bridge := device("PCI0",
		named("_HID", eisaID("PNP0A08")), named("_CID", eisaID("PNP0A03")), named("_UID", integer(0)),
		named("_CRS", resources(buses(0, 0), ports(pci.AddressPort, 8), window(pci.WindowBase, pci.WindowEnd))),
		slots())
	board := device("MBRD",
		named("_HID", eisaID("PNP0C02")), named("_UID", integer(0)),
		named("_CRS", resources(reserved(pci.ECAMBase, pci.ECAMSize))))
	button := device("PWRB", named("_HID", eisaID("PNP0C0C")), named("_UID", integer(0)))
	// As Microsoft's paper "Virtual Machine Generation ID" of 2012 wants it.
	counter := device("VGEN",
		named("_HID", text("VMCT0001")), named("_CID", text("VM_Gen_Counter")), named("_DDN", text("VM_Gen_Counter")),
		named("ADDR", pkg(integer(generation), integer(0))))
	devices := [][]byte{board, bridge, serial, clock, panicked, counter}
	off := named("_S5_", pkg(integer(legacy.SleepTypeOff), integer(0), integer(0), integer(0)))
	if kind == Reduced {
		devices = append(devices, button, eventDevice())
		return table("DSDT", 2, join(scope(root("_SB_"), devices...), off))
	}
	return table("DSDT", 2, join(scope(root("_SB_"), devices...), generalEvents(), off))
}

// What a notification says.
const (
	buttonPressed     = 0x80
	generationChanged = 0x80
)

// eventDevice tells the system of a hardware-reduced machine what happened, by what it
// finds in the register of general-purpose events.
func eventDevice() []byte {
	happened := func(e legacy.Event, do ...[]byte) []byte { return when(and(local(0), integer(uint32(e))), do...) }
	return device("GED0",
		named("_HID", text("ACPI0013")), named("_UID", integer(0)),
		named("_CRS", resources(level(EventLine))),
		portRegion("GPE0", legacy.GPEStatus, 1), field("GPE0", unit{"GPES", 8}),
		method("_EVT", 1,
			store(name("GPES"), local(0)),
			store(local(0), name("GPES")), // clears what it was
			happened(legacy.EventButton, notify(name("PWRB"), buttonPressed)),
			happened(legacy.EventGeneration, notify(name("VGEN"), generationChanged)),
			happened(legacy.EventSlots, slotsChanged)))
}

// slotsChanged calls what slots has.
var slotsChanged = path("_SB_", "PCI0", "SLTS")

// What a notification of a slot says.
const (
	slotCame  = 1
	slotLeave = 3
)

// slots are the devices of the bus as far as they can come and go: whatever is in a slot.
func slots() []byte {
	bit := func(slot int) []byte { return integer(uint32(1) << slot) }
	terms := join(
		portRegion("SLTR", legacy.SlotsBase, legacy.SlotsSize),
		field("SLTR", unit{"SLTC", 32}, unit{"SLTL", 32}, unit{"SLTE", 32}))
	changed := join( // reads, and clears what was read
		store(name("SLTC"), local(0)), store(local(0), name("SLTC")),
		store(name("SLTL"), local(1)), store(local(1), name("SLTL")))
	for slot := 1; slot < pci.Slots; slot++ {
		id := string([]byte{'S', byte('0' + slot/10), byte('0' + slot%10), '_'})
		terms = join(terms, device(id,
			named("_ADR", integer(uint32(slot)<<16)), named("_SUN", integer(uint32(slot))),
			method("_EJ0", 1, store(bit(slot), name("SLTE")))))
		changed = join(changed,
			when(and(local(0), bit(slot)), notify(name(id), slotCame)),
			when(and(local(1), bit(slot)), notify(name(id), slotLeave)))
	}
	return join(terms, method("SLTS", 0, changed))
}

// generalEvents are a PC's: the system finds in the register what happened.
func generalEvents() []byte {
	on := func(e legacy.Event, do ...[]byte) []byte {
		return method("_E0"+string('0'+rune(bits.TrailingZeros8(uint8(e)))), 0, do...)
	}
	return scope(root("_GPE"),
		on(legacy.EventGeneration, notify(from("_SB_", "VGEN"), generationChanged)),
		on(legacy.EventSlots, slotsChanged))
}
