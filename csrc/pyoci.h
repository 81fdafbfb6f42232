/*
 * pyoci.h: the whole seam between the C module and Python.
 *
 * build_ext.py feeds this file, without its preprocessor lines, to cffi as the declaration of the module, and the C files include it: so the
 * two sides cannot drift apart.
 *
 * Conventions: a function returns 0 (or a count) or a negative errno. Outputs are the ret_* parameters and are written on success only.
 * Descriptors are born close-on-exec; whoever receives one through ret_* owns it. Deadlines are absolute CLOCK_MONOTONIC nanoseconds;
 * PO_NEVER waits without end and any past time, 0 among them, only looks. Nothing here calls Python, prints, exits, or keeps state.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

#define PO_NEVER -1
#define PO_PATH_MAX 256
#define PO_SEND_FDS 3

/* The step of a spawn that failed. The text for each stands in pyoci/_ffi.py. */
enum po_stage {
    PO_STAGE_NONE,
    PO_STAGE_PREPARE,        /* memory for the child's stack and its argument vectors */
    PO_STAGE_CLONE,          /* clone or clone3 */
    PO_STAGE_PGROUP,         /* setpgid */
    PO_STAGE_CGROUP,         /* joining a cgroup */
    PO_STAGE_LABEL,          /* setting the SELinux context of the program; path is set */
    PO_STAGE_CWD,            /* chdir; path is set */
    PO_STAGE_DESCRIPTORS,    /* placing the descriptors of the map */
    PO_STAGE_CLOSE,          /* closing all the others */
    PO_STAGE_SIGNALS,        /* resetting dispositions and the mask */
    PO_STAGE_EXEC,           /* execve; path is set */
    PO_STAGE_CGROUP_MAKE,    /* cgroups.c, with the path: mkdir of a cgroup */
    PO_STAGE_CGROUP_CPUSET,  /* copying cpuset.cpus and cpuset.mems from its parent */
    PO_STAGE_THREAD,         /* thread.c: making the thread */
    PO_STAGE_UNSHARE,        /* unshare(CLONE_NEWNS) */
    PO_STAGE_PLACE,          /* mkdir of the place; path is set, as for all that follow */
    PO_STAGE_PROPAGATION,    /* keeping what is mounted on the place in the namespace */
    PO_STAGE_RUN_DIRECTORY,  /* mounting the run directory on the place */
    PO_STAGE_TARGET,         /* mkdir of the target */
    PO_STAGE_REMOVE,         /* files.c: removing; path is the name in its directory */
    PO_STAGE_BIND,           /* binding the source to the target; path is the source */
    PO_STAGE_NETWORK,        /* network.c: unshare(CLONE_NEWNET) */
    PO_STAGE_LOOPBACK,       /* setting lo up */
    PO_STAGE_WATCH,          /* opening what tells that something was changed in the namespace */
    PO_STAGE_NAMES,          /* making the directory of the names; path is set */
    PO_STAGE_NAME,           /* binding the namespace to its name; path is set */
    PO_STAGE_UNNAME,         /* taking a name away; path is set */
    PO_STAGE_ENTER,          /* setns to a network namespace */
    PO_STAGE_SOCKET          /* opening a socket in it */
};

/* What failed: a positive errno, the step, and the path it was about (cut to fit, empty if none). */
struct po_error {
    int32_t err;
    int32_t stage;
    char path[PO_PATH_MAX];
};

/* What to start. A block holds COUNT strings one after another, each closed by a NUL. */
struct po_spawn {
    const char *path;       /* the program, as for execve(2): no search */
    const char *argv;       /* block of argc strings */
    const char *envp;       /* block of envc strings */
    const char *cwd;        /* working directory, or NULL: the caller's */
    const char *label;      /* SELinux context of the program, or NULL: what the policy says */
    const int32_t *fds;     /* fds[i] becomes the child's descriptor i; -1: /dev/null. All others are closed. */
    const int32_t *cgroups; /* open cgroup.procs files to write "0" to before exec (cgroup v1) */
    uint32_t argc;
    uint32_t envc;
    uint32_t nfds;
    uint32_t ncgroups;
    int32_t cgroup; /* open cgroup v2 directory to be born in, or -1 */
    int32_t pgroup; /* 1: a process group of its own */
};

/*
 * The mount namespace a program is started in: where SOURCE, which a container's mapped root cannot reach, has a path that it can. On PLACE lies a
 * run directory of the namespace's own (tmpfs, 0700, owned by UID and GID); in it is made TARGET, and SOURCE is bound there with all that is
 * mounted below it. Outside, PLACE and TARGET are directories as well, made if need be, and stay empty. Both are absolute, without a symbolic
 * link or a slash at the end.
 */
