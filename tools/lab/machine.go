// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// machine is the shape of the computer to emulate.
type machine struct {
	kernel   *kernel
	starter  *starter
	tree     *toolTree
	checkout string
	cpus     int
	memory   int // MiB
	icount   bool
	forwards []forward
}

// forward is a TCP port of the host's loopback that leads into the machine.
type forward struct{ host, guest uint16 }

// Descriptors that QEMU inherits: the initramfs, the kernel's log, and the
// port of the agent. No socket or file of theirs has a name, so nothing is left
// behind, however the lab ends.
const (
	initrdFD = 3 + iota
	logFD
	portFD
)

// accelerator is how QEMU runs the machine's code.
func (m *machine) accelerator() []string {
	switch {
	case m.icount:
		return []string{"-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off", "-cpu", "max,+svm,+npt"}
	case nestedKVM():
		return []string{"-accel", "kvm", "-cpu", "host"}
	}
	return []string{"-accel", "tcg,thread=multi", "-cpu", "max,+svm,+npt"}
}

// nestedKVM says whether the host's KVM can run a machine that runs KVM. Other
// modules than these two also offer a /dev/kvm; some cannot run a stock kernel.
func nestedKVM() bool {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	f.Close()
	for _, name := range []string{"kvm_intel", "kvm_amd"} {
		b, err := os.ReadFile("/sys/module/" + name + "/parameters/nested")
		if err == nil && strings.ContainsAny(string(b), "Yy1") {
			return true
		}
	}
	return false
}

// kernelLine is the kernel's command line. The log goes out at once, so that
// nothing is lost in a crash; a crash ends the machine. Watchdogs wait longer
// than by default, for a host that is busy with other things. The second line
// of words halves the time that booting takes under emulation.
func (m *machine) kernelLine() string {
	words := []string{
		"console=ttyS0,115200", "loglevel=7", "panic=-1", "random.trust_cpu=on",
		"mitigations=off", "tsc=reliable", "no_timer_check", "apparmor=0", "audit=0", "raid=noautodetect",
		"cryptomgr.notests", "8250.nr_uarts=1", "rcupdate.rcu_cpu_stall_timeout=60",
		"sysctl.kernel.hung_task_timeout_secs=60", "sysctl.kernel.watchdog_thresh=30",
		"rdinit=/init",
	}
	if m.kernel.dir != "" {
		words = append(words, "lab.kernel=1")
	}
	if m.checkout != "" {
		words = append(words, "lab.checkout="+m.checkout)
	}
	return strings.Join(words, " ")
}

// arguments are QEMU's.
func (m *machine) arguments() []string {
	lib := filepath.Join(m.tree.dir, "usr/share")
	args := []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-L", filepath.Join(lib, "qemu"), "-L", filepath.Join(lib, "seabios"),
		"-machine", "q35,smm=off,vmport=off,hpet=off", "-m", strconv.Itoa(m.memory), "-smp", strconv.Itoa(m.cpus),
	}
	args = append(args, m.accelerator()...)
	args = append(args,
		"-kernel", m.starter.image, "-initrd", fmt.Sprintf("/proc/self/fd/%d", initrdFD), "-append", m.kernelLine(),
		"-chardev", fmt.Sprintf("socket,id=log,fd=%d", logFD), "-serial", "chardev:log",
		"-chardev", fmt.Sprintf("socket,id=port,fd=%d", portFD),
		"-device", "virtio-serial-pci", "-device", "virtserialport,chardev=port,name=lab",
		"-netdev", m.netdev(), "-device", "virtio-net-pci,netdev=net,romfile=",
	)
	args = append(args, share("tree", m.tree.dir, true)...)
	if m.kernel.dir != "" {
		args = append(args, share("kernel", m.kernel.dir, true)...)
	}
	if m.checkout != "" {
		args = append(args, share("checkout", m.checkout, true)...)
		args = append(args, share("build", filepath.Join(m.checkout, "build"), false)...)
	}
	return args
}

// netdev is a closed network: nothing gets out, and in only through forwards.
func (m *machine) netdev() string {
	s := "user,id=net,restrict=on"
	for _, f := range m.forwards {
		s += fmt.Sprintf(",hostfwd=tcp:127.0.0.1:%d-10.0.2.15:%d", f.host, f.guest)
	}
	return s
}

func share(tag, dir string, readonly bool) []string {
	s := fmt.Sprintf("local,id=%s,path=%s,security_model=none,multidevs=remap", tag, dir)
	if readonly {
		s += ",readonly=on"
	}
	return []string{"-fsdev", s, "-device", fmt.Sprintf("virtio-9p-pci,fsdev=%s,mount_tag=%s", tag, tag)}
}
