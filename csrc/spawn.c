/*
 * spawn.c: the parent's side of starting a process. glibc's spawni.c is the model. Its hazards, and what is done about each:
 *
 * 1. The child shares our memory: it must not touch what other threads use. It only makes system calls (spawn_child.c).
 * 2. The child must not run on our stack, which the C compiler may reuse: it gets one of its own.
 * 3. A signal handler must not run in the child: all signals are blocked, the C library's internal two as well, from before clone until
 *    the child has reset every disposition.
 * 4. The number of a child can be used again as soon as somebody reaps it, and anybody in this process may call wait: identity is the
 *    pidfd that clone itself returns (CLONE_PIDFD), never the number.
 * 5. The page tables are not copied, so the cost does not grow with the caller's memory: no fork.
 */
#define _GNU_SOURCE
#include "clone3.h"
#include "fail.h"
#include "spawn_child.h"
#include "syscalls.h"

#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

enum { STACK_SIZE = 32 * 1024, GUARD_SIZE = 4096 * 16 }; /* the guard covers the largest page size, 64 KiB */

/* clone and clone3 write the pidfd to an int in the caller's memory. */
enum { CLONE_FLAGS = CLONE_VM | CLONE_VFORK | CLONE_PIDFD };

static void block_all_signals(uint64_t *ret_old) {
    uint64_t all = UINT64_MAX;
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, ret_old, sizeof all);
}

static void restore_signals(const uint64_t *old) {
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, old, NULL, sizeof *old);
}

/* Pointers to the strings of a block, closed by a NULL; the strings stay where they are. */
static void index_block(const char *block, uint32_t count, char **ret_pointers) {
    for (uint32_t i = 0; i < count; i++) {
        ret_pointers[i] = (char *)block;
        block += strlen(block) + 1;
    }
    ret_pointers[count] = NULL;
}

/* The pid, or a negative errno. The child has run exec or exited when this returns. */
static int clone_child(struct child *c, char *stack, int *ret_pidfd) {
#if HAVE_CLONE3
    if (c->what->cgroup >= 0) {
        struct clone_args args = {
            .flags = CLONE_FLAGS | CLONE_INTO_CGROUP,
            .pidfd = (uintptr_t)ret_pidfd,
            .exit_signal = SIGCHLD,
            .stack = (uintptr_t)stack,
            .stack_size = STACK_SIZE,
            .cgroup = (uint64_t)c->what->cgroup,
        };
        long pid = sys_clone3(&args, po_child, c);
        /* ENOSYS: a seccomp filter, as docker's older ones. E2BIG and EINVAL: a kernel before 5.7. */
        if (pid != -ENOSYS && pid != -E2BIG && pid != -EINVAL)
            return (int)pid;
    }
#endif
    c->join_cgroup = c->what->cgroup >= 0;
    int pid = clone(po_child, stack + STACK_SIZE, CLONE_FLAGS | SIGCHLD, c, ret_pidfd);
    return pid < 0 ? -errno : pid;
}

/* What a stage of the child's was about. */
static const char *path_of(const struct po_spawn *what, enum po_stage stage) {
    switch (stage) {
    case PO_STAGE_EXEC:
        return what->path;
    case PO_STAGE_CWD:
        return what->cwd;
    case PO_STAGE_LABEL:
        return LABEL_FILE;
    default:
        return NULL;
    }
}

int po_spawn(const struct po_spawn *what, struct po_process *ret_process, struct po_error *ret_error) {
    /* One allocation for all that the child reads besides the caller's strings: both pointer arrays, then the descriptors. */
    size_t pointers = (size_t)what->argc + what->envc + 2;
    char **vectors = malloc(pointers * sizeof(char *) + (what->nfds + 1) * sizeof(int32_t));
    if (!vectors)
        return fail(ret_error, ENOMEM, PO_STAGE_PREPARE, NULL);
    char *memory = mmap(NULL, GUARD_SIZE + STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (memory == MAP_FAILED) {
        int err = errno;
        free(vectors);
        return fail(ret_error, err, PO_STAGE_PREPARE, NULL);
    }
    mprotect(memory, GUARD_SIZE, PROT_NONE); /* the stack grows down to here; without the guard all still works */

    index_block(what->argv, what->argc, vectors);
    index_block(what->envp, what->envc, vectors + what->argc + 1);
    struct child child = {
        .what = what,
        .argv = vectors,
        .envp = vectors + what->argc + 1,
        .fds = (int32_t *)(vectors + pointers),
    };
    if (what->nfds)
        memcpy(child.fds, what->fds, what->nfds * sizeof(int32_t));

    uint64_t old_mask;
    int pidfd = -1;
    block_all_signals(&old_mask);
    int pid = clone_child(&child, memory + GUARD_SIZE, &pidfd);
    restore_signals(&old_mask);

    munmap(memory, GUARD_SIZE + STACK_SIZE);
    free(vectors);

    if (pid < 0)
        return fail(ret_error, -pid, PO_STAGE_CLONE, NULL);
    if (child.err) {
        siginfo_t ignored;
        while (waitid(P_PIDFD, (id_t)pidfd, &ignored, WEXITED) < 0 && errno == EINTR)
            ;
        close(pidfd);
        return fail(ret_error, child.err, child.stage, path_of(what, child.stage));
    }
    *ret_process = (struct po_process){.pid = pid, .pidfd = pidfd};
    return 0;
}
