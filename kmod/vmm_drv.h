/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The objects of vmm.ko, what guards each field, and what the files share.
 *
 * What keeps what alive
 * ---------------------
 *
 *   VM file, vCPU file --handle--> vmm_vm --kref--> memory
 *   run-area mapping, kick --file--> vCPU file --> vmm_vcpu
 *   list of backends, event --kref--> vmm_backend --kref--> vmm_vm
 *
 * A VM is in the inventory while it has handles and was not destroyed. Events,
 * late work and backends hold a kref, no handle. A vCPU is its file: it goes in
 * the file's release. Every VM has a file while it is in the inventory, and
 * files hold the module, so the module cannot go while a VM exists. A backend
 * that drains outlives its VM; it goes with the module.
 *
 * Lock order
 * ----------
 *
 *   vmm_vm.setup -> mmap_lock
 *   vmm_vm.setup -> events.send -> events.lock, tombs.lock
 *   inventory.lock -> vmm_vm.lock -> events.lock
 *   backends.lock -> claims.lock
 *   backends.lock -> vmm_vm.lock
 *
 * vmm_vm.setup is held over KVM's handlers and so over page faults that user
 * space may block for ever. Nothing that must not be refused takes it: stopping
 * and pausing need vmm_vm.lock alone, under which nothing sleeps.
 *
 * Letters of the fields: [I] set before the object is seen and never changed,
 * [l] vmm_vm.lock, [s] vmm_vm.setup, [v] inventory.lock, [e] events.lock,
 * [k] backends.lock, [b] set with vmm_vm.lock held before state leaves created,
 * never changed after, [a] atomic or by the rules told at the field.
 */
#ifndef _VMM_DRV_H
#define _VMM_DRV_H

#include <linux/atomic.h>
#include <linux/completion.h>
#include <linux/fs.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/mm_types.h>
#include <linux/mmu_notifier.h>
#include <linux/mutex.h>
#include <linux/refcount.h>
#include <linux/spinlock.h>
#include <linux/task_work.h>
#include <linux/types.h>
#include <linux/uidgid.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include "vmm.h"

struct netlink_callback;
struct vmm_backend;
struct vmm_call;
struct vmm_claim;
struct vmm_kick;
struct vmm_vm;
struct nlattr;
struct pid;

extern struct workqueue_struct *vmm_wq;

/* ---- limits --------------------------------------------------------------- */

/*
 * struct vmm_limits - what there may be at most
 *
 * Those of the host are the module's parameters, which root can change at any
 * time; those of a VM are what VM_CONFIG_SET asked for, 0 for what it did not.
 */
struct vmm_limits {
	unsigned int max_vms;
	unsigned int max_vcpus;
	unsigned int max_memslots;
	unsigned int max_doorbells;
	unsigned int max_backends;
	unsigned int host_vcpus;
	unsigned long long max_memory;
	unsigned long long host_memory;
};

void vmm_limits_host(struct vmm_limits *limits);
void vmm_limits_of(struct vmm_vm *vm, struct vmm_limits *limits);
int vmm_limits_reach(struct vmm_vm *vm, u32 limit);
int vmm_limits_take_vcpu(struct vmm_vm *vm);
void vmm_limits_put_vcpus(u32 count);
int vmm_limits_take_memory(struct vmm_vm *vm, u64 bytes);
void vmm_limits_put_memory(u64 bytes);
int vmm_limits_config(struct vmm_call *call);

/* ---- events ------------------------------------------------------------- */

/*
 * struct vmm_note - what is said of a VM, at one moment
 *
 * Replies, notifications and the ring of past events are all made from it.
 */
struct vmm_note {
	u64 id;
	u64 created;
	u64 memory;
	u64 exit_data[4];
	u8 uuid[VMM_UUID_LEN];
	u8 name[VMM_NAME_LEN];
	u32 state;
	u32 paused;
	u32 reason;
	u32 monitor;
	u32 vcpus;
	kuid_t owner;
	u32 event;	/* VMM_EVENT_*; 0: not an event */
	u32 count;	/* claims that the event stands for */
	u32 limit;	/* VMM_LIMIT_* of LIMIT, else 0 */
	u32 backend;	/* of ATTACHED and DETACHED, else 0 */
	u64 seq;
	u64 time;
};

/*
 * struct vmm_event - an event on its way out
 *
 * Each VM has one of each kind in itself, and each backend its own two, so that
 * posting cannot fail and nobody can queue more of them than there are.
 */
