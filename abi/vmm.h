/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * The user-space interface of vmm.ko: the ioctls of /dev/vmm and of the
 * descriptors made from it, and the numbers of the generic-netlink family "vmm".
 *
 * This file is the only place where the interface is written by hand. The Go
 * types in this folder are generated from it; abi/layout.golden pins every
 * offset and is asserted from C and from Go.
 *
 * Objects and what ends them
 * --------------------------
 *
 *   /dev/vmm --VM_CREATE--> VM descriptor --VCPU_CREATE--> vCPU descriptor
 *
 *   created --BIND--> bound --first RUN--> running
 *      |                |                    |
 *      +----------------+--------------------+--> stopped (reason, exit data)
 *
 * An object lives as long as a descriptor of it. A VM has a number that is
 * never used again. VM_STOP, a monitor that goes away, or a monitor that was
 * caught tampering end a VM in state stopped; there is no way back. poll() on
 * any VM descriptor reports HUP from then on.
 *
 * Contract of every command
 * -------------------------
 * Arguments begin with __u32 size: the size of the structure as the caller
 * knows it, payload included. A larger size than the kernel knows is accepted
 * when all bytes beyond are zero, and not more than a page of them. Nothing is
 * written but fields named "Out". "States: any" ends with VM_DESTROY, after
 * which GET_INFO alone answers.
 *
 *   ENOTTY      the command is not known on this kind of descriptor
 *   EINVAL      size too small; a reserved field or an unknown flag is not 0;
 *               a value that is never valid
 *   E2BIG       size is larger than known, and the tail is not 0 or too long
 *   EFAULT      the argument cannot be read or written
 *   EOPNOTSUPP  known, but not supported by this host
 *   EACCES      the descriptor lacks the right that the command needs
 *   EBUSY       the VM is in a state that does not allow the command, or
 *               another thread holds what it needs
 *   ESHUTDOWN   the VM is stopped or destroyed
 *   EIO         called from another memory map than the one that did VM_BIND
 *
 * Errors of KVM are passed on unchanged where the command hands its payload
 * to KVM. 32-bit callers get ENOTTY.
 */
#ifndef _UAPI_LINUX_VMM_H
#define _UAPI_LINUX_VMM_H

#include <linux/ioctl.h>
#include <linux/kvm.h>
#include <linux/types.h>

#define VMM_IOC_MAGIC		0xBB

#define VMM_NAME_LEN		64	/* bytes, with the final NUL */
#define VMM_UUID_LEN		16

/* ---- rights of a VM descriptor ---------------------------------------- */

/** VMM_RIGHT_CONTROL - configure, attach, pause, stop, destroy. */
#define VMM_RIGHT_CONTROL	(1U << 0)
/** VMM_RIGHT_RUN - bind, set up and run: what a monitor needs. */
#define VMM_RIGHT_RUN		(1U << 1)
/** VMM_RIGHT_OBSERVE - statistics; state and HUP need no right. */
#define VMM_RIGHT_OBSERVE	(1U << 2)
/** VMM_RIGHT_DELEGATE - make further descriptors with fewer rights. */
#define VMM_RIGHT_DELEGATE	(1U << 3)
#define __VMM_RIGHT_ALL		(VMM_RIGHT_CONTROL | VMM_RIGHT_RUN | \
				 VMM_RIGHT_OBSERVE | VMM_RIGHT_DELEGATE)

/* ---- states and reasons ------------------------------------------------ */

#define VMM_VM_STATE_CREATED	1
#define VMM_VM_STATE_BOUND	2
#define VMM_VM_STATE_RUNNING	3
#define VMM_VM_STATE_STOPPED	4

/*
 * Why a VM changed last. The same numbers are the monitor's exit status and
 * the reasons of the REST interface. Those from 16 on are claims of the
 * monitor (VM_REPORT): the kernel passes them on and vouches for none.
 */
#define VMM_REASON_NONE			0
#define VMM_REASON_OPERATOR		1	/* VM_STOP */
#define VMM_REASON_MONITOR_GONE		2	/* exit, kill or exec of the monitor */
#define VMM_REASON_TAMPERED		3	/* a raw KVM descriptor was caught */
#define VMM_REASON_DESTROYED		4	/* VM_DESTROY of a VM not stopped */
#define VMM_REASON_POWEROFF		16	/* the guest powered off */
#define VMM_REASON_RESET		17	/* the guest reset: an event, not an end */
#define VMM_REASON_TRIPLE_FAULT		18
#define VMM_REASON_PANIC		19	/* the guest reported a panic */
#define VMM_REASON_INTERNAL_ERROR	20	/* KVM or the monitor gave up */

/* ---- ioctls on any descriptor ------------------------------------------ */

/**
 * VMM_IOC_GET_INFO - ask for facts, by class.
 *
 * Argument: struct vmm_payload, with the structure of the class behind it.
 * Rights: none for ABI and LIMITS, else any. States: any, also stopped.
 */
#define VMM_IOC_GET_INFO	_IO(VMM_IOC_MAGIC, 0x00)

/**
 * struct vmm_payload - head of the commands that work by class
 * @size:	of head and payload together, in bytes
 * @class:	which payload follows; unknown: EINVAL, or EOPNOTSUPP when
 *		this host lacks it
 *
 * The payload begins at offset 8 and is aligned to 8 bytes.
 */
struct vmm_payload {
	__u32 size;
	__u32 class;
};

#define VMM_INFO_ABI		1	/* struct vmm_info_abi; any descriptor */
#define VMM_INFO_LIMITS		2	/* struct vmm_info_limits; any descriptor */
#define VMM_INFO_VM		3	/* struct vmm_info_vm; VM and vCPU */
#define VMM_INFO_KVM_EXTENSION	4	/* struct vmm_info_kvm_extension; VM, bound */
#define VMM_INFO_KVM_CPUID	5	/* struct kvm_cpuid2; any; what KVM supports */
#define VMM_INFO_KVM_MSRS	6	/* struct kvm_msr_list; any; MSRs to save */
#define VMM_INFO_RUN_SIZE	7	/* struct vmm_info_run_size; any */

