/* SPDX-License-Identifier: Apache-2.0 */
/*
 * boot KERNEL [INITRD]: boots a stock Linux bzImage with nothing but /dev/vmm, as
 * vmm(4) explains step by step. The machine has a processor, KVM's interrupt chips
 * and COM1, the standard input and output. The guest ends it with a reset.
 */
#define _DEFAULT_SOURCE
#include <asm/bootparam.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include "vmm.h"

enum {	/* Addresses of the guest: below LOW_END and from KERNEL on is memory. */
	PARAMS = 0x10000, CMDLINE = 0x20000, LOW_END = 0x9fc00, TABLES = 0xf0000,
	KERNEL = 1 << 20, INITRD = 256 << 20, MEMORY = 512 << 20,
	COM1 = 0x3f8, COM1_LINE = 4, KEYBOARD = 0x64, CLOCK = 0x71,
};
static unsigned char *mem;
static struct kvm_run *run;
static int dev, vm, cpu;
static unsigned char uart[8] = { [6] = 0xb0 }, received;	/* a 16550 that is never busy */
static const char cmdline[] = "console=ttyS0 reboot=k panic=-1";

/* Intel's MultiProcessor tables, without which Linux uses no APIC. */
static const unsigned char tables[] =
	"_MP_\x10\0\x0f\0\1\4\x81\0\0\0\0\0"			/* at TABLES, the rest 16 on */
	"PCMP\x60\0\4\x8dVMM     BOOT        \0\0\0\0\0\0\5\0\0\0\xe0\xfe\0\0\0\0"
	"\0\0\x14\3\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"		/* processor 0 */
	"\1\0ISA   " "\2\1\x11\1\0\0\xc0\xfe"			/* bus 0, I/O APIC 1 */
	"\3\0\0\0\0\0\1\0" "\3\0\0\0\0\4\1\4";			/* lines of timer and COM1 */

#define MUST(ok, what) do if (!(ok)) err(1, "%s", what); while (0)
#define CALL(fd, cmd, arg) MUST(ioctl(fd, cmd, arg) >= 0, #cmd)
/* A command by class: its argument is a head and the payload behind it. */
#define CALL_CLASS(fd, cmd, cls, body) do { \
	struct { struct vmm_payload h; __typeof__(*(body)) b; } a = { { sizeof(a), cls }, *(body) }; \
	MUST(ioctl(fd, cmd, &a) >= 0, #cmd " of " #cls); \
	*(body) = a.b; \
} while (0)

/* Return: whether the guest resets the machine. */
static int access_port(void)
{
	unsigned char *data = (unsigned char *)run + run->io.data_offset;
	int port = run->io.port, reg = port - COM1, out = run->io.direction == KVM_EXIT_IO_OUT;

	if (!out)				/* keyboard and clock are never busy */
		memset(data, port == KEYBOARD ? 0xfd : port == CLOCK ? 0 : 0xff,
		       run->io.size * run->io.count);
	if (reg < 0 || reg > 7 || (reg < 2 && uart[3] & 0x80))
		return out && port == KEYBOARD && *data == 0xfe;
	for (__u32 i = 0; i < run->io.count; i++, data += run->io.size)
		if (!out)
			*data = uart[reg];
		else if (reg == 0)
			MUST(write(1, data, 1) == 1, "standard output");
		else if (reg != 2 && reg != 5 && reg != 6)
			uart[reg] = reg == 1 ? *data & 0xf : *data;
	received &= out || reg != 0;
	return 0;
}

/* Reads a file into guest memory that is free for it. Return: its length. */
static size_t load(const char *path, size_t addr, size_t end)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, mem + addr, end - addr);

	MUST(n >= 0 && !close(fd), path);
	if (n == (ssize_t)(end - addr))
		errx(1, "%s: does not fit into memory", path);
	return n;
}

/* Loads what the 32-bit boot protocol of Linux wants to find in memory. */
static void load_guest(const char *kernel, const char *initrd)
{
	struct boot_params *params = (void *)(mem + PARAMS);
	struct setup_header *hdr = &params->hdr;
	size_t len = load(kernel, KERNEL, INITRD), setup;

	memcpy(hdr, mem + KERNEL + 0x1f1, sizeof(*hdr));
	setup = (hdr->setup_sects + 1) * 512;
	if (memcmp(&hdr->header, "HdrS", 4) || hdr->version < 0x20a)
		errx(1, "%s: not a bzImage", kernel);
	if (len < setup + hdr->syssize * 16UL)
		errx(1, "%s: shorter than its header says", kernel);
	memmove(mem + KERNEL, mem + KERNEL + setup, len - setup);
	memcpy(mem + CMDLINE, cmdline, sizeof(cmdline));
	memcpy(mem + TABLES, tables, sizeof(tables));
	hdr->type_of_loader = 0xff;
	hdr->cmd_line_ptr = CMDLINE;
	if (initrd) {
		hdr->ramdisk_image = INITRD;
		hdr->ramdisk_size = load(initrd, INITRD, MEMORY);
	}
	params->e820_entries = 2;
	params->e820_table[0] = (struct boot_e820_entry) { 0, LOW_END, 1 };
	params->e820_table[1] = (struct boot_e820_entry) { KERNEL, MEMORY - KERNEL, 1 };
}

