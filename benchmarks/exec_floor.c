/*
 * exec_floor.c: the least program that runs a command to its end, again and again. What an exec of pyoci's takes is measured against it.
 *
 *     exec_floor FILE… -- COMMAND…
 *
 * For each line on standard input it removes the files, which the command makes, runs the command once, with /dev/null as its stdio, and
 * answers with one line: the nanoseconds from before the spawn to after the wait, and the largest resident set, in KiB, of the command or of a
 * process that it has waited for (a program as small as this adds nothing to that: what a child was before its exec counts as well). The
 * command's first word is the path to execute; the environment is passed on as it is.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

__attribute__((noreturn)) static void fail(const char *what, int err) {
    fprintf(stderr, "exec_floor: %s: %s\n", what, strerror(err));
    exit(1);
}

int main(int argc, char **argv) {
    char **command = argv + 1;
    while (*command && strcmp(*command, "--"))
        command++;
    if (argc < 2 || !*command || !*++command)
        fail("usage: exec_floor FILE... -- COMMAND...", EINVAL);
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_init(&actions);
    for (int fd = 0; fd < 3; fd++)
        posix_spawn_file_actions_addopen(&actions, fd, "/dev/null", O_RDWR, 0);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);

    char line[16];
    while (fgets(line, sizeof line, stdin)) {
        pid_t pid;
        int status;
        struct rusage usage;
        for (char **file = argv + 1; strcmp(*file, "--"); file++)
            unlink(*file);
        int64_t began = now();
        int err = posix_spawn(&pid, *command, &actions, &attributes, command, environ);
        if (err)
            fail(*command, err);
        while (wait4(pid, &status, 0, &usage) < 0)
            if (errno != EINTR)
                fail("wait4", errno);
        int64_t took = now() - began;
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
            fprintf(stderr, "exec_floor: %s gave the status %#x\n", *command, (unsigned)status);
            return 1;
        }
        printf("%jd %ld\n", (intmax_t)took, usage.ru_maxrss);
        fflush(stdout);
    }
    return 0;
}
