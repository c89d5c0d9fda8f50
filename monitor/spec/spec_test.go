// SPDX-License-Identifier: Apache-2.0

package spec_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"vmctl/monitor/rate"
	"vmctl/monitor/spec"
	"vmctl/monitor/wire"
)

func good() spec.Spec {
	return spec.Spec{
		VCPUs: 4, MemoryBytes: 5 << 30, Cmdline: "console=ttyS0", OnReset: spec.Restart, Console: spec.Virtio,
		Disks: []spec.Disk{{Backend: 7, ID: "root"}, {Backend: 3, ReadOnly: true}},
		NICs:  []spec.NIC{{Backend: 4, MAC: [6]byte{2, 1, 2, 3, 4, 5}}},
		CID:   9,
	}
}

func TestSpecComesBack(t *testing.T) {
	kernel, firmware := good(), good()
	firmware.Firmware, firmware.Cmdline = true, ""
	image := good()
	image.Disks[1].Format, image.Disks[1].Backing = spec.QCOW2, []spec.Format{spec.QCOW2, spec.Raw}
	overlay := good()
	overlay.Disks[0].Format, overlay.Disks[0].Backing = spec.Overlay, []spec.Format{spec.Raw}
	own := good()
	own.Disks[0].Format, own.Disks[0].Backing, own.Disks[0].Own = spec.Overlay, []spec.Format{spec.Overlay, spec.QCOW2, spec.Raw}, []uint32{9}
	limited := good()
	limited.Disks[1].Limit = rate.Limit{Bytes: 1 << 20, Ops: 100, Burst: 50}
	limited.NICs[0].Receive, limited.NICs[0].Send, limited.NICs[0].Down = rate.Limit{Bytes: 1 << 20}, rate.Limit{Ops: 7}, true
	for _, want := range []spec.Spec{kernel, firmware, image, overlay, own, limited} {
		got, err := spec.Decode(want.Encode(nil))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v, %v; want %+v", got, err, want)
		}
	}
}

func TestBadSpecs(t *testing.T) {
	for _, c := range []struct {
		name string
		bend func(*spec.Spec)
		want error
	}{
		{"no vcpus", func(s *spec.Spec) { s.VCPUs = 0 }, spec.ErrVCPUs},
		{"too many vcpus", func(s *spec.Spec) { s.VCPUs = 65 }, spec.ErrVCPUs},
		{"no memory", func(s *spec.Spec) { s.MemoryBytes = 0 }, spec.ErrMemory},
		{"little memory", func(s *spec.Spec) { s.MemoryBytes = 16<<20 - 4096 }, spec.ErrMemory},
		{"half a page", func(s *spec.Spec) { s.MemoryBytes += 2048 }, spec.ErrMemory},
		{"too much memory", func(s *spec.Spec) { s.MemoryBytes = 1<<40 + 4096 }, spec.ErrMemory},
		{"long command line", func(s *spec.Spec) { s.Cmdline = strings.Repeat("x", 2048) }, spec.ErrCmdline},
		{"NUL in the command line", func(s *spec.Spec) { s.Cmdline = "a\x00b" }, spec.ErrNUL},
		{"firmware with a command line", func(s *spec.Spec) { s.Firmware = true }, spec.ErrBoot},
		{"no policy", func(s *spec.Spec) { s.OnReset = 0 }, spec.ErrPolicy},
		{"unknown console", func(s *spec.Spec) { s.Console = 2 }, spec.ErrConsole},
		{"many disks", func(s *spec.Spec) { s.Disks = make([]spec.Disk, 18) }, spec.ErrDisks},
		{"disk without a backend", func(s *spec.Spec) { s.Disks[0].Backend = 0 }, spec.ErrBackend},
		{"disk without speed", func(s *spec.Spec) { s.Disks[0].Limit.Bytes = 1 }, spec.ErrDiskLimit},
		{"network card with a burst of nothing", func(s *spec.Spec) { s.NICs[0].Receive.Burst = 1 }, spec.ErrNICLimit},
		{"network card too fast", func(s *spec.Spec) { s.NICs[0].Send.Ops = 1 << 40 }, spec.ErrNICLimit},
		{"two disks of one backend", func(s *spec.Spec) { s.Disks[1].Backend = 7 }, spec.ErrBackend},
		{"many network cards", func(s *spec.Spec) { s.NICs = make([]spec.NIC, 9) }, spec.ErrNICs},
		{"network card without a backend", func(s *spec.Spec) { s.NICs[0].Backend = 0 }, spec.ErrBackend},
		{"network card of a disk's backend", func(s *spec.Spec) { s.NICs[0].Backend = 3 }, spec.ErrBackend},
		{"address of many", func(s *spec.Spec) { s.NICs[0].MAC[0] = 3 }, spec.ErrMAC},
		{"no address", func(s *spec.Spec) { s.NICs[0].MAC = [6]byte{} }, spec.ErrMAC},
		{"long identity", func(s *spec.Spec) { s.Disks[0].ID = strings.Repeat("x", 21) }, spec.ErrDiskID},
		{"odd identity", func(s *spec.Spec) { s.Disks[0].ID = "a\n" }, spec.ErrDiskID},
		{"CID of the host", func(s *spec.Spec) { s.CID = 2 }, spec.ErrCID},
		{"CID of anybody", func(s *spec.Spec) { s.CID = 1<<32 - 1 }, spec.ErrCID},
		{"unknown format", func(s *spec.Spec) { s.Disks[1].Format = 3 }, spec.ErrFormat},
		{"overlay of nothing", func(s *spec.Spec) { s.Disks[1].Format = spec.Overlay }, spec.ErrBacking},
		{"overlay of an overlay of nothing", func(s *spec.Spec) {
			s.Disks[1].Format, s.Disks[1].Backing = spec.Overlay, []spec.Format{spec.Overlay}
		}, spec.ErrBacking},
		{"qcow2 to write to", func(s *spec.Spec) { s.Disks[0].Format = spec.QCOW2 }, spec.ErrQCOW2},
		{"raw with a backing file", func(s *spec.Spec) { s.Disks[1].Backing = []spec.Format{spec.Raw} }, spec.ErrBacking},
		{"backing of an unknown format", func(s *spec.Spec) { s.Disks[1].Format, s.Disks[1].Backing = spec.QCOW2, []spec.Format{3} }, spec.ErrFormat},
		{"overlay behind an image", func(s *spec.Spec) {
			s.Disks[1].Format, s.Disks[1].Backing = spec.Overlay, []spec.Format{spec.QCOW2, spec.Overlay, spec.Raw}
		}, spec.ErrBacking},
		{"image of its own", func(s *spec.Spec) {
			s.Disks[0].Format, s.Disks[0].Backing, s.Disks[0].Own = spec.Overlay, []spec.Format{spec.QCOW2}, []uint32{9}
		}, spec.ErrOwn},
		{"more of its own than there are", func(s *spec.Spec) {
			s.Disks[0].Format, s.Disks[0].Backing, s.Disks[0].Own = spec.Overlay, []spec.Format{spec.Raw}, []uint32{9, 10}
		}, spec.ErrOwn},
		{"one of its own that is a disk's too", func(s *spec.Spec) {
			s.Disks[0].Format, s.Disks[0].Backing, s.Disks[0].Own = spec.Overlay, []spec.Format{spec.Raw}, []uint32{3}
		}, spec.ErrBackend},
		{"files behind a raw one", func(s *spec.Spec) {
			s.Disks[1].Format, s.Disks[1].Backing = spec.QCOW2, []spec.Format{spec.Raw, spec.Raw}
		}, spec.ErrBacking},
		{"long chain", func(s *spec.Spec) { s.Disks[1].Format, s.Disks[1].Backing = spec.QCOW2, make([]spec.Format, 16) }, spec.ErrBacking},
		{"unknown policy", func(s *spec.Spec) { s.OnReset = 3 }, spec.ErrPolicy},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := good()
			c.bend(&s)
			if err := s.Validate(); !errors.Is(err, c.want) {
				t.Errorf("Validate: %v, want %v", err, c.want)
			}
			if _, err := spec.Decode(s.Encode(nil)); !errors.Is(err, c.want) {
				t.Errorf("Decode: %v, want %v", err, c.want)
			}
		})
	}
}

