// SPDX-License-Identifier: GPL-2.0
/*
 * The gate: who is in VCPU_RUN, how to get him out, and where he waits.
 *
 * vmm_vcpu.runner is the address of the thread that has the vCPU, 0 for none,
 * with VMM_RUNNER_REGS set while that thread only reads or writes registers.
 * It is taken by cmpxchg, so a second thread gets EBUSY and cannot hide the
 * first.
 *
 *   runner                              who shuts the gate, with vmm_vm.lock
 *   runner: 0 -> current (full barrier) gate |= STOP, PAUSE or HOLD
 *   read gate                           full barrier
 *   enter the guest, or not             read runner
 *
 * Either the runner sees the gate shut, or it is seen by who shuts it; and a
 * runner that takes the place of a seen one sees the gate shut. So reading the
 * runner once names the only thread that can be in the guest. It is awaited:
 * vmm_vcpu.awaited has its address until it has left VCPU_RUN.
 *
 * That thread is kicked: task work with TWA_SIGNAL makes KVM_RUN return -EINTR
 * even if it blocks all signals, and makes it run the kick on its way to user
 * mode. The kick stays pending until then, so VCPU_RUN must unwind; it never
 * waits nor runs the guest again in the same call. -ERESTARTNOHAND brings the
 * thread back to the entry of VCPU_RUN, without a signal handler in between and
 * so without the monitor seeing it. There it finds the gate shut, gives up the
 * runner's place and waits: outside KVM, with none of its locks, and
 * interruptibly, so that the freezer, ptrace and SIGSTOP have it too.
 *
 * Who is awaited clears awaited himself, on leaving or in the kick, whichever
 * comes first; or whoever shuts the gate next and finds that he has left. So:
 *
 *   After VM_PAUSE has found that nobody is awaited, no new guest instruction
 *   begins until the gate is opened.
 *
 * For a guest to be entered, a thread must have found the gate open after it
 * took the runner's place. If it took it before the gate was shut, it was seen,
 * awaited, and has left the guest. If after, it found the gate shut. One inner
 * run is made behind a shut gate, by settle(): as if a kick were pending on the
 * thread itself, so that KVM completes the instruction that the last exit was in the
 * middle of, and returns before it enters the guest.
 */
#include <linux/file.h>
#include <linux/kvm.h>
#include <linux/rcupdate.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/timekeeping.h>

#include "trace.h"
#include "vmm_drv.h"

/*
 * struct vmm_kick - what brings one thread out of one run
 *
 * It holds the vCPU's file, so the vCPU is there when it runs, wherever the
 * runner is by then, and the last reference to the module is dropped by the
 * kernel's own code and not by ours.
 */
struct vmm_kick {
	struct callback_head work;
	struct file *file;
};

struct vmm_kick *vmm_kick_alloc(void)
{
	return kzalloc(sizeof(struct vmm_kick), GFP_KERNEL_ACCOUNT);
}

void vmm_kick_free(struct vmm_kick *kick)
{
	kfree(kick);
}

/* ---- getting a thread out ---------------------------------------------------- */

/* The current thread has left VCPU_RUN; tells who waits for that. */
static void tell_left(struct vmm_vcpu *vcpu)
{
	unsigned long me = (unsigned long)current;

	if (try_cmpxchg(&vcpu->awaited, &me, 0))
		wake_up_all(&vcpu->vm->wait);
}

/*
 * Runs in the kicked thread. Mostly that is on its way to user mode, after
 * VCPU_RUN has returned. But KVM runs task work too, before it enters the
 * guest: then we still are the runner, and VCPU_RUN tells on its way out. It
 * sees the gate shut, as we were queued after that.
 */
static void kick_runner_work(struct callback_head *work)
{
	struct vmm_kick *kick = container_of(work, struct vmm_kick, work);
	struct vmm_vcpu *vcpu = kick->file->private_data;

	/* So that who awaits us now finds either this kick or its trace. */
	spin_lock(&vcpu->vm->lock);
	if (vcpu->kicked == current)
		vcpu->kicked = NULL;
	spin_unlock(&vcpu->vm->lock);
	if (READ_ONCE(vcpu->runner) != (unsigned long)current)
		tell_left(vcpu);
	fput(kick->file);
	kfree(kick);
}

