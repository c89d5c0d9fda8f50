// SPDX-License-Identifier: GPL-2.0
/*
 * Pausing: who holds the gate of a VM or of a vCPU, and waiting until nobody is
 * in the guest. What the gate does is in gate.c.
 */
#include <linux/ktime.h>
#include <linux/log2.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "trace.h"
#include "vmm_drv.h"

/* ---- the VM --------------------------------------------------------------------- */

static void free_kicks(struct vmm_kick **kicks, u32 count)
{
	u32 i;

	for (i = 0; i < count; i++)
		vmm_kick_free(kicks[i]);
	kfree(kicks);
}

/* Made before the gate is shut, so that shutting it cannot fail halfway. */
static struct vmm_kick **alloc_kicks(u32 count)
{
	struct vmm_kick **kicks;
	u32 i;

	kicks = kcalloc(max(count, 1U), sizeof(*kicks), GFP_KERNEL_ACCOUNT);
	if (!kicks)
		return NULL;
	for (i = 0; i < count; i++) {
		kicks[i] = vmm_kick_alloc();
		if (!kicks[i]) {
			free_kicks(kicks, i);
			return NULL;
		}
	}
	return kicks;
}

/* Return: 0; -EAGAIN when there are more than @count vCPUs; -ESHUTDOWN. */
static int shut_all(struct vmm_vm *vm, u32 holder, struct vmm_kick **kicks,
		    u32 count)
{
	struct vmm_vcpu *vcpu;

	lockdep_assert_held(&vm->lock);
	if (vm->state == VMM_VM_STATE_STOPPED)
		return -ESHUTDOWN;
	if (vm->vcpus_made > count)
		return -EAGAIN;
	if (!vm->paused) {
		vm->pauses++;
		vm->paused_at = ktime_get_ns();
	}
	if (!(vm->paused & holder)) {
		vm->paused |= holder;
		trace_vmm_vm_pause(vm->id, vm->paused);
		vmm_event_post(vm, VMM_EVENT_PAUSED, 1);
	}
	list_for_each_entry(vcpu, &vm->vcpus, link)
		vmm_gate_shut(vcpu, VMM_GATE_PAUSE, kicks++);
	return 0;
}

static int shut_with_kicks(struct vmm_vm *vm, u32 holder)
{
	struct vmm_kick **kicks;
	u32 count;
	int ret;

	do {
		count = READ_ONCE(vm->vcpus_made);
		kicks = alloc_kicks(count);
		if (!kicks)
			return -ENOMEM;
		spin_lock(&vm->lock);
		ret = shut_all(vm, holder, kicks, count);
		spin_unlock(&vm->lock);
		free_kicks(kicks, count);
	} while (ret == -EAGAIN);
	vmm_events_flush();
	return ret;
}

/* The wait is over, with success or without. */
static bool is_over(struct vmm_vm *vm, u32 holder)
{
	return !vmm_gate_running(vm) || !(READ_ONCE(vm->paused) & holder);
}

/* Return: 0, -ETIME, -ERESTARTSYS. */
static int wait_until(struct vmm_vm *vm, u32 holder, u64 deadline)
{
	ktime_t left = KTIME_MAX;

	if (deadline < KTIME_MAX)
		left = ktime_sub(deadline, ktime_get());
	if (left <= 0)
		return is_over(vm, holder) ? 0 : -ETIME;
	return wait_event_interruptible_hrtimeout(vm->wait,
						  is_over(vm, holder), left);
}

static u32 count_unsettled(struct vmm_vm *vm)
{
	struct vmm_vcpu *vcpu;
	u32 unsettled = 0;

	lockdep_assert_held(&vm->lock);
	list_for_each_entry(vcpu, &vm->vcpus, link)
		unsettled += READ_ONCE(vcpu->unsettled);
	return unsettled;
}

/* What came of waiting, which returned @ret. */
static int outcome(struct vmm_vm *vm, struct vmm_vm_pause *arg, int ret)
{
	spin_lock(&vm->lock);
	arg->running = vmm_gate_running_locked(vm);
	arg->unsettled = count_unsettled(vm);
	if (vm->state == VMM_VM_STATE_STOPPED)
		ret = -ESHUTDOWN;
	else if (!(vm->paused & arg->holder))
		ret = -ECANCELED;
	else if (!arg->running)
		ret = 0;
	else
		ret = ret == -ETIME ? -ETIMEDOUT : -EINTR;
	spin_unlock(&vm->lock);
	return ret;
}

