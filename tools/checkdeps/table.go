// SPDX-License-Identifier: Apache-2.0

package main

// table is the import table of the repository. For each package the row with
// the most exact pattern holds, and it alone. An edge that is right but has no
// row gets one here, in the commit that brings the edge, with its reason.
var table = importTable{
	edges: []edges{
		{"abi", nil, "the interface stands below all"},

		{"daemon/api", nil, "types of the REST interface, for whoever speaks it"},
		{"daemon/client", []string{"daemon/api"}, "the client knows the API by its types alone"},
		{"daemon/task", []string{"daemon/api"}, "queues and waiting, without VMs"},
		{"daemon/event", []string{"daemon/api"}, "the journal, without what it tells of"},
		{"daemon/seed", nil, "a form of disk, and nothing of whose it is"},
		{"daemon/vm", []string{"daemon/api", "daemon/seed", "daemon/task"}, "the model declares what it needs of kernel, monitors and store as interfaces; its queue is one of package task, and it makes the disk of a VM's seed"},
		{"daemon/auth", []string{"daemon/api", "daemon/auth/peer", "frontdoor/sign"}, "vmctld verifies what vmhttp signs"},
		{"daemon/auth/peer", nil, "a question to the kernel, and nothing of ours"},
		{"daemon/kern/...", []string{"abi", "daemon/api", "daemon/vm"}, "the only way to the module; it satisfies the model's interfaces in the model's types"},
		{"daemon/kern/kerntest", []string{"abi", "daemon/api", "daemon/vm", "daemon/kern"}, "the fake kernel"},
		{"daemon/launch/...", []string{"daemon/api", "daemon/vm", "daemon/launch", "monitor/ctl", "monitor/rate", "monitor/spec", "monitor/wire"}, "it speaks vmx's control protocol, and satisfies the model's interfaces"},
		{"daemon/launch/launchtest", []string{"abi", "daemon/api", "daemon/vm", "daemon/launch", "daemon/kern/kerntest", "monitor/ctl", "monitor/spec", "monitor/wire", "monitor/console/proto"}, "a stub of vmx that speaks its real protocols"},
		{"daemon/network", []string{"daemon/api"}, "taps and bridges, without VMs; it satisfies the model's interface"},
		{"daemon/store", []string{"daemon/api", "daemon/task", "daemon/vm", "daemon/event"}, "it keeps what the model, the tasks and the journal hand it"},
		{"daemon/rest", []string{"daemon/api", "daemon/auth", "daemon/auth/peer", "daemon/event", "daemon/task"}, "HTTP appears in this layer alone; the model comes as interfaces"},
		{"daemon/metrics", []string{"daemon/api"}, "it reads what others hand it"},
		{"daemon/vmctld", []string{"daemon/...", "abi", "frontdoor/sign"}, "main wires everything, the check of signatures too"},

		{"monitor/wire", nil, "the codec of the sockets"},
		{"monitor/rate", []string{"monitor/wire"}, "likewise: limits are a part of the spec"},
		{"monitor/spec", []string{"monitor/rate", "monitor/wire"}, "launch imports it: it must stay small"},
		{"monitor/ctl", []string{"abi", "monitor/rate", "monitor/wire", "monitor/spec"}, "launch imports it: it must stay small"},
		{"monitor/console/proto", []string{"monitor/wire"}, "front door and CLI import it: it must stay small"},
		{"monitor/...", []string{"abi", "monitor/..."}, "vmx holds descriptors of /dev/vmm and nothing of the daemon"},

		{"frontdoor/sign", nil, "vmctld imports it"},
		{"frontdoor/...", []string{"frontdoor/...", "monitor/console/proto"}, "it speaks HTTP to the daemon, and a console's frames to vmx"},

		{"tools/vmctl", []string{"daemon/client", "daemon/api", "monitor/console/proto"}, "the CLI is a client like any other"},
		{"tools/run", []string{"monitor/console/proto", "tools/run/..."}, "so is the program that shows the chain"},
		{"tools/run/chain", nil, "it starts programs and knows none of their code"},
		{"tools/checkdeps", []string{"tools/source"}, "one answer to what a source file is"},
		{"tools/checktree", []string{"tools/source"}, "one answer to what a source file is"},
		{"tools/lab/...", []string{"tools/lab/..."}, "it knows nothing of what runs in it"},
		{"tools/abigen/...", []string{"tools/abigen/..."}, "it makes abi and cannot need it"},
		{"tools/bench/...", []string{"abi", "daemon/client", "daemon/api", "monitor/ctl", "monitor/spec", "monitor/console/proto", "tools/bench/...", "tools/lab/cpio"}, "it measures through the doors that users have, and vmx as vmctld starts it; what its guests run goes into their initramfs"},

		{"tests/...", []string{"abi", "daemon/client", "daemon/api", "daemon/kern/...", "monitor/ctl", "monitor/rate", "monitor/spec", "monitor/console/proto", "tools/run/chain", "tests/..."}, "what spans parts"},
	},
	testEdges: []edges{
		{"daemon/...", []string{"daemon/...", "monitor/console/proto", "tests/vmtest/..."}, "a test may put parts of its side together, and look at a console"},
		{"monitor/...", []string{"monitor/...", "tests/vmtest/..."}, "likewise"},
		{"frontdoor/...", []string{"frontdoor/...", "tests/vmtest/..."}, "likewise"},
		{"tests/vmtest", []string{"daemon/seed"}, "a guest reads the disk that the daemon makes"},
		{"tests/kabi", []string{"daemon/vm", "monitor/acpi", "monitor/boot", "monitor/bus", "monitor/legacy", "monitor/mem", "tools/lab/wire"}, "package kern tells of the module in the model's types, the ABI carries a Linux guest, and the lab says where the module lies"},
	},
	guards: []guard{
		{
			what: []string{"unsafe", "C"},
			// auth/peer: SO_PEERGROUPS has no wrapper; jail: capset for all threads
			// has none; kabi: it attacks the ABI.
			only: []string{"abi/...", "monitor/mem", "monitor/uring", "monitor/virtio/net", "monitor/jail", "daemon/auth/peer", "tests/kabi/..."},
			why:  "memory is touched by the packages that the table names alone",
		},
		{
			what: []string{
				"net/http.Server", "net/http.Serve", "net/http.ServeTLS",
				"net/http.ListenAndServe", "net/http.ListenAndServeTLS",
			},
			only:  []string{"daemon/rest", "frontdoor/..."},
			tests: true,
			why:   "HTTP is served by daemon/rest and the front door alone",
		},
		{
			what: []string{
				"os/exec", "os.StartProcess", "syscall.StartProcess", "syscall.ForkExec",
				"syscall.Exec", "golang.org/x/sys/unix.Exec",
			},
			only:  []string{"daemon/launch", "tools/...", "tests/..."},
			tests: true,
			why:   "programs are started by daemon/launch and tools alone",
		},
	},
	bans: []ban{
		{
			what: []string{"net/http", "encoding/json", "encoding/gob", "encoding/xml", "database/sql", "crypto/tls"},
			in:   "monitor/...",
			why:  "vmx has 5 MiB of memory to spend and no use for it",
		},
	},
}
