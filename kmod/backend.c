// SPDX-License-Identifier: GPL-2.0
/*
 * Backends: the files that a VM's devices work on.
 *
 * What was handed out to a monitor cannot be taken back. So a backend that was
 * detached, or whose VM is stopped, drains: its claims hold until this module
 * has the last reference to each of its files. Nobody is told when others drop
 * theirs, so it is looked at again and again, and when a claim is refused.
 *
 * That the count is 1 is final: no descriptor, mapping or I/O has the file, so
 * none can be made of it, but from us, and what drains is not handed out. (A
 * mapping of a file on an overlay has the file below it, which is not seen.)
 *
 * A vhost is another matter: it keeps the tap and the whole memory map of who
 * uses it. It has no claim to keep, so it is handed out once, and is then the
 * monitor's alone.
 */
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/hashtable.h>
#include <linux/kdev_t.h>
#include <linux/magic.h>
#include <linux/poll.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/xarray.h>

#include "trace.h"
#include "vmm_drv.h"

#define DRAIN_INTERVAL	(HZ / 20)

/* One file of a backend, and its place among all of them. */
struct part {
	struct hlist_node by_file;	/* [k] */
	struct file *file;		/* [k] NULL: a vhost that was handed out */
	struct vmm_claim *claim;		/* [k] NULL but for disks */
	u32 role;			/* [I] */
};

struct vmm_backend {
	struct kref kref;		/* of the list, and of queued events */
	struct vmm_vm *vm;		/* [I] a kref */
	unsigned long serial;		/* [I] in backends.all */
	struct list_head by_vm;		/* [k] */
	struct list_head draining;	/* [k] empty while it is attached */
	struct vmm_event attached;
	struct vmm_event detached;
	u32 number;			/* [I] */
	u32 kind;			/* [I] */
	u32 count;			/* [I] */
	u64 dev;			/* [I] of a disk's first file */
	u64 inode;			/* [I] likewise; 0: a block device */
	bool writable;			/* [I] likewise */
	struct part parts[];		/* [I] */
};

static void drain_work_fn(struct work_struct *work);

static struct {
	struct mutex lock;		/* all of this, and what has [k] */
	struct xarray all;		/* [k] by serial */
	unsigned long last;		/* [k] serial */
	u32 generation;			/* [k] never 0; for dumps */
	DECLARE_HASHTABLE(files, 8);	/* [k] parts by file */
	struct list_head draining;	/* [k] */
	bool vm_ended;			/* [a] a VM with backends was stopped */
	struct delayed_work work;
} backends = {
	.lock = __MUTEX_INITIALIZER(backends.lock),
	.all = XARRAY_INIT(backends.all, 0),
	.generation = 1,
	.files = { [0 ... ((1 << 8) - 1)] = HLIST_HEAD_INIT },
	.draining = LIST_HEAD_INIT(backends.draining),
	.work = __DELAYED_WORK_INITIALIZER(backends.work, drain_work_fn, 0),
};

/* Dumps compare with the number they saw before; 0 means none to netlink. */
static void list_changed(void)
{
	lockdep_assert_held(&backends.lock);
	if (!++backends.generation)
		backends.generation = 1;
}

u32 vmm_backends_generation(void)
{
	u32 generation;

	mutex_lock(&backends.lock);
	generation = backends.generation;
	mutex_unlock(&backends.lock);
	return generation;
}

/* ---- making and ending one ------------------------------------------------------- */

void vmm_backend_hold(struct vmm_backend *backend)
{
	kref_get(&backend->kref);
}

static void backend_free(struct kref *kref)
{
	struct vmm_backend *backend = container_of(kref, struct vmm_backend,
						   kref);

	vmm_vm_put(backend->vm);
	kfree(backend);
}

/* Context: may sleep. */
void vmm_backend_put(struct vmm_backend *backend)
{
	kref_put(&backend->kref, backend_free);
}

