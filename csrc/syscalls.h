/*
 * syscalls.h: system calls that the C library of Debian 12 does not wrap, or must not wrap here, and kernel structures newer than its
 * headers. Each returns what the kernel returns, a negative errno on failure, so that the callers decide what ENOSYS means.
 */
#pragma once
#include <errno.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static inline long sys_result(long result) {
    return result < 0 ? -errno : result;
}

static inline int sys_pidfd_open(int pid) {
    return (int)sys_result(syscall(SYS_pidfd_open, pid, 0));
}

static inline int sys_pidfd_send_signal(int pidfd, int signal) {
    return (int)sys_result(syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0));
}

/* include/uapi/linux/pidfd.h of Linux 6.15; the ioctl number carries this first size, 64 bytes. */
struct sys_pidfd_info {
    uint64_t mask;
    uint64_t cgroupid;
    uint32_t pid, tgid, ppid;
    uint32_t ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid;
    int32_t exit_code;
};
_Static_assert(sizeof(struct sys_pidfd_info) == 64, "the first published size of struct pidfd_info");
#define SYS_PIDFD_GET_INFO _IOWR(0xFF, 11, struct sys_pidfd_info)
#define SYS_PIDFD_INFO_EXIT (UINT64_C(1) << 3)
