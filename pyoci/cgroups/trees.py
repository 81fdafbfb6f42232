"""Ending and removing what is in cgroups: never by a path that was not given, never following a link."""

from __future__ import annotations

import os
from errno import EBUSY, ENOTEMPTY
from signal import SIGKILL

from pyoci import _ffi
from pyoci.cgroups.detection import read_control
from pyoci.process import Process
from pyoci.waiting import Wait, deadline_in, passed, sooner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pyoci.waiting import Operation

CLEAR_TIMEOUT = 2.0
"""Seconds for what was killed to leave its cgroups."""


def kill_all(directories: list[str]) -> list[Process]:
    """SIGKILL to every process in these cgroups and below, until a look finds none that was not sent it; returns them, to be waited for."""
    killed: dict[int, Process] = {}
    for directory in directories:
        for path in _tree(directory):
            _write(f"{path}/cgroup.kill", b"1")  # v2, Linux 5.14: outruns who forks; the dying are still to be waited for
            found = True
            while found:
                found = False
                for word in read_control(f"{path}/cgroup.procs", 1 << 20).split():
                    pid = int(word)
                    if pid in killed or pid <= 0:
                        continue
                    process = Process.find(pid)
                    # Read once more with the pidfd held: the number can have become another process's in between.
                    if process is not None and word in read_control(f"{path}/cgroup.procs", 1 << 20).split():
                        process.signal(SIGKILL)
                        killed[pid] = process
                        found = True
    return list(killed.values())


def signal_all(directories: list[str], signal: int) -> int:
    """Sends a signal to every process in these cgroups and below, once; how many got it."""
    reached: set[int] = set()
    for directory in directories:
        for path in _tree(directory):
            for process in _members(path):
                # Read once more with the pidfd held: the number can have become another process's in between.
                if process.pid not in reached and process.pid in members(path) and process.signal(signal):
                    reached.add(process.pid)
    return len(reached)


def members(directory: str) -> list[int]:
    """The pids of the processes in this cgroup, as this process sees them."""
    return [int(word) for word in read_control(f"{directory}/cgroup.procs", 1 << 20).split() if word != b"0"]


def members_below(directory: str) -> list[int]:
    """Those in this cgroup and below it, sorted."""
    return sorted({pid for path in _tree(directory) for pid in members(path)})


def remove(directories: Sequence[str]) -> dict[str, int]:
    """Removes these cgroups in the order given, with those below. Returns the ones that would not go with their errno; EBUSY: something still
    runs there."""
    errors = _ffi.cgroups_remove(directories)
    if not errors:
        return {}
    # EBUSY is also what a cgroup with others below it says; ENOTDIR, by contrast, that this is none (a link, for one).
    left: list[str] = []
    for directory, error in zip(directories, errors, strict=True):
        if error:
            left += _tree(directory) if error in (EBUSY, ENOTEMPTY) else [directory]
    return {path: error for path, error in zip(left, _ffi.cgroups_remove(left), strict=False) if error and os.path.lexists(path)}


def clear(directories: Sequence[str], timeout: float = CLEAR_TIMEOUT) -> Operation[None]:
    """``remove``, and again while something in there is still ending, for ``timeout`` seconds at most; what would not go then is logged. The
    last processes are waited for by pidfd. For what the kernel has yet to finish itself, of which it tells nobody, it looks again, in growing
    steps."""
    deadline, pause = deadline_in(timeout), 0.001
    while left := remove(directories):
        if passed(deadline) or EBUSY not in left.values():
            import logging

            why = ", ".join(f"{path} ({os.strerror(error)})" for path, error in left.items())
            logging.getLogger("pyoci").warning("cgroups that would not go: %s", why)
            return
        last = [process for directory in left for process in _members(directory) if not process.has_ended()]
        yield Wait([process.pidfd for process in last], (), deadline if last else sooner(deadline, deadline_in(pause)))
        pause *= 2


def _members(directory: str) -> Iterator[Process]:
    for pid in members(directory):
        if (process := Process.find(pid)) is not None:
            yield process


def _tree(directory: str) -> Iterator[str]:
    """The directory and all below it, the deepest first; nothing if it does not exist."""
    try:
        entries = [entry.path for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False)]
    except OSError as error:
        if error.errno in _ffi.SHORTAGES:
            raise
        return
    for path in entries:
        yield from _tree(path)
    yield directory


def _write(path: str, content: bytes) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        os.write(fd, content)
    except OSError:
        pass
    finally:
        os.close(fd)
