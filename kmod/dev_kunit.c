// SPDX-License-Identifier: GPL-2.0
/*
 * Unit tests of dev.c, which ends with this file: what a call must be like to
 * reach its handler. They run when the module is loaded into a kernel that has
 * KUnit built in.
 */
#if IS_BUILTIN(CONFIG_KUNIT)

#include <linux/limits.h>

#include "command_kunit.h"

static void dev_rows_sound(struct kunit *test)
{
	vmm_kunit_sound(test, dev_commands, ARRAY_SIZE(dev_commands));
}

/* The tests' thread has no user memory: what must be read there cannot be. */
static void tail_by_size(struct kunit *test)
{
	static const struct {
		u32 size;
		u64 known;
		int want;
	} cases[] = {
		{ 0, 8, -EINVAL },
		{ 7, 8, -EINVAL },
		{ 8, 8, 0 },
		{ 8, U32_MAX + 9ULL, -EINVAL },
		{ 9, 8, -EFAULT },
		{ 8 + PAGE_SIZE, 8, -EFAULT },
		{ 9 + PAGE_SIZE, 8, -E2BIG },
		{ U32_MAX, 8, -E2BIG },
		{ U32_MAX, U32_MAX, 0 },
	};
	struct vmm_call call = { .user = (void __user *)TASK_SIZE_MAX };
	int i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		call.size = cases[i].size;
		KUNIT_EXPECT_EQ_MSG(test, vmm_call_tail(&call, cases[i].known),
				    cases[i].want, "%u of %llu bytes",
				    cases[i].size, cases[i].known);
	}
}

/* A VM for admit() alone: it looks at four fields, under the lock. */
static struct vmm_vm *bare_vm(struct kunit *test)
{
	struct vmm_vm *vm = kunit_kzalloc(test, sizeof(*vm), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, vm);
	spin_lock_init(&vm->lock);
	vm->state = VMM_VM_STATE_CREATED;
	return vm;
}

static void admit_without_vm(struct kunit *test)
{
	const struct vmm_command row = { .cmd = VMM_IOC_VM_CREATE };
	struct vmm_call call = {};

	KUNIT_EXPECT_EQ(test, admit(&call, &row), 0);
}

static void admit_by_state(struct kunit *test)
{
	struct vmm_call call = { .vm = bare_vm(test) };
	struct vmm_command row = {};
	u32 state;
	int want;

	/* Bit 0 is no state. */
	for (row.states = 0; row.states < BIT(VMM_VM_STATE_STOPPED + 1);
	     row.states += 2) {
		for (state = VMM_VM_STATE_CREATED; state <= VMM_VM_STATE_STOPPED;
		     state++) {
			call.vm->state = state;
			want = state == VMM_VM_STATE_STOPPED ? -ESHUTDOWN : -EBUSY;
			if (row.states >> state & 1)
				want = 0;
			KUNIT_EXPECT_EQ_MSG(test, admit(&call, &row), want,
					    "state %u of %#x", state, row.states);
		}
	}
}

static void admit_by_rights(struct kunit *test)
{
	struct vmm_vm_file vf = {};
	struct vmm_call call = { .vm = bare_vm(test), .vm_file = &vf };
	struct vmm_command row = { .states = VMM_STATES_ANY };
	int want;

	for (row.rights = 0; row.rights <= __VMM_RIGHT_ALL; row.rights++) {
		for (vf.rights = 0; vf.rights <= __VMM_RIGHT_ALL; vf.rights++) {
			want = (row.rights & vf.rights) == row.rights ? 0 : -EACCES;
			KUNIT_EXPECT_EQ_MSG(test, admit(&call, &row), want,
					    "needs %#x, has %#x", row.rights,
					    vf.rights);
		}
	}
}

/* Who lacks the right learns nothing of the VM's state. */
static void admit_rights_first(struct kunit *test)
{
	struct vmm_vm_file vf = {};
	struct vmm_call call = { .vm = bare_vm(test), .vm_file = &vf };
	struct vmm_command row = { .rights = VMM_RIGHT_RUN };

	KUNIT_EXPECT_EQ(test, admit(&call, &row), -EACCES);
	call.vm->destroyed = true;
	KUNIT_EXPECT_EQ(test, admit(&call, &row), -EACCES);
}

/* A vCPU's descriptor has no rights to look at. */
static void admit_vcpu(struct kunit *test)
{
	struct vmm_call call = { .vm = bare_vm(test) };
	struct vmm_command row = {
		.rights = VMM_RIGHT_RUN,
		.states = VMM_STATES_ANY,
	};

	KUNIT_EXPECT_EQ(test, admit(&call, &row), 0);
}

static void admit_destroyed(struct kunit *test)
{
	struct vmm_call call = { .vm = bare_vm(test) };
	struct vmm_command row = { .states = VMM_STATES_ANY };

	call.vm->state = VMM_VM_STATE_STOPPED;
	call.vm->destroyed = true;
	KUNIT_EXPECT_EQ(test, admit(&call, &row), -ESHUTDOWN);
	row.destroyed = true;
	KUNIT_EXPECT_EQ(test, admit(&call, &row), 0);
	row.states = VMM_STATES_LIVE;
	KUNIT_EXPECT_EQ(test, admit(&call, &row), -ESHUTDOWN);
}

static void admit_by_mm(struct kunit *test)
{
	struct vmm_call call = { .vm = bare_vm(test) };
	struct vmm_command row = { .states = VMM_STATES_ANY, .same_mm = true };

	/* The tests' thread has none of its own. */
	call.vm->mm = current->mm;
	KUNIT_EXPECT_EQ(test, admit(&call, &row), 0);
	call.vm->mm = current->active_mm;
	KUNIT_EXPECT_EQ(test, admit(&call, &row), -EIO);
	row.same_mm = false;
	KUNIT_EXPECT_EQ(test, admit(&call, &row), 0);
	/* The state is told to any process. */
	row.same_mm = true;
	row.states = VMM_STATES_LIVE;
	KUNIT_EXPECT_EQ(test, admit(&call, &row), -EBUSY);
}

static struct kunit_case dev_cases[] = {
	KUNIT_CASE(dev_rows_sound),
	KUNIT_CASE(tail_by_size),
	KUNIT_CASE(admit_without_vm),
	KUNIT_CASE(admit_by_state),
	KUNIT_CASE(admit_by_rights),
	KUNIT_CASE(admit_rights_first),
	KUNIT_CASE(admit_vcpu),
	KUNIT_CASE(admit_destroyed),
	KUNIT_CASE(admit_by_mm),
	{}
};

static struct kunit_suite dev_suite = {
	.name = "vmm_dev",
	.test_cases = dev_cases,
};

kunit_test_suite(dev_suite);

#endif /* IS_BUILTIN(CONFIG_KUNIT) */
