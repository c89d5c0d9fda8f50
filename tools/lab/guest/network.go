// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// The address that QEMU's user network forwards to, and its network's size.
var (
	guestAddress = []byte{10, 0, 2, 15}
	guestMask    = []byte{255, 255, 255, 0}
)

// configureNetwork gives the loopback and the virtio card their addresses.
// There is no route: the network is closed but for forwarded ports.
func configureNetwork() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := setUp(fd, "lo"); err != nil {
		return err
	}
	card, err := firstCard()
	if card == "" || err != nil {
		return err
	}
	if err := setAddress(fd, card, unix.SIOCSIFADDR, guestAddress); err != nil {
		return err
	}
	if err := setAddress(fd, card, unix.SIOCSIFNETMASK, guestMask); err != nil {
		return err
	}
	return setUp(fd, card)
}

// firstCard is the one interface with a device behind it.
func firstCard() (string, error) {
	entries, err := os.ReadDir("/sys/class/net")
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		if _, err := os.Stat("/sys/class/net/" + e.Name() + "/device"); err == nil {
			return e.Name(), nil
		}
	}
	return "", nil
}

func setAddress(fd int, name string, request uint, addr []byte) error {
	r, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if err := r.SetInet4Addr(addr); err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, request, r); err != nil {
		return fmt.Errorf("address of %s: %w", name, err)
	}
	return nil
}

func setUp(fd int, name string) error {
	r, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r); err != nil {
		return fmt.Errorf("bring up %s: %w", name, err)
	}
	return nil
}
