// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"vmctl/monitor/ctl"
)

// VsockSocket is where the host's programs connect to the guest's sockets. Behind an
// underscore and a port it is where the guest's find those of the host's.
func (v *VMX) VsockSocket() string { return v.path("v.sock") }

func (v *VMX) listenVsock() *os.File { return v.listen("v.sock", unix.SOCK_STREAM) }

// dialVsock connects for the guest.
func (v *VMX) dialVsock(c *ctl.Client, d *ctl.VsockDial) {
	fd := -1
	conn, err := net.Dial("unix", v.VsockSocket()+"_"+strconv.FormatUint(uint64(d.Port), 10))
	if err == nil {
		defer conn.Close()
		f, err := conn.(*net.UnixConn).File()
		v.must(err)
		defer f.Close()
		fd = int(f.Fd())
	}
	if err := c.VsockDialed(v.Context(), d.Number, fd); err != nil {
		v.t.Log("vsock:", err) // of a monitor that has ended
	}
}