static bool file_known(struct file *file)
{
	struct part *part;

	lockdep_assert_held(&backends.lock);
	hash_for_each_possible(backends.files, part, by_file,
			       (unsigned long)file)
		if (part->file == file)
			return true;
	return false;
}

static void unlist_files(struct vmm_backend *backend)
{
	u32 i;

	lockdep_assert_held(&backends.lock);
	for (i = 0; i < backend->count; i++)
		if (hash_hashed(&backend->parts[i].by_file))
			hash_del(&backend->parts[i].by_file);
}

/* A file can be in one backend, once: its references are counted. */
static int list_files(struct vmm_backend *backend)
{
	struct part *part;

	lockdep_assert_held(&backends.lock);
	for (part = backend->parts; part < backend->parts + backend->count;
	     part++) {
		if (file_known(part->file)) {
			unlist_files(backend);
			return -EBUSY;
		}
		hash_add(backends.files, &part->by_file,
			 (unsigned long)part->file);
	}
	return 0;
}

/* Gives up what it claims and its files; it is in no list. */
static void put_parts(struct vmm_backend *backend)
{
	struct part *part;

	for (part = backend->parts; part < backend->parts + backend->count;
	     part++) {
		if (part->claim)
			vmm_claim_drop(part->claim);
		if (part->file)
			fput(part->file);
		part->claim = NULL;
		part->file = NULL;
	}
}

/* Before backends.lock is taken: a block device may take its time. */
static int take_claims(struct vmm_backend *backend)
{
	struct vmm_claim *claim;
	u32 i;

	if (backend->kind != VMM_BACKEND_DISK)
		return 0;
	for (i = 0; i < backend->count; i++) {
		if (backend->parts[i].claim)
			continue;
		claim = vmm_claim_take(backend->parts[i].file);
		if (IS_ERR(claim))
			return PTR_ERR(claim);
		backend->parts[i].claim = claim;
	}
	return 0;
}

/* Says that what GET_BACKEND finds has changed; vmm_vm.lock is held. */
static void changed(struct vmm_vm *vm)
{
	lockdep_assert_held(&vm->lock);
	vm->backend_changes++;
	vmm_vm_wake_poll(vm, EPOLLIN | EPOLLRDNORM);
}

/* Takes it off all lists; finish() does the rest when the lock is dropped. */
static void unlist_backend(struct vmm_backend *backend)
{
	lockdep_assert_held(&backends.lock);
	xa_erase(&backends.all, backend->serial);
	list_changed();
	list_del(&backend->by_vm);
	list_del_init(&backend->draining);
	unlist_files(backend);
}

/*
 * The last references are ours: gives them up, and then tells that it is gone.
 * Closing is left to a thread of the kernel, which is waited for.
 */
static void finish(struct list_head *gone)
{
	struct vmm_backend *backend, *next;
	struct vmm_vm *vm;

	list_for_each_entry(backend, gone, draining)
		put_parts(backend);
	flush_delayed_fput();
	list_for_each_entry_safe(backend, next, gone, draining) {
		vm = backend->vm;
		trace_vmm_detach(vm->id, backend->number);
		spin_lock(&vm->lock);
		vm->backend_count--;
		vmm_event_post_as(&backend->detached, VMM_EVENT_DETACHED, 1,
				  backend->number);
		spin_unlock(&vm->lock);
	}
	vmm_events_flush();
	list_for_each_entry_safe(backend, next, gone, draining)
		vmm_backend_put(backend);
}

/* ---- draining ----------------------------------------------------------------------- */

static bool ours_alone(struct vmm_backend *backend)
{
	u32 i;

	for (i = 0; i < backend->count; i++)
		if (backend->parts[i].file &&
		    file_count(backend->parts[i].file) != 1)
			return false;
	return true;
}

static bool is_stopped(struct vmm_vm *vm)
{
	bool stopped;

	spin_lock(&vm->lock);
	stopped = vm->state == VMM_VM_STATE_STOPPED;
	spin_unlock(&vm->lock);
	return stopped;
}

