// SPDX-License-Identifier: GPL-2.0
/*
 * Limits: what the host allows, in the module's parameters, what a VM was
 * configured to, and what all VMs use together.
 *
 * A parameter can be changed at any time. It is looked at when something is
 * asked for and never again, so it holds for what comes after.
 */
#include <linux/minmax.h>
#include <linux/module.h>
#include <linux/moduleparam.h>

#include "vmm_drv.h"

/* Slot numbers are 16 bits wide, and KVM keeps some for itself. */
#define MOST_MEMSLOTS	32764

static struct vmm_limits params = {
	.max_vms = 1024,
	.max_vcpus = 256,
	.max_memslots = 512,
	.max_doorbells = 1024,
	.max_backends = 64,
	.host_vcpus = 16384,
	.max_memory = 2ULL << 40,
	.host_memory = 16ULL << 40,
};

/* What all VMs use together. */
static struct {
	atomic64_t vcpus;
	atomic64_t memory;
} used;

static int set_count(const char *val, const struct kernel_param *kp)
{
	return param_set_uint_minmax(val, kp, 1, INT_MAX);
}

static int set_memslots(const char *val, const struct kernel_param *kp)
{
	return param_set_uint_minmax(val, kp, 1, MOST_MEMSLOTS);
}

static int set_bytes(const char *val, const struct kernel_param *kp)
{
	unsigned long long bytes;
	int ret;

	ret = kstrtoull(val, 0, &bytes);
	if (ret)
		return ret;
	if (!bytes || bytes > S64_MAX)
		return -EINVAL;
	WRITE_ONCE(*(unsigned long long *)kp->arg, bytes);
	return 0;
}

static const struct kernel_param_ops count_ops = {
	.set = set_count,
	.get = param_get_uint,
};

static const struct kernel_param_ops memslots_ops = {
	.set = set_memslots,
	.get = param_get_uint,
};

static const struct kernel_param_ops bytes_ops = {
	.set = set_bytes,
	.get = param_get_ullong,
};

module_param_cb(max_vms, &count_ops, &params.max_vms, 0644);
MODULE_PARM_DESC(max_vms, "VMs on this host at the same time");
module_param_cb(max_vcpus, &count_ops, &params.max_vcpus, 0644);
MODULE_PARM_DESC(max_vcpus, "vCPUs of one VM");
module_param_cb(max_memslots, &memslots_ops, &params.max_memslots, 0644);
MODULE_PARM_DESC(max_memslots, "memory slots of one VM, at most 32764");
module_param_cb(max_doorbells, &count_ops, &params.max_doorbells, 0644);
MODULE_PARM_DESC(max_doorbells, "doorbell windows of one VM");
module_param_cb(max_backends, &count_ops, &params.max_backends, 0644);
MODULE_PARM_DESC(max_backends, "backends of one VM");
module_param_cb(max_memory, &bytes_ops, &params.max_memory, 0644);
MODULE_PARM_DESC(max_memory, "bytes that one VM may map");
module_param_cb(host_vcpus, &count_ops, &params.host_vcpus, 0644);
MODULE_PARM_DESC(host_vcpus, "vCPUs of all VMs together");
module_param_cb(host_memory, &bytes_ops, &params.host_memory, 0644);
MODULE_PARM_DESC(host_memory, "bytes that all VMs together may map");

/* What the host allows now. */
void vmm_limits_host(struct vmm_limits *limits)
{
	*limits = (struct vmm_limits) {
		.max_vms = READ_ONCE(params.max_vms),
		.max_vcpus = READ_ONCE(params.max_vcpus),
		.max_memslots = READ_ONCE(params.max_memslots),
		.max_doorbells = READ_ONCE(params.max_doorbells),
		.max_backends = READ_ONCE(params.max_backends),
		.host_vcpus = READ_ONCE(params.host_vcpus),
		.max_memory = READ_ONCE(params.max_memory),
		.host_memory = READ_ONCE(params.host_memory),
	};
}