/* Nobody is in the guest; tells who waits for that. */
static void await_nobody(struct vmm_vcpu *vcpu)
{
	if (xchg(&vcpu->awaited, 0))
		wake_up_all(&vcpu->vm->wait);
}

/*
 * Queues the kick to @task.
 *
 * Return: false if the thread is past its last return to user mode, and @kick is
 * still the caller's.
 */
static bool send_kick(struct vmm_vcpu *vcpu, struct task_struct *task,
		      struct vmm_kick *kick)
{
	/* A file on its last way out has no thread in an ioctl. */
	if (!vmm_file_tryget(&vcpu->file))
		return false;
	kick->file = vcpu->file;
	init_task_work(&kick->work, kick_runner_work);
	if (task_work_add(task, &kick->work, TWA_SIGNAL)) {
		fput(kick->file);
		return false;
	}
	vcpu->kicks++;
	trace_vmm_vcpu_kick(vcpu->vm->id, vcpu->index);
	return true;
}

/*
 * Kicks the thread in VCPU_RUN, if there is one, and awaits it. A bit of the
 * gate was set, with a full barrier behind it. A thread has one kick of this
 * kind at most: as long as that is pending it is on its way out.
 *
 * The address in runner is that of a task: it was in VCPU_RUN when we read it,
 * and a task is freed an RCU grace period after it has exited.
 *
 * Return: true if *@kick was used up.
 */
static bool await_runner(struct vmm_vcpu *vcpu, struct vmm_kick *kick)
{
	struct task_struct *task;
	unsigned long runner;
	bool sent = false;

	lockdep_assert_held(&vcpu->vm->lock);
	rcu_read_lock();
	runner = READ_ONCE(vcpu->runner);
	if (!runner || runner & VMM_RUNNER_REGS) {
		await_nobody(vcpu);
		goto unlock;
	}
	WRITE_ONCE(vcpu->awaited, runner);
	task = (struct task_struct *)runner;
	if (vcpu->kicked == task)
		goto unlock;
	sent = send_kick(vcpu, task, kick);
	if (sent)
		vcpu->kicked = task;
	else
		await_nobody(vcpu);
unlock:
	rcu_read_unlock();
	return sent;
}

/**
 * vmm_gate_shut - shut the gate of a vCPU
 * @vcpu:	its VM's lock is held, which keeps the vCPU from going
 * @bit:	VMM_GATE_*
 * @kick:	set to NULL if it was used up
 *
 * Context: does not sleep and does not allocate, so it cannot fail.
 */
void vmm_gate_shut(struct vmm_vcpu *vcpu, int bit, struct vmm_kick **kick)
{
	lockdep_assert_held(&vcpu->vm->lock);
	atomic_or(bit, &vcpu->gate);
	/* Pairs with taking the runner's place in vmm_vcpu_ioctl(). */
	smp_mb__after_atomic();
	if (await_runner(vcpu, *kick))
		*kick = NULL;
}

/* The caller wakes vmm_vm.wait when it has dropped the lock. */
void vmm_gate_open(struct vmm_vcpu *vcpu, int bit)
{
	lockdep_assert_held(&vcpu->vm->lock);
	atomic_andnot(bit, &vcpu->gate);
	if (!(atomic_read(&vcpu->gate) & (VMM_GATE_SHUT | VMM_GATE_FRESH)))
		atomic_or(VMM_GATE_REOPENED, &vcpu->gate);
}

/* vmm_gate_stop - shut the gate of all vCPUs for good; vmm_vm.lock is held */
void vmm_gate_stop(struct vmm_vm *vm)
{
	struct vmm_vcpu *vcpu;

	lockdep_assert_held(&vm->lock);
	list_for_each_entry(vcpu, &vm->vcpus, link)
		vmm_gate_shut(vcpu, VMM_GATE_STOP, &vcpu->stop_kick);
}