static void drain(struct vmm_backend *backend)
{
	lockdep_assert_held(&backends.lock);
	if (list_empty(&backend->draining))
		list_add_tail(&backend->draining, &backends.draining);
}

/* Takes what has drained, or with @all what drains, off all lists. */
static void take_drained(struct list_head *gone, bool all)
{
	struct vmm_backend *backend, *next;
	unsigned long serial;

	lockdep_assert_held(&backends.lock);
	if (xchg(&backends.vm_ended, false))
		xa_for_each(&backends.all, serial, backend)
			if (is_stopped(backend->vm))
				drain(backend);
	list_for_each_entry_safe(backend, next, &backends.draining, draining) {
		if (!all && !ours_alone(backend))
			continue;
		unlist_backend(backend);
		list_add_tail(&backend->draining, gone);
	}
}

/* All ends here, in a thread of the kernel: fput() is not put off to user mode. */
static void drain_work_fn(struct work_struct *work)
{
	bool more;
	LIST_HEAD(gone);

	mutex_lock(&backends.lock);
	take_drained(&gone, false);
	more = !list_empty(&backends.draining);
	mutex_unlock(&backends.lock);
	finish(&gone);
	if (more)
		queue_delayed_work(vmm_wq, &backends.work, DRAIN_INTERVAL);
}

/* Ends what has drained by now. Context: no lock is held. */
static void drain_now(void)
{
	mod_delayed_work(vmm_wq, &backends.work, 0);
	flush_delayed_work(&backends.work);
}

/*
 * vmm_backends_vm_ended - a VM that has backends was stopped
 *
 * Context: any.
 */
void vmm_backends_vm_ended(void)
{
	xchg(&backends.vm_ended, true);
	mod_delayed_work(vmm_wq, &backends.work, 0);
}

/* No VM is left; what still drains is given up. */
void vmm_backends_exit(void)
{
	LIST_HEAD(gone);

	cancel_delayed_work_sync(&backends.work);
	mutex_lock(&backends.lock);
	take_drained(&gone, true);
	mutex_unlock(&backends.lock);
	finish(&gone);
}

/* ---- VM_ATTACH_DISK, VM_ATTACH_NIC ---------------------------------------------------- */

/*
 * Newer kernels call anonymous inodes regular files. Behind one can be a VM of
 * ours, which would keep itself.
 */
static bool disk_part_valid(const struct part *part, u32 at)
{
	struct inode *inode = file_inode(part->file);

	if (!S_ISREG(inode->i_mode) && !S_ISBLK(inode->i_mode))
		return false;
	if (inode->i_sb->s_magic == ANON_INODE_FS_MAGIC)
		return false;
	if (!(part->file->f_mode & FMODE_READ))
		return false;
	if (!at)
		return part->role == VMM_ROLE_DATA;
	return part->role == VMM_ROLE_BASE &&
	       !(part->file->f_mode & FMODE_WRITE);
}

static bool nic_part_valid(const struct part *part)
{
	return S_ISCHR(file_inode(part->file)->i_mode) &&
	       (part->role == VMM_ROLE_TAP || part->role == VMM_ROLE_VHOST);
}

static bool parts_valid(struct vmm_backend *backend)
{
	u32 taps = 0, i;

	for (i = 0; i < backend->count; i++) {
		if (backend->kind == VMM_BACKEND_DISK) {
			if (!disk_part_valid(&backend->parts[i], i))
				return false;
			continue;
		}
		if (!nic_part_valid(&backend->parts[i]))
			return false;
		taps += backend->parts[i].role == VMM_ROLE_TAP;
	}
	return backend->kind == VMM_BACKEND_DISK || taps == backend->count ||
	       2 * taps == backend->count;
}

