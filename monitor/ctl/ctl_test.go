// SPDX-License-Identifier: Apache-2.0

package ctl_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/abi"
	"vmctl/monitor/ctl"
	"vmctl/monitor/rate"
	"vmctl/monitor/spec"
	"vmctl/monitor/wire"
)

var aSpec = spec.Spec{VCPUs: 2, MemoryBytes: 64 << 20, Cmdline: "quiet", OnReset: spec.Stop, Disks: []spec.Disk{{Backend: 1, ID: "root"}}}

// messages has one of each that has fields, and some without.
var messages = []ctl.Message{
	&ctl.Hello{}, &ctl.Configure{Spec: aSpec}, &ctl.Restore{Spec: aSpec}, &ctl.Save{}, &ctl.Start{}, &ctl.Status{}, &ctl.PowerButton{}, &ctl.Reset{}, &ctl.Shutdown{},
	&ctl.ConsoleGrant{TokenHash: [32]byte{1, 31: 2}, Session: "s", User: "local:admin", ExpiresUnix: 1 << 41, Mode: ctl.ReadOnly},
	&ctl.ConsoleClose{Session: "s", User: "u", Reason: "logged out"},
	&ctl.HelloReply{Protocol: 1, Version: "v0", State: ctl.Running},
	&ctl.StatusReply{State: ctl.Running, Reason: abi.ReasonReset, Resets: 3, VCPUs: 4, MemoryBytes: 5 << 30, ConsoleViewers: 6},
	&ctl.DiskSwitch{Disk: 3, Backend: 9}, &ctl.DiskMerge{Disk: 3, Do: ctl.MergeBegin},
	&ctl.DiskMergeReply{State: ctl.MergeFailed, Done: 1, Total: 1 << 40, Backends: []uint32{9, 4}, Text: "no room"},
	&ctl.GuestReset{Count: 7}, &ctl.Balloon{Target: 1 << 33}, &ctl.BalloonReply{Target: 1 << 33, Actual: 4096, Memory: ctl.GuestMemory{Total: 1, Free: 2, Available: 3, Caches: 4, MajorFaults: 5}},
	&ctl.VMStopped{Reason: abi.ReasonPanic, Data: [4]uint64{1, 2, 3, 4}, Text: "panic"},
	&ctl.ConsoleOpened{Viewer: 1, Session: "s", User: "u", Address: "192.0.2.1", Mode: ctl.ReadWrite},
	&ctl.ConsoleClosed{Viewer: 1, Session: "s", User: "u", Reason: "slow"},
	&ctl.DeviceBroken{Device: "disk0", Text: "loop"}, &ctl.VsockDial{Number: 8, Port: 1 << 31}, &ctl.VsockDialed{Number: 9},
	&ctl.AttachDisk{Disk: spec.Disk{Backend: 7, ReadOnly: true, ID: "x", Format: spec.QCOW2, Backing: []spec.Format{spec.Raw}, Limit: rate.Limit{Ops: 5}}},
	&ctl.AttachNIC{NIC: spec.NIC{Backend: 8, MAC: [6]byte{2, 0, 0, 0, 0, 1}, Send: rate.Limit{Ops: 5}, Down: true}},
	&ctl.Detach{IsNIC: true, Number: 3},
	&ctl.Detached{Number: 4},
	&ctl.SetDisk{Disk: 3, Limit: rate.Limit{Bytes: 1 << 20, Ops: 100, Burst: 50}},
	&ctl.SetNIC{NIC: 2, Receive: rate.Limit{Bytes: 1 << 20}, Send: rate.Limit{Ops: 5}, Down: true},
}

func TestMessagesComeBack(t *testing.T) {
	for _, m := range messages {
		p := ctl.Packet{ID: 5, Body: m}
		got, err := ctl.Parse(p.Append(nil))
		if err != nil || got.ID != 5 || !reflect.DeepEqual(got.Body, m) {
			t.Errorf("%T: got %+v, %v", m, got.Body, err)
		}
	}
}

func TestEveryCutAndEveryExtraByteIsRefused(t *testing.T) {
	for _, m := range messages {
		p := ctl.Packet{ID: 5, Body: m}
		msg := p.Append(nil)
		for n := range msg {
			if _, err := ctl.Parse(msg[:n]); err == nil {
				t.Errorf("%T: %d of %d bytes are accepted", m, n, len(msg))
			}
		}
		if _, err := ctl.Parse(append(msg, 0)); !errors.Is(err, ctl.ErrLength) {
			t.Errorf("%T with one more byte: %v", m, err)
		}
	}
}

