// SPDX-License-Identifier: Apache-2.0

// Package vm is the model of virtual machines: an inventory of machines, each
// owned by one goroutine, which follows what operators ask and what the kernel
// says. It knows nothing of HTTP, SQL, netlink or processes.
package vm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"vmctl/daemon/api"
	"vmctl/daemon/task"
)

// Config is what an Inventory is made of.
type Config struct {
	Kernel   Kernel
	Launcher Launcher
	Network  Network
	Store    Store
	Board    *task.Board
	Boot     *Folder // kernels and initrds
	Disks    *Folder
	Overlays *Folder // files that snapshots of disks made
	Saves    string  // folder of what VMs are saved to; made when it is needed
	Firmware string  // path of what boots VMs without a kernel
	FirstUID uint32  // range of user ids for monitors
	LastUID  uint32
	Version  string // for the event host.started
	Log      *slog.Logger
	Now      func() time.Time
}

// Inventory is all VMs of this host. It is safe for concurrent use.
type Inventory struct {
	kernel   Kernel
	launcher Launcher
	network  Network
	store    Store
	board    *task.Board
	boot     *Folder
	disks    *Folder
	overlays overlays
	saves    saves
	config   Config
	log      *slog.Logger
	now      func() time.Time
	ctx      context.Context // of all machines; set by Start

	mu       sync.RWMutex
	machines map[string]*machine // [mu] by uuid
	claims   chan struct{}       // [mu] closed when a disk may have been given back
	wg       sync.WaitGroup      // loops
	unknown  map[uint64]bool     // runs that were told of; owned by Follow after Start
	lost     bool                // likewise
}

// New returns an Inventory that does nothing before Start.
func New(c Config) *Inventory {
	return &Inventory{kernel: c.Kernel, launcher: c.Launcher, network: c.Network, store: c.Store, board: c.Board, boot: c.Boot, disks: c.Disks, overlays: overlays{c.Overlays}, saves: saves{c.Saves},
		config: c, log: c.Log, now: c.Now, machines: make(map[string]*machine), unknown: make(map[uint64]bool),
		claims: make(chan struct{})}
}

// Start restores every VM from the record and the kernel, and returns when all
// are. A kernel without the module leaves the VMs off and the daemon useful.
// Machines end with ctx; Wait waits for them.
func (inv *Inventory) Start(ctx context.Context) error {
	inv.ctx = ctx
	records, err := inv.store.Records(ctx)
	if err != nil {
		return fmt.Errorf("inventory: %w", err)
	}
	open, err := inv.store.OpenTasks(ctx)
	if err != nil {
		return fmt.Errorf("inventory: %w", err)
	}
	runs, seq, err := inv.kernel.List(ctx)
	if err != nil {
		inv.log.Error("kernel does not answer", "op", "vm-get", "err", err)
		inv.lost = true
	}
	seen := inv.seen(runs)
	for _, rec := range records {
		inv.machines[rec.VM.ID] = newMachine(inv, rec)
	}
	if err := inv.tellEnds(ctx, seen); err != nil {
		return fmt.Errorf("inventory: %w", err)
	}
	adopted, repaired := inv.restoreAll(ctx, byVM(open), seen, seq)
	inv.tellUnknown(runs)
	return inv.store.Update(ctx, func(tx Tx) error {
		return tx.Event(api.EventHostStarted, nil, api.StartedData{Version: inv.config.Version, Adopted: adopted, Repaired: repaired})
	})
}

// tellEnds tells of the runs that ended while no daemon watched, in the order in
// which they did. No loop runs yet.
func (inv *Inventory) tellEnds(ctx context.Context, seen map[string]sight) error {
	type end struct {
		ending
		m *machine
	}
	var ends []end
	for id, m := range inv.machines {
		s := seen[id]
		if e, ok := s.over(m.rec.VM.Status); ok {
			ends = append(ends, end{e, m})
		}
	}
	if len(ends) == 0 {
		return nil
	}
	slices.SortFunc(ends, func(a, b end) int {
		return cmp.Or(cmp.Compare(a.place, b.place), cmp.Compare(a.m.rec.VM.Name, b.m.rec.VM.Name))
	})
	return inv.store.Update(context.WithoutCancel(ctx), func(tx Tx) error {
		for _, e := range ends {
			if err := e.m.endedUnseen(tx, e.Run); err != nil {
				return err
			}
		}
		return nil
	})
}

func (inv *Inventory) restoreAll(ctx context.Context, open map[string][]api.Task, seen map[string]sight, seq uint64) (adopted, repaired int) {
	type outcome struct{ adopted, repaired bool }
	results := make(chan outcome, len(inv.machines))
	for id, m := range inv.machines {
		inv.run(ctx, m, func() {
			m.restore(seen[id], seq, open[id], func(a, r bool) { results <- outcome{a, r} })
		})
	}
	for range inv.machines {
		r := <-results
		if r.adopted {
			adopted++
		}
		if r.repaired {
			repaired++
		}
	}
	return adopted, repaired
}

