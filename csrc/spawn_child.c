/*
 * spawn_child.c: what runs between clone and exec.
 *
 * The child shares the parent's memory and runs on a small stack while the parent's thread is suspended (CLONE_VM | CLONE_VFORK). Other
 * threads of the parent go on and may hold any lock. Allowed here, and nothing else:
 *
 *     raw system calls through syscall(2), which touches no memory of the C library but errno
 *
 * No allocation, no stdio, no wrapper that keeps state (the C library's sigaction and sigprocmask also hide signals 32 and 33 and would
 * leave those as they are). errno is the suspended thread's, so nobody else sees it change. All signals are blocked until the dispositions
 * are reset: otherwise a handler of the parent could run in the child, in the parent's memory.
 *
 * Sanitizers are off here: their bookkeeping belongs to the parent's stack.
 */
#define _GNU_SOURCE
#include "spawn_child.h"
#include "syscalls.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>

#define CHILD_CODE __attribute__((no_sanitize("address", "undefined")))
#define LAST_SIGNAL 64 /* the kernel's _NSIG, not the C library's idea of it */

CHILD_CODE static bool write_zero(int fd) {
    return syscall(SYS_write, fd, "0", 1) == 1;
}

CHILD_CODE static bool join_cgroups(const struct child *c) {
    for (uint32_t i = 0; i < c->what->ncgroups; i++)
        if (!write_zero(c->what->cgroups[i]))
            return false;
    if (!c->join_cgroup)
        return true;
    int procs = (int)syscall(SYS_openat, c->what->cgroup, "cgroup.procs", O_WRONLY | O_CLOEXEC, 0);
    return procs >= 0 && write_zero(procs);
}

/* The context at the next exec (selinux(8), setexeccon(3)). The child is a process of its own: the caller's threads keep what they have. */
CHILD_CODE static bool set_exec_label(const char *label) {
    int fd = (int)syscall(SYS_openat, AT_FDCWD, LABEL_FILE, O_WRONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return false;
    long length = 0;
    while (label[length])
        length++;
    return syscall(SYS_write, fd, label, length) == length; /* the descriptor goes with all the others */
}

/*
 * fds[i] to descriptor i. Sources that lie among the targets are first moved above them, so that no placement destroys a source that is
 * still to come; the moved copies are closed with all the rest.
 */
CHILD_CODE static bool place_descriptors(int32_t *fds, int count) {
    for (int i = 0; i < count; i++) {
        if (fds[i] < 0)
            fds[i] = (int)syscall(SYS_openat, AT_FDCWD, "/dev/null", O_RDWR | O_CLOEXEC, 0);
        if (fds[i] >= 0 && fds[i] < count)
            fds[i] = (int)syscall(SYS_fcntl, fds[i], F_DUPFD_CLOEXEC, count);
        if (fds[i] < 0)
            return false;
    }
    for (int i = 0; i < count; i++)
        if (syscall(SYS_dup3, fds[i], i, 0) < 0)
            return false;
    return true;
}

/* For kernels before 5.9 and for seccomp filters that do not know close_range: the descriptors that /proc/self/fd lists, until none is left. */
CHILD_CODE static bool close_listed_from(int first) {
    int directory = (int)syscall(SYS_openat, AT_FDCWD, "/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (directory < 0)
        return false;
    char buffer[1024] __attribute__((aligned(8)));
    bool closed_some;
    do {
        closed_some = false;
        syscall(SYS_lseek, directory, 0, SEEK_SET);
        long got;
        while ((got = syscall(SYS_getdents64, directory, buffer, sizeof buffer)) > 0)
            for (long at = 0; at < got;) {
                /* struct linux_dirent64: u64 inode, u64 offset, u16 record length, u8 type, name */
                unsigned length = *(unsigned short *)(buffer + at + 16);
                const char *name = buffer + at + 19;
                at += length;
                if (*name == '.')
                    continue;
                int fd = 0;
                for (; *name; name++)
                    fd = fd * 10 + (*name - '0');
                if (fd >= first && fd != directory) {
                    syscall(SYS_close, fd);
                    closed_some = true;
                }
            }
        if (got < 0)
            return false;
    } while (closed_some); /* closing while listing may make the listing skip some */
    return true;           /* the directory itself is close-on-exec */
}

CHILD_CODE static bool close_from(int first) {
    if (syscall(SYS_close_range, first, UINT_MAX, 0) == 0)
        return true;
    return errno == ENOSYS && close_listed_from(first);
}

/* A handler is reset by exec anyway; what exec keeps is SIG_IGN and the mask, and both would reach the container. */
CHILD_CODE static bool reset_signals(void) {
    unsigned long default_action[4] = {0}; /* the kernel's struct sigaction; all zeros is SIG_DFL with an empty mask */
    for (int signal = 1; signal <= LAST_SIGNAL; signal++)
        if (signal != SIGKILL && signal != SIGSTOP && syscall(SYS_rt_sigaction, signal, default_action, NULL, LAST_SIGNAL / 8) < 0)
            return false;
    uint64_t none = 0;
    return syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, LAST_SIGNAL / 8) == 0;
}

CHILD_CODE int po_child(void *argument) {
    struct child *c = argument;
    const struct po_spawn *what = c->what;

    c->stage = PO_STAGE_PGROUP;
    if (what->pgroup && syscall(SYS_setpgid, 0, 0) < 0)
        goto failed;
    c->stage = PO_STAGE_CGROUP;
    if (!join_cgroups(c))
        goto failed;
    c->stage = PO_STAGE_LABEL;
    if (what->label && !set_exec_label(what->label))
        goto failed;
    c->stage = PO_STAGE_CWD;
    if (what->cwd && syscall(SYS_chdir, what->cwd) < 0)
        goto failed;
    c->stage = PO_STAGE_DESCRIPTORS;
    if (!place_descriptors(c->fds, (int)what->nfds))
        goto failed;
    c->stage = PO_STAGE_CLOSE;
    if (!close_from((int)what->nfds))
        goto failed;
    c->stage = PO_STAGE_SIGNALS;
    if (!reset_signals())
        goto failed;
    c->stage = PO_STAGE_EXEC;
    syscall(SYS_execve, what->path, c->argv, c->envp);
failed:
    c->err = errno;
    syscall(SYS_exit_group, 127);
    __builtin_unreachable();
}
