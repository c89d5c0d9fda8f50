// SPDX-License-Identifier: GPL-2.0
/*
 * The VM: its states and its end.
 *
 *   created --BIND--> bound --first RUN--> running
 *      |                |                    |
 *      +----------------+--------------------+--> stopped
 *
 * Every change of state happens here, with vmm_vm.lock held, and posts its
 * event under the same lock: events leave in the order of the changes.
 */
#include <linux/cred.h>
#include <linux/file.h>
#include <linux/jiffies.h>
#include <linux/pid.h>
#include <linux/poll.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/timekeeping.h>

#include "trace.h"
#include "vmm_drv.h"

/* What a monitor can claim in a loop is told this often at most. */
#define CLAIM_INTERVAL	HZ

/* Describes @vm as it is now; vmm_vm.lock is held. */
void vmm_vm_describe_locked(struct vmm_vm *vm, struct vmm_note *note)
{
	lockdep_assert_held(&vm->lock);
	*note = (struct vmm_note) {
		.id = vm->id,
		.created = vm->created,
		.memory = vm->memory,
		.state = vm->state,
		.paused = vm->paused,
		.reason = vm->reason,
		.monitor = vm->monitor ? pid_nr(vm->monitor) : 0,
		.vcpus = vm->vcpus_made,
		.owner = vm->owner,
	};
	memcpy(note->exit_data, vm->exit_data, sizeof(note->exit_data));
	memcpy(note->uuid, vm->uuid, sizeof(note->uuid));
	memcpy(note->name, vm->name, sizeof(note->name));
}

void vmm_vm_describe(struct vmm_vm *vm, struct vmm_note *note)
{
	spin_lock(&vm->lock);
	vmm_vm_describe_locked(vm, note);
	spin_unlock(&vm->lock);
}

/* ---- memory ----------------------------------------------------------------- */

/* @limit: VMM_LIMIT_*, or 0 for resets. */
static void tell(struct vmm_vm *vm, struct vmm_claims *claims, u32 limit)
{
	lockdep_assert_held(&vm->lock);
	if (!claims->untold)
		return;
	if (limit)
		vmm_event_post_as(&vm->limit_events[limit - 1], VMM_EVENT_LIMIT,
				  claims->untold, limit);
	else
		vmm_event_post(vm, VMM_EVENT_RESET, claims->untold);
	claims->untold = 0;
	claims->told = jiffies;
}

/* Each of the claims, with what tell() takes for it. */
static struct vmm_claims *claims_at(struct vmm_vm *vm, u32 limit)
{
	return limit ? &vm->limit_hits[limit - 1] : &vm->resets;
}

static void tell_all(struct vmm_vm *vm)
{
	u32 limit;

	for (limit = 0; limit <= ARRAY_SIZE(vm->limit_hits); limit++)
		tell(vm, claims_at(vm, limit), limit);
}

/* Tells what is due. Return: jiffies to the next, or 0 if there is none. */
static unsigned long tell_due(struct vmm_vm *vm)
{
	unsigned long next = 0, due;
	struct vmm_claims *claims;
	u32 limit;

	for (limit = 0; limit <= ARRAY_SIZE(vm->limit_hits); limit++) {
		claims = claims_at(vm, limit);
		due = claims->told + CLAIM_INTERVAL;
		if (!claims->untold)
			continue;
		if (time_after_eq(jiffies, due))
			tell(vm, claims, limit);
		else
			next = min_not_zero(next, due - jiffies);
	}
	return next;
}

static void claims_work(struct work_struct *work)
{
	struct vmm_vm *vm = container_of(to_delayed_work(work), struct vmm_vm,
					 claims_work);
	unsigned long next;

	spin_lock(&vm->lock);
	next = tell_due(vm);
	if (next && queue_delayed_work(vmm_wq, &vm->claims_work, next))
		vmm_vm_get(vm);
	spin_unlock(&vm->lock);
	vmm_events_flush();
	vmm_vm_put(vm);
}

/*
 * A claim is told at once when none was told for a while, else together with
 * the later ones. The work holds a kref while it is pending.
 */
