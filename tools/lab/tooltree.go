// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// toolTree is a small Debian 13: the machine's root, and where its QEMU, the
// compilers for the module and the checkers come from, so that they have the
// same versions everywhere.
type toolTree struct{ dir string }

const (
	treeSuite = "trixie"
	treeSpace = 3 << 30
)

// treePackages is what the tree holds beside Debian's essential packages.
var treePackages = []string{
	// the machine itself
	"qemu-system-x86", "qemu-system-data", "seabios", "kmod", "busybox-static", "mount",
	// building the module, and what the headers' scripts call
	"gcc", "make", "libelf1t64", "bc", "flex", "bison", "libelf-dev", "libssl-dev", "xz-utils", "zstd", "perl",
	// checking: module, ABI, ACPI tables
	"sparse", "coccinelle", "dwarves", "acpica-tools",
	// BPF programs
	"clang", "llvm", "libbpf-dev", "bpftool",
	// disks of guests, and what they boot
	"e2fsprogs", "libarchive13t64", "ipxe", "debian-installer-13-netboot-amd64",
	// looking into a machine, and scripts of tests
	"linux-perf", "bpftrace", "strace", "iproute2", "iputils-ping", "nftables", "procps", "curl", "ca-certificates",
	"python3-minimal", "cpio", "jq",
}

// treeSetup runs in the finished tree: the users and groups of the packaging.
const treeSetup = `set -e
groupadd --system vmm
groupadd --system vmctl-admin
useradd --system --user-group --groups vmm --no-create-home --home-dir /var/lib/vmctld --shell /usr/sbin/nologin vmctld
useradd --system --user-group --no-create-home --home-dir /var/lib/vmhttp --shell /usr/sbin/nologin vmhttp
rm -rf /var/cache/apt /var/lib/apt/lists`

// smallDebian makes a Debian small and quick; nothing of it is ever upgraded.
var smallDebian = []string{
	"--variant=essential",
	"--components=main",
	"--architectures=amd64",
	"--aptopt=Acquire::Languages \"none\"",
	"--aptopt=APT::Install-Recommends \"false\"",
	"--dpkgopt=force-unsafe-io",
	"--dpkgopt=path-exclude=/usr/share/man/*",
	"--dpkgopt=path-exclude=/usr/share/doc/*",
	"--dpkgopt=path-exclude=/usr/share/info/*",
	"--dpkgopt=path-exclude=/usr/share/locale/*",
}

var treeOptions = slices.Concat(smallDebian, []string{
	"--include=" + strings.Join(treePackages, ","),
	"--customize-hook=chroot \"$1\" sh -c '" + treeSetup + "'",
})

// toolTree returns the tree, made if need be.
func (l *lab) toolTree(ctx context.Context) (*toolTree, error) {
	r := recipe{noun: "tree", lines: append([]string{treeSuite}, treeOptions...), space: treeSpace}
	dir, err := l.cache.prepare(ctx, r, func(dir string) error { return l.makeToolTree(ctx, dir) })
	if err != nil {
		return nil, err
	}
	return &toolTree{dir}, nil
}

func (l *lab) makeToolTree(ctx context.Context, dir string) (err error) {
	if err := l.wantHostTools(ctx); err != nil {
		return err
	}
	mirror, err := debianMirror(aptFolder)
	if err != nil {
		return err
	}
	defer l.out.step("making the Debian 13 tree in %s, about a minute", dir)(&err)
	args := slices.Clone(treeOptions)
	for _, o := range hostAptOptions(ctx) {
		args = append(args, "--aptopt="+o)
	}
	if os.Getuid() == 0 {
		args = append(args, "--mode=root", treeSuite, dir, mirror)
		return l.debootstrap(exec.CommandContext(ctx, "mmdebstrap", args...))
	}
	return l.makeOwnTree(ctx, args, dir, mirror)
}

// makeOwnTree makes the tree for a user who is not root: mmdebstrap works in a
// user namespace and hands out an archive, and all files end as the user's own.
// QEMU later sees them as root's through a namespace of the same kind.
func (l *lab) makeOwnTree(ctx context.Context, args []string, dir, mirror string) error {
	r, w := io.Pipe()
	mm := exec.CommandContext(ctx, "mmdebstrap", append(args, "--mode=unshare", "--format=tar", treeSuite, "-", mirror)...)
	mm.Stdout = w
	tar := exec.CommandContext(ctx, "tar", "-x", "-p", "--no-same-owner", "--exclude=./dev/*", "-C", dir)
	tar.Stdin = r
	unpacked := make(chan error, 1)
	go func() {
		_, err := output(tar)
		r.CloseWithError(err)
		unpacked <- err
	}()
	err := l.debootstrap(mm)
	w.CloseWithError(err)
	if tarErr := <-unpacked; err == nil {
		err = tarErr
	}
	return err
}

// stageShown are the stages of mmdebstrap that take long.
var stageShown = regexp.MustCompile(`^(running apt-get|downloading|extracting|installing)`)

// debootstrap runs mmdebstrap and shows the stages that it names.
func (l *lab) debootstrap(cmd *exec.Cmd) error {
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it unmounts and cleans up then
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("mmdebstrap: %w", err)
	}
	var why strings.Builder
	for s := bufio.NewScanner(stderr); s.Scan(); {
		stage, ok := strings.CutPrefix(s.Text(), "I: ")
		switch {
		case ok && stageShown.MatchString(stage):
			l.out.say("  %s", stage)
		case !ok && why.Len() < 1<<16:
			fmt.Fprintln(&why, s.Text())
		}
	}
	if err := cmd.Wait(); err != nil {
		return toolError("mmdebstrap", err, why.String())
	}
	return nil
}

// hostAptOptions are the machine's apt settings that decide how packages are
// reached; mmdebstrap reads none of them by itself.
func hostAptOptions(ctx context.Context) []string {
	out, err := tool(ctx, "", "apt-config", "dump")
	if err != nil {
		return nil
	}
	var list []string
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(line), ";"))
		name, value, _ := strings.Cut(line, " ")
		if value == `""` || strings.HasSuffix(name, "::") {
			continue
		}
		for _, prefix := range []string{"Acquire::http", "Acquire::Check-", "Acquire::Retries", "Acquire::ForceIP"} {
			if strings.HasPrefix(name, prefix) {
				list = append(list, line)
			}
		}
	}
	return list
}

// program returns the words that run a program of the tree on the host: by the
// tree's own loader and libraries, so that no namespace is needed.
// Its own name is argv0, by which busybox-like programs know what to do.
func (t *toolTree) program(file, argv0 string) []string {
	return []string{
		filepath.Join(t.dir, "usr/lib64/ld-linux-x86-64.so.2"),
		"--library-path", filepath.Join(t.dir, "usr/lib/x86_64-linux-gnu"),
		"--argv0", argv0,
		filepath.Join(t.dir, file),
	}
}

// run runs a program of the tree on the host and returns what it printed.
func (t *toolTree) run(ctx context.Context, file, argv0 string, args ...string) ([]byte, error) {
	words := append(t.program(file, argv0), args...)
	out, err := tool(ctx, "", words[0], words[1:]...)
	if err != nil {
		return nil, fmt.Errorf("%s of the tree: %w", argv0, err)
	}
	return out, nil
}
