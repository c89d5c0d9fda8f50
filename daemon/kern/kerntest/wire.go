// SPDX-License-Identifier: Apache-2.0

package kerntest

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"vmctl/abi"
)

const maxMessage = 64 << 10

// message is what travels on every socket but those of netlink, both ways.
type message struct {
	Op      string          `json:"op,omitempty"`
	Errno   unix.Errno      `json:"errno,omitempty"`
	UUID    uuid.UUID       `json:"uuid"`
	Name    string          `json:"name,omitempty"`
	ID      uint64          `json:"id,omitempty"`
	Rights  abi.Right       `json:"rights,omitempty"`
	PID     uint32          `json:"pid,omitempty"`
	Index   uint32          `json:"index,omitempty"`
	Holder  abi.Pause       `json:"holder,omitempty"`
	Kind    abi.BackendKind `json:"kind,omitempty"`
	Roles   []abi.Role      `json:"roles,omitempty"`
	Backend uint32          `json:"backend,omitempty"`
	Reason  abi.Reason      `json:"reason,omitempty"`
	Data    [4]uint64       `json:"data"`
	Config  abi.VMConfigSet `json:"config"`
	Info    *abi.VMInfo     `json:"info,omitempty"`
	Stats   *abi.VMStats    `json:"stats,omitempty"`
	VCPU    *abi.VCPUStats  `json:"vcpu,omitempty"`

	files []*os.File // that go with it
}

// send writes a message with descriptors.
func send(c *net.UnixConn, m message, files ...*os.File) error {
	var fds []int
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	return sendFDs(c, m, fds)
}

func sendFDs(c *net.UnixConn, m message, fds []int) error {
	raw, err := json.Marshal(&m)
	if err != nil {
		return err
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	_, _, err = c.WriteMsgUnix(raw, oob, nil)
	return err
}

// receive reads a message and its descriptors.
func receive(c *net.UnixConn) (message, []*os.File, error) {
	var m message
	buf, oob := make([]byte, maxMessage), make([]byte, 256)
	n, on, _, _, err := c.ReadMsgUnix(buf, oob)
	if err != nil {
		return m, nil, err
	}
	if n == 0 {
		return m, nil, io.EOF
	}
	files, err := descriptors(oob[:on])
	return m, files, errors.Join(err, json.Unmarshal(buf[:n], &m))
}

func descriptors(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	parts, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for i := range parts {
		fds, err := unix.ParseUnixRights(&parts[i])
		if err != nil {
			return files, err
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "fake-vm"))
		}
	}
	return files, nil
}

// fileConn makes a connection of a socket's file, which it closes.
func fileConn(f *os.File) (*net.UnixConn, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}
