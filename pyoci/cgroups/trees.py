"""Ending and removing what is in cgroups: never by a path that was not given, never following a link."""

from __future__ import annotations

import os
from errno import EBUSY, ENOTEMPTY
from signal import SIGKILL

from pyoci import _ffi
from pyoci.cgroups.detection import read_control
from pyoci.process import Process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


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
                    try:
                        process = Process.open(pid)
                    except OSError:
                        continue
                    # Read once more with the pidfd held: the number can have become another process's in between.
                    if word in read_control(f"{path}/cgroup.procs", 1 << 20).split():
                        process.signal(SIGKILL)
                        killed[pid] = process
                        found = True
    return list(killed.values())


def remove(directories: Sequence[str]) -> list[str]:
    """Removes these cgroups in the order given, with those below; returns the ones that would not go (EBUSY: something still runs there)."""
    errors = dict(zip(directories, _ffi.cgroups_remove(directories), strict=False))
    if not any(errors.values()):
        return []
    # EBUSY is also what a cgroup with others below it says; ENOTDIR, by contrast, that this is none (a link, for one).
    below = [
        path for directory, error in errors.items() for path in (_tree(directory) if error in (EBUSY, ENOTEMPTY) else [directory] if error else ())
    ]
    return [path for path, error in zip(below, _ffi.cgroups_remove(below), strict=False) if error]


def _tree(directory: str) -> Iterator[str]:
    """The directory and all below it, the deepest first; nothing if it does not exist."""
    try:
        entries = [entry.path for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False)]
    except OSError:
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
