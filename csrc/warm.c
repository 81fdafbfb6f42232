/*
 * warm.c: the program that a container of a warm pool is created with (pyoci/warm.py). It takes one request from a socket and becomes the
 * command that the request names. It is no part of the compiled module, but a static program of its own that runs in the container: without
 * the C library, so that between the start and the command lie these system calls and no others:
 *
 *     recvmsg, read, dup3, close, chdir, execve; write and exit_group when there is nothing to become
 *
 * Nothing stays of it: exec replaces its memory, and its descriptors are closed before. Nobody but the pool has the socket's other end.
 */
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>

/* Told to pyoci/warm.py by nothing but these lines: tests/unit/test_warm.py compares. */
#define PROGRAM_FD 3              /* this program, through which the runtime executes it */
#define REQUEST_FD 4              /* the socket */
#define REQUEST_LIMIT (1U << 21)  /* bytes of all strings: what Linux takes for an exec with the usual stack limit */
#define STRINGS_LIMIT (1U << 16)  /* arguments and variables together */

/* What comes first, with the descriptors for the streams that it names. Then SIZE bytes of strings, each closed by a NUL: the working
   directory (empty: as it is), argc arguments, envc variables, which are added to those that the runtime has set. */
struct header {
    uint32_t size;
    uint32_t argc;
    uint32_t envc;
    uint32_t streams; /* bit N: a descriptor that becomes N */
};

enum { STREAMS = 3, GIVEN_UP = 125, CANNOT_EXECUTE = 126, NOT_FOUND = 127 }; /* the last two as shells have them */

static char strings[REQUEST_LIMIT];
static char *argument_pointers[STRINGS_LIMIT + 1];
static char *variable_pointers[2 * STRINGS_LIMIT + 1];

/* --- system calls: the kernel's own conventions, a negative errno for a failure ---------------------------------------------------- */

#if defined(__x86_64__)
__asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall begin\n");

static long kernel(long number, long a, long b, long c) {
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}
#elif defined(__aarch64__)
__asm__(".globl _start\n_start:\n\tmov x29, xzr\n\tmov x0, sp\n\tbl begin\n");

static long kernel(long number, long a, long b, long c) {
    register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
    return x0;
}
#elif defined(__riscv) && __riscv_xlen == 64
__asm__(".globl _start\n_start:\n\tmv a0, sp\n\tandi sp, sp, -16\n\tcall begin\n");

static long kernel(long number, long a, long b, long c) {
    register long a7 __asm__("a7") = number, a0 __asm__("a0") = a, a1 __asm__("a1") = b, a2 __asm__("a2") = c;
    __asm__ volatile("ecall" : "+r"(a0) : "r"(a7), "r"(a1), "r"(a2) : "memory");
    return a0;
}
#else
#error "warm.c knows no system calls of this machine: warm pools are not possible on it"
#endif

static long call(long number, long a, const void *b, long c) {
    return kernel(number, a, (long)b, c);
}

_Noreturn static void leave(int code) {
    for (;;)
        kernel(SYS_exit_group, code, 0, 0);
}

/* --- strings ----------------------------------------------------------------------------------------------------------------------- */

static bool has_slash(const char *text) {
    while (*text && *text != '/')
        text++;
    return *text == '/';
}

/* Both are NAME=VALUE. */
static bool same_name(const char *a, const char *b) {
    for (; *a == *b && *a; a++, b++)
        if (*a == '=')
            return true;
    return false;
}

static size_t append(char *to, size_t at, size_t room, const char *text) {
    for (; *text && at < room; text++)
        to[at++] = *text;
    return at;
}

/* strerror(3) of what chdir and execve say of a path. */
static const char *reason(long error) {
    switch (error) {
    case ENOENT: return "No such file or directory";
    case EACCES: return "Permission denied";
    case EPERM: return "Operation not permitted";
    case ENOTDIR: return "Not a directory";
    case EISDIR: return "Is a directory";
    case ENOEXEC: return "Exec format error";
    case E2BIG: return "Argument list too long";
    case ELOOP: return "Too many levels of symbolic links";
    case ENAMETOOLONG: return "File name too long";
    case ETXTBSY: return "Text file busy";
    case ENOMEM: return "Cannot allocate memory";
    default: return "the kernel refused it";
    }
}

_Noreturn static void fail(int code, const char *what, const char *path, long error) {
    char line[512];
    size_t at = append(line, 0, sizeof line, "pyoci: ");
    at = append(line, at, sizeof line, what);
    if (path) {
        at = append(line, at, sizeof line, " '");
        at = append(line, at, 400, path);
        at = append(line, at, sizeof line, "': ");
        at = append(line, at, sizeof line, reason(error));
    }
    at = append(line, at, sizeof line - 1, "\n");
    call(SYS_write, 2, line, (long)at);
    leave(code);
}

/* --- the request ------------------------------------------------------------------------------------------------------------------- */