func (inv *Inventory) run(ctx context.Context, m *machine, first func()) {
	inv.wg.Add(1)
	go func() {
		defer inv.wg.Done()
		m.loop(ctx, first)
	}()
}

// Wait returns when all machines have ended.
func (inv *Inventory) Wait() { inv.wg.Wait() }

// sight is what the kernel knows of one VM.
type sight struct {
	run   *Run     // nil: it has none now
	ended []ending // that it remembers
}

// ending is a run that ended, and its place among the ends of all VMs.
type ending struct {
	Run
	place int // -1: before all that are remembered
}

// end returns how a run ended: what the kernel remembers, or that it forgot.
func (s *sight) end(id uint64) ending {
	for _, e := range s.ended {
		if e.ID == id {
			return e
		}
	}
	if s.run != nil && s.run.ID == id && s.run.State == RunStopped {
		return ending{*s.run, -1}
	}
	return ending{Run{ID: id, State: RunStopped, Reason: api.StopDestroyed}, -1}
}

// over reports whether the run of a VM ended while no daemon watched, and how.
func (s *sight) over(was api.VMStatus) (ending, bool) {
	switch {
	case s.run != nil:
		return s.end(s.run.ID), s.run.State == RunStopped
	case was.State == api.StateRunning, was.State == api.StatePaused, was.State == api.StateStopping:
		return s.end(was.RunID), was.RunID != 0
	}
	return ending{}, false
}

// seen sorts what the kernel has and remembers by VM. Numbers of runs begin
// anew with the host, so a run is known by uuid and number.
func (inv *Inventory) seen(runs []Run) map[string]sight {
	ended, err := inv.kernel.Ended(inv.ctx)
	if err != nil {
		inv.log.Warn("kernel does not say what ended", "op", "event-get", "err", err)
	}
	m := make(map[string]sight, len(runs))
	for i := range runs {
		m[runs[i].UUID] = sight{run: &runs[i]}
	}
	for i, r := range ended {
		s := m[r.UUID]
		s.ended = append(s.ended, ending{r, i})
		m[r.UUID] = s
	}
	return m
}

func byVM(tasks []api.Task) map[string][]api.Task {
	m := make(map[string][]api.Task)
	for _, t := range tasks {
		if t.VM != nil {
			m[t.VM.ID] = append(m[t.VM.ID], t)
		}
	}
	return m
}

// Follow hands what the kernel says to the machines until updates is closed.
func (inv *Inventory) Follow(updates <-chan Update) {
	for u := range updates {
		switch {
		case u.Lost != nil:
			inv.kernelLost(u.Lost)
		case u.Dump != nil:
			inv.claimsChanged()
			inv.kernelDump(u)
		default:
			if u.Kind == NoticeDetached {
				inv.claimsChanged()
			}
			if m := inv.machine(u.Run.UUID); m != nil {
				m.post(func() { m.notice(u) })
			}
		}
	}
}

// claimsChange is closed when a disk may have been given back from now on.
func (inv *Inventory) claimsChange() <-chan struct{} {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	return inv.claims
}

func (inv *Inventory) claimsChanged() {
	inv.mu.Lock()
	defer inv.mu.Unlock()
	close(inv.claims)
	inv.claims = make(chan struct{})
}

func (inv *Inventory) kernelLost(cause error) {
	if inv.lost {
		return
	}
	inv.lost = true
	inv.log.Error("kernel notices stopped", "op", "watch", "err", cause)
	inv.event(api.EventHostKernelLost, api.LostData{Detail: cause.Error()})
}

func (inv *Inventory) kernelDump(u Update) {
	if inv.lost {
		inv.lost = false
		inv.event(api.EventHostKernelBack, api.EmptyData{})
	}
	seen := inv.seen(u.Dump)
	for _, m := range inv.all() {
		m.post(func() { m.dump(seen[m.rec.VM.ID], u.Seq, u.Anew) })
	}
	inv.tellUnknown(u.Dump)
}

// tellUnknown makes an event of each kernel VM that no record has. It is left
// alone: whoever made it may want it.
func (inv *Inventory) tellUnknown(runs []Run) {
	told := inv.unknown
	inv.unknown = make(map[uint64]bool) // of what is still there
	for _, r := range runs {
		if inv.machine(r.UUID) != nil {
			continue
		}
		inv.unknown[r.ID] = true
		if told[r.ID] {
			continue
		}
		inv.log.Warn("kernel has a VM that is not in the inventory", "op", "restore", "run", r.ID, "vm", r.UUID)
		inv.event(api.EventVMUnknown, api.UnknownData{RunID: r.ID, UUID: r.UUID, Name: r.Name})
	}
}

func (inv *Inventory) event(kind api.EventKind, data any) {
	err := inv.store.Update(context.WithoutCancel(inv.ctx), func(tx Tx) error { return tx.Event(kind, nil, data) })
	if err != nil {
		inv.log.Error("event not recorded", "op", string(kind), "err", err)
	}
}

