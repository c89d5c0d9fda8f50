// SPDX-License-Identifier: GPL-2.0
/*
 * Unit tests of vm_file.c, which ends with this file.
 */
#if IS_BUILTIN(CONFIG_KUNIT)

#include "command_kunit.h"

#define CONTROL		VMM_RIGHT_CONTROL
#define RUN		VMM_RIGHT_RUN
#define OBSERVE		VMM_RIGHT_OBSERVE
#define DELEGATE	VMM_RIGHT_DELEGATE

static const struct vmm_documented vm_documented[] = {
	{ VMM_IOC_GET_INFO, 0, "cbrsd" },
	{ VMM_IOC_VM_CONFIG_SET, CONTROL, "c" },
	{ VMM_IOC_VM_DELEGATE, DELEGATE, "cbrs" },
	{ VMM_IOC_VM_ATTACH_DISK, CONTROL, "cbr" },
	{ VMM_IOC_VM_ATTACH_NIC, CONTROL, "cbr" },
	{ VMM_IOC_VM_DETACH, CONTROL, "cbr" },
	{ VMM_IOC_VM_PAUSE, CONTROL, "cbr" },
	{ VMM_IOC_VM_RESUME, CONTROL, "cbr" },
	{ VMM_IOC_VM_STOP, CONTROL, "cbrs" },
	{ VMM_IOC_VM_DESTROY, CONTROL, "cbrs" },
	{ VMM_IOC_VM_BIND, RUN, "c" },
	{ VMM_IOC_VM_SETUP, RUN, "b", true },
	{ VMM_IOC_VCPU_CREATE, RUN, "b", true },
	{ VMM_IOC_VM_MAP_MEMORY, RUN, "br", true },
	{ VMM_IOC_VM_MAP_MMIO, RUN, "br", true },
	{ VMM_IOC_VM_MAP_IRQ, RUN, "br", true },
	{ VMM_IOC_VM_SET_ROUTES, RUN, "br", true },
	{ VMM_IOC_VM_SIGNAL, RUN, "br", true },
	{ VMM_IOC_VM_GET_BACKEND, RUN, "br", true },
	{ VMM_IOC_VM_GET_STATE, RUN, "brs", true },
	{ VMM_IOC_VM_SET_STATE, RUN, "br", true },
	{ VMM_IOC_VM_DIRTY_LOG, RUN, "brs", true },
	{ VMM_IOC_VM_REPORT, RUN, "br", true },
	{ VMM_IOC_VM_GET_STATS, OBSERVE, "cbrs" },
};

#undef CONTROL
#undef RUN
#undef OBSERVE
#undef DELEGATE

static void vm_rows_sound(struct kunit *test)
{
	vmm_kunit_sound(test, vm_commands, ARRAY_SIZE(vm_commands));
}

static void vm_rows_documented(struct kunit *test)
{
	vmm_kunit_documented(test, vm_commands, ARRAY_SIZE(vm_commands),
			     vm_documented, ARRAY_SIZE(vm_documented));
}

static bool valid(const char *text)
{
	u8 name[VMM_NAME_LEN] = {};

	memcpy(name, text, min_t(size_t, strlen(text), sizeof(name)));
	return name_valid(name);
}

static void names_valid(struct kunit *test)
{
	static const char * const good[] = { "a", "0", ".", "-", "_", "Web-1.x_y" };
	int i;

	for (i = 0; i < ARRAY_SIZE(good); i++)
		KUNIT_EXPECT_TRUE_MSG(test, valid(good[i]), "\"%s\"", good[i]);
}

static void names_invalid(struct kunit *test)
{
	static const char * const bad[] = { "", " ", "a b", "a/b", "a\n", "\xc3\xa4" };
	int i;

	for (i = 0; i < ARRAY_SIZE(bad); i++)
		KUNIT_EXPECT_FALSE_MSG(test, valid(bad[i]), "\"%s\"", bad[i]);
}

/* Each byte by itself, against the list in the header written out. */
static void names_by_byte(struct kunit *test)
{
	static const char allowed[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
	int byte;

	for (byte = 1; byte <= 0xff; byte++) {
		u8 name[VMM_NAME_LEN] = { 'a', byte, 'a' };

		KUNIT_EXPECT_EQ_MSG(test, name_valid(name),
				    !!strchr(allowed, byte), "byte %#x", byte);
	}
}

static void names_by_length(struct kunit *test)
{
	u8 name[VMM_NAME_LEN] = {};
	int len;

	for (len = 0; len <= VMM_NAME_LEN; len++) {
		KUNIT_EXPECT_EQ_MSG(test, name_valid(name),
				    len > 0 && len < VMM_NAME_LEN,
				    "%d bytes", len);
		if (len < VMM_NAME_LEN)
			name[len] = 'a';
	}
}

/* Nothing may hide behind the NUL. */
static void names_with_tail(struct kunit *test)
{
	int at;

	for (at = 2; at < VMM_NAME_LEN; at++) {
		u8 name[VMM_NAME_LEN] = "a";

		name[at] = 'b';
		KUNIT_EXPECT_FALSE_MSG(test, name_valid(name), "at %d", at);
	}
}

static struct kunit_case vm_file_cases[] = {
	KUNIT_CASE(vm_rows_sound),
	KUNIT_CASE(vm_rows_documented),
	KUNIT_CASE(names_valid),
	KUNIT_CASE(names_invalid),
	KUNIT_CASE(names_by_byte),
	KUNIT_CASE(names_by_length),
	KUNIT_CASE(names_with_tail),
	{}
};

static struct kunit_suite vm_file_suite = {
	.name = "vmm_vm_file",
	.test_cases = vm_file_cases,
};

kunit_test_suite(vm_file_suite);

#endif /* IS_BUILTIN(CONFIG_KUNIT) */
