// SPDX-License-Identifier: GPL-2.0
/*
 * A module whose device oopses when it is opened, with a lock held that the
 * second opening waits for: its processes cannot be killed.
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>

static DEFINE_MUTEX(oops_lock);

static int oops_open(struct inode *inode, struct file *file)
{
	mutex_lock(&oops_lock);
	WRITE_ONCE(*(int *)8, 1);
	mutex_unlock(&oops_lock);
	return 0;
}

static const struct file_operations oops_fops = {
	.owner = THIS_MODULE,
	.open = oops_open,
};

static struct miscdevice oops_dev = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "vmm",
	.fops = &oops_fops,
};

module_misc_device(oops_dev);
MODULE_DESCRIPTION("Oopses when it is opened");
MODULE_LICENSE("GPL");