/**
 * struct vmm_info_abi - what this module speaks
 * @abi:	Out. Number of the interface: grows with each addition, and
 *		never changes what a command means.
 * @reserved:	Out. 0.
 * @capabilities: Out. VMM_CAP_* bits of what works on this host.
 */
struct vmm_info_abi {
	__u32 abi;
	__u32 reserved;
	__aligned_u64 capabilities;
};

#define VMM_ABI			1

#define VMM_CAP_KVM		(1ULL << 0)	/* KVM is there: VM_BIND can work */

/**
 * struct vmm_info_limits - what there may be at most
 * @max_vms:	Out. VMs on this host at the same time.
 * @max_vcpus:	Out. vCPUs of one VM.
 * @max_memslots: Out. Slots of one VM: their numbers are below it.
 * @max_doorbells: Out. VM_MAP_MMIO windows of one VM.
 * @max_backends: Out. Backends of one VM, draining ones included.
 * @host_vcpus:	Out. vCPUs of all VMs together. One counts until its VM is gone.
 * @max_memory:	Out. Bytes that one VM may map.
 * @host_memory: Out. Bytes that all VMs together may map.
 *
 * On /dev/vmm what the module's parameters say, which can be changed at run
 * time and hold for what comes after; on a VM or vCPU descriptor what holds for
 * that VM, which is the lower of the parameter and of VM_CONFIG_SET.
 */
struct vmm_info_limits {
	__u32 max_vms;
	__u32 max_vcpus;
	__u32 max_memslots;
	__u32 max_doorbells;
	__u32 max_backends;
	__u32 host_vcpus;
	__aligned_u64 max_memory;
	__aligned_u64 host_memory;
};

/* Limits, as the event LIMIT names them. */
#define VMM_LIMIT_VCPUS		1
#define VMM_LIMIT_MEMSLOTS	2
#define VMM_LIMIT_DOORBELLS	3
#define VMM_LIMIT_BACKENDS	4
#define VMM_LIMIT_MEMORY	5
#define VMM_LIMIT_HOST_VCPUS	6
#define VMM_LIMIT_HOST_MEMORY	7

/**
 * struct vmm_info_vm - one VM
 * @id:		Out. Number of the VM, never used again.
 * @created:	Out. CLOCK_MONOTONIC, ns.
 * @memory:	Out. Bytes mapped by VM_MAP_MEMORY.
 * @exit_data:	Out. Four words that belong to @reason.
 * @uuid:	Out. As given to VM_CREATE.
 * @name:	Out. As given to VM_CREATE, NUL-terminated.
 * @state:	Out. VMM_VM_STATE_*.
 * @rights:	Out. VMM_RIGHT_* of this descriptor.
 * @reason:	Out. VMM_REASON_* of the last change.
 * @paused:	Out. VMM_PAUSE_* of the holders that keep the gate shut.
 * @owner:	Out. User id of the creator, as the caller's user namespace
 *		sees it.
 * @monitor:	Out. Process id of the monitor as the caller sees it; 0 before
 *		VM_BIND.
 * @vcpus:	Out. vCPUs made so far.
 * @reserved:	Out. 0.
 */
struct vmm_info_vm {
	__aligned_u64 id;
	__aligned_u64 created;
	__aligned_u64 memory;
	__aligned_u64 exit_data[4];
	__u8 uuid[VMM_UUID_LEN];
	__u8 name[VMM_NAME_LEN];
	__u32 state;
	__u32 rights;
	__u32 reason;
	__u32 paused;
	__u32 owner;
	__u32 monitor;
	__u32 vcpus;
	__u32 reserved;
};

/**
 * struct vmm_info_kvm_extension - KVM_CHECK_EXTENSION on this VM
 * @extension:	In. KVM_CAP_*.
 * @value:	Out. 0: not there; else as KVM defines it.
 */
struct vmm_info_kvm_extension {
	__u32 extension;
	__s32 value;
};

/**
 * struct vmm_info_run_size - length of a vCPU's run area
 * @bytes:	Out. What mmap() of a vCPU descriptor takes.
 * @reserved:	Out. 0.
 */
struct vmm_info_run_size {
	__u32 bytes;
	__u32 reserved;
};

/* ---- ioctls on /dev/vmm ------------------------------------------------- */

/**
 * VMM_IOC_VM_CREATE - make a VM, in state created.
 *
 * Argument: struct vmm_vm_create. The new descriptor has all rights.
 * Errors: EEXIST (a VM that is not destroyed has this uuid), ENOSPC (max_vms).
 */
#define VMM_IOC_VM_CREATE	_IO(VMM_IOC_MAGIC, 0x10)

/**
 * struct vmm_vm_create - argument of VMM_IOC_VM_CREATE
 * @size:	sizeof(struct vmm_vm_create)
 * @flags:	must be 0
 * @uuid:	In. Any but all zero.
 * @name:	In. 1 to 63 bytes of [A-Za-z0-9._-], zero up to the end.
 * @id:		Out. Number of the VM.
 * @fd:		Out. VM descriptor, close-on-exec.
 * @reserved:	must be 0
 */
struct vmm_vm_create {
	__u32 size;
	__u32 flags;
	__u8 uuid[VMM_UUID_LEN];
	__u8 name[VMM_NAME_LEN];
	__aligned_u64 id;
	__s32 fd;
	__u32 reserved;
};

