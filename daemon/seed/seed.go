// SPDX-License-Identifier: Apache-2.0

// Package seed makes the disk from which a guest's cloud-init takes what it is to be at
// its first boot: host name, users, keys, addresses. It is a file system of the form
// NoCloud (https://docs.cloud-init.io, "NoCloud") with the label cidata.
//
// What the texts say is between their author and the guest: nothing here reads them.
package seed

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// label is how a guest finds the disk.
const label = "cidata"

// Texts are what a guest reads. Of networkConfig there is a file only if it says
// something: without one a guest asks DHCP.
type Texts struct {
	UserData, MetaData, NetworkConfig string
}

// DefaultMetaData is what cloud-init must be told of a VM, whose name is a host's: a
// guest that finds another instance-id than before takes its first boot for a new one.
func DefaultMetaData(id, name string) string {
	// Without quotes YAML takes a name such as 123 for a number, and no for a false.
	return fmt.Sprintf("instance-id: %q\nlocal-hostname: %q\n", id, name)
}

// Write writes the disk of the texts: the same bytes for the same texts, whole sectors
// of 2048 bytes. errors.Is: those of w.
func Write(w io.Writer, t Texts) error {
	// In the order that ISO 9660 asks for, which is one for all three kinds of names.
	// cloud-init takes no disk without the first and the last for a seed.
	files := []file{{"METADATA.;1", "meta-data", t.MetaData}}
	if t.NetworkConfig != "" {
		files = append(files, file{"NETWORK.;1", "network-config", t.NetworkConfig})
	}
	files = append(files, file{"USERDATA.;1", "user-data", t.UserData})
	_, err := io.Copy(w, strings.NewReader(string(image(files))))
	return err
}

// Open returns the disk of the texts as a file that is open for reading, has no name,
// and that nobody can change any more, not even who may write to it. Its memory is given
// back when the last who has it open ends.
func Open(t Texts) (*os.File, error) {
	fd, err := unix.MemfdCreate(label, unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate(label, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), label)
	defer f.Close()
	if err := Write(f, t); err != nil {
		return nil, err
	}
	const seals = unix.F_SEAL_WRITE | unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	// The kernel takes who has a disk open for writing for its one writer.
	return os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
}
