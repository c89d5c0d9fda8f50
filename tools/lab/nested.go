// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"

	"vmctl/tools/lab/cpio"
)

// nestedMarker is what the nested guest's init prints first, on a line of its own.
const nestedMarker = "vmctl-guest: init reached"

// nestedInit is that guest's first process: it says that it is there and gives
// root shells on its console, one after the other, until it is switched off.
const nestedInit = `#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev 2>/dev/null
for module in /modules/*.ko; do
	[ -e "$module" ] && /bin/busybox insmod "$module"
done
echo "` + nestedMarker + `"
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root TERM=linux PS1='guest# '
hostname guest
cd /root
tty=$(sed 's/.* //' /sys/class/tty/console/active)
tty=/dev/${tty:-console}
while :; do
	setsid sh -c "exec sh -i <$tty >$tty 2>&1"
done
`

// nestedModules are the drivers of devices that such a guest may have.
var nestedModules = []string{"virtio_pci", "virtio_blk", "virtio_rng", "virtio_net", "virtio_balloon", "vmw_vsock_virtio_transport"}

// nestedInitrd writes the initramfs of a guest that runs in the machine: busybox, a
// shell, and modules if they are asked for.
func (l *lab) nestedInitrd(ctx context.Context, tree *toolTree, o *options) error {
	var modules []byte
	if o.modules {
		k, err := l.kernel(ctx, tree, o.kernel)
		if err != nil {
			return err
		}
		if modules, err = k.packNested(ctx, tree); err != nil {
			return err
		}
	}
	return writeNestedInitrd(tree, o.out, modules)
}

// writeNestedInitrd puts it together, with an archive of modules before it.
func writeNestedInitrd(tree *toolTree, out string, modules []byte) error {
	busybox, err := os.ReadFile(filepath.Join(tree.dir, "usr/bin/busybox"))
	if err != nil {
		return err
	}
	b := bytes.NewBuffer(modules)
	w := cpio.NewWriter(b)
	for _, dir := range []string{"proc", "sys", "dev", "root", "tmp"} {
		if err := w.Dir(dir, 0o755); err != nil {
			return err
		}
	}
	if err := w.CharDevice("dev/console", 0o600, 5, 1); err != nil {
		return err
	}
	if err := w.File("bin/busybox", 0o755, busybox); err != nil {
		return err
	}
	if err := w.File("init", 0o755, []byte(nestedInit)); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	temp := out + ".new"
	if err := os.WriteFile(temp, b.Bytes(), 0o644); err != nil {
		return err
	}
	return os.Rename(temp, out)
}
