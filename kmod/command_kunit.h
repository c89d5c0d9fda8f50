/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the unit tests of the tables of commands share.
 */
#ifndef _VMM_COMMAND_KUNIT_H
#define _VMM_COMMAND_KUNIT_H

#include <kunit/test.h>
#include <linux/string.h>

#include "vmm_drv.h"

/*
 * struct vmm_documented - a command, as abi/vmm.h describes it
 *
 * States are letters: created, bound, running, stopped, and destroyed for one
 * that works on a destroyed VM too. This list is written from the header, not
 * from the table, so that neither is changed alone.
 */
struct vmm_documented {
	unsigned int cmd;
	u32 rights;
	const char *states;
	bool same_mm;
};

static inline u32 vmm_kunit_states(const char *letters)
{
	u32 states = 0;

	if (strchr(letters, 'c'))
		states |= VMM_STATE_BIT(CREATED);
	if (strchr(letters, 'b'))
		states |= VMM_STATE_BIT(BOUND);
	if (strchr(letters, 'r'))
		states |= VMM_STATE_BIT(RUNNING);
	if (strchr(letters, 's'))
		states |= VMM_STATE_BIT(STOPPED);
	return states;
}

/* What holds for each row of every table. */
static inline void vmm_kunit_sound(struct kunit *test,
				   const struct vmm_command *table, size_t rows)
{
	const struct vmm_command *row, *other;
	int i;

	for (row = table; row < table + rows; row++) {
		KUNIT_EXPECT_EQ_MSG(test, row->cmd,
				    _IO(VMM_IOC_MAGIC, _IOC_NR(row->cmd)),
				    "command %#x", row->cmd);
		KUNIT_EXPECT_NOT_NULL_MSG(test, row->handler,
					  "command %#x", row->cmd);
		KUNIT_EXPECT_LE_MSG(test, row->size,
				    sizeof_field(struct vmm_call, arg),
				    "command %#x", row->cmd);
		KUNIT_EXPECT_EQ_MSG(test, row->rights & ~__VMM_RIGHT_ALL, 0,
				    "command %#x", row->cmd);
		for (i = 0; i < ARRAY_SIZE(row->zero) && row->zero[i]; i++) {
			KUNIT_EXPECT_EQ_MSG(test, row->zero[i] % sizeof(u32), 0,
					    "command %#x", row->cmd);
			KUNIT_EXPECT_LE_MSG(test, row->zero[i] + sizeof(u32),
					    row->size, "command %#x", row->cmd);
		}
		for (other = table; other < row; other++)
			KUNIT_EXPECT_NE_MSG(test, row->cmd, other->cmd,
					    "command %#x twice", row->cmd);
	}
}

/* The table and the documentation name the same commands and conditions. */
static inline void vmm_kunit_documented(struct kunit *test,
					const struct vmm_command *table,
					size_t rows,
					const struct vmm_documented *list,
					size_t count)
{
	const struct vmm_documented *doc;
	const struct vmm_command *row;
	u32 all = vmm_kunit_states("cbrs");

	KUNIT_EXPECT_EQ(test, rows, count);
	for (doc = list; doc < list + count; doc++) {
		for (row = table; row < table + rows; row++)
			if (row->cmd == doc->cmd)
				break;
		if (row == table + rows) {
			KUNIT_FAIL(test, "command %#x has no row", doc->cmd);
			continue;
		}
		KUNIT_EXPECT_EQ_MSG(test, row->rights, doc->rights,
				    "rights of %#x", doc->cmd);
		KUNIT_EXPECT_EQ_MSG(test, row->states & all,
				    vmm_kunit_states(doc->states),
				    "states of %#x", doc->cmd);
		KUNIT_EXPECT_EQ_MSG(test, row->destroyed,
				    !!strchr(doc->states, 'd'),
				    "destroyed, of %#x", doc->cmd);
		KUNIT_EXPECT_EQ_MSG(test, row->same_mm, doc->same_mm,
				    "memory map of %#x", doc->cmd);
	}
}

#endif /* _VMM_COMMAND_KUNIT_H */
