// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/daemon/api"
)

// A snapshot of a disk is a new overlay above it, in a file of the daemon's own; a merge
// is the way back. What is recorded can be the disk at any moment, whatever is cut off:
//
//	snapshot: the file's name is recorded as scrap, and the file is made, empty. Then it
//	is recorded as the disk's uppermost. Empty, it changes nothing: the monitor may write
//	to what is behind it until it has switched. Then the name is no scrap any more.
//
//	merge: when all of the uppermost file is in the one behind it, the monitor writes to
//	both. The chain without it is recorded, with its name as scrap; then the monitor
//	leaves it, and the file is removed.
//
// Scrap says where that was cut off, and settle goes on from there.
const (
	switchTimeout = time.Minute // what the guest wrote is made durable
	mergePace     = 100 * time.Millisecond
	untidyRetry   = 10 * time.Second
)

// isOfDisk reports whether a task is one for a disk.
func isOfDisk(k api.TaskKind) bool { return k == api.TaskSnapshot || k == api.TaskMerge }

// admitDisk is the check of a snapshot or a merge against what the disk is.
func (m *machine) admitDisk(verb api.Verb, n int) error {
	disks := m.rec.VM.Spec.Disks
	if n < 0 || n >= len(disks) {
		return &api.Error{Code: api.CodeNotFound, Field: "path.disk", Detail: fmt.Sprintf("the VM has no disk %d", n)}
	}
	bad := func(code api.Code, format string, args ...any) error {
		return &api.Error{Code: code, Detail: fmt.Sprintf("disk %d ", n) + fmt.Sprintf(format, args...)}
	}
	switch d := disks[n]; {
	case m.leaves(n):
		return &api.Error{Code: api.CodeStateConflict, Detail: fmt.Sprintf("disk %d, or one before it, is being detached", n)}
	case verb == api.VerbSnapshot && d.ReadOnly:
		return bad(api.CodeDiskInvalid, "is only read: it stays as it is")
	case verb == api.VerbSnapshot && len(d.Backing) >= api.MaxBacking:
		return bad(api.CodeLimitExceeded, "has %d files behind it already; merge some", api.MaxBacking)
	case verb == api.VerbMerge && !d.Own:
		return bad(api.CodeMergeInvalid, "has no snapshot")
	case verb == api.VerbMerge && !d.Backing[0].Own:
		return bad(api.CodeMergeInvalid, "has one snapshot, of a file that vmctl did not make and does not write to any more")
	}
	return nil
}

// pushed is a disk that goes on in an overlay.
func pushed(d api.DiskSpec, path string) api.DiskSpec {
	below := api.BackingSpec{Path: d.Path, Format: d.Format, Own: d.Own}
	return api.DiskSpec{Path: path, Serial: d.Serial, Format: api.FormatOverlay, Own: true, Limit: d.Limit,
		Backing: append([]api.BackingSpec{below}, d.Backing...)}
}

// popped is a disk without its uppermost file.
func popped(d api.DiskSpec) api.DiskSpec {
	b := d.Backing[0]
	d.Path, d.Format, d.Own, d.Backing = b.Path, b.Format, b.Own, d.Backing[1:]
	if len(d.Backing) == 0 {
		d.Backing = nil
	}
	return d
}

// record makes a change durable, with the active task's progress, or leaves all as it was.
func (m *machine) record(change func()) error {
	before := m.rec
	change()
	generation := m.rec.VM.Generation
	err := m.inv.store.Update(context.WithoutCancel(m.ctx), func(tx Tx) error {
		if err := tx.Put(m.rec); err != nil || generation == before.VM.Generation {
			return err
		}
		return tx.Event(api.EventVMChanged, m.ref(), m.rec.VM)
	})
	if err != nil {
		m.rec = before
	}
	return err
}

// setDisk changes a disk's spec; others have the old one.
func (m *machine) setDisk(n int, d api.DiskSpec) {
	vm := &m.rec.VM
	vm.Spec.Disks = slices.Clone(vm.Spec.Disks)
	vm.Spec.Disks[n] = d
	vm.Generation++
	vm.UpdatedAt = m.inv.now()
}

// beginDisk is what snapshots and merges have in common. ready says that the task goes on.
func (m *machine) beginDisk(verb api.Verb) (n int, ready bool) {
	m.progress(0, false)
	n = *m.active.task.Disk
	err := m.admitDisk(verb, n)
	switch {
	case err != nil: // an earlier task changed it
	case m.rec.Scrap != nil || m.rec.Plugged != nil && m.rec.Plugged.Coming != nil:
		err = &api.Error{Code: api.CodeUnavailable, Detail: "what an earlier task left is not cleared away yet"}
	case m.up() && (m.mon == nil || m.deaf || m.handle == nil):
		err = &api.Error{Code: api.CodeMonitorFailed, Detail: "no connection to the monitor"}
	}
	if err != nil {
		m.finish(err)
	}
	return n, err == nil
}

