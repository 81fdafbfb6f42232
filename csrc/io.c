/* io.c: pipes, socket pairs, captured output, one line, and waiting. */
#define _GNU_SOURCE
#include "pyoci.h"
#include "syscalls.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>

_Static_assert(sizeof(struct po_event) == sizeof(struct pollfd), "struct po_event is struct pollfd");

/* A pipe; its end OURS (0: to read, 1: to write) does not block. */
int po_pipe(int32_t ret_fds[2], int32_t ours) {
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) < 0)
        return -errno;
    if (fcntl(fds[ours], F_SETFL, (ours ? O_WRONLY : O_RDONLY) | O_NONBLOCK) < 0) {
        int err = errno;
        close(fds[0]);
        close(fds[1]);
        return -err;
    }
    ret_fds[0] = fds[0];
    ret_fds[1] = fds[1];
    return 0;
}

/* Of and to what does not block. */
int po_read(int32_t fd, char *buffer, uint32_t size) {
    ssize_t got = read(fd, buffer, size);
    return got < 0 ? -errno : (int)got;
}

int po_write(int32_t fd, const char *content, uint32_t size) {
    ssize_t written = write(fd, content, size);
    return written < 0 ? -errno : (int)written;
}

void po_close(int32_t fd) {
    close(fd);
}

int po_socketpair(int32_t type, int32_t ret_fds[2]) {
    return socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ret_fds) < 0 ? -errno : 0;
}

/*
 * A file in memory that takes SIZE bytes and refuses a write that would go beyond, whole (EPERM, by its seal): what a tool says can be read
 * afterwards without anybody having to drain a pipe, a tool that says too much is neither blocked nor believed, and a process that keeps it
 * open holds nothing up.
 */
int po_capture(uint64_t size, int32_t *ret_fd) {
    int fd = memfd_create("pyoci-capture", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    if (ftruncate(fd, (off_t)size) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0) {
        int err = errno;
        close(fd);
        return -err;
    }
    *ret_fd = fd;
    return 0;
}

/*
 * An inotify instance that becomes readable when the open file FD is written to, or when a name of it goes (removed, or another file renamed over
 * it: IN_ATTRIB, for its link count; IN_MOVE_SELF). Watched through /proc, so that it is this file, whatever its path means by now.
 */
int po_watch_file(int32_t fd, int32_t *ret_fd) {
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (watch < 0)
        return -errno;
    if (inotify_add_watch(watch, path, IN_MODIFY | IN_ATTRIB | IN_MOVE_SELF) < 0) {
        int err = errno;
        close(watch);
        return -err;
    }
    *ret_fd = watch;
    return 0;
}

/* As many of the bytes as the socket takes now, their number, or -EAGAIN; the descriptors, at most PO_SEND_FDS, go with the first of them. */
int po_send(int32_t fd, const char *data, uint32_t size, const int32_t *fds, uint32_t nfds) {
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(PO_SEND_FDS * sizeof(int32_t))];
    } control = {0};
    struct iovec content = {(char *)data, size};
    struct msghdr message = {.msg_iov = &content, .msg_iovlen = 1};
    if (nfds > PO_SEND_FDS)
        return -EINVAL;
    if (nfds > 0) {
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(nfds * sizeof(int32_t));
        control.align = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(nfds * sizeof(int32_t))};
        memcpy(CMSG_DATA(&control.align), fds, nfds * sizeof(int32_t));
    }
    ssize_t sent = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    return sent < 0 ? -errno : (int)sent;
}

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

/* The number of descriptors with an event, 0 at the deadline, -EINTR so that the caller can run its signal handlers. */
int po_poll(struct po_event *events, uint32_t count, int64_t deadline) {
    struct timespec timeout, *wait = NULL;
    if (deadline != PO_NEVER) {
        int64_t left = deadline - now();
        if (left < 0)
            left = 0;
        timeout = (struct timespec){.tv_sec = left / 1000000000, .tv_nsec = left % 1000000000};
        wait = &timeout;
    }
    int ready = ppoll((struct pollfd *)events, count, wait, NULL);
    return ready < 0 ? -errno : ready;
}

