// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func testCache(t *testing.T) *cache {
	t.Helper()
	t.Setenv("LAB_CACHE", t.TempDir())
	c, err := openCache(&progress{w: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestRecipeNames(t *testing.T) {
	base := recipe{noun: "tree", lines: []string{"ab", "c"}}
	if base.name() != (recipe{noun: "tree", lines: []string{"ab", "c"}, space: 7}).name() {
		t.Error("space is no part of what a tree holds, but changes its name")
	}
	for _, other := range []recipe{
		{noun: "kernel", lines: []string{"ab", "c"}},
		{noun: "tree", lines: []string{"a", "bc"}},
		{noun: "tree", lines: []string{"c", "ab"}},
		{noun: "tree", lines: []string{"ab", "c", ""}},
		{noun: "tree", lines: []string{"ab\n1:c"}},
	} {
		if other.name() == base.name() {
			t.Errorf("%+v and %+v have one name", other, base)
		}
	}
}

func TestPrepareMakesOnceForMany(t *testing.T) {
	c := testCache(t)
	var made atomic.Int32
	var group sync.WaitGroup
	for range 8 {
		group.Add(1)
		go func() {
			defer group.Done()
			dir, err := c.prepare(context.Background(), recipe{noun: "x"}, func(dir string) error {
				made.Add(1)
				return os.WriteFile(filepath.Join(dir, "file"), nil, 0o644)
			})
			if err != nil || !exists(filepath.Join(dir, "file")) {
				t.Errorf("prepare: %q, %v", dir, err)
			}
		}()
	}
	group.Wait()
	if made.Load() != 1 {
		t.Errorf("made %d times", made.Load())
	}
}

func TestPrepareLeavesNothingHalfMade(t *testing.T) {
	c := testCache(t)
	want := errors.New("mirror is away")
	r := recipe{noun: "x"}
	_, err := c.prepare(context.Background(), r, func(dir string) error {
		if err := os.WriteFile(filepath.Join(dir, "half"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		return want
	})
	if !errors.Is(err, want) {
		t.Fatalf("error %v", err)
	}
	for _, name := range []string{r.name(), r.name() + ".new"} {
		if exists(filepath.Join(c.dir, name)) {
			t.Errorf("%s is there", name)
		}
	}
	dir, err := c.prepare(context.Background(), r, func(string) error { return nil })
	if err != nil || exists(filepath.Join(dir, "half")) {
		t.Errorf("second try: %v", err)
	}
}

func TestPrepareStopsWaitingWhenAsked(t *testing.T) {
	c := testCache(t)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	r := recipe{noun: "x"}
	_, err := c.prepare(context.Background(), r, func(string) error {
		_, err := c.prepare(ctx, r, func(string) error { return nil }) // as another lab would
		return err
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

func TestPruneSparesWhatIsUsed(t *testing.T) {
	c := testCache(t)
	make := func(line string) string {
		dir, err := c.prepare(context.Background(), recipe{noun: "x", lines: []string{line}}, func(string) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		return dir
	}
	held := make("held") // its shared lock lives as long as this process
	old := filepath.Join(c.dir, "x-0123456789ab")
	for _, f := range []string{old + ".lock", held + ".lock"} {
		if err := os.WriteFile(f, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		long := time.Now().Add(-2 * keepUnused)
		if err := os.Chtimes(f, long, long); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(old, 0o755); err != nil {
		t.Fatal(err)
	}
	make("new")
	if exists(old) {
		t.Error("a tree that nobody used for long is still there")
	}
	if !exists(held) {
		t.Error("a tree in use was removed")
	}
}

func TestTooLittleSpaceIsOneLine(t *testing.T) {
	err := testCache(t).wantSpace(1 << 62)
	if err == nil || !strings.Contains(err.Error(), "LAB_CACHE") || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v", err)
	}
}

func TestCacheFolderThatQemuCannotName(t *testing.T) {
	t.Setenv("LAB_CACHE", filepath.Join(t.TempDir(), "a,b"))
	if _, err := openCache(&progress{w: io.Discard}); err == nil {
		t.Error("a comma was taken")
	}
}
