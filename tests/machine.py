"""A machine within the machine: cgroups, processes and mounts that only this run and its children see, made of namespaces (namespaces(7))."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from typing import NoReturn

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWPID = 0x20000, 0x2000000, 0x20000000
MS_REC, MS_PRIVATE, MS_SHARED, MNT_DETACH = 0x4000, 0x40000, 0x100000, 2
PR_SET_PDEATHSIG = 1
UNIFIED = ""
NOT_CONTROLLERS = {"rw", "ro", "xattr", "noprefix", "clone_children"}
ENDINGS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


def libc(step: str, name: str, *arguments: object) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), f"{step}: {os.strerror(ctypes.get_errno())}")


def unshare(flags: int) -> None:
    """Must be called before there are threads. Mounts made from here on stay here."""
    libc("unshare", "unshare", flags)
    if flags & CLONE_NEWNS:
        libc("making / private", "mount", None, b"/", None, MS_REC | MS_PRIVATE, None)


def mount(kind: str, path: str, options: str = "") -> None:
    libc(f"mounting {kind} on {path}", "mount", kind.encode(), path.encode(), kind.encode(), 0, options.encode())


def share(path: str) -> None:
    """Makes a mount shared (mount_namespaces(7)), as all are on a host with systemd."""
    libc(f"sharing {path}", "mount", None, path.encode(), None, MS_SHARED, None)


def umount(path: str) -> None:
    libc(f"unmounting {path}", "umount2", path.encode(), MNT_DETACH)


@dataclass(frozen=True)
class Hierarchy:
    """A mounted cgroup hierarchy: ``controllers`` as mount takes them (``cpu,cpuacct``, ``name=systemd``), ``UNIFIED`` for cgroup2."""

    controllers: str
    point: str
    own: str  # this process's cgroup in it, as a directory


def hierarchies() -> list[Hierarchy]:
    ours = {}
    for line in _read("/proc/self/cgroup").splitlines():
        _, names, path = line.split(":", 2)
        ours[names] = path
    found: dict[str, Hierarchy] = {}
    for line in _read("/proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        root, point = before.split()[3:5]
        kind, _, options = after.split()
        if kind not in ("cgroup", "cgroup2"):
            continue
        words = (word for word in options.split(",") if word not in NOT_CONTROLLERS and not word.startswith("release_agent"))
        controllers = UNIFIED if kind == "cgroup2" else ",".join(words)
        below = os.path.relpath(ours.get(controllers, "/"), root)
        own = point if below.startswith("..") else os.path.normpath(os.path.join(point, below))
        found.setdefault(controllers, Hierarchy(controllers, point, own))
    return list(found.values())


def enter(name: str, *, without_unified: bool = False) -> int | None:
    """Forks. In the child returns None: there every cgroup hierarchy begins at a new cgroup ``name``, process 1 is one that reaps, and mounts are
    private. In the caller returns the child's exit code (128 + n when signal n ended it), after all that ran in there has ended
    and the cgroups are removed. ``without_unified``: a cgroup2 that is mounted beside v1 (crun refuses that) is not in there.
    Needs root, and must be called before there are threads."""
    found = hierarchies()
    made: list[str] = []
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDINGS | {signal.SIGCHLD})
    try:
        for hierarchy in found:
            _make_cgroup(hierarchy, name)
            made.append(f"{hierarchy.own}/{name}")
        unshare(CLONE_NEWPID)  # its children will be in it, not itself
        first = os.fork()
    except BaseException:
        _remove(made)
        raise
    if first == 0:
        _be_first(found, made, without_unified)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return None
    code = _wait_for(first)
    _remove(made)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return code


def _be_first(found: list[Hierarchy], made: list[str], without_unified: bool) -> None:
    """Process 1 of the machine. Returns in its child; itself it reaps until that child ends, and the kernel then ends all others with it."""
    try:
        libc("prctl", "prctl", PR_SET_PDEATHSIG, signal.SIGKILL)
        for path in made:
            _write(f"{path}/cgroup.procs", "0")
        unshare(CLONE_NEWNS | CLONE_NEWCGROUP)
        mount("proc", "/proc")
        for hierarchy in found:
            umount(hierarchy.point)
            if hierarchy.controllers != UNIFIED:
                mount("cgroup", hierarchy.point, hierarchy.controllers)
            elif len(found) == 1:
                mount("cgroup2", hierarchy.point)
                os.mkdir(f"{hierarchy.point}/tests")  # the root of cgroup2 must be free of processes to hand controllers down
                _write(f"{hierarchy.point}/tests/cgroup.procs", "0")
            elif not without_unified:
                mount("cgroup2", hierarchy.point)
        child = os.fork()
        if child != 0:
            _exit(_wait_for(child))
    except BaseException:
        traceback.print_exc()
        _exit(1)


def _wait_for(child: int) -> int:
    """Reaps whatever ends, until this child does: its code. Who is told to end tells the child, which then cleans up as after Ctrl-C; a terminal
    tells all at once itself. The signals must be blocked."""
    while True:
        told = signal.sigwaitinfo(ENDINGS | {signal.SIGCHLD})
        if told.si_signo != signal.SIGCHLD:
            if told.si_code <= 0:  # by a process (sigaction(2))
                os.kill(child, signal.SIGINT)
            continue
        try:
            while (ended := os.waitpid(-1, os.WNOHANG))[0] != 0:
                if ended[0] == child:
                    code = os.waitstatus_to_exitcode(ended[1])
                    return code if code >= 0 else 128 - code
        except ChildProcessError:
            pass


def _exit(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _make_cgroup(hierarchy: Hierarchy, name: str) -> None:
    path = f"{hierarchy.own}/{name}"
    os.mkdir(path)
    if hierarchy.controllers == "cpuset":
        for file in ("cpuset.cpus", "cpuset.mems"):  # a new one has none, and takes no process then
            _write(f"{path}/{file}", _read(f"{hierarchy.own}/{file}"))


def _remove(made: list[str]) -> None:
    """Removes the cgroups, in which nothing runs any more, and says which there still were below."""
    for path in made:
        for directory, _, _ in os.walk(path, topdown=False):
            if directory not in (path, f"{path}/tests"):
                print(f"the run has left the cgroup {directory}", file=sys.stderr)
            for last in (False,) * 20 + (True,):
                try:
                    os.rmdir(directory)
                    break
                except OSError:  # EBUSY, while what was killed there is taken down
                    if last:
                        raise
                    time.sleep(0.1)


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()


def _write(path: str, content: str) -> None:
    with open(path, "w") as file:
        file.write(content)