/* A descriptor that was closed meanwhile is out of the epoll, and its number may be another's by now: WATCHED is only a guess. */
static int watch(int epoll, int fd, uint32_t events, int watched) {
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (!events) {
        epoll_ctl(epoll, EPOLL_CTL_DEL, fd, &event);
        return 0;
    }
    if (watched && epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event) == 0)
        return 0;
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0 && (errno != EEXIST || epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event) < 0) ? -errno : 0;
}

/*
 * Takes COUNT changes of what an epoll watches (events 0: no longer; revents not 0: it is watched already), then tells at most SIZE events, as
 * po_poll.
 */
int po_epoll(int32_t epoll, const struct po_event *changes, uint32_t count, struct po_event *ret_events, uint32_t size, int64_t deadline) {
    for (uint32_t i = 0; i < count; i++) {
        int result = watch(epoll, changes[i].fd, (uint32_t)changes[i].events, changes[i].revents);
        if (result < 0)
            return result;
    }
    struct epoll_event events[64];
    int timeout = -1;
    if (deadline != PO_NEVER) {
        /* In milliseconds, rounded up: never early. */
        int64_t left = (deadline - now() + 999999) / 1000000;
        timeout = left < 0 ? 0 : left > INT32_MAX ? INT32_MAX : (int)left;
    }
    int ready = epoll_wait(epoll, events, (int)(size < 64 ? size : 64), timeout);
    if (ready < 0)
        return -errno;
    /* A number can be another file's by now, while a process that some other thread is just starting has a copy of the old one, of which the
       epoll goes on to tell until the exec: so each is looked at. */
    struct pollfd seen[64];
    for (int i = 0; i < ready; i++)
        seen[i] = (struct pollfd){.fd = events[i].data.fd, .events = (short)events[i].events};
    if (ready > 0 && poll(seen, (nfds_t)ready, 0) < 0)
        return -errno;
    int told = 0;
    for (int i = 0; i < ready; i++)
        if (seen[i].revents && !(seen[i].revents & POLLNVAL))
            ret_events[told++] = (struct po_event){.fd = seen[i].fd, .revents = seen[i].revents};
    return told;
}

/*
 * One line of a stream socket into BUFFER, its newline included; bytes after it stay in the socket. LENGTH counts what has been gathered so
 * far: zero it before the first call, keep it between calls. Returns 1 when the line is whole, 0 at the end of the stream (LENGTH bytes of
 * an unfinished line stand in BUFFER), -ETIMEDOUT at the deadline, -EMSGSIZE when SIZE bytes hold no newline, -EINTR as po_poll.
 */
int po_read_line(int32_t fd, char *buffer, uint32_t size, uint32_t *length, int64_t deadline) {
    while (*length < size) {
        char *at = buffer + *length;
        /* Looked at first, so that what follows the newline is left for the next call. */
        ssize_t got = recv(fd, at, size - *length, MSG_PEEK | MSG_DONTWAIT);
        if (got < 0 && errno == EAGAIN) {
            struct po_event event = {.fd = fd, .events = POLLIN};
            int ready = po_poll(&event, 1, deadline);
            if (ready < 0)
                return ready;
            if (ready == 0)
                return -ETIMEDOUT;
            continue;
        }
        if (got < 0)
            return -errno;
        if (got == 0)
            return 0;
        char *newline = memchr(at, '\n', (size_t)got);
        size_t take = newline ? (size_t)(newline - at) + 1 : (size_t)got;
        got = recv(fd, at, take, MSG_DONTWAIT);
        if (got < 0)
            return -errno;
        *length += (uint32_t)got;
        if (newline && (size_t)got == take)
            return 1;
    }
    return -EMSGSIZE;
}