/**
 * VMM_IOC_VM_OPEN - open a VM by its number.
 *
 * Argument: struct vmm_vm_open. The only way to gain rights: for the user id
 * that created the VM, and for CAP_SYS_ADMIN in the initial user namespace.
 * Errors: ENOENT (no such VM, or destroyed), EPERM.
 */
#define VMM_IOC_VM_OPEN		_IO(VMM_IOC_MAGIC, 0x11)

/**
 * struct vmm_vm_open - argument of VMM_IOC_VM_OPEN
 * @size:	sizeof(struct vmm_vm_open)
 * @flags:	must be 0
 * @id:		In. Number of the VM.
 * @rights:	In. VMM_RIGHT_*, at least one.
 * @fd:		Out. VM descriptor, close-on-exec.
 */
struct vmm_vm_open {
	__u32 size;
	__u32 flags;
	__aligned_u64 id;
	__u32 rights;
	__s32 fd;
};

/* ---- ioctls on a VM descriptor: control --------------------------------- */

/**
 * VMM_IOC_VM_CONFIG_SET - lower the limits of this VM.
 *
 * Argument: struct vmm_vm_config_set. Right: CONTROL. State: created, as the
 * monitor relies on it from VM_BIND on.
 * Errors: ENOSPC (above what the host allows a VM).
 */
#define VMM_IOC_VM_CONFIG_SET	_IO(VMM_IOC_MAGIC, 0x20)

/**
 * struct vmm_vm_config_set - argument of VMM_IOC_VM_CONFIG_SET
 * @size:	sizeof(struct vmm_vm_config_set)
 * @flags:	must be 0
 * @max_vcpus:	In. As in struct vmm_info_limits; 0 leaves it as it is, as for
 *		the fields that follow.
 * @max_memslots: In.
 * @max_doorbells: In.
 * @max_backends: In.
 * @max_memory:	In. Bytes.
 */
struct vmm_vm_config_set {
	__u32 size;
	__u32 flags;
	__u32 max_vcpus;
	__u32 max_memslots;
	__u32 max_doorbells;
	__u32 max_backends;
	__aligned_u64 max_memory;
};

/**
 * VMM_IOC_VM_DELEGATE - make a descriptor of the same VM with fewer rights.
 *
 * Argument: struct vmm_vm_delegate. Right: DELEGATE. States: any.
 * Errors: EACCES (a right that this descriptor does not have).
 */
#define VMM_IOC_VM_DELEGATE	_IO(VMM_IOC_MAGIC, 0x21)

/**
 * struct vmm_vm_delegate - argument of VMM_IOC_VM_DELEGATE
 * @size:	sizeof(struct vmm_vm_delegate)
 * @flags:	must be 0
 * @rights:	In. VMM_RIGHT_*, at least one, a subset of the caller's.
 * @fd:		Out. VM descriptor, close-on-exec.
 */
struct vmm_vm_delegate {
	__u32 size;
	__u32 flags;
	__u32 rights;
	__s32 fd;
};

/*
 * A backend is what a device of the VM works on: 1 to 16 files, opened by who
 * has the right CONTROL for this VM alone, and taken by the monitor with
 * VM_GET_BACKEND. What was handed out cannot be taken back, so a backend is
 * gone only when the module holds the last reference to each of its files. From
 * VM_DETACH, or the end of the VM, until then it is draining: a descriptor, a
 * mapping, an I/O under way or a vhost worker still has one. Until then its
 * claims hold.
 *
 * A disk's file has one writer or many readers over all VMs of this host, by the
 * identity of what is open: the inode of a regular file, the block device. A
 * file that is open for writing is a writer. A writable block device is also
 * claimed from the kernel, as mount does, so nothing else on the host can open
 * it exclusively; this covers its partitions, dm, md and mounts. What is behind
 * a loop device or an overlay is not seen.
 */
#define VMM_BACKEND_DISK	1
#define VMM_BACKEND_NIC		2

#define VMM_BACKEND_STATE_ATTACHED	1
#define VMM_BACKEND_STATE_DRAINING	2

#define VMM_ROLE_DATA		1	/* disk: what the guest reads and writes */
#define VMM_ROLE_BASE		2	/* disk: below DATA, not open for writing */
#define VMM_ROLE_TAP		3	/* NIC: a queue, in order */
#define VMM_ROLE_VHOST		4	/* NIC: the vhost of a queue, in order */

#define VMM_MAX_BACKEND_FILES	16

/**
 * struct vmm_backend_file - one file of a backend
 * @fd:		In for attaching, Out for VM_GET_BACKEND. Descriptor; 0 behind
 *		the last one.
 * @role:	VMM_ROLE_*; 0 behind the last one.
 */
struct vmm_backend_file {
	__s32 fd;
	__u32 role;
};

/**
 * VMM_IOC_VM_ATTACH_DISK, VMM_IOC_VM_ATTACH_NIC - attach a backend.
 *
 * Argument: struct vmm_vm_attach. Right: CONTROL. States: created, bound,
 * running. A disk has one file DATA, and files BASE below it from the uppermost
 * on: regular files or block devices, open for reading. A NIC has files TAP, and
 * as many VHOST or none: character devices. Every VM descriptor with the right
 * RUN becomes readable.
 * Errors: EBADF, EBUSY (a disk has a writer, or is to have one and has readers;
 * the block device is in use; or this very file is in a backend already), EINVAL
 * (a file of the wrong kind), ENOSPC (max_backends).
 */
#define VMM_IOC_VM_ATTACH_DISK	_IO(VMM_IOC_MAGIC, 0x22)
#define VMM_IOC_VM_ATTACH_NIC	_IO(VMM_IOC_MAGIC, 0x23)

