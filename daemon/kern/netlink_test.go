// SPDX-License-Identifier: Apache-2.0

package kern_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/mdlayher/genetlink"
	"golang.org/x/sys/unix"

	"vmctl/daemon/api"
	"vmctl/daemon/kern"
	"vmctl/daemon/kern/kerntest"
	"vmctl/daemon/vm"
)

// fake is a fake kernel and a client of it.
type fake struct {
	*kerntest.Client
	t      *testing.T
	kernel *kerntest.Kernel
}

func newFake(t *testing.T) *fake {
	t.Helper()
	path := filepath.Join(t.TempDir(), "vmm")
	k, err := kerntest.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return &fake{Client: kerntest.NewClient(path), t: t, kernel: k}
}

// comeAndGo makes n VMs come and go: three events each.
func (f *fake) comeAndGo(n int) {
	f.t.Helper()
	for range n {
		v, _, err := f.CreateVM(uuid.New(), "short-lived")
		if err != nil {
			f.t.Fatal(err)
		}
		if err := v.Destroy(); err != nil {
			f.t.Fatal(err)
		}
		v.Close()
	}
}

// TestDumpInterrupted: such a dump is done again, a few times.
func TestDumpInterrupted(t *testing.T) {
	f := newFake(t)
	v, id, err := f.CreateVM(uuid.New(), "web")
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	for _, tt := range []struct{ interrupted, left int }{{3, 0}, {100, 92}} {
		f.kernel.Interrupt(tt.interrupted)
		runs, seq, err := f.List(context.Background())
		if err != nil || len(runs) != 1 || runs[0].ID != id || seq != 1 {
			t.Errorf("%v %d %v", runs, seq, err)
		}
		if left := f.kernel.Interrupt(0); left != tt.left {
			t.Errorf("%d of %d interrupted dumps are left, want %d", left, tt.interrupted, tt.left)
		}
	}
}

// TestTombs: one and all, and what is none.
func TestTombs(t *testing.T) {
	f := newFake(t)
	ctx := context.Background()
	v, id, err := f.CreateVM(uuid.New(), "web")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Tomb(ctx, id); !errors.Is(err, vm.ErrNoRun) {
		t.Errorf("tomb of a VM that is there: %v", err)
	}
	defer v.Close()
	if err := errors.Join(v.Stop(), v.Destroy()); err != nil {
		t.Fatal(err)
	}
	f.comeAndGo(1)
	tomb, err := f.Tomb(ctx, id)
	if err != nil || tomb.Name != "web" || tomb.State != vm.RunStopped || tomb.Reason != api.StopOperator {
		t.Errorf("%+v %v", tomb, err)
	}
	all, err := f.Tombs(ctx)
	if len(all) > 0 && all[0].Ended.Sub(tomb.Ended).Abs() < time.Second {
		tomb.Ended = all[0].Ended // counted back from now, which was another
	}
	if err != nil || len(all) != 2 || all[0] != tomb || all[1].Reason != api.StopDestroyed {
		t.Errorf("%+v %v", all, err)
	}
}

// TestNoModule: an error that names what is missing.
func TestNoModule(t *testing.T) {
	k := kern.NewWith("/nonexistent/vmm", func(time.Time) (*genetlink.Conn, error) {
		return nil, &kern.Error{Op: "netlink dial", Err: unix.ENOENT}
	})
	ctx := context.Background()
	if _, _, err := k.List(ctx); !errors.Is(err, unix.ENOENT) {
		t.Errorf("list: %v", err)
	}
	if _, err := k.Tomb(ctx, 1); !errors.Is(err, unix.ENOENT) {
		t.Errorf("tomb: %v", err)
	}
	if _, _, err := k.Create("11111111-2222-4333-8444-555555555555", "web"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("create: %v", err)
	}
	if _, err := k.Open(1); !errors.Is(err, unix.ENOENT) {
		t.Errorf("open: %v", err)
	}
}
