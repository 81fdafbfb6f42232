/*
 * cgroups.c: a container's directories in all hierarchies, made, joined and removed in one call each (cgroups(7)): cgroup v1 has up to a dozen
 * hierarchies, and a call of ours for each directory would cost more than the kernel's part.
 */
#define _GNU_SOURCE
#include "fail.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Control files take and give their whole content in one call. */
static int write_control(const char *path, const char *content, size_t length) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int result = write(fd, content, length) == (ssize_t)length ? 0 : -errno;
    close(fd);
    return result;
}

static ssize_t read_control(const char *path, char *buffer, size_t size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t got = read(fd, buffer, size);
    int err = errno;
    close(fd);
    return got < 0 ? -err : got;
}

/* A new cpuset of cgroup v1 has no processors and no memory, and takes no process until it has some: its parent's. */
static int inherit_cpuset(const char *directory) {
    static const char *const names[] = {"cpuset.cpus", "cpuset.mems"};
    char path[PATH_MAX], content[4096];
    for (int i = 0; i < 2; i++) {
        if (snprintf(path, sizeof path, "%s/../%s", directory, names[i]) >= (int)sizeof path)
            return -ENAMETOOLONG;
        ssize_t length = read_control(path, content, sizeof content);
        if (length < 0)
            return (int)length;
        snprintf(path, sizeof path, "%s/%s", directory, names[i]);
        int result = write_control(path, content, (size_t)length);
        if (result < 0)
            return result;
    }
    return 0;
}

/*
 * Makes each directory of a block of COUNT paths, in the order given; one that is there already is fine. Bit i of CPUSETS says that the i-th
 * belongs to cgroup v1's cpuset. At a failure what was made so far stays.
 */
int po_cgroups_make(const char *directories, uint32_t count, uint64_t cpusets, struct po_error *ret_error) {
    for (uint32_t i = 0; i < count; i++, directories += strlen(directories) + 1) {
        if (mkdir(directories, 0755) < 0) {
            if (errno != EEXIST)
                return fail(ret_error, errno, PO_STAGE_CGROUP_MAKE, directories);
            continue;
        }
        int result = i < 64 && cpusets >> i & 1 ? inherit_cpuset(directories) : 0;
        if (result < 0)
            return fail(ret_error, -result, PO_STAGE_CGROUP_CPUSET, directories);
    }
    return 0;
}

/* Moves the process, with all its threads, to each cgroup of a block of COUNT directories. */
int po_cgroups_join(const char *directories, uint32_t count, int32_t pid, struct po_error *ret_error) {
    char path[PATH_MAX], number[16];
    int length = snprintf(number, sizeof number, "%d", pid);
    for (uint32_t i = 0; i < count; i++, directories += strlen(directories) + 1) {
        if (snprintf(path, sizeof path, "%s/cgroup.procs", directories) >= (int)sizeof path)
            return fail(ret_error, ENAMETOOLONG, PO_STAGE_CGROUP, directories);
        int result = write_control(path, number, (size_t)length);
        if (result < 0)
            return fail(ret_error, -result, PO_STAGE_CGROUP, directories);
    }
    return 0;
}

/*
 * rmdir(2) of each of a block of COUNT directories, in the order given. RET_ERRORS[i] is 0 when the i-th is gone, whoever removed it, else the
 * errno; returns how many are left.
 */
int po_cgroups_remove(const char *directories, uint32_t count, int32_t *ret_errors) {
    int left = 0;
    for (uint32_t i = 0; i < count; i++, directories += strlen(directories) + 1) {
        ret_errors[i] = rmdir(directories) < 0 && errno != ENOENT ? errno : 0;
        left += ret_errors[i] != 0;
    }
    return left;
}
