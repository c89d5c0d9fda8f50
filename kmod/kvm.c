// SPDX-License-Identifier: GPL-2.0
/*
 * KVM, by the file operations of /dev/kvm and of the files that come from it;
 * and the few things that differ between kernels. No other file of this module
 * names a kernel version, and no KVM symbol is used: they are closed to other
 * modules since 6.19.
 */
#include <linux/blkdev.h>
#include <linux/completion.h>
#include <linux/fdtable.h>
#include <linux/file.h>
#include <linux/kdev_t.h>
#include <linux/kthread.h>
#include <linux/kvm_host.h>
#include <linux/memcontrol.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/sched/mm.h>
#include <linux/security.h>
#include <linux/version.h>
#include <linux/workqueue.h>
#include <net/genetlink.h>

#include "vmm_drv.h"

#define KVM_PATH	"/dev/kvm"
#define KVM_DEV		MKDEV(MISC_MAJOR, KVM_MINOR)

/* Set once and kept until the module goes; holds KVM's module. */
static struct file *kvm_dev;

/* ---- /dev/kvm --------------------------------------------------------------- */

static int check_kvm(struct file *file)
{
	struct inode *inode = file_inode(file);

	if (!S_ISCHR(inode->i_mode) || inode->i_rdev != KVM_DEV ||
	    !file->f_op->unlocked_ioctl)
		return -ENODEV;
	if (file->f_op->unlocked_ioctl(file, KVM_GET_API_VERSION, 0) !=
	    KVM_API_VERSION)
		return -ENODEV;
	return 0;
}

static int open_kvm(void)
{
	struct file *file;
	int ret;

	file = filp_open(KVM_PATH, O_RDWR | O_CLOEXEC, 0);
	if (IS_ERR(file))
		return PTR_ERR(file);
	ret = check_kvm(file);
	if (!ret && !cmpxchg(&kvm_dev, NULL, file))
		return 0;
	filp_close(file, NULL);
	return ret;
}

bool vmm_kvm_present(void)
{
	return READ_ONCE(kvm_dev);
}

/**
 * vmm_kvm_late - open /dev/kvm now, if it was not there when we were loaded
 *
 * The caller's mount namespace says what the path means, so the caller must be
 * privileged. That KVM is not there is no error here: VM_BIND says so.
 */
void vmm_kvm_late(void)
{
	if (!vmm_kvm_present() && capable(CAP_SYS_ADMIN))
		open_kvm();
}

/* Called by whoever loads the module, never by a kernel thread. */
void vmm_kvm_init(void)
{
	if (open_kvm())
		pr_notice("no KVM yet: VM_BIND cannot work\n");
}

void vmm_kvm_exit(void)
{
	if (kvm_dev)
		filp_close(kvm_dev, NULL);
}

/* ---- calling it ---------------------------------------------------------------- */

/*
 * vmm_kvm_ioctl - call KVM as if the caller had
 *
 * The system call asked for the outer command; what security modules would
 * have asked for the inner one is asked here. seccomp sees the outer alone.
 */
long vmm_kvm_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	int ret;

	ret = security_file_ioctl(file, cmd, arg);
	if (ret)
		return ret;
	return file->f_op->unlocked_ioctl(file, cmd, arg);
}

/* Return: -EOPNOTSUPP without KVM, else what KVM says. */
long vmm_kvm_dev_ioctl(unsigned int cmd, unsigned long arg)
{
	if (!vmm_kvm_present())
		return -EOPNOTSUPP;
	return vmm_kvm_ioctl(kvm_dev, cmd, arg);
}

int vmm_kvm_allow_run(struct file *kvm)
{
	return security_file_ioctl(kvm, KVM_RUN, 0);
}

/*
 * vmm_kvm_mmap - map a vCPU's run area
 *
 * KVM's fault handler looks into vm_file, so that must be KVM's before. The
 * caller's file is put by this, KVM's is held by the mapping.
 */
