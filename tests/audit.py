"""The invariant: after every call that returns or raises, within two seconds, nothing is left that was not there before."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from pathlib import Path

from pyoci import direct
from tests.machine import UNITS

GRACE = 2.0
PR_GET_CHILD_SUBREAPER = 37


def processes(state_dir: str | None) -> set[str]:
    """Our children, zombies among them, and every process whose command line names the state directory."""
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            stat = (entry / "stat").read_text()
            name, fields = stat[stat.index("(") : stat.rindex(")") + 1], stat.rpartition(")")[2].split()
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        # Somebody else's zombie is somebody else's to reap: PID 1 gets the conmons, and takes its time on some machines.
        ours = int(fields[1]) == os.getpid()
        if ours or (fields[0] != "Z" and state_dir is not None and state_dir.encode() in command):
            found.add(f"process {entry.name} {name} {fields[0]} {command.replace(bytes(1), b' ')[:200]!r}")
    return found


def descriptors() -> set[str]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        if int(name) <= 2:
            continue  # pytest's capture exchanges them
        try:
            found.add(f"descriptor {name} → {os.readlink(f'/proc/self/fd/{name}')}")
        except OSError:
            pass  # the one that lists
    return found


def mounts() -> set[str]:
    return {f"mount {line}" for line in Path("/proc/self/mountinfo").read_text().splitlines()}


View = tuple[str, str, bytes]


def views() -> dict[str, View]:
    """What each thread of ours sees, by its id: its mount namespace, working directory and mounts."""
    found = {}
    for name in os.listdir("/proc/self/task"):
        task = f"/proc/self/task/{name}"
        try:
            found[name] = (os.readlink(f"{task}/ns/mnt"), os.readlink(f"{task}/cwd"), Path(task, "mountinfo").read_bytes())
        except OSError:
            pass  # it is just ending
    return found


def sees_as(before: dict[str, View]) -> bool:
    """No thread is there that was not, or sees anything else than before. The kernel takes an ended one off the list a moment after it can be
    joined."""
    deadline = time.monotonic() + GRACE
    while views().items() - before.items():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


def cgroups() -> set[str]:
    """All that this run sees, but for systemd's units, which come and go. Who shares the machine's with others is not asked."""
    found: set[str] = set()
    if "PYOCI_TESTS_HOST" not in os.environ:
        return found
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if " - cgroup" in line:
            for directory, below, _ in os.walk(line.split()[4]):
                found |= {f"cgroup {directory}/{name}" for name in below if not name.endswith(UNITS)}
    return found


def files(state_dir: str | None) -> set[str]:
    """What is in the state directory besides the directories that always stand there."""
    if state_dir is None:
        return set()
    base = Path(state_dir)
    fixed = {base / name for name in ("containers", "exits", "crun", "runc", "runtime")}
    return {f"file {path}" for path in base.rglob("*") if path not in fixed and path.parent.name != ".cache"}


def threads() -> set[str]:
    """Python's, and those that only the kernel knows."""
    return {f"thread {thread.name}" for thread in threading.enumerate()} | {f"thread {name}" for name in os.listdir("/proc/self/task")}


def everything(state_dir: str | None) -> set[str]:
    found = processes(state_dir) | descriptors() | mounts() | threads()
    # What else runs on this machine makes cgroups too: only who makes containers is asked about them.
    return found if state_dir is None else found | cgroups() | files(state_dir)


def end_adopting() -> bool:
    """A test without conmon makes this process a subreaper (prctl(2)): the orphans of the tests after it are for process 1 to reap. True if it was
    one; pyoci is told, and makes it one again at the next need."""
    prctl, is_one = ctypes.CDLL(None).prctl, ctypes.c_int()
    prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(is_one), 0, 0, 0)
    if is_one.value:
        prctl(direct.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
        direct._subreaper = 0
    return bool(is_one.value)


def left_over(before: set[str], state_dir: str | None, *, but: str | None = None) -> set[str]:
    """What is there now and was not before; gives what is just ending its time. ``but``: a word in what does not count."""
    deadline = time.monotonic() + GRACE
    while (left := {what for what in everything(state_dir) - before if but is None or but not in what}) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left