/* What this VM is allowed now: the lower of the host's word and its own. */
void vmm_limits_of(struct vmm_vm *vm, struct vmm_limits *limits)
{
	vmm_limits_host(limits);
	limits->max_vcpus = min_not_zero(limits->max_vcpus,
					 READ_ONCE(vm->limits.max_vcpus));
	limits->max_memslots = min_not_zero(limits->max_memslots,
					    READ_ONCE(vm->limits.max_memslots));
	limits->max_doorbells = min_not_zero(limits->max_doorbells,
					     READ_ONCE(vm->limits.max_doorbells));
	limits->max_backends = min_not_zero(limits->max_backends,
					    READ_ONCE(vm->limits.max_backends));
	limits->max_memory = min_not_zero(limits->max_memory,
					  READ_ONCE(vm->limits.max_memory));
}

/* A command of @vm went beyond a limit. Return: what the command returns. */
int vmm_limits_reach(struct vmm_vm *vm, u32 limit)
{
	vmm_vm_claim(vm, limit);
	return -ENOSPC;
}

/*
 * Takes @more of what all VMs use together. Never above the limit, not even for
 * a moment, in which another VM would be refused for nothing.
 */
static bool take(atomic64_t *used, u64 more, u64 limit)
{
	s64 old = atomic64_read(used);

	do {
		if (more > limit || old > limit - more)
			return false;
	} while (!atomic64_try_cmpxchg(used, &old, old + more));
	return true;
}

int vmm_limits_take_vcpu(struct vmm_vm *vm)
{
	if (take(&used.vcpus, 1, READ_ONCE(params.host_vcpus)))
		return 0;
	return vmm_limits_reach(vm, VMM_LIMIT_HOST_VCPUS);
}

void vmm_limits_put_vcpus(u32 count)
{
	atomic64_sub(count, &used.vcpus);
}

int vmm_limits_take_memory(struct vmm_vm *vm, u64 bytes)
{
	if (take(&used.memory, bytes, READ_ONCE(params.host_memory)))
		return 0;
	return vmm_limits_reach(vm, VMM_LIMIT_HOST_MEMORY);
}

void vmm_limits_put_memory(u64 bytes)
{
	atomic64_sub(bytes, &used.memory);
}

/* Sets what is not 0. */
static void lower(struct vmm_limits *limits,
		  const struct vmm_vm_config_set *arg)
{
	if (arg->max_vcpus)
		WRITE_ONCE(limits->max_vcpus, arg->max_vcpus);
	if (arg->max_memslots)
		WRITE_ONCE(limits->max_memslots, arg->max_memslots);
	if (arg->max_doorbells)
		WRITE_ONCE(limits->max_doorbells, arg->max_doorbells);
	if (arg->max_backends)
		WRITE_ONCE(limits->max_backends, arg->max_backends);
	if (arg->max_memory)
		WRITE_ONCE(limits->max_memory, arg->max_memory);
}

int vmm_limits_config(struct vmm_call *call)
{
	const struct vmm_vm_config_set *arg = &call->arg.config;
	struct vmm_vm *vm = call->vm;
	struct vmm_limits host;
	int ret = 0;

	vmm_limits_host(&host);
	if (arg->max_vcpus > host.max_vcpus ||
	    arg->max_memslots > host.max_memslots ||
	    arg->max_doorbells > host.max_doorbells ||
	    arg->max_backends > host.max_backends ||
	    arg->max_memory > host.max_memory)
		return -ENOSPC;
	spin_lock(&vm->lock);
	if (vm->state == VMM_VM_STATE_CREATED) {
		lower(&vm->limits, arg);
		vmm_event_post(vm, VMM_EVENT_CONFIGURED, 1);
	} else {
		ret = vm->state == VMM_VM_STATE_STOPPED ? -ESHUTDOWN : -EBUSY;
	}
	spin_unlock(&vm->lock);
	vmm_events_flush();
	return ret;
}

#include "limits_kunit.c"
