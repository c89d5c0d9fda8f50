// SPDX-License-Identifier: GPL-2.0
/*
 * The generic netlink family "vmm": what is asked of the inventory, and events.
 * Described by abi/vmm.yaml. Only CAP_NET_ADMIN in the initial user namespace
 * may ask, and only the initial network namespace has the family.
 */
#include <linux/user_namespace.h>
#include <net/genetlink.h>

#include "vmm_drv.h"

static struct genl_family family;

/* All three sets of attributes have their padding at the same number. */
static int put_u64(struct sk_buff *skb, int attr, u64 value)
{
	BUILD_BUG_ON(VMM_A_VM_PAD != VMM_A_VCPU_PAD);
	BUILD_BUG_ON(VMM_A_VM_PAD != VMM_A_DEV_PAD);
	return nla_put_u64_64bit(skb, attr, value, VMM_A_VM_PAD);
}

static int put_flag(struct sk_buff *skb, int attr, bool set)
{
	return set ? nla_put_flag(skb, attr) : 0;
}

static int put_exit_data(struct sk_buff *skb, const struct vmm_note *note)
{
	int i, ret = 0;

	for (i = 0; i < ARRAY_SIZE(note->exit_data) && !ret; i++)
		ret = put_u64(skb, VMM_A_VM_EXIT_DATA, note->exit_data[i]);
	return ret;
}

static int put_vm(struct sk_buff *skb, const struct vmm_note *note)
{
	if (put_u64(skb, VMM_A_VM_ID, note->id) ||
	    nla_put(skb, VMM_A_VM_UUID, sizeof(note->uuid), note->uuid) ||
	    nla_put_string(skb, VMM_A_VM_NAME, note->name) ||
	    nla_put_u32(skb, VMM_A_VM_STATE, note->state) ||
	    nla_put_u32(skb, VMM_A_VM_PAUSED, note->paused) ||
	    nla_put_u32(skb, VMM_A_VM_REASON, note->reason) ||
	    put_exit_data(skb, note) ||
	    nla_put_u32(skb, VMM_A_VM_OWNER,
			from_kuid_munged(&init_user_ns, note->owner)) ||
	    nla_put_u32(skb, VMM_A_VM_MONITOR, note->monitor) ||
	    nla_put_u32(skb, VMM_A_VM_VCPUS, note->vcpus) ||
	    put_u64(skb, VMM_A_VM_MEMORY, note->memory) ||
	    put_u64(skb, VMM_A_VM_CREATED, note->created))
		return -EMSGSIZE;
	return 0;
}

static int put_event(struct sk_buff *skb, const struct vmm_note *note)
{
	if (nla_put_u32(skb, VMM_A_VM_EVENT, note->event) ||
	    put_u64(skb, VMM_A_VM_EVENT_TIME, note->time) ||
	    nla_put_u32(skb, VMM_A_VM_EVENT_COUNT, note->count) ||
	    (note->limit && nla_put_u32(skb, VMM_A_VM_LIMIT, note->limit)) ||
	    (note->backend && nla_put_u32(skb, VMM_A_VM_BACKEND, note->backend)))
		return -EMSGSIZE;
	return 0;
}

static int put_position(struct sk_buff *skb, u64 seq)
{
	if (put_u64(skb, VMM_A_VM_EVENT_SEQ, seq) ||
	    put_u64(skb, VMM_A_VM_INSTANCE, vmm_instance))
		return -EMSGSIZE;
	return 0;
}

/* @seq: of the event, or of the newest one that the answer has taken in. */
static int fill(struct sk_buff *skb, void *head, const struct vmm_note *note,
		u64 seq)
{
	if (!head)
		return -EMSGSIZE;
	if (put_vm(skb, note) || (note->event && put_event(skb, note)) ||
	    (!note->event && note->time &&
	     put_u64(skb, VMM_A_VM_EVENT_TIME, note->time)) ||
	    put_position(skb, seq)) {
		genlmsg_cancel(skb, head);
		return -EMSGSIZE;
	}
	genlmsg_end(skb, head);
	return 0;
}

