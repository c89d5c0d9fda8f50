// SPDX-License-Identifier: GPL-2.0
/*
 * The vCPU: its making, its descriptor, its run area and its registers.
 */
#include <linux/anon_inodes.h>
#include <linux/file.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/timekeeping.h>
#include <linux/uaccess.h>

#include "vmm_drv.h"

/* ---- the run area ---------------------------------------------------------- */

/*
 * A mapping of KVM's run area, with KVM's file as vm_file: that is where KVM's
 * fault handler looks. vm_private_data is our own file, which each mapping
 * holds: it keeps the vCPU, its VM and this module, as vm_file keeps KVM's
 * parts alone. The references are dropped here, but what follows from that is
 * done by the kernel's own code, later.
 */
static void vmm_run_area_open(struct vm_area_struct *vma)
{
	get_file((struct file *)vma->vm_private_data);
}

static void vmm_run_area_close(struct vm_area_struct *vma)
{
	fput((struct file *)vma->vm_private_data);
}

static vm_fault_t vmm_run_area_fault(struct vm_fault *vmf)
{
	struct file *file = vmf->vma->vm_private_data;
	struct vmm_vcpu *vcpu = file->private_data;

	return READ_ONCE(vcpu->run_ops)->fault(vmf);
}

static const struct vm_operations_struct run_area_ops = {
	.open	= vmm_run_area_open,
	.close	= vmm_run_area_close,
	.fault	= vmm_run_area_fault,
};

static int vmm_vcpu_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct vmm_vcpu *vcpu = file->private_data;
	int ret;

	if (vma->vm_mm != vcpu->mm)
		return -EIO;
	ret = vmm_kvm_mmap(vcpu->kvm, vma);
	if (ret)
		return ret;
	WRITE_ONCE(vcpu->run_ops, vma->vm_ops);
	vma->vm_ops = &run_area_ops;
	vma->vm_private_data = get_file(file);
	return 0;
}

/* ---- registers --------------------------------------------------------------- */

static const struct vmm_class regs_classes[] = {
	{ VMM_REGS_GENERAL, KVM_GET_REGS, KVM_SET_REGS,
	  sizeof(struct kvm_regs) },
	{ VMM_REGS_SYSTEM, KVM_GET_SREGS, KVM_SET_SREGS,
	  sizeof(struct kvm_sregs) },
	{ VMM_REGS_FPU, KVM_GET_FPU, KVM_SET_FPU, sizeof(struct kvm_fpu) },
	{ VMM_REGS_XSAVE, KVM_GET_XSAVE, KVM_SET_XSAVE,
	  sizeof(struct kvm_xsave) },
	{ VMM_REGS_XCRS, KVM_GET_XCRS, KVM_SET_XCRS, sizeof(struct kvm_xcrs) },
	{ VMM_REGS_DEBUG, KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS,
	  sizeof(struct kvm_debugregs) },
	{ VMM_REGS_MSRS, KVM_GET_MSRS, KVM_SET_MSRS, sizeof(struct kvm_msrs),
	  .entry = sizeof(struct kvm_msr_entry) },
	{ VMM_REGS_CPUID, KVM_GET_CPUID2, KVM_SET_CPUID2,
	  sizeof(struct kvm_cpuid2), .entry = sizeof(struct kvm_cpuid_entry2) },
	{ VMM_REGS_LAPIC, KVM_GET_LAPIC, KVM_SET_LAPIC,
	  sizeof(struct kvm_lapic_state) },
	{ VMM_REGS_MP_STATE, KVM_GET_MP_STATE, KVM_SET_MP_STATE,
	  sizeof(struct kvm_mp_state) },
	{ VMM_REGS_EVENTS, KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS,
	  sizeof(struct kvm_vcpu_events) },
	{ VMM_REGS_TSC_KHZ, KVM_GET_TSC_KHZ, KVM_SET_TSC_KHZ, sizeof(u64),
	  .by_value = true },
	{ VMM_REGS_KVMCLOCK_CTRL, 0, KVM_KVMCLOCK_CTRL },
	{ VMM_REGS_SYSTEM2, KVM_GET_SREGS2, KVM_SET_SREGS2,
	  sizeof(struct kvm_sregs2) },
};