static void claim(struct vmm_vm *vm, u32 limit)
{
	struct vmm_claims *claims = claims_at(vm, limit);
	unsigned long due = claims->told + CLAIM_INTERVAL;

	lockdep_assert_held(&vm->lock);
	claims->total++;
	if (claims->untold < U32_MAX)
		claims->untold++;
	if (time_after_eq(jiffies, due))
		tell(vm, claims, limit);
	/* The work waits for the lock, so it cannot put this early. */
	else if (queue_delayed_work(vmm_wq, &vm->claims_work, due - jiffies))
		vmm_vm_get(vm);
}

/* vmm_vm_claim - a command went beyond a limit; the caller has a handle */
void vmm_vm_claim(struct vmm_vm *vm, u32 limit)
{
	trace_vmm_limit(vm->id, limit);
	spin_lock(&vm->lock);
	if (vm->state != VMM_VM_STATE_STOPPED)
		claim(vm, limit);
	spin_unlock(&vm->lock);
	vmm_events_flush();
}

static void init_claims(struct vmm_claims *claims)
{
	claims->told = jiffies - CLAIM_INTERVAL;
}

/*
 * vmm_vm_alloc - a VM in state created, with one handle and not yet listed
 */
struct vmm_vm *vmm_vm_alloc(const u8 *uuid, const u8 *name)
{
	struct vmm_vm *vm;
	int i;

	vm = kzalloc(sizeof(*vm), GFP_KERNEL_ACCOUNT);
	if (!vm)
		return NULL;
	memcpy(vm->uuid, uuid, sizeof(vm->uuid));
	memcpy(vm->name, name, sizeof(vm->name));
	vm->created = ktime_get_ns();
	vm->owner = current_euid();
	vm->state = VMM_VM_STATE_CREATED;
	refcount_set(&vm->handles, 1);
	kref_init(&vm->kref);
	spin_lock_init(&vm->lock);
	mutex_init(&vm->setup);
	INIT_LIST_HEAD(&vm->vcpus);
	INIT_LIST_HEAD(&vm->backends);
	init_waitqueue_head(&vm->wait);
	init_waitqueue_head(&vm->poll);
	xa_init(&vm->slots);
	INIT_DELAYED_WORK(&vm->claims_work, claims_work);
	init_claims(&vm->resets);
	for (i = 0; i < ARRAY_SIZE(vm->events); i++)
		vmm_event_init(&vm->events[i], vm, NULL);
	for (i = 0; i < ARRAY_SIZE(vm->limit_hits); i++) {
		init_claims(&vm->limit_hits[i]);
		vmm_event_init(&vm->limit_events[i], vm, NULL);
	}
	return vm;
}

/*
 * Nobody else can see the VM: it has no handle, so it is in no inventory and
 * has no file and no vCPU; no event, no work and no backend holds a kref.
 */
static void vm_free(struct kref *kref)
{
	struct vmm_vm *vm = container_of(kref, struct vmm_vm, kref);

	put_pid(vm->monitor);
	xa_destroy(&vm->slots);
	kfree(vm);
}

/* Context: may sleep. */
void vmm_vm_put(struct vmm_vm *vm)
{
	kref_put(&vm->kref, vm_free);
}

/* Stops the VM and takes it out of the inventory. Return: false if it was out. */
static bool vm_retire(struct vmm_vm *vm)
{
	bool first;

	vmm_vm_end(vm, VMM_REASON_DESTROYED, NULL);
	first = vmm_inventory_remove(vm);
	vmm_events_flush();
	return first;
}

/*
 * The last descriptor is gone, and with it what only commands use: KVM's VM and
 * the guest's memory do not wait for a backend that drains. What can still come
 * is the notifier's ->release, until unregistering has returned: it finds the
 * state stopped and does nothing. The notifier kept the mm's address.
 */
static void vm_let_go(struct vmm_vm *vm)
{
	vmm_monitor_unbind(vm);
	if (vm->kvm_stats)
		fput(vm->kvm_stats);
	if (vm->kvm)
		fput(vm->kvm);
	vmm_limits_put_memory(vm->memory);
	vmm_limits_put_vcpus(vm->vcpus_kvm);
}

/*
 * vmm_vm_put_handle - a descriptor of the VM or of one of its vCPUs is gone
 *
 * Context: may sleep.
 */
void vmm_vm_put_handle(struct vmm_vm *vm)
{
	if (!refcount_dec_and_test(&vm->handles))
		return;
	vm_retire(vm);
	/* All claims are told: neither a command nor the work queues it again. */
	if (cancel_delayed_work(&vm->claims_work))
		vmm_vm_put(vm);
	vm_let_go(vm);
	vmm_vm_put(vm);
}