/*
 * vmm_netlink_notify - send an event to who listens
 *
 * An event that cannot be built or sent has used up its number: listeners see
 * the gap and ask for what they missed.
 */
void vmm_netlink_notify(const struct vmm_note *note)
{
	struct sk_buff *skb;
	void *head;

	if (!genl_has_listeners(&family, &init_net, 0))
		return;
	skb = genlmsg_new(NLMSG_GOODSIZE, GFP_KERNEL);
	if (!skb)
		return;
	head = genlmsg_put(skb, 0, 0, &family, 0, VMM_CMD_VM_NTF);
	if (fill(skb, head, note, note->seq)) {
		nlmsg_free(skb);
		return;
	}
	genlmsg_multicast(&family, skb, 0, 0, GFP_KERNEL);
}

/* ---- vm-get -------------------------------------------------------------------- */

static const struct nla_policy vm_get_policy[VMM_A_VM_ID + 1] = {
	[VMM_A_VM_ID] = { .type = NLA_U64 },
};

/* Answers vm-get and tomb-get by @describe. */
static int answer(struct genl_info *info, u8 cmd,
		  int (*describe)(u64 id, struct vmm_note *note))
{
	struct vmm_note note;
	struct sk_buff *reply;
	void *head;
	u64 seq;
	int ret;

	if (GENL_REQ_ATTR_CHECK(info, VMM_A_VM_ID))
		return -EINVAL;
	/* Before the VM is looked at: so the answer is no older than that. */
	seq = vmm_events_newest();
	ret = describe(nla_get_u64(info->attrs[VMM_A_VM_ID]), &note);
	if (ret) {
		NL_SET_ERR_MSG_ATTR(info->extack, info->attrs[VMM_A_VM_ID],
				    "no VM has this number");
		return ret;
	}
	reply = genlmsg_new(NLMSG_GOODSIZE, GFP_KERNEL);
	if (!reply)
		return -ENOMEM;
	head = genlmsg_put_reply(reply, info, &family, 0, cmd);
	ret = fill(reply, head, &note, seq);
	if (ret) {
		nlmsg_free(reply);
		return ret;
	}
	return genlmsg_reply(reply, info);
}

static int vmm_nl_vm_get_doit(struct sk_buff *skb, struct genl_info *info)
{
	return answer(info, VMM_CMD_VM_GET, vmm_inventory_describe);
}

/* What a dump remembers between its calls. */
struct dump {
	u64 seq;	/* newest event when it began */
	u64 at;		/* of vm-get and vcpu-get: next number of a VM; of
			 * device-get: next serial; else the last that was sent
			 */
	u64 only;	/* number of the VM asked for, 0: all */
	u32 index;	/* of vcpu-get: next index */
	bool begun;	/* the position was sent */
};

static struct dump *dump_of(struct netlink_callback *cb)
{
	BUILD_BUG_ON(sizeof(struct dump) > sizeof(cb->ctx));
	return (struct dump *)cb->ctx;
}

/* The head of one message of a dump, or NULL if there is no room for it. */
static void *dump_head(struct sk_buff *skb, struct netlink_callback *cb, u8 cmd)
{
	void *head;

	head = genlmsg_put(skb, NETLINK_CB(cb->skb).portid, cb->nlh->nlmsg_seq,
			   &family, NLM_F_MULTI, cmd);
	if (head && cb->seq)
		genl_dump_check_consistent(cb, head);
	return head;
}

static int dump_message(struct sk_buff *skb, struct netlink_callback *cb,
			u8 cmd, const struct vmm_note *note, u64 seq)
{
	return fill(skb, dump_head(skb, cb, cmd), note, seq);
}