/* Where KVM has more to save than struct kvm_xsave, it says how much. */
static void widen_xsave(struct vmm_vm *vm, struct vmm_class *class)
{
	long bytes = vmm_kvm_ioctl(vm->kvm, KVM_CHECK_EXTENSION,
				   KVM_CAP_XSAVE2);

	if (bytes <= 0)
		return;
	class->get = KVM_GET_XSAVE2;
	class->size = max_t(u32, bytes, class->size);
}

static int vcpu_regs(struct vmm_call *call)
{
	const bool set = call->cmd == VMM_IOC_VCPU_SET_REGS;
	struct vmm_vcpu *vcpu = call->vcpu;
	const struct vmm_class *found;
	struct vmm_class class;
	long ret;

	found = vmm_class_find(regs_classes, ARRAY_SIZE(regs_classes),
			       call->arg.payload.class);
	if (!found || !(set ? found->set : found->get))
		return -EINVAL;
	class = *found;
	if (class.class == VMM_REGS_XSAVE)
		widen_xsave(call->vm, &class);
	ret = vmm_class_check(call, &class);
	if (ret)
		return ret;
	ret = vmm_gate_hold(vcpu);
	if (ret)
		return ret;
	ret = vmm_class_call(call, &class, vcpu->kvm, set);
	vmm_gate_release(vcpu);
	return ret;
}

/* ---- the descriptor ------------------------------------------------------------ */

static int vcpu_kick(struct vmm_call *call)
{
	return vmm_gate_kick(call->vcpu);
}

static const struct vmm_command vcpu_commands[] = {
	{
		.cmd = VMM_IOC_GET_INFO,
		.size = sizeof(struct vmm_payload),
		.states = VMM_STATES_ANY,
		.variable = true,
		.destroyed = true,
		.handler = vmm_info,
	}, {
		.cmd = VMM_IOC_VCPU_PAUSE,
		.states = VMM_STATES_LIVE,
		.same_mm = true,
		.handler = vmm_vcpu_pause,
	}, {
		.cmd = VMM_IOC_VCPU_RESUME,
		.states = VMM_STATES_LIVE,
		.same_mm = true,
		.handler = vmm_vcpu_resume,
	}, {
		.cmd = VMM_IOC_VCPU_KICK,
		.states = VMM_STATES_LIVE,
		.same_mm = true,
		.handler = vcpu_kick,
	}, {
		.cmd = VMM_IOC_VCPU_GET_REGS,
		.size = sizeof(struct vmm_payload),
		.states = VMM_STATES_LIVE | VMM_STATE_BIT(STOPPED),
		.variable = true,
		.same_mm = true,
		.handler = vcpu_regs,
	}, {
		.cmd = VMM_IOC_VCPU_SET_REGS,
		.size = sizeof(struct vmm_payload),
		.states = VMM_STATES_LIVE,
		.variable = true,
		.same_mm = true,
		.handler = vcpu_regs,
	},
};

/* An ioctl of a vCPU that is not VCPU_RUN; that one is in gate.c. */
long vmm_vcpu_command(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct vmm_vcpu *vcpu = file->private_data;
	struct vmm_call call = {
		.file = file,
		.on = VMM_ON_VCPU,
		.cmd = cmd,
		.vm = vcpu->vm,
		.vcpu = vcpu,
	};

	return vmm_dispatch(&call, vcpu_commands, ARRAY_SIZE(vcpu_commands),
			    arg);
}

static void vmm_vcpu_show_fdinfo(struct seq_file *seq, struct file *file)
{
	struct vmm_vcpu *vcpu = file->private_data;
	struct vmm_note note;

	vmm_vm_describe(vcpu->vm, &note);
	seq_printf(seq, "vmm-object:\tvcpu\nvmm-id:\t%llu\nvmm-vcpu:\t%u\n",
		   note.id, vcpu->index);
	seq_printf(seq, "vmm-rights:\t0x0\nvmm-state:\t%u\n", note.state);
}

/*
 * Nobody is in an ioctl of this vCPU, no mapping of it is left and no kick is
 * under way: all of them hold the file. Once it is off the list, nobody finds
 * it any more.
 */
