// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"vmctl/daemon/api"
)

// Folder is a folder beneath which callers may name files. A path is resolved by
// the kernel beneath it: no "..", no symbolic link, no other root can lead out,
// also when the folder changes meanwhile.
type Folder struct {
	path string
	dir  *os.File
}

// OpenFolder opens the folder, which must exist.
func OpenFolder(path string) (*Folder, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Open(abs, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("folder %s: %w", abs, err)
	}
	return &Folder{path: abs, dir: os.NewFile(uintptr(fd), abs)}, nil
}

// Close closes the folder.
func (f *Folder) Close() error { return f.dir.Close() }

// kindOfFile is what a caller names: where it is, and what it is when it is not
// there or is none.
type kindOfFile struct {
	folder           string
	missing, invalid api.Code
	empty            bool // it may be
}

var (
	bootFile    = kindOfFile{"the boot folder", api.CodeBootFileMissing, api.CodeBootFileInvalid, false}
	diskFile    = kindOfFile{"the folder of disks", api.CodeDiskMissing, api.CodeDiskInvalid, false}
	overlayFile = kindOfFile{"the folder of disks", api.CodeDiskMissing, api.CodeDiskInvalid, true}
)

// open opens a regular file, that is not empty unless it may be, and returns its size. field is where
// the caller named it. The error is an *api.Error with a code of kind.
func (f *Folder) open(kind kindOfFile, field, path string, flags uint64) (*os.File, int64, error) {
	rel, err := f.relative(path)
	if err != nil {
		return nil, 0, kind.error(field, path, err)
	}
	// O_NONBLOCK: opening a FIFO must not wait for a writer.
	fd, err := unix.Openat2(int(f.dir.Fd()), rel, &unix.OpenHow{
		Flags:   flags | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, 0, kind.error(field, path, err)
	}
	file := os.NewFile(uintptr(fd), rel)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		file.Close()
		return nil, 0, kind.error(field, path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size == 0 && !kind.empty {
		file.Close()
		return nil, 0, &api.Error{Code: kind.invalid, Field: field, Detail: fmt.Sprintf("%q is empty or not a regular file", path)}
	}
	return file, st.Size, nil
}

var errOutside = errors.New("not beneath the folder")

// relative makes an absolute path relative to the folder; whether the rest of
// it stays inside is for the kernel to say.
func (f *Folder) relative(path string) (string, error) {
	if strings.IndexByte(path, 0) >= 0 || len(path) > api.MaxPath {
		return "", unix.EINVAL
	}
	if !filepath.IsAbs(path) {
		return path, nil
	}
	rel, ok := strings.CutPrefix(path, strings.TrimSuffix(f.path, "/")+"/")
	if !ok || rel == "" {
		return "", errOutside
	}
	return strings.TrimLeft(rel, "/"), nil
}

func (k kindOfFile) error(field, path string, err error) error {
	e := &api.Error{Code: k.invalid, Field: field, Err: err}
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		e.Code, e.Detail = k.missing, fmt.Sprintf("%q is not in %s", path, k.folder)
	case errors.Is(err, unix.EXDEV), errors.Is(err, errOutside):
		e.Detail = fmt.Sprintf("%q is not beneath %s", path, k.folder)
	case errors.Is(err, unix.ELOOP):
		e.Detail = fmt.Sprintf("%q has a symbolic link in it", path)
	case errors.Is(err, unix.EISDIR):
		e.Detail = fmt.Sprintf("%q is empty or not a regular file", path)
	default:
		e.Detail = fmt.Sprintf("%q cannot be opened", path)
	}
	return e
}
