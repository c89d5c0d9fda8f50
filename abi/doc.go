// SPDX-License-Identifier: Apache-2.0

// Package abi is the Go side of vmm.h: its constants and structures, generated,
// and one method for each command of the kernel module vmm.
//
// A [Device] makes a [VM], a VM makes a [VCPU]; each is one descriptor and lives
// until Close. What the commands mean, in which state and with which right they
// work, is written in vmm.h. There is no policy here.
//
// Every error of a command is an [*Error] around a [unix.Errno], so that
// errors.Is(err, unix.EBUSY) works; [VCPU.Run] alone returns the bare
// [unix.Errno], because it must not allocate. For every command these may come:
//
//	unix.ENOTTY      not known on this kind of descriptor
//	unix.EINVAL      a value that is never valid
//	unix.EOPNOTSUPP  known, but not supported by this host
//	unix.EACCES      the descriptor lacks the right
//	unix.EBUSY       not in this state, or another thread holds what it needs
//	unix.ESHUTDOWN   the VM is stopped or destroyed
//	unix.EIO         called from another process than the monitor
//	unix.EBADF       the descriptor was closed
//
// Methods may be called by several goroutines at a time, unless they say
// otherwise. Close must come after the last of them: a number that was closed
// may be another file's a moment later.
package abi

//go:generate go run ../tools/abigen
