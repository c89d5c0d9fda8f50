/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The tracepoints of vmm.ko. Names and fields are stable: vmm(4) has them.
 * None is on the way of a VCPU_RUN that finds the gate open.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM vmm

#if !defined(_VMM_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _VMM_TRACE_H

#include <linux/tracepoint.h>
#include <linux/types.h>

/* A VM has come into a state; @reason is that of its last change. */
TRACE_EVENT(vmm_vm_state,
	TP_PROTO(u64 vm, u32 state, u32 reason),
	TP_ARGS(vm, state, reason),
	TP_STRUCT__entry(
		__field(u64, vm)
		__field(u32, state)
		__field(u32, reason)
	),
	TP_fast_assign(
		__entry->vm = vm;
		__entry->state = state;
		__entry->reason = reason;
	),
	TP_printk("vm=%llu state=%u reason=%u", __entry->vm, __entry->state,
		  __entry->reason)
);

DECLARE_EVENT_CLASS(vmm_vm_gate,
	TP_PROTO(u64 vm, u32 holders),
	TP_ARGS(vm, holders),
	TP_STRUCT__entry(
		__field(u64, vm)
		__field(u32, holders)
	),
	TP_fast_assign(
		__entry->vm = vm;
		__entry->holders = holders;
	),
	TP_printk("vm=%llu holders=%#x", __entry->vm, __entry->holders)
);

/* @holders: who holds the gate from now on. */
DEFINE_EVENT(vmm_vm_gate, vmm_vm_pause,
	TP_PROTO(u64 vm, u32 holders),
	TP_ARGS(vm, holders)
);

DEFINE_EVENT(vmm_vm_gate, vmm_vm_resume,
	TP_PROTO(u64 vm, u32 holders),
	TP_ARGS(vm, holders)
);

DECLARE_EVENT_CLASS(vmm_vcpu,
	TP_PROTO(u64 vm, u32 vcpu),
	TP_ARGS(vm, vcpu),
	TP_STRUCT__entry(
		__field(u64, vm)
		__field(u32, vcpu)
	),
	TP_fast_assign(
		__entry->vm = vm;
		__entry->vcpu = vcpu;
	),
	TP_printk("vm=%llu vcpu=%u", __entry->vm, __entry->vcpu)
);

/* The current thread begins and ends to wait at the gate. */
DEFINE_EVENT(vmm_vcpu, vmm_vcpu_park,
	TP_PROTO(u64 vm, u32 vcpu),
	TP_ARGS(vm, vcpu)
);

DEFINE_EVENT(vmm_vcpu, vmm_vcpu_unpark,
	TP_PROTO(u64 vm, u32 vcpu),
	TP_ARGS(vm, vcpu)
);

/* The thread in VCPU_RUN was asked out. */
DEFINE_EVENT(vmm_vcpu, vmm_vcpu_kick,
	TP_PROTO(u64 vm, u32 vcpu),
	TP_ARGS(vm, vcpu)
);

DECLARE_EVENT_CLASS(vmm_backend,
	TP_PROTO(u64 vm, u32 backend),
	TP_ARGS(vm, backend),
	TP_STRUCT__entry(
		__field(u64, vm)
		__field(u32, backend)
	),
	TP_fast_assign(
		__entry->vm = vm;
		__entry->backend = backend;
	),
	TP_printk("vm=%llu backend=%u", __entry->vm, __entry->backend)
);

/* A backend was attached, and is gone. */
DEFINE_EVENT(vmm_backend, vmm_attach,
	TP_PROTO(u64 vm, u32 backend),
	TP_ARGS(vm, backend)
);

DEFINE_EVENT(vmm_backend, vmm_detach,
	TP_PROTO(u64 vm, u32 backend),
	TP_ARGS(vm, backend)
);

/* A command went beyond a limit, VMM_LIMIT_*. */
TRACE_EVENT(vmm_limit,
	TP_PROTO(u64 vm, u32 limit),
	TP_ARGS(vm, limit),
	TP_STRUCT__entry(
		__field(u64, vm)
		__field(u32, limit)
	),
	TP_fast_assign(
		__entry->vm = vm;
		__entry->limit = limit;
	),
	TP_printk("vm=%llu limit=%u", __entry->vm, __entry->limit)
);

#endif /* _VMM_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
