// SPDX-License-Identifier: GPL-2.0
/*
 * The inventory: all VMs that were created and not destroyed, by number and by
 * uuid. A VM is put in and taken out under the lock that its events CREATED and
 * DESTROYED are posted under, so whoever reads the number of the newest event
 * and then the inventory sees nothing older than that event.
 */
#include <linux/hashtable.h>
#include <linux/jhash.h>
#include <linux/xarray.h>

#include "trace.h"
#include "vmm_drv.h"

static struct {
	struct mutex lock;			/* all of this */
	struct xarray by_id;			/* [lock] */
	DECLARE_HASHTABLE(by_uuid, 10);		/* [lock] */
	unsigned int count;			/* [lock] */
	u32 generation;				/* [lock] never 0 */
	atomic64_t last_id;
} inventory = {
	.lock = __MUTEX_INITIALIZER(inventory.lock),
	.by_id = XARRAY_INIT(inventory.by_id, 0),
	.by_uuid = { [0 ... ((1 << 10) - 1)] = HLIST_HEAD_INIT },
	.generation = 1,
};

static u32 uuid_hash(const u8 *uuid)
{
	return jhash(uuid, VMM_UUID_LEN, 0);
}

static bool uuid_taken(const u8 *uuid)
{
	struct vmm_vm *vm;

	lockdep_assert_held(&inventory.lock);
	hash_for_each_possible(inventory.by_uuid, vm, by_uuid, uuid_hash(uuid))
		if (!memcmp(vm->uuid, uuid, VMM_UUID_LEN))
			return true;
	return false;
}

/* Dumps compare with the number they saw before; 0 means none to netlink. */
static void changed(void)
{
	lockdep_assert_held(&inventory.lock);
	if (!++inventory.generation)
		inventory.generation = 1;
}

/* A number that no VM had or will have, also when it comes to nothing. */
u64 vmm_inventory_new_id(void)
{
	return atomic64_inc_return(&inventory.last_id);
}

/*
 * vmm_inventory_add - list a VM and post that it was created
 *
 * Return: 0, -EEXIST (its uuid is taken), -ENOSPC, -ENOMEM.
 */
int vmm_inventory_add(struct vmm_vm *vm)
{
	struct vmm_limits limits;
	int ret;

	vmm_limits_host(&limits);
	mutex_lock(&inventory.lock);
	ret = -EEXIST;
	if (uuid_taken(vm->uuid))
		goto unlock;
	ret = -ENOSPC;
	if (inventory.count >= limits.max_vms)
		goto unlock;
	ret = xa_err(xa_store(&inventory.by_id, vm->id, vm, GFP_KERNEL));
	if (ret)
		goto unlock;
	hash_add(inventory.by_uuid, &vm->by_uuid, uuid_hash(vm->uuid));
	inventory.count++;
	changed();
	spin_lock(&vm->lock);
	vm->announced = true;
	trace_vmm_vm_state(vm->id, vm->state, vm->reason);
	vmm_event_post(vm, VMM_EVENT_CREATED, 1);
	spin_unlock(&vm->lock);
unlock:
	mutex_unlock(&inventory.lock);
	return ret;
}

/*
 * vmm_inventory_remove - mark a VM destroyed and take it out, if it is in
 *
 * Return: false if it was marked before.
 */
bool vmm_inventory_remove(struct vmm_vm *vm)
{
	bool first;

	mutex_lock(&inventory.lock);
	if (hash_hashed(&vm->by_uuid)) {
		hash_del(&vm->by_uuid);
		xa_erase(&inventory.by_id, vm->id);
		inventory.count--;
		changed();
	}
	spin_lock(&vm->lock);
	first = !vm->destroyed;
	vm->destroyed = true;
	if (first)
		vmm_event_post(vm, VMM_EVENT_DESTROYED, 1);
	spin_unlock(&vm->lock);
	mutex_unlock(&inventory.lock);
	return first;
}

/*
 * vmm_inventory_get - find a VM by its number
 *
 * A VM whose last handle is going is still listed for a moment, but cannot be
 * had any more.
 *
 * Return: the VM with a new handle, or NULL.
 */
struct vmm_vm *vmm_inventory_get(u64 id)
{
	struct vmm_vm *vm;

	mutex_lock(&inventory.lock);
	vm = xa_load(&inventory.by_id, id);
	if (vm && !refcount_inc_not_zero(&vm->handles))
		vm = NULL;
	mutex_unlock(&inventory.lock);
	return vm;
}

/* Return: 0 or -ENOENT. */
int vmm_inventory_describe(u64 id, struct vmm_note *note)
{
	struct vmm_vm *vm;

	mutex_lock(&inventory.lock);
	vm = xa_load(&inventory.by_id, id);
	if (vm)
		vmm_vm_describe(vm, note);
	mutex_unlock(&inventory.lock);
	return vm ? 0 : -ENOENT;
}

/*
 * vmm_inventory_next - describe the VM with the lowest number from *@id on
 * @id:		set to its number
 *
 * Return: false if there is none.
 */
bool vmm_inventory_next(unsigned long *id, struct vmm_note *note)
{
	struct vmm_vm *vm;

	mutex_lock(&inventory.lock);
	vm = xa_find(&inventory.by_id, id, ULONG_MAX, XA_PRESENT);
	if (vm)
		vmm_vm_describe(vm, note);
	mutex_unlock(&inventory.lock);
	return vm;
}

/*
 * vmm_inventory_next_vm - get the VM with the lowest number from *@id on
 * @id:		set to its number
 *
 * Return: the VM with a new kref, or NULL.
 */
struct vmm_vm *vmm_inventory_next_vm(unsigned long *id)
{
	struct vmm_vm *vm;

	mutex_lock(&inventory.lock);
	vm = xa_find(&inventory.by_id, id, ULONG_MAX, XA_PRESENT);
	if (vm)
		vmm_vm_get(vm);
	mutex_unlock(&inventory.lock);
	return vm;
}

u32 vmm_inventory_generation(void)
{
	u32 generation;

	mutex_lock(&inventory.lock);
	generation = inventory.generation;
	mutex_unlock(&inventory.lock);
	return generation;
}
