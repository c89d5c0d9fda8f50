// SPDX-License-Identifier: GPL-2.0
/*
 * The monitor: the process that did VM_BIND, known by its memory map.
 *
 * It is gone when that map is released (exit, kill, exec: the mmu notifier
 * tells) or when the descriptor that did VM_BIND is released (vm_file.c),
 * whichever comes first.
 */
#include <linux/file.h>
#include <linux/pid.h>
#include <linux/sched/signal.h>

#include "trace.h"
#include "vmm_drv.h"

/*
 * The map has no user left, so no thread is in VCPU_RUN. Only state is set
 * here; the event is sent by the work. A VM that was not bound after all is not
 * the map's: that is when binding fails.
 */
static void vmm_monitor_release(struct mmu_notifier *notifier,
				struct mm_struct *mm)
{
	struct vmm_vm *vm = container_of(notifier, struct vmm_vm, notifier);
	bool bound;

	spin_lock(&vm->lock);
	bound = vm->mm;
	spin_unlock(&vm->lock);
	if (bound && vmm_vm_end(vm, VMM_REASON_MONITOR_GONE, NULL))
		vmm_events_flush_later();
}

static const struct mmu_notifier_ops notifier_ops = {
	.release = vmm_monitor_release,
};

/* The state may have changed since the command was admitted. */
static int may_bind(struct vmm_vm *vm)
{
	lockdep_assert_held(&vm->lock);
	if (vm->state == VMM_VM_STATE_CREATED)
		return 0;
	return vm->state == VMM_VM_STATE_STOPPED ? -ESHUTDOWN : -EBUSY;
}

static int publish(struct vmm_call *call, struct file *kvm,
		   struct file *stats)
{
	struct vmm_vm *vm = call->vm;
	int ret;

	spin_lock(&vm->lock);
	ret = may_bind(vm);
	if (!ret) {
		vm->kvm = kvm;
		vm->kvm_stats = stats;
		vm->mm = current->mm;
		vm->monitor = get_pid(task_tgid(current));
		vm->state = VMM_VM_STATE_BOUND;
		call->vm_file->binder = true;
		trace_vmm_vm_state(vm->id, vm->state, vm->reason);
		vmm_event_post(vm, VMM_EVENT_BOUND, 1);
	}
	spin_unlock(&vm->lock);
	return ret;
}

static int bind(struct vmm_call *call)
{
	struct vmm_vm *vm = call->vm;
	struct file *kvm, *stats;
	int ret;

	lockdep_assert_held(&vm->setup);
	spin_lock(&vm->lock);
	ret = may_bind(vm);
	spin_unlock(&vm->lock);
	if (ret)
		return ret;
	/*
	 * Before KVM makes the VM, as registering gives up when a signal comes,
	 * and a VM is dear. ->release cannot come before we are done: we use the
	 * map. So it never sees a VM that is half bound.
	 */
	vm->notifier.ops = &notifier_ops;
	ret = mmu_notifier_register(&vm->notifier, current->mm);
	if (ret)
		return ret;
	kvm = vmm_kvm_create_vm(&stats);
	ret = PTR_ERR_OR_ZERO(kvm);
	if (ret)
		goto unregister;
	ret = publish(call, kvm, stats);
	if (ret)
		goto put_kvm;
	return 0;

put_kvm:
	if (stats)
		fput(stats);
	fput(kvm);
unregister:
	/* It calls ->release, which finds the VM not bound. */
	mmu_notifier_unregister(&vm->notifier, current->mm);
	return ret;
}

int vmm_monitor_bind(struct vmm_call *call)
{
	int ret;

	if (mutex_lock_killable(&call->vm->setup))
		return -EINTR;
	ret = bind(call);
	mutex_unlock(&call->vm->setup);
	vmm_events_flush();
	/* Registering gives up when any signal comes; nothing was done. */
	if (ret == -EINTR && signal_pending(current))
		ret = -ERESTARTNOINTR;
	return ret;
}

/*
 * vmm_monitor_unbind - forget the map; for a VM that nobody can see any more
 */
void vmm_monitor_unbind(struct vmm_vm *vm)
{
	if (vm->mm)
		mmu_notifier_unregister(&vm->notifier, vm->mm);
}
