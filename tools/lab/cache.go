// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// cache is the folder of prepared trees. Each is named after a hash of its
// recipe and appears there whole, by a rename. A lock file beside it is held
// shared by every lab that uses it and exclusively by the one that makes it,
// so labs may run side by side on one cache.
type cache struct {
	dir string
	out *progress

	mu   sync.Mutex
	held []*os.File // locks; guarded by mu
}

// keepUnused is how long a tree whose recipe is not in use any more stays.
const keepUnused = 14 * 24 * time.Hour

// recipe is all that decides what a prepared tree holds.
type recipe struct {
	noun  string   // its kind, first part of the folder's name
	lines []string // anything whose change asks for another tree
	space uint64   // bytes that must be free to make it
}

// name is the folder's name in the cache.
func (r recipe) name() string {
	h := sha256.New()
	for _, l := range r.lines {
		fmt.Fprintf(h, "%d:%s\n", len(l), l)
	}
	return r.noun + "-" + hex.EncodeToString(h.Sum(nil))[:12]
}

// openCache finds the cache folder and makes it.
func openCache(out *progress) (*cache, error) {
	dir := os.Getenv("LAB_CACHE")
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("no cache folder: %v: set LAB_CACHE", err)
		}
		dir = filepath.Join(base, "vmctl-lab")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if strings.ContainsAny(dir, ",:\\ \t\n") {
		return nil, fmt.Errorf("cache folder %q: blanks, commas, colons and backslashes cannot be used there: set LAB_CACHE", dir)
	}
	if err := os.MkdirAll(filepath.Join(dir, "mnt"), 0o755); err != nil {
		return nil, fmt.Errorf("cache folder: %v: set LAB_CACHE to a folder that can be written", err)
	}
	return &cache{dir: dir, out: out}, nil
}

// prepare returns the folder of the recipe's tree, made by build if it is not
// there. It stays locked against removal until this process ends.
func (c *cache) prepare(ctx context.Context, r recipe, build func(dir string) error) (string, error) {
	path := filepath.Join(c.dir, r.name())
	lock, err := c.lock(ctx, r.name(), unix.LOCK_SH)
	if err != nil {
		return "", err
	}
	for !exists(path) {
		// Asking for the other lock gives up this one, granted or not: of two
		// labs that want to make one tree, none waits for the other's.
		switch err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
		case err == nil && !exists(path):
			err = c.make(r, path, build)
			if err != nil {
				lock.Close()
				return "", err
			}
			c.prune(r)
		case err != nil && !errors.Is(err, unix.EWOULDBLOCK):
			lock.Close()
			return "", fmt.Errorf("lock %s: %w", lock.Name(), err)
		}
		if err := c.relock(ctx, lock, unix.LOCK_SH, r.name()); err != nil {
			lock.Close()
			return "", err
		}
	}
	now := time.Now()
	os.Chtimes(lock.Name(), now, now) // best effort: only delays its removal
	c.hold(lock)
	return path, nil
}

// hold keeps a lock until this process ends.
func (c *cache) hold(lock *os.File) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = append(c.held, lock)
}

func (c *cache) make(r recipe, path string, build func(string) error) error {
	if err := c.wantSpace(r.space); err != nil {
		return err
	}
	temp := path + ".new"
	if err := os.RemoveAll(temp); err != nil {
		return fmt.Errorf("%s: what an earlier try left: %v", r.name(), err)
	}
	if err := os.Mkdir(temp, 0o755); err != nil {
		return err
	}
	if err := build(temp); err != nil {
		os.RemoveAll(temp)
		return err
	}
	return os.Rename(temp, path)
}

// wantSpace says in time that a disk is too full.
func (c *cache) wantSpace(need uint64) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(c.dir, &fs); err != nil {
		return err
	}
	if free := fs.Bavail * uint64(fs.Bsize); free < need {
		return fmt.Errorf("%s has %d MiB free, %d MiB are needed: make room, or set LAB_CACHE to a folder elsewhere",
			c.dir, free>>20, need>>20)
	}
	return nil
}

// prune removes trees of the same kind that nobody has used for long.
func (c *cache) prune(r recipe) {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		name, isTree := strings.CutSuffix(e.Name(), ".lock")
		info, err := e.Info()
		if !isTree || err != nil || !strings.HasPrefix(name, r.noun+"-") || name == r.name() ||
			time.Since(info.ModTime()) < keepUnused {
			continue
		}
		c.remove(name)
	}
}

// remove deletes a tree unless a lab uses it.
func (c *cache) remove(name string) error {
	f, err := os.OpenFile(filepath.Join(c.dir, name+".lock"), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("%s is in use", name)
	}
	// Its lock file stays: another lab may wait on it.
	for _, dir := range []string{name, name + ".new"} {
		if err := os.RemoveAll(filepath.Join(c.dir, dir)); err != nil {
			return err
		}
	}
	return nil
}

// lock opens and locks the file of that name. Closing it unlocks.
func (c *cache) lock(ctx context.Context, name string, how int) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(c.dir, name+".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("cache folder: %v", err)
	}
	if err := c.relock(ctx, f, how, name); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// relock takes the lock, and tells the user once when another lab has it.
// There is no flock with a deadline, so it asks again.
func (c *cache) relock(ctx context.Context, f *os.File, how int, name string) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for told := false; ; told = true {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		if !told {
			c.out.say("waiting for another lab that prepares %s", name)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
