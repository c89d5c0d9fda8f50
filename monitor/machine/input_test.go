// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"testing"
	"time"

	"vmctl/monitor/legacy"
	"vmctl/monitor/virtio/console"
	"vmctl/monitor/virtio/virtiotest"
)

// TestInputMovesToTheConsole: who waits for room in the serial port, which nobody
// reads, is told when hvc0's driver takes input.
func TestInputMovesToTheConsole(t *testing.T) {
	room := make(chan struct{}, 8)
	call := func() { room <- struct{}{} }
	m := &Machine{hvc: console.New(func(byte) {}, call), uart: legacy.NewUART(func(byte) {}, func(bool) {}, call)}
	p := make([]byte, 1<<16)
	if n := m.Receive(p); n == 0 || n == len(p) {
		t.Fatalf("the serial port took %d of %d bytes", n, len(p))
	}
	virtiotest.New(t, m.hvc, 0)
	select {
	case <-room:
	case <-time.After(10 * time.Second):
		t.Error("the writer was not told")
	}
	if n := m.Receive(p); n != 0 {
		t.Errorf("%d bytes went into no buffer", n)
	}
}
