// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/vmm, and the way of every command from the system call to its handler:
 * find the row, copy in, check size and reserved fields, check rights, state
 * and memory map. Handlers find all that done.
 */
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/seq_file.h>
#include <linux/uaccess.h>

#include "vmm_drv.h"

/**
 * vmm_call_tail - check what the caller sent beyond what is known
 * @call:	with @user and @size set
 * @known:	bytes that the command knows, for this call
 *
 * Return: 0; -EINVAL when the argument is too short, -E2BIG when there is
 * something in the unknown tail, -EFAULT.
 */
int vmm_call_tail(struct vmm_call *call, u64 known)
{
	int ret;

	if (call->size < known)
		return -EINVAL;
	if (call->size == known)
		return 0;
	if (call->size - known > PAGE_SIZE)
		return -E2BIG;
	ret = check_zeroed_user(call->user + known, call->size - known);
	if (ret < 0)
		return ret;
	return ret ? 0 : -E2BIG;
}

/*
 * vmm_call_give - answer with the payload of a class, whose size is checked
 *
 * Return: 0, -EINVAL, -E2BIG, -EFAULT.
 */
int vmm_call_give(struct vmm_call *call, const void *what, size_t size)
{
	int ret;

	ret = vmm_call_tail(call, sizeof(struct vmm_payload) + size);
	if (ret)
		return ret;
	return copy_to_user(vmm_payload(call), what, size) ? -EFAULT : 0;
}

static int copy_arg(struct vmm_call *call, const struct vmm_command *row)
{
	int i;

	if (!row->size)
		return call->user ? -EINVAL : 0;
	if (get_user(call->size, (u32 __user *)call->user))
		return -EFAULT;
	if (call->size < row->size)
		return -EINVAL;
	if (copy_from_user(&call->arg, call->user, row->size))
		return -EFAULT;
	for (i = 0; i < ARRAY_SIZE(row->zero) && row->zero[i]; i++)
		if (*(u32 *)((void *)&call->arg + row->zero[i]))
			return -EINVAL;
	return row->variable ? 0 : vmm_call_tail(call, row->size);
}

/*
 * What is checked here can be stale when the handler runs: a VM can be stopped
 * at any time. Handlers that change the state look again; for the others it
 * does not matter, as no guest runs behind a shut gate.
 */
static int admit(struct vmm_call *call, const struct vmm_command *row)
{
	struct vmm_vm *vm = call->vm;
	struct mm_struct *mm;
	bool destroyed;
	u32 state;

	if (call->vm_file && row->rights & ~call->vm_file->rights)
		return -EACCES;
	if (!vm)
		return 0;
	spin_lock(&vm->lock);
	state = vm->state;
	destroyed = vm->destroyed;
	mm = vm->mm;
	spin_unlock(&vm->lock);

	if (destroyed && !row->destroyed)
		return -ESHUTDOWN;
	if (!(row->states & BIT(state)))
		return state == VMM_VM_STATE_STOPPED ? -ESHUTDOWN : -EBUSY;
	if (row->same_mm && current->mm != mm)
		return -EIO;
	return 0;
}

/**
 * vmm_dispatch - carry out one ioctl
 * @call:	with everything set but the argument
 * @table:	commands of this kind of descriptor
 * @rows:	length of @table
 * @arg:	as it came from user space
 */
long vmm_dispatch(struct vmm_call *call, const struct vmm_command *table,
		  size_t rows, unsigned long arg)
{
	const struct vmm_command *row;
	int ret;

	for (row = table; row < table + rows; row++)
		if (row->cmd == call->cmd)
			break;
	if (row == table + rows)
		return -ENOTTY;
	call->user = (void __user *)arg;
	ret = copy_arg(call, row);
	if (ret)
		return ret;
	ret = admit(call, row);
	if (ret)
		return ret;
	return row->handler(call);
}

static const struct vmm_command dev_commands[] = {
	{
		.cmd = VMM_IOC_GET_INFO,
		.size = sizeof(struct vmm_payload),
		.variable = true,
		.handler = vmm_info,
	}, {
		.cmd = VMM_IOC_VM_CREATE,
		.size = sizeof(struct vmm_vm_create),
		.zero = { offsetof(struct vmm_vm_create, flags),
			  offsetof(struct vmm_vm_create, reserved) },
		.handler = vmm_vm_create,
	}, {
		.cmd = VMM_IOC_VM_OPEN,
		.size = sizeof(struct vmm_vm_open),
		.zero = { offsetof(struct vmm_vm_open, flags) },
		.handler = vmm_vm_open,
	},
};

static long vmm_dev_ioctl(struct file *file, unsigned int cmd,
			  unsigned long arg)
{
	struct vmm_call call = { .file = file, .on = VMM_ON_DEV, .cmd = cmd };

	return vmm_dispatch(&call, dev_commands, ARRAY_SIZE(dev_commands), arg);
}

static int vmm_dev_open(struct inode *inode, struct file *file)
{
	return nonseekable_open(inode, file);
}

static void vmm_dev_show_fdinfo(struct seq_file *seq, struct file *file)
{
	seq_puts(seq, "vmm-object:\tdevice\n");
}

/* No .compat_ioctl: 32-bit callers get ENOTTY from the system call itself. */
static const struct file_operations vmm_dev_fops = {
	.owner		= THIS_MODULE,
	.open		= vmm_dev_open,
	.unlocked_ioctl	= vmm_dev_ioctl,
	.show_fdinfo	= vmm_dev_show_fdinfo,
	.llseek		= noop_llseek,
};

static struct miscdevice vmm_dev = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "vmm",
	.mode	= 0660,
	.fops	= &vmm_dev_fops,
};

int vmm_dev_register(void)
{
	return misc_register(&vmm_dev);
}

void vmm_dev_deregister(void)
{
	misc_deregister(&vmm_dev);
}

#include "dev_kunit.c"
