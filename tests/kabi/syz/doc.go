// SPDX-License-Identifier: Apache-2.0

// Package syz holds what describes the ABI to syzkaller, and the test that keeps
// it true to vmm.h:
//
//	dev_vmm.txt                      /dev/vmm and its descriptors
//	socket_netlink_generic_vmm.txt   the netlink family
//
// Both belong into sys/linux of syzkaller's tree, with vmm.h as
// include/uapi/linux/vmm.h of the kernel whose constants are extracted.
package syz
