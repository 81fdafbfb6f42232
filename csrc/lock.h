/*
 * lock.h: which calls let other Python threads run meanwhile: those that wait. It is for the module that cffi generates alone (build_ext.py).
 *
 * cffi lets go of the interpreter lock around every call. Who has let go of it waits up to 5 ms (sys.getswitchinterval) to have it back from a
 * thread that computes, and a container's life is some dozens of calls that take microseconds: with one such thread in the process it would
 * last twenty times as long. So a call keeps the lock, as Python does around what takes no time, unless it is named here.
 */
#pragma once

#undef Py_BEGIN_ALLOW_THREADS
#undef Py_END_ALLOW_THREADS
#define Py_BEGIN_ALLOW_THREADS {
#define Py_END_ALLOW_THREADS }

#define WITHOUT_LOCK(call)                           \
    __extension__({                                  \
        PyThreadState *_saved = PyEval_SaveThread(); \
        __typeof__(call) _result = call;             \
        PyEval_RestoreThread(_saved);                \
        _result;                                     \
    })

/* The child of a spawn is waited for until its exec, which reads the program; a mount, or a thread, may wait for anything. */
#define po_spawn(...) WITHOUT_LOCK(po_spawn(__VA_ARGS__))
#define po_spawn_in_mounts(...) WITHOUT_LOCK(po_spawn_in_mounts(__VA_ARGS__))
#define po_network_make(...) WITHOUT_LOCK(po_network_make(__VA_ARGS__))
#define po_network_names(...) WITHOUT_LOCK(po_network_names(__VA_ARGS__))
#define po_network_unname(...) WITHOUT_LOCK(po_network_unname(__VA_ARGS__))
#define po_network_socket(...) WITHOUT_LOCK(po_network_socket(__VA_ARGS__))
/* The deadline that has passed only looks. */
#define po_poll(events, count, deadline) ((deadline) == 0 ? po_poll(events, count, deadline) : WITHOUT_LOCK(po_poll(events, count, deadline)))
#define po_read_line(fd, buffer, size, length, deadline) \
    ((deadline) == 0 ? po_read_line(fd, buffer, size, length, deadline) : WITHOUT_LOCK(po_read_line(fd, buffer, size, length, deadline)))
#define po_epoll(epoll, changes, count, ret_events, size, deadline)                     \
    ((deadline) == 0 ? po_epoll(epoll, changes, count, ret_events, size, deadline) \
                     : WITHOUT_LOCK(po_epoll(epoll, changes, count, ret_events, size, deadline)))