int vmm_kvm_mmap(struct file *kvm, struct vm_area_struct *vma)
{
	long bytes;
	int ret;

	if (!kvm->f_op->mmap)
		return -EOPNOTSUPP;
	/* KVM would map more, of which every access is a SIGBUS. */
	bytes = vmm_kvm_dev_ioctl(KVM_GET_VCPU_MMAP_SIZE, 0);
	if (bytes < 0)
		return bytes;
	if (vma->vm_pgoff > bytes >> PAGE_SHIFT ||
	    vma_pages(vma) > (bytes >> PAGE_SHIFT) - vma->vm_pgoff)
		return -EINVAL;
	vma_set_file(vma, kvm);
	ret = kvm->f_op->mmap(kvm, vma);
	if (ret)
		return ret;
	return vma->vm_ops && vma->vm_ops->fault ? 0 : -EOPNOTSUPP;
}

/* ---- the VM ---------------------------------------------------------------------- */

/*
 * KVM puts a descriptor that it makes into the table of the thread that asks,
 * where another thread of a hostile monitor catches it. So a kernel thread asks,
 * with the monitor's map and memory cgroup: its table is seen by kernel threads
 * only.
 */
struct ask {
	struct work_struct work;	/* of vmm_kvm_vcpu_stats() */
	struct completion done;		/* of vmm_kvm_create_vm() */
	struct mm_struct *mm;
	struct mem_cgroup *memcg;
	struct file *file;		/* asked */
	unsigned int cmd;
	struct file *made;		/* or an ERR_PTR */
	struct file *stats;		/* of what was made; or NULL */
};

static struct file *grab_fd(int fd)
{
	struct file *file;

	if (fd < 0)
		return ERR_PTR(fd);
	file = fget(fd);
	close_fd(fd);
	return file ?: ERR_PTR(-EBADF);
}

static struct file *make(struct file *file, unsigned int cmd)
{
	return grab_fd(file->f_op->unlocked_ioctl(file, cmd, 0));
}

/* The caller waits, so its map has a user and its memory cgroup stays. */
static void ask_kvm(struct ask *ask)
{
	struct mem_cgroup *old;

	kthread_use_mm(ask->mm);
	old = set_active_memcg(ask->memcg);
	ask->made = make(ask->file, ask->cmd);
	if (ask->cmd == KVM_CREATE_VM && !IS_ERR(ask->made))
		ask->stats = make(ask->made, KVM_GET_STATS_FD);
	set_active_memcg(old);
	kthread_unuse_mm(ask->mm);
	if (IS_ERR(ask->stats))
		ask->stats = NULL;
}

/* After the completion no code of this module runs here. */
static int create_vm_thread(void *data)
{
	struct ask *ask = data;

	ask_kvm(ask);
	kthread_complete_and_exit(&ask->done, 0);
}

/**
 * vmm_kvm_create_vm - make KVM's VM, for the caller's memory map
 * @stats:	Out. What reads its statistics, or NULL
 *
 * The thread is a new one each time: KVM names a folder in debugfs by thread and
 * descriptor.
 *
 * Return: the file, or an ERR_PTR; -EOPNOTSUPP without KVM.
 */
struct file *vmm_kvm_create_vm(struct file **stats)
{
	struct ask ask = {
		.done = COMPLETION_INITIALIZER_ONSTACK(ask.done),
		.mm = current->mm,
		.file = kvm_dev,
		.cmd = KVM_CREATE_VM,
	};
	struct task_struct *thread;
	int ret;

	*stats = NULL;
	if (!vmm_kvm_present())
		return ERR_PTR(-EOPNOTSUPP);
	ret = security_file_ioctl(ask.file, ask.cmd, 0);
	if (ret)
		return ERR_PTR(ret);
	ask.memcg = get_mem_cgroup_from_mm(ask.mm);
	thread = kthread_run(create_vm_thread, &ask, "vmm-bind");
	if (IS_ERR(thread))
		ask.made = ERR_CAST(thread);
	else
		wait_for_completion(&ask.done);
	mem_cgroup_put(ask.memcg);
	*stats = ask.stats;
	return ask.made;
}

static void ask_work_fn(struct work_struct *work)
{
	ask_kvm(container_of(work, struct ask, work));
}

/*
 * vmm_kvm_vcpu_stats - make what reads the statistics of a vCPU
 *
 * The caller is the monitor. There are many vCPUs and KVM does not sleep over
 * this, so a worker will do, which is there already.
 *
 * Return: the file, or NULL when KVM has none.
 */
struct file *vmm_kvm_vcpu_stats(struct file *vcpu)
{
	struct ask ask = {
		.mm = current->mm,
		.file = vcpu,
		.cmd = KVM_GET_STATS_FD,
	};

