// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"

	"vmctl/daemon/api"
	"vmctl/daemon/vm"
)

// cache is all VMs and the number of the last event in them: what a list
// returns, without touching the disk. It is never changed, but replaced.
type cache struct {
	seq    int64
	byName []api.VM
	byID   map[string]int // index into byName
}

func (s *Store) loadCache(ctx context.Context) error {
	records, err := s.Records(ctx)
	if err != nil {
		return err
	}
	vms := make([]api.VM, 0, len(records))
	for _, r := range records {
		vms = append(vms, r.VM)
	}
	s.setCache(vms)
	return nil
}

func (s *Store) setCache(vms []api.VM) {
	slices.SortFunc(vms, func(a, b api.VM) int { return strings.Compare(a.Name, b.Name) })
	c := &cache{seq: s.last, byName: vms, byID: make(map[string]int, len(vms))}
	for i := range vms {
		c.byID[vms[i].ID] = i
	}
	s.cache.Store(c)
}

// apply makes the cache what the transaction made the disk.
func (s *Store) apply(t *Tx) {
	old := s.cache.Load()
	if len(t.puts) == 0 {
		s.cache.Store(&cache{seq: s.last, byName: old.byName, byID: old.byID})
		return
	}
	vms := slices.Clone(old.byName)
	grown := false
	for id, rec := range t.puts {
		i, have := old.byID[id]
		switch {
		case rec != nil && have:
			grown = grown || vms[i].Name != rec.VM.Name
			vms[i] = rec.VM
		case rec != nil:
			vms, grown = append(vms, rec.VM), true
		default:
			grown = true
		}
	}
	if !grown {
		s.cache.Store(&cache{seq: s.last, byName: vms, byID: old.byID})
		return
	}
	s.setCache(slices.DeleteFunc(vms, func(v api.VM) bool {
		rec, put := t.puts[v.ID]
		return put && rec == nil
	}))
}

// VMs returns all VMs by name and the number of the last event in them. The
// slice is shared: not to be changed.
func (s *Store) VMs() ([]api.VM, int64) {
	c := s.cache.Load()
	return c.byName, c.seq
}

// FindVM returns a VM by uuid or name.
func (s *Store) FindVM(ident string) (api.VM, bool) {
	c := s.cache.Load()
	if i, ok := c.byID[ident]; ok {
		return c.byName[i], true
	}
	i := sort.Search(len(c.byName), func(i int) bool { return c.byName[i].Name >= ident })
	if i < len(c.byName) && c.byName[i].Name == ident {
		return c.byName[i], true
	}
	return api.VM{}, false
}

// Records returns all VMs with what the daemon alone knows of them.
func (s *Store) Records(ctx context.Context) ([]vm.Record, error) {
	rows, err := s.write.QueryContext(ctx, `SELECT vm, uid, monitor_pid, monitor_start, scrap, plugged FROM vms ORDER BY name`)
	if err != nil {
		return nil, fmt.Errorf("store: vms: %w", err)
	}
	defer rows.Close()
	var records []vm.Record
	for rows.Next() {
		var r vm.Record
		var text string
		var start int64
		var scrap, plugged sql.NullString
		if err := rows.Scan(&text, &r.UID, &r.Monitor.PID, &start, &scrap, &plugged); err != nil {
			return nil, fmt.Errorf("store: vms: %w", err)
		}
		r.VM.Spec = api.DefaultVMSpec() // what an older daemon did not know of
		if err := json.Unmarshal([]byte(text), &r.VM); err != nil {
			return nil, fmt.Errorf("store: vm: %w", err)
		}
		r.Monitor.Start = uint64(start)
		if scrap.Valid {
			if err := json.Unmarshal([]byte(scrap.String), &r.Scrap); err != nil {
				return nil, fmt.Errorf("store: scrap: %w", err)
			}
		}
		if plugged.Valid {
			if err := json.Unmarshal([]byte(plugged.String), &r.Plugged); err != nil {
				return nil, fmt.Errorf("store: plugged: %w", err)
			}
		}
		records = append(records, r)
	}
	return records, rows.Err()
}

// Insert adds a VM and gives it the lowest free user id of the range, and the lowest
// free CID if it is to have one.
func (t *Tx) Insert(r *vm.Record, first, last uint32) error {
	if err := t.freeName(r.VM); err != nil {
		return err
	}
	uid, err := t.freeUID(first, last)
	if err != nil {
		return err
	}
	r.UID = uid
	cid, err := t.giveCID(r.VM.ID, &r.VM.Spec)
	if err != nil {
		return err
	}
	text, err := json.Marshal(&r.VM)
	if err != nil {
		return fmt.Errorf("store: insert vm: %w", err)
	}
	t.puts[r.VM.ID] = r
	return t.exec(`INSERT INTO vms (id, name, uid, cid, vm, monitor_pid, monitor_start) VALUES (?, ?, ?, ?, ?, 0, 0)`,
		r.VM.ID, r.VM.Name, r.UID, cid, string(text))
}