struct po_mounts {
    const char *place;
    const char *source;
    const char *target;
    uint32_t uid;
    uint32_t gid;
};

/*
 * A network namespace, and what tells whether somebody has changed anything in it: netlink sockets in it, to which the kernel sends each change of
 * links, addresses, routes, rules and nftables (filter is -1 where the kernel has none), and an open file of its counts of sockets.
 */
struct po_network {
    int32_t namespace;
    int32_t route;
    int32_t filter;
    int32_t sockstat;
};

/* A child of ours: the pidfd is the identity, the number is for messages and for /proc. */
struct po_process {
    int32_t pid;
    int32_t pidfd;
};

/* How a process ended: code is 0..255 with signal 0, or code is -1 and signal is what killed it. */
struct po_exit {
    int32_t code;
    int32_t signal;
};

/* Who a process is. start_time: in clock ticks since boot; inode: of its pidfd, its alone until the next boot (pidfs, Linux 6.9). */
struct po_identity {
    int32_t ppid;
    int32_t pidfd;
    uint64_t start_time;
    uint64_t inode;
};

/* What tells a file from another one that had its name before. */
struct po_mark {
    uint64_t device;
    uint64_t inode;
    int64_t size;
    int64_t mtime;
    int64_t ctime;
};

/* One descriptor to wait for, laid out as struct pollfd. */
struct po_event {
    int32_t fd;
    int16_t events;
    int16_t revents;
};

/* spawn.c */
int po_spawn(const struct po_spawn *what, struct po_process *ret_process, struct po_error *ret_error);

/* mount_thread.c */
int po_spawn_in_mounts(const struct po_mounts *mounts, const struct po_spawn *what, struct po_process *ret_process, struct po_error *ret_error);

/* network.c */
int po_network_make(const char *name, struct po_network *ret_network, struct po_error *ret_error);
int po_network_names(const char *directory, struct po_error *ret_error);
int po_network_unname(const char *path, struct po_error *ret_error);
int po_network_is_changed(const struct po_network *network);
int po_network_socket(int32_t network, int32_t family, int32_t type, int32_t protocol, int32_t *ret_fd, struct po_error *ret_error);

/* pidfd.c */
int po_pidfd_open(int32_t pid, int32_t *ret_pidfd);
int po_identify(int32_t pid, struct po_identity *ret_identity);
int po_pidfd_signal(int32_t pidfd, int32_t signal);
int po_pidfd_reap(int32_t pidfd, struct po_exit *ret_exit);
int po_pidfd_exit_info(int32_t pidfd, struct po_exit *ret_exit);

/* files.c */
int po_file_write(const char *path, const char *content, uint64_t size);
int po_file_read(const char *path, int32_t flags, char *buffer, uint32_t size, int64_t *ret_mtime);
int po_file_mark(const char *path, int32_t follow, struct po_mark *ret_mark);
int po_open(const char *path, int32_t flags, int32_t *ret_fd);
int po_lock(int32_t fd, int32_t operation);
int po_mkdir(const char *path, uint32_t mode);
int po_unlink(const char *path);
int po_tree_remove(const char *path, struct po_error *ret_error);

/* io.c */
int po_pipe(int32_t ret_fds[2], int32_t ours);
int po_read(int32_t fd, char *buffer, uint32_t size);
int po_write(int32_t fd, const char *content, uint32_t size);
void po_close(int32_t fd);
int po_socketpair(int32_t type, int32_t ret_fds[2]);
int po_capture(uint64_t size, int32_t *ret_fd);
int po_watch_file(int32_t fd, int32_t *ret_fd);
int po_send(int32_t fd, const char *data, uint32_t size, const int32_t *fds, uint32_t nfds);
int po_read_line(int32_t fd, char *buffer, uint32_t size, uint32_t *length, int64_t deadline);
int po_poll(struct po_event *events, uint32_t count, int64_t deadline);
int po_epoll(int32_t epoll, const struct po_event *changes, uint32_t count, struct po_event *ret_events, uint32_t size, int64_t deadline);

/* cgroups.c */
int po_cgroups_make(const char *directories, uint32_t count, uint64_t cpusets, struct po_error *ret_error);
int po_cgroups_join(const char *directories, uint32_t count, int32_t pid, struct po_error *ret_error);
int po_cgroups_remove(const char *directories, uint32_t count, int32_t *ret_errors);
