// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"os/user"
	"strconv"

	"vmctl/daemon/auth/peer"
)

// Local is a caller on this host, known by its socket. Groups are looked up
// once per connection; one without a name is told by its number, and no grant
// can be on it by accident: names do not begin with "#".
func Local(cred peer.Cred) *Caller {
	c := &Caller{Principal: UnixUser(cred.UID), PeerUID: cred.UID}
	seen := make(map[uint32]bool, len(cred.GIDs))
	for _, gid := range cred.GIDs {
		if !seen[gid] {
			seen[gid] = true
			c.Groups = append(c.Groups, UnixGroup(groupName(gid)))
		}
	}
	return c
}

func groupName(gid uint32) string {
	id := strconv.FormatUint(uint64(gid), 10)
	if g, err := user.LookupGroupId(id); err == nil {
		return g.Name
	}
	return "#" + id
}
