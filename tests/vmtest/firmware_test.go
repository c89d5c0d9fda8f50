// SPDX-License-Identifier: Apache-2.0

//go:build lab

package vmtest_test

import (
	"bufio"
	"cmp"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"golang.org/x/crypto/ssh"

	"vmctl/abi"
	"vmctl/daemon/seed"
	"vmctl/monitor/ctl"
	"vmctl/monitor/spec"
	"vmctl/tests/vmtest"
)

// seaBIOS is Debian's.
const seaBIOS = "/usr/share/seabios/bios-256k.bin"

// bootSector prints the text in the second sector of the disk it is on, by the BIOS'
// calls, waits for a key, and powers the machine off.
var bootSector = []byte{
	0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, // xor ax,ax; mov ds,ax; mov es,ax
	0xb8, 0x01, 0x02, 0xb9, 0x02, 0x00, 0xb6, 0x00, // mov ax,0201h; mov cx,2; mov dh,0
	0xbb, 0x00, 0x80, 0xcd, 0x13, // mov bx,8000h; int 13h: read a sector
	0xbe, 0x00, 0x80, 0xfc, // mov si,8000h; cld
	0xac, 0x84, 0xc0, 0x74, 0x09, // next: lodsb; test al,al; jz off
	0xb4, 0x0e, 0xbb, 0x07, 0x00, 0xcd, 0x10, 0xeb, 0xf2, // mov ah,0eh; mov bx,7; int 10h; jmp next
	0xb4, 0x00, 0xcd, 0x16, // off: mov ah,0; int 16h
	0xba, 0x00, 0x06, 0xb0, 0x34, 0xee, // mov dx,600h; mov al,34h; out dx,al
	0xf4, 0xeb, 0xfd, // hlt
}

