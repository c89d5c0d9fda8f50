// SPDX-License-Identifier: GPL-2.0
/*
 * Events: posted with the change that they tell of, numbered and sent later.
 *
 * Posting is done under the VM's lock and only queues, so that the order of
 * the queue is the order of the changes. Sending is done in process context
 * under one mutex, which also gives the numbers: they have no gaps, and who
 * reads the newest number and then a VM sees that event's change. The last
 * VMM_EVENTS_KEPT stay readable.
 */
#include <linux/mm.h>
#include <linux/random.h>
#include <linux/timekeeping.h>

#include "vmm_drv.h"

#define VMM_EVENTS_KEPT		4096

/* Random, so that numbers of two loads of the module are told apart. */
u64 vmm_instance;

static struct {
	spinlock_t lock;		/* the queue; innermost */
	struct list_head queue;		/* [lock] */
	struct mutex send;
	u64 newest;			/* [send] number given last; begins at 1 */
	struct vmm_note *kept;		/* [send] by number, modulo */
	struct work_struct work;
} events = {
	.lock = __SPIN_LOCK_UNLOCKED(events.lock),
	.queue = LIST_HEAD_INIT(events.queue),
	.send = __MUTEX_INITIALIZER(events.send),
};

void vmm_event_init(struct vmm_event *event, struct vmm_vm *vm,
		    struct vmm_backend *backend)
{
	INIT_LIST_HEAD(&event->link);
	event->vm = vm;
	event->backend = backend;
}

/**
 * vmm_event_post_as - queue an event of a VM, as the VM is now
 * @event:	where it is kept until it is sent; its VM's lock is held
 * @kind:	VMM_EVENT_*
 * @count:	how many claims it stands for
 * @detail:	VMM_LIMIT_* of LIMIT, the number of the backend of ATTACHED and
 *		DETACHED, else 0
 *
 * One that is still queued takes the new claims in and moves to the end, as it
 * now tells of a later moment. After the lock is dropped, vmm_events_flush().
 */
void vmm_event_post_as(struct vmm_event *event, u32 kind, u32 count, u32 detail)
{
	struct vmm_vm *vm = event->vm;

	lockdep_assert_held(&vm->lock);
	if (!vm->announced)
		return;
	spin_lock(&events.lock);
	if (!list_empty(&event->link)) {
		count += event->note.count;
		list_move_tail(&event->link, &events.queue);
	} else {
		vmm_vm_get(vm);
		if (event->backend)
			vmm_backend_hold(event->backend);
		list_add_tail(&event->link, &events.queue);
	}
	vmm_vm_describe_locked(vm, &event->note);
	event->note.event = kind;
	event->note.count = count;
	event->note.limit = kind == VMM_EVENT_LIMIT ? detail : 0;
	event->note.backend = event->backend ? detail : 0;
	event->note.time = ktime_get_ns();
	spin_unlock(&events.lock);
}

/* vmm_event_post - queue one of the events that a VM has in itself */
void vmm_event_post(struct vmm_vm *vm, u32 kind, u32 count)
{
	vmm_event_post_as(&vm->events[kind - 1], kind, count, 0);
}

/* Return: an event that holds its krefs still, or NULL if there was none. */
static struct vmm_event *take(struct vmm_note *note)
{
	struct vmm_event *event;

	spin_lock(&events.lock);
	event = list_first_entry_or_null(&events.queue, struct vmm_event, link);
	if (event) {
		list_del_init(&event->link);
		*note = event->note;
	}
	spin_unlock(&events.lock);
	return event;
}

/*
 * Return: what the event held, which can be queued again by now. false when
 * there was none.
 */
static bool send_one(struct vmm_vm **vm, struct vmm_backend **backend)
{
	struct vmm_event *event;
	struct vmm_note note;

	mutex_lock(&events.send);
	event = take(&note);
	if (event) {
		*vm = event->vm;
		*backend = event->backend;
		note.seq = ++events.newest;
		events.kept[note.seq % VMM_EVENTS_KEPT] = note;
		if (note.event == VMM_EVENT_DESTROYED)
			vmm_tomb_bury(&note);
		vmm_netlink_notify(&note);
	}
	mutex_unlock(&events.send);
	return event;
}

/**
 * vmm_events_flush - number and send what is queued
 *
 * When it returns, all that was queued before the call is sent: another thread
 * that took an event sends it before we can get the mutex.
 *
 * Context: may sleep. The caller holds nothing that the end of a VM needs, which
 * is inventory.lock, backends.lock and claims.lock.
 */
void vmm_events_flush(void)
{
	struct vmm_backend *backend;
	struct vmm_vm *vm;

	while (send_one(&vm, &backend)) {
		if (backend)
			vmm_backend_put(backend);
		vmm_vm_put(vm);
	}
}

static void flush_work_fn(struct work_struct *work)
{
	vmm_events_flush();
}

/* For who cannot sleep. */
void vmm_events_flush_later(void)
{
	queue_work(vmm_wq, &events.work);
}

u64 vmm_events_newest(void)
{
	u64 newest;

	mutex_lock(&events.send);
	newest = events.newest;
	mutex_unlock(&events.send);
	return newest;
}

/*
 * vmm_event_next - read the oldest kept event with a number above *@since
 * @since:	set to its number
 *
 * Return: false if there is none.
 */
bool vmm_event_next(u64 *since, struct vmm_note *note)
{
	u64 seq, oldest;
	bool found;

	mutex_lock(&events.send);
	oldest = events.newest < VMM_EVENTS_KEPT ?
		 1 : events.newest - VMM_EVENTS_KEPT + 1;
	seq = *since < oldest ? oldest : *since + 1;
	found = *since < events.newest;
	if (found) {
		*note = events.kept[seq % VMM_EVENTS_KEPT];
		*since = seq;
	}
	mutex_unlock(&events.send);
	return found;
}

int vmm_events_init(void)
{
	events.kept = kvcalloc(VMM_EVENTS_KEPT, sizeof(*events.kept),
			       GFP_KERNEL);
	if (!events.kept)
		return -ENOMEM;
	INIT_WORK(&events.work, flush_work_fn);
	vmm_instance = get_random_u64();
	return 0;
}

void vmm_events_exit(void)
{
	WARN_ON(!list_empty(&events.queue));
	kvfree(events.kept);
}
