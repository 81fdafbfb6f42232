"""System calls that fail: strace (its ``inject``) on one thread of this process, for a piece of work of its. What it starts is not traced."""

from __future__ import annotations

import subprocess
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

PATIENCE = 60.0
_OPENS = ("EMFILE", "ENFILE", "ENOMEM")
ERRNOS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("open", "openat", "pipe2", "socket", "socketpair", "accept4", "memfd_create", "pidfd_open"), _OPENS),
    **dict.fromkeys(("epoll_create1", "eventfd2", "inotify_init1", "timerfd_create"), _OPENS),
    **dict.fromkeys(("clone", "clone3"), ("EAGAIN", "ENOMEM", "EMFILE")),
    "mmap": ("ENOMEM", "EAGAIN"),
    **dict.fromkeys(("brk", "mprotect", "mremap", "ppoll", "poll", "epoll_ctl", "inotify_add_watch"), ("ENOMEM",)),
    **dict.fromkeys(("stat", "lstat", "fstat", "newfstatat", "statx", "access", "faccessat2", "readlink", "getdents64"), ("ENOMEM",)),
    **dict.fromkeys(("mkdir", "rmdir", "rename", "unlink", "unlinkat", "ftruncate", "fchown", "bind", "listen"), ("ENOMEM",)),
    **dict.fromkeys(("read", "pread64", "write", "sendmsg", "recvmsg", "recvfrom", "sendfile"), ("ENOMEM",)),
    **dict.fromkeys(("unshare", "setns", "mount", "umount2"), ("ENOMEM",)),
}
"""What the manual page of each says of want of descriptors and memory. Not here: what cannot fail so, and what would not be done when it is
said to have failed, as close(2) always is."""


class Fault:
    """One call of a thread's, counted from the beginning of its work, that is not made but fails."""

    def __init__(self, call: str, errno: str, number: int, more: str = "") -> None:
        self.call = call
        self.errno = errno
        self.number = number
        self.more = more

    def __repr__(self) -> str:
        return f"{self.errno} at {self.call} {self.number}{self.more}"

    @property
    def options(self) -> list[str]:
        return [f"--trace={self.call}", f"--inject={self.call}:error={self.errno}:when={self.number}{self.more}"]


class Outcome:
    """How a piece of work ended, and what it called: lines of strace's."""

    def __init__(self) -> None:
        self.result: Any = None
        self.error: BaseException | None = None
        self.calls: list[str] = []

    @property
    def was_hit(self) -> bool:
        return any("(INJECTED)" in line for line in self.calls)


def attach(thread: int, options: list[str], log: str) -> subprocess.Popen[bytes]:
    """strace, when it holds the thread. Ended by SIGTERM it lets go."""
    tracer = subprocess.Popen(["strace", f"--attach={thread}", f"--output={log}", *options], stderr=subprocess.PIPE)
    assert tracer.stderr is not None
    said = tracer.stderr.readline()
    if b"attached" not in said:
        tracer.kill()
        raise AssertionError(f"strace: {said + tracer.stderr.read()!r}")
    return tracer


def detach(tracer: subprocess.Popen[bytes]) -> None:
    assert tracer.stderr is not None
    with tracer.stderr:
        tracer.terminate()
        tracer.wait()


def traced(work: Callable[[], Any], options: list[str], thread_id: int | None = None) -> Outcome:
    """Does a piece of work on a thread of its own. It is that thread whose calls are traced, or another one that works for it."""
    outcome = Outcome()
    go, done, end = threading.Event(), threading.Event(), threading.Event()

    def act() -> None:
        go.wait()
        try:
            outcome.result = work()
        except BaseException as error:
            outcome.error = error
        done.set()
        end.wait()

    thread = threading.Thread(target=act, name="traced")
    thread.start()
    with tempfile.NamedTemporaryFile("r") as log:
        tracer = attach(thread_id or thread.native_id or 0, options, log.name)
        go.set()
        is_done = done.wait(PATIENCE)
        detach(tracer)
        end.set()
        assert is_done, f"it hangs: {log.read()[-2000:]}"
        thread.join()
        outcome.calls = log.read().splitlines()
    return outcome


def faults(work: Callable[[], Any], thread_id: int | None = None) -> Iterator[Fault]:
    """Each one that a piece of work can meet, as it goes once undisturbed."""
    outcome = traced(work, ["--decode-fds=path"], thread_id)
    if outcome.error is not None:
        raise outcome.error
    numbers: Counter[str] = Counter()
    has_eventfd = any("[eventfd]" in line for line in outcome.calls)
    for line in outcome.calls:
        call = line.partition("(")[0]
        numbers[call] += 1
        if has_eventfd and call in ("read", "write"):
            continue  # those of an eventfd cannot fail so, and which they are is not the same each time
        for errno in ERRNOS.get(call, ()):
            yield Fault(call, errno, numbers[call])
