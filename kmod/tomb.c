// SPDX-License-Identifier: GPL-2.0
/*
 * Tombstones: what there is to say of a VM after it was destroyed. The last
 * VMM_TOMBS_KEPT can be read.
 */
#include <linux/mm.h>

#include "vmm_drv.h"

#define VMM_TOMBS_KEPT	1024

static struct {
	struct mutex lock;		/* all of this; innermost */
	struct vmm_note *kept;		/* [lock] by number, modulo */
	u64 newest;			/* [lock] number given last; begins at 1 */
} tombs = {
	.lock = __MUTEX_INITIALIZER(tombs.lock),
};

/* Called once for each VM, with its last event. */
void vmm_tomb_bury(const struct vmm_note *note)
{
	struct vmm_note *tomb;

	mutex_lock(&tombs.lock);
	tomb = &tombs.kept[++tombs.newest % VMM_TOMBS_KEPT];
	*tomb = *note;
	tomb->event = 0;
	mutex_unlock(&tombs.lock);
}

static u64 oldest(void)
{
	lockdep_assert_held(&tombs.lock);
	return tombs.newest < VMM_TOMBS_KEPT ?
	       1 : tombs.newest - VMM_TOMBS_KEPT + 1;
}

/* Return: 0; -ENOENT when that VM was never, still is, or is long gone. */
int vmm_tomb_describe(u64 id, struct vmm_note *note)
{
	int ret = -ENOENT;
	u64 i;

	mutex_lock(&tombs.lock);
	for (i = oldest(); i <= tombs.newest; i++) {
		if (tombs.kept[i % VMM_TOMBS_KEPT].id != id)
			continue;
		*note = tombs.kept[i % VMM_TOMBS_KEPT];
		ret = 0;
		break;
	}
	mutex_unlock(&tombs.lock);
	return ret;
}

/*
 * vmm_tomb_next - read the oldest tombstone with a number above *@after
 * @after:	set to its number
 *
 * Return: false if there is none.
 */
bool vmm_tomb_next(u64 *after, struct vmm_note *note)
{
	bool found;

	mutex_lock(&tombs.lock);
	found = *after < tombs.newest;
	if (found) {
		*after = max(*after + 1, oldest());
		*note = tombs.kept[*after % VMM_TOMBS_KEPT];
	}
	mutex_unlock(&tombs.lock);
	return found;
}

int vmm_tombs_init(void)
{
	tombs.kept = kvcalloc(VMM_TOMBS_KEPT, sizeof(*tombs.kept), GFP_KERNEL);
	return tombs.kept ? 0 : -ENOMEM;
}

void vmm_tombs_exit(void)
{
	kvfree(tombs.kept);
}