/* ---- changes of state ---------------------------------------------------------- */

/* Wakes all who poll, those that want to be woken one at a time too. */
void vmm_vm_wake_poll(struct vmm_vm *vm, __poll_t events)
{
	__wake_up(&vm->poll, TASK_NORMAL, 0, poll_to_key(events));
}

/**
 * vmm_vm_end - stop the VM for good
 * @vm:		the VM
 * @reason:	VMM_REASON_*
 * @data:	four words that belong to it, or NULL
 *
 * From here on no VCPU_RUN begins; those that run are on their way out when
 * this returns. The event is posted; who can sleep flushes it.
 *
 * Context: any that may take a spinlock; also the mmu notifier's ->release.
 * Return: false if it was stopped before.
 */
bool vmm_vm_end(struct vmm_vm *vm, u32 reason, const u64 *data)
{
	spin_lock(&vm->lock);
	if (vm->state == VMM_VM_STATE_STOPPED) {
		spin_unlock(&vm->lock);
		return false;
	}
	tell_all(vm);
	vm->state = VMM_VM_STATE_STOPPED;
	vm->reason = reason;
	if (vm->paused)
		vm->paused_ns += ktime_get_ns() - vm->paused_at;
	vm->paused = 0;
	if (data)
		memcpy(vm->exit_data, data, sizeof(vm->exit_data));
	else
		memset(vm->exit_data, 0, sizeof(vm->exit_data));
	trace_vmm_vm_state(vm->id, vm->state, reason);
	vmm_event_post(vm, VMM_EVENT_STOPPED, 1);
	vmm_gate_stop(vm);
	if (vm->backend_count)
		vmm_backends_vm_ended();
	spin_unlock(&vm->lock);
	wake_up_all(&vm->wait);
	vmm_vm_wake_poll(vm, EPOLLHUP);
	return true;
}

/*
 * vmm_vm_start - a vCPU is about to run for the first time
 *
 * Return: 0 or -ESHUTDOWN.
 */
int vmm_vm_start(struct vmm_vm *vm)
{
	bool begun = false;
	int ret = 0;

	spin_lock(&vm->lock);
	switch (vm->state) {
	case VMM_VM_STATE_BOUND:
		vm->state = VMM_VM_STATE_RUNNING;
		trace_vmm_vm_state(vm->id, vm->state, vm->reason);
		vmm_event_post(vm, VMM_EVENT_RUNNING, 1);
		begun = true;
		break;
	case VMM_VM_STATE_RUNNING:
		break;
	default:
		ret = -ESHUTDOWN;
	}
	spin_unlock(&vm->lock);
	if (begun)
		vmm_events_flush();
	return ret;
}

/* Who comes second waits all the same, for the thread that the first left. */
int vmm_vm_stop(struct vmm_call *call)
{
	bool first = vmm_vm_end(call->vm, VMM_REASON_OPERATOR, NULL);

	vmm_events_flush();
	return vmm_gate_wait(call->vm) ?: first ? 0 : -ESHUTDOWN;
}

int vmm_vm_destroy(struct vmm_call *call)
{
	if (!vm_retire(call->vm))
		return -ESHUTDOWN;
	return vmm_gate_wait(call->vm);
}

static int report_reset(struct vmm_vm *vm, const u64 *data)
{
	int ret = 0;

	spin_lock(&vm->lock);
	if (vm->state != VMM_VM_STATE_STOPPED) {
		vm->reason = VMM_REASON_RESET;
		memcpy(vm->exit_data, data, sizeof(vm->exit_data));
		claim(vm, 0);
	} else {
		ret = -ESHUTDOWN;
	}
	spin_unlock(&vm->lock);
	vmm_events_flush();
	return ret;
}

int vmm_vm_report(struct vmm_call *call)
{
	const struct vmm_vm_report *report = &call->arg.report;

	if (report->reason < VMM_REASON_POWEROFF ||
	    report->reason > VMM_REASON_INTERNAL_ERROR)
		return -EINVAL;
	if (report->reason == VMM_REASON_RESET)
		return report_reset(call->vm, report->data);
	if (!vmm_vm_end(call->vm, report->reason, report->data))
		return -ESHUTDOWN;
	vmm_events_flush();
	return 0;
}
