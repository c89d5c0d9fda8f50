// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A command runs inside the tool tree, on the host, in namespaces of its own:
// the kernels' headers over the tree, with the layer that takes what is
// written in memory. The tree itself is never changed, and nothing stays
// mounted: the mounts die with the command.

// insideWord is the hidden command by which the lab starts itself there.
const insideWord = "inside-tree"

// inside is what to run in the tree.
type inside struct {
	Layers []string // folders, the topmost first
	Mount  string   // an empty folder to build the root on
	Binds  []string // folders of the host to show at their own paths
	Dir    string
	Argv   []string
}

// inTree prepares argv to run inside the tree; the caller sets its streams.
func (l *lab) inTree(ctx context.Context, tree *toolTree, kernels []*kernel, dir string, argv []string) (*exec.Cmd, error) {
	in := inside{Mount: filepath.Join(l.cache.dir, "mnt"), Binds: []string{l.cache.dir}, Dir: dir, Argv: argv}
	for _, k := range kernels {
		if k.dir != "" {
			in.Layers = append(in.Layers, k.dir)
		}
	}
	in.Layers = append(in.Layers, tree.dir)
	if l.checkout != "" {
		in.Binds = append(in.Binds, l.checkout)
	}
	spec, err := json.Marshal(in)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", insideWord, string(spec))
	cmd.Env = insideEnv()
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
	}
	asOwnRoot(cmd.SysProcAttr)
	return cmd, nil
}

// asOwnRoot makes a user who is not root appear as root to the child.
func asOwnRoot(a *syscall.SysProcAttr) {
	if os.Getuid() == 0 {
		return
	}
	a.Cloneflags |= unix.CLONE_NEWUSER
	a.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	a.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
}

func insideEnv() []string {
	env := []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "LANG=C.UTF-8", "LC_ALL=C.UTF-8",
	}
	if term := os.Getenv("TERM"); term != "" {
		env = append(env, "TERM="+term)
	}
	return env
}

// insideMain is the first process of the new namespaces.
func insideMain(spec string) int {
	var in inside
	if err := json.Unmarshal([]byte(spec), &in); err != nil {
		fmt.Fprintf(os.Stderr, "lab: %v\n", err)
		return exitLab
	}
	if err := in.enter(); err != nil {
		fmt.Fprintf(os.Stderr, "lab: tree: %v\n", err)
		return exitLab
	}
	cmd := exec.Command(in.Argv[0], in.Argv[1:]...)
	cmd.Dir = in.Dir
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exitStatus(exit.ProcessState)
	}
	fmt.Fprintf(os.Stderr, "lab: %v\n", err)
	return 127
}

// exitStatus is a process's status as a shell says it.
func exitStatus(p *os.ProcessState) int {
	if ws, ok := p.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return p.ExitCode()
}

// enter builds the root and makes it this process's.
func (in *inside) enter() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("lab", in.Mount, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount memory: %w", err)
	}
	root := filepath.Join(in.Mount, "root")
	for _, dir := range []string{"root", "upper", "work"} {
		if err := os.Mkdir(filepath.Join(in.Mount, dir), 0o755); err != nil {
			return err
		}
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", strings.Join(in.Layers, ":"), in.Mount, in.Mount)
	if err := unix.Mount("lab", root, "overlay", 0, options); err != nil {
		return fmt.Errorf("mount overlay: %w", err)
	}
	if err := in.fill(root); err != nil {
		return err
	}
	if err := unix.Chroot(root); err != nil {
		return fmt.Errorf("chroot: %w", err)
	}
	return unix.Chdir("/")
}

// fill mounts what belongs into the root.
func (in *inside) fill(root string) error {
	if err := unix.Mount("proc", root+"/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount proc: %w", err)
	}
	for dir, mode := range map[string]string{"/dev": "755", "/tmp": "1777", "/run": "755"} {
		if err := unix.Mount("lab", root+dir, "tmpfs", 0, "mode="+mode); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		if err := bindFile("/dev/"+name, root+"/dev/"+name); err != nil {
			return err
		}
	}
	for i, name := range []string{"stdin", "stdout", "stderr"} {
		if err := os.Symlink(fmt.Sprintf("/proc/self/fd/%d", i), root+"/dev/"+name); err != nil {
			return err
		}
	}
	if err := os.Symlink("/proc/self/fd", root+"/dev/fd"); err != nil {
		return err
	}
	for _, dir := range in.Binds {
		if err := os.MkdirAll(root+dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(dir, root+dir, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("show %s: %w", dir, err)
		}
	}
	return nil
}

func bindFile(from, to string) error {
	if err := os.WriteFile(to, nil, 0o644); err != nil {
		return err
	}
	if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("show %s: %w", from, err)
	}
	return nil
}

// runInside runs a prepared command and returns its status.
func runInside(cmd *exec.Cmd, stdin io.Reader, stdout, stderr io.Writer) (int, error) {
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exitStatus(exit.ProcessState), nil
	}
	if err != nil {
		return exitLab, fmt.Errorf("tree: %w", err)
	}
	return 0, nil
}
