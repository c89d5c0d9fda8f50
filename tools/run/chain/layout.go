// SPDX-License-Identifier: Apache-2.0

// Package chain lays out in a throw-away machine what packages would install,
// and starts both daemons as the users and with the capabilities of the design.
package chain

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// account is a system user as packaging/sysusers.d would make it.
type account struct {
	name   string
	id     uint32
	groups []uint32
}

const (
	gidVmctl = 992
	gidAdmin = 993
)

// vmctld belongs to the groups that its sockets are given to, so that it needs
// no CAP_CHOWN.
func accounts(vmm uint32) (vmctld, vmhttp account) {
	return account{"vmctld", 990, []uint32{vmm, gidVmctl, gidAdmin, 991}},
		account{"vmhttp", 991, []uint32{gidVmctl}}
}

// Layout is a machine that is ready for both daemons.
type Layout struct {
	bin            string
	vmctld, vmhttp account
}

// LayOut makes users, folders, the shared key and the delegated cgroup. Programs
// come from bin, the guest's initramfs from guestDir.
func LayOut(bin, guestDir string) (*Layout, error) {
	vmctld, vmhttp, err := layOut(guestDir)
	return &Layout{bin, vmctld, vmhttp}, err
}

func layOut(guestDir string) (vmctld, vmhttp account, err error) {
	st, err := os.Stat("/dev/vmm")
	if err != nil {
		return vmctld, vmhttp, err
	}
	vmctld, vmhttp = accounts(st.Sys().(*syscall.Stat_t).Gid)
	groups := fmt.Sprintf("vmctl:x:%d:vmctld,vmhttp\nvmctl-admin:x:%d:vmctld\n", gidVmctl, gidAdmin)
	users := ""
	for _, a := range []account{vmctld, vmhttp} {
		users += fmt.Sprintf("%s:x:%d:%d::/nonexistent:/usr/sbin/nologin\n", a.name, a.id, a.id)
		groups += fmt.Sprintf("%s:x:%d:\n", a.name, a.id)
	}
	if err := errors.Join(setEntries("/etc/passwd", users), setEntries("/etc/group", groups)); err != nil {
		return vmctld, vmhttp, err
	}
	for _, d := range []struct {
		path  string
		owner account
		group uint32
		mode  os.FileMode
	}{
		{"/run/vmctl", vmctld, gidVmctl, 0o751},
		{"/var/lib/vmctl", vmctld, vmctld.id, 0o700},
		{"/var/lib/vmctl/boot", vmctld, vmctld.id, 0o755},
		{"/var/lib/vmctl/disks", vmctld, vmctld.id, 0o700},
		{"/var/lib/vmhttp", vmhttp, vmhttp.id, 0o700},
		{"/run/credentials", account{}, 0, 0o755},
		{"/run/credentials/vmctld", vmctld, vmctld.id, 0o700},
		{"/run/credentials/vmhttp", vmhttp, vmhttp.id, 0o700},
	} {
		if err := makeDir(d.path, d.owner.id, d.group, d.mode); err != nil {
			return vmctld, vmhttp, err
		}
	}
	if err := shareKey(vmctld, vmhttp); err != nil {
		return vmctld, vmhttp, err
	}
	return vmctld, vmhttp, errors.Join(copyBoot(guestDir), makeDisks(vmctld), makeBridge(vmctld), delegateCgroup(vmctld))
}

// setEntries puts lines into a database of users or groups, in place of those
// that have the same names.
func setEntries(path, lines string) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	taken := map[string]bool{}
	for line := range strings.Lines(lines) {
		name, _, _ := strings.Cut(line, ":")
		taken[name] = true
	}
	var b strings.Builder
	for line := range strings.Lines(string(old)) {
		if name, _, _ := strings.Cut(line, ":"); !taken[name] {
			b.WriteString(line)
		}
	}
	return os.WriteFile(path, []byte(b.String()+lines), 0o644)
}

func makeDir(path string, uid, gid uint32, mode os.FileMode) error {
	if err := os.MkdirAll(path, mode); err != nil {
		return err
	}
	return errors.Join(os.Chown(path, int(uid), int(gid)), os.Chmod(path, mode))
}

// shareKey hands both daemons one signing key, as LoadCredential does.
func shareKey(owners ...account) error {
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return err
	}
	for _, a := range owners {
		path := filepath.Join("/run/credentials", a.name, "front-key")
		if err := errors.Join(os.WriteFile(path, key, 0o400), os.Chown(path, int(a.id), int(a.id))); err != nil {
			return err
		}
	}
	return nil
}

// copyBoot puts the machine's own kernel, a stock one, and two initramfs, one of
// them with drivers of virtio, where specs may name them.
func copyBoot(guestDir string) error {
	for _, from := range []string{"/boot/vmlinuz", filepath.Join(guestDir, "initrd.img"), filepath.Join(guestDir, "virtio.img")} {
		b, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join("/var/lib/vmctl/boot", filepath.Base(from)), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// scratchSize is how large the disks are, in bytes.
const scratchSize = 64 << 20

// makeDisks makes empty disks that specs may name.
func makeDisks(owner account) error {
	var errs []error
	for _, name := range []string{"scratch.img", "spare.img"} {
		path := filepath.Join("/var/lib/vmctl/disks", name)
		errs = append(errs, os.WriteFile(path, nil, 0o600), os.Truncate(path, scratchSize), os.Chown(path, int(owner.id), int(owner.id)))
	}
	return errors.Join(errs...)
}

// The bridge that VMs may be on, and the machine's address there.
const (
	bridge  = "vmbr0"
	address = "192.168.77.1/24"
)

// makeBridge makes it, and opens taps and the kernel's vhost to vmctld, as the rules of
// udev do to all and to a group.
func makeBridge(owner account) error {
	for _, args := range [][]string{
		{"link", "add", bridge, "type", "bridge"}, {"addr", "add", address, "dev", bridge}, {"link", "set", bridge, "up"},
	} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, out)
		}
	}
	return errors.Join(os.Chmod("/dev/net/tun", 0o666), os.Chown("/dev/vhost-net", int(owner.id), int(owner.id)))
}

// cgroupRoot is the subtree that vmctld may arrange as it likes.
const cgroupRoot = "/sys/fs/cgroup/vmctl"

// delegateCgroup does what systemd's Delegate= and DelegateSubgroup= do.
func delegateCgroup(a account) error {
	for _, dir := range []string{cgroupRoot, cgroupRoot + "/daemon"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		for _, f := range []string{"", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"} {
			if err := os.Chown(filepath.Join(dir, f), int(a.id), int(a.id)); err != nil {
				return err
			}
		}
	}
	return nil
}