/* How many vCPUs may be in the guest behind a shut gate; vmm_vm.lock is held. */
u32 vmm_gate_running_locked(struct vmm_vm *vm)
{
	struct vmm_vcpu *vcpu;
	u32 running = 0;

	lockdep_assert_held(&vm->lock);
	list_for_each_entry(vcpu, &vm->vcpus, link)
		running += !!READ_ONCE(vcpu->awaited);
	return running;
}

u32 vmm_gate_running(struct vmm_vm *vm)
{
	u32 running;

	spin_lock(&vm->lock);
	running = vmm_gate_running_locked(vm);
	spin_unlock(&vm->lock);
	return running;
}

/*
 * vmm_gate_wait - after vmm_gate_stop(), wait until no guest runs
 *
 * Return: 0; -EINTR when a signal came first, as a thread can be kept in a
 * page fault by its own user space, before it gets to the guest.
 */
int vmm_gate_wait(struct vmm_vm *vm)
{
	return wait_event_interruptible(vm->wait, !vmm_gate_running(vm)) ?
	       -EINTR : 0;
}

/*
 * vmm_gate_kick - make the running or else the next VCPU_RUN return EINTR
 *
 * While the bit is set the kick is already owed, so kicks do not add up and
 * cannot be queued without bound.
 */
int vmm_gate_kick(struct vmm_vcpu *vcpu)
{
	struct vmm_vm *vm = vcpu->vm;
	struct vmm_kick *kick;
	unsigned long runner;

	if (atomic_read(&vcpu->gate) & VMM_GATE_KICK)
		return 0;
	kick = vmm_kick_alloc();
	if (!kick)
		return -ENOMEM;
	spin_lock(&vm->lock);
	rcu_read_lock();
	/* The full barrier of an atomic with a result. */
	if (!(atomic_fetch_or(VMM_GATE_KICK, &vcpu->gate) & VMM_GATE_KICK)) {
		runner = READ_ONCE(vcpu->runner);
		if (runner && !(runner & VMM_RUNNER_REGS) &&
		    send_kick(vcpu, (struct task_struct *)runner, kick))
			kick = NULL;
	}
	rcu_read_unlock();
	spin_unlock(&vm->lock);
	/* One who waits at the gate goes too. */
	if (atomic_read(&vcpu->gate) & VMM_GATE_PARK)
		wake_up_all(&vm->wait);
	vmm_kick_free(kick);
	return 0;
}

/* ---- the runner's place --------------------------------------------------------- */

static bool regs_done(struct vmm_vcpu *vcpu, unsigned long me)
{
	if (!(READ_ONCE(vcpu->runner) & VMM_RUNNER_REGS))
		return true;
	/* Who only wants to run need not wait for what is stopped. */
	return !(me & VMM_RUNNER_REGS) &&
	       atomic_read(&vcpu->gate) & VMM_GATE_STOP;
}

/*
 * Takes the runner's place as @me. Register accesses are waited for, as they
 * are short unless the caller's own memory makes them long; a run is not.
 * Return: 0, -EBUSY, -ERESTARTSYS; -ESHUTDOWN for a run behind a shut gate.
 */
static noinline int take_runner(struct vmm_vcpu *vcpu, unsigned long me)
{
	unsigned long other;

	while ((other = cmpxchg(&vcpu->runner, 0, me))) {
		if (!(other & VMM_RUNNER_REGS))
			return -EBUSY;
		if (!(me & VMM_RUNNER_REGS) &&
		    atomic_read(&vcpu->gate) & VMM_GATE_STOP)
			return -ESHUTDOWN;
		if (wait_event_interruptible(vcpu->vm->wait,
					     regs_done(vcpu, me)))
			return -ERESTARTSYS;
	}
	return 0;
}

static noinline int take_slowly(struct vmm_vcpu *vcpu, unsigned long arg)
{
	int ret = arg ? -EINVAL : take_runner(vcpu, (unsigned long)current);

	return ret == -ERESTARTSYS ? -ERESTARTNOHAND : ret;
}

