// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"vmctl/monitor/ctl"
)

// What a guest can cause as often as it likes leaves room for all else, and goes
// nowhere while nobody is connected.
func TestOffersLeaveRoom(t *testing.T) {
	c := newControl(nil, nil)
	if c.offer(ctl.VsockDial{}) {
		t.Error("it is to be told to nobody")
	}
	c.conn = new(ctl.Conn)
	n := 0
	for n <= queue && c.offer(ctl.VsockDial{}) {
		n++
	}
	if n != queue/2 {
		t.Errorf("%d of %d places are taken", n, queue)
	}
	for range queue - n {
		c.event(ctl.GuestReset{})
	}
	if !c.connected() {
		t.Error("the connection is lost")
	}
}
