/*
 * mount_thread.c: starting a program from a mount namespace of its own, on a thread that lives for nothing else.
 *
 * After unshare(CLONE_NEWNS) a thread has a file system context of its own (CLONE_FS is implied) and cannot be given the process's back, so it
 * must never run anything else (thread.c): it ends when the program runs or a step has failed. The namespace then
 * belongs to the program and to its children alone; when the last of them has ended, or at once if there is none, the kernel takes it down
 * with all its mounts. No other thread, and nothing outside, ever sees one of them.
 */
#define _GNU_SOURCE
#include "fail.h"
#include "syscalls.h"
#include "thread.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

struct job {
    const struct po_mounts *mounts;
    const struct po_spawn *what;
    struct po_process *ret_process;
    struct po_error *ret_error;
    int result;
};

/*
 * What is mounted below the mount that holds PATH stays in this namespace; what is mounted there outside still comes in. All other mounts are
 * left as they are. Only the root of a mount can be told so (EINVAL), so the nearest directory upwards that is one is found by trying. PATH
 * holds no symbolic link.
 */
static int stop_propagation(const char *path) {
    char at[PO_PATH_MAX];
    if ((size_t)snprintf(at, sizeof at, "%s", path) >= sizeof at)
        return ENAMETOOLONG;
    if (*at != '/')
        return EINVAL;
    for (;;) {
        if (mount(NULL, *at ? at : "/", NULL, MS_SLAVE, NULL) == 0)
            return 0;
        if (errno != EINVAL || !*at)
            return errno;
        *strrchr(at, '/') = '\0';
    }
}

static int prepare(const struct po_mounts *m, struct po_error *error) {
    if (unshare(CLONE_NEWNS) < 0)
        return fail(error, errno, PO_STAGE_UNSHARE, "");
    /* Both outside, too: `runc exec` changes to the directory that is called the root file system, before it enters the container's mounts. */
    if (mkdir(m->place, 0700) < 0 && errno != EEXIST)
        return fail(error, errno, PO_STAGE_PLACE, m->place);
    if (mkdir(m->target, 0700) < 0 && errno != EEXIST)
        return fail(error, errno, PO_STAGE_TARGET, m->target);
    int err = stop_propagation(m->place);
    if (err)
        return fail(error, err, PO_STAGE_PROPAGATION, m->place);
    char options[64];
    snprintf(options, sizeof options, "mode=0700,uid=%u,gid=%u,size=64k", m->uid, m->gid);
    if (mount("tmpfs", m->place, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options) < 0)
        return fail(error, errno, PO_STAGE_RUN_DIRECTORY, m->place);
    if (mkdir(m->target, 0700) < 0)
        return fail(error, errno, PO_STAGE_TARGET, m->target);
    if (mount(m->source, m->target, NULL, MS_BIND | MS_REC, NULL) < 0)
        return fail(error, errno, PO_STAGE_BIND, m->source);
    return 0;
}

static void *run(void *argument) {
    struct job *job = argument;
    job->result = prepare(job->mounts, job->ret_error);
    if (job->result == 0)
        job->result = po_spawn(job->what, job->ret_process, job->ret_error);
    return NULL;
}

int po_spawn_in_mounts(const struct po_mounts *mounts, const struct po_spawn *what, struct po_process *ret_process, struct po_error *ret_error) {
    struct job job = {.mounts = mounts, .what = what, .ret_process = ret_process, .ret_error = ret_error};
    int result = on_a_thread(run, &job, ret_error);
    return result < 0 ? result : job.result;
}