/**
 * struct vmm_vm_attach - argument of the two
 * @size:	sizeof(struct vmm_vm_attach)
 * @flags:	must be 0
 * @backend:	Out. Number of the backend, from 1, never used again in this VM.
 * @count:	In. Files, 1 to VMM_MAX_BACKEND_FILES.
 * @files:	In. @count of them, and zero behind.
 */
struct vmm_vm_attach {
	__u32 size;
	__u32 flags;
	__u32 backend;
	__u32 count;
	struct vmm_backend_file files[VMM_MAX_BACKEND_FILES];
};

/**
 * VMM_IOC_VM_DETACH - begin to detach a backend.
 *
 * Argument: struct vmm_vm_detach. Right: CONTROL. States: created, bound,
 * running. It is handed out no more, and the event DETACHED tells when it is
 * gone. Errors: ENOENT (no such backend, or detached before).
 */
#define VMM_IOC_VM_DETACH	_IO(VMM_IOC_MAGIC, 0x24)

/**
 * struct vmm_vm_detach - argument of VMM_IOC_VM_DETACH
 * @size:	sizeof(struct vmm_vm_detach)
 * @flags:	must be 0
 * @backend:	In. Number of the backend.
 * @reserved:	must be 0
 */
struct vmm_vm_detach {
	__u32 size;
	__u32 flags;
	__u32 backend;
	__u32 reserved;
};

/* Holders of the gate. Each shuts it by itself; it opens when none is left. */
#define VMM_PAUSE_OPERATOR	(1U << 0)
#define VMM_PAUSE_SNAPSHOT	(1U << 1)
#define __VMM_PAUSE_ALL		(VMM_PAUSE_OPERATOR | VMM_PAUSE_SNAPSHOT)

/**
 * VMM_IOC_VM_PAUSE - shut the gate, and wait until no guest code runs.
 *
 * Argument: struct vmm_vm_pause. Right: CONTROL. States: created, bound, running.
 * After it has returned 0, no new guest instruction begins until the last holder
 * resumes. The monitor cannot refuse it and sees nothing of it: VCPU_RUN waits
 * at the gate. A holder that has shut the gate already waits again.
 *
 * Errors: ETIMEDOUT (@running vCPUs were not had by the deadline) and EINTR (a
 * signal), with the gate shut and the event PAUSED told; ECANCELED (this holder
 * was resumed meanwhile); ENOMEM, with nothing done.
 */
#define VMM_IOC_VM_PAUSE	_IO(VMM_IOC_MAGIC, 0x25)

/**
 * struct vmm_vm_pause - argument of VMM_IOC_VM_PAUSE
 * @size:	sizeof(struct vmm_vm_pause)
 * @flags:	must be 0
 * @holder:	In. One of VMM_PAUSE_*.
 * @unsettled:	Out. vCPUs whose last exit the monitor has not completed: what
 *		is to be saved needs 0. It completes it by VCPU_RUN, which then
 *		waits at the gate.
 * @deadline:	In. CLOCK_MONOTONIC, ns. In the past: do not wait; 2^63 - 1 or
 *		more: wait without end.
 * @running:	Out. vCPUs that may still run guest code.
 * @reserved:	must be 0
 */
struct vmm_vm_pause {
	__u32 size;
	__u32 flags;
	__u32 holder;
	__u32 unsettled;
	__aligned_u64 deadline;
	__u32 running;
	__u32 reserved;
};

/**
 * VMM_IOC_VM_RESUME - give up holding the gate; the last holder opens it.
 *
 * Argument: struct vmm_vm_resume. Right: CONTROL. States: created, bound,
 * running. Guests that use kvmclock are told of the pause.
 * Errors: EALREADY (this holder does not hold it).
 */
#define VMM_IOC_VM_RESUME	_IO(VMM_IOC_MAGIC, 0x26)

/**
 * struct vmm_vm_resume - argument of VMM_IOC_VM_RESUME
 * @size:	sizeof(struct vmm_vm_resume)
 * @flags:	must be 0
 * @holder:	In. One of VMM_PAUSE_*.
 * @reserved:	must be 0
 */
struct vmm_vm_resume {
	__u32 size;
	__u32 flags;
	__u32 holder;
	__u32 reserved;
};

/**
 * VMM_IOC_VM_STOP - end the VM. It cannot be refused by the monitor.
 *
 * Argument: struct vmm_vm_flags. Right: CONTROL. Every VCPU_RUN returns
 * ESHUTDOWN; no new guest instruction begins once VM_STOP has returned 0.
 * The reason becomes OPERATOR. A second VM_STOP, and one after the VM has ended
 * otherwise, waits likewise and returns ESHUTDOWN.
 * Errors: EINTR (a signal came while waiting for a vCPU: the VM is stopped,
 * but a vCPU may still be on its way out).
 */
#define VMM_IOC_VM_STOP		_IO(VMM_IOC_MAGIC, 0x27)

/**
 * VMM_IOC_VM_DESTROY - stop the VM and take it out of the inventory.
 *
 * Argument: struct vmm_vm_flags. Right: CONTROL. States: any. All descriptors
 * answer ESHUTDOWN to all but GET_INFO; memory goes with the last of them.
 * It waits for the vCPUs as VM_STOP does.
 * Errors: EINTR (the VM is destroyed, but a vCPU may still be on its way out).
 */
#define VMM_IOC_VM_DESTROY	_IO(VMM_IOC_MAGIC, 0x28)

/**
 * struct vmm_vm_flags - argument of commands that take nothing else
 * @size:	sizeof(struct vmm_vm_flags)
 * @flags:	must be 0
 */
struct vmm_vm_flags {
	__u32 size;
	__u32 flags;
};

/* ---- ioctls on a VM descriptor: run -------------------------------------- */