func (m *machine) beginSnapshot() {
	n, ready := m.beginDisk(api.VerbSnapshot)
	switch {
	case !ready:
		return
	case !m.up():
		m.makeSnapshot(n)
		return
	}
	mon, number := m.mon, m.disk(n)
	m.step(func(ctx context.Context) func() {
		now, err := step(ctx, mon, number, MergeLook) // before anything is made: it may know no snapshots
		if err == nil && now.State != NotMerging {
			err = &api.Error{Code: api.CodeStateConflict, Detail: "an earlier merge of the disk has not ended; merge it once more"}
		}
		return func() {
			if err != nil {
				m.finish(err)
				return
			}
			m.makeSnapshot(n)
		}
	})
}

func (m *machine) makeSnapshot(n int) {
	scrap := &Scrap{Disk: n, Path: m.inv.overlays.name(m.rec.VM.ID)}
	if err := m.record(func() { m.rec.Scrap = scrap }); err != nil {
		m.finish(err)
		return
	}
	spec, up := m.rec.VM.Spec, m.up()
	m.step(func(context.Context) func() {
		file, err := m.inv.makeOverlay(scrap.Path, spec.Disks[n], up)
		return func() { m.madeOverlay(scrap, file, err) }
	})
}

// makeOverlay makes the file of a snapshot.
func (inv *Inventory) makeOverlay(path string, below api.DiskSpec, up bool) (*os.File, error) {
	if below.Format == api.FormatOverlay && !below.Own && !up {
		// The monitor makes one of an empty file that it may write to.
		file, size, err := inv.disks.open(overlayFile, "", below.Path, unix.O_RDONLY)
		if err != nil {
			return nil, err
		}
		file.Close() // nothing was written
		if size == 0 {
			return nil, &api.Error{Code: api.CodeDiskInvalid, Detail: fmt.Sprintf("%q becomes an overlay when the VM runs; power it on first", below.Path)}
		}
	}
	file, err := inv.overlays.create(path)
	return file, coded(api.CodeSnapshotFailed, "snapshot", err)
}

// madeOverlay records the file as the disk's uppermost, and has the monitor switch to it.
// When the VM stopped meanwhile, it finds it at the next start.
func (m *machine) madeOverlay(scrap *Scrap, file *os.File, err error) {
	n := scrap.Disk
	if err == nil {
		err = m.record(func() { m.setDisk(n, pushed(m.rec.VM.Spec.Disks[n], scrap.Path)) })
		if err != nil {
			file.Close() // nothing was written
		}
	}
	switch {
	case err != nil:
		m.settle(err)
		return
	case !m.up():
		file.Close() // nothing was written
		m.endOfDisk(nil)
		return
	}
	m.progress(50, false)
	mon, h, number := m.mon, m.handle, m.disk(n)
	m.step(func(ctx context.Context) func() {
		err := switchDisk(ctx, mon, h, number, file)
		return func() {
			if err != nil {
				m.settle(err)
				return
			}
			m.endOfDisk(nil)
		}
	})
}

// switchDisk gives the run a disk's new file, and tells the monitor.
func switchDisk(ctx context.Context, mon Monitor, h Handle, n int, file *os.File) error {
	attached, err := h.AttachDisk(file)
	file.Close() // only then the kernel sees who has it
	if err != nil {
		return coded(api.CodeKernelFailed, "vm-attach-disk", err)
	}
	ctx, cancel := context.WithTimeout(ctx, switchTimeout)
	defer cancel()
	return coded(api.CodeSnapshotFailed, "disk-switch", mon.SwitchDisk(ctx, n, attached))
}

func (m *machine) beginMerge() {
	n, ready := m.beginDisk(api.VerbMerge)
	if !ready {
		return
	}
	a, mon, run, d, number := m.active, m.mon, m.rec.VM.Status.RunID, m.rec.VM.Spec.Disks[n], m.disk(n)
	tell := func(percent int) {
		m.post(func() {
			if m.active == a && a.busy && percent > a.task.Progress {
				m.progress(percent, false)
			}
		})
	}
	m.step(func(ctx context.Context) func() {
		err := m.inv.mergeDisk(ctx, mon, run, number, d, tell)
		return func() { m.merged(n, d, err) }
	})
}

