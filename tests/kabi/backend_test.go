// SPDX-License-Identifier: Apache-2.0

//go:build lab

package kabi

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/abi"
)

// drainTime is how soon a claim must end after the last reference to its file
// has gone.
const drainTime = 5 * time.Second

// diskAt is a file of 1 MiB with a name, so that it can be opened again.
func diskAt(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	ok(t, os.WriteFile(path, make([]byte, 1<<20), 0o600))
	return path
}

func openDisk(t testing.TB, path string, flags int) int {
	t.Helper()
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	ok(t, err)
	return fd
}

// attach opens a disk for one VM alone, as vmctld does, and attaches it.
func (m *machine) attach(path string, flags int) (uint32, error) {
	m.t.Helper()
	fd := openDisk(m.t, path, flags)
	n, err := m.vm.AttachDisk(abi.Part{FD: fd, Role: abi.RoleData})
	ok(m.t, unix.Close(fd))
	return n, err
}

func (m *machine) mustAttach(path string, flags int) uint32 {
	m.t.Helper()
	n, err := m.attach(path, flags)
	ok(m.t, err)
	return n
}

// whenFree waits until a disk can be had for writing, and gives it back.
func whenFree(t testing.TB, path string) {
	t.Helper()
	m := newMachine(t, created)
	for end := time.Now().Add(drainTime); ; time.Sleep(10 * time.Millisecond) {
		n, err := m.attach(path, unix.O_RDWR)
		if err == nil {
			ok(t, m.vm.Detach(n))
			return
		}
		wantErr(t, "attach of a disk that drains", err, unix.EBUSY)
		if time.Now().After(end) {
			t.Fatalf("still claimed after %v", drainTime)
		}
	}
}

// TestClaims holds the rule of one writer or many readers over several VMs.
func TestClaims(t *testing.T) {
	path := diskAt(t)
	a, b, c := newMachine(t, created), newMachine(t, bound), newMachine(t, running)
	writer := a.mustAttach(path, unix.O_RDWR)
	_, err := b.attach(path, unix.O_RDWR)
	wantErr(t, "second writer", err, unix.EBUSY)
	_, err = b.attach(path, unix.O_RDONLY)
	wantErr(t, "reader beside a writer", err, unix.EBUSY)
	_, err = a.attach(path, unix.O_RDWR)
	wantErr(t, "the same VM twice", err, unix.EBUSY)

	ok(t, a.vm.Detach(writer))
	wantErr(t, "second DETACH", a.vm.Detach(writer), unix.ENOENT)
	b.mustAttach(path, unix.O_RDONLY)
	c.mustAttach(path, unix.O_RDONLY)
	_, err = a.attach(path, unix.O_RDWR)
	wantErr(t, "writer beside readers", err, unix.EBUSY)
	ok(t, b.vm.Stop())
	ok(t, c.vm.Destroy())
	whenFree(t, path)
}

// TestClaimIsOfTheInode takes other names and links of the file for the same, and
// a copy for another.
func TestClaimIsOfTheInode(t *testing.T) {
	path := diskAt(t)
	hard, soft, moved := path+".hard", path+".soft", path+".moved"
	ok(t, os.Link(path, hard))
	ok(t, os.Symlink(path, soft))
	m := newMachine(t, created)
	m.mustAttach(path, unix.O_RDWR)
	ok(t, os.Rename(path, moved))
	ok(t, os.WriteFile(path, []byte("another"), 0o600))
	for _, name := range []string{hard, moved} {
		_, err := m.attach(name, unix.O_RDWR)
		wantErr(t, filepath.Ext(name), err, unix.EBUSY)
	}
	m.mustAttach(path, unix.O_RDWR)
	_, err := m.attach(soft, unix.O_RDWR) // leads to the new file
	wantErr(t, "symbolic link", err, unix.EBUSY)
}