static bool holder_valid(u32 holder)
{
	return is_power_of_2(holder) && !(holder & ~__VMM_PAUSE_ALL);
}

int vmm_vm_pause(struct vmm_call *call)
{
	struct vmm_vm_pause __user *user = call->user;
	struct vmm_vm_pause arg = call->arg.pause;
	int ret;

	if (!holder_valid(arg.holder))
		return -EINVAL;
	/* Not when the gate is shut already. */
	if (put_user(0, &user->unsettled) || put_user(0, &user->running))
		return -EFAULT;
	ret = shut_with_kicks(call->vm, arg.holder);
	if (ret)
		return ret;
	ret = wait_until(call->vm, arg.holder, arg.deadline);
	ret = outcome(call->vm, &arg, ret);
	if (put_user(arg.unsettled, &user->unsettled) ||
	    put_user(arg.running, &user->running))
		return -EFAULT;
	return ret;
}

static int open_gate(struct vmm_vm *vm, u32 holder)
{
	struct vmm_vcpu *vcpu;

	lockdep_assert_held(&vm->lock);
	if (vm->state == VMM_VM_STATE_STOPPED)
		return -ESHUTDOWN;
	if (!(vm->paused & holder))
		return -EALREADY;
	vm->paused &= ~holder;
	trace_vmm_vm_resume(vm->id, vm->paused);
	vmm_event_post(vm, VMM_EVENT_RESUMED, 1);
	if (vm->paused)
		return 0;
	vm->paused_ns += ktime_get_ns() - vm->paused_at;
	list_for_each_entry(vcpu, &vm->vcpus, link)
		vmm_gate_open(vcpu, VMM_GATE_PAUSE);
	return 0;
}

int vmm_vm_resume(struct vmm_call *call)
{
	struct vmm_vm *vm = call->vm;
	int ret;

	if (!holder_valid(call->arg.resume.holder))
		return -EINVAL;
	spin_lock(&vm->lock);
	ret = open_gate(vm, call->arg.resume.holder);
	spin_unlock(&vm->lock);
	wake_up_all(&vm->wait);
	vmm_events_flush();
	return ret;
}

/* ---- one vCPU --------------------------------------------------------------------- */

static bool vcpu_pause_over(struct vmm_vcpu *vcpu)
{
	return !READ_ONCE(vcpu->awaited) ||
	       !(atomic_read(&vcpu->gate) & VMM_GATE_HOLD);
}

static int vcpu_outcome(struct vmm_vcpu *vcpu)
{
	struct vmm_vm *vm = vcpu->vm;
	int ret = 0;

	spin_lock(&vm->lock);
	if (vm->state == VMM_VM_STATE_STOPPED)
		ret = -ESHUTDOWN;
	else if (!(atomic_read(&vcpu->gate) & VMM_GATE_HOLD))
		ret = -ECANCELED;
	else if (READ_ONCE(vcpu->awaited))
		ret = -EINTR;
	spin_unlock(&vm->lock);
	return ret;
}

int vmm_vcpu_pause(struct vmm_call *call)
{
	struct vmm_vcpu *vcpu = call->vcpu;
	struct vmm_vm *vm = call->vm;
	struct vmm_kick *kick;
	int ret = 0;

	kick = vmm_kick_alloc();
	if (!kick)
		return -ENOMEM;
	spin_lock(&vm->lock);
	if (vm->state == VMM_VM_STATE_STOPPED)
		ret = -ESHUTDOWN;
	else
		vmm_gate_shut(vcpu, VMM_GATE_HOLD, &kick);
	spin_unlock(&vm->lock);
	vmm_kick_free(kick);
	if (ret)
		return ret;
	/* What came of it says more than why the wait ended. */
	(void)wait_event_interruptible(vm->wait, vcpu_pause_over(vcpu));
	return vcpu_outcome(vcpu);
}

int vmm_vcpu_resume(struct vmm_call *call)
{
	struct vmm_vcpu *vcpu = call->vcpu;
	struct vmm_vm *vm = call->vm;
	int ret = 0;

	spin_lock(&vm->lock);
	if (atomic_read(&vcpu->gate) & VMM_GATE_HOLD)
		vmm_gate_open(vcpu, VMM_GATE_HOLD);
	else
		ret = -EALREADY;
	spin_unlock(&vm->lock);
	wake_up_all(&vm->wait);
	return ret;
}
