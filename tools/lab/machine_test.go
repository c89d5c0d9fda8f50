// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// These tests boot real machines. They take minutes and make the lab's trees
// if need be, so they run where they are asked for: tests/run lab.
const machineTestsVariable = "VMCTL_LAB"

// built is the lab's program and the checkout that it works in.
type built struct{ program, checkout string }

func buildLab(t *testing.T) built {
	t.Helper()
	if os.Getenv(machineTestsVariable) == "" {
		t.Skip("boots machines: set " + machineTestsVariable + "=1")
	}
	b := built{program: filepath.Join(t.TempDir(), "lab"), checkout: findCheckout()}
	b.compile(t, b.program, "./tools/lab")
	return b
}

func (b built) compile(t *testing.T, out, pkg string) {
	t.Helper()
	cmd := exec.Command("go", "build", "-o", out, pkg)
	cmd.Dir = b.checkout
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
}

func (b built) command(args ...string) *exec.Cmd {
	cmd := exec.Command(b.program, args...)
	cmd.Dir = b.checkout
	return cmd
}

// run runs the lab to its end.
func (b built) run(t *testing.T, stdin []byte, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := b.command(args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// small are the options of a machine that is soon there.
var small = []string{"--no-module", "--cpus", "1"}

// exec runs a command in a small machine, to its end.
func (b built) exec(t *testing.T, stdin []byte, command ...string) (code int, stdout, stderr string) {
	t.Helper()
	return b.run(t, stdin, slices.Concat([]string{"exec"}, small, []string{"--"}, command)...)
}

// module is the option that loads a module of testdata.
func (b built) module(name string) string {
	return "--module=" + filepath.Join(b.checkout, "tools/lab/testdata", name)
}

func TestStreamsAndStatus(t *testing.T) {
	b := buildLab(t)
	data := make([]byte, 300<<10)
	rand.New(rand.NewSource(7)).Read(data)
	code, out, errs := b.exec(t, data, "sh", "-c", "tee /dev/stderr; exit 3")
	if code != 3 {
		t.Errorf("status %d, want 3", code)
	}
	if out != string(data) {
		t.Errorf("stdout differs: %d bytes, want %d", len(out), len(data))
	}
	if errs != string(data) {
		t.Errorf("stderr differs: %d bytes, want %d", len(errs), len(data))
	}
}

func TestStatusOfASignalAndOfNothing(t *testing.T) {
	b := buildLab(t)
	if code, _, errs := b.exec(t, nil, "sh", "-c", "kill -TERM $$"); code != 143 {
		t.Errorf("status %d, want 143: %s", code, errs)
	}
	if code, _, errs := b.exec(t, nil, "no-such-program"); code != 127 {
		t.Errorf("status %d, want 127: %s", code, errs)
	}
}

// TestKernels boots each kernel with a module that does nothing wrong, two
// machines at a time.
func TestKernels(t *testing.T) {
	b := buildLab(t)
	for _, name := range kernelNames {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			code, out, errs := b.run(t, nil, "exec", "--kernel", name, b.module("clean"), "--", "sh", "-c",
				"uname -r; stat -c '%G %a' /dev/vmm; id -u; pwd; touch go.mod 2>&1; touch build/touched-$$-"+name+" && rm build/touched-*-"+name+"; ls /boot/vmlinuz; ls -d /sys/module/kvm_amd /sys/module/kvm_intel 2>/dev/null; readlink /proc/1/fd/* | grep -c kvm-vm$")
			lines := strings.Split(strings.TrimSpace(out), "\n")
			if code != 0 || len(lines) != 8 {
				t.Fatalf("status %d, %q: %s", code, out, errs)
			}
			if name != "new" && !strings.HasPrefix(lines[0], name+".") {
				t.Errorf("kernel %s for %s", lines[0], name)
			}
			want := []string{"vmm 660", "0", b.checkout, "touch: cannot touch 'go.mod': Read-only file system", "/boot/vmlinuz"}
			for i, w := range want {
				if lines[i+1] != w {
					t.Errorf("line %d: %q, want %q", i+1, lines[i+1], w)
				}
			}
			if lines[7] != "2" { // see guest.dropAnchor
				t.Errorf("the agent holds %s plain VMs", lines[7])
			}
			t.Logf("%s in %v", lines[0], time.Since(start).Round(100*time.Millisecond))
		})
	}
}

func TestVerdict(t *testing.T) {
	b := buildLab(t)
	for name, want := range map[string][]string{
		"warn": {"complained: WARNING", "lab test: opened", "kmod/warn.c", "warn_open"},
		"leak": {"module vmm cannot be unloaded", "reference count 1"},
		"oops": {"complained: BUG", "NULL pointer", "oops_open"},
	} {
		t.Run(name, func(t *testing.T) {
			log := filepath.Join(t.TempDir(), "log")
			code, _, errs := b.run(t, nil, "exec", "--dmesg", log, b.module(name), "--", "sh", "-c", ": < /dev/vmm; exit 0")
			if code != exitKernel {
				t.Errorf("status %d, want %d", code, exitKernel)
			}
			for _, w := range want {
				if !strings.Contains(errs, w) {
					t.Errorf("no %q in: %s", w, errs)
				}
			}
			if text, err := os.ReadFile(log); err != nil || !bytes.Contains(text, []byte("Linux version")) {
				t.Errorf("kernel log: %d bytes, %v", len(text), err)
			}
		})
	}
}

