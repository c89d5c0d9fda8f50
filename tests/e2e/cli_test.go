// SPDX-License-Identifier: Apache-2.0

//go:build lab

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// cli is vmctl with a configuration folder of its own.
type cli struct {
	t    *testing.T
	home string
}

func (c cli) run(stdin string, args ...string) (string, int) {
	c.t.Helper()
	cmd := exec.Command(filepath.Join(root, "build/bin/vmctl"), append([]string{"--server", theChain.get("VMCTL_URL")}, args...)...)
	cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+c.home, "HOME="+c.home)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		c.t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// ok fails the test unless the command succeeds.
func (c cli) ok(args ...string) string {
	c.t.Helper()
	out, status := c.run("", args...)
	if status != 0 {
		c.t.Fatalf("vmctl %s: status %d\n%s", strings.Join(args, " "), status, out)
	}
	return out
}

// refused fails the test unless the command ends with a status and names a code.
func (c cli) refused(status int, code string, args ...string) {
	c.t.Helper()
	out, got := c.run("", args...)
	if got != status || !strings.Contains(out, code) {
		c.t.Errorf("vmctl %s: status %d, want %d and %s\n%s", strings.Join(args, " "), got, status, code, out)
	}
}

// talk types into the console of a VM, and fails the test unless the answer comes.
func (c cli) talk(vm string) func(typed, answer string) {
	return func(typed, answer string) {
		c.t.Helper()
		if out, status := c.run(typed, "console", vm, "--wait-for", answer, "--timeout", "120s"); status != 0 {
			c.t.Fatalf("%q: status %d\n%s", typed, status, out)
		}
	}
}

func login(t *testing.T) cli {
	t.Helper()
	c := cli{t, t.TempDir()}
	out, status := c.run(theChain.get("VMCTL_PASSWORD")+"\n", "login", "--user", theChain.get("VMCTL_USER"),
		"--fingerprint", theChain.get("VMCTL_FINGERPRINT"))
	if status != 0 {
		t.Fatalf("login: status %d\n%s", status, out)
	}
	return c
}

// state is what vm show says of a VM.
func (c cli) state(name string) (state, reason string) {
	c.t.Helper()
	var vm struct {
		Status struct {
			State    string
			LastStop *struct{ Reason string }
		}
	}
	out := c.ok("-o", "json", "vm", "show", name)
	if err := json.Unmarshal([]byte(out), &vm); err != nil {
		c.t.Fatalf("%v: %s", err, out)
	}
	if vm.Status.LastStop != nil {
		reason = vm.Status.LastStop.Reason
	}
	return vm.Status.State, reason
}

// powerOffLine is a row of the table of tasks; its columns are as wide as what
// stands in them.
var powerOffLine = regexp.MustCompile(`(?m)^\S+ +powerOff +cli +succeeded +\d+[smh]$`)