// TestBase attaches a chain of files, of which the lower ones are shared.
func TestBase(t *testing.T) {
	base, top, other := diskAt(t), diskAt(t), diskAt(t)
	chain := func(path string) []abi.Part {
		return []abi.Part{
			{FD: openDisk(t, path, unix.O_RDWR), Role: abi.RoleData}, {FD: openDisk(t, base, unix.O_RDONLY), Role: abi.RoleBase},
		}
	}
	for _, path := range []string{top, other} {
		m := newMachine(t, created)
		parts := chain(path)
		_, err := m.vm.AttachDisk(parts...)
		ok(t, err)
		for _, p := range parts {
			ok(t, unix.Close(p.FD))
		}
	}
	m := newMachine(t, created)
	_, err := m.attach(base, unix.O_RDWR)
	wantErr(t, "writer of a base", err, unix.EBUSY)
	// What was claimed before the one that is refused is given back.
	third := diskAt(t)
	parts := []abi.Part{
		{FD: openDisk(t, third, unix.O_RDWR), Role: abi.RoleData}, {FD: openDisk(t, top, unix.O_RDONLY), Role: abi.RoleBase},
	}
	_, err = m.vm.AttachDisk(parts...)
	wantErr(t, "base that has a writer", err, unix.EBUSY)
	for _, p := range parts {
		ok(t, unix.Close(p.FD))
	}
	m.mustAttach(third, unix.O_RDWR)
}

// TestAttachRefuses gives files that no backend can be made of.
func TestAttachRefuses(t *testing.T) {
	m := newMachine(t, created)
	disk, null := diskFile(t), nullFile(t)
	path := diskAt(t)
	ro, wo := openDisk(t, path, unix.O_RDONLY), openDisk(t, path, unix.O_WRONLY)
	dir := openDisk(t, t.TempDir(), unix.O_RDONLY|unix.O_DIRECTORY)
	pathOnly := openDisk(t, path, unix.O_PATH)
	var pipe [2]int
	ok(t, unix.Pipe2(pipe[:], unix.O_CLOEXEC))
	sock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	ok(t, err)
	defer func() {
		for _, fd := range []int{ro, wo, dir, pathOnly, pipe[0], pipe[1], sock} {
			ok(t, unix.Close(fd))
		}
	}()
	p := func(fd int, role abi.Role) abi.Part { return abi.Part{FD: fd, Role: role} }
	for _, tt := range []struct {
		what  string
		nic   bool
		parts []abi.Part
		want  error
	}{
		{"no file", false, nil, unix.EINVAL},
		{"no NIC file", true, nil, unix.EINVAL},
		{"closed descriptor", false, []abi.Part{p(-1, abi.RoleData)}, unix.EBADF},
		{"path descriptor", false, []abi.Part{p(pathOnly, abi.RoleData)}, unix.EBADF},
		{"character device", false, []abi.Part{p(null, abi.RoleData)}, unix.EINVAL},
		{"folder", false, []abi.Part{p(dir, abi.RoleData)}, unix.EINVAL},
		{"pipe", false, []abi.Part{p(pipe[0], abi.RoleData)}, unix.EINVAL},
		{"socket", false, []abi.Part{p(sock, abi.RoleData)}, unix.EINVAL},
		{"write-only", false, []abi.Part{p(wo, abi.RoleData)}, unix.EINVAL},
		{"the VM itself", false, []abi.Part{p(m.vm.FD(), abi.RoleData)}, unix.EINVAL},
		{"base first", false, []abi.Part{p(ro, abi.RoleBase)}, unix.EINVAL},
		{"two of data", false, []abi.Part{p(disk, abi.RoleData), p(ro, abi.RoleData)}, unix.EINVAL},
		{"base open for writing", false, []abi.Part{p(ro, abi.RoleData), p(disk, abi.RoleBase)}, unix.EINVAL},
		{"role of a NIC", false, []abi.Part{p(disk, abi.RoleTap)}, unix.EINVAL},
		{"unknown role", false, []abi.Part{p(disk, 5)}, unix.EINVAL},
		{"no role", false, []abi.Part{p(disk, 0)}, unix.EINVAL},
		{"the same descriptor twice", true, []abi.Part{p(null, abi.RoleTap), p(null, abi.RoleVhost)}, unix.EBUSY},
		{"disk as NIC", true, []abi.Part{p(disk, abi.RoleTap)}, unix.EINVAL},
		{"socket as tap", true, []abi.Part{p(sock, abi.RoleTap)}, unix.EINVAL},
		{"the VM as tap", true, []abi.Part{p(m.vm.FD(), abi.RoleTap)}, unix.EINVAL},
		{"vhost alone", true, []abi.Part{p(null, abi.RoleVhost)}, unix.EINVAL},
	} {
		attach := m.vm.AttachDisk
		if tt.nic {
			attach = m.vm.AttachNIC
		}
		_, err := attach(tt.parts...)
		wantErr(t, tt.what, err, tt.want)
	}
	for name, alter := range map[string]func(*abi.VMAttach){
		"too many":          func(a *abi.VMAttach) { a.Count = abi.MaxBackendFiles + 1 },
		"huge count":        func(a *abi.VMAttach) { a.Count = 1 << 31 },
		"descriptor behind": func(a *abi.VMAttach) { a.Files[1].FD = 1 },
		"role behind":       func(a *abi.VMAttach) { a.Files[15].Role = abi.RoleBase },
	} {
		a := abi.VMAttach{Count: 1}
		a.Files[0] = abi.BackendFile{FD: int32(disk), Role: abi.RoleData}
		alter(&a)
		_, _, err := newArgument(t).ioctl(m.vm.FD(), abi.IOCVMAttachDisk, sized(a))
		wantErr(t, name, err, unix.EINVAL)
	}
	if s, err := m.vm.Stats(); err != nil || s.Backends != 0 {
		t.Errorf("%d backends after refusals, %v", s.Backends, err)
	}
}

