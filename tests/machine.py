"""A machine within the machine: cgroups, processes and mounts that only this run and its children see, made of namespaces (namespaces(7))."""

from __future__ import annotations

import ctypes
import os
import signal
import stat
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWPID = 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x20000000
MS_BIND, MS_REC, MS_PRIVATE, MS_SHARED, MNT_DETACH = 0x1000, 0x4000, 0x40000, 0x100000, 2
PR_SET_PDEATHSIG = 1
CGROUPS = "/sys/fs/cgroup"
UNIFIED = ""
UNITS = (".slice", ".service", ".socket", ".mount", ".swap", "/init.scope")
"""systemd's own, which it leaves when its machine ends."""
NOT_CONTROLLERS = {"rw", "ro", "xattr", "noprefix", "clone_children"}
DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
ENDINGS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


def libc(step: str, name: str, *arguments: object) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), f"{step}: {os.strerror(ctypes.get_errno())}")


def unshare(flags: int) -> None:
    """Must be called before there are threads. Mounts made from here on stay here."""
    try:
        libc("unshare", "unshare", flags)
    except PermissionError:
        raise SystemExit("hosts: no namespaces can be made here, which takes CAP_SYS_ADMIN") from None
    if flags & CLONE_NEWNS:
        libc("making / private", "mount", None, b"/", None, MS_REC | MS_PRIVATE, None)


def mount(kind: str, path: str, options: str = "") -> None:
    libc(f"mounting {kind} on {path}", "mount", kind.encode(), path.encode(), kind.encode(), 0, options.encode())


def hide(point: str) -> None:
    """Takes a mount away, and what its mount point holds out of sight: programs that still write there shall not write to the machine's."""
    umount(point)
    mount("tmpfs", point, "mode=0755")


def share(path: str) -> None:
    """Makes a mount shared (mount_namespaces(7)), as all are on a host with systemd."""
    libc(f"sharing {path}", "mount", None, path.encode(), None, MS_SHARED, None)


def bind(source: str, path: str) -> None:
    libc(f"binding {source} to {path}", "mount", source.encode(), path.encode(), None, MS_BIND | MS_REC, None)


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


@dataclass(frozen=True)
class Machine:
    """As its maker holds it."""

    first: int  # its process 1, by the pid outside
    cgroups: list[str]

    def wait(self, *, tell: bool = True) -> int:
        """The code of its first process, after all in there has ended and the cgroups are removed; ``tell`` which ones there still were."""
        code = wait_for(self.first)
        _remove(self.cgroups, tell)
        return code

    def run(self, argv: Sequence[str]) -> int:
        """The code of a program that is started in its cgroups, beside systemd; argv must lead it into the namespaces (nsenter(1))."""
        child = os.fork()
        if child == 0:
            with end_at_errors():
                _stand_apart()
                for path in self.cgroups:
                    beside = f"{path}/init.scope"
                    _write(f"{beside if os.path.isdir(beside) else path}/cgroup.procs", "0")
                forget_signals()
                os.execvp(argv[0], list(argv))
        return wait_for(child)

    def kill(self) -> None:
        os.kill(self.first, signal.SIGKILL)
        self.wait(tell=False)


@contextmanager
def signals_held() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDINGS | {signal.SIGCHLD})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start(name: str) -> Machine | None:
    """Forks. Returns None in the child: it is process 1 of new namespaces (which end with it), in a new cgroup ``name`` of every hierarchy. Mounts
    are still those outside. Needs root, and must be called before there are threads, with signals held."""
    found = hierarchies()
    made: list[str] = []
    try:
        for hierarchy in found:
            _make_cgroup(hierarchy, name)
            made.append(f"{hierarchy.own}/{name}")
        unshare(CLONE_NEWPID)  # its children will be in it, not itself
        first = os.fork()
    except BaseException:
        _remove(made, False)
        raise
    if first != 0:
        return Machine(first, made)
    with end_at_errors():
        _stand_apart()
        libc("prctl", "prctl", PR_SET_PDEATHSIG, signal.SIGKILL)
        for path in made:
            _write(f"{path}/cgroup.procs", "0")
        unshare(CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC)
    return None


@contextmanager
def end_at_errors() -> Iterator[None]:
    """A forked child must not come back to its parent's code."""
    try:
        yield
    except SystemExit as error:
        print(error, file=sys.stderr)
        leave(1)
    except BaseException:
        traceback.print_exc()
        leave(1)


def forget_signals() -> None:
    """What a program that is executed now should not inherit."""
    for number in ENDINGS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _stand_apart() -> None:
    """A signal to our maker's process group is then one for it alone, which hands it on: once. On a terminal the group is the one that may read."""
    if not os.isatty(0):
        os.setpgid(0, 0)


def go_on() -> None:
    """In process 1: returns in a child of it. Itself it reaps, until that child ends."""
    child = os.fork()
    if child != 0:
        leave(wait_for(child))


def enter(name: str, layout: str) -> int | None:
    """Goes on in a child, where it returns None: on a machine with the files of this one, but with cgroups, processes and mounts of its own. In the
    caller returns the child's exit code (128 + n when signal n ended it), when everything of it has gone. Must be called before there are threads."""
    with signals_held():
        made = start(name)
        if made is not None:
            return made.wait()
        with end_at_errors():
            mount("proc", "/proc")
            show_cgroups(layout)
            go_on()
    return None


