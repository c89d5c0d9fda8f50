// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"vmctl/daemon/api"
)

// saves is the folder of what VMs were saved to: for each a folder, which has its uuid
// for a name, with the files of package saved of the monitor. One that is being written
// has another name, and is nothing before it has its own.
type saves struct{ dir string }

const unfinished = ".new"

// SavedFiles are what a VM is saved to, or restored from.
type SavedFiles struct{ State, Memory *os.File }

// Close closes them.
func (f *SavedFiles) Close() {
	if f != nil {
		f.State.Close() // who wrote says whether that went well: see keep
		f.Memory.Close()
	}
}

func (s saves) path(id string) string { return filepath.Join(s.dir, id) }

func openSaved(dir string, flags int) (*SavedFiles, error) {
	state, err := os.OpenFile(filepath.Join(dir, "state"), flags, 0o600)
	if err != nil {
		return nil, err
	}
	memory, err := os.OpenFile(filepath.Join(dir, "memory"), flags, 0o600)
	if err != nil {
		state.Close()
		return nil, err
	}
	return &SavedFiles{state, memory}, nil
}

// create makes empty files, in the place of any that are there.
func (s saves) create(id string) (*SavedFiles, error) {
	if err := s.remove(id); err != nil {
		return nil, err
	}
	dir := s.path(id) + unfinished
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return openSaved(dir, os.O_RDWR|os.O_CREATE|os.O_EXCL)
}

// keep makes a save of files that are written, durably, and returns the room that they
// take in bytes.
func (s saves) keep(id string, f *SavedFiles) (room int64, err error) {
	dir := s.path(id) + unfinished
	for _, file := range []*os.File{f.State, f.Memory} {
		var st unix.Stat_t
		if err := errors.Join(file.Sync(), unix.Fstat(int(file.Fd()), &st)); err != nil {
			return 0, err
		}
		const block = 512 // stat(2)
		room += st.Blocks * block
	}
	return room, errors.Join(syncDir(dir), os.Rename(dir, s.path(id)), syncDir(s.dir))
}

// open opens a save. The error is an *api.Error.
func (s saves) open(id string) (*SavedFiles, error) {
	f, err := openSaved(s.path(id), os.O_RDONLY)
	if err != nil {
		return nil, &api.Error{Code: api.CodeSaveInvalid, Err: err, Detail: "what the VM was saved to cannot be opened; powerOff forgets it"}
	}
	return f, nil
}

// remove removes what a VM was saved to, durably, if there is anything.
func (s saves) remove(id string) error {
	there := false
	for _, dir := range []string{s.path(id), s.path(id) + unfinished} {
		_, err := os.Lstat(dir)
		there = there || !errors.Is(err, fs.ErrNotExist)
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	if !there {
		return nil
	}
	return syncDir(s.dir)
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