// TestDraining keeps a disk that was handed out, in each way that there is, and
// shows that its claim lasts as long, over detaching, stopping and destroying.
func TestDraining(t *testing.T) {
	keepers := map[string]func(t *testing.T, fd int) func(){
		"descriptor": func(t *testing.T, fd int) func() {
			return func() { ok(t, unix.Close(fd)) }
		},
		"mapping": func(t *testing.T, fd int) func() {
			mem, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			ok(t, err)
			ok(t, unix.Close(fd))
			return func() { ok(t, unix.Munmap(mem)) }
		},
		"message under way": func(t *testing.T, fd int) func() {
			pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			ok(t, err)
			ok(t, unix.Sendmsg(pair[0], []byte{0}, unix.UnixRights(fd), nil, 0))
			ok(t, unix.Close(fd))
			ok(t, unix.Close(pair[0]))
			return func() { ok(t, unix.Close(pair[1])) }
		},
		"file of an io_uring": func(t *testing.T, fd int) func() {
			ring, err := newPollRing()
			ok(t, err)
			const registerFiles = 2
			files := bytesOf(int32(fd))
			_, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(ring.fd), registerFiles, uintptr(addressOf(files)), 1, 0, 0)
			runtime.KeepAlive(files)
			if errno != 0 {
				t.Fatalf("io_uring_register: %v", errno)
			}
			ok(t, unix.Close(fd))
			return func() { ok(t, ring.close()) }
		},
		"write that hangs": func(t *testing.T, fd int) func() {
			finish := hangWrite(t, fd)
			ok(t, unix.Close(fd))
			return finish
		},
		"another process": func(t *testing.T, fd int) func() {
			c := startChild(t, "sleep", []int{fd}, nil)
			ok(t, unix.Close(fd))
			return func() { ok(t, c.in.Close()); c.wait() }
		},
	}
	ends := map[string]func(*machine, uint32) error{
		"detach":  func(m *machine, n uint32) error { return m.vm.Detach(n) },
		"stop":    func(m *machine, n uint32) error { return m.vm.Stop() },
		"destroy": func(m *machine, n uint32) error { return m.vm.Destroy() },
	}
	f := dialTest(t)
	for keeper, keep := range keepers {
		for how, end := range ends {
			t.Run(keeper+", "+how, func(t *testing.T) {
				path := diskAt(t)
				m := newMachine(t, bound)
				n := m.mustAttach(path, unix.O_RDWR)
				b, err := m.vm.Backend(0)
				ok(t, err)
				drop := keep(t, b.Parts[0].FD)
				ok(t, end(m, n))
				other := newMachine(t, created)
				_, err = other.attach(path, unix.O_RDONLY)
				wantErr(t, "attach while it drains", err, unix.EBUSY)
				d := f.devices(t, m.id)
				if len(d) != 1 || d[0].state != abi.BackendStateDraining || d[0].backend != n || !d[0].writable {
					t.Errorf("device-get says %+v, want one that drains", d)
				}
				drop()
				whenFree(t, path)
				if d := f.devices(t, m.id); len(d) != 0 {
					t.Errorf("device-get says %+v of one that has drained", d)
				}
			})
		}
	}
}

