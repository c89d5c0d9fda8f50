// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// A disk with a whole Debian, as a guest boots it by its firmware: GRUB, the kernel of
// Debian's cloud images, systemd, a login on both consoles, DHCP and SSH, and a
// cloud-init that takes itself out of the way where there is no seed. Root's password is
// guestDiskPassword.
const (
	guestDiskPassword = "vmctl"
	guestDiskSize     = 2 << 30
	guestDiskSpace    = 3 << 30
)

var guestDiskPackages = []string{
	"initramfs-tools", "zstd", "grub-pc-bin", "grub-common",
	"systemd-sysv", "dbus", "udev", "libpam-systemd", "login", "kmod", "iproute2", "iputils-ping", "openssh-server", "cloud-init",
	"fio", "iperf3", "stress-ng",
}

// guestDiskSetup runs in the finished tree. GRUB's image is made for the gap between the
// partition table and the one partition; its configuration is a file like any other.
// Where there is an hvc0 the serial port waits for a key before it asks for a name: both
// are shown on one console, and would write into each other's words. cloud-init is told
// of two sources: it takes a single one to be there, without a look. The file system is
// as large as it is to be.
const guestDiskSetup = `set -e
echo root:` + guestDiskPassword + ` | chpasswd
echo guest >/etc/hostname
echo "/dev/vda1 / ext4 errors=remount-ro 0 1" >/etc/fstab
mkdir -p /boot/grub
cat >/boot/grub/grub.cfg <<EOF
serial --unit=0 --speed=115200
terminal_input serial
terminal_output serial
echo Booting Debian
linux /vmlinuz root=/dev/vda1 ro console=ttyS0 quiet
initrd /initrd.img
boot
EOF
grub-mkimage -O i386-pc -o /boot/grub/core.img -p "(hd0,msdos1)/boot/grub" \
	biosdisk part_msdos ext2 serial terminal normal linux echo configfile
cat >/etc/systemd/network/80-all.network <<EOF
[Match]
Name=e*
[Network]
DHCP=ipv4
EOF
mkdir -p /etc/systemd/system/serial-getty@ttyS0.service.d
cat >/etc/systemd/system/serial-getty@ttyS0.service.d/wait.conf <<EOF
[Service]
ExecStart=
ExecStart=-/bin/sh -c "[ ! -e /dev/hvc0 ] || w=--wait-cr; exec /sbin/agetty \$\$w --keep-baud 115200 - vt220"
EOF
systemctl -q enable systemd-networkd serial-getty@ttyS0 serial-getty@hvc0
systemctl -q disable apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer
systemctl -q mask systemd-networkd-wait-online.service
cat >/etc/cloud/cloud.cfg.d/90_dpkg.cfg <<EOF
datasource_list: [NoCloud, ConfigDrive, None]
resize_rootfs: false
EOF
echo "PermitRootLogin yes" >/etc/ssh/sshd_config.d/lab.conf
rm -rf /var/cache/apt /var/lib/apt/lists /etc/machine-id
touch /etc/machine-id`

// guestDiskOptions are those of a Debian with a kernel of one of the lab's names, which
// comes from the last of the suites.
func guestDiskOptions(suites []string) []string {
	packages := append([]string{"linux-image-cloud-amd64/" + suites[len(suites)-1]}, guestDiskPackages...)
	return slices.Concat(smallDebian, []string{
		"--include=" + strings.Join(packages, ","),
		"--customize-hook=chroot \"$1\" sh -c '" + guestDiskSetup + "'",
		"--format=tar",
	})
}

// guestDisk puts the disk where --out says, as a copy without its holes.
func (l *lab) guestDisk(ctx context.Context, tree *toolTree, o *options) error {
	suites, ok := kernelSuites[o.kernel]
	if !ok {
		return fmt.Errorf("lab disk: --kernel %s: none of %s", o.kernel, strings.Join(kernelNames, ", "))
	}
	r := recipe{noun: "disk-" + o.kernel, lines: slices.Concat(suites, []string{fmt.Sprint(guestDiskSize)}, guestDiskOptions(suites)), space: guestDiskSpace}
	dir, err := l.cache.prepare(ctx, r, func(dir string) error { return l.makeGuestDisk(ctx, tree, dir, o.kernel, suites) })
	if err != nil {
		return err
	}
	out := o.out
	temp := out + ".new"
	if _, err := tool(ctx, "", "cp", "--sparse=always", "--reflink=auto", filepath.Join(dir, "disk"), temp); err != nil {
		return err
	}
	return os.Rename(temp, out)
}

