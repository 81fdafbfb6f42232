/*
 * floor.c: the least program that leads a container's life through conmon and an OCI runtime. What pyoci takes is measured against it.
 *
 *     floor DIRECTORY EXIT_FILE TEMPLATE -- CONMON… -- START… -- DELETE…
 *
 * Each line on standard input is the id of one container: made, started, waited for, deleted. Its answer is one line of JSON with what each
 * phase took, in nanoseconds. @ID@ stands for the id in every argument and in the file TEMPLATE, which becomes the bundle's config.json. The
 * first word of each command is the path to execute. The environment is passed on as it is; the caller chooses it.
 *
 * At a failure it says what failed, kills what it started, and exits with 1.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SYNC_FD = 3, START_FD = 4, MAX_WORDS = 256, PATIENCE_MS = 30000 };

extern char **environ;

/* What the command line says, with @ID@ still in it. */
static struct {
    char *directory, *exit_file, *template;
    char **conmon, **start, **delete;
} plan;
static char **conmon_environment; /* ours, and where the socket is */
static int inotify = -1;

/* The container that is alive now; what clean_up() has to end. */
static struct {
    char directory[4096];
    pid_t first; /* conmon's first process, until it is reaped */
    int socket;  /* our end of conmon's: we write the start byte, it writes the sync message */
    int init;    /* a pidfd */
    char **delete;
} life = {.socket = -1, .init = -1};

/* Strings with the id put in, all thrown away together when a life ends. */
static char arena[256 * 1024];
static size_t arena_used;

static void clean_up(void);

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *format, ...) {
    int err = errno;
    va_list arguments;
    va_start(arguments, format);
    fputs("floor: ", stderr);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, err ? ": %s\n" : "\n", strerror(err));
    clean_up();
    exit(1);
}

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static char *take(size_t size) {
    size = (size + 15) & ~(size_t)15;
    if (size > sizeof arena - arena_used) {
        errno = ENOMEM;
        fail("the arguments are too long");
    }
    char *taken = arena + arena_used;
    arena_used += size;
    return taken;
}

/* TEXT with every @ID@ replaced. */
static char *fill(const char *text, const char *id) {
    size_t size = 1;
    for (const char *at = text; *at; at++, size++)
        if (!strncmp(at, "@ID@", 4))
            size += strlen(id);
    char *filled = take(size), *to = filled;
    while (*text)
        if (!strncmp(text, "@ID@", 4)) {
            to = stpcpy(to, id);
            text += 4;
        } else
            *to++ = *text++;
    *to = '\0';
    return filled;
}

static char **fill_all(char **words, const char *id) {
    size_t count = 0;
    while (words[count])
        count++;
    char **filled = (char **)take((count + 1) * sizeof *filled);
    for (size_t i = 0; i < count; i++)
        filled[i] = fill(words[i], id);
    filled[count] = NULL;
    return filled;
}

static char *read_file(const char *path, char *buffer, size_t size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    ssize_t got = read(fd, buffer, size - 1);
    close(fd);
    if (got < 0)
        return NULL;
    buffer[got] = '\0';
    return buffer;
}

static void write_file(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
    size_t length = strlen(text);
    if (fd < 0 || write(fd, text, length) != (ssize_t)length)
        fail("writing %s", path);
    close(fd);
}

/* Waits until FD is readable, though not for ever. */
static void await(int fd, const char *what) {
    struct pollfd event = {.fd = fd, .events = POLLIN};
    int ready;
    while ((ready = poll(&event, 1, PATIENCE_MS)) < 0 && errno == EINTR)
        ;
    if (ready <= 0) {
        errno = ready ? errno : ETIMEDOUT;
        fail("waiting for %s", what);
    }
}

