// SPDX-License-Identifier: GPL-2.0
/*
 * A module that does wrong what is written to its device: each thing that the
 * debug kernel finds and the stock ones forgive.
 */
#include <linux/delay.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/refcount.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/uaccess.h>

static DEFINE_MUTEX(one);
static DEFINE_MUTEX(other);
static DEFINE_SPINLOCK(spin);

static void use_after_free(void)
{
	char *p = kmalloc(64, GFP_KERNEL);

	if (!p)
		return;
	kfree(p);
	*(volatile char *)p = 1;
}

static void out_of_bounds(void)
{
	static int table[4];
	volatile int at = 4;

	table[at]++;
}

static void shift(void)
{
	volatile int by = 40, x;

	x = 1 << by;
}

static void lock_order(void)
{
	mutex_lock(&one);
	mutex_lock(&other);
	mutex_unlock(&other);
	mutex_unlock(&one);
	mutex_lock(&other);
	mutex_lock(&one);
	mutex_unlock(&one);
	mutex_unlock(&other);
}

static void sleep_in_atomic(void)
{
	spin_lock(&spin);
	kfree(kmalloc(64, GFP_KERNEL));
	spin_unlock(&spin);
}

static void count_from_zero(void)
{
	refcount_t r = REFCOUNT_INIT(0);

	refcount_inc(&r);
}

static void leak(void)
{
	char *volatile p = kmalloc(64, GFP_KERNEL);

	p = NULL;
}

/* One thread holds the lock for longer than the kernel waits. */
static void hang(void)
{
	mutex_lock(&one);
	ssleep(200);
	mutex_unlock(&one);
}

static const struct {
	const char *name;
	void (*do_it)(void);
} faults[] = {
	{ "use-after-free", use_after_free },
	{ "out-of-bounds", out_of_bounds },
	{ "shift", shift },
	{ "lock-order", lock_order },
	{ "sleep-in-atomic", sleep_in_atomic },
	{ "count-from-zero", count_from_zero },
	{ "leak", leak },
	{ "hang", hang },
};

static ssize_t faults_write(struct file *file, const char __user *buf,
			    size_t count, loff_t *pos)
{
	char name[32] = {};
	int i;

	if (count >= sizeof(name) || copy_from_user(name, buf, count))
		return -EINVAL;
	for (i = 0; i < ARRAY_SIZE(faults); i++) {
		if (strcmp(faults[i].name, strim(name)))
			continue;
		faults[i].do_it();
		return count;
	}
	return -EINVAL;
}

static const struct file_operations faults_fops = {
	.owner = THIS_MODULE,
	.write = faults_write,
};

static struct miscdevice faults_dev = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "vmm",
	.fops = &faults_fops,
};

module_misc_device(faults_dev);
MODULE_DESCRIPTION("Does wrong what is written to it");
MODULE_LICENSE("GPL");