static int get_files(struct vmm_backend *backend,
		     const struct vmm_vm_attach *arg)
{
	u32 i;

	for (i = 0; i < backend->count; i++) {
		backend->parts[i].role = arg->files[i].role;
		backend->parts[i].file = fget(arg->files[i].fd);
		if (!backend->parts[i].file)
			return -EBADF;
	}
	return parts_valid(backend) ? 0 : -EINVAL;
}

/* What is told of a disk, as stat(2) does. */
static int look_at_disk(struct vmm_backend *backend)
{
	struct file *file = backend->parts[0].file;
	struct kstat stat;
	int ret;

	if (backend->kind != VMM_BACKEND_DISK)
		return 0;
	ret = vfs_getattr(&file->f_path, &stat, STATX_INO, AT_STATX_SYNC_AS_STAT);
	if (ret)
		return ret;
	backend->writable = file->f_mode & FMODE_WRITE;
	if (S_ISBLK(stat.mode)) {
		backend->dev = new_encode_dev(stat.rdev);
	} else {
		backend->dev = new_encode_dev(stat.dev);
		backend->inode = stat.ino;
	}
	return 0;
}

static struct vmm_backend *backend_alloc(struct vmm_vm *vm, u32 kind,
					 u32 count)
{
	struct vmm_backend *backend;

	backend = kzalloc(struct_size(backend, parts, count),
			  GFP_KERNEL_ACCOUNT);
	if (!backend)
		return NULL;
	kref_init(&backend->kref);
	vmm_vm_get(vm);
	backend->vm = vm;
	backend->kind = kind;
	backend->count = count;
	INIT_LIST_HEAD(&backend->draining);
	vmm_event_init(&backend->attached, vm, backend);
	vmm_event_init(&backend->detached, vm, backend);
	return backend;
}

/* Counts it, unless the VM was stopped or has too many. */
static int count_backend(struct vmm_backend *backend)
{
	struct vmm_vm *vm = backend->vm;
	struct vmm_limits limits;
	int ret = 0;

	vmm_limits_of(vm, &limits);
	spin_lock(&vm->lock);
	if (vm->state == VMM_VM_STATE_STOPPED) {
		ret = -ESHUTDOWN;
	} else if (vm->backend_count >= limits.max_backends) {
		ret = -ENOSPC;
	} else {
		vm->backend_count++;
		vmm_event_post_as(&backend->attached, VMM_EVENT_ATTACHED, 1,
				  backend->number);
		changed(vm);
	}
	spin_unlock(&vm->lock);
	return ret;
}

static int publish(struct vmm_backend *backend)
{
	int ret;

	lockdep_assert_held(&backends.lock);
	ret = list_files(backend);
	if (ret)
		return ret;
	backend->serial = ++backends.last;
	ret = xa_err(xa_store(&backends.all, backend->serial, backend,
			      GFP_KERNEL));
	if (ret)
		goto unlist;
	ret = count_backend(backend);
	if (ret)
		goto erase;
	list_add_tail(&backend->by_vm, &backend->vm->backends);
	list_changed();
	trace_vmm_attach(backend->vm->id, backend->number);
	return 0;

erase:
	xa_erase(&backends.all, backend->serial);
unlist:
	unlist_files(backend);
	return ret;
}

static int attach(struct vmm_backend *backend)
{
	int ret;

	ret = take_claims(backend);
	if (ret)
		return ret;
	mutex_lock(&backends.lock);
	ret = publish(backend);
	mutex_unlock(&backends.lock);
	vmm_events_flush();
	return ret;
}

