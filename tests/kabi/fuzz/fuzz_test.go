// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"vmctl/abi"
)

// intended is what a thread intends at first.
func intended(seed uint64, n name, count int) string {
	var b strings.Builder
	g := newGen(seed, n)
	for range count {
		fmt.Fprintln(&b, g.next())
	}
	return b.String()
}

// TestSameSeedSameCalls holds the generator to what -print promises.
func TestSameSeedSameCalls(t *testing.T) {
	n := name{1, 7, 2}
	first := intended(5, n, 20000)
	if again := intended(5, n, 20000); again != first {
		t.Error("the same seed gave other calls")
	}
	for _, other := range []string{
		intended(6, n, 100), intended(5, name{2, 7, 2}, 100), intended(5, name{1, 8, 2}, 100), intended(5, name{1, 7, 1}, 100),
	} {
		if strings.HasPrefix(first, other) {
			t.Error("another thread or seed gave the same calls")
		}
	}
}

// TestEveryOperationComes also looks at arguments: each fits, and says its size
// unless it was broken.
func TestEveryOperationComes(t *testing.T) {
	seen := map[string]int{}
	for thread := range 3 {
		g := newGen(1, name{0, 1, thread})
		for range 100_000 {
			c := g.next()
			seen[c.of.name]++
			if len(c.arg) > maxArg || int(c.on.slot) >= slots || c.on.kind >= kinds {
				t.Fatalf("%v: does not fit", c)
			}
			if g.step.clean && c.of.req != 0 && len(c.arg) > 0 && binary.LittleEndian.Uint32(c.arg) != uint32(len(c.arg)) {
				t.Fatalf("%v: wrong size", c)
			}
		}
	}
	for i := range ops {
		if seen[ops[i].name] == 0 {
			t.Errorf("%s never came", ops[i].name)
		}
	}
}

// TestBounds keeps the boards large enough, and the names apart.
func TestBounds(t *testing.T) {
	if len(ops) > maxOps || len(opNamed) != len(ops) {
		t.Errorf("%d operations with %d names, room for %d", len(ops), len(opNamed), maxOps)
	}
	for k, n := range used {
		if n < 1 || n > slots {
			t.Errorf("kind %s uses %d places of %d", kindNames[k], n, slots)
		}
	}
	if end := codeAddr + len(programs)*codeEach; end > dataAddr {
		t.Errorf("programs reach up to %#x, data begins at %#x", end, dataAddr)
	}
	for i, p := range programs {
		if len(p) > codeEach {
			t.Errorf("program %d has %d bytes", i, len(p))
		}
	}
}

// TestCommandsOfTheHeader finds commands of vmm.h that nobody gives.
func TestCommandsOfTheHeader(t *testing.T) {
	golden, err := os.ReadFile("../../../abi/layout.golden")
	if err != nil {
		t.Fatal(err)
	}
	given := map[uintptr]bool{}
	for i := range ops {
		given[ops[i].req] = true
	}
	n := 0
	for line := range strings.Lines(string(golden)) {
		var name string
		var req uintptr
		if _, err := fmt.Sscanf(line, "const VMM_IOC_%s %v", &name, &req); err != nil || name == "MAGIC" {
			continue
		}
		if n++; !given[req] {
			t.Errorf("%s (%#x) is given by no operation", name, req)
		}
	}
	if n < 30 {
		t.Errorf("only %d commands in the golden", n)
	}
}

// TestTame looks for messages that bring a vCPU into system management mode.
func TestTame(t *testing.T) {
	arg := make([]byte, headSize+int(unsafe.Sizeof(abi.KVMMSI{})))
	arg[4] = abi.SignalMSI
	at := headSize + int(unsafe.Offsetof(abi.KVMMSI{}.Data))
	binary.LittleEndian.PutUint32(arg[at:], deliverySMI|0x40)
	tame(abi.IOCVMSignal, arg)
	if got := binary.LittleEndian.Uint32(arg[at:]); got != 0x40 {
		t.Errorf("data %#x, want 0x40", got)
	}
	for n := range len(arg) { // of any length
		tame(abi.IOCVMSetRoutes, arg[:n])
		tame(abi.IOCVCPUSetRegs, arg[:n])
	}
}

func TestOutcome(t *testing.T) {
	message := func(kind uint16, code int32) []byte {
		b := make([]byte, unix.SizeofNlMsghdr+4)
		binary.LittleEndian.PutUint32(b, uint32(len(b)))
		binary.LittleEndian.PutUint16(b[4:], kind)
		binary.LittleEndian.PutUint32(b[unix.SizeofNlMsghdr:], uint32(code))
		return b
	}
	data := message(0x20, 0)
	for _, tt := range []struct {
		answer []byte
		errno  unix.Errno
		ended  bool
	}{
		{nil, 0, false},
		{data, 0, false},
		{append(data, message(unix.NLMSG_DONE, 0)...), 0, true},
		{message(unix.NLMSG_ERROR, -int32(unix.ENOENT)), unix.ENOENT, true},
		{append([]byte{3}, make([]byte, 30)...), 0, false},
	} {
		if errno, ended := outcome(tt.answer); errno != tt.errno || ended != tt.ended {
			t.Errorf("%x: %v %v, want %v %v", tt.answer, errno, ended, tt.errno, tt.ended)
		}
	}
}

func BenchmarkNext(b *testing.B) {
	g := newGen(1, name{0, 1, 1})
	b.ReportAllocs()
	for b.Loop() {
		g.next()
	}
}
