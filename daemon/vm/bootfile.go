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

// BootDir is the folder beneath which all boot files are. A path that a caller
// names is resolved by the kernel beneath it: no "..", no symbolic link, no
// other root can lead out, also when the folder changes meanwhile.
type BootDir struct {
	path string
	dir  *os.File
}

// OpenBootDir opens the folder, which must exist.
func OpenBootDir(path string) (*BootDir, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("boot folder: %w", err)
	}
	fd, err := unix.Open(abs, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("boot folder %s: %w", abs, err)
	}
	return &BootDir{path: abs, dir: os.NewFile(uintptr(fd), abs)}, nil
}

// Close closes the folder.
func (b *BootDir) Close() error { return b.dir.Close() }

// Open opens what spec boots. The error is an *api.Error with CodeBootFileMissing,
// CodeBootFileInvalid or CodeInitrdTooLarge.
func (b *BootDir) Open(spec api.VMSpec) (*BootFiles, error) {
	var files BootFiles
	kernel, kernelSize, err := b.open("body.spec.boot.kernel", spec.Boot.Kernel)
	if err != nil {
		return nil, err
	}
	files.Kernel = kernel
	if kernelSize > spec.MemoryBytes {
		files.Close()
		return nil, &api.Error{Code: api.CodeBootFileInvalid, Field: "body.spec.boot.kernel", Detail: "the kernel is larger than the VM's memory"}
	}
	if spec.Boot.Initrd == "" {
		return &files, nil
	}
	initrd, initrdSize, err := b.open("body.spec.boot.initrd", spec.Boot.Initrd)
	if err != nil {
		files.Close()
		return nil, err
	}
	files.Initrd = initrd
	if kernelSize+initrdSize > spec.MemoryBytes {
		files.Close()
		return nil, &api.Error{Code: api.CodeInitrdTooLarge, Field: "body.spec.boot.initrd",
			Detail: fmt.Sprintf("kernel and initrd (%d bytes) are larger than the VM's memory", kernelSize+initrdSize)}
	}
	return &files, nil
}

// Check opens and closes what spec boots.
func (b *BootDir) Check(spec api.VMSpec) error {
	files, err := b.Open(spec)
	if err != nil {
		return err
	}
	files.Close()
	return nil
}

func (b *BootDir) open(field, path string) (*os.File, int64, error) {
	rel, err := b.relative(path)
	if err != nil {
		return nil, 0, bootError(field, path, err)
	}
	// O_NONBLOCK: opening a FIFO must not wait for a writer.
	fd, err := unix.Openat2(int(b.dir.Fd()), rel, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, 0, bootError(field, path, err)
	}
	f := os.NewFile(uintptr(fd), rel)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		f.Close()
		return nil, 0, bootError(field, path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size == 0 {
		f.Close()
		return nil, 0, &api.Error{Code: api.CodeBootFileInvalid, Field: field, Detail: fmt.Sprintf("%q is empty or not a regular file", path)}
	}
	return f, st.Size, nil
}

var errOutside = errors.New("not beneath the boot folder")

// relative makes an absolute path relative to the folder; whether the rest of
// it stays inside is for the kernel to say.
func (b *BootDir) relative(path string) (string, error) {
	if strings.IndexByte(path, 0) >= 0 || len(path) > api.MaxPath {
		return "", unix.EINVAL
	}
	if !filepath.IsAbs(path) {
		return path, nil
	}
	rel, ok := strings.CutPrefix(path, strings.TrimSuffix(b.path, "/")+"/")
	if !ok || rel == "" {
		return "", errOutside
	}
	return strings.TrimLeft(rel, "/"), nil
}

func bootError(field, path string, err error) error {
	e := &api.Error{Code: api.CodeBootFileInvalid, Field: field, Err: err}
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		e.Code, e.Detail = api.CodeBootFileMissing, fmt.Sprintf("%q is not in the boot folder", path)
	case errors.Is(err, unix.EXDEV), errors.Is(err, errOutside):
		e.Detail = fmt.Sprintf("%q is not beneath the boot folder", path)
	case errors.Is(err, unix.ELOOP):
		e.Detail = fmt.Sprintf("%q has a symbolic link in it", path)
	default:
		e.Detail = fmt.Sprintf("%q cannot be read", path)
	}
	return e
}