/* The first message says where the dump stands, also when nothing follows. */
static int dump_position_as(struct sk_buff *skb, struct netlink_callback *cb,
			    u8 cmd, int seq_attr, int instance_attr)
{
	struct dump *dump = dump_of(cb);
	void *head;

	if (dump->begun)
		return 0;
	head = dump_head(skb, cb, cmd);
	if (!head)
		return -EMSGSIZE;
	if (put_u64(skb, seq_attr, dump->seq) ||
	    put_u64(skb, instance_attr, vmm_instance)) {
		genlmsg_cancel(skb, head);
		return -EMSGSIZE;
	}
	genlmsg_end(skb, head);
	dump->begun = true;
	return 0;
}

static int dump_position(struct sk_buff *skb, struct netlink_callback *cb,
			 u8 cmd)
{
	return dump_position_as(skb, cb, cmd, VMM_A_VM_EVENT_SEQ,
				VMM_A_VM_INSTANCE);
}

static void dump_begin(struct netlink_callback *cb)
{
	*dump_of(cb) = (struct dump) { .seq = vmm_events_newest() };
}

/* vm-get and tomb-get take a number for one VM, and none for a dump. */
static int dump_all_start(struct netlink_callback *cb)
{
	struct nlattr *id = vmm_dump_attrs(cb)[VMM_A_VM_ID];

	if (id) {
		NL_SET_ERR_MSG_ATTR(cb->extack, id, "a dump is of all VMs");
		return -EINVAL;
	}
	dump_begin(cb);
	return 0;
}

static int vmm_nl_vm_get_dumpit(struct sk_buff *skb,
				struct netlink_callback *cb)
{
	struct dump *dump = dump_of(cb);
	unsigned long id = dump->at;
	struct vmm_note note;

	cb->seq = vmm_inventory_generation();
	if (dump_position(skb, cb, VMM_CMD_VM_GET))
		return -EMSGSIZE;
	for (; vmm_inventory_next(&id, &note); dump->at = ++id)
		if (dump_message(skb, cb, VMM_CMD_VM_GET, &note, dump->seq))
			break;
	return skb->len;
}

/* ---- tomb-get -------------------------------------------------------------------- */

static int vmm_nl_tomb_get_doit(struct sk_buff *skb, struct genl_info *info)
{
	return answer(info, VMM_CMD_TOMB_GET, vmm_tomb_describe);
}

static int vmm_nl_tomb_get_dumpit(struct sk_buff *skb,
				  struct netlink_callback *cb)
{
	struct dump *dump = dump_of(cb);
	struct vmm_note note;
	u64 at = dump->at;

	if (dump_position(skb, cb, VMM_CMD_TOMB_GET))
		return -EMSGSIZE;
	for (; vmm_tomb_next(&at, &note); dump->at = at)
		if (dump_message(skb, cb, VMM_CMD_TOMB_GET, &note, dump->seq))
			break;
	return skb->len;
}

/* ---- vcpu-get -------------------------------------------------------------------- */

static const struct nla_policy vcpu_get_policy[VMM_A_VCPU_VM_ID + 1] = {
	[VMM_A_VCPU_VM_ID] = { .type = NLA_U64 },
};

static int vmm_nl_vcpu_get_start(struct netlink_callback *cb)
{
	struct nlattr *id = vmm_dump_attrs(cb)[VMM_A_VCPU_VM_ID];
	struct dump *dump = dump_of(cb);

	dump_begin(cb);
	if (id) {
		dump->only = nla_get_u64(id);
		dump->at = dump->only;
	}
	return 0;
}

static int put_vcpu(struct sk_buff *skb, const struct vmm_vcpu_note *note)
{
	if (put_u64(skb, VMM_A_VCPU_VM_ID, note->vm) ||
	    nla_put_u32(skb, VMM_A_VCPU_INDEX, note->index) ||
	    nla_put_u32(skb, VMM_A_VCPU_STATE, note->state) ||
	    put_flag(skb, VMM_A_VCPU_PAUSED, note->paused) ||
	    put_flag(skb, VMM_A_VCPU_UNSETTLED, note->unsettled) ||
	    put_u64(skb, VMM_A_VCPU_KICKS, note->kicks) ||
	    put_u64(skb, VMM_A_VCPU_PARKS, note->parks) ||
	    put_u64(skb, VMM_A_VCPU_PARKED, note->parked_ns))
		return -EMSGSIZE;
	return 0;
}