static int vmm_vcpu_release(struct inode *inode, struct file *file)
{
	struct vmm_vcpu *vcpu = file->private_data;
	struct vmm_vm *vm = vcpu->vm;

	spin_lock(&vm->lock);
	list_del(&vcpu->link);
	spin_unlock(&vm->lock);
	/* VM_STOP may wait for this one. */
	wake_up_all(&vm->wait);
	if (vcpu->kvm_stats)
		fput(vcpu->kvm_stats);
	if (vcpu->kvm)
		fput(vcpu->kvm);
	vmm_kick_free(vcpu->stop_kick);
	kfree(vcpu);
	vmm_vm_put_handle(vm);
	return 0;
}

static const struct file_operations vmm_vcpu_fops = {
	.owner		= THIS_MODULE,
	.unlocked_ioctl	= vmm_vcpu_ioctl,
	.mmap		= vmm_vcpu_mmap,
	.release	= vmm_vcpu_release,
	.show_fdinfo	= vmm_vcpu_show_fdinfo,
	.llseek		= noop_llseek,
};

/* ---- what is said of it ----------------------------------------------------------- */

static u32 vcpu_state(struct vmm_vcpu *vcpu)
{
	unsigned long runner = READ_ONCE(vcpu->runner);

	if (vcpu->parked)
		return VMM_VCPU_STATE_PARKED;
	if (runner && !(runner & VMM_RUNNER_REGS))
		return VMM_VCPU_STATE_RUNNING;
	if (atomic_read(&vcpu->gate) & VMM_GATE_FRESH)
		return VMM_VCPU_STATE_FRESH;
	return VMM_VCPU_STATE_OUTSIDE;
}

static void describe(struct vmm_vcpu *vcpu, struct vmm_vcpu_note *note)
{
	lockdep_assert_held(&vcpu->vm->lock);
	*note = (struct vmm_vcpu_note) {
		.vm = vcpu->vm->id,
		.kicks = vcpu->kicks,
		.parks = vcpu->parks,
		.parked_ns = vcpu->parked_ns,
		.index = vcpu->index,
		.state = vcpu_state(vcpu),
		.paused = atomic_read(&vcpu->gate) & VMM_GATE_HOLD,
		.unsettled = READ_ONCE(vcpu->unsettled),
	};
	if (vcpu->parked)
		note->parked_ns += ktime_get_ns() - vcpu->parked_at;
}

/*
 * vmm_vcpu_next - describe the vCPU with the lowest index from *@index on
 * @index:	set to its index
 *
 * Return: false if there is none.
 */
bool vmm_vcpu_next(struct vmm_vm *vm, u32 *index, struct vmm_vcpu_note *note)
{
	struct vmm_vcpu *vcpu, *next = NULL;

	spin_lock(&vm->lock);
	list_for_each_entry(vcpu, &vm->vcpus, link)
		if (vcpu->index >= *index &&
		    (!next || vcpu->index < next->index))
			next = vcpu;
	if (next) {
		describe(next, note);
		*index = next->index;
	}
	spin_unlock(&vm->lock);
	return next;
}

/* Return: the file of that vCPU with a reference, or NULL. */
struct file *vmm_vcpu_get_file(struct vmm_vm *vm, u32 index)
{
	struct file *file = NULL;
	struct vmm_vcpu *vcpu;

	spin_lock(&vm->lock);
	list_for_each_entry(vcpu, &vm->vcpus, link)
		if (vcpu->index == index && vmm_file_tryget(&vcpu->file))
			file = vcpu->file;
	spin_unlock(&vm->lock);
	return file;
}

/* ---- making one ------------------------------------------------------------------ */

/* A file with a vCPU in it that KVM does not know yet. */
static struct file *make_file(struct vmm_vm *vm, u32 index)
{
	struct vmm_vcpu *vcpu;
	struct file *file;
	char name[24];

	vcpu = kzalloc(sizeof(*vcpu), GFP_KERNEL_ACCOUNT);
	if (!vcpu)
		return ERR_PTR(-ENOMEM);
	file = ERR_PTR(-ENOMEM);
	vcpu->stop_kick = vmm_kick_alloc();
	if (!vcpu->stop_kick)
		goto free_vcpu;
	vcpu->vm = vm;
	vcpu->mm = vm->mm;
	vcpu->index = index;
	INIT_LIST_HEAD(&vcpu->link);
	atomic_set(&vcpu->gate, VMM_GATE_FRESH);
	snprintf(name, sizeof(name), "vmm-vcpu:%u", index);
	file = anon_inode_getfile(name, &vmm_vcpu_fops, vcpu, O_RDWR);
	if (IS_ERR(file))
		goto free_kick;
	vcpu->file = file;
	vmm_vm_get_handle(vm);
	return file;

free_kick:
	vmm_kick_free(vcpu->stop_kick);
free_vcpu:
	kfree(vcpu);
	return file;
}