// Change replaces a VM whose name or spec may be another.
func (t *Tx) Change(r *vm.Record) error {
	if err := t.freeName(r.VM); err != nil {
		return err
	}
	cid, err := t.giveCID(r.VM.ID, &r.VM.Spec)
	if err != nil {
		return err
	}
	return errors.Join(t.exec(`UPDATE vms SET name = ?, cid = ? WHERE id = ?`, r.VM.Name, cid, r.VM.ID), t.Put(*r))
}

// freeName refuses the name of another VM.
func (t *Tx) freeName(v api.VM) error {
	var taken int
	if err := t.tx.QueryRowContext(t.ctx, `SELECT count(*) FROM vms WHERE name = ? AND id <> ?`, v.Name, v.ID).Scan(&taken); err != nil {
		return fmt.Errorf("store: name of vm: %w", err)
	}
	if taken > 0 {
		return &api.Error{Code: api.CodeExists, Field: "body.name", Detail: "a VM of that name exists"}
	}
	return nil
}

// giveCID gives a VM with sockets the CID that it asks for, or the lowest free one.
func (t *Tx) giveCID(id string, spec *api.VMSpec) (cid sql.NullInt64, err error) {
	if spec.Vsock == nil {
		return cid, nil
	}
	cid = sql.NullInt64{Int64: spec.Vsock.CID, Valid: true}
	if cid.Int64 != 0 {
		var taken int
		if err := t.tx.QueryRowContext(t.ctx, `SELECT count(*) FROM vms WHERE cid = ? AND id <> ?`, cid.Int64, id).Scan(&taken); err != nil {
			return cid, fmt.Errorf("store: CID: %w", err)
		}
		if taken > 0 {
			return cid, &api.Error{Code: api.CodeExists, Field: "body.spec.vsock.cid", Detail: "a VM of that CID exists"}
		}
		return cid, nil
	}
	if cid.Int64, err = t.free("cid", api.MinCID, api.MaxCID); errors.Is(err, sql.ErrNoRows) {
		return cid, &api.Error{Code: api.CodeLimitExceeded, Detail: "no CID is left for another VM"}
	}
	spec.Vsock = &api.VsockSpec{CID: cid.Int64} // the request's stays as it is
	return cid, err
}

// freeUID is the lowest user id that is free.
func (t *Tx) freeUID(first, last uint32) (uint32, error) {
	uid, err := t.free("uid", int64(first), int64(last))
	if errors.Is(err, sql.ErrNoRows) {
		return 0, &api.Error{Code: api.CodeLimitExceeded, Detail: "no user id is left for another VM"}
	}
	return uint32(uid), err
}

// free is the first number of a range, or the one after a taken number that has none
// after it, in a column of ours. errors.Is: sql.ErrNoRows.
func (t *Tx) free(column string, first, last int64) (n int64, err error) {
	query := strings.ReplaceAll(`
		SELECT min(id) FROM (
			SELECT ?1 AS id WHERE NOT EXISTS (SELECT 1 FROM vms WHERE COLUMN = ?1)
			UNION ALL
			SELECT COLUMN + 1 FROM vms v WHERE COLUMN >= ?1 AND COLUMN < ?2 AND NOT EXISTS (SELECT 1 FROM vms w WHERE w.COLUMN = v.COLUMN + 1)
		) HAVING min(id) IS NOT NULL`, "COLUMN", column)
	if err := t.tx.QueryRowContext(t.ctx, query, first, last).Scan(&n); err != nil {
		return 0, fmt.Errorf("store: free %s: %w", column, err)
	}
	return n, nil
}

// Put replaces a VM.
func (t *Tx) Put(r vm.Record) error {
	text, err := json.Marshal(&r.VM)
	if err != nil {
		return fmt.Errorf("store: put vm: %w", err)
	}
	scrap, err := orNull(r.Scrap)
	if err != nil {
		return fmt.Errorf("store: put scrap: %w", err)
	}
	plugged, err := orNull(r.Plugged)
	if err != nil {
		return fmt.Errorf("store: put plugged: %w", err)
	}
	t.puts[r.VM.ID] = &r
	return t.exec(`UPDATE vms SET vm = ?, monitor_pid = ?, monitor_start = ?, scrap = ?, plugged = ? WHERE id = ?`,
		string(text), r.Monitor.PID, int64(r.Monitor.Start), scrap, plugged, r.VM.ID)
}

// orNull is a value as JSON, or NULL for nil.
func orNull[T any](v *T) (text sql.NullString, err error) {
	if v == nil {
		return text, nil
	}
	b, err := json.Marshal(v)
	return sql.NullString{String: string(b), Valid: true}, err
}

// Delete removes a VM, its seed and the grants on it.
func (t *Tx) Delete(id string) error {
	t.puts[id] = nil
	return errors.Join(t.exec(`DELETE FROM vms WHERE id = ?`, id), t.exec(`DELETE FROM seeds WHERE vm = ?`, id),
		t.exec(`DELETE FROM grants WHERE scope = ?`, "vm:"+id))
}