/*
 * vmm_gate_hold - have the vCPU for access to its registers
 *
 * Return: 0; -EBUSY while a thread is in VCPU_RUN; -ERESTARTSYS. Ends with
 * vmm_gate_release(). Nobody who shuts the gate waits for it: no guest is
 * entered.
 */
int vmm_gate_hold(struct vmm_vcpu *vcpu)
{
	return take_runner(vcpu, (unsigned long)current | VMM_RUNNER_REGS);
}

void vmm_gate_release(struct vmm_vcpu *vcpu)
{
	/* What was done to the registers is seen by who takes the place. */
	smp_store_release(&vcpu->runner, 0);
	wake_up_all(&vcpu->vm->wait);
}

/* ---- waiting at the gate ------------------------------------------------------------ */

static bool may_go_on(struct vmm_vcpu *vcpu)
{
	int gate = atomic_read(&vcpu->gate);

	return !(gate & VMM_GATE_PARK) ||
	       gate & (VMM_GATE_STOP | VMM_GATE_KICK);
}

static int begin_to_wait(struct vmm_vcpu *vcpu)
{
	struct vmm_vm *vm = vcpu->vm;
	int ret = 0;

	spin_lock(&vm->lock);
	if (vcpu->parked) {
		ret = -EBUSY;
	} else {
		vcpu->parked = current;
		vcpu->parked_at = ktime_get_ns();
		vcpu->parks++;
		trace_vmm_vcpu_park(vm->id, vcpu->index);
	}
	/* As on leaving VCPU_RUN. */
	smp_store_release(&vcpu->runner, 0);
	spin_unlock(&vm->lock);
	tell_left(vcpu);
	/* Registers can be had now. */
	wake_up_all(&vm->wait);
	return ret;
}

static void end_to_wait(struct vmm_vcpu *vcpu)
{
	struct vmm_vm *vm = vcpu->vm;
	u64 now = ktime_get_ns();

	spin_lock(&vm->lock);
	vcpu->parked = NULL;
	vcpu->parked_ns += now - vcpu->parked_at;
	trace_vmm_vcpu_unpark(vm->id, vcpu->index);
	spin_unlock(&vm->lock);
}

/*
 * Gives the runner's place up and waits until the gate opens, or the thread has
 * something else to do.
 *
 * Return: 0 with the place taken again, else without it.
 */
static int park(struct vmm_vcpu *vcpu)
{
	int ret;

	ret = begin_to_wait(vcpu);
	if (ret)
		return ret;
	ret = wait_event_interruptible(vcpu->vm->wait, may_go_on(vcpu));
	end_to_wait(vcpu);
	if (!ret)
		ret = take_runner(vcpu, (unsigned long)current);
	return ret == -ERESTARTSYS ? -ERESTARTNOHAND : ret;
}

/*
 * The last exit went to the monitor with an instruction half done. Lets the
 * inner run complete it behind the shut gate: what makes KVM_RUN return for a
 * kick is set as if one were pending, until the thread is on its way to user
 * mode. See the proof above.
 */
static void settle(void)
{
	set_tsk_thread_flag(current, TIF_NOTIFY_SIGNAL);
}

/* ---- running ---------------------------------------------------------------------------- */

#define MUST_PARK	1

/*
 * Asked once: what is asked for is the same each time, and the outer VCPU_RUN is
 * asked for by the system call itself.
 */
static int first_run(struct vmm_vcpu *vcpu)
{
	int ret;

	ret = vmm_kvm_allow_run(vcpu->kvm);
	if (!ret)
		ret = vmm_vm_start(vcpu->vm);
	if (!ret)
		atomic_andnot(VMM_GATE_FRESH, &vcpu->gate);
	return ret;
}

/*
 * The gate has a bit set. Return: 0 if KVM_RUN may be called all the same,
 * MUST_PARK, or an error.
 */
