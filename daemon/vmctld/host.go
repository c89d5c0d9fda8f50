// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/daemon/api"
	"vmctl/daemon/rest"
	"vmctl/daemon/store"
	"vmctl/daemon/task"
)

// host tells about this machine.
type host struct {
	kernel  module
	started time.Time
}

func newHost(kernel module) *host { return &host{kernel: kernel, started: now()} }

// Describe asks the machine and the module. A module that does not answer is
// not an error: that it is not there is the answer.
func (h *host) Describe(ctx context.Context) (api.Host, error) {
	name, err := os.Hostname()
	if err != nil {
		return api.Host{}, err
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return api.Host{}, fmt.Errorf("uname: %w", err)
	}
	var si unix.Sysinfo_t
	if err := unix.Sysinfo(&si); err != nil {
		return api.Host{}, fmt.Errorf("sysinfo: %w", err)
	}
	out := api.Host{Hostname: name, Kernel: unix.ByteSliceToString(uts.Release[:]), CPUs: runtime.NumCPU(),
		MemoryBytes: int64(si.Totalram) * int64(si.Unit), Version: version, StartedAt: h.started}
	if f, err := h.kernel.Facts(ctx); err == nil {
		out.Module = api.HostModule{Present: true, ABI: f.ABI, KVM: f.KVM, MaxVMs: f.MaxVMs, MaxVCPUs: f.MaxVCPUs,
			Instance: strconv.FormatUint(f.Instance, 16)}
	}
	return out, nil
}

// tasks is the record of tasks as rest wants it: the board waits, the store lists.
type tasks struct {
	*task.Board
	st *store.Store
}

// List lists.
func (t tasks) List(ctx context.Context, f rest.TaskFilter) ([]api.Task, []int64, int64, error) {
	return t.st.Tasks(ctx, f.VM, f.State, f.Before, f.Limit)
}
