// SPDX-License-Identifier: GPL-2.0
/*
 * VM descriptors: how they are made, what they admit, and what they show.
 */
#include <linux/anon_inodes.h>
#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/ctype.h>
#include <linux/file.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/sched.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "vmm_drv.h"

static int vm_delegate(struct vmm_call *call);

static const struct vmm_command vm_commands[] = {
	{
		.cmd = VMM_IOC_GET_INFO,
		.size = sizeof(struct vmm_payload),
		.states = VMM_STATES_ANY,
		.variable = true,
		.destroyed = true,
		.handler = vmm_info,
	}, {
		.cmd = VMM_IOC_VM_CONFIG_SET,
		.size = sizeof(struct vmm_vm_config_set),
		.zero = { offsetof(struct vmm_vm_config_set, flags) },
		.rights = VMM_RIGHT_CONTROL,
		.states = VMM_STATE_BIT(CREATED),
		.handler = vmm_limits_config,
	}, {
		.cmd = VMM_IOC_VM_DELEGATE,
		.size = sizeof(struct vmm_vm_delegate),
		.zero = { offsetof(struct vmm_vm_delegate, flags) },
		.rights = VMM_RIGHT_DELEGATE,
		.states = VMM_STATES_ANY,
		.handler = vm_delegate,
	}, {
		.cmd = VMM_IOC_VM_ATTACH_DISK,
		.size = sizeof(struct vmm_vm_attach),
		.zero = { offsetof(struct vmm_vm_attach, flags) },
		.rights = VMM_RIGHT_CONTROL,
		.states = VMM_STATES_UNTIL_STOP,
		.handler = vmm_backend_attach,
	}, {
		.cmd = VMM_IOC_VM_ATTACH_NIC,
		.size = sizeof(struct vmm_vm_attach),
		.zero = { offsetof(struct vmm_vm_attach, flags) },
		.rights = VMM_RIGHT_CONTROL,
		.states = VMM_STATES_UNTIL_STOP,
		.handler = vmm_backend_attach,
	}, {
		.cmd = VMM_IOC_VM_DETACH,
		.size = sizeof(struct vmm_vm_detach),
		.zero = { offsetof(struct vmm_vm_detach, flags),
			  offsetof(struct vmm_vm_detach, reserved) },
		.rights = VMM_RIGHT_CONTROL,
		.states = VMM_STATES_UNTIL_STOP,
		.handler = vmm_backend_detach,
	}, {
		.cmd = VMM_IOC_VM_PAUSE,
		.size = sizeof(struct vmm_vm_pause),
		.zero = { offsetof(struct vmm_vm_pause, flags),
			  offsetof(struct vmm_vm_pause, reserved) },
		.rights = VMM_RIGHT_CONTROL,
		.states = VMM_STATES_UNTIL_STOP,
		.handler = vmm_vm_pause,
	}, {
		.cmd = VMM_IOC_VM_RESUME,
		.size = sizeof(struct vmm_vm_resume),
		.zero = { offsetof(struct vmm_vm_resume, flags),
			  offsetof(struct vmm_vm_resume, reserved) },
		.rights = VMM_RIGHT_CONTROL,
		.states = VMM_STATES_UNTIL_STOP,
		.handler = vmm_vm_resume,
	}, {
		.cmd = VMM_IOC_VM_STOP,
		.size = sizeof(struct vmm_vm_flags),
		.zero = { offsetof(struct vmm_vm_flags, flags) },
		.rights = VMM_RIGHT_CONTROL,
		.states = VMM_STATES_ANY,
		.handler = vmm_vm_stop,
	}, {
		.cmd = VMM_IOC_VM_DESTROY,
		.size = sizeof(struct vmm_vm_flags),
		.zero = { offsetof(struct vmm_vm_flags, flags) },
		.rights = VMM_RIGHT_CONTROL,
		.states = VMM_STATES_ANY,
		.handler = vmm_vm_destroy,
	}, {
		.cmd = VMM_IOC_VM_BIND,
		.size = sizeof(struct vmm_vm_flags),
		.zero = { offsetof(struct vmm_vm_flags, flags) },
		.rights = VMM_RIGHT_RUN,
		.states = VMM_STATE_BIT(CREATED),
		.handler = vmm_monitor_bind,
	}, {
		.cmd = VMM_IOC_VM_SETUP,
		.size = sizeof(struct vmm_payload),
		.rights = VMM_RIGHT_RUN,
		.states = VMM_STATE_BIT(BOUND),
		.variable = true,
		.same_mm = true,
		.handler = vmm_platform_setup,
	}, {
		.cmd = VMM_IOC_VCPU_CREATE,
		.size = sizeof(struct vmm_vcpu_create),
		.zero = { offsetof(struct vmm_vcpu_create, flags) },
		.rights = VMM_RIGHT_RUN,
		.states = VMM_STATE_BIT(BOUND),
		.same_mm = true,
		.handler = vmm_vcpu_create,
	}, {
		.cmd = VMM_IOC_VM_MAP_MEMORY,
		.size = sizeof(struct vmm_vm_map_memory),
		.zero = { offsetof(struct vmm_vm_map_memory, flags) },
		.rights = VMM_RIGHT_RUN,
		.states = VMM_STATES_LIVE,
		.same_mm = true,
		.handler = vmm_platform_map_memory,
	}, {
		.cmd = VMM_IOC_VM_MAP_MMIO,
		.size = sizeof(struct vmm_vm_map_mmio),
		.zero = { offsetof(struct vmm_vm_map_mmio, flags) },
		.rights = VMM_RIGHT_RUN,
		.states = VMM_STATES_LIVE,
		.same_mm = true,
		.handler = vmm_platform_map_mmio,
	}, {
		.cmd = VMM_IOC_VM_MAP_IRQ,
		.size = sizeof(struct vmm_vm_map_irq),
		.zero = { offsetof(struct vmm_vm_map_irq, flags) },
		.rights = VMM_RIGHT_RUN,
		.states = VMM_STATES_LIVE,
		.same_mm = true,
		.handler = vmm_platform_map_irq,
	}, {
		.cmd = VMM_IOC_VM_SET_ROUTES,
		.size = sizeof(struct vmm_vm_set_routes),
		.zero = { offsetof(struct vmm_vm_set_routes, flags),
			  offsetof(struct vmm_vm_set_routes, routing.flags) },
		.rights = VMM_RIGHT_RUN,
		.states = VMM_STATES_LIVE,
		.variable = true,
		.same_mm = true,
		.handler = vmm_platform_set_routes,
	}, {
		.cmd = VMM_IOC_VM_SIGNAL,
		.size = sizeof(struct vmm_payload),
		.rights = VMM_RIGHT_RUN,
		.states = VMM_STATES_LIVE,
		.variable = true,
		.same_mm = true,
		.handler = vmm_platform_signal,
	}, {
		.cmd = VMM_IOC_VM_GET_BACKEND,
		.size = sizeof(struct vmm_vm_get_backend),
		.zero = { offsetof(struct vmm_vm_get_backend, flags),
			  offsetof(struct vmm_vm_get_backend, reserved) },
		.rights = VMM_RIGHT_RUN,
		.states = VMM_STATES_LIVE,
		.same_mm = true,
		.handler = vmm_backend_get,
	}, {
		.cmd = VMM_IOC_VM_GET_STATE,
		.size = sizeof(struct vmm_payload),
		.rights = VMM_RIGHT_RUN,
		.states = VMM_STATES_LIVE | VMM_STATE_BIT(STOPPED),
		.variable = true,
		.same_mm = true,
		.handler = vmm_platform_state,
	}, {
		.cmd = VMM_IOC_VM_SET_STATE,
		.size = sizeof(struct vmm_payload),
		.rights = VMM_RIGHT_RUN,
		.states = VMM_STATES_LIVE,
		.variable = true,
		.same_mm = true,
		.handler = vmm_platform_state,
	}, {
		.cmd = VMM_IOC_VM_DIRTY_LOG,
		.size = sizeof(struct vmm_vm_dirty_log),
		.zero = { offsetof(struct vmm_vm_dirty_log, flags),
			  offsetof(struct vmm_vm_dirty_log, log.padding1) },
		.rights = VMM_RIGHT_RUN,
		.states = VMM_STATES_LIVE | VMM_STATE_BIT(STOPPED),
		.same_mm = true,
		.handler = vmm_platform_dirty_log,
	}, {
		.cmd = VMM_IOC_VM_GET_STATS,
		.size = sizeof(struct vmm_payload),
		.rights = VMM_RIGHT_OBSERVE,
		.states = VMM_STATES_ANY,
		.variable = true,
		.handler = vmm_stats,
	}, {
		.cmd = VMM_IOC_VM_REPORT,
		.size = sizeof(struct vmm_vm_report),
		.rights = VMM_RIGHT_RUN,
		.states = VMM_STATES_LIVE,
		.same_mm = true,
		.handler = vmm_vm_report,
	},
};

