"""Which cgroup hierarchies the host shows, and what they tell about a container: whether it is frozen, or was out of memory (cgroups(7))."""

from __future__ import annotations

import os

from pyoci import _ffi
from pyoci.process import host_user

V2 = ""
"""The key of the unified hierarchy among the mounts; the v1 ones are keyed by controller (or ``name=systemd``)."""
UNIFIED = "/sys/fs/cgroup/unified"
"""Where a hybrid host has cgroup2. crun (1.8.1) writes there on v1 hosts, too, into plain files, and leaves them."""
THAWED, FROZEN = (b"0", b"THAWED"), (b"1", b"FROZEN")
"""The words of the freezers, v2's and v1's; v1 has FREEZING in between."""


class Cgroups:
    """The hierarchies that this mount namespace shows. ``layout`` is ``v1``, ``v2``, ``hybrid`` (v1 with a cgroup2 beside) or ``none``."""

    __slots__ = ("layout", "mounts", "points")

    def __init__(self, mounts: dict[str, str]) -> None:
        self.mounts: dict[str, str] = mounts
        self.points: list[str] = sorted(set(mounts.values()))
        legacy = any(key != V2 for key in mounts)
        self.layout = ("hybrid" if V2 in mounts else "v1") if legacy else ("v2" if V2 in mounts else "none")

    def directories(self, cgroups_path: str) -> list[str]:
        """Where a container with this absolute ``linux.cgroupsPath`` may have cgroups; whether they exist is not looked at."""
        relative = _relative(cgroups_path)
        return [f"{point}/{relative}" for point in self.points] if relative else []

    def untrue(self, cgroups_path: str) -> str | None:
        """What crun takes for the container's cgroup in the unified hierarchy, where none is mounted."""
        relative = _relative(cgroups_path)
        return f"{UNIFIED}/{relative}" if relative and self.layout == "v1" else None

    def has_oom_kill(self, cgroups_path: str) -> bool:
        """The kernel has killed something in this cgroup, or on v2 below it, for lack of memory (memory.oom_control, memory.events)."""
        relative = _relative(cgroups_path)
        if not relative:
            return False
        for key, name in (("memory", "memory.oom_control"), (V2, "memory.events")):
            if key in self.mounts:
                for line in read_control(f"{self.mounts[key]}/{relative}/{name}").splitlines():
                    if line.startswith(b"oom_kill ") and line[9:].strip() != b"0":
                        return True
        return False

    def is_frozen_at(self, cgroups_path: str) -> bool | None:
        """As ``is_frozen``, of the container's own cgroup; None if it is not where an absolute path says."""
        word = self._freezer_at(cgroups_path)
        return word not in THAWED if word else None

    def is_paused_at(self, cgroups_path: str) -> bool | None:
        """As the runtimes tell it: no process of this cgroup runs any more, or (v2) none is to run. None if it is not where an absolute path says."""
        word = self._freezer_at(cgroups_path)
        return word in FROZEN if word else None

    def _freezer_at(self, cgroups_path: str) -> bytes:
        """What the freezer of a cgroup says; empty when there is none."""
        for key, name in (("freezer", "freezer.state"), (V2, "cgroup.freeze")):
            if key in self.mounts and cgroups_path.startswith("/"):
                return read_control(f"{self.mounts[key]}{cgroups_path}/{name}").strip()
        return b""

    def is_frozen(self, pid: int) -> bool:
        """The process is in a frozen cgroup, or below one: signals but SIGKILL on v2 stay pending until it is thawed."""
        for line in os.fsdecode(read_control(f"/proc/{pid}/cgroup", 65536)).splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == V2 and V2 in self.mounts:
                # What is frozen above is not told below.
                files = [f"{self.mounts[V2]}{path.rsplit('/', up)[0]}/cgroup.freeze" for up in range(path.count("/"))]
            elif controllers == "freezer" and "freezer" in self.mounts:
                files = [f"{self.mounts['freezer']}{path}/freezer.state"]
            else:
                continue
            if any(read_control(file).strip() not in (*THAWED, b"") for file in files):
                return True
        return False


def _relative(cgroups_path: str) -> str:
    """The path below a mount; empty for what is no cgroup of its own."""
    relative = cgroups_path.strip("/")
    return "" if ".." in relative.split("/") else relative


def read(mountinfo: str = "/proc/self/mountinfo") -> Cgroups:
    """Reads the mounts (proc_pid_mountinfo(5)). Costs about 50 µs. Raises OSError when we have no room for looking."""
    try:
        with open(mountinfo, "rb") as file:
            return Cgroups(parse_mountinfo(file.read()))
    except OSError as error:
        if error.errno in _ffi.SHORTAGES:
            raise
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


def read_control(path: str, limit: int = 4096) -> bytes:
    """The content of a control file; empty when it cannot be read. Raises OSError when we have no room for looking."""
    try:
        return _ffi.file_read(path, limit)[0]
    except OSError as error:
        if error.errno in _ffi.SHORTAGES:
            raise
        return b""


def systemd_directory() -> str:
    """Where the systemd that would manage our cgroups has its files, if it runs: root's is the host's process 1 (sd_booted(3)), anybody else's
    their own manager (user@.service(5))."""
    user = host_user()
    if user == 0:
        return "/run/systemd/system"
    return f"{os.environ.get('XDG_RUNTIME_DIR') or f'/run/user/{user}'}/systemd"


def is_populated(directory: str) -> bool:
    """A process is in this cgroup or below it."""
    events = read_control(f"{directory}/cgroup.events")
    if events:
        return b"populated 1" in events
    return any(read_control(f"{path}/cgroup.procs") for path, _, _ in os.walk(directory))
