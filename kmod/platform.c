// SPDX-License-Identifier: GPL-2.0
/*
 * The platform of a VM: set-up, memory, doorbells, interrupts and state. Most
 * of it is KVM's own structures, handed to KVM where they lie in the caller's
 * memory. What is checked here can be changed before KVM reads it: the checks
 * keep honest callers within the contract, and no security rests on them.
 */
#include <linux/kvm.h>
#include <linux/mm.h>
#include <linux/uaccess.h>

#include "vmm_drv.h"

/* ---- payloads by class -------------------------------------------------------- */

const struct vmm_class *vmm_class_find(const struct vmm_class *table,
				       size_t rows, u32 class)
{
	size_t i;

	for (i = 0; i < rows; i++)
		if (table[i].class == class)
			return &table[i];
	return NULL;
}

/*
 * vmm_class_check - check the size of a payload, and what is behind it
 *
 * Return: 0, -EINVAL, -E2BIG, -EFAULT.
 */
int vmm_class_check(struct vmm_call *call, const struct vmm_class *class)
{
	u64 known = sizeof(struct vmm_payload) + class->size;
	u32 entries;

	if (call->size < known)
		return -EINVAL;
	if (class->entry) {
		if (get_user(entries, (u32 __user *)vmm_payload(call)))
			return -EFAULT;
		known += (u64)entries * class->entry;
	}
	return vmm_call_tail(call, known);
}

static long call_by_value(struct vmm_call *call, const struct vmm_class *class,
			  struct file *kvm, bool set)
{
	u64 __user *payload = vmm_payload(call);
	u64 value;
	long ret;

	if (!set) {
		ret = vmm_kvm_ioctl(kvm, class->get, 0);
		if (ret < 0)
			return ret;
		return put_user((u64)ret, payload);
	}
	if (get_user(value, payload))
		return -EFAULT;
	/* KVM cuts it down to 32 bits in silence. */
	if (value > U32_MAX)
		return -EINVAL;
	return vmm_kvm_ioctl(kvm, class->set, value);
}

/*
 * vmm_class_call - hand a checked payload to KVM
 * @kvm:	KVM's VM or vCPU
 * @set:	which direction
 *
 * Return: what KVM says.
 */
long vmm_class_call(struct vmm_call *call, const struct vmm_class *class,
		    struct file *kvm, bool set)
{
	unsigned long arg = 0;

	if (class->by_value)
		return call_by_value(call, class, kvm, set);
	if (class->size)
		arg = (unsigned long)vmm_payload(call);
	return vmm_kvm_ioctl(kvm, set ? class->set : class->get, arg);
}

static int by_class(struct vmm_call *call, const struct vmm_class *table,
		    size_t rows, bool set)
{
	const struct vmm_class *class;
	int ret;

	class = vmm_class_find(table, rows, call->arg.payload.class);
	if (!class)
		return -EINVAL;
	ret = vmm_class_check(call, class);
	if (ret)
		return ret;
	return vmm_class_call(call, class, call->vm->kvm, set);
}

/* ---- set-up ---------------------------------------------------------------------- */

static const struct vmm_class setup_classes[] = {
	{ VMM_SETUP_TSS_ADDR, 0, KVM_SET_TSS_ADDR, sizeof(u64),
	  .by_value = true },
	{ VMM_SETUP_IDENTITY_MAP, 0, KVM_SET_IDENTITY_MAP_ADDR, sizeof(u64) },
	{ VMM_SETUP_IRQCHIP, 0, KVM_CREATE_IRQCHIP },
	{ VMM_SETUP_PIT, 0, KVM_CREATE_PIT2, sizeof(struct kvm_pit_config) },
	{ VMM_SETUP_TSC_KHZ, 0, KVM_SET_TSC_KHZ, sizeof(u64),
	  .by_value = true },
	{ VMM_SETUP_CAP, 0, KVM_ENABLE_CAP, sizeof(struct kvm_enable_cap) },
};

