// SPDX-License-Identifier: Apache-2.0

package spec

import "strconv"

// maxProcs is how many threads of a monitor run Go code at the same time. Most wait in
// the kernel, for a guest or for I/O, and one that comes back finds a place to go on at
// once: where there was but one, as on a host of one processor, it had to wait until the
// runtime took that from another, for every I/O of a disk. Each costs the process 70 KiB,
// and without a limit there is one for each processor of the host.
const maxProcs = 4

// Environment is what a monitor is started with. Go's runtime reads it before main
// runs, so that nobody but who starts the process can set it.
//
// disablethp keeps huge pages from the heap: on a host that gives them to
// everybody the few hundred KiB that a monitor needs would take 2 to 6 MiB.
// Guest memory is not the heap's and has them.
func Environment() []string {
	return []string{
		"GODEBUG=disablethp=1",
		"GOMAXPROCS=" + strconv.Itoa(maxProcs),
	}
}