func TestCommandLine(t *testing.T) {
	c := login(t)
	c.ok("vm", "create", "cli", "--kernel", "vmlinuz", "--initrd", "initrd.img", "--cmdline", "console=ttyS0", "--memory", "256M", "--vcpus", "2")
	c.refused(4, "exists", "vm", "create", "cli", "--kernel", "vmlinuz")
	c.ok("vm", "on", "cli")
	c.refused(4, "stateConflict", "vm", "on", "cli")
	c.refused(4, "stateConflict", "vm", "delete", "cli")

	// What is typed before there is a shell is lost, as at any console.
	if out, status := c.run("", "console", "cli", "--read-only", "--wait-for", "guest# ", "--timeout", "120s"); status != 0 {
		t.Fatalf("no shell: status %d\n%s", status, out)
	}
	out, status := c.run("nproc; echo $((6*7))\n", "console", "cli", "--wait-for", `(?m)^2\r?\n42\r?$`, "--timeout", "60s")
	if status != 0 {
		t.Fatalf("console: status %d\n%s", status, out)
	}
	c.ok("vm", "pause", "cli")
	if state, _ := c.state("cli"); state != "paused" {
		t.Errorf("after pause: %s", state)
	}
	c.refused(4, "stateConflict", "vm", "reset", "cli")
	c.ok("vm", "resume", "cli")
	if out, status := c.run("echo $((40+3))\n", "console", "cli", "--wait-for", `(?m)^43\r?$`, "--timeout", "60s"); status != 0 {
		t.Fatalf("console after resume: status %d\n%s", status, out)
	}
	// Saved, the guest is there again with what was in its memory.
	if out, status := c.run("echo kept >/tmp/it; sync; echo $((40+4))\n", "console", "cli", "--wait-for", `(?m)^44\r?$`, "--timeout", "60s"); status != 0 {
		t.Fatalf("console before the save: status %d\n%s", status, out)
	}
	c.ok("vm", "save", "cli")
	if out := c.ok("vm", "show", "cli"); !strings.Contains(out, "vm on goes on from there") {
		t.Errorf("after save:\n%s", out)
	}
	c.ok("vm", "on", "cli")
	if out, status := c.run("cat /tmp/it; echo $((40+5))\n", "console", "cli", "--wait-for", `(?m)^kept\r?\n45\r?$`, "--timeout", "60s"); status != 0 {
		t.Fatalf("console after the save: status %d\n%s", status, out)
	}
	c.ok("vm", "off", "cli")
	if state, reason := c.state("cli"); state != "off" || reason != "operator" {
		t.Errorf("after off: %s, %s", state, reason)
	}
	if out := c.ok("events"); !strings.Contains(out, "vm.stopped") {
		t.Errorf("no stop among the events:\n%s", out)
	}
	if out := c.ok("tasks", "list"); !powerOffLine.MatchString(out) {
		t.Errorf("no power-off among the tasks:\n%s", out)
	}
	c.ok("vm", "delete", "cli")
	c.refused(3, "notFound", "vm", "show", "cli")
	c.ok("logout")
	if out, status := c.run("", "vm", "list"); status == 0 {
		t.Errorf("a list after logout: %s", out)
	}
}