struct vmm_event {
	struct list_head link;	/* [e] */
	struct vmm_vm *vm;	/* [I] a kref while queued */
	struct vmm_backend *backend; /* [I] likewise; NULL for events of a VM */
	struct vmm_note note;	/* [e] */
};

/*
 * struct vmm_claims - what the monitor can make happen as often as it wants
 *
 * It is told at once when it was not for a while, and else together with what
 * comes later: one event a second at most.
 */
struct vmm_claims {
	u32 untold;		/* [l] */
	unsigned long told;	/* [l] jiffies of the last event */
	u64 total;		/* [l] */
};

int vmm_events_init(void);
void vmm_events_exit(void);
void vmm_event_init(struct vmm_event *event, struct vmm_vm *vm,
		    struct vmm_backend *backend);
void vmm_event_post(struct vmm_vm *vm, u32 kind, u32 count);
void vmm_event_post_as(struct vmm_event *event, u32 kind, u32 count, u32 detail);
void vmm_events_flush(void);
void vmm_events_flush_later(void);
u64 vmm_events_newest(void);
bool vmm_event_next(u64 *since, struct vmm_note *note);
extern u64 vmm_instance;

/* ---- the VM ------------------------------------------------------------- */

/*
 * struct vmm_vm - a virtual machine
 */
struct vmm_vm {
	u64 id;				/* [I] */
	u64 created;			/* [I] CLOCK_MONOTONIC, ns */
	kuid_t owner;			/* [I] */
	u8 uuid[VMM_UUID_LEN];		/* [I] */
	u8 name[VMM_NAME_LEN];		/* [I] */

	refcount_t handles;		/* files of this VM and of its vCPUs */
	struct kref kref;

	struct hlist_node by_uuid;	/* [v] */

	spinlock_t lock;		/* state and vCPUs; nothing sleeps */
	u32 state;			/* [l] */
	u32 reason;			/* [l] */
	u64 exit_data[4];		/* [l] */
	bool announced;			/* [l] its events are told */
	bool destroyed;			/* [l] set with inventory.lock held too */
	u32 vcpus_made;			/* [l] */
	struct list_head vcpus;		/* [l] */
	u64 memory;			/* [l] written with setup held too */
	u64 memory_peak;		/* [l] */
	u32 memslots;			/* [l] written with setup held too */
	struct vmm_limits limits;	/* [l] written in state created alone */

	u32 paused;			/* [l] VMM_PAUSE_* that hold the gate */
	u64 pauses;			/* [l] */
	u64 paused_ns;			/* [l] up to when it was opened last */
	u64 paused_at;			/* [l] CLOCK_MONOTONIC, ns */

	u32 backend_count;		/* [l] written with backends.lock held too */
	atomic_t backend_last;		/* [a] number given last */
	struct list_head backends;	/* [k] */
	u32 backend_changes;		/* [l] grows with each */

	struct mutex setup;		/* the order of set-up commands */
	struct xarray slots;		/* [s] bytes by slot, as values */
	u32 vcpus_kvm;			/* [s] that KVM has made: it keeps them */
	bool memory_seen;		/* [s] a VM_MAP_MEMORY was accepted */
	atomic_t doorbells;		/* [a] */

	struct file *kvm;		/* [b] KVM's VM */
	struct mm_struct *mm;		/* [b] kept by the notifier */
	struct pid *monitor;		/* [b] */
	struct mmu_notifier notifier;	/* [b] */

	struct file *kvm_stats;		/* [b] KVM's statistics of the VM; or NULL */

	wait_queue_head_t wait;		/* a vCPU is out; the gate opens */
	wait_queue_head_t poll;		/* stopped; backends have changed */

	struct delayed_work claims_work; /* holds a kref while pending */
	struct vmm_claims resets;
	struct vmm_claims limit_hits[VMM_LIMIT_HOST_MEMORY]; /* by limit - 1 */
	struct vmm_event limit_events[VMM_LIMIT_HOST_MEMORY]; /* likewise */
	struct vmm_event events[VMM_EVENT_DESTROYED]; /* by kind - 1 */
};

/*
 * struct vmm_vm_file - a VM descriptor
 */
struct vmm_vm_file {
	struct vmm_vm *vm;		/* [I] a handle */
	u32 rights;			/* [I] */
	bool binder;			/* [l] its end is the monitor's end */
	u32 changes_scan;		/* [l] vmm_vm.backend_changes as its scan began */
	u32 changes_seen;		/* [l] as of the last whole scan */
};

