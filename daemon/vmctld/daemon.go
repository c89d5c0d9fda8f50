// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"vmctl/daemon/auth"
	"vmctl/daemon/event"
	"vmctl/daemon/kern"
	"vmctl/daemon/launch"
	"vmctl/daemon/metrics"
	"vmctl/daemon/network"
	"vmctl/daemon/rest"
	"vmctl/daemon/store"
	"vmctl/daemon/task"
	"vmctl/daemon/vm"
)

const (
	trimPeriod   = 10 * time.Minute
	updatesQueue = 256 // notices of the kernel that wait for the inventory
)

// module is the kernel module, real or fake.
type module interface {
	vm.Kernel
	Watch(ctx context.Context, updates chan<- vm.Update)
	Facts(ctx context.Context) (kern.Facts, error)
}

// serve puts the parts together, from the disk up to the sockets, and takes
// them apart in reverse. It may end at any point without a word: the next start
// compares record, kernel and monitors.
func serve(ctx context.Context, o *options, kernel module) (err error) {
	log := newLog(o)
	if unix.Geteuid() == 0 && !o.unconfined {
		log.Warn("running as root: meant for development; a user with capabilities is enough", "op", "start")
	}
	unlock, err := prepare(o)
	if err != nil {
		return err
	}
	defer unlock()
	boot, err := vm.OpenFolder(o.bootDir)
	if err != nil {
		return err
	}
	defer boot.Close()
	disks, err := vm.OpenFolder(o.diskDir)
	if err != nil {
		return err
	}
	defer disks.Close()
	overlays, err := vm.OpenFolder(filepath.Join(o.stateDir, "overlays"))
	if err != nil {
		return err
	}
	defer overlays.Close()
	st, err := store.Open(ctx, filepath.Join(o.stateDir, "vmctl.db"), time.Now)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	journal, err := event.New(ctx, st)
	if err != nil {
		return err
	}
	st.Tell(journal.Publish)
	group, err := groupID(o.group, log)
	if err != nil {
		return err
	}
	admins, err := groupID(o.adminGroup, log)
	if err != nil {
		return err
	}
	launcher, err := launch.New(launch.Config{VMX: o.vmx, RunDir: o.runDir, StateDir: o.stateDir, Group: group, Admins: admins,
		Cgroup: o.cgroupDir(), Unconfined: o.unconfined, Log: log})
	if err != nil {
		return err
	}
	board := task.NewBoard(st)
	inv := vm.New(vm.Config{Kernel: kernel, Launcher: launcher, Network: o.network(), Store: st, Board: board, Boot: boot, Disks: disks, Overlays: overlays, Saves: filepath.Join(o.stateDir, "saves"), Firmware: o.firmware,
		FirstUID: o.firstUID, LastUID: o.lastUID, Version: version, Log: log, Now: now})
	sessions, err := auth.OpenSessions(ctx, st, inv.EndSession, time.Now, log)
	if err != nil {
		return err
	}
	authorizer, err := openGrants(ctx, o, st)
	if err != nil {
		return err
	}
	meter := metrics.New(version, st)
	server := rest.New(rest.Config{Machines: inv, Tasks: tasks{board, st}, Journal: journal, Host: newHost(kernel),
		Sessions: sessions, Auth: authorizer, Replay: st, Audit: st, Log: log, Now: time.Now, Observe: meter.Observe})
	sockets, err := openSockets(o, group, sessions, log)
	if err != nil {
		return err
	}
	defer sockets.close()

	g, ctx := errgroup.WithContext(ctx)
	defer inv.Wait()
	if err := inv.Start(ctx); err != nil {
		return err
	}
	updates := make(chan vm.Update, updatesQueue)
	g.Go(func() error { kernel.Watch(ctx, updates); return nil })
	g.Go(func() error { inv.Follow(updates); return nil })
	g.Go(func() error { sessions.Run(ctx); return nil })
	g.Go(func() error { trim(ctx, st, log); return nil })
	g.Go(func() error { server.Watch(ctx); return nil })
	g.Go(func() error { return rest.ServeHandler(ctx, sockets.metrics, meter.Handler(), log) })
	g.Go(func() error { return server.Serve(ctx, sockets.api, rest.Local) })
	if sockets.front != nil {
		g.Go(func() error { return server.Serve(ctx, sockets.front, sockets.identify) })
	}
	notify(log, daemon.SdNotifyReady)
	log.Info("ready", "op", "start", "version", version, "socket", sockets.api.Addr().String(), "front", sockets.front != nil)
	<-ctx.Done()
	notify(log, daemon.SdNotifyStopping)
	return g.Wait()
}

// now is the time of records: UTC in milliseconds, as the database keeps it.
func now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }

func newLog(o *options) *slog.Logger {
	level := slog.LevelInfo
	if o.debug {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
}

func notify(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("service manager not told", "op", "notify", "err", err)
	}
}

// prepare makes the folders that are the daemon's own and takes the lock that
// keeps a second daemon away from them.
func prepare(o *options) (unlock func(), err error) {
	for dir, mode := range map[string]fs.FileMode{o.runDir: 0o751, o.stateDir: 0o700} {
		if err := os.Mkdir(dir, mode); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	for dir, mode := range map[string]fs.FileMode{"boot": 0o755, "disks": 0o700, "overlays": 0o700} {
		if err := os.Mkdir(filepath.Join(o.stateDir, dir), mode); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	f, err := os.OpenFile(filepath.Join(o.stateDir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	// Not flock: a child of a daemon that was killed between fork and exec would
	// still hold it. This lock is the process's own.
	if err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: another vmctld runs here: %w", o.stateDir, err)
	}
	return func() { f.Close() }, nil
}

// network are the host's bridges, or what tests have instead.
func (o *options) network() vm.Network {
	if o.testNetwork != nil {
		return o.testNetwork
	}
	return network.New(o.bridges)
}

func (o *options) cgroupDir() string {
	switch o.cgroup {
	case "none":
		return ""
	case "auto":
		return launch.FindCgroup()
	default:
		return o.cgroup
	}
}

func trim(ctx context.Context, st *store.Store, log *slog.Logger) {
	tick := time.NewTicker(trimPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := st.Trim(ctx); err != nil && ctx.Err() == nil {
				log.Error("record not trimmed", "op", "trim", "err", err)
			}
		}
	}
}