def show_cgroups(layout: str) -> None:
    """``v1``: the legacy hierarchies alone (crun refuses a cgroup2 beside them). ``v2``: cgroup2 alone. Each begins at the machine's cgroup."""
    found = hierarchies()
    legacy = [hierarchy for hierarchy in found if hierarchy.controllers != UNIFIED]
    if layout == "v1":
        if not legacy:
            raise SystemExit("hosts: this machine has no cgroup v1 hierarchy mounted, so there is no v1 host on it")
        for hierarchy in found:
            (umount if hierarchy in legacy else hide)(hierarchy.point)
        for hierarchy in legacy:
            mount("cgroup", hierarchy.point, hierarchy.controllers)
        return
    umount(CGROUPS)
    mount("cgroup2", CGROUPS)
    _empty_root(CGROUPS)


def _empty_root(path: str) -> None:
    """The root of cgroup2 must be free of processes to hand controllers down, and crun 1.21 waits 2 s for that."""
    os.mkdir(f"{path}/tests")
    _write(f"{path}/tests/cgroup.procs", "0")
    for controller in _read(f"{path}/cgroup.controllers").split():
        _write(f"{path}/cgroup.subtree_control", f"+{controller}")


def change_root(tree: str, shown: Mapping[str, str], layout: str) -> None:
    """Makes ``tree`` the root file system, with devices, /proc, /sys, /run and /tmp of its own, and the directories ``shown`` at the places given
    there; what is written to any of it lies in memory and goes with the machine. ``layout``: ``v2``, or ``systemd``, which arranges cgroup2
    itself."""
    base = "/mnt"
    mount("tmpfs", base, "mode=0755")
    root = f"{base}/root"
    os.mkdir(root)
    _overlay(tree, root, f"{base}/changes-0")
    for number, (path, place) in enumerate(shown.items(), 1):
        os.makedirs(f"{root}{place}", exist_ok=True)
        _overlay(path, f"{root}{place}", f"{base}/changes-{number}")
    mount("proc", f"{root}/proc")
    mount("sysfs", f"{root}/sys")
    mount("cgroup2", f"{root}{CGROUPS}")
    if layout == "v2":
        _empty_root(f"{root}{CGROUPS}")
    for name, options in (("dev", "mode=0755"), ("run", "mode=0755"), ("tmp", "mode=1777")):
        mount("tmpfs", f"{root}/{name}", options)
    _fill_dev(f"{root}/dev")
    libc(f"pivot_root to {tree}", "pivot_root", root.encode(), f"{root}/mnt".encode())
    os.chdir("/")
    umount("/mnt")


def _overlay(lower: str, path: str, changes: str) -> None:
    for name in ("upper", "work"):
        os.makedirs(f"{changes}/{name}")
    mount("overlay", path, f"lowerdir={lower},upperdir={changes}/upper,workdir={changes}/work")


def _fill_dev(dev: str) -> None:
    for name, (major, minor) in DEVICES.items():
        os.mknod(f"{dev}/{name}", stat.S_IFCHR | 0o666, os.makedev(major, minor))
        os.chmod(f"{dev}/{name}", 0o666)
    for name, target in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2"), ("ptmx", "pts/ptmx")):
        os.symlink(target, f"{dev}/{name}")
    for name, kind, options in (
        ("pts", "devpts", "newinstance,ptmxmode=0666,mode=0620,gid=5"),
        ("shm", "tmpfs", "mode=1777"),
        ("mqueue", "mqueue", ""),
    ):
        os.mkdir(f"{dev}/{name}")
        mount(kind, f"{dev}/{name}", options)


def wait_for(child: int) -> int:
    """Reaps whatever ends, until this child does: its code. Who is told to end tells the child, which then cleans up as after Ctrl-C; a terminal
    tells all at once itself. The signals must be blocked."""
    while True:
        told = signal.sigwaitinfo(ENDINGS | {signal.SIGCHLD})
        if told.si_signo != signal.SIGCHLD:
            if told.si_code <= 0 or os.getpgid(child) != os.getpgrp():  # by a process (sigaction(2)), or by a terminal to us only
                os.kill(child, signal.SIGINT)
            continue
        try:
            while (ended := os.waitpid(-1, os.WNOHANG))[0] != 0:
                if ended[0] == child:
                    code = os.waitstatus_to_exitcode(ended[1])
                    return code if code >= 0 else 128 - code
        except ChildProcessError:
            pass


def leave(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _make_cgroup(hierarchy: Hierarchy, name: str) -> None:
    path = f"{hierarchy.own}/{name}"
    os.mkdir(path)
    if hierarchy.controllers == "cpuset":
        for file in ("cpuset.cpus", "cpuset.mems"):  # a new one has none, and takes no process then
            _write(f"{path}/{file}", _read(f"{hierarchy.own}/{file}"))


def _remove(made: list[str], tell: bool) -> None:
    """Removes the cgroups, in which nothing runs any more, with those below."""
    left = []
    for path in made:
        for directory, _, _ in os.walk(path, topdown=False):
            if directory not in (path, f"{path}/tests") and not directory.endswith(UNITS):
                left.append(directory)
            for last in (False,) * 20 + (True,):
                try:
                    os.rmdir(directory)
                    break
                except OSError:  # EBUSY, while what was killed there is taken down
                    if last:
                        raise
                    time.sleep(0.1)
    if tell and left:
        print("the run has left these cgroups:", *left, sep="\n  ", file=sys.stderr)


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()


def _write(path: str, content: str) -> None:
    with open(path, "w") as file:
        file.write(content)