static int check_cap(struct vmm_call *call)
{
	struct kvm_enable_cap __user *user = vmm_payload(call);
	u32 cap;

	if (call->size < sizeof(struct vmm_payload) + sizeof(*user))
		return -EINVAL;
	if (get_user(cap, &user->cap))
		return -EFAULT;
	switch (cap) {
	case KVM_CAP_SPLIT_IRQCHIP:
	case KVM_CAP_X2APIC_API:
	case KVM_CAP_X86_DISABLE_EXITS:
	case KVM_CAP_MAX_VCPU_ID:
	case KVM_CAP_EXCEPTION_PAYLOAD:
		return 0;
	}
	return -EOPNOTSUPP;
}

int vmm_platform_setup(struct vmm_call *call)
{
	int ret;

	if (call->arg.payload.class == VMM_SETUP_CAP) {
		ret = check_cap(call);
		if (ret)
			return ret;
	}
	return by_class(call, setup_classes, ARRAY_SIZE(setup_classes), true);
}

/* ---- memory ----------------------------------------------------------------------- */

static int check_region(const struct kvm_userspace_memory_region *region)
{
	/* The upper half of the slot number names an address space. */
	if (region->slot > U16_MAX ||
	    region->flags & ~(KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY))
		return -EINVAL;
	return 0;
}

/*
 * Whether the slot may have @bytes, of which it has @old now. A slot in use can
 * always be unmapped or shrunk.
 */
static int within_limits(struct vmm_vm *vm, u32 slot, u64 old, u64 bytes)
{
	struct vmm_limits limits;

	vmm_limits_of(vm, &limits);
	if (!old && slot >= limits.max_memslots)
		return vmm_limits_reach(vm, VMM_LIMIT_MEMSLOTS);
	if (bytes <= old)
		return 0;
	if (bytes > limits.max_memory ||
	    vm->memory - old > limits.max_memory - bytes)
		return vmm_limits_reach(vm, VMM_LIMIT_MEMORY);
	return vmm_limits_take_memory(vm, bytes - old);
}

static u64 slot_bytes(struct vmm_vm *vm, u32 slot)
{
	void *entry = xa_load(&vm->slots, slot);

	return entry ? xa_to_value(entry) : 0;
}

static void account(struct vmm_vm *vm, u32 slot, u64 old, u64 bytes)
{
	vm->memory_seen = true;
	/* Room was made before. */
	xa_store(&vm->slots, slot, xa_mk_value(bytes), GFP_KERNEL_ACCOUNT);
	if (bytes < old)
		vmm_limits_put_memory(old - bytes);
	spin_lock(&vm->lock);
	vm->memory += bytes - old;
	vm->memory_peak = max(vm->memory_peak, vm->memory);
	vm->memslots += !!bytes - !!old;
	spin_unlock(&vm->lock);
}

static int map_memory(struct vmm_call *call)
{
	const struct kvm_userspace_memory_region *region =
		&call->arg.map_memory.region;
	struct vmm_vm_map_memory __user *user = call->user;
	struct vmm_vm *vm = call->vm;
	u64 bytes = region->memory_size;
	u32 slot = region->slot;
	u64 old;
	int ret;

	lockdep_assert_held(&vm->setup);
	if (!READ_ONCE(vm->vcpus_made))
		return -EBUSY;
	old = slot_bytes(vm, slot);
	ret = within_limits(vm, slot, old, bytes);
	if (ret)
		return ret;
	ret = xa_reserve(&vm->slots, slot, GFP_KERNEL_ACCOUNT);
	if (!ret)
		ret = vmm_kvm_ioctl(vm->kvm, KVM_SET_USER_MEMORY_REGION,
				    (unsigned long)&user->region);
	if (!ret)
		account(vm, slot, old, bytes);
	else if (bytes > old)
		vmm_limits_put_memory(bytes - old);
	return ret;
}

int vmm_platform_map_memory(struct vmm_call *call)
{
	int ret;

	ret = check_region(&call->arg.map_memory.region);
	if (ret)
		return ret;
	if (mutex_lock_killable(&call->vm->setup))
		return -EINTR;
	ret = map_memory(call);
	mutex_unlock(&call->vm->setup);
	return ret;
}

/* ---- doorbells and interrupts ------------------------------------------------------- */

#define DOORBELL_FLAGS	(KVM_IOEVENTFD_FLAG_DATAMATCH | \
			 KVM_IOEVENTFD_FLAG_PIO | KVM_IOEVENTFD_FLAG_DEASSIGN)

