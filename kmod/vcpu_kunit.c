// SPDX-License-Identifier: GPL-2.0
/*
 * Unit tests of vcpu.c, which ends with this file.
 */
#if IS_BUILTIN(CONFIG_KUNIT)

#include "command_kunit.h"

/* VCPU_RUN has no row: it has its own way, in gate.c. */
static const struct vmm_documented vcpu_documented[] = {
	{ VMM_IOC_GET_INFO, 0, "cbrsd" },
	{ VMM_IOC_VCPU_PAUSE, 0, "br", true },
	{ VMM_IOC_VCPU_RESUME, 0, "br", true },
	{ VMM_IOC_VCPU_KICK, 0, "br", true },
	{ VMM_IOC_VCPU_GET_REGS, 0, "brs", true },
	{ VMM_IOC_VCPU_SET_REGS, 0, "br", true },
};

static void vcpu_rows_sound(struct kunit *test)
{
	vmm_kunit_sound(test, vcpu_commands, ARRAY_SIZE(vcpu_commands));
}

static void vcpu_rows_documented(struct kunit *test)
{
	vmm_kunit_documented(test, vcpu_commands, ARRAY_SIZE(vcpu_commands),
			     vcpu_documented, ARRAY_SIZE(vcpu_documented));
}

static struct kunit_case vcpu_cases[] = {
	KUNIT_CASE(vcpu_rows_sound),
	KUNIT_CASE(vcpu_rows_documented),
	{}
};

static struct kunit_suite vcpu_suite = {
	.name = "vmm_vcpu",
	.test_cases = vcpu_cases,
};

kunit_test_suite(vcpu_suite);

#endif /* IS_BUILTIN(CONFIG_KUNIT) */