static long vmm_vm_ioctl(struct file *file, unsigned int cmd,
			 unsigned long arg)
{
	struct vmm_vm_file *vf = file->private_data;
	struct vmm_call call = {
		.file = file,
		.on = VMM_ON_VM,
		.cmd = cmd,
		.vm = vf->vm,
		.vm_file = vf,
	};

	return vmm_dispatch(&call, vm_commands, ARRAY_SIZE(vm_commands), arg);
}

static __poll_t vmm_vm_poll(struct file *file, poll_table *wait)
{
	struct vmm_vm_file *vf = file->private_data;
	struct vmm_vm *vm = vf->vm;
	__poll_t events = 0;

	poll_wait(file, &vm->poll, wait);
	spin_lock(&vm->lock);
	if (vm->state == VMM_VM_STATE_STOPPED)
		events |= EPOLLHUP;
	if (vf->rights & VMM_RIGHT_RUN &&
	    vf->changes_seen != vm->backend_changes)
		events |= EPOLLIN | EPOLLRDNORM;
	spin_unlock(&vm->lock);
	return events;
}

static void vmm_vm_show_fdinfo(struct seq_file *seq, struct file *file)
{
	struct vmm_vm_file *vf = file->private_data;
	struct vmm_note note;

	vmm_vm_describe(vf->vm, &note);
	seq_printf(seq, "vmm-object:\tvm\nvmm-id:\t%llu\nvmm-uuid:\t%pUb\n",
		   note.id, note.uuid);
	seq_printf(seq, "vmm-name:\t%s\nvmm-rights:\t0x%x\n", note.name,
		   vf->rights);
	seq_printf(seq, "vmm-state:\t%u\nvmm-reason:\t%u\nvmm-paused:\t0x%x\n",
		   note.state, note.reason, note.paused);
}

