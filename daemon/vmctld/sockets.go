// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"

	"vmctl/daemon/api"
	"vmctl/daemon/auth"
	"vmctl/daemon/rest"
	"vmctl/daemon/store"
)

// sockets are where the daemon is reached.
type sockets struct {
	api, front, metrics *net.UnixListener // front is nil without a key
	identify            rest.Identify     // of front
}

func openSockets(o *options, group int, sessions *auth.Sessions, log *slog.Logger) (*sockets, error) {
	s := &sockets{}
	var err error
	if s.api, err = listen(o.runDir, "api.sock", group); err != nil {
		return nil, err
	}
	if s.metrics, err = listen(o.runDir, "metrics.sock", group); err != nil {
		s.close()
		return nil, err
	}
	if o.frontKey == "" {
		log.Warn("no key for the front door: front.sock is not served", "op", "start")
		return s, nil
	}
	if s.identify, err = openFront(o, sessions); err == nil {
		s.front, err = listenFront(o, group, log)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func openFront(o *options, sessions *auth.Sessions) (rest.Identify, error) {
	uid, err := userID(o.vmhttpUser)
	if err != nil {
		return nil, fmt.Errorf("--vmhttp-user: %w", err)
	}
	f, err := auth.OpenFront(o.frontKey, uid, sessions, time.Now)
	if err != nil {
		return nil, err
	}
	return f.Identify, nil
}

// listenFront gives the socket to vmhttp's own group, which takes membership
// in it, or CAP_CHOWN; without either to the group of api.sock. What admits is
// vmhttp's user id and its signature.
func listenFront(o *options, group int, log *slog.Logger) (*net.UnixListener, error) {
	own := group
	if u, err := user.Lookup(o.vmhttpUser); err == nil {
		if id, err := strconv.Atoi(u.Gid); err == nil {
			own = id
		}
	}
	l, err := listen(o.runDir, "front.sock", own)
	if errors.Is(err, fs.ErrPermission) && own != group {
		log.Warn("not a member of vmhttp's group: front.sock is for the group of api.sock", "op", "start")
		return listen(o.runDir, "front.sock", group)
	}
	return l, err
}

// listen makes a socket that its group may use. Until chmod, the umask keeps
// all others away from it.
func listen(dir, name string, group int) (*net.UnixListener, error) {
	path := filepath.Join(dir, name)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	if group >= 0 {
		err = os.Chown(path, -1, group)
	}
	if err = errors.Join(err, os.Chmod(path, 0o660)); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

func (s *sockets) close() {
	for _, l := range []*net.UnixListener{s.api, s.front, s.metrics} {
		if l != nil {
			l.Close() // a second Close is refused, and harmless
		}
	}
}

// groupID returns -1 for a group that this host does not have: sockets are then
// the daemon's own.
func groupID(name string, log *slog.Logger) (int, error) {
	if id, err := strconv.Atoi(name); err == nil {
		return id, nil
	}
	g, err := user.LookupGroup(name)
	var unknown user.UnknownGroupError
	if errors.As(err, &unknown) {
		log.Warn("no such group: sockets are for the daemon's own user and root", "op", "start", "group", name)
		return -1, nil
	}
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(g.Gid)
}

func userID(name string) (uint32, error) {
	text := name
	if u, err := user.Lookup(name); err == nil {
		text = u.Uid
	}
	id, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("no user %q on this host", name)
	}
	return uint32(id), nil
}

// openGrants keeps the grants of the command line and returns who decides. The
// first administrators need no row: the superuser and the group.
func openGrants(ctx context.Context, o *options, st *store.Store) (*auth.Authorizer, error) {
	rows := make([]store.Grant, 0, len(o.grants))
	for _, g := range o.grants {
		rows = append(rows, store.Grant{Principal: string(g.Principal), Scope: g.Scope, Role: string(g.Role)})
	}
	if len(rows) > 0 {
		if err := st.PutGrants(ctx, rows); err != nil {
			return nil, err
		}
	}
	kept, err := st.Grants(ctx)
	if err != nil {
		return nil, err
	}
	grants := []auth.Grant{
		{Principal: auth.UnixUser(0), Scope: auth.AllVMs, Role: api.RoleAdmin},
		{Principal: auth.UnixGroup(o.adminGroup), Scope: auth.AllVMs, Role: api.RoleAdmin},
	}
	for _, g := range kept {
		grants = append(grants, auth.Grant{Principal: auth.Principal(g.Principal), Scope: g.Scope, Role: api.Role(g.Role)})
	}
	return auth.NewAuthorizer(grants, rest.Denied), nil
}
