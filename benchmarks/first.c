/*
 * first.c: writes the monotonic time of its first instruction, as the kernel's struct timespec, and ends. Before it there is nothing of a C library:
 * build with -static -nostartfiles. syscall(3) needs no set-up.
 */
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

void _start(void);
__attribute__((force_align_arg_pointer)) void _start(void) {
    struct timespec now;
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
    syscall(SYS_write, 1, &now, sizeof now);
    for (;;)
        syscall(SYS_exit_group, 0);
}
