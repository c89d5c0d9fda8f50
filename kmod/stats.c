// SPDX-License-Identifier: GPL-2.0
/*
 * VM_GET_STATS: what the module counts, and what KVM does. Any process may ask:
 * nothing here needs the monitor's memory map, or waits for the monitor.
 */
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/timekeeping.h>
#include <linux/uaccess.h>

#include "vmm_drv.h"

static int stats_vm(struct vmm_call *call)
{
	struct vmm_vm *vm = call->vm;
	struct vmm_stats_vm stats;
	int i;

	spin_lock(&vm->lock);
	stats = (struct vmm_stats_vm) {
		.pauses = vm->pauses,
		.paused_ns = vm->paused_ns,
		.resets = vm->resets.total,
		.memory = vm->memory,
		.memory_peak = vm->memory_peak,
		.vcpus = vm->vcpus_made,
		.memslots = vm->memslots,
		.doorbells = atomic_read(&vm->doorbells),
		.backends = vm->backend_count,
	};
	if (vm->paused)
		stats.paused_ns += ktime_get_ns() - vm->paused_at;
	for (i = 0; i < ARRAY_SIZE(vm->limit_hits); i++)
		stats.limit_hits += vm->limit_hits[i].total;
	spin_unlock(&vm->lock);
	return vmm_call_give(call, &stats, sizeof(stats));
}

static int stats_vcpu(struct vmm_call *call)
{
	struct vmm_stats_vcpu stats;
	struct vmm_vcpu_note note;
	u32 index;
	int ret;

	ret = vmm_call_tail(call, sizeof(struct vmm_payload) + sizeof(stats));
	if (ret)
		return ret;
	if (copy_from_user(&stats, vmm_payload(call), sizeof(stats)))
		return -EFAULT;
	index = stats.vcpu;
	if (!vmm_vcpu_next(call->vm, &index, &note) || index != stats.vcpu)
		return -ENOENT;
	stats.state = note.state;
	stats.kicks = note.kicks;
	stats.parks = note.parks;
	stats.parked_ns = note.parked_ns;
	return vmm_call_give(call, &stats, sizeof(stats));
}

/* KVM's file for @vcpu with a reference, or an ERR_PTR. */
static struct file *kvm_stats(struct vmm_vm *vm, u32 index)
{
	struct file *stats = NULL, *file;
	bool bound;

	if (index != VMM_STATS_OF_VM) {
		file = vmm_vcpu_get_file(vm, index);
		if (!file)
			return ERR_PTR(-ENOENT);
		stats = ((struct vmm_vcpu *)file->private_data)->kvm_stats;
		if (stats)
			get_file(stats);
		fput(file);
		return stats ?: ERR_PTR(-EOPNOTSUPP);
	}
	spin_lock(&vm->lock);
	bound = vm->mm;
	if (vm->kvm_stats)
		stats = get_file(vm->kvm_stats);
	spin_unlock(&vm->lock);
	return stats ?: ERR_PTR(bound ? -EOPNOTSUPP : -EBUSY);
}

/* KVM writes straight to the caller; reading from the start needs no state. */
static int stats_kvm(struct vmm_call *call)
{
	struct vmm_stats_kvm __user *user = vmm_payload(call);
	u64 head = sizeof(struct vmm_payload) + sizeof(*user);
	struct vmm_stats_kvm arg;
	struct file *file;
	ssize_t bytes;
	loff_t at = 0;
	int ret;

	if (call->size < head)
		return -EINVAL;
	if (copy_from_user(&arg, user, sizeof(arg)))
		return -EFAULT;
	ret = vmm_call_tail(call, head + arg.bytes);
	if (ret)
		return ret;
	file = kvm_stats(call->vm, arg.vcpu);
	if (IS_ERR(file))
		return PTR_ERR(file);
	bytes = -EOPNOTSUPP;
	if (file->f_op->read)
		bytes = file->f_op->read(file, (char __user *)(user + 1),
					 arg.bytes, &at);
	fput(file);
	if (bytes < 0)
		return bytes;
	return put_user((u32)bytes, &user->bytes);
}

int vmm_stats(struct vmm_call *call)
{
	switch (call->arg.payload.class) {
	case VMM_STATS_VM:
		return stats_vm(call);
	case VMM_STATS_VCPU:
		return stats_vcpu(call);
	case VMM_STATS_KVM:
		return stats_kvm(call);
	}
	return -EINVAL;
}