static int may_create(struct vmm_vm *vm)
{
	struct vmm_limits limits;
	int ret = 0;

	lockdep_assert_held(&vm->setup);
	vmm_limits_of(vm, &limits);
	spin_lock(&vm->lock);
	if (vm->state != VMM_VM_STATE_BOUND)
		ret = vm->state == VMM_VM_STATE_STOPPED ? -ESHUTDOWN : -EBUSY;
	else if (vm->memory_seen)
		ret = -EBUSY;
	else if (vm->vcpus_made >= limits.max_vcpus)
		ret = -ENOSPC;
	spin_unlock(&vm->lock);
	if (ret == -ENOSPC)
		return vmm_limits_reach(vm, VMM_LIMIT_VCPUS);
	return ret ?: vmm_limits_take_vcpu(vm);
}

/*
 * Lets KVM make the vCPU, and lists it. KVM puts a descriptor of its own into
 * the caller's table for a moment; if another thread caught it, the VM ends
 * here, before it has any memory to run in.
 */
static int fill_vcpu(struct vmm_vcpu *vcpu)
{
	struct vmm_vm *vm = vcpu->vm;
	struct file *kvm;
	int ret = 0;

	kvm = vmm_kvm_create_vcpu(vm->kvm, vcpu->index);
	if (kvm == ERR_PTR(-EBADFD)) {
		vmm_vm_end(vm, VMM_REASON_TAMPERED, NULL);
		vmm_events_flush();
		return -ESHUTDOWN;
	}
	if (IS_ERR(kvm))
		return PTR_ERR(kvm);
	vcpu->kvm = kvm;
	vm->vcpus_kvm++;
	vcpu->kvm_ioctl = kvm->f_op->unlocked_ioctl;
	vcpu->kvm_stats = vmm_kvm_vcpu_stats(kvm);
	spin_lock(&vm->lock);
	if (vm->state == VMM_VM_STATE_BOUND) {
		if (vm->paused)
			atomic_or(VMM_GATE_PAUSE, &vcpu->gate);
		list_add_tail(&vcpu->link, &vm->vcpus);
		vm->vcpus_made++;
	} else {
		ret = -ESHUTDOWN;
	}
	spin_unlock(&vm->lock);
	return ret;
}

static int create(struct vmm_call *call)
{
	struct vmm_vcpu_create __user *user = call->user;
	struct file *file;
	int fd, ret;

	fd = get_unused_fd_flags(O_CLOEXEC);
	if (fd < 0)
		return fd;
	file = make_file(call->vm, call->arg.vcpu_create.index);
	ret = PTR_ERR_OR_ZERO(file);
	if (ret)
		goto put_fd;
	/* Before KVM has made what it cannot unmake. */
	ret = -EFAULT;
	if (put_user(fd, &user->fd))
		goto put_file;
	ret = fill_vcpu(file->private_data);
	if (ret)
		goto put_file;
	fd_install(fd, file);
	return 0;

put_file:
	fput(file);
put_fd:
	put_unused_fd(fd);
	return ret;
}

/* KVM keeps what it has made until the VM goes, and so does the host's limit. */
static int create_within_limits(struct vmm_call *call)
{
	struct vmm_vm *vm = call->vm;
	u32 made = vm->vcpus_kvm;
	int ret;

	lockdep_assert_held(&vm->setup);
	ret = may_create(vm);
	if (ret)
		return ret;
	ret = create(call);
	if (vm->vcpus_kvm == made)
		vmm_limits_put_vcpus(1);
	return ret;
}

int vmm_vcpu_create(struct vmm_call *call)
{
	int ret;

	if (mutex_lock_killable(&call->vm->setup))
		return -EINTR;
	ret = create_within_limits(call);
	mutex_unlock(&call->vm->setup);
	return ret;
}

#include "vcpu_kunit.c"