/*
 * When the descriptor that did VM_BIND goes, nobody vouches for the guest any
 * more, even if the process lives on.
 */
static int vmm_vm_release(struct inode *inode, struct file *file)
{
	struct vmm_vm_file *vf = file->private_data;
	struct vmm_vm *vm = vf->vm;
	bool binder;

	spin_lock(&vm->lock);
	binder = vf->binder;
	spin_unlock(&vm->lock);
	if (binder) {
		vmm_vm_end(vm, VMM_REASON_MONITOR_GONE, NULL);
		vmm_events_flush();
	}
	vmm_vm_put_handle(vm);
	kfree(vf);
	return 0;
}

static const struct file_operations vmm_vm_fops = {
	.owner		= THIS_MODULE,
	.unlocked_ioctl	= vmm_vm_ioctl,
	.poll		= vmm_vm_poll,
	.release	= vmm_vm_release,
	.show_fdinfo	= vmm_vm_show_fdinfo,
	.llseek		= noop_llseek,
};

/*
 * Makes a file of @vm. It takes over the caller's handle, on success only.
 */
static struct file *make_file(struct vmm_vm *vm, u32 rights)
{
	struct vmm_vm_file *vf;
	struct file *file;

	vf = kzalloc(sizeof(*vf), GFP_KERNEL_ACCOUNT);
	if (!vf)
		return ERR_PTR(-ENOMEM);
	vf->vm = vm;
	vf->rights = rights;
	file = anon_inode_getfile("vmm-vm", &vmm_vm_fops, vf, O_RDWR);
	if (IS_ERR(file))
		kfree(vf);
	return file;
}

