// SPDX-License-Identifier: GPL-2.0
/*
 * Unit tests of limits.c, which ends with this file. They run before the module
 * is initialised, when no VM uses anything yet, and leave the parameters as they
 * were.
 */
#if IS_BUILTIN(CONFIG_KUNIT)

#include <kunit/test.h>

static struct vmm_limits kept;

static int limits_keep(struct kunit *test)
{
	kept = params;
	return 0;
}

static void limits_restore(struct kunit *test)
{
	params = kept;
	KUNIT_EXPECT_EQ(test, atomic64_read(&used.vcpus), 0);
	KUNIT_EXPECT_EQ(test, atomic64_read(&used.memory), 0);
}

/* A VM that is not listed, so that nothing is told of it. */
static struct vmm_vm *unlisted_vm(struct kunit *test)
{
	static const u8 uuid[VMM_UUID_LEN] = { 1 };
	static const u8 name[VMM_NAME_LEN] = "kunit";
	struct vmm_vm *vm = vmm_vm_alloc(uuid, name);

	KUNIT_ASSERT_NOT_NULL(test, vm);
	return vm;
}

static u64 hits(struct vmm_vm *vm, u32 limit)
{
	u64 total;

	spin_lock(&vm->lock);
	total = vm->limit_hits[limit - 1].total;
	spin_unlock(&vm->lock);
	return total;
}

static void limits_take(struct kunit *test)
{
	static const struct {
		u64 used, more, limit;
		bool want;
	} cases[] = {
		{ 0, 0, 0, true },
		{ 0, 1, 0, false },
		{ 0, 1, 1, true },
		{ 1, 0, 1, true },
		{ 1, 1, 1, false },
		{ 6, 4, 10, true },
		{ 7, 4, 10, false },
		{ 10, 1, 5, false },	/* lowered meanwhile */
		{ 10, 0, 5, false },
		{ 1, U64_MAX, 10, false },
		{ S64_MAX - 1, 1, S64_MAX, true },
		{ S64_MAX, 1, S64_MAX, false },
		{ 1, S64_MAX, S64_MAX, false },
	};
	atomic64_t sum;
	u64 after;
	int i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		atomic64_set(&sum, cases[i].used);
		after = cases[i].used;
		if (cases[i].want)
			after += cases[i].more;
		KUNIT_EXPECT_EQ_MSG(test,
				    take(&sum, cases[i].more, cases[i].limit),
				    cases[i].want, "case %d", i);
		KUNIT_EXPECT_EQ_MSG(test, (u64)atomic64_read(&sum), after,
				    "case %d", i);
	}
}

static void limits_of_vm(struct kunit *test)
{
	struct vmm_vm *vm = unlisted_vm(test);
	struct vmm_limits limits, host;

	vmm_limits_host(&host);
	vmm_limits_of(vm, &limits);
	KUNIT_EXPECT_EQ(test, memcmp(&limits, &host, sizeof(host)), 0);

	vm->limits = (struct vmm_limits) {
		.max_vcpus = 1,
		.max_memslots = 2,
		.max_doorbells = 3,
		.max_backends = 4,
		.max_memory = 5,
	};
	vmm_limits_of(vm, &limits);
	KUNIT_EXPECT_EQ(test, limits.max_vcpus, 1);
	KUNIT_EXPECT_EQ(test, limits.max_memslots, 2);
	KUNIT_EXPECT_EQ(test, limits.max_doorbells, 3);
	KUNIT_EXPECT_EQ(test, limits.max_backends, 4);
	KUNIT_EXPECT_EQ(test, limits.max_memory, 5);
	KUNIT_EXPECT_EQ(test, limits.max_vms, host.max_vms);

	/* The host's word holds for VMs that were configured before, too. */
	vm->limits.max_vcpus = 8;
	params.max_vcpus = 7;
	vmm_limits_of(vm, &limits);
	KUNIT_EXPECT_EQ(test, limits.max_vcpus, 7);
	vmm_vm_put_handle(vm);
}

static void limits_config(struct kunit *test)
{
	struct vmm_vm *vm = unlisted_vm(test);
	struct vmm_call call = { .vm = vm };
	struct vmm_vm_config_set *arg = &call.arg.config;

	arg->max_vcpus = params.max_vcpus;
	arg->max_memory = params.max_memory;
	KUNIT_EXPECT_EQ(test, vmm_limits_config(&call), 0);
	KUNIT_EXPECT_EQ(test, vm->limits.max_vcpus, params.max_vcpus);
	KUNIT_EXPECT_EQ(test, vm->limits.max_memslots, 0);
	KUNIT_EXPECT_EQ(test, vm->limits.max_memory, params.max_memory);

	/* One that is too much refuses them all. */
	arg->max_vcpus = 1;
	arg->max_memory = params.max_memory + 1;
	KUNIT_EXPECT_EQ(test, vmm_limits_config(&call), -ENOSPC);
	KUNIT_EXPECT_EQ(test, vm->limits.max_vcpus, params.max_vcpus);

	arg->max_memory = 0;
	vm->state = VMM_VM_STATE_BOUND;
	KUNIT_EXPECT_EQ(test, vmm_limits_config(&call), -EBUSY);
	vm->state = VMM_VM_STATE_STOPPED;
	KUNIT_EXPECT_EQ(test, vmm_limits_config(&call), -ESHUTDOWN);
	KUNIT_EXPECT_EQ(test, vm->limits.max_vcpus, params.max_vcpus);
	vmm_vm_put_handle(vm);
}