// mergeDisk has the monitor write the uppermost file of a disk into the one behind it.
// After an error, which may be that the context has ended, both are used as before.
func (inv *Inventory) mergeDisk(ctx context.Context, mon Monitor, run uint64, n int, d api.DiskSpec, tell func(percent int)) error {
	now, err := step(ctx, mon, n, MergeLook)
	if err != nil {
		return err
	}
	for i, path := range []string{d.Path, d.Backing[0].Path} {
		is, err := inv.isFile(ctx, run, now, i, path)
		if err != nil {
			return err
		}
		if !is { // nothing else may be written to
			return &api.Error{Code: api.CodeMergeFailed, Detail: "the monitor has other files than the disk"}
		}
	}
	pace := time.NewTicker(mergePace)
	defer pace.Stop()
	for do := MergeBegin; ; do = MergeLook {
		if now, err = step(ctx, mon, n, do); err != nil {
			break
		}
		if now.State == Merged {
			return nil
		}
		if now.State != Merging {
			err = &api.Error{Code: api.CodeMergeFailed, Detail: "monitor: " + now.Text}
			break
		}
		tell(int(min(now.Done, now.Total) * 90 / max(now.Total, 1)))
		select {
		case <-pace.C:
			continue
		case <-ctx.Done():
			err = ctx.Err()
		}
		break
	}
	if inv.ctx.Err() != nil {
		return err // the next daemon goes on
	}
	// It may be gone, or not answer: both files are used then, as they are recorded.
	_, _ = step(context.WithoutCancel(ctx), mon, n, MergeAbort)
	return err
}

// step is one of a merge.
func step(ctx context.Context, mon Monitor, n int, do MergeStep) (Merge, error) {
	ctx, cancel := context.WithTimeout(ctx, switchTimeout)
	defer cancel()
	now, err := mon.MergeDisk(ctx, n, do)
	return now, coded(api.CodeMergeFailed, "disk-merge", err)
}

// isFile reports whether a file of the folder of overlays is the disk's i-th in a run.
func (inv *Inventory) isFile(ctx context.Context, run uint64, now Merge, i int, path string) (bool, error) {
	if i >= len(now.Disks) {
		return false, nil
	}
	numbers, err := inv.attachedAs(ctx, run, path)
	return slices.Contains(numbers, now.Disks[i]), err
}

// attachedAs returns the numbers that a file of the folder of overlays has in a run.
func (inv *Inventory) attachedAs(ctx context.Context, run uint64, path string) (numbers []uint32, err error) {
	st, err := inv.overlays.stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	claims, err := inv.kernel.Claims(ctx)
	if err != nil {
		return nil, err
	}
	for _, c := range claims {
		if c.Run == run && c.Dev == st.Dev && c.Inode == st.Ino {
			numbers = append(numbers, c.Backend)
		}
	}
	return numbers, nil
}

// merged records the disk without its uppermost file. d is the disk as it was.
func (m *machine) merged(n int, d api.DiskSpec, err error) {
	switch {
	case err != nil && m.closing:
		return // the task stays, and the next daemon goes on
	case err != nil && m.active.abort != nil:
		m.finish(m.active.abort)
		return
	case err != nil && !m.up():
		m.finish(&api.Error{Code: api.CodeStateConflict, Detail: "the VM stopped"})
		return
	case err != nil:
		m.finish(err)
		return
	}
	err = m.record(func() {
		m.rec.Scrap = &Scrap{Disk: n, Path: d.Path}
		m.setDisk(n, popped(d))
	})
	if err != nil {
		m.finish(err) // both are used still, and a merge finds it done
		return
	}
	m.settle(nil)
}

// abortMerge ends the active merge: a powerOff waits.
func (m *machine) abortMerge(cause error) {
	if a := m.active; a.task.Kind == api.TaskMerge && a.abort == nil && a.busy {
		a.abort = cause
		a.cancel()
	}
}

// tidyDisk settles what an earlier daemon left, or a monitor that did not answer. What the
// active task does it settles itself.
func (m *machine) tidyDisk() {
	if m.rec.Scrap == nil || m.settling || m.closing || m.deleted {
		return
	}
	var outcome error
	if a := m.active; a != nil && isOfDisk(a.task.Kind) {
		if a.busy {
			return
		}
		if a.task.Kind == api.TaskSnapshot {
			outcome = &api.Error{Code: api.CodeUnavailable, Detail: "the daemon was restarted before the disk was switched"}
		}
	}
	m.settle(outcome)
}