// TestDevices: what a guest writes to its disk is there at its next power-on, and is
// nobody else's meanwhile; its network card is on the bridge; its seed is one more disk.
func TestDevices(t *testing.T) {
	c := login(t)
	user := filepath.Join(t.TempDir(), "user-data")
	if err := os.WriteFile(user, []byte("#cloud-config of e2e\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	create := func(name string) {
		c.ok("vm", "create", name, "--kernel", "vmlinuz", "--initrd", "virtio.img", "--cmdline", "console=hvc0 quiet", "--memory", "256M",
			"--disk", "scratch.img,serial=e2e", "--nic", "vmbr0", "--console", "virtio", "--user-data", user)
	}
	say := c.talk("disk")
	create("disk")
	create("late")
	c.ok("vm", "on", "disk")
	c.refused(1, "diskInUse", "vm", "on", "late")
	say("", "guest# ")
	say("cat /sys/block/vda/serial; echo; echo of the $((6*7)) | dd of=/dev/vda conv=sync,fsync 2>/dev/null; echo is $((40+2))\n", `(?m)^e2e\r?\nis 42\r?$`)
	say("cat /sys/block/vdb/serial; echo; cat /sys/block/vdb/ro; grep -ac '#cloud-config of e2e' /dev/vdb; dd if=/dev/vdb bs=1 skip=32808 count=6 2>/dev/null; echo\n", `(?m)^seed\r?\n1\r?\n1\r?\ncidata\r?$`)
	say("ip link set eth0 up; ip addr add 192.168.77.2/24 dev eth0; ping -c 3 -W 20 192.168.77.1 | grep -c 'bytes from'\n", `(?m)^3\r?$`)
	// The guest's own driver sees what is changed under it.
	c.refused(4, "stateConflict", "vm", "set", "disk", "--vcpus", "2")
	c.ok("vm", "set", "disk", "--link", "0=down", "--disk-limit", "0,bytes=1M,burst=1ms")
	say("until [ $(cat /sys/class/net/eth0/carrier) = 0 ]; do sleep 0.1; done; echo down $((40+3))\n", `(?m)^down 43\r?$`)
	say("s=$(cut -d. -f1 /proc/uptime); dd if=/dev/vda of=/dev/null bs=64k count=64 iflag=direct 2>/dev/null; [ $(($(cut -d. -f1 /proc/uptime)-s)) -ge 3 ] && echo slow $((40+4))\n", `(?m)^slow 44\r?$`)
	c.ok("vm", "set", "disk", "--link", "0=up", "--disk-limit", "0")
	say("until [ $(cat /sys/class/net/eth0/carrier) = 1 ]; do sleep 0.1; done; ping -c 3 -W 20 192.168.77.1 | grep -c 'bytes from'; echo up $((40+5))\n", `(?m)^3\r?\nup 45\r?$`)
	c.ok("vm", "off", "disk")
	c.ok("vm", "set", "disk", "--vcpus", "2", "--name", "two")
	c.ok("vm", "set", "two", "--name", "disk")
	c.ok("vm", "on", "disk")
	say("", `(?s)(init reached.*guest# .*){2}`) // the console shows the first time, too
	say("head -n 1 /dev/vda; nproc\n", `(?m)^of the 42\r?\n2\r?$`)
	c.ok("vm", "off", "disk")
	if out := c.ok("vm", "seed", "disk"); !strings.Contains(out, "#cloud-config of e2e") {
		t.Errorf("its seed is:\n%s", out)
	}
	c.ok("vm", "delete", "disk")
	c.ok("vm", "delete", "late")
}

// TestSnapshots: a guest goes on with its work while its disk is snapshotted and merged,
// and has all of it at its next power-on.
func TestSnapshots(t *testing.T) {
	c := login(t)
	c.ok("vm", "create", "snap", "--kernel", "vmlinuz", "--initrd", "virtio.img", "--cmdline", "console=hvc0 quiet", "--memory", "256M",
		"--disk", "scratch.img", "--console", "virtio")
	say := c.talk("snap")
	steps := 0
	goesOn := func() {
		t.Helper()
		steps++
		say(fmt.Sprintf("a=$(wc -l </tmp/good); sleep 3; [ $(wc -l </tmp/good) -gt $a ] && [ ! -s /tmp/bad ] && echo on$((%d+1))\n", steps-1), fmt.Sprintf(`(?m)^on%d\r?$`, steps))
	}
	c.ok("vm", "on", "snap")
	say("", "guest# ")
	c.refused(1, "mergeInvalid", "vm", "merge", "snap")
	say("echo of the $((6*7)) | dd of=/dev/vda bs=512 seek=1500 conv=sync,fsync 2>/dev/null; dd if=/dev/urandom of=/tmp/p bs=4k count=16 2>/dev/null; m=$(md5sum </tmp/p); >/tmp/good; >/tmp/bad; echo is $((40+2))\n", `(?m)^is 42\r?$`)
	say("(while ! [ -e /tmp/stop ]; do for i in 0 1 2 3 4; do dd if=/tmp/p of=/dev/vda bs=64k seek=$i oflag=direct 2>/dev/null; [ \"$(dd if=/dev/vda bs=64k skip=$i count=1 iflag=direct 2>/dev/null | md5sum)\" = \"$m\" ] || echo $i >>/tmp/bad; done; echo >>/tmp/good; done &) ; echo is $((40+3))\n", `(?m)^is 43\r?$`)
	goesOn()
	c.ok("vm", "snapshot", "snap")
	goesOn()
	c.ok("vm", "snapshot", "snap", "0")
	goesOn()
	if out := c.ok("vm", "show", "snap"); !strings.Contains(out, "scratch.img (snapshots: 2)") {
		t.Errorf("after two snapshots:\n%s", out)
	}
	c.ok("vm", "merge", "snap")
	goesOn()
	c.refused(1, "mergeInvalid", "vm", "merge", "snap")
	c.refused(3, "notFound", "vm", "snapshot", "snap", "1")
	say("touch /tmp/stop; sleep 2; sync; echo is $((40+4))\n", `(?m)^is 44\r?$`)
	c.ok("vm", "off", "snap")
	c.refused(4, "stateConflict", "vm", "merge", "snap")
	c.ok("vm", "snapshot", "snap")
	c.ok("vm", "on", "snap")
	say("", `(?s)(init reached.*guest# .*){2}`) // the console shows the first time, too
	say("dd if=/dev/vda bs=512 skip=1500 count=1 2>/dev/null | head -n 1\n", `(?m)^of the 42\r?$`)
	c.ok("vm", "merge", "snap")
	say("dd if=/dev/vda bs=512 skip=1500 count=1 2>/dev/null | head -n 1; echo is $((40+5))\n", `(?m)^of the 42\r?\nis 45\r?$`)
	c.ok("vm", "off", "snap")
	c.ok("vm", "delete", "snap")
}

// TestHotPlug: a guest finds disks and network cards that come while it runs, and lets go
// of those that are to go; those behind them are what they were, though their places are
// others.
func TestHotPlug(t *testing.T) {
	c := login(t)
	c.ok("vm", "create", "plug", "--kernel", "vmlinuz", "--initrd", "virtio.img", "--cmdline", "console=hvc0 quiet", "--memory", "256M",
		"--disk", "scratch.img,serial=first", "--console", "virtio")
	say := c.talk("plug")
	steps := 100
	until := func(command string) {
		t.Helper()
		steps++
		say(fmt.Sprintf("i=0; until %s || [ $i = 200 ]; do i=$((i+1)); sleep 0.1; done; %s && echo yes$((%d+1))\n", command, command, steps-1), fmt.Sprintf(`(?m)^yes%d\r?$`, steps))
	}
	c.ok("vm", "on", "plug")
	say("", "guest# ")
	c.ok("vm", "attach-disk", "plug", "spare.img,serial=second")
	c.refused(1, "diskInvalid", "vm", "attach-disk", "plug", "spare.img")
	until("[ -b /dev/vdb ]")
	say("cat /sys/block/vdb/serial; echo; echo of the $((6*7)) | dd of=/dev/vdb conv=sync,fsync 2>/dev/null; echo is $((40+2))\n", `(?m)^second\r?\nis 42\r?$`)
	c.ok("vm", "attach-nic", "plug", "vmbr0,mac=52:54:00:00:77:02")
	until("[ -e /sys/class/net/eth0 ]")
	say("ip link set eth0 up; ip addr add 192.168.77.3/24 dev eth0; ping -c 3 -W 20 192.168.77.1 | grep -c 'bytes from'\n", `(?m)^3\r?$`)

	// What came is there, and in its place, when the guest goes on from a save.
	c.ok("vm", "save", "plug")
	c.ok("vm", "on", "plug")
	say("head -n 1 /dev/vdb; echo is $((40+6))\n", `(?m)^of the 42\r?\nis 46\r?$`)
	until("ping -c 1 -W 5 192.168.77.1 >/dev/null")
	c.ok("vm", "detach-disk", "plug", "scratch.img")
	until("[ ! -b /dev/vda ]")
	c.refused(3, "notFound", "vm", "detach-disk", "plug", "scratch.img")
	// What is left is the first of the spec now, and the guest's second still.
	c.ok("vm", "snapshot", "plug", "0")
	say("head -n 1 /dev/vdb; echo is $((40+3))\n", `(?m)^of the 42\r?\nis 43\r?$`)
	c.ok("vm", "set", "plug", "--disk-limit", "0,bytes=1M,burst=1ms", "--link", "0=down")
	until("[ $(cat /sys/class/net/eth0/carrier) = 0 ]")
	c.ok("vm", "set", "plug", "--disk-limit", "0")
	c.refused(1, "diskInvalid", "vm", "detach-disk", "plug", "spare.img")
	c.ok("vm", "detach-nic", "plug", "52:54:00:00:77:02")
	until("[ ! -e /sys/class/net/eth0 ]")
	c.ok("vm", "attach-disk", "plug", "scratch.img,serial=first")
	until("[ -b /dev/vda ]")
	say("cat /sys/block/vda/serial; echo; sync; echo is $((40+4))\n", `(?m)^first\r?\nis 44\r?$`)
	c.ok("vm", "off", "plug")
	c.ok("vm", "detach-disk", "plug", "scratch.img")
	c.ok("vm", "on", "plug")
	say("", `(?s)(init reached.*guest# .*){2}`) // the console shows the first time, too
	say("cat /sys/block/vda/serial; echo; head -n 1 /dev/vda; ls /sys/block | grep -c vd; echo is $((40+5))\n", `(?m)^second\r?\nof the 42\r?\n1\r?\nis 45\r?$`)
	c.ok("vm", "off", "plug")
	c.ok("vm", "delete", "plug")
}

// TestBalloon: a guest gives memory back while it runs, and after its next power-on, and
// has it again when it may.
func TestBalloon(t *testing.T) {
	c := login(t)
	c.ok("vm", "create", "air", "--kernel", "vmlinuz", "--initrd", "virtio.img", "--cmdline", "console=hvc0 quiet", "--memory", "256M", "--console", "virtio")
	c.refused(4, "stateConflict", "vm", "balloon", "air")
	c.refused(1, "memoryInvalid", "vm", "balloon", "air", "250M")
	var b struct {
		TargetBytes, ActualBytes int64
		Memory                   struct{ TotalBytes, FreeBytes int64 }
	}
	given := func(bytes int64) {
		t.Helper()
		for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
			out := c.ok("-o", "json", "vm", "balloon", "air")
			if err := json.Unmarshal([]byte(out), &b); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if b.ActualBytes == bytes && b.TargetBytes == bytes && b.Memory.TotalBytes > 0 {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("never %d bytes: %s", bytes, out)
			}
		}
	}
	c.ok("vm", "on", "air")
	given(0)
	c.ok("vm", "balloon", "air", "64M")
	given(64 << 20)
	if b.Memory.FreeBytes > 192<<20 {
		t.Errorf("with 64 of 256 MiB given: %+v", b)
	}
	c.ok("vm", "save", "air")
	c.ok("vm", "balloon", "air", "32M")
	c.ok("vm", "on", "air")
	given(32 << 20)
	c.ok("vm", "off", "air")
	c.ok("vm", "on", "air")
	given(32 << 20)
	c.ok("vm", "balloon", "air", "0")
	given(0)
	c.ok("vm", "off", "air")
	c.ok("vm", "delete", "air")
}