// hangWrite begins a write to fd of a page that is not there, and that nobody
// provides before finish: the kernel waits for it with the file in its hands.
func hangWrite(t *testing.T, fd int) (finish func()) {
	t.Helper()
	n, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC, 0, 0)
	if errno != 0 {
		t.Fatalf("userfaultfd: %v", errno)
	}
	faults := int(n)
	command := func(what string, req uintptr, fields ...uint64) {
		t.Helper()
		arg := bytesOf([4]uint64(append(fields, make([]uint64, 4-len(fields))...)))
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(faults), req, uintptr(addressOf(arg)))
		runtime.KeepAlive(arg)
		if errno != 0 {
			t.Fatalf("%s: %v", what, errno)
		}
	}
	page := pages(t, 4096)
	at := addressOf(page)
	// linux/userfaultfd.h
	const (
		api, register, zeropage = 0xc018_aa3f, 0xc020_aa00, 0xc020_aa04
		version, modeMissing    = 0xaa, 1
	)
	command("UFFDIO_API", api, version, 0, 0)
	command("UFFDIO_REGISTER", register, at, 4096, modeMissing, 0)
	written := make(chan error, 1)
	go func() {
		_, err := unix.Pwrite(fd, page, 0)
		written <- err
	}()
	_, err := unix.Read(faults, make([]byte, 32)) // struct uffd_msg: the write waits now
	ok(t, err)
	return func() {
		command("UFFDIO_ZEROPAGE", zeropage, at, 4096, 0, 0)
		ok(t, <-written)
		ok(t, unix.Close(faults))
	}
}

// TestDrainingAfterDeath kills a monitor that has taken its disk. It is free at
// once, without anybody doing anything.
func TestDrainingAfterDeath(t *testing.T) {
	path := diskAt(t)
	m, c := hireMonitor(t, "disk-keeper")
	c.want("bound")
	m.mustAttach(path, unix.O_RDWR)
	fmt.Fprintln(c.in, "take")
	c.want("taken")
	ok(t, m.vm.Stop())
	other := newMachine(t, created)
	_, err := other.attach(path, unix.O_RDWR)
	wantErr(t, "attach while the monitor has it", err, unix.EBUSY)
	ok(t, c.cmd.Process.Signal(unix.SIGKILL))
	whenFree(t, path)
}

