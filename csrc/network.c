/*
 * network.c: network namespaces (network_namespaces(7)).
 *
 * One is made and entered on a thread of its own (thread.c), so that no thread of the caller's is ever in another one. It lives as long as a
 * process, a descriptor, a socket or a mount holds it. A name, as ip-netns(8) has it, is a file below /run/netns that it is mounted on.
 */
#define _GNU_SOURCE
#include "fail.h"
#include "syscalls.h"
#include "thread.h"

#include <fcntl.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>

#define OURS "/proc/thread-self/ns/net"
#define SOCKSTAT "/proc/thread-self/net/sockstat"

struct making {
    const char *name; /* or NULL */
    struct po_network made;
    struct po_error *ret_error;
    int result;
};

static void close_all(struct po_network *network) {
    int32_t fds[] = {network->namespace, network->route, network->filter, network->sockstat};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        if (fds[i] >= 0)
            close(fds[i]);
}

static int loopback_up(void) {
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_LOOPBACK};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return errno;
    int err = ioctl(fd, SIOCSIFFLAGS, &request) < 0 ? errno : 0;
    close(fd);
    return err;
}

/* A netlink socket that hears of every change from here on; a negative errno. */
static int listen_to(int protocol, const int *groups, size_t count) {
    struct sockaddr_nl address = {.nl_family = AF_NETLINK};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol);
    if (fd < 0)
        return -errno;
    int result = bind(fd, (struct sockaddr *)&address, sizeof address);
    for (size_t i = 0; i < count && result == 0; i++)
        result = setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &groups[i], sizeof *groups);
    if (result < 0) {
        result = -errno;
        close(fd);
        return result;
    }
    return fd;
}

static int watch(struct po_network *network) {
    static const int route[] = {RTNLGRP_LINK,        RTNLGRP_TC,          RTNLGRP_IPV4_IFADDR,  RTNLGRP_IPV4_ROUTE,  RTNLGRP_IPV4_RULE,   RTNLGRP_IPV6_IFADDR,
                                RTNLGRP_IPV6_ROUTE,  RTNLGRP_IPV6_RULE,   RTNLGRP_IPV4_NETCONF, RTNLGRP_IPV6_NETCONF, RTNLGRP_NEXTHOP};
    static const int filter[] = {NFNLGRP_NFTABLES};
    network->route = listen_to(NETLINK_ROUTE, route, sizeof route / sizeof *route);
    if (network->route < 0)
        return -network->route;
    network->filter = listen_to(NETLINK_NETFILTER, filter, 1);
    if (network->filter == -EPROTONOSUPPORT || network->filter == -ENOENT)
        network->filter = -1;
    else if (network->filter < 0)
        return -network->filter;
    network->sockstat = open(SOCKSTAT, O_RDONLY | O_CLOEXEC);
    return network->sockstat < 0 ? errno : 0;
}

static int bind_name(const char *name) {
    int fd = open(name, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0);
    if (fd < 0)
        return errno;
    close(fd);
    if (mount(OURS, name, NULL, MS_BIND, NULL) == 0)
        return 0;
    int err = errno;
    unlink(name);
    return err;
}

static int make(struct making *m) {
    if (unshare(CLONE_NEWNET) < 0)
        return fail(m->ret_error, errno, PO_STAGE_NETWORK, "");
    int err = loopback_up();
    if (err)
        return fail(m->ret_error, err, PO_STAGE_LOOPBACK, "");
    m->made.namespace = open(OURS, O_RDONLY | O_CLOEXEC);
    err = m->made.namespace < 0 ? errno : m->name ? 0 : watch(&m->made);
    if (err)
        return fail(m->ret_error, err, PO_STAGE_WATCH, "");
    err = m->name ? bind_name(m->name) : 0; /* last: nothing that fails afterwards would have to take it away */
    return err ? fail(m->ret_error, err, PO_STAGE_NAME, m->name) : 0;
}

static void *run_make(void *argument) {
    struct making *m = argument;
    m->result = make(m);
    return NULL;
}

/* A new one with lo up. With a NAME, the path of a file to make, it stands there, and nobody watches it. */
int po_network_make(const char *name, struct po_network *ret_network, struct po_error *ret_error) {
    struct making m = {.name = name, .made = {-1, -1, -1, -1}, .ret_error = ret_error};
    int result = on_a_thread(run_make, &m, ret_error);
    if (result == 0)
        result = m.result;
    if (result == 0)
        *ret_network = m.made;
    else
        close_all(&m.made);
    return result;
}

/* Whether the kernel has told of any change, or of more than it could keep. */
int po_network_is_changed(const struct po_network *network) {
    char byte;
    const int32_t fds[] = {network->route, network->filter};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        if (fds[i] >= 0 && (recv(fds[i], &byte, 1, MSG_PEEK | MSG_DONTWAIT | MSG_TRUNC) >= 0 || errno != EAGAIN))
            return true;
    return false;
}

/*
 * The directory of the names as ip-netns(8) makes it: a mount of its own that is shared, so that a name that is taken away goes from every mount
 * namespace at once. Its flock keeps two from mounting it twice.
 */
int po_network_names(const char *directory, struct po_error *ret_error) {
    if (mkdir(directory, 0755) < 0 && errno != EEXIST)
        return fail(ret_error, errno, PO_STAGE_NAMES, directory);
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return fail(ret_error, errno, PO_STAGE_NAMES, directory);
    int err;
    do {
        err = flock(fd, LOCK_EX) < 0 ? errno : 0;
    } while (err == EINTR); /* no wait to be interrupted: who holds it makes two system calls */
    if (err) {
        close(fd);
        return fail(ret_error, err, PO_STAGE_NAMES, directory);
    }
    if (mount("", directory, "none", MS_SHARED | MS_REC, NULL) < 0 &&
        (errno != EINVAL || mount(directory, directory, "none", MS_BIND | MS_REC, NULL) < 0 || mount("", directory, "none", MS_SHARED | MS_REC, NULL) < 0))
        err = errno;
    close(fd);
    return err ? fail(ret_error, err, PO_STAGE_NAMES, directory) : 0;
}

/* One that is only a file, because its maker was interrupted or the mount lies in another namespace, goes as well. */
int po_network_unname(const char *path, struct po_error *ret_error) {
    if (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) < 0 && errno != EINVAL)
        return fail(ret_error, errno, PO_STAGE_UNNAME, path);
    if (unlink(path) < 0)
        return fail(ret_error, errno, PO_STAGE_UNNAME, path);
    return 0;
}

struct opening {
    int network, family, type, protocol;
    struct po_error *ret_error;
    int result; /* the descriptor, or a negative errno */
};

static void *run_socket(void *argument) {
    struct opening *o = argument;
    if (setns(o->network, CLONE_NEWNET) < 0)
        o->result = fail(o->ret_error, errno, PO_STAGE_ENTER, "");
    else if ((o->result = socket(o->family, o->type | SOCK_CLOEXEC, o->protocol)) < 0)
        o->result = fail(o->ret_error, errno, PO_STAGE_SOCKET, "");
    return NULL;
}

/* A socket (socket(2)) that belongs to a network namespace, whichever thread uses it. */
int po_network_socket(int32_t network, int32_t family, int32_t type, int32_t protocol, int32_t *ret_fd, struct po_error *ret_error) {
    struct opening o = {.network = network, .family = family, .type = type, .protocol = protocol, .ret_error = ret_error};
    int result = on_a_thread(run_socket, &o, ret_error);
    if (result < 0 || o.result < 0)
        return result < 0 ? result : o.result;
    *ret_fd = o.result;
    return 0;
}
