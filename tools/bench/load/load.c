/* SPDX-License-Identifier: Apache-2.0 */
/*
 * load: what a guest does to be measured. It prints a line with how many operations
 * it did and the nanoseconds that they took, by the guest's clock:
 *
 *	load disk FILE read|write random|sequential DEPTH BYTES COUNT
 *
 * FILE is used without the guest's cache, with DEPTH operations under way. The places
 * are the same in every run. It is in C, and asks the kernel directly, so that next to
 * nothing is measured but the kernel and what is below it.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MUST(ok, what) do if (!(ok)) err(1, "%s", what); while (0)

enum { MAX_DEPTH = 64, MAX_BYTES = 1 << 20 };

static uint64_t now(void)
{
	struct timespec t;

	MUST(clock_gettime(CLOCK_MONOTONIC, &t) == 0, "clock_gettime");
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static unsigned long number(const char *s, unsigned long max)
{
	char *end;
	unsigned long n = strtoul(s, &end, 10);

	if (*end || n == 0 || n > max)
		errx(2, "%s is no number up to %lu", s, max);
	return n;
}

static void report(unsigned long count, uint64_t start)
{
	printf("%lu %llu\n", count, (unsigned long long)(now() - start));
}

/* The next place, of so many. */
static uint64_t place(int random, uint64_t places)
{
	static uint64_t state = 88172645463325252, next;

	if (!random)
		return next++ % places;
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % places;
}

static void disk(char **arg)
{
	int writes = !strcmp(arg[1], "write"), random = !strcmp(arg[2], "random");
	unsigned long depth = number(arg[3], MAX_DEPTH), bytes = number(arg[4], MAX_BYTES);
	unsigned long count = number(arg[5], 1ul << 30), begun = 0, done = 0;
	static struct iocb cb[MAX_DEPTH], *list[MAX_DEPTH];
	static struct io_event ev[MAX_DEPTH];
	aio_context_t ctx = 0;
	int fd = open(arg[0], O_RDWR | O_DIRECT), free = depth;
	off_t size = lseek(fd, 0, SEEK_END);
	uint64_t start;
	char *buf;

	MUST(fd >= 0 && size >= (off_t)bytes, arg[0]);
	buf = mmap(NULL, depth * bytes, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	MUST(buf != MAP_FAILED, "mmap");
	MUST(syscall(SYS_io_setup, depth, &ctx) == 0, "io_setup");
	for (int i = 0; i < free; i++) {
		cb[i].aio_fildes = fd;
		cb[i].aio_lio_opcode = writes ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD;
		cb[i].aio_buf = (uintptr_t)buf + i * bytes;
		cb[i].aio_nbytes = bytes;
		list[i] = &cb[i];
	}
	start = now();
	while (done < count) {
		int n = 0;

		for (; n < free && begun < count; n++, begun++)
			list[n]->aio_offset = place(random, size / bytes) * bytes;
		MUST(n == 0 || syscall(SYS_io_submit, ctx, n, list) == n, "io_submit");
		free = syscall(SYS_io_getevents, ctx, 1, depth, ev, NULL);
		MUST(free > 0, "io_getevents");
		for (int i = 0; i < free; i++) {
			if (ev[i].res != (int64_t)bytes)
				errx(1, "%s: %lld of %lu bytes", arg[0], (long long)ev[i].res, bytes);
			list[i] = (struct iocb *)(uintptr_t)ev[i].obj;
		}
		done += free;
	}
	report(done, start);
}

int main(int argc, char **argv)
{
	if (argc == 8 && !strcmp(argv[1], "disk"))
		disk(argv + 2);
	else
		errx(2, "usage: load disk FILE read|write random|sequential DEPTH BYTES COUNT");
	return 0;
}
