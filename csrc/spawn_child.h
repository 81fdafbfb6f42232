/* spawn_child.h: what the parent hands to the child of a spawn. Everything is prepared: the child only makes system calls. */
#pragma once
#include "pyoci.h"

#define LABEL_FILE "/proc/self/attr/exec"

struct child {
    const struct po_spawn *what;
    char *const *argv;
    char *const *envp;
    int32_t *fds;     /* the map, a copy for the child to work in */
    int join_cgroup;  /* 1: write to what->cgroup/cgroup.procs, because clone could not place the child there */
    /* The child's answer, read by the parent after exec or exit: memory is shared (CLONE_VM). */
    int err;
    enum po_stage stage;
};

int po_child(void *child);
