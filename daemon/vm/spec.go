// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bytes"
	"fmt"
	"net"
	"slices"
	"strings"

	"vmctl/daemon/api"
)

// checkSpec is the one check of what a caller asks a VM to be. The schema of
// the interface refuses most of it before; this is what the rest relies on.
func checkSpec(s api.VMSpec) error {
	bad := func(code api.Code, field, format string, args ...any) error {
		return &api.Error{Code: code, Field: "body.spec." + field, Detail: fmt.Sprintf(format, args...)}
	}
	switch {
	case s.VCPUs < 1 || s.VCPUs > api.MaxVCPUs:
		return bad(api.CodeVCPUsInvalid, "vcpus", "not from 1 to %d", api.MaxVCPUs)
	case s.MemoryBytes < api.MinMemory || s.MemoryBytes > api.MaxMemory:
		return bad(api.CodeMemoryInvalid, "memoryBytes", "not from %d to %d", api.MinMemory, int64(api.MaxMemory))
	case s.MemoryBytes%api.MemoryUnit != 0:
		return bad(api.CodeMemoryInvalid, "memoryBytes", "not a multiple of %d", api.MemoryUnit)
	case len(s.Boot.Cmdline) > api.MaxCmdline:
		return bad(api.CodeCmdlineTooLong, "boot.cmdline", "longer than %d bytes", api.MaxCmdline)
	case strings.IndexByte(s.Boot.Cmdline, 0) >= 0:
		return bad(api.CodeInvalidRequest, "boot.cmdline", "holds a NUL byte")
	case s.Boot.Kernel == "" && s.Boot.Initrd != "":
		return bad(api.CodeBootFileInvalid, "boot.initrd", "is for a kernel, and there is none")
	case s.Boot.Kernel == "" && s.Boot.Cmdline != "":
		return bad(api.CodeInvalidRequest, "boot.cmdline", "is for a kernel, and there is none")
	case s.Boot.Kernel == "" && len(s.Disks) == 0:
		return bad(api.CodeBootFileInvalid, "boot.kernel", "is empty, and there is no disk to boot from")
	case s.OnReset != api.ResetRestart && s.OnReset != api.ResetStop:
		return bad(api.CodeInvalidRequest, "onReset", "neither restart nor stop")
	case s.OnPoweroff != api.EndStop && s.OnPoweroff != api.EndRestart:
		return bad(api.CodeInvalidRequest, "onPoweroff", "neither stop nor restart")
	case s.OnCrash != api.EndStop && s.OnCrash != api.EndRestart:
		return bad(api.CodeInvalidRequest, "onCrash", "neither stop nor restart")
	case s.Console != api.ConsoleSerial && s.Console != api.ConsoleVirtio:
		return bad(api.CodeInvalidRequest, "console", "neither serial nor virtio")
	case s.Vsock != nil && s.Vsock.CID != 0 && (s.Vsock.CID < api.MinCID || s.Vsock.CID > api.MaxCID):
		return bad(api.CodeInvalidRequest, "vsock.cid", "not from %d to %d", api.MinCID, int64(api.MaxCID))
	case len(s.Disks) > api.MaxDisks:
		return bad(api.CodeDiskInvalid, "disks", "more than %d", api.MaxDisks)
	}
	if err := checkBalloon(s, "body.spec."); err != nil {
		return err
	}
	for i, d := range s.Disks {
		field := fmt.Sprintf("disks[%d]", i)
		switch {
		case d.Path == "":
			return bad(api.CodeDiskInvalid, field+".path", "is empty")
		case slices.ContainsFunc(s.Disks[:i], func(o api.DiskSpec) bool { return o.Path == d.Path }):
			return bad(api.CodeDiskInvalid, field+".path", "%q is a disk of this VM already", d.Path)
		case len(d.Serial) > api.MaxSerial || strings.ContainsFunc(d.Serial, func(c rune) bool { return c < ' ' || c > '~' }):
			return bad(api.CodeDiskInvalid, field+".serial", "not at most %d printable characters of ASCII", api.MaxSerial)
		}
		if err := checkFormat(field, d); err != nil {
			return err
		}
		if err := checkLimit(api.CodeDiskInvalid, field+".limit", d.Limit); err != nil {
			return err
		}
	}
	if len(s.NICs) > api.MaxNICs {
		return bad(api.CodeNetworkInvalid, "nics", "more than %d", api.MaxNICs)
	}
	for i, n := range s.NICs {
		mac, err := net.ParseMAC(n.MAC)
		switch {
		case n.Bridge == "":
			return bad(api.CodeNetworkInvalid, fmt.Sprintf("nics[%d].bridge", i), "is empty")
		case n.MAC != "" && (err != nil || len(mac) != 6 || mac[0]&1 != 0 || bytes.Equal(mac, make([]byte, 6))):
			return bad(api.CodeNetworkInvalid, fmt.Sprintf("nics[%d].mac", i), "%q is not one station's address, such as 52:54:00:12:34:56", n.MAC)
		}
		err = checkLimit(api.CodeNetworkInvalid, fmt.Sprintf("nics[%d].receiveLimit", i), n.ReceiveLimit)
		if err == nil {
			err = checkLimit(api.CodeNetworkInvalid, fmt.Sprintf("nics[%d].sendLimit", i), n.SendLimit)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkBalloon looks at the balloon; prefix is where its field is.
func checkBalloon(s api.VMSpec, prefix string) error {
	var detail string
	switch most := s.MemoryBytes - api.MinMemory; {
	case s.BalloonBytes < 0 || s.BalloonBytes > most:
		detail = fmt.Sprintf("not from 0 to %d: %d bytes stay with the guest", most, api.MinMemory)
	case s.BalloonBytes%api.MemoryUnit != 0:
		detail = fmt.Sprintf("not a multiple of %d", api.MemoryUnit)
	default:
		return nil
	}
	return &api.Error{Code: api.CodeMemoryInvalid, Field: prefix + "balloonBytes", Detail: detail}
}

// checkOwn sees that a disk with snapshots stays what and where it is, and that nothing
// else is said to have some.
func checkOwn(was, disks []api.DiskSpec) error {
	isOwn := func(d api.DiskSpec) bool {
		return d.Own || slices.ContainsFunc(d.Backing, func(b api.BackingSpec) bool { return b.Own })
	}
	for i := range max(len(was), len(disks)) {
		var before, now api.DiskSpec
		if i < len(was) {
			before = was[i]
		}
		if i < len(disks) {
			now = disks[i]
		}
		var detail string
		switch {
		case isOwn(now) && !isOwn(before):
			detail = "is said to have snapshots, which only vmctld makes"
		case isOwn(before) && !sameFiles(now, before):
			detail = "has snapshots: its files stay as they are, and it keeps its place"
		default:
			continue
		}
		return &api.Error{Code: api.CodeDiskInvalid, Field: fmt.Sprintf("body.spec.disks[%d]", i), Detail: detail}
	}
	return nil
}

// sameFiles reports whether two disks are made of the same files in the same way.
func sameFiles(a, b api.DiskSpec) bool {
	return a.Path == b.Path && a.Format == b.Format && a.Own == b.Own && a.ReadOnly == b.ReadOnly && slices.Equal(a.Backing, b.Backing)
}

func checkLimit(code api.Code, field string, l *api.RateLimit) error {
	var detail string
	switch {
	case l == nil:
		return nil
	case l.BytesPerSecond == 0 && l.OpsPerSecond == 0:
		detail = "limits neither bytes nor operations"
	case l.BytesPerSecond != 0 && (l.BytesPerSecond < api.MinRateBytes || l.BytesPerSecond > api.MaxRateBytes):
		detail = fmt.Sprintf("has bytes not from %d to %d", api.MinRateBytes, int64(api.MaxRateBytes))
	case l.OpsPerSecond < 0 || l.OpsPerSecond > api.MaxRateOps:
		detail = fmt.Sprintf("has operations not from 1 to %d", int64(api.MaxRateOps))
	case l.BurstMillis < 0 || l.BurstMillis > api.MaxBurst:
		detail = fmt.Sprintf("has a burst not from 1 to %d", api.MaxBurst)
	default:
		return nil
	}
	return &api.Error{Code: code, Field: "body.spec." + field, Detail: detail}
}

// checkFormat looks at what the files of a disk are said to be. Whether they are is
// for the monitor to find out.
func checkFormat(field string, d api.DiskSpec) error {
	bad := func(field, format string, args ...any) error {
		return &api.Error{Code: api.CodeDiskInvalid, Field: "body.spec." + field, Detail: fmt.Sprintf(format, args...)}
	}
	known := func(f api.DiskFormat) bool {
		return f == "" || f == api.FormatRaw || f == api.FormatQCOW2 || f == api.FormatOverlay
	}
	switch {
	case !known(d.Format):
		return bad(field+".format", "none of raw, qcow2 and overlay")
	case d.Format == api.FormatQCOW2 && !d.ReadOnly:
		return bad(field+".readOnly", "is needed: qcow2 images are not written to")
	case (d.Format == "" || d.Format == api.FormatRaw) && len(d.Backing) > 0:
		return bad(field+".backing", "is not for raw disks")
	case d.Format == api.FormatOverlay && len(d.Backing) == 0:
		return bad(field+".backing", "is what an overlay needs")
	case len(d.Backing) > api.MaxBacking:
		return bad(field+".backing", "more than %d", api.MaxBacking)
	}
	above := d.Format
	for i, b := range d.Backing {
		field := fmt.Sprintf("%s.backing[%d]", field, i)
		switch {
		case b.Path == "":
			return bad(field+".path", "is empty")
		case !known(b.Format):
			return bad(field+".format", "none of raw, qcow2 and overlay")
		case b.Format == api.FormatOverlay && (above != api.FormatOverlay || i == len(d.Backing)-1):
			return bad(field+".format", "is overlay, and not between another one and what both are above")
		case (b.Format == "" || b.Format == api.FormatRaw) && i < len(d.Backing)-1:
			return bad(field+".format", "is raw, and there are files behind it")
		}
		above = b.Format
	}
	return nil
}