/**
 * VMM_IOC_VM_BIND - make the calling process the monitor of this VM.
 *
 * Argument: struct vmm_vm_flags. Right: RUN. State: created. From here on
 * every command of this section and of vCPUs must come from the memory map of
 * the caller. The VM is stopped with MONITOR_GONE when that map ends (exit,
 * kill, exec) or when the descriptor that did VM_BIND is closed for good,
 * duplicates included.
 */
#define VMM_IOC_VM_BIND		_IO(VMM_IOC_MAGIC, 0x40)

/**
 * VMM_IOC_VM_SETUP - set up the platform, by class.
 *
 * Argument: struct vmm_payload with the payload of the class.
 * Right: RUN. State: bound. Errors: those of KVM.
 */
#define VMM_IOC_VM_SETUP	_IO(VMM_IOC_MAGIC, 0x41)

#define VMM_SETUP_TSS_ADDR	1	/* __u64: guest physical address */
#define VMM_SETUP_IDENTITY_MAP	2	/* __u64: guest physical address */
#define VMM_SETUP_IRQCHIP	3	/* no payload */
#define VMM_SETUP_PIT		4	/* struct kvm_pit_config */
#define VMM_SETUP_TSC_KHZ	5	/* __u64: kHz, for vCPUs made later */
#define VMM_SETUP_CAP		6	/* struct kvm_enable_cap, from the list below */

/*
 * Capabilities that VMM_SETUP_CAP forwards: KVM_CAP_SPLIT_IRQCHIP,
 * KVM_CAP_X2APIC_API, KVM_CAP_X86_DISABLE_EXITS, KVM_CAP_MAX_VCPU_ID,
 * KVM_CAP_EXCEPTION_PAYLOAD. Any other: EOPNOTSUPP.
 */

/**
 * VMM_IOC_VCPU_CREATE - make a vCPU.
 *
 * Argument: struct vmm_vcpu_create. Right: RUN. State: bound, before the
 * first VM_MAP_MEMORY. Errors: EEXIST, ENOSPC (max_vcpus, host_vcpus), EBUSY
 * (memory is mapped already).
 */
#define VMM_IOC_VCPU_CREATE	_IO(VMM_IOC_MAGIC, 0x42)

/**
 * struct vmm_vcpu_create - argument of VMM_IOC_VCPU_CREATE
 * @size:	sizeof(struct vmm_vcpu_create)
 * @flags:	must be 0
 * @index:	In. Number of the vCPU, which is its initial APIC id.
 * @fd:		Out. vCPU descriptor, close-on-exec.
 */
struct vmm_vcpu_create {
	__u32 size;
	__u32 flags;
	__u32 index;
	__s32 fd;
};

/**
 * VMM_IOC_VM_MAP_MEMORY - map, change or unmap guest memory.
 *
 * Argument: struct vmm_vm_map_memory. Right: RUN. States: bound, running.
 * Errors: ENOSPC (max_memory, host_memory or max_memslots), EBUSY (no vCPU
 * yet).
 */
#define VMM_IOC_VM_MAP_MEMORY	_IO(VMM_IOC_MAGIC, 0x43)

/**
 * struct vmm_vm_map_memory - argument of VMM_IOC_VM_MAP_MEMORY
 * @size:	sizeof(struct vmm_vm_map_memory)
 * @flags:	must be 0
 * @region:	In. As for KVM_SET_USER_MEMORY_REGION, in address space 0.
 */
struct vmm_vm_map_memory {
	__u32 size;
	__u32 flags;
	struct kvm_userspace_memory_region region;
};

/**
 * VMM_IOC_VM_MAP_MMIO - let writes to a doorbell window signal an eventfd.
 *
 * Argument: struct vmm_vm_map_mmio. Right: RUN. States: bound, running.
 * Errors: ENOSPC (max_doorbells).
 */
#define VMM_IOC_VM_MAP_MMIO	_IO(VMM_IOC_MAGIC, 0x44)

/**
 * struct vmm_vm_map_mmio - argument of VMM_IOC_VM_MAP_MMIO
 * @size:	sizeof(struct vmm_vm_map_mmio)
 * @flags:	must be 0
 * @ioeventfd:	In. As for KVM_IOEVENTFD; flags DATAMATCH, PIO, DEASSIGN.
 */
struct vmm_vm_map_mmio {
	__u32 size;
	__u32 flags;
	struct kvm_ioeventfd ioeventfd;
};

/**
 * VMM_IOC_VM_MAP_IRQ - let an eventfd raise an interrupt.
 *
 * Argument: struct vmm_vm_map_irq. Right: RUN. States: bound, running.
 */
#define VMM_IOC_VM_MAP_IRQ	_IO(VMM_IOC_MAGIC, 0x45)

/**
 * struct vmm_vm_map_irq - argument of VMM_IOC_VM_MAP_IRQ
 * @size:	sizeof(struct vmm_vm_map_irq)
 * @flags:	must be 0
 * @irqfd:	In. As for KVM_IRQFD; flags DEASSIGN, RESAMPLE.
 */
struct vmm_vm_map_irq {
	__u32 size;
	__u32 flags;
	struct kvm_irqfd irqfd;
};

/**
 * VMM_IOC_VM_SET_ROUTES - replace the whole table of interrupt routes.
 *
 * Argument: struct vmm_vm_set_routes with its entries. Right: RUN.
 * States: bound, running. At most VMM_MAX_ROUTES entries.
 */
#define VMM_IOC_VM_SET_ROUTES	_IO(VMM_IOC_MAGIC, 0x46)

#define VMM_MAX_ROUTES		4096

/**
 * struct vmm_vm_set_routes - argument of VMM_IOC_VM_SET_ROUTES
 * @size:	of this head and routing.nr entries, in bytes
 * @flags:	must be 0
 * @routing:	In. As for KVM_SET_GSI_ROUTING; routing.flags must be 0.
 */
