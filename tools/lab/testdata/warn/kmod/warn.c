// SPDX-License-Identifier: GPL-2.0
/* A module whose device warns when it is opened. */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>

static int warn_open(struct inode *inode, struct file *file)
{
	WARN(1, "lab test: opened\n");
	return 0;
}

static const struct file_operations warn_fops = {
	.owner = THIS_MODULE,
	.open = warn_open,
};

static struct miscdevice warn_dev = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "vmm",
	.fops = &warn_fops,
};

module_misc_device(warn_dev);
MODULE_DESCRIPTION("Warns when it is opened");
MODULE_LICENSE("GPL");
