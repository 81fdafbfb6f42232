/* pidfd.c: what can be done to a process, and learnt of it, through its pidfd (pidfd_open(2), waitid(2), ioctl_pidfd). */
#define _GNU_SOURCE
#include "pyoci.h"
#include "syscalls.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

int po_pidfd_open(int32_t pid, int32_t *ret_pidfd) {
    int pidfd = sys_pidfd_open(pid);
    if (pidfd < 0)
        return pidfd;
    *ret_pidfd = pidfd;
    return 0;
}

/* Not strtoull: glibc's headers of 2.38 make it a symbol that older ones lack, where a module that was built with them shall load, too. */
static uint64_t number(const char *at) {
    uint64_t value = 0;
    for (; *at >= '0' && *at <= '9'; at++)
        value = 10 * value + (uint64_t)(*at - '0');
    return value;
}

/* The fields of /proc/PID/stat that matter here (proc_pid_stat(5)), counted from the name's end: in parentheses, it can hold anything. */
static int read_stat(int pid, struct po_identity *ret_identity) {
    char path[32], content[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? -ESRCH : -errno;
    ssize_t got = read(fd, content, sizeof content - 1);
    int err = errno;
    close(fd);
    if (got < 0)
        return -err;
    content[got] = '\0';
    char *at = strrchr(content, ')'), *parent = NULL;
    for (int field = 3; at && field <= 22; field++) {
        at = strchr(at + 1, ' ');
        if (field == 4)
            parent = at;
    }
    if (!at)
        return -EPROTO;
    ret_identity->ppid = (int32_t)number(parent + 1);
    ret_identity->start_time = number(at + 1);
    return 0;
}

/* A new pidfd of a process, and who that is. -ESRCH: there is none. */
int po_identify(int32_t pid, struct po_identity *ret_identity) {
    int pidfd = sys_pidfd_open(pid);
    if (pidfd < 0)
        return pidfd;
    struct stat status;
    int result = fstat(pidfd, &status) < 0 ? -errno : read_stat(pid, ret_identity);
    if (result < 0) {
        close(pidfd);
        return result;
    }
    ret_identity->inode = status.st_ino;
    ret_identity->pidfd = pidfd;
    return 0;
}

int po_pidfd_signal(int32_t pidfd, int32_t signal) {
    return sys_pidfd_send_signal(pidfd, signal);
}

/* Takes the status of a child of ours that has ended: 1. Still running: 0. Not our child, or taken by somebody else: -ECHILD. */
int po_pidfd_reap(int32_t pidfd, struct po_exit *ret_exit) {
    siginfo_t info = {.si_pid = 0};
    while (waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED | WNOHANG) < 0)
        if (errno != EINTR)
            return -errno;
    if (info.si_pid == 0)
        return 0;
    *ret_exit = info.si_code == CLD_EXITED ? (struct po_exit){.code = info.si_status} : (struct po_exit){.code = -1, .signal = info.si_status};
    return 1;
}

/*
 * How the process ended, whoever reaped it: 0. The kernel records it when the process is reaped (Linux 6.15), for pidfds opened before.
 * Not ended, or not yet reaped: -EAGAIN. A kernel that cannot tell: -ENOTTY or -EINVAL.
 */
int po_pidfd_exit_info(int32_t pidfd, struct po_exit *ret_exit) {
    struct sys_pidfd_info info = {.mask = SYS_PIDFD_INFO_EXIT};
    if (ioctl(pidfd, SYS_PIDFD_GET_INFO, &info) < 0)
        return errno == ESRCH ? -EAGAIN : -errno;
    if (!(info.mask & SYS_PIDFD_INFO_EXIT))
        return -EAGAIN;
    *ret_exit = WIFEXITED(info.exit_code) ? (struct po_exit){.code = WEXITSTATUS(info.exit_code)}
                                          : (struct po_exit){.code = -1, .signal = WTERMSIG(info.exit_code)};
    return 0;
}