int vmm_backend_attach(struct vmm_call *call)
{
	struct vmm_vm_attach __user *user = call->user;
	const struct vmm_vm_attach *arg = &call->arg.attach;
	struct vmm_backend *backend;
	int ret;

	if (!arg->count || arg->count > VMM_MAX_BACKEND_FILES ||
	    memchr_inv(arg->files + arg->count, 0,
		       (VMM_MAX_BACKEND_FILES - arg->count) *
		       sizeof(arg->files[0])))
		return -EINVAL;
	backend = backend_alloc(call->vm, call->cmd == VMM_IOC_VM_ATTACH_DISK ?
				VMM_BACKEND_DISK : VMM_BACKEND_NIC, arg->count);
	if (!backend)
		return -ENOMEM;
	ret = get_files(backend, arg);
	if (!ret)
		ret = look_at_disk(backend);
	if (ret)
		goto put_parts;
	backend->number = atomic_inc_return(&call->vm->backend_last);
	ret = -EFAULT;
	if (put_user(backend->number, &user->backend))
		goto put_parts;
	ret = attach(backend);
	if (ret == -EBUSY || ret == -ENOSPC) {
		/* What stands in the way may just have drained. */
		drain_now();
		ret = attach(backend);
	}
	if (ret == -ENOSPC)
		ret = vmm_limits_reach(call->vm, VMM_LIMIT_BACKENDS);
	if (ret)
		goto put_parts;
	return 0;

put_parts:
	put_parts(backend);
	vmm_backend_put(backend);
	return ret;
}

/* ---- VM_DETACH ------------------------------------------------------------------------ */

/* The attached backend of @vm with the lowest number from @from on, or NULL. */
static struct vmm_backend *find_backend(struct vmm_vm *vm, u32 from)
{
	struct vmm_backend *backend, *found = NULL;

	lockdep_assert_held(&backends.lock);
	/* Not in the order of numbers, when two attach at once. */
	list_for_each_entry(backend, &vm->backends, by_vm)
		if (list_empty(&backend->draining) && backend->number >= from &&
		    (!found || backend->number < found->number))
			found = backend;
	return found;
}

int vmm_backend_detach(struct vmm_call *call)
{
	u32 number = call->arg.detach.backend;
	struct vmm_backend *backend;
	struct vmm_vm *vm = call->vm;
	int ret = 0;

	mutex_lock(&backends.lock);
	backend = find_backend(vm, number);
	if (backend && backend->number == number) {
		drain(backend);
		spin_lock(&vm->lock);
		changed(vm);
		spin_unlock(&vm->lock);
	} else {
		ret = -ENOENT;
	}
	mutex_unlock(&backends.lock);
	if (!ret)
		drain_now();
	return ret;
}

/* ---- VM_GET_BACKEND ----------------------------------------------------------------------- */

/* Notes where the scan of this descriptor stands. Return: 0 or -ESHUTDOWN. */
static int scan(struct vmm_call *call, bool begins, bool ends)
{
	struct vmm_vm_file *vf = call->vm_file;
	struct vmm_vm *vm = call->vm;
	int ret = 0;

	spin_lock(&vm->lock);
	if (vm->state == VMM_VM_STATE_STOPPED)
		ret = -ESHUTDOWN;
	if (begins)
		vf->changes_scan = vm->backend_changes;
	if (ends)
		vf->changes_seen = vf->changes_scan;
	spin_unlock(&vm->lock);
	return ret;
}

/* What one VM_GET_BACKEND has in hand. */
struct taken {
	struct vmm_backend *backend;	/* a kref */
	struct file *files[VMM_MAX_BACKEND_FILES]; /* NULL: not to be had again */
};

/* Finds the backend and takes its files. */
static int take_files(struct vmm_call *call, struct taken *taken)
{
	struct vmm_vm_get_backend *arg = &call->arg.backend;
	struct vmm_backend *backend;
	u32 i;
	int ret;

	mutex_lock(&backends.lock);
	backend = find_backend(call->vm, arg->backend);
	ret = scan(call, !arg->backend, !backend);
	if (!ret && !backend)
		ret = -ENOENT;
	if (ret)
		goto unlock;
	vmm_backend_hold(backend);
	taken->backend = backend;
	arg->backend = backend->number;
	arg->kind = backend->kind;
	arg->count = backend->count;
	memset(arg->files, 0, sizeof(arg->files));
	for (i = 0; i < backend->count; i++) {
		taken->files[i] = backend->parts[i].file;
		if (taken->files[i])
			get_file(taken->files[i]);
		arg->files[i].role = backend->parts[i].role;
	}
unlock:
	mutex_unlock(&backends.lock);
	return ret;
}