static void make_machine(void)
{
	struct vmm_vm_create create = { .size = sizeof(create), .name = "boot" };
	struct vmm_vm_flags bind = { .size = sizeof(bind) };
	struct vmm_payload irqchip = { sizeof(irqchip), VMM_SETUP_IRQCHIP };
	struct vmm_vcpu_create vcpu = { .size = sizeof(vcpu), .index = 0 };
	struct vmm_vm_map_memory map = { .size = sizeof(map), .region = {
		.memory_size = MEMORY, .userspace_addr = (__u64)mem } };
	struct vmm_info_run_size area = { 0 };

	MUST((dev = open("/dev/vmm", O_RDWR | O_CLOEXEC)) >= 0, "/dev/vmm");
	MUST(!getentropy(create.uuid, sizeof(create.uuid)), "uuid");
	CALL(dev, VMM_IOC_VM_CREATE, &create);
	vm = create.fd;
	CALL(vm, VMM_IOC_VM_BIND, &bind);
	CALL_CLASS(vm, VMM_IOC_VM_SETUP, VMM_SETUP_TSS_ADDR, &(__u64) { 0xfffbd000 });
	CALL_CLASS(vm, VMM_IOC_VM_SETUP, VMM_SETUP_IDENTITY_MAP, &(__u64) { 0xfffbc000 });
	CALL(vm, VMM_IOC_VM_SETUP, &irqchip);
	CALL_CLASS(vm, VMM_IOC_VM_SETUP, VMM_SETUP_PIT, &(struct kvm_pit_config) { 0 });
	CALL(vm, VMM_IOC_VCPU_CREATE, &vcpu);		/* before there is memory */
	cpu = vcpu.fd;
	CALL(vm, VMM_IOC_VM_MAP_MEMORY, &map);
	CALL_CLASS(dev, VMM_IOC_GET_INFO, VMM_INFO_RUN_SIZE, &area);
	run = mmap(NULL, area.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, cpu, 0);
	MUST(run != MAP_FAILED, "run area");
}

static void set_registers(void)
{
	struct kvm_regs regs = { .rip = KERNEL, .rsi = PARAMS, .rflags = 2 };
	struct kvm_segment flat = { .limit = ~0U, .selector = 0x18, .type = 3, .present = 1,
				    .s = 1, .db = 1, .g = 1 };
	struct kvm_sregs sregs = { 0 };
	struct { struct vmm_payload head; struct kvm_cpuid2 list; struct kvm_cpuid_entry2 e[256]; }
		cpuid = { .head = { sizeof(cpuid), VMM_INFO_KVM_CPUID }, .list.nent = 256 };

	CALL(dev, VMM_IOC_GET_INFO, &cpuid);
	cpuid.head.size -= (256 - cpuid.list.nent) * sizeof(*cpuid.e);
	cpuid.head.class = VMM_REGS_CPUID;
	for (__u32 i = 0; i < cpuid.list.nent; i++)
		if (cpuid.e[i].function == 1) {	/* APIC id 0; hypervisor, deadline timer */
			cpuid.e[i].ebx &= 0xffffff;
			cpuid.e[i].ecx |= 1U << 31 | 1 << 24;
		}
	CALL(cpu, VMM_IOC_VCPU_SET_REGS, &cpuid);
	CALL_CLASS(cpu, VMM_IOC_VCPU_GET_REGS, VMM_REGS_SYSTEM, &sregs);
	sregs.ds = sregs.es = sregs.ss = sregs.cs = flat;
	sregs.cs.selector = 0x10;
	sregs.cs.type = 11;
	sregs.cr0 |= 1;					/* protected mode, no paging */
	CALL_CLASS(cpu, VMM_IOC_VCPU_SET_REGS, VMM_REGS_SYSTEM, &sregs);
	CALL_CLASS(cpu, VMM_IOC_VCPU_SET_REGS, VMM_REGS_GENERAL, &regs);
}

static void tick(int sig) { (void)sig; }

int main(int argc, char **argv)
{
	struct vmm_vm_report report = { .size = sizeof(report) };

	if (argc < 2 || argc > 3)
		errx(1, "usage: boot KERNEL [INITRD]");
	mem = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	MUST(mem != MAP_FAILED, "memory");
	load_guest(argv[1], argv[2]);
	make_machine();
	set_registers();
	signal(SIGALRM, tick);				/* ends VCPU_RUN, to look for input */
	ualarm(10000, 10000);
	for (int n = 0; !report.reason; n = 0) {
		uart[2] = received && uart[1] & 1 ? 0xc4 : uart[1] & 2 ? 0xc2 : 0xc1;
		uart[5] = 0x60 | received;
		CALL_CLASS(vm, VMM_IOC_VM_SIGNAL, VMM_SIGNAL_LINE, (&(struct kvm_irq_level) {
			.irq = COM1_LINE, .level = uart[2] != 0xc1 }));
		if (ioctl(cpu, VMM_IOC_VCPU_RUN, 0) < 0) {
			MUST(errno == EINTR, "VCPU_RUN");
			if (!received && !ioctl(0, FIONREAD, &n) && n > 0)
				received = read(0, uart, 1) == 1;
		} else if (run->exit_reason == KVM_EXIT_IO) {
			report.reason = access_port() ? VMM_REASON_POWEROFF : VMM_REASON_NONE;
		} else if (run->exit_reason == KVM_EXIT_MMIO) {
			memset(run->mmio.data, 0xff, sizeof(run->mmio.data));
		} else {
			report.reason = run->exit_reason == KVM_EXIT_SHUTDOWN ?
					VMM_REASON_TRIPLE_FAULT : VMM_REASON_INTERNAL_ERROR;
		}
	}
	report.data[0] = run->exit_reason;
	CALL(vm, VMM_IOC_VM_REPORT, &report);
	if (report.reason != VMM_REASON_POWEROFF)
		errx(1, "the guest crashed, KVM's exit reason is %u", run->exit_reason);
	return 0;
}
