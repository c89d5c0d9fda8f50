// SPDX-License-Identifier: GPL-2.0
/* A module that does nothing wrong: what the lab must not complain about. */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>

static const struct file_operations clean_fops = {
	.owner = THIS_MODULE,
};

static struct miscdevice clean_dev = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "vmm",
	.fops = &clean_fops,
};

module_misc_device(clean_dev);
MODULE_DESCRIPTION("Does nothing wrong");
MODULE_LICENSE("GPL");