struct vmm_vm_set_routes {
	__u32 size;
	__u32 flags;
	struct kvm_irq_routing routing;
};

/**
 * VMM_IOC_VM_SIGNAL - raise an interrupt from the monitor, by class.
 *
 * Argument: struct vmm_payload with the payload of the class. Right: RUN.
 * States: bound, running. An NMI is an MSI whose data names delivery mode 4.
 */
#define VMM_IOC_VM_SIGNAL	_IO(VMM_IOC_MAGIC, 0x47)

#define VMM_SIGNAL_MSI		1	/* struct kvm_msi */
#define VMM_SIGNAL_LINE		2	/* struct kvm_irq_level */

/**
 * VMM_IOC_VM_GET_BACKEND - take the files of a backend.
 *
 * Argument: struct vmm_vm_get_backend. Right: RUN. States: bound, running. Each
 * call makes new descriptors of the same open files. A file VHOST is given out
 * once, as it keeps the memory map of who uses it: later its descriptor is -1.
 *
 * A monitor that wants them all begins with number 0 and goes on behind what it
 * got, until ENOENT. From then on the VM descriptor that it used is readable,
 * as poll() sees it, once there is more or less than when it began.
 * Errors: ENOENT (no attached backend with that number or a higher one), EMFILE.
 */
#define VMM_IOC_VM_GET_BACKEND	_IO(VMM_IOC_MAGIC, 0x48)

/**
 * struct vmm_vm_get_backend - argument of VMM_IOC_VM_GET_BACKEND
 * @size:	sizeof(struct vmm_vm_get_backend)
 * @flags:	must be 0
 * @backend:	In: the lowest number wanted. Out: of what was found.
 * @kind:	Out. VMM_BACKEND_*.
 * @count:	Out. Files.
 * @reserved:	must be 0
 * @files:	Out. As they were attached; descriptors are close-on-exec, or -1.
 */
struct vmm_vm_get_backend {
	__u32 size;
	__u32 flags;
	__u32 backend;
	__u32 kind;
	__u32 count;
	__u32 reserved;
	struct vmm_backend_file files[VMM_MAX_BACKEND_FILES];
};

/**
 * VMM_IOC_VM_GET_STATE, VMM_IOC_VM_SET_STATE - state of the platform, by class.
 *
 * Argument: struct vmm_payload with the payload of the class. Right: RUN.
 * States: bound, running; GET also stopped.
 */
#define VMM_IOC_VM_GET_STATE	_IO(VMM_IOC_MAGIC, 0x49)
#define VMM_IOC_VM_SET_STATE	_IO(VMM_IOC_MAGIC, 0x4a)

#define VMM_STATE_IRQCHIP	1	/* struct kvm_irqchip; chip_id chooses */
#define VMM_STATE_PIT		2	/* struct kvm_pit_state2 */
#define VMM_STATE_CLOCK		3	/* struct kvm_clock_data */

/**
 * VMM_IOC_VM_DIRTY_LOG - read and clear which pages of a slot were written.
 *
 * Argument: struct vmm_vm_dirty_log. Right: RUN. States: bound, running; also
 * stopped. The slot must have been mapped with KVM_MEM_LOG_DIRTY_PAGES.
 * Errors: ENOENT (no such slot, or it is not logged).
 */
#define VMM_IOC_VM_DIRTY_LOG	_IO(VMM_IOC_MAGIC, 0x4b)

/**
 * struct vmm_vm_dirty_log - argument of VMM_IOC_VM_DIRTY_LOG
 * @size:	sizeof(struct vmm_vm_dirty_log)
 * @flags:	must be 0
 * @log:	In. As for KVM_GET_DIRTY_LOG, in address space 0: a bit a page,
 *		rounded up to 64 of them.
 */
struct vmm_vm_dirty_log {
	__u32 size;
	__u32 flags;
	struct kvm_dirty_log log;
};

/**
 * VMM_IOC_VM_REPORT - say what became of the guest: the monitor's claim.
 *
 * Argument: struct vmm_vm_report. Right: RUN. States: bound, running. RESET
 * is an event and changes no state; every other reason stops the VM.
 */
#define VMM_IOC_VM_REPORT	_IO(VMM_IOC_MAGIC, 0x4c)

/**
 * struct vmm_vm_report - argument of VMM_IOC_VM_REPORT
 * @size:	sizeof(struct vmm_vm_report)
 * @reason:	In. VMM_REASON_POWEROFF to VMM_REASON_INTERNAL_ERROR.
 * @data:	In. Four words that explain @reason.
 */
struct vmm_vm_report {
	__u32 size;
	__u32 reason;
	__aligned_u64 data[4];
};

/* ---- ioctls on a VM descriptor: observe ----------------------------------- */

/**
 * VMM_IOC_VM_GET_STATS - numbers about the VM, by class.
 *
 * Argument: struct vmm_payload with the payload of the class. Right: OBSERVE.
 * States: any. Any process may ask, not the monitor alone.
 */
#define VMM_IOC_VM_GET_STATS	_IO(VMM_IOC_MAGIC, 0x60)

#define VMM_STATS_VM		1	/* struct vmm_stats_vm */
#define VMM_STATS_VCPU		2	/* struct vmm_stats_vcpu */
#define VMM_STATS_KVM		3	/* struct vmm_stats_kvm with its bytes */

/**
 * struct vmm_stats_vm - what the module counts of a VM
 * @pauses:	Out. Times that the gate went from open to shut.
 * @paused_ns:	Out. Time that it was shut, up to now.
 * @resets:	Out. VM_REPORT of a reset.
 * @limit_hits:	Out. Commands that a limit refused.
 * @memory:	Out. Bytes mapped now.
 * @memory_peak: Out. The most that were mapped at once.
 * @vcpus:	Out. vCPUs made so far.
 * @memslots:	Out. Slots in use.
 * @doorbells:	Out. Doorbell windows.
 * @backends:	Out. Backends, draining ones included.
 */