static void close_one(int *fd) {
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* Runs a command to its end; false if it failed. What it says goes to our standard error. */
static int run(char **words) {
    pid_t pid;
    int status;
    errno = posix_spawn(&pid, words[0], NULL, NULL, words, environ);
    if (errno)
        return 0;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return 0;
    errno = 0;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void spawn_conmon(char **words, int socket) {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, socket, SYNC_FD);
    posix_spawn_file_actions_adddup2(&actions, socket, START_FD);
    posix_spawn_file_actions_addchdir_np(&actions, life.directory);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
    errno = posix_spawn(&life.first, words[0], &actions, &attributes, words, conmon_environment);
    if (errno)
        fail("starting %s", words[0]);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
}

/* The pid in conmon's line: {"data": PID}, or {"pid": PID}. */
static pid_t read_sync(void) {
    char line[16 * 1024];
    size_t length = 0;
    while (!memchr(line, '\n', length)) {
        await(life.socket, "conmon's word");
        ssize_t got = read(life.socket, line + length, sizeof line - 1 - length);
        if (got <= 0)
            fail("conmon said nothing");
        length += (size_t)got;
    }
    line[length] = '\0';
    const char *number = strstr(line, "\"data\":");
    number = number ? number + 7 : strstr(line, "\"pid\":") ? strstr(line, "\"pid\":") + 6 : "0";
    pid_t pid = (pid_t)strtol(number, NULL, 10);
    errno = 0;
    if (pid <= 1)
        fail("conmon said %s", line);
    return pid;
}

static void create(const char *id, const char *template, char **words) {
    strcpy(life.directory, fill(plan.directory, id));
    if (mkdir(life.directory, 0750) < 0) {
        int err = errno;
        life.directory[0] = '\0'; /* not ours to remove */
        errno = err;
        fail("making the directory of %s", id);
    }
    char config[sizeof life.directory + 16];
    snprintf(config, sizeof config, "%s/config.json", life.directory);
    write_file(config, template);

    int ends[2], status;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        fail("making sockets");
    life.socket = ends[0];
    spawn_conmon(words, ends[1]);
    close(ends[1]);
    if (write(life.socket, "", 1) != 1)
        fail("writing the start byte");
    while (waitpid(life.first, &status, 0) < 0)
        if (errno != EINTR)
            fail("waiting for conmon's first process");
    life.first = 0;
    errno = 0;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail("conmon failed before it created %s", id);

    pid_t pid = read_sync();
    life.init = (int)syscall(SYS_pidfd_open, pid, 0);
    if (life.init < 0)
        fail("pidfd_open of %d", pid);
}

/* The death of init, then conmon's word about it. */
static void wait_for_exit(const char *exit_file) {
    char code[16], events[4096];
    await(life.init, "the container's end");
    while (!read_file(exit_file, code, sizeof code)) {
        if (errno != ENOENT)
            fail("reading %s", exit_file);
        await(inotify, "the exit file");
        if (read(inotify, events, sizeof events) < 0 && errno != EAGAIN)
            fail("reading inotify");
    }
    if (strcmp(code, "0")) {
        errno = 0;
        fail("the container exited with %s", code);
    }
}

/* conmon and the runtime make files there, no directories. */
static void remove_directory(void) {
    if (!*life.directory)
        return;
    DIR *directory = opendir(life.directory);
    if (!directory)
        return;
    for (struct dirent *entry; (entry = readdir(directory));)
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            unlinkat(dirfd(directory), entry->d_name, 0);
    closedir(directory);
    if (rmdir(life.directory) == 0)
        life.directory[0] = '\0';
}

static void delete_container(const char *exit_file) {
    if (!run(life.delete))
        fail("%s failed", life.delete[0]);
    life.delete = NULL;
    unlink(exit_file);
    remove_directory();
    if (*life.directory)
        fail("removing %s", life.directory);
    close_one(&life.init);
    close_one(&life.socket);
}

/* conmon's own process outlives the first one; its pidfile names it. It is killed last: it reaps init. */
static void clean_up(void) {
    char path[sizeof life.directory + 16], number[16];
    if (!*life.directory)
        return;
    if (life.first > 0)
        kill(life.first, SIGKILL);
    if (life.init >= 0) {
        syscall(SYS_pidfd_send_signal, life.init, SIGKILL, NULL, 0);
        struct pollfd event = {.fd = life.init, .events = POLLIN};
        poll(&event, 1, 2000);
    }
    snprintf(path, sizeof path, "%s/conmon.pid", life.directory);
    if (life.init < 0 && read_file(path, number, sizeof number) && atoi(number) > 1)
        kill(atoi(number), SIGKILL);
    if (life.delete)
        run(life.delete);
    remove_directory();
}

static void live(const char *id, const char *template) {
    arena_used = 0;
    const char *config = fill(template, id), *exit_file = fill(plan.exit_file, id);
    char **conmon = fill_all(plan.conmon, id), **start = fill_all(plan.start, id);
    life.delete = fill_all(plan.delete, id);

    int64_t began = now();
    create(id, config, conmon);
    int64_t created = now();
    if (!run(start))
        fail("%s failed", start[0]);
    int64_t started = now();
    wait_for_exit(exit_file);
    int64_t ended = now();
    delete_container(exit_file);
    int64_t deleted = now();
    printf("{\"create\": %jd, \"start\": %jd, \"wait\": %jd, \"delete\": %jd, \"total\": %jd}\n", (intmax_t)(created - began),
           (intmax_t)(started - created), (intmax_t)(ended - started), (intmax_t)(deleted - ended), (intmax_t)(deleted - began));
    fflush(stdout);
}

/* The words up to the next "--", which becomes the closing NULL. */
static char **command(char ***words) {
    char **first = *words, **at = first;
    while (*at && strcmp(*at, "--"))
        at++;
    if (at == first)
        fail("usage: floor DIRECTORY EXIT_FILE TEMPLATE -- CONMON... -- START... -- DELETE...");
    *words = *at ? at + 1 : at;
    *at = NULL;
    return first;
}

static void prepare(char **words) {
    char **names = command(&words);
    if (!names[1] || !names[2] || strlen(names[0]) >= sizeof life.directory / 2)
        fail("usage: floor DIRECTORY EXIT_FILE TEMPLATE -- CONMON... -- START... -- DELETE...");
    plan.directory = names[0];
    plan.exit_file = names[1];
    plan.conmon = command(&words);
    plan.start = command(&words);
    plan.delete = command(&words);
    static char text[64 * 1024];
    plan.template = read_file(names[2], text, sizeof text);
    if (!plan.template)
        fail("reading %s", names[2]);

    char exit_dir[4096];
    snprintf(exit_dir, sizeof exit_dir, "%.*s", (int)(strrchr(plan.exit_file, '/') - plan.exit_file), plan.exit_file);
    inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (inotify < 0 || inotify_add_watch(inotify, exit_dir, IN_MOVED_TO) < 0)
        fail("watching %s", exit_dir);

    size_t count = 0;
    while (environ[count])
        count++;
    conmon_environment = calloc(count + 3, sizeof *conmon_environment);
    memcpy(conmon_environment, environ, count * sizeof *environ);
    conmon_environment[count] = "_OCI_SYNCPIPE=3";
    conmon_environment[count + 1] = "_OCI_STARTPIPE=4";
}

int main(int argc, char **argv) {
    (void)argc;
    errno = 0;
    /* Takes the numbers that conmon's socket gets, so that none of ours has one of them. */
    for (int held = -1; held < START_FD;)
        if ((held = open("/dev/null", O_RDWR | O_CLOEXEC)) < 0)
            fail("opening /dev/null");
    prepare(argv + 1);
    char id[256];
    while (fgets(id, sizeof id, stdin)) {
        id[strcspn(id, "\n")] = '\0';
        errno = 0;
        live(id, plan.template);
    }
    return 0;
}
