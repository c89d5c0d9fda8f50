// SPDX-License-Identifier: Apache-2.0

package spec

import "strconv"

// procs is how many threads of a monitor run Go code at the same time. Most wait in the
// kernel, for a guest or for I/O, and one that comes back finds a place to go on at once.
// Where there is but one place it has to wait until the runtime takes that from another,
// for every I/O of a disk. Each costs the process 130 KiB, and without a limit there is
// one for each processor of the host.
const procs = 2

// Environment is what a monitor is started with. Go's runtime reads it before main
// runs, so that nobody but who starts the process can set it.
//
// disablethp keeps huge pages from the heap: on a host that gives them to
// everybody the few hundred KiB that a monitor needs would take 2 to 6 MiB.
// Guest memory is not the heap's and has them.
func Environment() []string {
	return []string{
		"GODEBUG=disablethp=1",
		"GOMAXPROCS=" + strconv.Itoa(procs),
	}
}