struct vmm_vm *vmm_vm_alloc(const u8 *uuid, const u8 *name);
void vmm_vm_put(struct vmm_vm *vm);
void vmm_vm_put_handle(struct vmm_vm *vm);
bool vmm_vm_end(struct vmm_vm *vm, u32 reason, const u64 *data);
int vmm_vm_start(struct vmm_vm *vm);
void vmm_vm_describe(struct vmm_vm *vm, struct vmm_note *note);
void vmm_vm_describe_locked(struct vmm_vm *vm, struct vmm_note *note);
void vmm_vm_claim(struct vmm_vm *vm, u32 limit);
void vmm_vm_wake_poll(struct vmm_vm *vm, __poll_t events);
int vmm_vm_stop(struct vmm_call *call);
int vmm_vm_destroy(struct vmm_call *call);
int vmm_vm_report(struct vmm_call *call);

/* Its descriptors. */
int vmm_vm_create(struct vmm_call *call);
int vmm_vm_open(struct vmm_call *call);

/* Where it is found. */
int vmm_inventory_add(struct vmm_vm *vm);
bool vmm_inventory_remove(struct vmm_vm *vm);
struct vmm_vm *vmm_inventory_get(u64 id);
int vmm_inventory_describe(u64 id, struct vmm_note *note);
bool vmm_inventory_next(unsigned long *id, struct vmm_note *note);
struct vmm_vm *vmm_inventory_next_vm(unsigned long *id);

/* What is left of it when it is gone. */
void vmm_tomb_bury(const struct vmm_note *note);
int vmm_tomb_describe(u64 id, struct vmm_note *note);
bool vmm_tomb_next(u64 *after, struct vmm_note *note);
int vmm_tombs_init(void);
void vmm_tombs_exit(void);
u32 vmm_inventory_generation(void);
u64 vmm_inventory_new_id(void);

static inline void vmm_vm_get(struct vmm_vm *vm)
{
	kref_get(&vm->kref);
}

static inline void vmm_vm_get_handle(struct vmm_vm *vm)
{
	refcount_inc(&vm->handles);
}

/* The process that runs the VM. */
int vmm_monitor_bind(struct vmm_call *call);
void vmm_monitor_unbind(struct vmm_vm *vm);

/* ---- the vCPU and its gate ------------------------------------------------ */

/* Bits of vmm_vcpu.gate. As long as one is set, VCPU_RUN takes the slow way. */
#define VMM_GATE_STOP	BIT(0)	/* for good: the VM is stopped */
#define VMM_GATE_KICK	BIT(1)	/* one VCPU_RUN has to return EINTR */
#define VMM_GATE_FRESH	BIT(2)	/* has not run yet */
#define VMM_GATE_PAUSE	BIT(3)	/* VM_PAUSE holds it */
#define VMM_GATE_HOLD	BIT(4)	/* VCPU_PAUSE holds it */
#define VMM_GATE_REOPENED BIT(5) /* was shut: the guest's clock is to be told */
#define VMM_GATE_PARK	(VMM_GATE_PAUSE | VMM_GATE_HOLD)
#define VMM_GATE_SHUT	(VMM_GATE_STOP | VMM_GATE_PARK)

/* Bits in the low end of vmm_vcpu.runner, which holds a task_struct's address. */
#define VMM_RUNNER_REGS	1UL	/* in a register access, not in VCPU_RUN */

/*
 * struct vmm_vcpu - a virtual CPU
 *
 * The first cache line is all that VCPU_RUN touches.
 */
struct vmm_vcpu {
	unsigned long runner;		/* [a] see gate.c */
	/* PARK and STOP are set and cleared with vmm_vm.lock held. */
	atomic_t gate;			/* [a] VMM_GATE_* */
	bool unsettled;			/* [a] the runner's: see run() in gate.c */
	struct mm_struct *mm;		/* [I] */
	struct file *kvm;		/* [I] KVM's vCPU */
	long (*kvm_ioctl)(struct file *file, unsigned int cmd,
			  unsigned long arg); /* [I] */
	struct vmm_vm *vm;		/* [I] a handle */

	struct file *file;		/* [I] our own; no reference */
	struct list_head link;		/* [l] */
	struct vmm_kick *stop_kick;	/* [l] made early, so stopping cannot fail */
	/* Task that may be in the guest behind a shut gate. */
	unsigned long awaited;		/* [a] set with vmm_vm.lock held */
	struct task_struct *kicked;	/* [l] has a kick of a pause pending */
	struct task_struct *parked;	/* [l] waits at the gate */
	u64 parked_at;			/* [l] CLOCK_MONOTONIC, ns */
	u64 parked_ns;			/* [l] */
	u64 parks;			/* [l] */
	u64 kicks;			/* [l] */
	const struct vm_operations_struct *run_ops; /* [a] KVM's, once mapped */
	struct file *kvm_stats;		/* [I] KVM's statistics; or NULL */
	u32 index;			/* [I] */
};