static void put_fds(struct vmm_vm_get_backend *arg, u32 count)
{
	u32 i;

	for (i = 0; i < count; i++)
		if (arg->files[i].fd >= 0)
			put_unused_fd(arg->files[i].fd);
}

static int reserve_fds(struct vmm_vm_get_backend *arg, struct taken *taken)
{
	u32 i;
	int fd;

	for (i = 0; i < arg->count; i++) {
		arg->files[i].fd = -1;
		if (!taken->files[i])
			continue;
		fd = get_unused_fd_flags(O_CLOEXEC);
		if (fd < 0) {
			put_fds(arg, i);
			return fd;
		}
		arg->files[i].fd = fd;
	}
	return 0;
}

/* The descriptors are the monitor's; what is handed out once is ours no more. */
static void give_files(struct vmm_vm_get_backend *arg, struct taken *taken)
{
	struct part *part;
	u32 i;

	for (i = 0; i < arg->count; i++)
		if (taken->files[i])
			fd_install(arg->files[i].fd, taken->files[i]);
	mutex_lock(&backends.lock);
	for (i = 0; i < arg->count; i++) {
		part = &taken->backend->parts[i];
		if (part->role != VMM_ROLE_VHOST || !part->file)
			continue;
		if (hash_hashed(&part->by_file))
			hash_del(&part->by_file);
		fput(part->file);
		part->file = NULL;
	}
	mutex_unlock(&backends.lock);
}

static int hand_out(struct vmm_call *call, struct taken *taken)
{
	struct vmm_vm_get_backend *arg = &call->arg.backend;
	int ret;

	ret = reserve_fds(arg, taken);
	if (ret)
		return ret;
	/* The size is the caller's own, and stays. */
	if (copy_to_user(call->user + sizeof(arg->size), (void *)arg +
			 sizeof(arg->size), sizeof(*arg) - sizeof(arg->size))) {
		put_fds(arg, arg->count);
		return -EFAULT;
	}
	give_files(arg, taken);
	return 0;
}

int vmm_backend_get(struct vmm_call *call)
{
	struct taken taken = {};
	u32 i;
	int ret;

	ret = take_files(call, &taken);
	if (ret)
		return ret;
	ret = hand_out(call, &taken);
	if (ret)
		for (i = 0; i < call->arg.backend.count; i++)
			if (taken.files[i])
				fput(taken.files[i]);
	vmm_backend_put(taken.backend);
	return ret;
}

/* ---- what is said of them ---------------------------------------------------------------- */

static void describe(struct vmm_backend *backend, struct vmm_backend_note *note)
{
	bool attached = list_empty(&backend->draining) &&
			!is_stopped(backend->vm);
	u32 i;

	lockdep_assert_held(&backends.lock);
	*note = (struct vmm_backend_note) {
		.vm = backend->vm->id,
		.dev = backend->dev,
		.inode = backend->inode,
		.number = backend->number,
		.kind = backend->kind,
		.state = attached ? VMM_BACKEND_STATE_ATTACHED :
				    VMM_BACKEND_STATE_DRAINING,
		.count = backend->count,
		.writable = backend->writable,
	};
	for (i = 0; i < backend->count; i++)
		note->roles[i] = backend->parts[i].role;
}

/*
 * vmm_backend_next - describe the first backend from *@serial on
 * @serial:	set to its serial
 *
 * Return: false if there is none.
 */
bool vmm_backend_next(unsigned long *serial, struct vmm_backend_note *note)
{
	struct vmm_backend *backend;

	mutex_lock(&backends.lock);
	backend = xa_find(&backends.all, serial, ULONG_MAX, XA_PRESENT);
	if (backend)
		describe(backend, note);
	mutex_unlock(&backends.lock);
	return backend;
}
