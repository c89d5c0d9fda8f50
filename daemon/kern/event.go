// SPDX-License-Identifier: Apache-2.0

package kern

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"time"

	"github.com/google/uuid"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"vmctl/abi"
	"vmctl/daemon/vm"
)

// event is a run at the moment of something that happened to it; in the answer
// to vm-get and tomb-get, of nothing.
type event struct {
	position
	run     vm.Run
	kind    abi.Event
	time    uint64    // CLOCK_MONOTONIC in nanoseconds; of a tomb: of its end
	count   uint32    // claims of the monitor that it stands for
	limit   abi.Limit // of EventLimit
	backend uint32    // of EventAttached and EventDetached
}

// List returns all kernel VMs, and the number of the last notice in them.
func (k *Kernel) List(ctx context.Context) ([]vm.Run, uint64, error) {
	at, runs, err := k.all(ctx)
	return runs, at.seq, err
}

func (k *Kernel) all(ctx context.Context) (position, []vm.Run, error) {
	at, events, err := list(ctx, k, query{op: "vm-get", cmd: abi.CmdVMGet, head: headOfVMs}, parseEvent)
	return at, runsOf(events), err
}

// Tombs returns what is left of kernel VMs that are gone, in the order in which
// they went.
func (k *Kernel) Tombs(ctx context.Context) ([]vm.Run, error) {
	_, events, err := list(ctx, k, query{op: "tomb-get", cmd: abi.CmdTombGet, head: headOfVMs}, parseEvent)
	return runsOf(events), err
}

// Tomb returns what is left of one kernel VM. errors.Is: vm.ErrNoRun when it
// never was, still is, or is forgotten.
func (k *Kernel) Tomb(ctx context.Context, id uint64) (vm.Run, error) {
	d, err := k.one(ctx, query{op: "tomb-get", cmd: abi.CmdTombGet, of: abi.AVMID, value: id})
	var e event
	if err == nil {
		e, err = parseEvent(d)
	}
	if err != nil {
		return vm.Run{}, &Error{Op: "tomb-get", VM: id, Err: err}
	}
	return e.run, nil
}

// events returns what the kernel's journal holds after a number.
func (k *Kernel) events(ctx context.Context, since uint64) (position, []event, error) {
	return list(ctx, k, query{op: "event-get", cmd: abi.CmdEventGet, of: abi.AVMEventSeq, value: since, head: headOfVMs}, parseEvent)
}

// Ended returns the runs that ended, as far as the kernel remembers, in the
// order of their ends.
func (k *Kernel) Ended(ctx context.Context) ([]vm.Run, error) {
	tombs, err := k.Tombs(ctx)
	if err != nil {
		return nil, err
	}
	_, events, err := k.events(ctx, 0)
	if err != nil {
		return nil, err
	}
	return ended(tombs, events), nil
}

// ended puts the ends in the journal behind those that are older: they left a
// tomb alone.
func ended(tombs []vm.Run, journal []event) []vm.Run {
	var late []vm.Run
	inJournal := make(map[uint64]bool)
	for _, e := range journal {
		if e.kind == abi.EventStopped {
			late = append(late, e.run)
			inJournal[e.run.ID] = true
		}
	}
	var runs []vm.Run
	for _, r := range tombs {
		if !inJournal[r.ID] {
			runs = append(runs, r)
		}
	}
	return append(runs, late...)
}

func runsOf(events []event) []vm.Run {
	runs := make([]vm.Run, len(events))
	for i := range events {
		runs[i] = events[i].run
	}
	return runs
}

func parseEvent(d *netlink.AttributeDecoder) (event, error) {
	var e event
	words := 0
	for d.Next() {
		switch d.Type() {
		case abi.AVMID:
			e.run.ID = d.Uint64()
		case abi.AVMUUID:
			d.Do(func(b []byte) (err error) { e.run.UUID, err = parseUUID(b); return err })
		case abi.AVMName:
			d.Do(func(b []byte) error { e.run.Name = string(bytes.TrimRight(b, "\x00")); return nil })
		case abi.AVMState:
			e.run.State = runState(abi.VMState(d.Uint32()))
		case abi.AVMPaused:
			e.run.Paused = holders(abi.Pause(d.Uint32()))
		case abi.AVMReason:
			r := abi.Reason(d.Uint32())
			e.run.Reason, e.run.Claimed = stopReason(r), r.Claimed()
		case abi.AVMExitData:
			d.Do(func(b []byte) error { words += copyWords(e.run.Data[words:], b); return nil })
		case abi.AVMMonitor:
			e.run.Monitor = int(d.Uint32())
		case abi.AVMEvent:
			e.kind = abi.Event(d.Uint32())
		case abi.AVMEventTime:
			e.time = d.Uint64()
		case abi.AVMEventCount:
			e.count = d.Uint32()
		case abi.AVMLimit:
			e.limit = abi.Limit(d.Uint32())
		case abi.AVMBackend:
			e.backend = d.Uint32()
		case abi.AVMEventSeq:
			e.seq = d.Uint64()
		case abi.AVMInstance:
			e.instance = d.Uint64()
		}
	}
	if err := d.Err(); err != nil {
		return event{}, err
	}
	if e.run.ID == 0 || e.run.UUID == "" {
		return event{}, errAttrs
	}
	if e.time != 0 && e.run.State == vm.RunStopped && (e.kind == 0 || e.kind == abi.EventStopped) {
		ended, err := wallTime(e.time)
		if err != nil {
			return event{}, err
		}
		e.run.Ended = ended
	}
	return e, nil
}

// wallTime is the time of day at which CLOCK_MONOTONIC said so many nanoseconds.
// That clock stands still while the host sleeps: what was before such a sleep
// comes out later than it was.
func wallTime(ns uint64) (time.Time, error) {
	var mono unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &mono); err != nil {
		return time.Time{}, os.NewSyscallError("clock_gettime", err)
	}
	return time.Now().Add(time.Duration(int64(ns) - mono.Nano())).Round(0), nil
}

func parseUUID(b []byte) (string, error) {
	u, err := uuid.FromBytes(b)
	if err != nil {
		return "", fmt.Errorf("attribute uuid: %w", err)
	}
	return u.String(), nil
}

// copyWords takes u64 words, one or more in an attribute.
func copyWords(to []uint64, b []byte) int {
	n := 0
	for ; n < len(to) && len(b) >= 8; n++ {
		to[n] = binary.NativeEndian.Uint64(b)
		b = b[8:]
	}
	return n
}