func TestLongestCommandLine(t *testing.T) {
	s := good()
	s.Cmdline = strings.Repeat("x", spec.MaxCmdline)
	if err := s.Validate(); err != nil {
		t.Error(err)
	}
}

func TestDecodeRefusesOtherBytes(t *testing.T) {
	s := good()
	msg := s.Encode(nil)
	if _, err := spec.Decode(append(msg, 0)); !errors.Is(err, wire.ErrTrailing) {
		t.Errorf("trailing byte: %v", err)
	}
	if _, err := spec.Decode(msg[:len(msg)-1]); !errors.Is(err, wire.ErrShort) {
		t.Errorf("cut: %v", err)
	}
	msg[0] = 8
	if _, err := spec.Decode(msg); !errors.Is(err, spec.ErrVersion) {
		t.Errorf("other version: %v", err)
	}
}

// Daemons from before there were limits, files of a disk's own, sockets, formats, firmware,
// network cards, and disks, are still understood.
func TestOldVersions(t *testing.T) {
	s := good()
	for _, old := range []struct {
		version byte
		lacks   int // bytes, of a spec without what came later
		bend    func()
	}{
		{6, 81, func() {}},
		{5, 83, func() {}},
		{4, 91, func() { s.CID = 0 }},
		{3, 92, func() { s.Firmware = false }},
		{2, 52, func() { s.NICs = nil }},
		{1, 8, func() { s.Disks, s.Console = nil, spec.Serial }},
	} {
		old.bend()
		version := old.version
		msg := s.Encode(nil)
		msg[0] = version
		got, err := spec.Decode(msg[:len(msg)-old.lacks])
		if err != nil || !reflect.DeepEqual(got, s) {
			t.Errorf("version %d: got %+v, %v", version, got, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	s := good()
	f.Add(s.Encode(nil))
	f.Fuzz(func(t *testing.T, msg []byte) {
		s, err := spec.Decode(msg)
		if err != nil {
			return
		}
		again, err := spec.Decode(s.Encode(nil))
		if err != nil || !reflect.DeepEqual(again, s) {
			t.Fatalf("decoded %+v does not come back: %+v, %v", s, again, err)
		}
	})
}