/* What is said of a vCPU, at one moment. */
struct vmm_vcpu_note {
	u64 vm;
	u64 kicks;
	u64 parks;
	u64 parked_ns;
	u32 index;
	u32 state;
	bool paused;
	bool unsettled;
};

int vmm_vcpu_create(struct vmm_call *call);
long vmm_vcpu_command(struct file *file, unsigned int cmd, unsigned long arg);
struct file *vmm_vcpu_get_file(struct vmm_vm *vm, u32 index);
bool vmm_vcpu_next(struct vmm_vm *vm, u32 *index, struct vmm_vcpu_note *note);

struct vmm_kick *vmm_kick_alloc(void);
void vmm_kick_free(struct vmm_kick *kick);
long vmm_vcpu_ioctl(struct file *file, unsigned int cmd, unsigned long arg);
int vmm_gate_kick(struct vmm_vcpu *vcpu);
void vmm_gate_stop(struct vmm_vm *vm);
int vmm_gate_wait(struct vmm_vm *vm);
int vmm_gate_hold(struct vmm_vcpu *vcpu);
void vmm_gate_release(struct vmm_vcpu *vcpu);
void vmm_gate_shut(struct vmm_vcpu *vcpu, int bit, struct vmm_kick **kick);
void vmm_gate_open(struct vmm_vcpu *vcpu, int bit);
u32 vmm_gate_running(struct vmm_vm *vm);
u32 vmm_gate_running_locked(struct vmm_vm *vm);

int vmm_vm_pause(struct vmm_call *call);
int vmm_vm_resume(struct vmm_call *call);
int vmm_vcpu_pause(struct vmm_call *call);
int vmm_vcpu_resume(struct vmm_call *call);

/* ---- backends --------------------------------------------------------------- */

/* What is said of a backend, at one moment. */
struct vmm_backend_note {
	u64 vm;
	u64 dev;
	u64 inode;
	u32 number;
	u32 kind;
	u32 state;
	u32 count;
	u32 roles[VMM_MAX_BACKEND_FILES];
	bool writable;
};

struct vmm_claim *vmm_claim_take(struct file *file);
void vmm_claim_drop(struct vmm_claim *claim);

int vmm_backend_attach(struct vmm_call *call);
int vmm_backend_detach(struct vmm_call *call);
int vmm_backend_get(struct vmm_call *call);
bool vmm_backend_next(unsigned long *serial, struct vmm_backend_note *note);
void vmm_backend_hold(struct vmm_backend *backend);
void vmm_backend_put(struct vmm_backend *backend);
u32 vmm_backends_generation(void);
void vmm_backends_vm_ended(void);
void vmm_backends_exit(void);

/* ---- commands --------------------------------------------------------------- */

/* Kinds of descriptors, for tables that serve more than one. */
#define VMM_ON_DEV	BIT(0)
#define VMM_ON_VM	BIT(1)
#define VMM_ON_VCPU	BIT(2)

/**
 * struct vmm_call - one ioctl, as its handler sees it
 * @file:	the descriptor
 * @on:		VMM_ON_* of it
 * @cmd:	the command
 * @vm:		the VM, NULL on /dev/vmm
 * @vm_file:	NULL but on a VM descriptor
 * @vcpu:	NULL but on a vCPU descriptor
 * @user:	where the argument is
 * @size:	of the argument, as the caller says
 * @arg:	a copy of the part that the command's row knows. What is handed
 *		to KVM is read again from @user by KVM, and can have changed.
 */
struct vmm_call {
	struct file *file;
	unsigned int on;
	unsigned int cmd;
	struct vmm_vm *vm;
	struct vmm_vm_file *vm_file;
	struct vmm_vcpu *vcpu;
	void __user *user;
	u32 size;
	union {
		struct vmm_payload payload;
		struct vmm_vm_create create;
		struct vmm_vm_open open;
		struct vmm_vm_delegate delegate;
		struct vmm_vm_config_set config;
		struct vmm_vm_attach attach;
		struct vmm_vm_detach detach;
		struct vmm_vm_pause pause;
		struct vmm_vm_resume resume;
		struct vmm_vm_get_backend backend;
		struct vmm_vm_dirty_log dirty;
		struct vmm_vm_flags flags;
		struct vmm_vm_map_memory map_memory;
		struct vmm_vm_map_mmio map_mmio;
		struct vmm_vm_map_irq map_irq;
		struct vmm_vm_set_routes routes;
		struct vmm_vm_report report;
		struct vmm_vcpu_create vcpu_create;
	} arg;
};