// TestBadSpecs are inputs that must be refused before anything is made.
func TestBadSpecs(t *testing.T) {
	c := login(t)
	for _, tt := range []struct {
		code string
		args []string
	}{
		{"nameInvalid", []string{"Odd_Name", "--kernel", "vmlinuz"}},
		{"nameInvalid", []string{"a:powerOn", "--kernel", "vmlinuz"}},
		{"bootFileMissing", []string{"bad", "--kernel", "nothing-there"}},
		{"bootFileInvalid", []string{"bad", "--kernel", "../../../etc/passwd"}},
		{"bootFileInvalid", []string{"bad", "--kernel", "initrd.img"}}, // no kernel
		{"diskMissing", []string{"bad", "--kernel", "vmlinuz", "--disk", "nothing-there"}},
		{"diskInvalid", []string{"bad", "--kernel", "vmlinuz", "--disk", "../vmctl.db"}},
		{"networkInvalid", []string{"bad", "--kernel", "vmlinuz", "--nic", "lo"}},
		{"memoryInvalid", []string{"bad", "--kernel", "vmlinuz", "--memory", "1M"}},
		{"vcpusInvalid", []string{"bad", "--kernel", "vmlinuz", "--vcpus", "100000"}},
		{"cmdlineTooLong", []string{"bad", "--kernel", "vmlinuz", "--cmdline", strings.Repeat("x", 3000)}},
	} {
		out, status := c.run("", append([]string{"vm", "create"}, tt.args...)...)
		if status == 0 {
			// What the daemon cannot know before it opens the file, power-on says.
			out, status = c.run("", "vm", "on", tt.args[0])
			c.ok("vm", "delete", tt.args[0])
		}
		if status == 0 || !strings.Contains(out, tt.code) {
			t.Errorf("%v: status %d, want code %s\n%s", tt.args[:3], status, tt.code, out)
		}
	}
}