/* The vCPUs of @vm from where the dump stands. */
static int dump_vcpus(struct sk_buff *skb, struct netlink_callback *cb,
		      struct vmm_vm *vm)
{
	struct dump *dump = dump_of(cb);
	struct vmm_vcpu_note note;
	void *head;

	while (vmm_vcpu_next(vm, &dump->index, &note)) {
		head = dump_head(skb, cb, VMM_CMD_VCPU_GET);
		if (!head)
			return -EMSGSIZE;
		if (put_vcpu(skb, &note)) {
			genlmsg_cancel(skb, head);
			return -EMSGSIZE;
		}
		genlmsg_end(skb, head);
		dump->index++;
	}
	return 0;
}

static int vmm_nl_vcpu_get_dumpit(struct sk_buff *skb,
				  struct netlink_callback *cb)
{
	struct dump *dump = dump_of(cb);
	unsigned long id = dump->at;
	struct vmm_vm *vm;
	int ret;

	cb->seq = vmm_inventory_generation();
	if (dump_position_as(skb, cb, VMM_CMD_VCPU_GET, VMM_A_VCPU_EVENT_SEQ,
			     VMM_A_VCPU_INSTANCE))
		return -EMSGSIZE;
	while ((vm = vmm_inventory_next_vm(&id))) {
		ret = 0;
		if (!dump->only || dump->only == id)
			ret = dump_vcpus(skb, cb, vm);
		vmm_vm_put(vm);
		if (ret || (dump->only && id >= dump->only))
			break;
		dump->at = ++id;
		dump->index = 0;
	}
	return skb->len;
}

/* ---- device-get -------------------------------------------------------------------- */

static const struct nla_policy device_get_policy[VMM_A_DEV_VM_ID + 1] = {
	[VMM_A_DEV_VM_ID] = { .type = NLA_U64 },
};

static int vmm_nl_device_get_start(struct netlink_callback *cb)
{
	struct nlattr *id = vmm_dump_attrs(cb)[VMM_A_DEV_VM_ID];

	dump_begin(cb);
	if (id)
		dump_of(cb)->only = nla_get_u64(id);
	return 0;
}

static int put_backend(struct sk_buff *skb, const struct vmm_backend_note *note)
{
	u32 i;

	if (put_u64(skb, VMM_A_DEV_VM_ID, note->vm) ||
	    nla_put_u32(skb, VMM_A_DEV_BACKEND, note->number) ||
	    nla_put_u32(skb, VMM_A_DEV_KIND, note->kind) ||
	    nla_put_u32(skb, VMM_A_DEV_STATE, note->state))
		return -EMSGSIZE;
	for (i = 0; i < note->count; i++)
		if (nla_put_u32(skb, VMM_A_DEV_ROLE, note->roles[i]))
			return -EMSGSIZE;
	if (note->kind != VMM_BACKEND_DISK)
		return 0;
	if (put_u64(skb, VMM_A_DEV_DEV, note->dev) ||
	    put_u64(skb, VMM_A_DEV_INODE, note->inode) ||
	    put_flag(skb, VMM_A_DEV_WRITABLE, note->writable))
		return -EMSGSIZE;
	return 0;
}

static int vmm_nl_device_get_dumpit(struct sk_buff *skb,
				    struct netlink_callback *cb)
{
	struct dump *dump = dump_of(cb);
	struct vmm_backend_note note;
	unsigned long at = dump->at;
	void *head;

	cb->seq = vmm_backends_generation();
	if (dump_position_as(skb, cb, VMM_CMD_DEVICE_GET, VMM_A_DEV_EVENT_SEQ,
			     VMM_A_DEV_INSTANCE))
		return -EMSGSIZE;
	for (; vmm_backend_next(&at, &note); dump->at = ++at) {
		if (dump->only && dump->only != note.vm)
			continue;
		head = dump_head(skb, cb, VMM_CMD_DEVICE_GET);
		if (!head)
			break;
		if (put_backend(skb, &note)) {
			genlmsg_cancel(skb, head);
			break;
		}
		genlmsg_end(skb, head);
	}
	return skb->len;
}