#define VMM_STATES_ANY		(~0U)
#define VMM_STATE_BIT(s)	BIT(VMM_VM_STATE_##s)
#define VMM_STATES_LIVE		(VMM_STATE_BIT(BOUND) | VMM_STATE_BIT(RUNNING))
#define VMM_STATES_UNTIL_STOP	(VMM_STATE_BIT(CREATED) | VMM_STATES_LIVE)

/**
 * struct vmm_command - a row of a descriptor's table of commands
 * @cmd:	VMM_IOC_*
 * @size:	of the fixed part, copied and checked before the handler
 * @zero:	offsets of up to four __u32 that must be 0; 0 ends the list
 * @rights:	VMM_RIGHT_* that the descriptor needs, all of them
 * @states:	VMM_STATE_BIT() of the states that allow it; on /dev/vmm unused
 * @variable:	more than @size is known: the handler checks size and tail
 * @destroyed:	works on a destroyed VM too
 * @same_mm:	refused unless it comes from the monitor's memory map
 * @handler:	Return: what the ioctl returns
 */
struct vmm_command {
	unsigned int cmd;
	u32 size;
	u16 zero[4];
	u32 rights;
	u32 states;
	bool variable;
	bool destroyed;
	bool same_mm;
	int (*handler)(struct vmm_call *call);
};

long vmm_dispatch(struct vmm_call *call, const struct vmm_command *table,
		  size_t rows, unsigned long arg);
int vmm_call_tail(struct vmm_call *call, u64 known);
int vmm_call_give(struct vmm_call *call, const void *what, size_t size);
int vmm_dev_register(void);
void vmm_dev_deregister(void);
int vmm_info(struct vmm_call *call);

int vmm_platform_setup(struct vmm_call *call);
int vmm_platform_map_memory(struct vmm_call *call);
int vmm_platform_map_mmio(struct vmm_call *call);
int vmm_platform_map_irq(struct vmm_call *call);
int vmm_platform_set_routes(struct vmm_call *call);
int vmm_platform_signal(struct vmm_call *call);
int vmm_platform_state(struct vmm_call *call);
int vmm_platform_dirty_log(struct vmm_call *call);
int vmm_stats(struct vmm_call *call);

/**
 * struct vmm_class - one class of a command that hands its payload to KVM
 * @class:	as the caller names it
 * @get:	KVM's ioctl for reading, 0: there is none
 * @set:	KVM's ioctl for writing, 0: there is none
 * @size:	of the payload, or of the head before its entries
 * @entry:	of one entry, 0: there are none. The payload's first __u32 says
 *		how many there are.
 * @by_value:	KVM takes and returns the __u64 payload as a number
 */
struct vmm_class {
	u32 class;
	unsigned int get;
	unsigned int set;
	u32 size;
	u32 entry;
	bool by_value;
};

const struct vmm_class *vmm_class_find(const struct vmm_class *table,
				       size_t rows, u32 class);
int vmm_class_check(struct vmm_call *call, const struct vmm_class *class);
long vmm_class_call(struct vmm_call *call, const struct vmm_class *class,
		    struct file *kvm, bool set);

static inline void __user *vmm_payload(struct vmm_call *call)
{
	return call->user + sizeof(struct vmm_payload);
}

/* ---- KVM, and what differs between kernels --------------------------------- */

void vmm_kvm_init(void);
void vmm_kvm_exit(void);
bool vmm_kvm_present(void);
void vmm_kvm_late(void);
long vmm_kvm_ioctl(struct file *file, unsigned int cmd, unsigned long arg);
long vmm_kvm_dev_ioctl(unsigned int cmd, unsigned long arg);
struct file *vmm_kvm_create_vm(struct file **stats);
struct file *vmm_kvm_vcpu_stats(struct file *vcpu);
struct file *vmm_kvm_create_vcpu(struct file *vm, u32 index);
int vmm_kvm_allow_run(struct file *kvm);
int vmm_kvm_mmap(struct file *kvm, struct vm_area_struct *vma);
bool vmm_file_tryget(struct file **file);
void *vmm_bdev_claim(struct file *file, void *holder);
void vmm_bdev_release(void *claim);
struct nlattr **vmm_dump_attrs(struct netlink_callback *cb);

/* ---- generic netlink --------------------------------------------------------- */

int vmm_netlink_init(void);
void vmm_netlink_exit(void);
void vmm_netlink_notify(const struct vmm_note *note);

#endif /* _VMM_DRV_H */
