// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"io"
	"os"

	"golang.org/x/sys/unix"

	"vmctl/monitor/iov"
)

// osFile is a file of the host, or a block device.
type osFile struct{ *os.File }

func (f *osFile) size() (uint64, error) {
	n, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_END)
	return uint64(n), os.NewSyscallError("lseek", err)
}

func (f *osFile) read(bufs [][]byte, off uint64) error {
	return transfer("preadv2", unix.Preadv2, int(f.Fd()), bufs, off)
}

func (f *osFile) write(bufs [][]byte, off uint64) error {
	return transfer("pwritev2", unix.Pwritev2, int(f.Fd()), bufs, off)
}

func transfer(name string, call func(int, [][]byte, int64, int) (int, error), fd int, bufs [][]byte, off uint64) error {
	for n := iov.Len(bufs); n > 0; {
		got, err := call(fd, bufs, int64(off), 0)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return os.NewSyscallError(name, err)
		case got == 0: // the file is shorter than it was
			return io.ErrUnexpectedEOF
		}
		iov.Take(&bufs, uint64(got))
		off, n = off+uint64(got), n-uint64(got)
	}
	return nil
}

// zero makes a hole. Where the host has none it writes zeros.
func (f *osFile) zero(off, n uint64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(off), int64(n))
		switch err {
		case unix.EINTR:
			continue
		case unix.EOPNOTSUPP:
			return f.writeZeros(off, n)
		}
		return os.NewSyscallError("fallocate", err)
	}
}

func (f *osFile) writeZeros(off, n uint64) error {
	zeros := make([]byte, min(n, 64<<10))
	for n > 0 {
		part := min(n, uint64(len(zeros)))
		if err := f.write([][]byte{zeros[:part]}, off); err != nil {
			return err
		}
		off, n = off+part, n-part
	}
	return nil
}

func (f *osFile) sync() error {
	for {
		if err := unix.Fdatasync(int(f.Fd())); err != unix.EINTR {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}