// TestDrainingVhost lets a worker of vhost keep a tap that nobody else has.
func TestDrainingVhost(t *testing.T) {
	tap := openTap(t)
	m := newMachine(t, bound)
	n, err := m.vm.AttachNIC(abi.Part{FD: tap, Role: abi.RoleTap})
	ok(t, err)
	ok(t, unix.Close(tap))
	b, err := m.vm.Backend(n)
	ok(t, err)
	vhost := vhostOver(t, b.Parts[0].FD)
	ok(t, unix.Close(b.Parts[0].FD))
	ok(t, m.vm.Detach(n))
	f := dialTest(t)
	time.Sleep(200 * time.Millisecond) // several looks at it
	if d := f.devices(t, m.id); len(d) != 1 || d[0].state != abi.BackendStateDraining {
		t.Errorf("device-get says %+v, want one that drains", d)
	}
	ok(t, unix.Close(vhost))
	for end := time.Now().Add(drainTime); len(f.devices(t, m.id)) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it drains for ever")
		}
	}
}

// openTap makes a tap, which goes with its descriptor.
func openTap(t *testing.T) int {
	t.Helper()
	tap, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	ok(t, err)
	ifreq, err := unix.NewIfreq("kabi-tap")
	ok(t, err)
	ifreq.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	ok(t, unix.IoctlIfreq(tap, unix.TUNSETIFF, ifreq))
	return tap
}

// TestVhostOfTheDead kills a monitor that gave its tap to a vhost, while somebody
// else has a duplicate of its VM descriptor. The vhost keeps tap and memory map,
// and must not keep itself: the end is known, and the tap is free.
func TestVhostOfTheDead(t *testing.T) {
	m := newMachine(t, created)
	run, err := m.vm.Delegate(abi.RightRun)
	ok(t, err)
	defer closeAll(t, run) // the heir is this process
	c := startChild(t, "vhost-user", []int{run.FD()}, nil)
	c.want("bound")
	tap, vhost := openTap(t), openDisk(t, "/dev/vhost-net", unix.O_RDWR)
	_, err = m.vm.AttachNIC(abi.Part{FD: tap, Role: abi.RoleTap}, abi.Part{FD: vhost, Role: abi.RoleVhost})
	ok(t, err)
	ok(t, unix.Close(tap))
	ok(t, unix.Close(vhost))
	fmt.Fprintln(c.in, "take")
	c.want("set")
	start := time.Now()
	c.kill()
	m.wantGone(start)
	f := dialTest(t)
	for end := time.Now().Add(drainTime); len(f.devices(t, m.id)) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the backend drains for ever")
		}
	}
	ok(t, unix.Close(openTap(t))) // of the same name
}

// roleVhostUser binds, takes its NIC when it is told to, and uses it.
func roleVhostUser() error {
	vm := inherited()
	if err := vm.Bind(); err != nil {
		return err
	}
	fmt.Println("bound")
	var line string
	if _, err := fmt.Scanln(&line); err != nil {
		return err
	}
	b, err := vm.Backend(0)
	if err != nil {
		return err
	}
	again, err := vm.Backend(0)
	if err != nil {
		return err
	}
	if b.Parts[1].FD < 0 || again.Parts[1].FD != -1 || again.Parts[0].FD < 0 {
		return fmt.Errorf("took %v and then %v, want the vhost once", b, again)
	}
	if err := setVhost(b.Parts[1].FD, b.Parts[0].FD); err != nil {
		return err
	}
	fmt.Println("set")
	return roleSleep()
}

// vhostOver gives a tap to a vhost worker.
func vhostOver(t *testing.T, tap int) int {
	t.Helper()
	fd := openDisk(t, "/dev/vhost-net", unix.O_RDWR)
	ok(t, setVhost(fd, tap))
	return fd
}