struct vmm_stats_vm {
	__aligned_u64 pauses;
	__aligned_u64 paused_ns;
	__aligned_u64 resets;
	__aligned_u64 limit_hits;
	__aligned_u64 memory;
	__aligned_u64 memory_peak;
	__u32 vcpus;
	__u32 memslots;
	__u32 doorbells;
	__u32 backends;
};

/**
 * struct vmm_stats_vcpu - what the module counts of a vCPU
 * @vcpu:	In. Index, as given to VCPU_CREATE; ENOENT: there is none.
 * @state:	Out. VMM_VCPU_STATE_*.
 * @kicks:	Out. Times that a kick, a pause or a stop asked its thread out.
 * @parks:	Out. Times that its thread waited at the gate.
 * @parked_ns:	Out. Time that its threads waited at the gate, up to now.
 */
struct vmm_stats_vcpu {
	__u32 vcpu;
	__u32 state;
	__aligned_u64 kicks;
	__aligned_u64 parks;
	__aligned_u64 parked_ns;
};

#define VMM_VCPU_STATE_FRESH	1	/* has not run yet */
#define VMM_VCPU_STATE_RUNNING	2	/* a thread is in VCPU_RUN */
#define VMM_VCPU_STATE_OUTSIDE	3	/* the monitor has it */
#define VMM_VCPU_STATE_PARKED	4	/* a thread waits at the gate */

#define VMM_STATS_OF_VM		(~0U)

/**
 * struct vmm_stats_kvm - KVM's binary statistics
 * @vcpu:	In. Index of a vCPU, or VMM_STATS_OF_VM for those of the VM.
 *		ENOENT: there is none; EBUSY before VM_BIND.
 * @bytes:	In: room behind this head. Out: how much of it was filled. If
 *		that is all of it, there may be more.
 *
 * Behind it stands what a KVM_GET_STATS_FD descriptor reads from its beginning:
 * struct kvm_stats_header, and the rest at the offsets that it names. Nobody
 * waits for a vCPU that runs. EOPNOTSUPP: this KVM has none.
 */
struct vmm_stats_kvm {
	__u32 vcpu;
	__u32 bytes;
};

/* ---- ioctls on a vCPU descriptor ------------------------------------------ */

/**
 * VMM_IOC_VCPU_RUN - run the guest until it needs its monitor.
 *
 * Argument: none, must be 0. States: bound, running. The run area, mapped
 * from the vCPU descriptor, says why it came back: struct kvm_run. Its
 * immediate_exit works as for KVM_RUN. While the gate is shut it waits, whatever
 * immediate_exit says: VCPU_KICK makes it return, and signals are served as in
 * any system call that waits.
 * Errors: EINTR (a signal or VCPU_KICK), EBUSY (another thread runs this
 * vCPU), ESHUTDOWN, and those of KVM_RUN, such as EAGAIN from a vCPU that has
 * just been started by another.
 */
#define VMM_IOC_VCPU_RUN	_IO(VMM_IOC_MAGIC, 0x80)

/**
 * VMM_IOC_VCPU_PAUSE, VMM_IOC_VCPU_RESUME - shut and open the gate of this vCPU.
 *
 * Argument: none, must be 0. States: bound, running. Any thread of the monitor.
 * As VM_PAUSE for one vCPU, but held by the monitor, and without a deadline.
 * Errors: EINTR (a signal came while waiting; the gate stays shut), ECANCELED
 * (it was resumed meanwhile), EALREADY (VCPU_RESUME of one that is not paused).
 */
#define VMM_IOC_VCPU_PAUSE	_IO(VMM_IOC_MAGIC, 0x81)
#define VMM_IOC_VCPU_RESUME	_IO(VMM_IOC_MAGIC, 0x82)

/**
 * VMM_IOC_VCPU_KICK - make the running, or else the next, VCPU_RUN return EINTR.
 *
 * Argument: none, must be 0. Any thread of the monitor. Kicks do not add up.
 */
#define VMM_IOC_VCPU_KICK	_IO(VMM_IOC_MAGIC, 0x83)

/**
 * VMM_IOC_VCPU_GET_REGS, VMM_IOC_VCPU_SET_REGS - registers, by class.
 *
 * Argument: struct vmm_payload with the payload of the class. States: bound,
 * running; GET also stopped. While another thread is in VCPU_RUN: EBUSY.
 * The class MSRS returns how many entries were done, as KVM does.
 */
#define VMM_IOC_VCPU_GET_REGS	_IO(VMM_IOC_MAGIC, 0x84)
#define VMM_IOC_VCPU_SET_REGS	_IO(VMM_IOC_MAGIC, 0x85)

#define VMM_REGS_GENERAL	1	/* struct kvm_regs */
#define VMM_REGS_SYSTEM		2	/* struct kvm_sregs */
#define VMM_REGS_FPU		3	/* struct kvm_fpu */
#define VMM_REGS_XSAVE		4	/* struct kvm_xsave; KVM_CAP_XSAVE2 bytes */
#define VMM_REGS_XCRS		5	/* struct kvm_xcrs */
#define VMM_REGS_DEBUG		6	/* struct kvm_debugregs */
#define VMM_REGS_MSRS		7	/* struct kvm_msrs with its entries */
#define VMM_REGS_CPUID		8	/* struct kvm_cpuid2 with its entries */
#define VMM_REGS_LAPIC		9	/* struct kvm_lapic_state */
#define VMM_REGS_MP_STATE	10	/* struct kvm_mp_state */
#define VMM_REGS_EVENTS		11	/* struct kvm_vcpu_events */
#define VMM_REGS_TSC_KHZ	12	/* __u64: kHz */
#define VMM_REGS_KVMCLOCK_CTRL	13	/* no payload; SET only */
#define VMM_REGS_SYSTEM2	14	/* struct kvm_sregs2: with the PDPTRs */

