"""Control groups: which layout the host has, whether a container is frozen, ending and removing what a container left (cgroups(7))."""

from __future__ import annotations

import errno
import os
from signal import SIGKILL

from pyoci.process import Process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

V2 = ""
"""The key of the unified hierarchy among the mounts; the v1 ones are keyed by controller (or ``name=systemd``)."""


class Cgroups:
    """The hierarchies that this mount namespace shows. ``layout`` is ``v1``, ``v2``, ``hybrid`` (v1 with a cgroup2 beside) or ``none``."""

    __slots__ = ("layout", "mounts")

    def __init__(self, mounts: dict[str, str]) -> None:
        self.mounts = mounts
        legacy = any(key != V2 for key in mounts)
        self.layout = ("hybrid" if V2 in mounts else "v1") if legacy else ("v2" if V2 in mounts else "none")

    def directories(self, cgroups_path: str) -> list[str]:
        """Where a container with this absolute ``linux.cgroupsPath`` may have cgroups; whether they exist is not looked at."""
        relative = _relative(cgroups_path)
        return sorted({f"{mount}/{relative}" for mount in self.mounts.values()}) if relative else []

    def has_oom_kill(self, cgroups_path: str) -> bool:
        """The kernel has killed something in this cgroup, or on v2 below it, for lack of memory (memory.oom_control, memory.events)."""
        relative = _relative(cgroups_path)
        if not relative:
            return False
        for key, name in (("memory", "memory.oom_control"), (V2, "memory.events")):
            if key in self.mounts:
                for line in _read(f"{self.mounts[key]}/{relative}/{name}").splitlines():
                    if line.startswith(b"oom_kill ") and line[9:].strip() != b"0":
                        return True
        return False

    def is_frozen(self, pid: int) -> bool:
        """The process is in a frozen cgroup: signals but SIGKILL on v2 stay pending until it is thawed."""
        try:
            with open(f"/proc/{pid}/cgroup", "rb", buffering=0) as file:
                lines = os.fsdecode(file.read(65536)).splitlines()
        except OSError:
            return False
        for line in lines:
            _, controllers, path = line.split(":", 2)
            if controllers == V2 and V2 in self.mounts:
                content = _read(f"{self.mounts[V2]}{path}/cgroup.freeze")
            elif controllers == "freezer" and "freezer" in self.mounts:
                content = _read(f"{self.mounts['freezer']}{path}/freezer.state")
            else:
                continue
            if content.strip() not in (b"0", b"THAWED", b""):
                return True
        return False


def _relative(cgroups_path: str) -> str:
    """The path below a mount; empty for what is no cgroup of its own."""
    relative = cgroups_path.strip("/")
    return "" if ".." in relative.split("/") else relative


def read(mountinfo: str = "/proc/self/mountinfo") -> Cgroups:
    """Reads the mounts (proc_pid_mountinfo(5)). Costs about 50 µs."""
    try:
        with open(mountinfo, "rb") as file:
            return Cgroups(parse_mountinfo(file.read()))
    except OSError:
        return Cgroups({})


def parse_mountinfo(content: bytes) -> dict[str, str]:
    """controller → mount point; the first mount of each that shows the hierarchy's root counts."""
    mounts: dict[str, str] = {}
    for line in content.splitlines():
        if b" - cgroup" not in line:
            continue
        before, _, after = line.partition(b" - ")
        fields, types = before.split(), after.split()
        if len(fields) < 5 or len(types) < 3:
            continue
        point = os.fsdecode(fields[4]).encode("latin-1", "ignore").decode("unicode_escape") if b"\\" in fields[4] else os.fsdecode(fields[4])
        if types[0] == b"cgroup2":
            mounts.setdefault(V2, point)
        elif types[0] == b"cgroup":
            for option in types[2].split(b","):
                if option not in (b"rw", b"ro", b"xattr", b"noprefix", b"clone_children") and not option.startswith(b"release_agent"):
                    mounts.setdefault(os.fsdecode(option), point)
    return mounts


def kill_all(directories: list[str]) -> list[Process]:
    """SIGKILL to every process in these cgroups and below, until a look finds none that was not sent it; returns them, to be waited for."""
    killed: dict[int, Process] = {}
    for directory in directories:
        for path in _tree(directory):
            if _write(f"{path}/cgroup.kill", b"1"):  # v2, Linux 5.14
                continue
            found = True
            while found:
                found = False
                for word in _read(f"{path}/cgroup.procs", 1 << 20).split():
                    pid = int(word)
                    if pid in killed or pid <= 0:
                        continue
                    try:
                        process = Process.open(pid)
                    except OSError:
                        continue
                    # Read once more with the pidfd held: the number can have become another process's in between.
                    if word in _read(f"{path}/cgroup.procs", 1 << 20).split():
                        process.signal(SIGKILL)
                        killed[pid] = process
                        found = True
    return list(killed.values())


def remove(directories: list[str]) -> list[str]:
    """Removes these cgroups with those below; returns the ones that would not go (EBUSY: something still runs there)."""
    left = []
    for directory in directories:
        if not os.path.lexists(directory):
            continue  # as a rule the runtime has removed it
        for path in _tree(directory):
            try:
                os.rmdir(path)
            except OSError as error:
                if error.errno != errno.ENOENT:
                    left.append(path)
    return left


def _tree(directory: str) -> Iterator[str]:
    """The directory and all below it, the deepest first; nothing if it does not exist."""
    try:
        entries = [entry.path for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return
    for path in entries:
        yield from _tree(path)
    yield directory


def _read(path: str, limit: int = 4096) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(limit) or b""
    except OSError:
        return b""


def _write(path: str, content: bytes) -> bool:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.write(fd, content) == len(content)
    except OSError:
        return False
    finally:
        os.close(fd)
