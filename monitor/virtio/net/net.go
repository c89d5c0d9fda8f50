// SPDX-License-Identifier: Apache-2.0

// Package net is virtio's network card on a tap of the host. Its packets go between
// the tap and guest memory without a copy in between: by the host's vhost-net, where
// one was given, or by a goroutine for each direction.
package net

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"vmctl/monitor/mem"
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

	features = featureChecksum | featureGuestChecksum | featureMAC | featureGuestTSO4 | featureGuestTSO6 | featureGuestECN |
		featureHostTSO4 | featureHostTSO6 | featureHostECN | featureMergeable
)

// HeaderSize is what stands before each packet on the tap, in bytes: struct
// virtio_net_hdr_v1. Who makes the tap sets it by TUNSETVNETHDRSZ.
const HeaderSize = 12

// ErrTap is a file that is no tap with IFF_VNET_HDR.
var ErrTap = errors.New("network card's file is no tap with headers")

// Device is a network card.
type Device struct {
	fd     int      // of the tap: os.File.Fd would let it block
	tap    *os.File // owns it
	mac    [6]byte
	engine engine
}

// engine moves the packets.
type engine interface {
	// attach is called once and first, with the bells of the queues.
	attach(bells []int) error
	start(features uint64, receive, send *virtio.Queue) error
	// stop returns when guest memory is touched no more. The queues are over.
	stop()
	close() error
}

// Open makes a network card of a tap, and of a vhost if that is not negative. It takes
// the descriptors over. errors.Is: ErrTap.
func Open(tap, vhost int, mac [6]byte, memory *mem.Memory) (*Device, error) {
	nonblocking := unix.SetNonblock(tap, true) // os.NewFile looks whether it is
	d := &Device{fd: tap, tap: os.NewFile(uintptr(tap), "tap"), mac: mac}
	if vhost < 0 {
		d.engine = &own{tap: d.tap}
	} else {
		d.engine = &kernel{tap: tap, vhost: vhost, memory: memory}
	}
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

// Attach readies the engine.
func (d *Device) Attach(bells []int) error { return d.engine.attach(bells) }

// Kind is what the driver finds.
func (*Device) Kind() virtio.Kind {
	return virtio.Kind{Type: deviceType, Class: class, Features: features, Queues: numQueues, Size: queueSize}
}

// Config is the address.
func (d *Device) Config() []byte { return d.mac[:] }

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
func (d *Device) Close() error { return errors.Join(d.engine.close(), d.tap.Close()) }
