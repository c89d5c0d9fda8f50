// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"vmctl/daemon/api"
	"vmctl/daemon/store"
	"vmctl/daemon/task"
	"vmctl/daemon/vm"
)

func open(t *testing.T, path string) *store.Store {
	t.Helper()
	s, err := store.Open(context.Background(), path, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func record(name string) vm.Record {
	return vm.Record{VM: api.VM{ID: uuid.NewString(), Name: name, Generation: 1, Spec: api.DefaultVMSpec()}}
}

// TestNumbers: events of concurrent writers have no gaps, are told in order,
// and a transaction that failed has used up none.
func TestNumbers(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "db"))
	var told []int64
	s.Tell(func(events []api.Event) {
		for _, e := range events {
			told = append(told, e.Seq)
		}
	})
	boom := errors.New("boom")
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range 20 {
				err := s.Update(context.Background(), func(tx vm.Tx) error {
					if err := tx.Event(api.EventVMChanged, nil, api.EmptyData{}); err != nil {
						return err
					}
					if (i+w)%3 == 0 {
						return boom
					}
					return nil
				})
				if err != nil && !errors.Is(err, boom) {
					t.Error(err)
				}
			}
		}()
	}
	wg.Wait()
	for i, seq := range told {
		if seq != int64(i+1) {
			t.Fatalf("told %v", told)
		}
	}
	_, seq := s.VMs()
	first, last, err := s.EventRange(context.Background())
	if err != nil || first != 1 || last != int64(len(told)) || seq != last {
		t.Errorf("range %d to %d, list %d, told %d: %v", first, last, seq, len(told), err)
	}
}

// TestReopen: what was written is there, in lists too, and numbers go on.
func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	s := open(t, path)
	rec := record("a")
	insert(t, s, &rec)
	rec.Monitor = vm.Process{PID: 7, Start: 1 << 40}
	if err := s.Update(context.Background(), func(tx vm.Tx) error { return tx.Put(rec) }); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path)
	got, err := s.Records(context.Background())
	if err != nil || len(got) != 1 || got[0].Monitor != rec.Monitor || got[0].UID != rec.UID {
		t.Fatalf("%+v %v", got, err)
	}
	if v, ok := s.FindVM("a"); !ok || v.ID != rec.VM.ID {
		t.Errorf("by name: %v %v", v, ok)
	}
	if v, ok := s.FindVM(rec.VM.ID); !ok || v.Name != "a" {
		t.Errorf("by uuid: %v %v", v, ok)
	}
}

func insert(t *testing.T, s *store.Store, rec *vm.Record) {
	t.Helper()
	err := s.Update(context.Background(), func(tx vm.Tx) error {
		return errors.Join(tx.Insert(rec, 1000, 1002), tx.Event(api.EventVMCreated, &api.VMRef{ID: rec.VM.ID, Name: rec.VM.Name}, rec.VM))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestUserIDs: one per VM, the lowest free one, and an end to them.
func TestUserIDs(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "db"))
	var recs [3]vm.Record
	for i := range recs {
		recs[i] = record(fmt.Sprintf("v%d", i))
		insert(t, s, &recs[i])
		if recs[i].UID != uint32(1000+i) {
			t.Errorf("%d got %d", i, recs[i].UID)
		}
	}
	more := record("more")
	err := s.Update(context.Background(), func(tx vm.Tx) error { return tx.Insert(&more, 1000, 1002) })
	var e *api.Error
	if !errors.As(err, &e) || e.Code != api.CodeLimitExceeded {
		t.Errorf("a fourth: %v", err)
	}
	if _, ok := s.FindVM("more"); ok {
		t.Error("what failed is in the list")
	}
	same := record("v1")
	if err := s.Update(context.Background(), func(tx vm.Tx) error { return tx.Insert(&same, 1000, 2000) }); !errors.As(err, &e) || e.Code != api.CodeExists {
		t.Errorf("a name twice: %v", err)
	}
	if err := s.Update(context.Background(), func(tx vm.Tx) error { return tx.Delete(recs[1].VM.ID) }); err != nil {
		t.Fatal(err)
	}
	insert(t, s, &more)
	if more.UID != 1001 {
		t.Errorf("the gap was not taken: %d", more.UID)
	}
	if vms, _ := s.VMs(); len(vms) != 3 || vms[0].Name != "more" || vms[2].Name != "v2" {
		t.Errorf("list %+v", vms)
	}
}

// TestNewer: a database of a newer daemon is refused, and left as it is.
func TestNewer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	s := open(t, path)
	if err := s.SetSchemaForTest(99); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := store.Open(context.Background(), path, time.Now); err == nil {
		t.Error("it was opened")
	}
}

// TestAnswers: kept with the change, or not at all.
func TestAnswers(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "db"))
	claim := &task.Claim{Scope: "unix:0 POST /v1/vms", Key: "k", Hash: [32]byte{1}}
	origin := &task.Origin{Actor: "unix:0", Claim: claim}
	ctx := task.WithOrigin(context.Background(), origin)
	boom := errors.New("boom")
	answer := func(fail error) error {
		return s.Update(ctx, func(tx vm.Tx) error { return errors.Join(tx.Answer(map[string]int{"a": 1}), fail) })
	}
	if err := answer(boom); !errors.Is(err, boom) {
		t.Fatal(err)
	}
	if _, body, _, err := s.Answered(ctx, claim); err != nil || body != nil {
		t.Errorf("kept %s of a change that was not made: %v", body, err)
	}
	if err := answer(nil); err != nil {
		t.Fatal(err)
	}
	if status, body, fits, err := s.Answered(ctx, claim); err != nil || status != 0 || string(body) != `{"a":1}` || !fits {
		t.Errorf("%d %s %v %v", status, body, fits, err)
	}
	other := *claim
	other.Hash[0] = 2
	if _, _, fits, err := s.Answered(ctx, &other); err != nil || fits {
		t.Errorf("another body fits: %v", err)
	}
	if rows, err := s.AuditForTest(); err != nil || rows != 1 {
		t.Errorf("%d audit rows of one request: %v", rows, err)
	}
}

func TestTrim(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "db"))
	k := api.Task{ID: "old", Kind: api.TaskPowerOn, State: api.TaskSucceeded, CreatedAt: time.Now().Add(-31 * 24 * time.Hour)}
	o := api.Task{ID: "open", Kind: api.TaskPowerOn, State: api.TaskRunning, CreatedAt: k.CreatedAt}
	n := api.Task{ID: "new", Kind: api.TaskPowerOn, State: api.TaskSucceeded, CreatedAt: time.Now()}
	err := s.Update(context.Background(), func(tx vm.Tx) error { return errors.Join(tx.PutTask(k), tx.PutTask(o), tx.PutTask(n)) })
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Trim(context.Background()); err != nil {
		t.Fatal(err)
	}
	for id, there := range map[string]bool{"old": false, "open": true, "new": true} {
		if _, err := s.Task(context.Background(), id); (err == nil) != there {
			t.Errorf("%s: %v", id, err)
		}
	}
}
