// SPDX-License-Identifier: GPL-2.0
/* A module whose device takes a reference to its module and never drops it. */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>

static int leak_open(struct inode *inode, struct file *file)
{
	return try_module_get(THIS_MODULE) ? 0 : -ENODEV;
}

static const struct file_operations leak_fops = {
	.owner = THIS_MODULE,
	.open = leak_open,
};

static struct miscdevice leak_dev = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "vmm",
	.fops = &leak_fops,
};

module_misc_device(leak_dev);
MODULE_DESCRIPTION("Leaks a reference when it is opened");
MODULE_LICENSE("GPL");