func (inv *Inventory) machine(id string) *machine {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	return inv.machines[id]
}

func (inv *Inventory) drop(m *machine) {
	inv.mu.Lock()
	defer inv.mu.Unlock()
	delete(inv.machines, m.rec.VM.ID)
}

// List returns all VMs by name, and the number of the last event in them.
func (inv *Inventory) List() ([]api.VM, int64) { return inv.store.VMs() }

// Find returns a VM by name or uuid. The error is an *api.Error with CodeNotFound.
func (inv *Inventory) Find(ident string) (api.VM, error) {
	vm, ok := inv.store.FindVM(ident)
	if !ok {
		return api.VM{}, &api.Error{Code: api.CodeNotFound, Detail: "no such VM"}
	}
	return vm, nil
}

// Create adds a VM, which is off. Its files must be there now, so that a
// mistake in a path is told where it is made.
func (inv *Inventory) Create(ctx context.Context, req api.VMCreate) (api.VM, error) {
	if !api.ValidName(req.Name) {
		return api.VM{}, &api.Error{Code: api.CodeNameInvalid, Field: "body.name", Detail: "not a name of lower-case letters, digits and inner hyphens"}
	}
	if err := checkSpec(req.Spec); err != nil {
		return api.VM{}, err
	}
	if err := checkOwn(nil, req.Spec.Disks); err != nil {
		return api.VM{}, err
	}
	if err := checkSeed(req.Seed); err != nil {
		return api.VM{}, err
	}
	if err := inv.check(req.Spec); err != nil {
		return api.VM{}, err
	}
	giveAddresses(&req.Spec)
	now := inv.now()
	rec := Record{VM: api.VM{ID: uuid.NewString(), Name: req.Name, Generation: 1, Spec: req.Spec, CreatedAt: now, UpdatedAt: now,
		Status: api.VMStatus{State: api.StateOff, Since: now, Allowed: allowed(api.VMStatus{State: api.StateOff})}}}
	if req.Seed != nil {
		rec.VM.Seed = req.Seed.Size()
	}
	err := inv.store.Update(context.WithoutCancel(ctx), func(tx Tx) error {
		if err := tx.Insert(&rec, inv.config.FirstUID, inv.config.LastUID); err != nil {
			return err
		}
		if req.Seed != nil {
			if err := tx.PutSeed(rec.VM.ID, *req.Seed); err != nil {
				return err
			}
		}
		ref := &api.VMRef{ID: rec.VM.ID, Name: rec.VM.Name}
		return errors.Join(tx.Event(api.EventVMCreated, ref, rec.VM), tx.Answer(rec.VM))
	})
	if err != nil {
		return api.VM{}, err
	}
	m := newMachine(inv, rec)
	inv.mu.Lock()
	inv.machines[rec.VM.ID] = m
	inv.mu.Unlock()
	inv.run(inv.ctx, m, func() {})
	return rec.VM, nil
}

// Ask queues a power verb or a deletion of the VM with that uuid. The error is
// an *api.Error; generation is 0 or what the VM must have.
func (inv *Inventory) Ask(ctx context.Context, id string, verb api.Verb, generation int64) (api.Task, error) {
	m := inv.machine(id)
	if m == nil {
		return api.Task{}, &api.Error{Code: api.CodeNotFound, Detail: "no such VM"}
	}
	return call(m, func() (api.Task, error) { return m.ask(ctx, verb, target{}, generation) })
}

// AskDisk queues a verb for a disk of the VM with that uuid, by its place in the spec. The
// error is an *api.Error.
func (inv *Inventory) AskDisk(ctx context.Context, id string, verb api.Verb, disk int) (api.Task, error) {
	m := inv.machine(id)
	if m == nil {
		return api.Task{}, &api.Error{Code: api.CodeNotFound, Detail: "no such VM"}
	}
	return call(m, func() (api.Task, error) { return m.ask(ctx, verb, target{disk: &disk}, 0) })
}

// ConsoleToken returns a token for the console of the VM with that uuid, for
// the origin of ctx. It starts a monitor when there is none.
func (inv *Inventory) ConsoleToken(ctx context.Context, id string, mode api.ConsoleMode) (api.ConsoleToken, error) {
	m := inv.machine(id)
	if m == nil {
		return api.ConsoleToken{}, &api.Error{Code: api.CodeNotFound, Detail: "no such VM"}
	}
	return await(m, func(reply func(api.ConsoleToken, error)) { m.consoleToken(ctx, mode, reply) })
}

// EndSession closes the consoles of a login session that has ended.
func (inv *Inventory) EndSession(session string) {
	for _, m := range inv.all() {
		m.post(func() { m.closeConsoles(session, "sessionEnded") })
	}
}

func (inv *Inventory) all() []*machine {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	all := make([]*machine, 0, len(inv.machines))
	for _, m := range inv.machines {
		all = append(all, m)
	}
	return all
}
