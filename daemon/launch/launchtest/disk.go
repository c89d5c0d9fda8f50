// SPDX-License-Identifier: Apache-2.0

package launchtest

import (
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"vmctl/abi"
	"vmctl/monitor/ctl"
	"vmctl/monitor/spec"
)

// disk is what a disk of the stub is made of.
type disk struct {
	chain []uint32 // backends of its own files, the uppermost first
	files map[uint32][]abi.Part
	merge ctl.MergeState
	looks int // since the merge began

	leaving bool
}

// mergeLooks is how often a merge is looked at before it is done.
const mergeLooks = 3

// openDisk takes a disk's files, which stay open for as long as it has them.
func (s *stub) openDisk(d spec.Disk) (*disk, bool) {
	made := &disk{files: make(map[uint32][]abi.Part)}
	for i, number := range append([]uint32{d.Backend}, d.Own...) {
		files := 1
		if i == len(d.Own) {
			files += len(d.Backing) - i
		}
		b, err := s.vm.Backend(number)
		if err != nil || b.Number != number || len(b.Parts) != files {
			return nil, false
		}
		made.chain = append(made.chain, number)
		made.files[number] = b.Parts
	}
	return made, true
}

// first says whether the daemon that started the guest is still there: some behaviours
// are for it alone. Called with mu.
func (s *stub) first() bool { return s.daemons == 1 }

// NoAnswer is what the stub logs when it does not answer.
const NoAnswer = "stub: does not answer"

// hang never answers, and lets others ask. Called with mu.
func (s *stub) hang() {
	fmt.Fprintln(os.Stderr, NoAnswer)
	s.mu.Unlock()
	select {}
}

// disk is called with mu.
func (s *stub) disk(n uint8) (*disk, *ctl.Error) {
	if int(n) >= len(s.disks) || s.disks[n] == nil || s.disks[n].leaving || s.state != ctl.Running {
		return nil, &ctl.Error{Code: ctl.DiskInvalid, Text: "the machine has no such disk"}
	}
	return s.disks[n], nil
}

// switchDisk is called with mu.
func (s *stub) switchDisk(r *ctl.DiskSwitch) *ctl.Error {
	d, e := s.disk(r.Disk)
	switch {
	case e != nil:
		return e
	case s.behaviour == Unswitched:
		return &ctl.Error{Code: ctl.Internal, Text: "no space left on device"}
	case s.behaviour == Holds && s.first():
		s.hang()
	}
	b, err := s.vm.Backend(r.Backend)
	var st unix.Stat_t
	if err != nil || b.Number != r.Backend || len(b.Parts) != 1 || unix.Fstat(b.Parts[0].FD, &st) != nil || st.Size != 0 {
		return &ctl.Error{Code: ctl.DiskInvalid, Text: "no such disk is attached to the VM, or it is not empty"}
	}
	d.chain = append([]uint32{r.Backend}, d.chain...)
	d.files[r.Backend] = b.Parts
	if s.behaviour == Switches && s.first() {
		s.hang()
	}
	return nil
}

// mergeDisk is called with mu.
func (s *stub) mergeDisk(r *ctl.DiskMerge) (ctl.Message, *ctl.Error) {
	d, e := s.disk(r.Disk)
	if e != nil {
		return nil, e
	}
	switch {
	case r.Do == ctl.MergeBegin && len(d.chain) < 2:
		return nil, &ctl.Error{Code: ctl.MergeInvalid, Text: "the disk has no overlay above a file of its own"}
	case r.Do == ctl.MergeBegin && d.merge == ctl.NotMerging:
		d.merge, d.looks = ctl.Merging, 0
	case r.Do == ctl.MergeAbort:
		d.merge = ctl.NotMerging
	case r.Do == ctl.MergeFinish && d.merge != ctl.Merged:
		return nil, &ctl.Error{Code: ctl.MergeInvalid, Text: "the disk is not merged"}
	case r.Do == ctl.MergeFinish && s.behaviour == Unfinished && s.first():
		s.hang()
	case r.Do == ctl.MergeFinish:
		top := d.chain[0]
		for _, p := range d.files[top] {
			unix.Close(p.FD) // nothing was written
		}
		delete(d.files, top)
		d.chain, d.merge = d.chain[1:], ctl.NotMerging
		s.vm.GiveBack(top) // stopped meanwhile is as good
	case d.merge == ctl.Merging && !(s.behaviour == Stalls && s.first()):
		if d.looks++; d.looks >= mergeLooks {
			d.merge = ctl.Merged
			if s.behaviour == Unmerged {
				d.merge = ctl.MergeFailed
			}
		}
	}
	reply := &ctl.DiskMergeReply{State: d.merge, Done: uint64(d.looks), Total: mergeLooks, Backends: slices.Clone(d.chain)}
	if d.merge == ctl.MergeFailed {
		reply.Text = "no space left on device"
	}
	return reply, nil
}
