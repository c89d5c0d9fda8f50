// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// The root is an overlay: a RAM disk over the kernel's files over the Debian
// tree. Nothing that the command does reaches the host but what it writes
// beneath the checkout's build folder.

type mount struct {
	source, target, fstype, data string
	flags                        uintptr
}

// sharedOptions are those of every 9p mount: the largest message that the
// virtio transport takes. loose caching is right for trees that nobody changes
// during a run, and makes the second look at a file free.
const (
	sharedOptions = "trans=virtio,version=9p2000.L,msize=512000"
	lasting       = sharedOptions + ",cache=loose"
	changing      = sharedOptions + ",cache=mmap"
)

func mountEarly() error {
	return mountList([]mount{
		{"proc", "/proc", "proc", "", 0},
		{"sys", "/sys", "sysfs", "", 0},
		{"dev", "/dev", "devtmpfs", "", 0},
	})
}

func mountRoot() error {
	const ro = unix.MS_RDONLY | unix.MS_NODEV
	list := []mount{{"tree", "/tree", "9p", lasting, ro}}
	lower := "/tree"
	if kernelArgument("lab.kernel") != "" {
		list = append(list, mount{"kernel", "/kernel", "9p", lasting, ro})
		lower = "/kernel:/tree"
	}
	err := mountList(append(list, []mount{
		{"ram", "/ram", "tmpfs", "mode=755", 0},
		{"ram", "/ram/upper", "", "", 0},
		{"ram", "/ram/work", "", "", 0},
		{"root", "/root", "overlay", "lowerdir=" + lower + ",upperdir=/ram/upper,workdir=/ram/work", 0},
	}...))
	if err != nil {
		return err
	}
	for _, dir := range []string{"/proc", "/sys", "/dev"} {
		if err := unix.Mount(dir, "/root"+dir, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s: %w", dir, err)
		}
	}
	if err := enter("/root"); err != nil {
		return err
	}
	return finishRoot()
}

// enter makes dir the root. An initramfs cannot be pivoted away from, so it is
// covered, as switch_root does.
func enter(dir string) error {
	if err := unix.Chdir(dir); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("chroot: %w", err)
	}
	return unix.Chdir("/")
}

func finishRoot() error {
	err := mountList([]mount{
		{"devpts", "/dev/pts", "devpts", "gid=5,mode=620,ptmxmode=666", 0},
		{"shm", "/dev/shm", "tmpfs", "mode=1777", unix.MS_NOSUID | unix.MS_NODEV},
		{"run", "/run", "tmpfs", "mode=755", unix.MS_NOSUID | unix.MS_NODEV},
		{"tmp", "/tmp", "tmpfs", "mode=1777", unix.MS_NOSUID | unix.MS_NODEV},
		{"cgroup", "/sys/fs/cgroup", "cgroup2", "nsdelegate", 0},
		{"bpf", "/sys/fs/bpf", "bpf", "mode=700", 0},
		{"debug", "/sys/kernel/debug", "debugfs", "", 0},
		{"trace", "/sys/kernel/tracing", "tracefs", "", 0},
	})
	if err != nil {
		return err
	}
	links := map[string]string{
		"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0",
		"/dev/stdout": "/proc/self/fd/1", "/dev/stderr": "/proc/self/fd/2",
	}
	for name, target := range links {
		if err := os.Symlink(target, name); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	if err := makeNodes(); err != nil {
		return err
	}
	if err := linkKernel(); err != nil {
		return err
	}
	if err := mountCheckout(); err != nil {
		return err
	}
	return unix.Sethostname([]byte("lab"))
}

// autoloaded are device nodes whose opening loads the module behind them.
var autoloaded = []struct {
	name  string
	minor uint32
}{
	{"/dev/net/tun", 200}, {"/dev/vhost-net", 238}, {"/dev/vhost-vsock", 241}, {"/dev/fuse", 229},
	{"/dev/loop-control", 237},
}

func makeNodes() error {
	if err := os.MkdirAll("/dev/net", 0o755); err != nil {
		return err
	}
	for _, n := range autoloaded {
		err := unix.Mknod(n.name, unix.S_IFCHR|0o600, int(unix.Mkdev(10, n.minor)))
		if err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("node %s: %w", n.name, err)
		}
	}
	return nil
}

// linkKernel names this kernel's image /boot/vmlinuz, for nested guests.
func linkKernel() error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	image := "vmlinuz-" + unix.ByteSliceToString(u.Release[:])
	if _, err := os.Stat("/boot/" + image); err != nil {
		return nil // a kernel given by path brings no folder of its own
	}
	err := os.Symlink(image, "/boot/vmlinuz")
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	return err
}

// mountCheckout mounts the checkout at the path that it has on the host, so
// that names in messages mean the same on both sides. Only its build folder
// can be written.
func mountCheckout() error {
	dir := kernelArgument("lab.checkout")
	if dir == "" {
		return nil
	}
	return mountList([]mount{
		{"checkout", dir, "9p", changing, unix.MS_RDONLY | unix.MS_NODEV},
		{"build", filepath.Join(dir, "build"), "9p", changing, unix.MS_NODEV},
	})
}

// kernelArgument is a value from the kernel's command line. The lab escapes
// what could not stand there.
func kernelArgument(name string) string {
	b, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return ""
	}
	s := bufio.NewScanner(strings.NewReader(string(b)))
	s.Split(bufio.ScanWords)
	for s.Scan() {
		if v, ok := strings.CutPrefix(s.Text(), name+"="); ok {
			return v
		}
	}
	return ""
}

// mountList makes each target, and mounts it unless its type is empty.
func mountList(list []mount) error {
	for _, m := range list {
		if err := os.MkdirAll(m.target, 0o755); err != nil && !errors.Is(err, unix.EROFS) {
			return err
		}
		if m.fstype == "" {
			continue
		}
		err := unix.Mount(m.source, m.target, m.fstype, m.flags, m.data)
		if err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s on %s: %w", m.fstype, m.target, err)
		}
	}
	return nil
}
