/*
 * thread.c: a thread for one step, after which it ends.
 *
 * What unshare(2) and setns(2) do to a thread cannot always be undone: one that has called them must never run anything else. It is made here,
 * never sees Python, and has ended when the call returns.
 */
#define _GNU_SOURCE
#include "thread.h"
#include "fail.h"

#include <pthread.h>
#include <signal.h>

/* Only touched pages count. What a thread needs besides its frames is the C library's and the sanitizers' (thread-local storage). */
enum { THREAD_STACK = 512 * 1024 };

/* Returns 0 when the thread has run and ended, whatever it did. */
int on_a_thread(void *(*run)(void *), void *argument, struct po_error *ret_error) {
    /* The new thread inherits the mask: no handler of the caller's ever runs on it, whose namespaces are not the process's. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_attr_t attributes;
    pthread_t thread;
    int err = pthread_attr_init(&attributes);
    if (err)
        return fail(ret_error, err, PO_STAGE_THREAD, "");
    pthread_attr_setstacksize(&attributes, THREAD_STACK);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    err = pthread_create(&thread, &attributes, run, argument);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attributes);
    if (err)
        return fail(ret_error, err, PO_STAGE_THREAD, "");
    pthread_join(thread, NULL);
    return 0;
}