/* ---- generic netlink -------------------------------------------------------- */

#define VMM_GENL_NAME		"vmm"
#define VMM_GENL_VERSION	1
#define VMM_GENL_MCGRP_EVENTS	"events"

/*
 * The first message of every dump names no object: it carries EVENT_SEQ, the
 * number of the newest event that the dump has taken in, and INSTANCE, so that
 * an empty dump says them too.
 */
#define VMM_CMD_VM_GET		1	/* do by VMM_A_VM_ID; dump */
#define VMM_CMD_VCPU_GET	2	/* dump, of VMM_A_VCPU_VM_ID or of all VMs */
#define VMM_CMD_DEVICE_GET	3	/* dump, of VMM_A_DEV_VM_ID or of all VMs */
#define VMM_CMD_EVENT_GET	4	/* dump since VMM_A_VM_EVENT_SEQ; shorter than
					 * its head says if 4,096 more came meanwhile
					 */
#define VMM_CMD_VM_NTF		5	/* notification: same attributes as VM_GET */
#define VMM_CMD_TOMB_GET	6	/* do by VMM_A_VM_ID; dump: VMs that are gone */

#define VMM_A_VM_PAD		1
#define VMM_A_VM_ID		2	/* u64 */
#define VMM_A_VM_UUID		3	/* 16 bytes */
#define VMM_A_VM_NAME		4	/* NUL-terminated string */
#define VMM_A_VM_STATE		5	/* u32, VMM_VM_STATE_* */
#define VMM_A_VM_PAUSED		6	/* u32, VMM_PAUSE_* */
#define VMM_A_VM_REASON		7	/* u32, VMM_REASON_* */
#define VMM_A_VM_EXIT_DATA	8	/* u64, four times */
#define VMM_A_VM_OWNER		9	/* u32, user id */
#define VMM_A_VM_MONITOR	10	/* u32, process id; 0 before BIND */
#define VMM_A_VM_VCPUS		11	/* u32 */
#define VMM_A_VM_MEMORY		12	/* u64, bytes */
#define VMM_A_VM_CREATED	13	/* u64, CLOCK_MONOTONIC, ns */
#define VMM_A_VM_EVENT		14	/* u32, VMM_EVENT_*; notifications */
#define VMM_A_VM_EVENT_SEQ	15	/* u64: of this event; in a dump, valid up to */
#define VMM_A_VM_EVENT_TIME	16	/* u64, CLOCK_MONOTONIC, ns; of a tomb: its end */
#define VMM_A_VM_INSTANCE	17	/* u64, random, one per load of the module */
#define VMM_A_VM_EVENT_COUNT	18	/* u32: claims that this event stands for */
#define VMM_A_VM_LIMIT		19	/* u32, VMM_LIMIT_* of the event LIMIT */
#define VMM_A_VM_BACKEND	20	/* u32, of ATTACHED and DETACHED */
#define __VMM_A_VM_MAX		20

#define VMM_A_VCPU_PAD		1
#define VMM_A_VCPU_VM_ID	2	/* u64 */
#define VMM_A_VCPU_INDEX	3	/* u32 */
#define VMM_A_VCPU_STATE	4	/* u32, VMM_VCPU_STATE_* */
#define VMM_A_VCPU_PAUSED	5	/* flag: VCPU_PAUSE shut its gate */
#define VMM_A_VCPU_UNSETTLED	6	/* flag: its last exit is not completed */
#define VMM_A_VCPU_KICKS	7	/* u64, as in struct vmm_stats_vcpu */
#define VMM_A_VCPU_PARKS	8	/* u64 */
#define VMM_A_VCPU_PARKED	9	/* u64, ns */
#define VMM_A_VCPU_EVENT_SEQ	10	/* u64, in the first message of a dump */
#define VMM_A_VCPU_INSTANCE	11	/* u64, likewise */
#define __VMM_A_VCPU_MAX	11

#define VMM_A_DEV_PAD		1
#define VMM_A_DEV_VM_ID		2	/* u64 */
#define VMM_A_DEV_BACKEND	3	/* u32 */
#define VMM_A_DEV_KIND		4	/* u32, VMM_BACKEND_* */
#define VMM_A_DEV_STATE		5	/* u32, VMM_BACKEND_STATE_* */
#define VMM_A_DEV_ROLE		6	/* u32, VMM_ROLE_*; once for each file */
#define VMM_A_DEV_DEV		7	/* u64, st_dev or st_rdev of the DATA file */
#define VMM_A_DEV_INODE		8	/* u64, st_ino of it; 0: a block device */
#define VMM_A_DEV_WRITABLE	9	/* flag: it is the writer of its disk */
#define VMM_A_DEV_EVENT_SEQ	10	/* u64, in the first message of a dump */
#define VMM_A_DEV_INSTANCE	11	/* u64, likewise */
#define __VMM_A_DEV_MAX		11

#define VMM_EVENT_CREATED	1
#define VMM_EVENT_CONFIGURED	2
#define VMM_EVENT_BOUND		3
#define VMM_EVENT_RUNNING	4
#define VMM_EVENT_PAUSED	5
#define VMM_EVENT_RESUMED	6
#define VMM_EVENT_ATTACHED	7
#define VMM_EVENT_DETACHED	8
#define VMM_EVENT_LIMIT		9
#define VMM_EVENT_RESET		10
#define VMM_EVENT_STOPPED	11
#define VMM_EVENT_DESTROYED	12

#endif /* _UAPI_LINUX_VMM_H */
