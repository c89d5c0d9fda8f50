// SPDX-License-Identifier: GPL-2.0
/*
 * Loading and unloading.
 */
#include <linux/module.h>
#include <linux/rcupdate.h>

#include "vmm_drv.h"

#define CREATE_TRACE_POINTS
#include "trace.h"

struct workqueue_struct *vmm_wq;

static int __init vmm_init(void)
{
	int ret;

	vmm_wq = alloc_workqueue("vmm", WQ_UNBOUND, 0);
	if (!vmm_wq)
		return -ENOMEM;
	vmm_kvm_init();
	ret = vmm_events_init();
	if (ret)
		goto exit_kvm;
	ret = vmm_tombs_init();
	if (ret)
		goto exit_events;
	ret = vmm_netlink_init();
	if (ret)
		goto exit_tombs;
	ret = vmm_dev_register();
	if (ret)
		goto exit_netlink;
	return 0;

exit_netlink:
	vmm_netlink_exit();
exit_tombs:
	vmm_tombs_exit();
exit_events:
	vmm_events_exit();
exit_kvm:
	vmm_kvm_exit();
	destroy_workqueue(vmm_wq);
	return ret;
}

/*
 * Nobody can be in a command: files hold the module, and none is left. What
 * may be left are events on their way and the last krefs that they hold, work
 * that a claim began just before its VM went, and backends that drain, whose
 * claims end with the module. Destroying the workqueue waits for what is queued;
 * sending needs the family, so that goes after it.
 */
static void __exit vmm_exit(void)
{
	vmm_dev_deregister();
	/*
	 * A kick, or the end of a mapping, may have put the file that held the
	 * module a moment ago, and its thread been preempted before it has left
	 * our code.
	 */
	synchronize_rcu_tasks();
	vmm_backends_exit();
	vmm_events_flush();
	destroy_workqueue(vmm_wq);
	vmm_netlink_exit();
	vmm_tombs_exit();
	vmm_events_exit();
	vmm_kvm_exit();
}

module_init(vmm_init);
module_exit(vmm_exit);

/* KVM is used through its file alone: modprobe cannot see that by symbols. */
MODULE_SOFTDEP("pre: kvm_intel kvm_amd");
MODULE_DESCRIPTION("Virtual machines as file descriptors, on top of KVM");
MODULE_AUTHOR("The vmctl authors");
MODULE_LICENSE("GPL");
