// SPDX-License-Identifier: Apache-2.0

package peer_test

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"vmctl/daemon/auth/peer"
)

func TestOf(t *testing.T) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	c, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	cred, err := peer.Of(c)
	if err != nil {
		t.Fatal(err)
	}
	groups, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	if cred.UID != uint32(os.Getuid()) || cred.PID != int32(os.Getpid()) || cred.GIDs[0] != uint32(os.Getgid()) || len(cred.GIDs) != len(groups)+1 {
		t.Errorf("%+v, groups %v", cred, groups)
	}
	for _, g := range groups {
		if !slices.Contains(cred.GIDs, uint32(g)) {
			t.Errorf("group %d is missing", g)
		}
	}
	c.Close()
	if _, err := peer.Of(c); err == nil {
		t.Error("a closed connection has a peer")
	}
}