// newBootDisk makes a disk that says something when a BIOS boots it.
func newBootDisk(t *testing.T, says string) string {
	t.Helper()
	const sector = 512
	b := make([]byte, 4<<20) // has cylinders, as the BIOS wants
	copy(b, bootSector)
	copy(b[sector-2:], []byte{0x55, 0xaa})
	copy(b[sector:], says)
	path := filepath.Join(t.TempDir(), "boot")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Firmware finds the disk by itself, with all processors started, and what it prints
// is on the console.
func TestFirmware(t *testing.T) {
	disk := newBootDisk(t, "\r\nthe second sector\r\n")
	v, s := vmtest.Boot(t, vmtest.Config{Firmware: seaBIOS, VCPUs: 2, Disks: []vmtest.Disk{{Path: disk}}})
	s.Expect("SeaBIOS (version")
	s.Expect("the second sector")
	s.Type(" ")
	end(t, v, abi.ReasonPoweroff)
}

// iPXE is Debian's.
const iPXE = "/usr/lib/ipxe/ipxe.iso"

// iPXE comes from a disk through the firmware, and its own driver of network cards gets
// an address.
func TestIPXE(t *testing.T) {
	disk := filepath.Join(t.TempDir(), "ipxe")
	if out, err := exec.Command("cp", iPXE, disk).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	tap := newTap(t)
	serveDHCP(t, "vmtest")
	v, s := vmtest.Boot(t, vmtest.Config{Firmware: seaBIOS, Disks: []vmtest.Disk{{Path: disk, ReadOnly: true}}, NICs: []vmtest.NIC{{Tap: tap, MAC: guestMAC}}})
	s.Expect("iPXE initialising devices")
	s.Expect("net0: " + guestAddr + "/255.255.255.0")
	if err := v.Client.Shutdown(v.Context()); err != nil {
		t.Fatal(err)
	}
	end(t, v, abi.ReasonOperator)
}

// debian is the disk that the lab makes: tools/lab/guestdisk.go.
const debian = "build/guest/debian.img"

// bootDebian starts a VM of such a config, and logs in when it may.
func bootDebian(t *testing.T, c vmtest.Config) (*vmtest.VMX, *vmtest.Screen) {
	t.Helper()
	v, s := vmtest.Boot(t, c)
	began := time.Now()
	login(s, c.Console)
	t.Logf("login after %v", time.Since(began))
	s.Type("root\n")
	s.Expect("Password:")
	s.Type("vmctl\n")
	s.Expect("root@guest:~#")
	s.Run("export SYSTEMD_PAGER=cat PS1=; stty -echo; dmesg -n 1")
	return v, s
}

// withDebian is a config with a copy of that disk before its own.
func withDebian(t *testing.T, c vmtest.Config) vmtest.Config { return withImage(t, debian, c) }

func withImage(t *testing.T, image string, c vmtest.Config) vmtest.Config {
	t.Helper()
	disk := filepath.Join(t.TempDir(), "debian")
	if out, err := exec.Command("cp", "--sparse=always", image, disk).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	c.Firmware, c.Memory = seaBIOS, cmp.Or(c.Memory, 256<<20)
	c.Disks = append([]vmtest.Disk{{Path: disk}}, c.Disks...)
	return c
}

// login waits for the question for a name on the VM's console. The serial port shows
// one too.
func login(s *vmtest.Screen, console spec.Console) {
	s.Expect(map[spec.Console]string{spec.Serial: "guest ttyS0", spec.Virtio: "guest hvc0"}[console])
	s.Expect("guest login:")
}

// A whole Debian boots from its disk, by nothing but the firmware, to a login on both
// consoles; it gets an address, is reached by SSH, reboots, is saved and restored under
// load, and powers off when the button is pressed.
func TestDebian(t *testing.T) {
	tap := newTap(t)
	keepTap(t, tap)
	serveDHCP(t, "vmtest")
	c := withDebian(t, vmtest.Config{Console: spec.Virtio})
	c.NICs = []vmtest.NIC{newCard(t, tap)}
	v, s := bootDebian(t, c)
	for _, c := range []struct{ what, command, want string }{
		{"console", "tty", "/dev/hvc0"},
		{"login on the other", "systemctl is-active serial-getty@ttyS0", "active"},
		{"system", "systemctl is-system-running --wait", "running"},
		{"failed units", "systemctl --failed --no-legend", ""},
		{"cloud-init without a seed", "systemctl is-active cloud-init.target", "inactive"},
		{"virtualisation", "systemd-detect-virt", "kvm"},
		{"random writes, read back", "fio --name=x --filename=/var/tmp/x --size=16m --rw=randwrite --bs=4k --verify=crc32c >/dev/null 2>&1 && echo same", "same"},
	} {
		if got := s.Run(c.command); got != c.want {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
	now, err := strconv.ParseInt(s.Run("date +%s"), 10, 64)
	if off := time.Since(time.Unix(now, 0)); err != nil || off.Abs() > 3*time.Second {
		t.Errorf("the guest's clock is %v behind: %v", off, err)
	}
	boots := func() string { return bySSH(t, "cat /proc/sys/kernel/random/boot_id") }
	before := boots()
	if name := bySSH(t, "hostname"); name != "guest\n" {
		t.Errorf("by SSH it is called %q", name)
	}
	for i := range rounds(t, 1) {
		began := time.Now()
		if i == 0 {
			s.Type("reboot\n")
		} else {
			bySSH(t, "systemctl --no-block reboot")
		}
		vmtest.Event[*ctl.GuestReset](v)
		login(s, spec.Virtio)
		t.Logf("reboot: %v", time.Since(began))
		after := boots()
		if after == before {
			t.Errorf("boot %s before and after", after)
		}
		before = after
	}
	v = saveDebian(t, c, v)
	plugDisk(t, v)
	began := time.Now()
	if err := v.Client.PowerButton(v.Context()); err != nil {
		t.Fatal(err)
	}
	end(t, v, abi.ReasonPoweroff)
	t.Logf("off %v after the button", time.Since(began))
}

// TestDebians: each Debian, with its kernel, works on machines small and large, with one
// processor and with four, which take the emulator up to ten minutes each: make soak has
// them.
func TestDebians(t *testing.T) {
	type machine struct {
		kernel string
		vcpus  uint32
		memory uint64
	}
	var machines []machine
	for _, kernel := range []string{"6.1", "6.12", "new"} {
		for _, vcpus := range []uint32{1, 4} {
			machines = append(machines, machine{kernel, vcpus, 256 << 20}, machine{kernel, vcpus, 5 << 30})
		}
	}
	for _, m := range machines {
		t.Run(fmt.Sprintf("%s, %d CPUs, %d MiB", m.kernel, m.vcpus, m.memory>>20), func(t *testing.T) {
			image := strings.TrimSuffix(debian, ".img") + "-" + m.kernel + ".img"
			if m.kernel == "6.12" {
				image = debian
			}
			tap := newTap(t)
			serveDHCP(t, "vmtest")
			v, s := bootDebian(t, withImage(t, image, vmtest.Config{Console: spec.Virtio, VCPUs: m.vcpus, Memory: m.memory, NICs: []vmtest.NIC{newCard(t, tap)}}))
			version := "13"
			if m.kernel == "6.1" {
				version = "12"
			}
			for _, c := range []struct{ what, command, want string }{
				{"Debian", ". /etc/os-release; echo $VERSION_ID", version},
				{"processors", "nproc", strconv.Itoa(int(m.vcpus))},
				{"system", "systemctl is-system-running --wait", "running"},
				{"failed units", "systemctl --failed --no-legend", ""},
				{"random writes, read back", "fio --name=x --filename=/var/tmp/x --size=8m --rw=randwrite --bs=4k --verify=crc32c >/dev/null 2>&1 && echo same", "same"},
				{"stress", "stress-ng --quiet --verify --timeout 3s --cpu " + strconv.Itoa(int(m.vcpus)) + " --vm 1 --vm-bytes 32m --switch 1 >/dev/null 2>&1 && echo fine", "fine"},
				{"address", "ip -4 -o addr show scope global | grep -c ' " + guestAddr + "/'", "1"},
				{"errors of the kernel", "dmesg --kernel --level=emerg,alert,crit,err", ""},
			} {
				if got := s.Run(c.command); got != c.want {
					t.Errorf("%s: %q, want %q", c.what, got, c.want)
				}
			}
			kernel := s.Run("uname -r")
			if m.kernel == "new" == (strings.HasPrefix(kernel, "6.1.") || strings.HasPrefix(kernel, "6.12.")) ||
				m.kernel != "new" && !strings.HasPrefix(kernel, m.kernel+".") {
				t.Errorf("its kernel is %s", kernel)
			}
			if got, most := memTotal(t, s), int(m.memory>>20); got < most*3/4 || got > most {
				t.Errorf("it has %d MiB of %d", got, most)
			}
			if name := bySSH(t, "hostname"); name != "guest\n" {
				t.Errorf("by SSH it is called %q", name)
			}
			if err := v.Client.PowerButton(v.Context()); err != nil {
				t.Fatal(err)
			}
			end(t, v, abi.ReasonPoweroff)
		})
	}
}

// plugDisk lets Debian find a disk that comes, and let go of it.
func plugDisk(t *testing.T, v *vmtest.VMX) {
	t.Helper()
	root := account{guestAddr, "root", ssh.Password("vmctl")}
	path, _ := newDisk(t, diskSize)
	n, err := v.Client.AttachDisk(v.Context(), v.AttachDisk(vmtest.Disk{Path: path, ID: "late"}))
	if err != nil {
		t.Fatal(err)
	}
	if serial := root.run(t, "until [ -b /dev/vdb ]; do sleep 1; done; cat /sys/block/vdb/serial"); serial != "late" {
		t.Errorf("the disk that came has the serial number %q", serial)
	}
	if err := v.Client.Detach(v.Context(), ctl.Detach{Number: n}); err != nil {
		t.Fatal(err)
	}
	vmtest.Event[*ctl.Detached](v)
	root.run(t, "until [ ! -b /dev/vdb ]; do sleep 1; done")
}

// newCard is a network card on a tap, with the host's vhost.
func newCard(t *testing.T, tap *os.File) vmtest.NIC {
	t.Helper()
	vhost, err := os.OpenFile("/dev/vhost-net", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	return vmtest.NIC{Tap: tap, Vhost: vhost, MAC: guestMAC}
}

// saveDebian saves and restores, again and again, a Debian that writes to its disk and
// reads back, and that talks by TCP: it is to notice nothing but the time.
func saveDebian(t *testing.T, c vmtest.Config, v *vmtest.VMX) *vmtest.VMX {
	t.Helper()
	root := account{guestAddr, "root", ssh.Password("vmctl")}
	const fio = "fio --name=x --filename=/var/tmp/x --size=2m --rw=randwrite --bs=4k --direct=1 --ioengine=libaio --iodepth=8 --verify=crc32c"
	root.run(t, "systemd-run --unit=load sh -c 'while "+fio+"; do echo >>/run/good; done'")
	talk, closed := root.talk(t)
	defer closed()
	const state = "cat /proc/sys/kernel/random/boot_id; systemctl is-active load; systemctl --failed --no-legend; dmesg --level=emerg,alert,crit,err"
	before := root.run(t, state)
	for i := range rounds(t, 3) {
		good := root.run(t, "wc -l </run/good")
		began := time.Now()
		files := saveTo(t, v)
		saved := time.Since(began)
		if err := v.VM.Stop(); err != nil {
			t.Fatal(err)
		}
		v.Wait()
		c.NICs = []vmtest.NIC{newCard(t, openTap(t))}
		began = time.Now()
		v, _ = restore(t, c, files)
		talk(fmt.Sprint("round ", i))
		t.Logf("saved in %v, answers by TCP %v after it began to be restored", saved, time.Since(began))
		// What fio checks next was in part written before.
		root.run(t, "until [ $(wc -l </run/good) -gt $(("+strings.TrimSpace(good)+" + 1)) ] || ! systemctl -q is-active load; do sleep 1; done")
		if after := root.run(t, state); after != before {
			t.Fatalf("round %d: before it was\n%s\nand is now\n%s", i, before, after)
		}
		now, err := strconv.ParseInt(strings.TrimSpace(root.run(t, "date +%s")), 10, 64)
		if off := time.Since(time.Unix(now, 0)); err != nil || off.Abs() > 3*time.Second {
			t.Errorf("round %d: the guest's clock is %v behind: %v", i, off, err)
		}
	}
	root.run(t, "systemctl stop load")
	return v
}

// Its cloud-init finds the disk that the daemon makes of a seed, and takes from there its
// name, a user with a key, and its address: nobody answers DHCP here.
func TestDebianSeed(t *testing.T) {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	const addr = "192.168.77.3"
	disk, err := os.Create(filepath.Join(t.TempDir(), "seed"))
	if err != nil {
		t.Fatal(err)
	}
	err = seed.Write(disk, seed.Texts{
		UserData: "#cloud-config\nssh_genkeytypes: [ed25519]\nusers:\n- name: alice\n  ssh_authorized_keys:\n  - " +
			string(ssh.MarshalAuthorizedKey(key.PublicKey())),
		MetaData: seed.DefaultMetaData("00000000-0000-4000-8000-000000000001", "seeded"),
		NetworkConfig: fmt.Sprintf("version: 2\nethernets:\n  nic:\n    match: {macaddress: %q}\n    addresses: [%s/24]\n",
			net.HardwareAddr(guestMAC[:]), addr),
	})
	if err := errors.Join(err, disk.Close()); err != nil {
		t.Fatal(err)
	}
	v, _ := vmtest.Boot(t, withDebian(t, vmtest.Config{Console: spec.Virtio, Memory: 512 << 20, NICs: []vmtest.NIC{{Tap: newTap(t), MAC: guestMAC}},
		Disks: []vmtest.Disk{{Path: disk.Name(), ReadOnly: true, ID: "seed"}}}))
	began := time.Now()
	alice := account{addr, "alice", ssh.PublicKeys(key)}
	name := alice.run(t, "hostname")
	t.Logf("the first login by SSH after %v", time.Since(began))
	if name != "seeded\n" {
		t.Errorf("it is called %q", name)
	}
	if who := alice.run(t, "id -un"); who != "alice\n" {
		t.Errorf("the user is %q", who)
	}
	if got := alice.run(t, "ip -4 -o addr show scope global"); strings.Count(got, "inet ") != 1 || !strings.Contains(got, "inet "+addr+"/24 ") {
		t.Errorf("its addresses are %q", got)
	}
	const result = "/run/cloud-init/result.json" // which cloud-init's own command takes many seconds to read
	got := alice.run(t, "while [ ! -e "+result+" ]; do sleep 0.2; done; cat "+result)
	if !strings.Contains(got, "DataSourceNoCloud [seed=/dev/vdb]") || !strings.Contains(got, `"errors": []`) {
		t.Errorf("cloud-init says:\n%s", got)
	}
	t.Logf("cloud-init is done after %v", time.Since(began))
	if err := v.Client.Shutdown(v.Context()); err != nil {
		t.Fatal(err)
	}
	end(t, v, abi.ReasonOperator)
}

// rounds is how often something is to be done with a Debian: make soak asks for more than
// is usual.
func rounds(t *testing.T, usual int) int {
	t.Helper()
	text := os.Getenv("VMTEST_ROUNDS")
	if text == "" {
		return usual
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Debian's installer starts, by kernel and initramfs, and asks its first question.
func TestInstaller(t *testing.T) {
	const images = "/usr/lib/debian-installer/images/13/amd64/text/debian-installer/amd64/"
	_, s := vmtest.Boot(t, vmtest.Config{Kernel: images + "linux", Initrd: images + "initrd.gz", Memory: 1 << 30, Cmdline: "console=ttyS0 TERM=linux ---"})
	s.Expect("Select a language")
}

// serveDHCP gives who asks on an interface the guest's address.
func serveDHCP(t *testing.T, name string) {
	t.Helper()
	answer := func(conn net.PacketConn, peer net.Addr, m *dhcpv4.DHCPv4) {
		kind := dhcpv4.MessageTypeOffer
		if m.MessageType() == dhcpv4.MessageTypeRequest {
			kind = dhcpv4.MessageTypeAck
		}
		reply, err := dhcpv4.NewReplyFromRequest(m, dhcpv4.WithMessageType(kind),
			dhcpv4.WithYourIP(net.ParseIP(guestAddr)), dhcpv4.WithServerIP(net.ParseIP(hostAddr)),
			dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.ParseIP(hostAddr))),
			dhcpv4.WithNetmask(net.CIDRMask(24, 32)), dhcpv4.WithLeaseTime(3600))
		if err == nil {
			_, err = conn.WriteTo(reply.ToBytes(), peer)
		}
		if err != nil {
			t.Errorf("DHCP: %v", err)
		}
	}
	server, err := server4.NewServer(name, nil, answer)
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() { _ = server.Serve() }) // ends with an error when it is closed
	t.Cleanup(func() { server.Close(); served.Wait() })
}

// bySSH runs a command in the guest as root, when it is there.
func bySSH(t *testing.T, command string) string {
	t.Helper()
	return account{guestAddr, "root", ssh.Password("vmctl")}.run(t, command)
}

// account is a user of a guest.
type account struct {
	addr, user string
	auth       ssh.AuthMethod
}

// run runs a command by SSH, when the guest lets the user in, and returns what it printed.
func (a account) run(t *testing.T, command string) string {
	t.Helper()
	client, session := a.session(t)
	defer client.Close()
	stuck := time.AfterFunc(2*vmtest.Timeout, func() { client.Close() })
	defer stuck.Stop()
	out, err := session.Output(command)
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	return string(out)
}

// talk begins a connection on which the guest answers each line with the same.
func (a account) talk(t *testing.T) (say func(line string), closed func()) {
	t.Helper()
	client, session := a.session(t)
	in, err := session.StdinPipe()
	out, err2 := session.StdoutPipe()
	if err := errors.Join(err, err2, session.Start("cat")); err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewReader(out)
	return func(line string) {
		t.Helper()
		stuck := time.AfterFunc(vmtest.Timeout, func() { client.Close() })
		defer stuck.Stop()
		_, err := fmt.Fprintln(in, line)
		got, err2 := answers.ReadString('\n')
		if err := errors.Join(err, err2); err != nil || got != line+"\n" {
			t.Fatalf("said %q, heard %q: %v", line, got, err)
		}
	}, func() { client.Close() }
}

// dial is ssh.Dial with an end also for a server that accepts and then says nothing.
func (a account) dial(config *ssh.ClientConfig) (*ssh.Client, error) {
	conn, err := net.DialTimeout("tcp", a.addr+":22", config.Timeout)
	if err != nil {
		return nil, err
	}
	stuck := time.AfterFunc(vmtest.Timeout, func() { conn.Close() })
	defer stuck.Stop()
	c, channels, requests, err := ssh.NewClientConn(conn, a.addr, config)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return ssh.NewClient(c, channels, requests), nil
}

func (a account) session(t *testing.T) (*ssh.Client, *ssh.Session) {
	t.Helper()
	config := &ssh.ClientConfig{User: a.user, Auth: []ssh.AuthMethod{a.auth},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: time.Minute} // the key is the disk's, for anyone to read
	var client *ssh.Client
	for deadline := time.Now().Add(vmtest.Timeout); client == nil; time.Sleep(100 * time.Millisecond) {
		var err error
		if client, err = a.dial(config); err != nil && time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	session, err := client.NewSession()
	if err != nil {
		client.Close()
		t.Fatal(err)
	}
	return client, session
}
