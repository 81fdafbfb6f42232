/* files.c: a container's files, each kind of work in one call: from Python every system call of it would cost as much again. */
#define _GNU_SOURCE
#include "fail.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

/* A new file with this content, for us alone to write. At a failure it may stand there with a part of it. */
int po_file_write(const char *path, const char *content, uint64_t size) {
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0640);
    if (fd < 0)
        return -errno;
    int result = 0;
    while (size > 0 && result == 0) {
        ssize_t written = write(fd, content, size);
        if (written >= 0) {
            content += written;
            size -= (uint64_t)written;
        } else if (errno != EINTR) {
            result = -errno;
        }
    }
    close(fd);
    return result;
}

static int64_t nanoseconds(struct timespec t) {
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

/*
 * The start of a regular file, and when it was changed; how many bytes. -EINVAL: no regular file. It never waits, as opening or reading a FIFO
 * would. FLAGS: O_NOFOLLOW, or 0.
 */
int po_file_read(const char *path, int32_t flags, char *buffer, uint32_t size, int64_t *ret_mtime) {
    int fd = open(path, flags | O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return -errno;
    struct stat status;
    int result = fstat(fd, &status) < 0 ? -errno : S_ISREG(status.st_mode) ? 0 : -EINVAL;
    if (result == 0) {
        /* To its end: the kernel's own files, as cgroup.procs, give a page at a time (seq_file). */
        ssize_t got = 1;
        uint32_t total = 0;
        while (got > 0 && total < size) {
            got = read(fd, buffer + total, size - total);
            total += got > 0 ? (uint32_t)got : 0;
        }
        result = got < 0 ? -errno : (int)total;
        *ret_mtime = nanoseconds(status.st_mtim);
    }
    close(fd);
    return result;
}

int po_file_mark(const char *path, int32_t follow, struct po_mark *ret_mark) {
    struct stat status;
    if (fstatat(AT_FDCWD, path, &status, follow ? 0 : AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    *ret_mark = (struct po_mark){
        .device = status.st_dev,
        .inode = status.st_ino,
        .size = status.st_size,
        .mtime = nanoseconds(status.st_mtim),
        .ctime = nanoseconds(status.st_ctim),
    };
    return 0;
}

/* For what opens at once. */
int po_open(const char *path, int32_t flags, int32_t *ret_fd) {
    int fd = open(path, flags | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    *ret_fd = fd;
    return 0;
}

/* flock(2) that does not wait. */
int po_lock(int32_t fd, int32_t operation) {
    return flock(fd, operation | LOCK_NB) < 0 ? -errno : 0;
}

int po_mkdir(const char *path, uint32_t mode) {
    return mkdir(path, mode) < 0 ? -errno : 0;
}

int po_unlink(const char *path) {
    return unlink(path) < 0 ? -errno : 0;
}

/* What is not there any more is as good as removed. */
static int gone(int result) {
    return result < 0 && errno != ENOENT ? -errno : 0;
}

/*
 * A file that others are mounted on: runc binds its binary over one in its state directory to copy it from there, for a moment, and killed in that
 * moment leaves the mount.
 */
static int detach(int fd, const char *name) {
    char path[64 + NAME_MAX];
    snprintf(path, sizeof path, "/proc/self/fd/%d/%s", fd, name);
    return umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW);
}

/* All that is in the directory, through its descriptor, which is closed: no name is looked up twice, no link is followed. */
static int empty(int fd, int depth, struct po_error *error) {
    DIR *directory = fdopendir(fd);
    if (!directory) {
        int err = errno;
        close(fd);
        return -err;
    }
    int result = 0;
    struct dirent *entry;
    while (result == 0 && (errno = 0, entry = readdir(directory))) {
        const char *name = entry->d_name;
        if (!strcmp(name, ".") || !strcmp(name, ".."))
            continue;
        result = entry->d_type == DT_DIR ? -EISDIR : gone(unlinkat(fd, name, 0));
        if (result == -EBUSY && detach(fd, name) == 0)
            result = gone(unlinkat(fd, name, 0));
        if (result == -EISDIR) {
            int below = depth > 0 ? openat(fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : (errno = ELOOP, -1);
            result = below < 0 ? gone(below) : empty(below, depth - 1, error);
            if (result == 0)
                result = gone(unlinkat(fd, name, AT_REMOVEDIR));
        }
        if (result < 0 && !error->path[0])
            fail(error, -result, PO_STAGE_REMOVE, name);
    }
    if (result == 0 && errno != 0)
        result = -errno;
    closedir(directory);
    return result;
}

/*
 * Removes a directory with all in it, at most 64 deep; gone already is fine. It follows no link; a mounted file is unmounted, a mounted directory
 * that is not empty stops it. At a failure ret_error->path is the name, in its directory, of what would not go.
 */
int po_tree_remove(const char *path, struct po_error *ret_error) {
    ret_error->path[0] = '\0';
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int result = fd < 0 ? gone(fd) : empty(fd, 64, ret_error);
    if (fd >= 0 && result < 0)
        return result;
    int removed = gone(rmdir(path)); /* also without a descriptor for it: what is empty needs none */
    return removed < 0 && result < 0 ? result : removed;
}