static int admit_run(struct vmm_vcpu *vcpu)
{
	int gate = atomic_read(&vcpu->gate);
	int ret;

	if (gate & VMM_GATE_STOP)
		return -ESHUTDOWN;
	if (gate & VMM_GATE_KICK) {
		atomic_andnot(VMM_GATE_KICK, &vcpu->gate);
		return -EINTR;
	}
	if (gate & VMM_GATE_PARK) {
		if (!vcpu->unsettled)
			return MUST_PARK;
		settle();
		return 0;
	}
	if (gate & VMM_GATE_FRESH) {
		ret = first_run(vcpu);
		if (ret)
			return ret;
	}
	if (gate & VMM_GATE_REOPENED) {
		atomic_andnot(VMM_GATE_REOPENED, &vcpu->gate);
		/* EINVAL: the guest does not use that clock. */
		(void)vmm_kvm_ioctl(vcpu->kvm, KVM_KVMCLOCK_CTRL, 0);
	}
	return 0;
}

/*
 * KVM_RUN did not return 0. -EINTR is the caller's if it was kicked, has a
 * signal, or had set immediate_exit. Else it is a kick meant for an earlier run,
 * or task work that has nothing to do with us: unwind, let it run, and come
 * back without the monitor seeing anything. In any case KVM has completed what
 * the last exit left open, before it looked for signals.
 */
static noinline long run_failed(struct vmm_vcpu *vcpu, long ret)
{
	if (ret != -EINTR)
		return ret;
	vcpu->unsettled = false;
	if (atomic_fetch_andnot(VMM_GATE_KICK, &vcpu->gate) & VMM_GATE_KICK)
		return -EINTR;
	if (signal_pending(current) && !task_sigpending(current))
		return -ERESTARTNOHAND;
	return -EINTR;
}

/* Left the vCPU, with the gate shut. */
static noinline long left_shut(struct vmm_vcpu *vcpu, long ret)
{
	tell_left(vcpu);
	return atomic_read(&vcpu->gate) & VMM_GATE_STOP ? -ESHUTDOWN : ret;
}

/* The runner's place is ours; gives it up. */
static __always_inline long leave(struct vmm_vcpu *vcpu, long ret)
{
	/* What KVM did is seen by who takes the place. */
	smp_store_release(&vcpu->runner, 0);
	if (unlikely(vcpu->gate.counter & VMM_GATE_SHUT))
		return left_shut(vcpu, ret);
	return ret;
}

static __always_inline long run(struct vmm_vcpu *vcpu, unsigned long arg)
{
	long ret = vcpu->kvm_ioctl(vcpu->kvm, KVM_RUN, arg);

	/* The exit may be the monitor's to complete; one store, never a read. */
	vcpu->unsettled = true;
	if (unlikely(ret))
		ret = run_failed(vcpu, ret);
	return leave(vcpu, ret);
}

static noinline long run_slowly(struct vmm_vcpu *vcpu, unsigned long arg)
{
	long ret;

	if (arg)
		return leave(vcpu, -EINVAL);
	while ((ret = admit_run(vcpu)) == MUST_PARK) {
		ret = park(vcpu);
		if (ret)
			return ret;
	}
	return ret ? leave(vcpu, ret) : run(vcpu, 0);
}

/*
 * VCPU_RUN, and the way to all other commands of a vCPU.
 *
 * The hot path of everything: no lock, no copy, no clock, and no function
 * between the system call and KVM but this one. It may cost 29 instructions
 * over raw KVM. So the gate is read plainly: once, behind a full barrier before
 * the run and behind a call after it, and only compared. That @arg is 0 is left
 * to KVM, which refuses it as we would.
 */
long vmm_vcpu_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct vmm_vcpu *vcpu = file->private_data;
	unsigned long nobody = 0;
	long ret;

	if (unlikely(cmd != VMM_IOC_VCPU_RUN))
		return vmm_vcpu_command(file, cmd, arg);
	if (unlikely(current->mm != vcpu->mm))
		return -EIO;
	if (unlikely(!try_cmpxchg(&vcpu->runner, &nobody,
				  (unsigned long)current))) {
		ret = take_slowly(vcpu, arg);
		if (ret)
			return ret;
		arg = 0;
	}
	if (unlikely(vcpu->gate.counter))
		return run_slowly(vcpu, arg);
	return run(vcpu, arg);
}