// setVhost lets a vhost serve a tap, with rings in memory that stays: see
// linux/vhost.h.
func setVhost(fd, tap int) error {
	mem, err := unix.Mmap(-1, 0, 3*4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	at := addressOf(mem)
	ask := func(req uintptr, arg []byte) {
		_, e := ioctlAt(fd, req, uintptr(addressOf(arg)))
		runtime.KeepAlive(arg)
		err = errors.Join(err, e)
	}
	_, err = ioctlAt(fd, 0xaf01, 0)                                       // VHOST_SET_OWNER
	ask(0x4008af03, bytesOf([5]uint64{1, 0, uint64(len(mem)), at, 0}))    // VHOST_SET_MEM_TABLE
	ask(0x4008af10, bytesOf([2]uint32{0, 16}))                            // VHOST_SET_VRING_NUM
	ask(0x4008af12, bytesOf([2]uint32{0, 0}))                             // VHOST_SET_VRING_BASE
	ask(0x4028af11, bytesOf([5]uint64{0, at, at + 4096, at + 2*4096, 0})) // VHOST_SET_VRING_ADDR
	ask(0x4008af30, bytesOf([2]int32{0, int32(tap)}))                     // VHOST_NET_SET_BACKEND
	return err
}

// roleDiskKeeper binds, and takes its backend when it is told to.
func roleDiskKeeper() error {
	vm := inherited()
	if err := vm.Bind(); err != nil {
		return err
	}
	fmt.Println("bound")
	var line string
	if _, err := fmt.Scanln(&line); err != nil {
		return err
	}
	if _, err := vm.Backend(0); err != nil {
		return err
	}
	fmt.Println("taken")
	return roleSleep()
}

// TestGetBackend scans backends while they come and go.
func TestGetBackend(t *testing.T) {
	m := newMachine(t, bound)
	readable := func(want bool) {
		t.Helper()
		fds := []unix.PollFd{{Fd: int32(m.vm.FD()), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		for errors.Is(err, unix.EINTR) {
			n, err = unix.Poll(fds, 0)
		}
		ok(t, err)
		if got := n == 1 && fds[0].Revents&unix.POLLIN != 0; got != want {
			t.Errorf("readable %v, want %v", got, want)
		}
	}
	scan := func(want ...uint32) {
		t.Helper()
		var got []uint32
		b, err := m.vm.Backend(0)
		for ; err == nil; b, err = m.vm.Backend(b.Number + 1) {
			got = append(got, b.Number)
			for _, p := range b.Parts {
				ok(t, unix.Close(p.FD))
			}
		}
		wantErr(t, "end of the scan", err, unix.ENOENT)
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("backends %v, want %v", got, want)
		}
	}
	readable(false)
	scan()
	one := m.mustAttach(diskAt(t), unix.O_RDWR)
	readable(true)
	null := nullFile(t)
	two, err := m.vm.AttachNIC(abi.Part{FD: null, Role: abi.RoleTap})
	ok(t, err)
	scan(one, two)
	readable(false)
	ok(t, m.vm.Detach(one))
	readable(true)
	scan(two)
	readable(false)

	// A change in the middle of a scan is not lost.
	b, err := m.vm.Backend(0)
	ok(t, err)
	three := m.mustAttach(diskAt(t), unix.O_RDONLY)
	ok(t, unix.Close(b.Parts[0].FD))
	_, err = m.vm.Backend(three + 1)
	wantErr(t, "behind the last", err, unix.ENOENT)
	readable(true)
	scan(two, three)

	b, err = m.vm.Backend(three)
	ok(t, err)
	if b.Kind != abi.BackendDisk || len(b.Parts) != 1 || b.Parts[0].Role != abi.RoleData {
		t.Errorf("backend %+v", b)
	}
	flags, err := unix.FcntlInt(uintptr(b.Parts[0].FD), unix.F_GETFL, 0)
	ok(t, err)
	if flags&unix.O_ACCMODE != unix.O_RDONLY {
		t.Error("a reader got a file that can be written")
	}
	ok(t, unix.Close(b.Parts[0].FD))
	// Numbers are not used again.
	ok(t, m.vm.Detach(three))
	if four := m.mustAttach(diskAt(t), unix.O_RDWR); four <= three {
		t.Errorf("number %d after %d", four, three)
	}
}

// TestDrainedIsFree attaches a block device right after its last user has gone,
// beside another one that is in the same case.
func TestDrainedIsFree(t *testing.T) {
	devs := []string{loopDevice(t), loopDevice(t)}
	m := newMachine(t, created)
	for range 10 {
		var fds []int
		for _, dev := range devs {
			fd := openDisk(t, dev, unix.O_RDWR)
			n, err := m.vm.AttachDisk(abi.Part{FD: fd, Role: abi.RoleData})
			ok(t, err)
			ok(t, m.vm.Detach(n))
			fds = append(fds, fd)
		}
		for _, fd := range fds {
			ok(t, unix.Close(fd))
		}
		ok(t, m.vm.Detach(m.mustAttach(devs[0], unix.O_RDWR)))
		whenFree(t, devs[1])
	}
}

// TestMemoryDoesNotWait ends a VM whose disk somebody still has: its memory and
// its vCPUs count no more.
func TestMemoryDoesNotWait(t *testing.T) {
	setParameter(t, "host_memory", strconv.Itoa(memSize))
	setParameter(t, "host_vcpus", "1")
	gone := newMachine(t, withMem)
	gone.mustAttach(diskAt(t), unix.O_RDWR)
	b, err := gone.vm.Backend(0)
	ok(t, err)
	defer func() { ok(t, unix.Close(b.Parts[0].FD)) }()
	closeAll(t, gone.cpu, gone.vm)
	newMachine(t, withMem)
}

// loopDevice makes a block device of a file, where the kernel has those.
func loopDevice(t *testing.T) string {
	t.Helper()
	if out, err := exec.Command("modprobe", "loop").CombinedOutput(); err != nil {
		t.Logf("modprobe loop: %v %s", err, out) // built in, perhaps
	}
	out, err := exec.Command("losetup", "--find", "--show", diskAt(t)).CombinedOutput()
	if err != nil {
		t.Fatalf("losetup: %v %s", err, out)
	}
	dev := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", dev).CombinedOutput(); err != nil {
			t.Errorf("losetup: %v %s", err, out)
		}
	})
	return dev
}

