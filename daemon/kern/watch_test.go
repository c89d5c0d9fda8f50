// SPDX-License-Identifier: Apache-2.0

package kern_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"

	"vmctl/daemon/api"
	"vmctl/daemon/vm"
)

// watch starts a reader, and returns after its first dump.
func (f *fake) watch() <-chan vm.Update {
	f.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	updates, done := make(chan vm.Update), make(chan struct{})
	go func() {
		defer close(done)
		f.Watch(ctx, updates)
	}()
	f.t.Cleanup(func() { cancel(); <-done })
	if u := f.next(updates); u.Dump == nil || u.Anew {
		f.t.Fatalf("the first update is %+v", u)
	}
	return updates
}

func (f *fake) next(updates <-chan vm.Update) vm.Update {
	f.t.Helper()
	select {
	case u := <-updates:
		return u
	case <-time.After(10 * time.Second):
		f.t.Fatal("no update came")
		return vm.Update{}
	}
}

// follows reads notices from number first up to number last, and wants each once.
func (f *fake) follows(updates <-chan vm.Update, first, last uint64) {
	f.t.Helper()
	for seq := first; seq <= last; seq++ {
		if u := f.next(updates); u.Dump != nil || u.Lost != nil || u.Seq != seq {
			f.t.Fatalf("%+v, want notice %d", u, seq)
		}
	}
}

// TestWatchOverflow: who does not read in time gets all that the journal has,
// and also what the socket drops after it has said so.
func TestWatchOverflow(t *testing.T) {
	f := newFake(t)
	updates := f.watch()
	f.comeAndGo(700)
	f.follows(updates, 1, 1000) // it heard of the overflow, and reads the journal
	f.comeAndGo(10)
	f.follows(updates, 1001, 2130)
	f.comeAndGo(1)
	f.follows(updates, 2131, 2133)
}

// TestWatchBeyondJournal: when it has not enough, a dump takes the place, and
// what ended meanwhile is remembered.
func TestWatchBeyondJournal(t *testing.T) {
	f := newFake(t)
	stays, _, err := f.CreateVM(uuid.New(), "stays")
	if err != nil {
		t.Fatal(err)
	}
	defer stays.Close()
	updates := f.watch()
	f.comeAndGo(2000)
	seq := uint64(1)
	u := f.next(updates)
	for ; u.Dump == nil; u = f.next(updates) {
		if seq++; u.Seq != seq {
			t.Fatalf("%+v, want notice %d", u, seq)
		}
	}
	if u.Anew || u.Seq != 6001 || len(u.Dump) != 1 || u.Dump[0].Name != "stays" {
		t.Fatalf("dump %+v", u)
	}
	t.Logf("%d notices before the dump", seq-1)
	f.comeAndGo(1)
	f.follows(updates, 6002, 6004)
	ends, err := f.Ended(context.Background())
	if err != nil || len(ends) != 4096/3 || ends[len(ends)-1].ID != 2002 || ends[0].Reason != api.StopDestroyed {
		t.Errorf("%d ends, %v", len(ends), err)
	}
	for i := 1; i < len(ends); i++ {
		if ends[i].ID != ends[i-1].ID+1 {
			t.Fatalf("end of run %d after that of run %d", ends[i].ID, ends[i-1].ID)
		}
	}
}

// TestWatchGap: a notice that nobody got is read from the journal.
func TestWatchGap(t *testing.T) {
	f := newFake(t)
	updates := f.watch()
	f.kernel.Lose(4)
	f.comeAndGo(2)
	f.follows(updates, 1, 6)
}

// TestWatchReload: a module that is loaded anew is told of as a loss and a dump.
func TestWatchReload(t *testing.T) {
	f := newFake(t)
	updates := f.watch()
	f.comeAndGo(1)
	f.follows(updates, 1, 3)
	f.kernel.Reload()
	f.comeAndGo(3) // its numbers are higher than those that the reader has
	if u := f.next(updates); u.Lost == nil {
		t.Fatalf("%+v, want a loss", u)
	}
	if u := f.next(updates); u.Dump == nil || !u.Anew || u.Seq != 9 {
		t.Fatalf("%+v, want a dump of another load", u)
	}
	f.comeAndGo(1)
	f.follows(updates, 10, 12)
}

// TestWatchReloadUnheard: also when the word of it was dropped.
func TestWatchReloadUnheard(t *testing.T) {
	f := newFake(t)
	updates := f.watch()
	f.comeAndGo(1000)
	f.kernel.Reload()
	f.comeAndGo(1)
	u := f.next(updates)
	for seq := uint64(1); u.Lost == nil; u = f.next(updates) {
		if u.Seq != seq {
			t.Fatalf("%+v, want notice %d", u, seq)
		}
		seq++
	}
	if u := f.next(updates); u.Dump == nil || !u.Anew || u.Seq != 3 {
		t.Fatalf("%+v, want a dump of another load", u)
	}
}

// TestWatchCut: a socket that breaks is told of, and a dump follows.
func TestWatchCut(t *testing.T) {
	f := newFake(t)
	updates := f.watch()
	f.kernel.Cut()
	if u := f.next(updates); u.Lost == nil {
		t.Fatalf("%+v, want a loss", u)
	}
	if u := f.next(updates); u.Dump == nil || u.Anew {
		t.Fatalf("%+v, want a dump", u)
	}
}