/* The header, and the descriptors that came with its first byte on 0, 1 and 2; they are closed at the exec where they came to lie. */
static void receive(struct header *request) {
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(STREAMS * sizeof(int))];
    } control;
    size_t received = 0, count = 0;
    int descriptors[STREAMS] = {-1, -1, -1};
    while (received < sizeof *request) {
        struct iovec into = {(char *)request + received, sizeof *request - received};
        struct msghdr message = {.msg_iov = &into, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
        long result = call(SYS_recvmsg, REQUEST_FD, &message, MSG_CMSG_CLOEXEC);
        if (result == -EINTR)
            continue;
        if (result <= 0)
            fail(GIVEN_UP, "this container was started, but no command was sent to it", NULL, 0);
        struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
        if (rights && rights->cmsg_level == SOL_SOCKET && rights->cmsg_type == SCM_RIGHTS) {
            const int *sent = (const int *)CMSG_DATA(rights);
            for (size_t n = (rights->cmsg_len - CMSG_LEN(0)) / sizeof(int); count < STREAMS && n > 0; n--)
                descriptors[count++] = *sent++;
        }
        received += (size_t)result;
    }
    size_t next = 0;
    for (int stream = 0; stream < STREAMS; stream++)
        if (request->streams >> stream & 1 && (next == count || kernel(SYS_dup3, descriptors[next++], stream, 0) < 0))
            fail(CANNOT_EXECUTE, "the standard streams did not arrive (RLIMIT_NOFILE?)", NULL, 0);
    if (request->size > REQUEST_LIMIT || request->argc < 1 || request->argc > STRINGS_LIMIT || request->envc > STRINGS_LIMIT)
        fail(CANNOT_EXECUTE, "the request is damaged", NULL, 0);
}

static void receive_strings(uint32_t size) {
    for (uint32_t at = 0; at < size;) {
        long result = call(SYS_read, REQUEST_FD, strings + at, size - at);
        if (result == -EINTR)
            continue;
        if (result <= 0)
            fail(GIVEN_UP, "the command was cut off on its way", NULL, 0);
        at += (uint32_t)result;
    }
}

/* The next string, which must end within the request. */
static char *take(const struct header *request, uint32_t *at) {
    char *text = strings + *at;
    while (*at < request->size && strings[*at])
        ++*at;
    if (*at >= request->size)
        fail(CANNOT_EXECUTE, "the request is damaged", NULL, 0);
    ++*at;
    return text;
}

/* --- becoming the command ---------------------------------------------------------------------------------------------------------- */

static const char *search_path(char **variables) {
    for (; *variables; variables++)
        if (same_name(*variables, "PATH="))
            return *variables + sizeof "PATH=" - 1;
    return "/bin:/usr/bin";
}

/* As execvp(3), but what is neither a program nor a script with "#!" is not given to a shell. Gives the errno. */
static long execute(const char *name, char **arguments, char **variables) {
    char path[PATH_MAX];
    long error = ENOENT;
    if (!*name)
        return ENOENT;
    if (has_slash(name))
        return -kernel(SYS_execve, (long)name, (long)arguments, (long)variables);
    for (const char *from = search_path(variables);; from++) {
        size_t at = 0;
        for (; *from && *from != ':' && at < sizeof path; from++)
            path[at++] = *from;
        if (at > 0)
            at = append(path, at, sizeof path, "/");
        at = append(path, at, sizeof path, name);
        if (at < sizeof path) {
            path[at] = 0;
            long result = -kernel(SYS_execve, (long)path, (long)arguments, (long)variables);
            if (result == EACCES)
                error = EACCES; /* told in the end, if nothing better comes */
            else if (result != ENOENT && result != ENOTDIR)
                return result;
        }
        while (*from && *from != ':')
            from++;
        if (!*from)
            return error;
    }
}

_Noreturn static void run(char **environment) {
    struct header request;
    receive(&request);
    receive_strings(request.size);
    kernel(SYS_close, REQUEST_FD, 0, 0);
    kernel(SYS_close, PROGRAM_FD, 0, 0);

    uint32_t at = 0;
    const char *directory = take(&request, &at);
    for (uint32_t i = 0; i < request.argc; i++)
        argument_pointers[i] = take(&request, &at);
    for (uint32_t i = 0; i < request.envc; i++)
        variable_pointers[i] = take(&request, &at);
    uint32_t variables = request.envc;
    for (; *environment && variables < 2 * STRINGS_LIMIT; environment++) {
        bool is_replaced = false;
        for (uint32_t i = 0; i < request.envc && !is_replaced; i++)
            is_replaced = same_name(*environment, variable_pointers[i]);
        if (!is_replaced)
            variable_pointers[variables++] = *environment;
    }

    long error = *directory ? -kernel(SYS_chdir, (long)directory, 0, 0) : 0;
    if (error)
        fail(CANNOT_EXECUTE, "cannot change to the working directory", directory, error);
    error = execute(argument_pointers[0], argument_pointers, variable_pointers);
    fail(error == ENOENT || error == ENOTDIR ? NOT_FOUND : CANNOT_EXECUTE, "cannot execute", argument_pointers[0], error);
}

/* The stack as the kernel leaves it: argc, the arguments, NULL, the variables, NULL. */
_Noreturn __attribute__((used)) void begin(long *stack);
_Noreturn __attribute__((used)) void begin(long *stack) {
    run((char **)(stack + 1 + stack[0] + 1));
}
