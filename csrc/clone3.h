/* clone3.h: clone3(2) for x86-64 and aarch64; elsewhere HAVE_CLONE3 is 0 and spawn.c uses clone(2). */
#pragma once
#include <linux/sched.h>
#include <sys/syscall.h>

/*
 * clone3(2) with a stack of the child's own, which must run a function: the C library offers no wrapper. Returns the pid in the parent. The
 * child calls run(argument) and exits with what that returns; it never comes back here.
 */
#if defined(__x86_64__)
#define HAVE_CLONE3 1
__attribute__((noinline)) static long sys_clone3(const struct clone_args *args, int (*run)(void *), void *argument) {
    long result;
    register int (*run_register)(void *) __asm__("r12") = run;
    register void *argument_register __asm__("r13") = argument;
    __asm__ volatile("syscall\n\t"
                     "testq %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     "xorl %%ebp, %%ebp\n\t"
                     "movq %%r13, %%rdi\n\t"
                     "callq *%%r12\n\t"
                     "movl %%eax, %%edi\n\t"
                     "movl %[exit], %%eax\n\t"
                     "syscall\n\t"
                     "hlt\n"
                     "1:"
                     : "=a"(result)
                     : "0"((long)SYS_clone3), "D"(args), "S"(sizeof *args), "r"(run_register), "r"(argument_register), [exit] "i"(SYS_exit)
                     : "rcx", "r11", "memory", "cc");
    return result;
}
#elif defined(__aarch64__)
#define HAVE_CLONE3 1
__attribute__((noinline)) static long sys_clone3(const struct clone_args *args, int (*run)(void *), void *argument) {
    register long x0 __asm__("x0") = (long)args;
    register long x1 __asm__("x1") = (long)sizeof *args;
    register long x8 __asm__("x8") = SYS_clone3;
    register int (*run_register)(void *) __asm__("x10") = run;
    register void *argument_register __asm__("x11") = argument;
    __asm__ volatile("svc #0\n\t"
                     "cbnz x0, 1f\n\t"
                     "mov x29, #0\n\t"
                     "mov x30, #0\n\t"
                     "mov x0, x11\n\t"
                     "blr x10\n\t"
                     "mov x8, %[exit]\n\t"
                     "svc #0\n\t"
                     "brk #0\n"
                     "1:"
                     : "+r"(x0)
                     : "r"(x1), "r"(x8), "r"(run_register), "r"(argument_register), [exit] "i"(SYS_exit)
                     : "x30", "memory", "cc");
    return x0;
}
#else
#define HAVE_CLONE3 0
#endif