/*
 * Gives the caller a descriptor of @vm, with its number written to @where. It
 * takes over the caller's handle, also when it fails.
 */
static int give_fd(struct vmm_vm *vm, u32 rights, s32 __user *where)
{
	struct file *file;
	int fd, ret;

	fd = get_unused_fd_flags(O_CLOEXEC);
	if (fd < 0) {
		vmm_vm_put_handle(vm);
		return fd;
	}
	file = make_file(vm, rights);
	if (IS_ERR(file)) {
		ret = PTR_ERR(file);
		vmm_vm_put_handle(vm);
		goto put_fd;
	}
	ret = -EFAULT;
	if (put_user(fd, where))
		goto put_file;
	fd_install(fd, file);
	return 0;

put_file:
	fput(file);
put_fd:
	put_unused_fd(fd);
	return ret;
}

/* 1 to 63 of [A-Za-z0-9._-], and nothing but 0 behind. */
static bool name_valid(const u8 *name)
{
	size_t len = strnlen(name, VMM_NAME_LEN);
	size_t i;

	if (!len || len == VMM_NAME_LEN)
		return false;
	for (i = 0; i < len; i++)
		if (!isascii(name[i]) ||
		    (!isalnum(name[i]) && !strchr("._-", name[i])))
			return false;
	return !memchr_inv(name + len, 0, VMM_NAME_LEN - len);
}

/*
 * The VM is listed only when nothing can fail any more but the listing itself:
 * what was never listed goes without an event.
 */
int vmm_vm_create(struct vmm_call *call)
{
	struct vmm_vm_create __user *user = call->user;
	const struct vmm_vm_create *arg = &call->arg.create;
	struct vmm_vm *vm;
	struct file *file;
	int fd, ret;

	if (!name_valid(arg->name) || !memchr_inv(arg->uuid, 0, VMM_UUID_LEN))
		return -EINVAL;
	vmm_kvm_late();
	vm = vmm_vm_alloc(arg->uuid, arg->name);
	if (!vm)
		return -ENOMEM;
	vm->id = vmm_inventory_new_id();
	fd = get_unused_fd_flags(O_CLOEXEC);
	ret = fd;
	if (fd < 0)
		goto put_vm;
	file = make_file(vm, __VMM_RIGHT_ALL);
	ret = PTR_ERR_OR_ZERO(file);
	if (ret)
		goto put_fd;
	ret = -EFAULT;
	if (put_user(vm->id, &user->id) || put_user(fd, &user->fd))
		goto put_file;
	ret = vmm_inventory_add(vm);
	if (ret)
		goto put_file;
	vmm_events_flush();
	fd_install(fd, file);
	return 0;

put_file:
	fput(file);
	put_unused_fd(fd);
	return ret;
put_fd:
	put_unused_fd(fd);
put_vm:
	vmm_vm_put_handle(vm);
	return ret;
}

static bool rights_valid(u32 rights)
{
	return rights && !(rights & ~__VMM_RIGHT_ALL);
}

int vmm_vm_open(struct vmm_call *call)
{
	struct vmm_vm_open __user *user = call->user;
	const struct vmm_vm_open *arg = &call->arg.open;
	struct vmm_vm *vm;

	if (!rights_valid(arg->rights))
		return -EINVAL;
	vm = vmm_inventory_get(arg->id);
	if (!vm)
		return -ENOENT;
	if (!uid_eq(current_euid(), vm->owner) && !capable(CAP_SYS_ADMIN)) {
		vmm_vm_put_handle(vm);
		return -EPERM;
	}
	return give_fd(vm, arg->rights, &user->fd);
}

static int vm_delegate(struct vmm_call *call)
{
	struct vmm_vm_delegate __user *user = call->user;
	u32 rights = call->arg.delegate.rights;

	if (!rights_valid(rights))
		return -EINVAL;
	if (rights & ~call->vm_file->rights)
		return -EACCES;
	vmm_vm_get_handle(call->vm);
	return give_fd(call->vm, rights, &user->fd);
}

#include "vm_file_kunit.c"