// hasScrap reports whether the disk has the scrap for its uppermost file.
func (m *machine) hasScrap() bool {
	s := m.rec.Scrap
	return m.rec.VM.Spec.Disks[s.Disk].Path == s.Path
}

// settle makes the record, the monitor and the files agree about the scrap: either the
// disk has it, or it is gone. The active task, if it is one of a disk, ends with outcome,
// unless the disk has it, and so its snapshot.
func (m *machine) settle(outcome error) {
	m.settling = true
	up, s := m.up(), *m.rec.Scrap
	mon, h, run := m.mon, m.handle, m.rec.VM.Status.RunID
	if up && (mon == nil || m.deaf || h == nil) {
		m.unsettled(up, outcome, &api.Error{Code: api.CodeMonitorFailed, Detail: "no connection to the monitor"})
		return
	}
	switch {
	case up:
	case m.hasScrap():
		m.settled(nil)
		return
	default:
		m.removeScrap(up, s, func(context.Context) error { return nil }, outcome)
		return
	}
	number := m.disk(s.Disk)
	m.work(func() func() {
		now, err := step(m.ctx, mon, number, MergeLook)
		var has bool
		if err == nil {
			has, err = m.inv.isFile(m.ctx, run, now, 0, s.Path)
		}
		return func() { m.looked(s, now, has, outcome, err) }
	})
}

// looked goes on with what the monitor has: whether the scrap is the disk's uppermost file.
func (m *machine) looked(s Scrap, now Merge, has bool, outcome, err error) {
	mon, h, run := m.mon, m.handle, m.rec.VM.Status.RunID
	finish, number := has && !m.hasScrap(), m.disk(s.Disk)
	switch {
	case err != nil || !m.up() || mon == nil || h == nil:
		m.unsettled(true, outcome, errors.Join(err, ErrMonitorGone))
		return
	case has && m.hasScrap():
		m.settled(nil)
		return
	case finish && now.State != Merged:
		m.unsettled(true, outcome, &api.Error{Code: api.CodeMonitorFailed, Detail: "the monitor has other files than the disk"})
		return
	case m.hasScrap(): // it never switched
		err := m.record(func() { m.setDisk(s.Disk, popped(m.rec.VM.Spec.Disks[s.Disk])) })
		if err != nil {
			m.unsettled(true, outcome, err)
			return
		}
	}
	m.removeScrap(true, s, func(ctx context.Context) error {
		if finish {
			if _, err := step(ctx, mon, number, MergeFinish); err != nil {
				return err
			}
		}
		numbers, err := m.inv.attachedAs(ctx, run, s.Path)
		for _, number := range numbers {
			err = errors.Join(err, coded(api.CodeKernelFailed, "vm-detach", h.Detach(number)))
		}
		return err
	}, outcome)
}

// removeScrap removes the file when a run has let go of it.
func (m *machine) removeScrap(up bool, s Scrap, letGo func(context.Context) error, outcome error) {
	m.work(func() func() {
		err := letGo(m.ctx)
		if err == nil {
			err = coded(api.CodeInternal, "remove", m.inv.overlays.remove(s.Path))
		}
		return func() {
			if err != nil {
				m.unsettled(up, outcome, err)
				return
			}
			m.settled(outcome)
		}
	})
}

// unsettled ends a try that failed. The next one is made when there is a better chance.
func (m *machine) unsettled(up bool, outcome, err error) {
	m.settling = false
	switch {
	case m.closing:
		return // the next daemon does it
	case up && !m.up():
		m.settle(outcome)
		return
	}
	m.log.Warn("disk not settled", "op", "settle", "err", err)
	m.untidy.Reset(untidyRetry)
	if a := m.active; a != nil && isOfDisk(a.task.Kind) {
		if outcome == nil {
			outcome = err
		}
		m.finish(outcome)
	}
}

func (m *machine) settled(outcome error) {
	m.settling = false
	if a := m.active; a != nil && isOfDisk(a.task.Kind) {
		m.endOfDisk(outcome)
		return
	}
	m.rec.Scrap = nil
	m.commit("settle", func(tx Tx) error { return tx.Put(m.rec) })
}

// endOfDisk ends the active task and the scrap in one transaction: a merge that was done
// is not begun again.
func (m *machine) endOfDisk(outcome error) {
	m.rec.Scrap = nil
	t := m.endTask(outcome)
	m.commit("finish "+string(t.Kind), func(tx Tx) error {
		return errors.Join(tx.Put(m.rec), m.putTask(tx, t), m.putQueue(tx))
	})
	m.inv.board.Ended(t.ID)
}
