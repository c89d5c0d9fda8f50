// SPDX-License-Identifier: Apache-2.0

// Package net is virtio's network card on a tap of the host. Its packets go between
// the tap and guest memory without a copy in between: by the host's vhost-net, where
// one was given, or by a goroutine for each direction.
package net

import (
	"encoding/binary"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"vmctl/monitor/mem"
	"vmctl/monitor/rate"
	"vmctl/monitor/virtio"
)

const (
	deviceType = 1
	class      = 0x020000 // Ethernet controller
	queueSize  = 256

	receiveQueue = 0
	sendQueue    = 1
	numQueues    = 2
)

// Features (virtio 1.2, 5.1.3), and one that is reserved for vhost.
const (
	featureChecksum      = 1 << 0
	featureGuestChecksum = 1 << 1
	featureMAC           = 1 << 5
	featureGuestTSO4     = 1 << 7
	featureGuestTSO6     = 1 << 8
	featureGuestECN      = 1 << 9
	featureHostTSO4      = 1 << 11
	featureHostTSO6      = 1 << 12
	featureHostECN       = 1 << 13
	featureMergeable     = 1 << 15
	featureStatus        = 1 << 16

	features = featureChecksum | featureGuestChecksum | featureMAC | featureGuestTSO4 | featureGuestTSO6 | featureGuestECN |
		featureHostTSO4 | featureHostTSO6 | featureHostECN | featureMergeable | featureStatus
)

// Fields of the configuration (5.1.4).
const (
	cfgStatus = 6
	cfgSize   = 8

	statusLinkUp = 1 << 0
)

// HeaderSize is what stands before each packet on the tap, in bytes: struct
// virtio_net_hdr_v1. Who makes the tap sets it by TUNSETVNETHDRSZ.
const HeaderSize = 12

// ErrTap is a file that is no tap with IFF_VNET_HDR.
var ErrTap = errors.New("network card's file is no tap with headers")

// Options say how a network card is.
type Options struct {
	Receive, Send rate.Limit // of the guest
	Down          bool       // its link: nothing goes through, and the guest sees that
}

// Device is a network card.
type Device struct {
	fd     int      // of the tap: os.File.Fd would let it block
	tap    *os.File // owns it
	mac    [6]byte
	opt    Options
	own    own
	kernel *kernel // or nil: the host gave none
	engine engine  // that of them that moves the packets
}

// engine moves the packets.
type engine interface {
	start(features uint64, receive, send *virtio.Queue) error
	// stop returns when guest memory is touched no more. The queues are over.
	stop()
}

// Open makes a network card of a tap, and of a vhost if that is not negative. It takes
// the descriptors over. errors.Is: ErrTap.
func Open(tap, vhost int, mac [6]byte, memory *mem.Memory, o Options) (*Device, error) {
	nonblocking := unix.SetNonblock(tap, true) // os.NewFile looks whether it is
	d := &Device{fd: tap, tap: os.NewFile(uintptr(tap), "tap"), mac: mac}
	d.own.tap = d.tap
	if vhost >= 0 {
		d.kernel = &kernel{tap: tap, vhost: vhost, memory: memory}
	}
	d.Set(o)
	if err := errors.Join(nonblocking, d.check()); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// check asks the tap for the size of its headers, which only a tap knows.
func (d *Device) check() error {
	size, err := unix.IoctlGetInt(d.fd, unix.TUNGETVNETHDRSZ)
	if err != nil || size != HeaderSize {
		return errors.Join(ErrTap, err)
	}
	return nil
}

// Set changes the options. The device is not started. A vhost counts nothing and drops
// nothing, and the host's own means to do so differ from kernel to kernel: packets that
// are counted or dropped go through the monitor, and all others again by the vhost.
func (d *Device) Set(o Options) {
	d.opt = o
	d.own.limit(o)
	d.engine = &d.own
	if d.kernel != nil && !o.Down && o.Receive.None() && o.Send.None() {
		d.engine = d.kernel
	}
}

// Options are what was set.
func (d *Device) Options() Options { return d.opt }

// Attach readies the engines.
func (d *Device) Attach(bells []int) error {
	if d.kernel != nil {
		if err := d.kernel.attach(bells); err != nil {
			return err
		}
	}
	return d.own.attach(bells)
}

// Kind is what the driver finds.
func (*Device) Kind() virtio.Kind {
	return virtio.Kind{Type: deviceType, Class: class, Features: features, Queues: numQueues, Size: queueSize}
}

// Config is the address, and whether the link is up.
func (d *Device) Config() []byte {
	b := make([]byte, cfgSize)
	copy(b, d.mac[:])
	if !d.opt.Down {
		binary.LittleEndian.PutUint16(b[cfgStatus:], statusLinkUp)
	}
	return b
}

// Start lets packets flow, once both queues are there.
func (d *Device) Start(features uint64, queues []*virtio.Queue) {
	receive, send := queues[receiveQueue], queues[sendQueue]
	if receive == nil || send == nil {
		return // a driver that sets up one of them only has no use for it
	}
	if err := d.offload(features); err != nil {
		send.Fail(err)
		return
	}
	if err := d.engine.start(features, receive, send); err != nil {
		send.Fail(err)
	}
}

// offload says to the tap what the guest takes: segments larger than its MTU, and
// packets whose checksum is not done.
func (d *Device) offload(features uint64) error {
	takes := 0
	for _, f := range []struct {
		feature uint64
		flag    int
	}{
		{featureGuestChecksum, unix.TUN_F_CSUM}, {featureGuestTSO4, unix.TUN_F_TSO4},
		{featureGuestTSO6, unix.TUN_F_TSO6}, {featureGuestECN, unix.TUN_F_TSO_ECN},
	} {
		if features&f.feature != 0 {
			takes |= f.flag
		}
	}
	if takes&unix.TUN_F_CSUM == 0 {
		takes = 0 // all others need it: virtio 1.2, 5.1.3.1
	}
	return os.NewSyscallError("TUNSETOFFLOAD", unix.IoctlSetInt(d.fd, unix.TUNSETOFFLOAD, takes))
}

// Stop ends that.
func (d *Device) Stop() { d.engine.stop() }

// Close lets go of the files.
func (d *Device) Close() error {
	var err error
	if d.kernel != nil {
		err = d.kernel.close()
	}
	return errors.Join(err, d.tap.Close())
}
