// SPDX-License-Identifier: GPL-2.0
/*
 * Claims: who may have a disk. One writer or many readers, over all VMs of the
 * host, by the identity of what is open: the inode that the file's pages belong
 * to, which is the block device itself for its nodes.
 */
#include <linux/fs.h>
#include <linux/hashtable.h>
#include <linux/slab.h>

#include "vmm_drv.h"

struct vmm_claim {
	struct hlist_node by_inode;	/* [lock] */
	struct inode *inode;		/* [I] kept by the users' files */
	u32 users;			/* [lock] */
	bool writer;			/* [I] then there is one user */
	void *bdev;			/* [I] see vmm_bdev_claim(); or NULL */
};

static struct {
	struct mutex lock;		/* all of this */
	DECLARE_HASHTABLE(by_inode, 8);	/* [lock] */
} claims = {
	.lock = __MUTEX_INITIALIZER(claims.lock),
	.by_inode = { [0 ... ((1 << 8) - 1)] = HLIST_HEAD_INIT },
};

/* @claim: who has it, or NULL */
static bool claim_allows(const struct vmm_claim *claim, bool writer)
{
	return !claim || (!claim->writer && !writer);
}

static struct vmm_claim *find_claim(struct inode *inode)
{
	struct vmm_claim *claim;

	lockdep_assert_held(&claims.lock);
	hash_for_each_possible(claims.by_inode, claim, by_inode,
			       (unsigned long)inode)
		if (claim->inode == inode)
			return claim;
	return NULL;
}

/* A claim that nobody sees yet. Opening a device may take its time. */
static struct vmm_claim *new_claim(struct file *file, bool writer)
{
	struct vmm_claim *claim;
	int ret;

	claim = kzalloc(sizeof(*claim), GFP_KERNEL_ACCOUNT);
	if (!claim)
		return ERR_PTR(-ENOMEM);
	claim->inode = file->f_mapping->host;
	claim->writer = writer;
	claim->users = 1;
	if (!writer || !S_ISBLK(file_inode(file)->i_mode))
		return claim;
	claim->bdev = vmm_bdev_claim(file, claim);
	ret = PTR_ERR_OR_ZERO(claim->bdev);
	if (ret) {
		kfree(claim);
		return ERR_PTR(ret);
	}
	return claim;
}

static void free_claim(struct vmm_claim *claim)
{
	if (claim->bdev)
		vmm_bdev_release(claim->bdev);
	kfree(claim);
}

/*
 * Makes @mine the claim, or joins the one that is there.
 *
 * Return: that claim, or an ERR_PTR.
 */
static struct vmm_claim *join(struct vmm_claim *mine)
{
	struct vmm_claim *claim;

	mutex_lock(&claims.lock);
	claim = find_claim(mine->inode);
	if (!claim_allows(claim, mine->writer)) {
		claim = ERR_PTR(-EBUSY);
	} else if (claim) {
		claim->users++;
	} else {
		claim = mine;
		hash_add(claims.by_inode, &claim->by_inode,
			 (unsigned long)claim->inode);
	}
	mutex_unlock(&claims.lock);
	return claim;
}

/*
 * vmm_claim_take - claim what @file has open, for writing if it can be written
 *
 * The caller holds the file until it drops the claim.
 *
 * Context: may sleep, as long as opening a block device takes.
 * Return: the claim or an ERR_PTR, -EBUSY among them.
 */
struct vmm_claim *vmm_claim_take(struct file *file)
{
	struct vmm_claim *claim, *mine;

	mine = new_claim(file, file->f_mode & FMODE_WRITE);
	if (IS_ERR(mine))
		return mine;
	claim = join(mine);
	if (claim != mine)
		free_claim(mine);
	return claim;
}

void vmm_claim_drop(struct vmm_claim *claim)
{
	bool last;

	mutex_lock(&claims.lock);
	last = !--claim->users;
	if (last)
		hash_del(&claim->by_inode);
	mutex_unlock(&claims.lock);
	if (last)
		free_claim(claim);
}

#include "claim_kunit.c"
