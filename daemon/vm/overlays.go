// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"vmctl/daemon/api"
)

// overlays is the folder of the files that snapshots of disks made: for each VM a
// folder, which has its uuid for a name. Nobody can name a file there but a record.
type overlays struct{ *Folder }

var ownFile = kindOfFile{"the folder of overlays", api.CodeDiskMissing, api.CodeDiskInvalid, true}

// name is a path in the folder that no file has.
func (o overlays) name(id string) string { return filepath.Join(id, uuid.NewString()) }

// open opens a file to write to. The error is an *api.Error.
func (o overlays) open(field, path string) (*os.File, error) {
	file, _, err := o.Folder.open(ownFile, field, path, unix.O_RDWR)
	return file, err
}

// create makes an empty file, durably.
func (o overlays) create(path string) (*os.File, error) {
	file := filepath.Join(o.path, path)
	dir := filepath.Dir(file)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Sync(), syncDir(dir), syncDir(o.path)); err != nil {
		f.Close() // nothing was written
		return nil, err
	}
	return f, nil
}

// remove removes a file, durably, if it is there.
func (o overlays) remove(path string) error {
	file := filepath.Join(o.path, path)
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err := syncDir(filepath.Dir(file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// forget removes all files of a VM.
func (o overlays) forget(id string) error {
	return errors.Join(os.RemoveAll(filepath.Join(o.path, id)), syncDir(o.path))
}

// stat tells which file it is. errors.Is: fs.ErrNotExist.
func (o overlays) stat(path string) (st unix.Stat_t, err error) {
	err = unix.Lstat(filepath.Join(o.path, path), &st)
	return st, err
}