func (l *lab) makeGuestDisk(ctx context.Context, tree *toolTree, dir, kernel string, suites []string) (err error) {
	if err := l.wantHostTools(ctx); err != nil {
		return err
	}
	mirror, err := debianMirror(aptFolder)
	if err != nil {
		return err
	}
	defer l.out.step("making a disk with the Debian of kernel %s, two minutes", kernel)(&err)
	args := guestDiskOptions(suites)
	for _, o := range hostAptOptions(ctx) {
		args = append(args, "--aptopt="+o)
	}
	mode := "--mode=root"
	if os.Getuid() != 0 {
		mode = "--mode=unshare"
	}
	archive := filepath.Join(dir, "tar")
	args = append(args, mode, suites[0], archive)
	for _, s := range suites {
		args = append(args, "deb "+mirror+" "+s+" main")
	}
	if err := l.debootstrap(exec.CommandContext(ctx, "mmdebstrap", args...)); err != nil {
		return err
	}
	disk := filepath.Join(dir, "disk")
	if err := writeGuestDisk(ctx, tree, archive, disk); err != nil {
		return err
	}
	return os.Remove(archive)
}

// The disk: a sector with GRUB's first stage and the partition table, GRUB in the
// sectors behind it, and from 1 MiB on a file system.
const (
	sectorSize     = 512
	partitionStart = 1 << 20
	bootCodeEnd    = 440 // where the signature and the table of a PC's boot sector begin
	partitionTable = 446
	linuxPartition = 0x83
	activeFlag     = 0x80
)

func writeGuestDisk(ctx context.Context, tree *toolTree, archive, disk string) (err error) {
	first, core, err := grubImages(archive)
	if err != nil {
		return err
	}
	f, err := os.Create(disk)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Truncate(guestDiskSize); err != nil {
		return err
	}
	mbr := make([]byte, sectorSize)
	copy(mbr[:bootCodeEnd], first)
	entry := mbr[partitionTable:]
	entry[0], entry[4] = activeFlag, linuxPartition
	binary.LittleEndian.PutUint32(entry[8:], partitionStart/sectorSize)
	binary.LittleEndian.PutUint32(entry[12:], (guestDiskSize-partitionStart)/sectorSize)
	mbr[sectorSize-2], mbr[sectorSize-1] = 0x55, 0xaa
	if _, err := f.WriteAt(append(mbr, core...), 0); err != nil {
		return err
	}
	_, err = tree.run(ctx, "usr/sbin/mke2fs", "mke2fs", "-q", "-t", "ext4", "-d", archive,
		"-E", fmt.Sprintf("offset=%d,lazy_itable_init=0,nodiscard", partitionStart), "-F", disk,
		fmt.Sprintf("%dk", (guestDiskSize-partitionStart)>>10))
	return err
}

// grubImages reads GRUB's two parts from the archive of the file system.
func grubImages(archive string) (first, core []byte, err error) {
	f, err := os.Open(archive)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	for r := tar.NewReader(f); first == nil || core == nil; {
		h, err := r.Next()
		if err != nil {
			return nil, nil, fmt.Errorf("GRUB in %s: %w", archive, err)
		}
		into := map[string]*[]byte{"./usr/lib/grub/i386-pc/boot.img": &first, "./boot/grub/core.img": &core}[h.Name]
		if into == nil {
			continue
		}
		if *into, err = io.ReadAll(r); err != nil {
			return nil, nil, err
		}
	}
	if len(first) < bootCodeEnd || sectorSize+len(core) > partitionStart {
		return nil, nil, fmt.Errorf("GRUB's parts have %d and %d bytes", len(first), len(core))
	}
	return first, core, nil
}