// TestBlockDevice claims a writable block device from the whole host, and gives
// it back.
func TestBlockDevice(t *testing.T) {
	dev := loopDevice(t)
	exclusive := func() error {
		fd, err := unix.Open(dev, unix.O_RDWR|unix.O_EXCL|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Close(fd)
		}
		return err
	}
	m := newMachine(t, created)
	ok(t, exclusive())
	n := m.mustAttach(dev, unix.O_RDWR)
	wantErr(t, "exclusive open of a claimed device", exclusive(), unix.EBUSY)
	_, err := newMachine(t, created).attach(dev, unix.O_RDONLY)
	wantErr(t, "reader of a claimed device", err, unix.EBUSY)
	// Another node of the same device is the same device.
	var st unix.Stat_t
	ok(t, unix.Stat(dev, &st))
	alias := "/dev/kabi-alias" // other places allow no devices
	ok(t, unix.Mknod(alias, unix.S_IFBLK|0o600, int(st.Rdev)))
	defer func() { ok(t, os.Remove(alias)) }()
	_, err = m.attach(alias, unix.O_RDWR)
	wantErr(t, "another node", err, unix.EBUSY)
	ok(t, m.vm.Detach(n))
	whenFree(t, dev)
	ok(t, exclusive())

	// In use by somebody else.
	fd, err := unix.Open(dev, unix.O_RDWR|unix.O_EXCL|unix.O_CLOEXEC, 0)
	ok(t, err)
	_, err = m.attach(dev, unix.O_RDWR)
	wantErr(t, "device that is in use", err, unix.EBUSY)
	ok(t, unix.Close(fd))
	m.mustAttach(dev, unix.O_RDONLY)
	m.mustAttach(dev, unix.O_RDONLY)
	ok(t, exclusive()) // readers claim nothing from the host
}