int vmm_platform_map_mmio(struct vmm_call *call)
{
	const struct kvm_ioeventfd *bell = &call->arg.map_mmio.ioeventfd;
	struct vmm_vm_map_mmio __user *user = call->user;
	bool remove = bell->flags & KVM_IOEVENTFD_FLAG_DEASSIGN;
	struct vmm_vm *vm = call->vm;
	struct vmm_limits limits;
	int ret;

	if (bell->flags & ~DOORBELL_FLAGS ||
	    memchr_inv(bell->pad, 0, sizeof(bell->pad)))
		return -EINVAL;
	/* Counted before, so that threads cannot pass the limit together. */
	vmm_limits_of(vm, &limits);
	if (!remove && atomic_inc_return(&vm->doorbells) > limits.max_doorbells) {
		atomic_dec(&vm->doorbells);
		return vmm_limits_reach(vm, VMM_LIMIT_DOORBELLS);
	}
	ret = vmm_kvm_ioctl(vm->kvm, KVM_IOEVENTFD,
			    (unsigned long)&user->ioeventfd);
	if (remove ? !ret : ret)
		atomic_dec_if_positive(&vm->doorbells);
	return ret;
}

int vmm_platform_map_irq(struct vmm_call *call)
{
	const struct kvm_irqfd *irqfd = &call->arg.map_irq.irqfd;
	struct vmm_vm_map_irq __user *user = call->user;

	if (irqfd->flags & ~(KVM_IRQFD_FLAG_DEASSIGN | KVM_IRQFD_FLAG_RESAMPLE) ||
	    memchr_inv(irqfd->pad, 0, sizeof(irqfd->pad)))
		return -EINVAL;
	return vmm_kvm_ioctl(call->vm->kvm, KVM_IRQFD,
			     (unsigned long)&user->irqfd);
}

int vmm_platform_set_routes(struct vmm_call *call)
{
	const struct kvm_irq_routing *routing = &call->arg.routes.routing;
	struct vmm_vm_set_routes __user *user = call->user;
	int ret;

	if (routing->nr > VMM_MAX_ROUTES)
		return -EINVAL;
	ret = vmm_call_tail(call, struct_size(user, routing.entries,
					      routing->nr));
	if (ret)
		return ret;
	return vmm_kvm_ioctl(call->vm->kvm, KVM_SET_GSI_ROUTING,
			     (unsigned long)&user->routing);
}

static const struct vmm_class signal_classes[] = {
	{ VMM_SIGNAL_MSI, 0, KVM_SIGNAL_MSI, sizeof(struct kvm_msi) },
	{ VMM_SIGNAL_LINE, 0, KVM_IRQ_LINE, sizeof(struct kvm_irq_level) },
};

int vmm_platform_signal(struct vmm_call *call)
{
	return by_class(call, signal_classes, ARRAY_SIZE(signal_classes), true);
}

/* ---- state --------------------------------------------------------------------------- */

static const struct vmm_class state_classes[] = {
	{ VMM_STATE_IRQCHIP, KVM_GET_IRQCHIP, KVM_SET_IRQCHIP,
	  sizeof(struct kvm_irqchip) },
	{ VMM_STATE_PIT, KVM_GET_PIT2, KVM_SET_PIT2,
	  sizeof(struct kvm_pit_state2) },
	{ VMM_STATE_CLOCK, KVM_GET_CLOCK, KVM_SET_CLOCK,
	  sizeof(struct kvm_clock_data) },
};

int vmm_platform_state(struct vmm_call *call)
{
	return by_class(call, state_classes, ARRAY_SIZE(state_classes),
			call->cmd == VMM_IOC_VM_SET_STATE);
}

int vmm_platform_dirty_log(struct vmm_call *call)
{
	struct vmm_vm_dirty_log __user *user = call->user;

	/* The upper half of the slot number names an address space. */
	if (call->arg.dirty.log.slot > U16_MAX)
		return -EINVAL;
	return vmm_kvm_ioctl(call->vm->kvm, KVM_GET_DIRTY_LOG,
			     (unsigned long)&user->log);
}