/*
 * What is refused takes nothing, and is counted for its VM. A second time within
 * a second would be told later, by a work queue that is not there yet.
 */
static void limits_host_vcpus(struct kunit *test)
{
	struct vmm_vm *a = unlisted_vm(test), *b = unlisted_vm(test);

	params.host_vcpus = 3;
	KUNIT_EXPECT_EQ(test, vmm_limits_take_vcpu(a), 0);
	KUNIT_EXPECT_EQ(test, vmm_limits_take_vcpu(b), 0);
	KUNIT_EXPECT_EQ(test, vmm_limits_take_vcpu(a), 0);
	KUNIT_EXPECT_EQ(test, vmm_limits_take_vcpu(b), -ENOSPC);
	KUNIT_EXPECT_EQ(test, hits(a, VMM_LIMIT_HOST_VCPUS), 0);
	KUNIT_EXPECT_EQ(test, hits(b, VMM_LIMIT_HOST_VCPUS), 1);
	vmm_limits_put_vcpus(2);
	KUNIT_EXPECT_EQ(test, vmm_limits_take_vcpu(b), 0);
	vmm_limits_put_vcpus(2);
	vmm_vm_put_handle(a);
	vmm_vm_put_handle(b);
}

static void limits_host_memory(struct kunit *test)
{
	struct vmm_vm *a = unlisted_vm(test), *b = unlisted_vm(test);

	params.host_memory = 1ULL << 40;
	KUNIT_EXPECT_EQ(test, vmm_limits_take_memory(a, 1ULL << 40), 0);
	KUNIT_EXPECT_EQ(test, vmm_limits_take_memory(a, PAGE_SIZE), -ENOSPC);
	vmm_limits_put_memory(PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, vmm_limits_take_memory(b, PAGE_SIZE), 0);
	KUNIT_EXPECT_EQ(test, vmm_limits_take_memory(b, U64_MAX), -ENOSPC);
	KUNIT_EXPECT_EQ(test, hits(a, VMM_LIMIT_HOST_MEMORY), 1);
	KUNIT_EXPECT_EQ(test, hits(b, VMM_LIMIT_HOST_MEMORY), 1);
	vmm_limits_put_memory(1ULL << 40);
	vmm_vm_put_handle(a);
	vmm_vm_put_handle(b);
}

static void limits_parameters(struct kunit *test)
{
	static const struct {
		int (*set)(const char *val, const struct kernel_param *kp);
		const char *val;
		int want;
	} cases[] = {
		{ set_count, "1", 0 },
		{ set_count, "2147483647", 0 },
		{ set_count, "0", -EINVAL },
		{ set_count, "2147483648", -EINVAL },
		{ set_count, "-1", -EINVAL },
		{ set_count, "", -EINVAL },
		{ set_count, "many", -EINVAL },
		{ set_memslots, "32764", 0 },
		{ set_memslots, "32765", -EINVAL },
		{ set_memslots, "0", -EINVAL },
		{ set_bytes, "1", 0 },
		{ set_bytes, "0x7fffffffffffffff", 0 },
		{ set_bytes, "0x8000000000000000", -EINVAL },
		{ set_bytes, "0x10000000000000000", -ERANGE },
		{ set_bytes, "0", -EINVAL },
		{ set_bytes, "4G", -EINVAL },
		{ set_bytes, "", -EINVAL },
	};
	u64 value;
	struct kernel_param kp = { .arg = &value };
	int i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		value = 7;
		KUNIT_EXPECT_EQ_MSG(test, cases[i].set(cases[i].val, &kp),
				    cases[i].want, "\"%s\"", cases[i].val);
		KUNIT_EXPECT_EQ_MSG(test, value != 7, !cases[i].want,
				    "\"%s\"", cases[i].val);
	}
}

static struct kunit_case limits_cases[] = {
	KUNIT_CASE(limits_take),
	KUNIT_CASE(limits_of_vm),
	KUNIT_CASE(limits_config),
	KUNIT_CASE(limits_host_vcpus),
	KUNIT_CASE(limits_host_memory),
	KUNIT_CASE(limits_parameters),
	{}
};

static struct kunit_suite limits_suite = {
	.name = "vmm_limits",
	.init = limits_keep,
	.exit = limits_restore,
	.test_cases = limits_cases,
};

kunit_test_suite(limits_suite);

#endif /* IS_BUILTIN(CONFIG_KUNIT) */
