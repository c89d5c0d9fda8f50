// SPDX-License-Identifier: GPL-2.0
/*
 * GET_INFO: facts by class, on every kind of descriptor. It also works on what
 * is stopped or destroyed, but for the class that asks KVM about this VM.
 */
#include <linux/cred.h>
#include <linux/pid.h>
#include <linux/sched.h>
#include <linux/uaccess.h>
#include <linux/user_namespace.h>

#include "vmm_drv.h"

static int info_abi(struct vmm_call *call)
{
	struct vmm_info_abi info = { .abi = VMM_ABI };

	if (vmm_kvm_present())
		info.capabilities |= VMM_CAP_KVM;
	return vmm_call_give(call, &info, sizeof(info));
}

static int info_limits(struct vmm_call *call)
{
	struct vmm_info_limits info = {};
	struct vmm_limits limits;

	if (call->vm)
		vmm_limits_of(call->vm, &limits);
	else
		vmm_limits_host(&limits);
	info.max_vms = limits.max_vms;
	info.max_vcpus = limits.max_vcpus;
	info.max_memslots = limits.max_memslots;
	info.max_doorbells = limits.max_doorbells;
	info.max_backends = limits.max_backends;
	info.host_vcpus = limits.host_vcpus;
	info.max_memory = limits.max_memory;
	info.host_memory = limits.host_memory;
	return vmm_call_give(call, &info, sizeof(info));
}

static int info_vm(struct vmm_call *call)
{
	struct vmm_info_vm info = {};
	struct vmm_note note;
	struct pid *monitor;

	vmm_vm_describe(call->vm, &note);
	info.id = note.id;
	info.created = note.created;
	info.memory = note.memory;
	memcpy(info.exit_data, note.exit_data, sizeof(info.exit_data));
	memcpy(info.uuid, note.uuid, sizeof(info.uuid));
	memcpy(info.name, note.name, sizeof(info.name));
	info.state = note.state;
	info.rights = call->vm_file ? call->vm_file->rights : 0;
	info.reason = note.reason;
	info.paused = note.paused;
	info.owner = from_kuid_munged(current_user_ns(), note.owner);
	/* Never taken away while the VM is there, and we hold a handle. */
	monitor = READ_ONCE(call->vm->monitor);
	info.monitor = monitor ? pid_vnr(monitor) : 0;
	info.vcpus = note.vcpus;
	return vmm_call_give(call, &info, sizeof(info));
}

static int info_kvm_extension(struct vmm_call *call)
{
	struct vmm_vm *vm = call->vm;
	struct vmm_info_kvm_extension info;
	struct mm_struct *mm;
	long ret;

	ret = vmm_call_tail(call, sizeof(struct vmm_payload) + sizeof(info));
	if (ret)
		return ret;
	if (copy_from_user(&info, vmm_payload(call), sizeof(info)))
		return -EFAULT;
	spin_lock(&vm->lock);
	mm = vm->mm;
	ret = vm->destroyed ? -ESHUTDOWN : 0;
	spin_unlock(&vm->lock);
	if (ret)
		return ret;
	if (!mm)
		return -EBUSY;
	if (mm != current->mm)
		return -EIO;
	ret = vmm_kvm_ioctl(vm->kvm, KVM_CHECK_EXTENSION, info.extension);
	if (ret < 0)
		return ret;
	info.value = ret;
	return copy_to_user(vmm_payload(call), &info, sizeof(info)) ? -EFAULT : 0;
}

static int info_run_size(struct vmm_call *call)
{
	struct vmm_info_run_size info = {};
	long ret;

	ret = vmm_kvm_dev_ioctl(KVM_GET_VCPU_MMAP_SIZE, 0);
	if (ret < 0)
		return ret;
	info.bytes = ret;
	return vmm_call_give(call, &info, sizeof(info));
}

static const struct vmm_class kvm_lists[] = {
	{
		.class = VMM_INFO_KVM_CPUID,
		.get = KVM_GET_SUPPORTED_CPUID,
		.size = sizeof(struct kvm_cpuid2),
		.entry = sizeof(struct kvm_cpuid_entry2),
	}, {
		.class = VMM_INFO_KVM_MSRS,
		.get = KVM_GET_MSR_INDEX_LIST,
		.size = sizeof(struct kvm_msr_list),
		.entry = sizeof(u32),
	},
};

static int info_kvm_list(struct vmm_call *call)
{
	const struct vmm_class *class;
	int ret;

	class = vmm_class_find(kvm_lists, ARRAY_SIZE(kvm_lists),
			       call->arg.payload.class);
	if (!class)
		return -EINVAL;
	ret = vmm_class_check(call, class);
	if (ret)
		return ret;
	return vmm_kvm_dev_ioctl(class->get, (unsigned long)vmm_payload(call));
}

static const struct {
	u32 class;
	unsigned int on;
	int (*handler)(struct vmm_call *call);
} infos[] = {
	{ VMM_INFO_ABI, VMM_ON_DEV | VMM_ON_VM | VMM_ON_VCPU, info_abi },
	{ VMM_INFO_LIMITS, VMM_ON_DEV | VMM_ON_VM | VMM_ON_VCPU, info_limits },
	{ VMM_INFO_VM, VMM_ON_VM | VMM_ON_VCPU, info_vm },
	{ VMM_INFO_KVM_EXTENSION, VMM_ON_VM, info_kvm_extension },
	{ VMM_INFO_KVM_CPUID, VMM_ON_DEV | VMM_ON_VM | VMM_ON_VCPU, info_kvm_list },
	{ VMM_INFO_KVM_MSRS, VMM_ON_DEV | VMM_ON_VM | VMM_ON_VCPU, info_kvm_list },
	{ VMM_INFO_RUN_SIZE, VMM_ON_DEV | VMM_ON_VM | VMM_ON_VCPU, info_run_size },
};

int vmm_info(struct vmm_call *call)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(infos); i++)
		if (infos[i].class == call->arg.payload.class &&
		    infos[i].on & call->on)
			return infos[i].handler(call);
	return -EINVAL;
}
