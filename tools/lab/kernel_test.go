// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestLoadOrder(t *testing.T) {
	index := `kernel/net/9p/9pnet.ko.xz:
kernel/net/9p/9pnet_virtio.ko.xz: kernel/net/9p/9pnet.ko.xz
kernel/fs/9p/9p.ko.xz: kernel/net/9p/9pnet.ko.xz kernel/fs/netfs/netfs.ko.xz
kernel/fs/netfs/netfs.ko.xz:
kernel/arch/x86/kvm/kvm-amd.ko.xz: kernel/arch/x86/kvm/kvm.ko.xz kernel/virt/lib/irqbypass.ko.xz
kernel/arch/x86/kvm/kvm.ko.xz: kernel/virt/lib/irqbypass.ko.xz
kernel/virt/lib/irqbypass.ko.xz:
`
	var got []string
	for _, f := range loadOrder(index, []string{"virtio_pci", "9pnet_virtio", "9p", "kvm_amd"}) {
		got = append(got, moduleName(f))
	}
	want := []string{"9pnet", "9pnet_virtio", "netfs", "9p", "irqbypass", "kvm", "kvm_amd"}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// bzImage makes an image with a payload, as the boot protocol lays it out.
func bzImage(payload string) []byte {
	const sects = 2
	b := make([]byte, (sects+1)*512)
	b[offSetupSects] = sects
	copy(b[offMagic:], "HdrS")
	binary.LittleEndian.PutUint32(b[offPayload:], 16)
	binary.LittleEndian.PutUint32(b[offPayloadLength:], uint32(len(payload)+4))
	b = append(b, make([]byte, 16)...)
	return append(append(b, payload...), 1, 2, 3, 4)
}

func TestImagePayload(t *testing.T) {
	got, err := imagePayload(bzImage("packed"))
	if err != nil || string(got) != "packed" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestImageThatIsNone(t *testing.T) {
	good := bzImage("packed")
	huge := slices.Clone(good)
	binary.LittleEndian.PutUint32(huge[offPayload:], 0xffffffff)
	binary.LittleEndian.PutUint32(huge[offPayloadLength:], 0xffffffff)
	short := slices.Clone(good)
	binary.LittleEndian.PutUint32(short[offPayloadLength:], 3)
	for name, b := range map[string][]byte{
		"empty": nil, "text": []byte(strings.Repeat("x", 4096)), "cut": good[:len(good)-1], "huge": huge, "short": short,
	} {
		if _, err := imagePayload(b); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestKernelByPath(t *testing.T) {
	dir := t.TempDir()
	if _, err := kernelAt(dir); err == nil {
		t.Error("an empty folder was taken")
	}
	if _, err := kernelAt(filepath.Join(dir, "6.13")); err == nil || !strings.Contains(err.Error(), "6.12") {
		t.Errorf("unknown name: %v", err)
	}
	file := filepath.Join(dir, "boot", "vmlinuz-1.2.3")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if k, err := kernelAt(dir); err != nil || k.release != "1.2.3" || k.dir != dir || k.image != file {
		t.Errorf("folder: %+v, %v", k, err)
	}
	if k, err := kernelAt(file); err != nil || k.dir != "" || k.image != file {
		t.Errorf("file: %+v, %v", k, err)
	}
}

func TestPlaceImage(t *testing.T) {
	dir := t.TempDir()
	from := filepath.Join(dir, "usr/lib/modules/7.3.4-amd64")
	if err := os.MkdirAll(from, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"vmlinuz", "config"} {
		if err := os.WriteFile(filepath.Join(from, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := placeImage(dir); err != nil {
		t.Fatal(err)
	}
	if k, err := kernelAt(dir); err != nil || k.release != "7.3.4-amd64" {
		t.Errorf("%+v, %v", k, err)
	}
}

func TestMergeUsr(t *testing.T) {
	dir := t.TempDir()
	for _, f := range []string{"lib/modules/1/a", "lib/modules/1/b/c", "usr/lib/modules/1/d", "usr/lib/other"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, f)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, f), []byte(f), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := mergeUsr(dir); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"usr/lib/modules/1/a", "usr/lib/modules/1/b/c", "usr/lib/modules/1/d", "usr/lib/other"} {
		if !exists(filepath.Join(dir, f)) {
			t.Errorf("%s is gone", f)
		}
	}
	if exists(filepath.Join(dir, "lib")) {
		t.Error("lib is still there")
	}
}
