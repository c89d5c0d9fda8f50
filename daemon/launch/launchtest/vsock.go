// SPDX-License-Identifier: Apache-2.0

package launchtest

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/monitor/ctl"
)

// What the guest's sockets do: it listens on EchoPort, and what Calls says goes to
// CallsPort of the host's.
const (
	EchoPort  = 7
	CallsPort = 77
	CallsText = "hello from the guest\n"
)

// acceptVsock serves the host's programs.
func acceptVsock(listener int) {
	for {
		fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		if err == unix.EINTR || err == unix.ECONNABORTED {
			continue
		}
		if err != nil {
			return
		}
		go echo(os.NewFile(uintptr(fd), "vsock"))
	}
}

func echo(f *os.File) {
	defer f.Close()
	var port uint32
	if _, err := fmt.Fscanf(f, "CONNECT %d\n", &port); err != nil || port != EchoPort {
		return
	}
	fmt.Fprintf(f, "OK %d\n", 1<<30) // who hung up does not hear it
	io.Copy(f, f)
}

// calls asks for connections until the process ends.
func (s *stub) calls() {
	for n := uint32(1); ; n++ {
		s.tell(&ctl.VsockDial{Number: n, Port: CallsPort})
		time.Sleep(10 * time.Millisecond)
	}
}

// dialed speaks to who listens.
func (s *stub) dialed(fds []int) {
	for _, fd := range fds {
		f := os.NewFile(uintptr(fd), "vsock")
		io.WriteString(f, CallsText) // who hung up does not hear it
		f.Close()
	}
}