func TestBadPackets(t *testing.T) {
	p := ctl.Packet{ID: 5, Body: &ctl.Hello{}}
	msg := p.Append(nil)
	for _, c := range []struct {
		name string
		at   int
		to   byte
		want error
	}{
		{"other version", 0, 2, ctl.ErrVersion},
		{"unknown type", 2, 99, ctl.ErrType},
		{"reply to nothing", 3, 0x80 | 1, ctl.ErrType},
		{"other length", 12, 1, ctl.ErrLength},
	} {
		b := bytes.Clone(msg)
		b[c.at] = c.to
		if _, err := ctl.Parse(b); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

func TestSpecErrorsReachTheReader(t *testing.T) {
	s := aSpec
	s.Cmdline = strings.Repeat("x", 4000)
	p := ctl.Packet{ID: 9, Body: ctl.Configure{Spec: s}}
	got, err := ctl.Parse(p.Append(nil))
	if !errors.Is(err, spec.ErrCmdline) || got.ID != 9 {
		t.Errorf("got id %d, %v", got.ID, err)
	}
}

func TestGrantOfNoMode(t *testing.T) {
	p := ctl.Packet{ID: 9, Body: ctl.ConsoleGrant{}}
	if _, err := ctl.Parse(p.Append(nil)); !errors.Is(err, wire.ErrValue) {
		t.Errorf("got %v", err)
	}
}

// pair returns a client and the other end.
func pair(t *testing.T, events func(ctl.Message)) (*ctl.Client, *ctl.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	server, err := ctl.NewConn(fds[1])
	if err != nil {
		t.Fatal(err)
	}
	client, err := ctl.NewClient(fds[0], events)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestCallCarriesDescriptors(t *testing.T) {
	client, server := pair(t, nil)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	go func() {
		p, fds, err := server.Recv()
		if err != nil || len(fds) != 2 {
			server.Send(ctl.Refusal(&p, &ctl.Error{Code: ctl.DescriptorWrong, Text: "count"}))
			return
		}
		unix.Write(fds[1], []byte("hello"))
		ctl.CloseAll(fds)
		server.Send(ctl.Packet{ID: p.ID, Body: ctl.DoneWith(p.Body)})
	}()
	err = client.Configure(deadline(t), aSpec, int(r.Fd()), int(w.Fd()), -1, -1)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); string(got) != "hello" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestRefusalIsAnError(t *testing.T) {
	client, server := pair(t, nil)
	go func() {
		p, _, _ := server.Recv()
		server.Send(ctl.Refusal(&p, &ctl.Error{Code: ctl.StateConflict, Text: "not now"}))
	}()
	err := client.Start(deadline(t))
	if !errors.Is(err, &ctl.Error{Code: ctl.StateConflict}) || err.Error() != "stateConflict: not now" {
		t.Errorf("got %v", err)
	}
}

func TestEventsArriveInOrder(t *testing.T) {
	got := make(chan uint32, 4)
	_, server := pair(t, func(m ctl.Message) { got <- m.(*ctl.GuestReset).Count })
	for i := range uint32(3) {
		if err := server.Send(ctl.Packet{Body: ctl.GuestReset{Count: i}}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range uint32(3) {
		if n := <-got; n != i {
			t.Errorf("event %d came as %d", i, n)
		}
	}
}

func TestCallEndsWhenTheMonitorGoes(t *testing.T) {
	client, server := pair(t, nil)
	go func() {
		server.Recv()
		server.Close()
	}()
	if err := client.Start(deadline(t)); !errors.Is(err, ctl.ErrGone) {
		t.Errorf("got %v", err)
	}
	<-client.Done()
	if err := client.Err(); !errors.Is(err, io.EOF) {
		t.Errorf("connection ended with %v", err)
	}
	if err := client.Start(deadline(t)); !errors.Is(err, ctl.ErrGone) {
		t.Errorf("second call: %v", err)
	}
}

func TestCloseEndsRecv(t *testing.T) {
	_, server := pair(t, nil)
	ended := make(chan error)
	go func() {
		_, _, err := server.Recv()
		ended <- err
	}()
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, os.ErrClosed) {
		t.Errorf("Recv ended with %v", err)
	}
	if err := server.Send(ctl.Packet{Body: ctl.GuestReset{}}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Send says %v", err)
	}
}

func TestOversizedPacketIsRefused(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	conn, err := ctl.NewConn(fds[1])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := unix.Sendto(fds[0], make([]byte, ctl.MaxMessage+1), 0, nil); err == nil {
		if _, _, err := conn.Recv(); !errors.Is(err, ctl.ErrTruncated) {
			t.Errorf("got %v", err)
		}
	}
}

func TestSurplusDescriptorsAreClosed(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	conn, err := ctl.NewConn(fds[1])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	many := make([]int, ctl.MaxFDs+2)
	for i := range many {
		many[i] = int(w.Fd())
	}
	if err := unix.Sendmsg(fds[0], []byte("x"), unix.UnixRights(many...), nil, 0); err != nil {
		t.Fatal(err)
	}
	if _, _, err := conn.Recv(); !errors.Is(err, ctl.ErrTruncated) {
		t.Errorf("got %v", err)
	}
	w.Close()
	if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("a descriptor is still open: %d, %v", n, err)
	}
}

func FuzzParse(f *testing.F) {
	for _, m := range messages {
		p := ctl.Packet{ID: 5, Body: m}
		f.Add(p.Append(nil))
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		p, err := ctl.Parse(msg)
		if err != nil {
			return
		}
		again, err := ctl.Parse(p.Append(nil))
		if err != nil || !reflect.DeepEqual(p, again) {
			t.Fatalf("%+v does not come back: %+v, %v", p, again, err)
		}
	})
}

// Each code has a name.
func TestCodes(t *testing.T) {
	seen := map[string]bool{}
	for c := ctl.OK; c <= ctl.BackingInvalid; c++ {
		if name := c.String(); name == "" || strings.HasPrefix(name, "code ") || seen[name] {
			t.Errorf("code %d is %q", uint32(c), name)
		} else {
			seen[name] = true
		}
	}
}
