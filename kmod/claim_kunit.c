// SPDX-License-Identifier: GPL-2.0
/*
 * Unit tests of claim.c, which ends with this file.
 */
#if IS_BUILTIN(CONFIG_KUNIT)

#include <kunit/test.h>
#include <linux/completion.h>
#include <linux/kthread.h>

/* What is open, and by how many files; claims look at no more of them. */
struct opened {
	struct inode inode;
	struct address_space mapping;
};

static struct opened *new_opened(struct kunit *test)
{
	struct opened *o = kunit_kzalloc(test, sizeof(*o), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, o);
	o->inode.i_mode = S_IFREG;
	o->mapping.host = &o->inode;
	return o;
}

static struct file *new_file(struct kunit *test, struct opened *o, bool writer)
{
	struct file *file = kunit_kzalloc(test, sizeof(*file), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, file);
	file->f_mode = FMODE_READ | (writer ? FMODE_WRITE : 0);
	file->f_mapping = &o->mapping;
	file->f_inode = &o->inode;
	return file;
}

static struct vmm_claim *must_take(struct kunit *test, struct file *file)
{
	struct vmm_claim *claim = vmm_claim_take(file);

	KUNIT_ASSERT_FALSE_MSG(test, IS_ERR(claim), "%ld", PTR_ERR(claim));
	return claim;
}

static void expect_busy(struct kunit *test, struct file *file)
{
	KUNIT_EXPECT_PTR_EQ(test, vmm_claim_take(file),
			    (struct vmm_claim *)ERR_PTR(-EBUSY));
}

static void expect_free(struct kunit *test, struct opened *o)
{
	mutex_lock(&claims.lock);
	KUNIT_EXPECT_NULL(test, find_claim(&o->inode));
	mutex_unlock(&claims.lock);
}

static void claim_rule(struct kunit *test)
{
	const struct vmm_claim reader = {}, writer = { .writer = true };

	KUNIT_EXPECT_TRUE(test, claim_allows(NULL, false));
	KUNIT_EXPECT_TRUE(test, claim_allows(NULL, true));
	KUNIT_EXPECT_TRUE(test, claim_allows(&reader, false));
	KUNIT_EXPECT_FALSE(test, claim_allows(&reader, true));
	KUNIT_EXPECT_FALSE(test, claim_allows(&writer, false));
	KUNIT_EXPECT_FALSE(test, claim_allows(&writer, true));
}

static void claim_one_writer(struct kunit *test)
{
	struct opened *o = new_opened(test);
	struct file *reader = new_file(test, o, false);
	struct file *writer = new_file(test, o, true);
	struct vmm_claim *claim = must_take(test, writer);

	expect_busy(test, reader);
	expect_busy(test, writer);
	expect_busy(test, new_file(test, o, true));
	KUNIT_EXPECT_EQ(test, claim->users, 1);
	vmm_claim_drop(claim);
	expect_free(test, o);
	vmm_claim_drop(must_take(test, reader));
	expect_free(test, o);
}

static void claim_many_readers(struct kunit *test)
{
	struct opened *o = new_opened(test);
	struct file *reader = new_file(test, o, false);
	struct file *writer = new_file(test, o, true);
	struct vmm_claim *claim = must_take(test, reader);
	u32 users;

	for (users = 2; users <= 100; users++) {
		KUNIT_EXPECT_PTR_EQ(test, must_take(test, reader), claim);
		KUNIT_EXPECT_EQ(test, claim->users, users);
	}
	/* It drains: a writer has to wait for the last of them. */
	for (users = 100; users; users--) {
		expect_busy(test, writer);
		vmm_claim_drop(claim);
	}
	expect_free(test, o);
	vmm_claim_drop(must_take(test, writer));
}

/* A device has an inode for each of its nodes, and one that all of them map. */
static void claim_by_mapping(struct kunit *test)
{
	struct opened *o = new_opened(test), *node = new_opened(test);
	struct file *writer = new_file(test, o, true);
	struct file *alias = new_file(test, o, true);
	struct file *other = new_file(test, node, true);
	struct vmm_claim *claim = must_take(test, writer);

	alias->f_inode = &node->inode;
	expect_busy(test, alias);
	vmm_claim_drop(must_take(test, other));
	vmm_claim_drop(claim);
	expect_free(test, o);
	expect_free(test, node);
}

/* All of them are there at once, so that some share a place in the table. */
static void claim_many_inodes(struct kunit *test)
{
	struct vmm_claim **list;
	struct opened **o;
	int i, n = 600;

	list = kunit_kcalloc(test, n, sizeof(*list), GFP_KERNEL);
	o = kunit_kcalloc(test, n, sizeof(*o), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, list);
	KUNIT_ASSERT_NOT_NULL(test, o);
	for (i = 0; i < n; i++) {
		o[i] = new_opened(test);
		list[i] = must_take(test, new_file(test, o[i], true));
	}
	for (i = 0; i < n; i++) {
		expect_busy(test, new_file(test, o[i], false));
		vmm_claim_drop(list[i]);
		expect_free(test, o[i]);
	}
}

/* Threads that want to write, of which one at a time may. */
struct contest {
	struct file *file;
	atomic_t writers;
	atomic_t taken;
	atomic_t wrong;
	atomic_t left;
	struct completion done;
};

static int contend(void *data)
{
	struct contest *c = data;
	struct vmm_claim *claim;
	int i;

	for (i = 0; i < 500; i++) {
		claim = vmm_claim_take(c->file);
		if (IS_ERR(claim)) {
			if (PTR_ERR(claim) != -EBUSY)
				atomic_inc(&c->wrong);
			cond_resched();
			continue;
		}
		atomic_inc(&c->taken);
		if (atomic_inc_return(&c->writers) != 1)
			atomic_inc(&c->wrong);
		cond_resched();
		atomic_dec(&c->writers);
		vmm_claim_drop(claim);
	}
	if (atomic_dec_and_test(&c->left))
		complete(&c->done);
	return 0;
}

static void claim_contest(struct kunit *test)
{
	struct opened *o = new_opened(test);
	struct contest *c = kunit_kzalloc(test, sizeof(*c), GFP_KERNEL);
	struct task_struct *thread;
	int i, n = 4;

	KUNIT_ASSERT_NOT_NULL(test, c);
	c->file = new_file(test, o, true);
	init_completion(&c->done);
	atomic_set(&c->left, n);
	for (i = 0; i < n; i++) {
		thread = kthread_run(contend, c, "vmm-claim-%d", i);
		KUNIT_EXPECT_FALSE(test, IS_ERR(thread));
		if (IS_ERR(thread) && atomic_dec_and_test(&c->left))
			complete(&c->done);
	}
	wait_for_completion(&c->done);
	KUNIT_EXPECT_EQ(test, atomic_read(&c->wrong), 0);
	KUNIT_EXPECT_GT(test, atomic_read(&c->taken), 0);
	expect_free(test, o);
}

static struct kunit_case claim_cases[] = {
	KUNIT_CASE(claim_rule),
	KUNIT_CASE(claim_one_writer),
	KUNIT_CASE(claim_many_readers),
	KUNIT_CASE(claim_by_mapping),
	KUNIT_CASE(claim_many_inodes),
	KUNIT_CASE(claim_contest),
	{}
};

static struct kunit_suite claim_suite = {
	.name = "vmm_claim",
	.test_cases = claim_cases,
};

kunit_test_suite(claim_suite);

#endif /* IS_BUILTIN(CONFIG_KUNIT) */