/* ---- event-get ------------------------------------------------------------------- */

static const struct nla_policy event_get_policy[VMM_A_VM_EVENT_SEQ + 1] = {
	[VMM_A_VM_EVENT_SEQ] = { .type = NLA_U64 },
};

static int vmm_nl_event_get_start(struct netlink_callback *cb)
{
	struct nlattr *since = vmm_dump_attrs(cb)[VMM_A_VM_EVENT_SEQ];

	dump_begin(cb);
	if (since)
		dump_of(cb)->at = nla_get_u64(since);
	return 0;
}

/* What comes while the dump runs is sent as a notification; it ends where it began. */
static int vmm_nl_event_get_dumpit(struct sk_buff *skb,
				   struct netlink_callback *cb)
{
	struct dump *dump = dump_of(cb);
	struct vmm_note note;
	u64 at = dump->at;

	if (dump_position(skb, cb, VMM_CMD_EVENT_GET))
		return -EMSGSIZE;
	for (; vmm_event_next(&at, &note) && at <= dump->seq; dump->at = at)
		if (dump_message(skb, cb, VMM_CMD_EVENT_GET, &note, note.seq))
			break;
	return skb->len;
}

/* ---- the family -------------------------------------------------------------------- */

static const struct genl_ops ops[] = {
	{
		.cmd = VMM_CMD_VM_GET,
		.flags = GENL_ADMIN_PERM,
		.policy = vm_get_policy,
		.maxattr = VMM_A_VM_ID,
		.doit = vmm_nl_vm_get_doit,
		.start = dump_all_start,
		.dumpit = vmm_nl_vm_get_dumpit,
	}, {
		.cmd = VMM_CMD_VCPU_GET,
		.flags = GENL_ADMIN_PERM,
		.policy = vcpu_get_policy,
		.maxattr = VMM_A_VCPU_VM_ID,
		.start = vmm_nl_vcpu_get_start,
		.dumpit = vmm_nl_vcpu_get_dumpit,
	}, {
		.cmd = VMM_CMD_DEVICE_GET,
		.flags = GENL_ADMIN_PERM,
		.policy = device_get_policy,
		.maxattr = VMM_A_DEV_VM_ID,
		.start = vmm_nl_device_get_start,
		.dumpit = vmm_nl_device_get_dumpit,
	}, {
		.cmd = VMM_CMD_TOMB_GET,
		.flags = GENL_ADMIN_PERM,
		.policy = vm_get_policy,
		.maxattr = VMM_A_VM_ID,
		.doit = vmm_nl_tomb_get_doit,
		.start = dump_all_start,
		.dumpit = vmm_nl_tomb_get_dumpit,
	}, {
		.cmd = VMM_CMD_EVENT_GET,
		.flags = GENL_ADMIN_PERM,
		.policy = event_get_policy,
		.maxattr = VMM_A_VM_EVENT_SEQ,
		.start = vmm_nl_event_get_start,
		.dumpit = vmm_nl_event_get_dumpit,
	},
};

static const struct genl_multicast_group groups[] = {
	{ .name = VMM_GENL_MCGRP_EVENTS, .flags = GENL_MCAST_CAP_NET_ADMIN },
};

static struct genl_family family __ro_after_init = {
	.name		= VMM_GENL_NAME,
	.version	= VMM_GENL_VERSION,
	.module		= THIS_MODULE,
	.netnsok	= false,
	.parallel_ops	= true,
	.ops		= ops,
	.n_ops		= ARRAY_SIZE(ops),
	.mcgrps		= groups,
	.n_mcgrps	= ARRAY_SIZE(groups),
};

int __init vmm_netlink_init(void)
{
	return genl_register_family(&family);
}

void vmm_netlink_exit(void)
{
	genl_unregister_family(&family);
}
