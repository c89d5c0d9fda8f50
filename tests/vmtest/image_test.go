// SPDX-License-Identifier: Apache-2.0

//go:build lab

package vmtest_test

import (
	"bytes"
	_ "embed"
	"os"
	"strings"
	"testing"

	"vmctl/abi"
	"vmctl/monitor/spec"
	"vmctl/tests/vmtest"
)

// Images of 1 MiB that qemu-img 7.2 made. Of the one each page, of 4096 bytes, is its
// number over and over, compressed by zstd:
//
//	qemu-img create -f qcow2 -o cluster_size=4096,compression_type=zstd base.qcow2 1M
//	qemu-io -f qcow2 -c "write -c -P 0 0 4096" -c "write -c -P 1 4096 4096" ... base.qcow2
//
// The other has it as its backing file, and subclusters:
//
//	qemu-img create -f qcow2 -o cluster_size=16384,extended_l2=on -b base.qcow2 -F qcow2 top.qcow2 1M
//	qemu-io -f qcow2 -c "write -P 170 8192 1024" -c "write -z 65536 20480" top.qcow2
var (
	//go:embed testdata/base.qcow2
	baseImage []byte
	//go:embed testdata/top.qcow2
	topImage []byte
)

// topContent is what the guest sees.
func topContent() []byte {
	b := make([]byte, 1<<20)
	for i := range b {
		switch {
		case i >= 8192 && i < 8192+1024:
			b[i] = 170
		case i < 65536 || i >= 65536+20480:
			b[i] = byte(i / 4096)
		}
	}
	return b
}

// A guest reads a chain of images through the filter of the jail, and writes nothing.
func TestImage(t *testing.T) {
	top, base := file(t, string(topImage), int64(len(topImage))), file(t, string(baseImage), int64(len(baseImage)))
	v, s := boot(t, vmtest.Config{Initrd: withDrivers, VCPUs: 2, Disks: []vmtest.Disk{
		{Path: top, ReadOnly: true, Format: spec.QCOW2, Backing: []vmtest.File{{Path: base, Format: spec.QCOW2}}},
	}})
	want := topContent()
	for _, bs := range []string{"512", "4096", "1M"} {
		if got := s.Run("dd if=/dev/vda iflag=direct bs=" + bs + " 2>/dev/null | md5sum | cut -c1-32"); got != md5Of(want) {
			t.Errorf("by %s: %s, want %s", bs, got, md5Of(want))
		}
	}
	if got := s.Run("cat /sys/block/vda/ro; echo x >/dev/vda || echo refused"); !strings.HasPrefix(got, "1\n") || !strings.HasSuffix(got, "refused") {
		t.Errorf("writing: %q", got)
	}
	small(t, v, s, "with an image")
	s.Type("poweroff -f\n")
	end(t, v, abi.ReasonPoweroff)
}

// What a guest writes to an overlay is there at its next start, and the images below it
// are as they were.
func TestOverlay(t *testing.T) {
	top, base := file(t, string(topImage), int64(len(topImage))), file(t, string(baseImage), int64(len(baseImage)))
	disk := vmtest.Disk{Path: file(t, "", 0), Format: spec.Overlay, Backing: []vmtest.File{
		{Path: top, Format: spec.QCOW2}, {Path: base, Format: spec.QCOW2},
	}}
	const sum = "dd if=/dev/vda iflag=direct bs=64k 2>/dev/null | md5sum | cut -c1-32"
	var want string
	for range 2 {
		v, s := boot(t, vmtest.Config{Initrd: withDrivers, VCPUs: 2, Disks: []vmtest.Disk{disk}})
		if want == "" {
			want = md5Of(topContent())
		}
		if got := s.Run(sum); got != want {
			t.Errorf("%s, want %s", got, want)
		}
		s.Run("head -c 300000 /dev/urandom >/tmp/p; dd if=/tmp/p of=/dev/vda bs=1000 seek=77 conv=fsync 2>/dev/null")
		want = s.Run(sum)
		if want == md5Of(topContent()) {
			t.Error("nothing was written")
		}
		small(t, v, s, "with an overlay")
		s.Type("poweroff -f\n")
		end(t, v, abi.ReasonPoweroff)
	}
	for path, want := range map[string][]byte{top: topImage, base: baseImage} {
		if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, want) {
			t.Errorf("an image below the overlay differs: %v", err)
		}
	}
}