	if (security_file_ioctl(vcpu, KVM_GET_STATS_FD, 0))
		return NULL;
	ask.memcg = get_mem_cgroup_from_mm(ask.mm);
	INIT_WORK_ONSTACK(&ask.work, ask_work_fn);
	queue_work(vmm_wq, &ask.work);
	flush_work(&ask.work);
	destroy_work_on_stack(&ask.work);
	mem_cgroup_put(ask.memcg);
	return IS_ERR(ask.made) ? NULL : ask.made;
}

/* ---- the vCPU -------------------------------------------------------------------- */

/*
 * Whether @file is the vCPU that was just made. A thief can put another file
 * in the place of the one it takes, even a vCPU taken earlier. The name and the
 * inode say that it is a vCPU of KVM: nobody else gives anonymous files such
 * names. Then its first fields say which.
 */
static bool is_vcpu_of(struct file *file, struct file *vm, u32 index)
{
	struct kvm_vcpu *vcpu;
	char name[24];

	snprintf(name, sizeof(name), "kvm-vcpu:%u", index);
	if (file_inode(file) != file_inode(vm) ||
	    strcmp(file->f_path.dentry->d_name.name, name))
		return false;
	vcpu = file->private_data;
	return vcpu->kvm == vm->private_data && vcpu->vcpu_id == index;
}

/*
 * Whether nobody but us holds @file, now that it is in no table. A lookup that
 * began before the descriptor was closed can still take a reference later, but
 * then finds the slot changed and drops it. Waiting for a second look would
 * spare who just passes by in /proc/PID/fd, but also a thief that gives it back
 * after making a statistics descriptor from it.
 */
static bool is_ours_alone(struct file *file)
{
	return file_count(file) == 1;
}

/*
 * vmm_kvm_create_vcpu - make KVM's vCPU
 *
 * This has to run in the monitor: a kernel thread has no FPU state, which KVM
 * initialises from on 7.x. So the descriptor can be caught; then it is told.
 *
 * Return: the file, or an ERR_PTR; -EBADFD if somebody else got at it.
 */
struct file *vmm_kvm_create_vcpu(struct file *vm, u32 index)
{
	struct file *file;
	long fd;
	int ret;

	fd = vmm_kvm_ioctl(vm, KVM_CREATE_VCPU, index);
	if (fd < 0)
		return ERR_PTR(fd);
	file = fget(fd);
	ret = close_fd(fd);
	if (!file)
		return ERR_PTR(-EBADFD);
	if (!ret && is_vcpu_of(file, vm, index) && is_ours_alone(file))
		return file;
	fput(file);
	return ERR_PTR(-EBADFD);
}

/* ---- kernels ---------------------------------------------------------------------- */

/**
 * vmm_file_tryget - get a reference to a file that may be on its last way out
 * @file:	where the pointer is; what keeps it from being freed is the
 *		caller's: our files take themselves off lists in ->release
 */
bool vmm_file_tryget(struct file **file)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 7, 0)
	return get_file_active(file);
#else
	return get_file_rcu(*file);
#endif
}

/**
 * vmm_bdev_claim - have a block device for the caller alone
 * @file:	the device, open
 * @holder:	whose claim it is
 *
 * As mount does: other exclusive openers get EBUSY, and so do those of its
 * partitions, or of what it is a part of.
 *
 * Return: what vmm_bdev_release() takes, or an ERR_PTR.
 */
void *vmm_bdev_claim(struct file *file, void *holder)
{
	dev_t dev = file_inode(file)->i_rdev;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 12, 0)
	return bdev_file_open_by_dev(dev, BLK_OPEN_READ, holder, NULL);
#elif LINUX_VERSION_CODE < KERNEL_VERSION(6, 5, 0)
	return blkdev_get_by_dev(dev, FMODE_READ | FMODE_EXCL, holder);
#else
#error "no way to claim a block device was tried on this kernel"
#endif
}

/* The claim has ended when it returns. */
void vmm_bdev_release(void *claim)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 12, 0)
	bdev_fput(claim);
#else
	blkdev_put(claim, FMODE_READ | FMODE_EXCL);
#endif
}

/* The attributes of a dump request, as the family's policy parsed them. */
struct nlattr **vmm_dump_attrs(struct netlink_callback *cb)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 7, 0)
	return genl_info_dump(cb)->attrs;
#else
	return genl_dumpit_info(cb)->attrs;
#endif
}