func TestPanicEndsTheMachine(t *testing.T) {
	b := buildLab(t)
	code, _, errs := b.exec(t, nil, "sh", "-c", "echo c > /proc/sysrq-trigger; sleep 60")
	if code != exitKernel || !strings.Contains(errs, "sysrq") {
		t.Errorf("status %d: %s", code, errs)
	}
}

func TestTimeout(t *testing.T) {
	b := buildLab(t)
	code, out, errs := b.run(t, nil, "exec", "--no-module", "--cpus", "1", "--timeout", "2s", "--", "sh", "-c", "echo begun; sleep 600")
	if code != exitTimeout || out != "begun\n" || !strings.Contains(errs, "--timeout") {
		t.Errorf("status %d, %q: %s", code, out, errs)
	}
}

func TestInstructionsAreCountedExactly(t *testing.T) {
	b := buildLab(t)
	program := filepath.Join(b.checkout, "build", fmt.Sprintf("count-%d", os.Getpid()))
	b.compile(t, program, "./tools/lab/testdata/count")
	defer os.Remove(program)
	var first string
	for i := range 2 {
		code, out, errs := b.run(t, nil, "exec", "--icount", "--no-module", "--", program)
		if code != 0 {
			t.Fatalf("status %d: %s", code, errs)
		}
		if i == 0 {
			first = out
		} else if out != first {
			t.Errorf("%q, then %q", first, out)
		}
	}
	t.Logf("1000 system calls: %s ns", strings.TrimSpace(first))
}

// freePort returns a port that was free a moment ago.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// service starts a machine that answers on a forwarded port, and waits until
// it does.
func (b built) service(t *testing.T) (lab *exec.Cmd, port int) {
	t.Helper()
	port = freePort(t)
	lab = b.command("exec", "--no-module", "--cpus", "1", "--timeout", "0", "--forward", fmt.Sprintf("%d:80", port), "--",
		"sh", "-c", "echo up; exec busybox nc -ll -p 80 -e echo hello")
	out, err := lab.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := lab.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lab.Process.Kill() })
	if n, err := io.ReadFull(out, make([]byte, 3)); err != nil {
		t.Fatalf("%d bytes of the machine's word that it is up: %v", n, err)
	}
	for end := time.Now().Add(20 * time.Second); ; {
		if greeting(port) == "hello\n" {
			return lab, port
		}
		if time.Now().After(end) {
			t.Fatal("no answer on the forwarded port")
		}
	}
}

func greeting(port int) string {
	c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), time.Second)
	if err != nil {
		return ""
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(2 * time.Second))
	b, _ := io.ReadAll(c)
	return string(b)
}

func TestNothingIsLeftBehind(t *testing.T) {
	b := buildLab(t)
	for name, sig := range map[string]syscall.Signal{"interrupted": unix.SIGINT, "killed": unix.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			lab, port := b.service(t)
			if pid := qemuOf(port); pid == "" {
				t.Fatal("the machine's QEMU is not to be found")
			}
			lab.Process.Signal(sig)
			lab.Wait()
			if sig == unix.SIGINT && lab.ProcessState.ExitCode() != 130 {
				t.Errorf("status %d, want 130", lab.ProcessState.ExitCode())
			}
			for end := time.Now().Add(5 * time.Second); qemuOf(port) != ""; time.Sleep(10 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("QEMU %s still runs", qemuOf(port))
				}
			}
			mounts, err := os.ReadFile("/proc/self/mounts")
			if err != nil || bytes.Contains(mounts, []byte("vmctl-lab")) {
				t.Errorf("mounts are left, or cannot be read: %v", err)
			}
		})
	}
}

// qemuOf finds the process that forwards the port.
func qemuOf(port int) string {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		b, _ := os.ReadFile(f)
		if bytes.Contains(b, fmt.Appendf(nil, "hostfwd=tcp:127.0.0.1:%d-", port)) {
			return filepath.Base(filepath.Dir(f))
		}
	}
	return ""
}

func TestShellHasATerminal(t *testing.T) {
	b := buildLab(t)
	master, slave := openPair(t)
	cmd := b.command(append([]string{"shell"}, small...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	slave.Close()
	defer cmd.Process.Kill()
	screen := make(chan string)
	go func() {
		var all bytes.Buffer
		io.Copy(&all, master) // ends when the lab lets go of the terminal
		screen <- all.String()
	}()
	fmt.Fprint(master, "stty size; tty; echo $((6*7))\nexit 5\n")
	text := <-screen
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 5 {
		t.Errorf("status %d, want 5", code)
	}
	for _, want := range []string{"33 77", "/dev/pts/", "42"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q on the terminal: %q", want, text)
		}
	}
}

func openPair(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(int(slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 77}); err != nil {
		t.Fatal(err)
	}
	return master, slave
}

func TestTreeOnTheHost(t *testing.T) {
	b := buildLab(t)
	code, out, errs := b.run(t, []byte("in"), "tree", "--", "sh", "-c",
		"cat; . /etc/os-release; echo :$VERSION_CODENAME; ls /usr/lib/modules | wc -l; pwd; touch /usr/lib/x; exit 4")
	want := fmt.Sprintf("in:%s\n%d\n%s\n", treeSuite, len(kernelNames), b.checkout)
	if code != 4 || !strings.HasPrefix(out, want[:len(want)-1]) && out != want {
		t.Errorf("status %d, %q, want %q: %s", code, out, want, errs)
	}
	code, out, _ = b.run(t, nil, "tree", "--", "ls", "/usr/lib/x")
	if code == 0 {
		t.Errorf("what a command wrote into the tree is still there: %q", out)
	}
}
