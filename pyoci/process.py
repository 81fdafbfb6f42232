"""Processes by pidfd: starting one, running a tool to its end under a deadline, and ending a whole tree.

A pidfd never means another process; a pid can. So every signal goes through a pidfd, and what is read from /proc by number is read while a
pidfd of that number is held, and the process was then still there.
"""

from __future__ import annotations

import os
from signal import SIGKILL, SIGSTOP

from pyoci import _ffi, forks
from pyoci.errors import RuntimeFailed, Timeout
from pyoci.waiting import Wait, deadline_in, passed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Self

    from pyoci._ffi import Block
    from pyoci.mounts import Mounts
    from pyoci.waiting import Operation

STDERR_LIMIT = 1024 * 1024
"""What a tool can say; a write that would go beyond is refused whole, so there is more room than is kept."""
STDERR_KEPT = 64 * 1024
STDOUT_LIMIT = 4 * 1024 * 1024
CAP_SYS_PTRACE = 19
KILL_GRACE = 2.0
"""Seconds in which a process that was sent SIGKILL is expected to be gone; longer means uninterruptible sleep (D state)."""


def host_user() -> int:
    """Whose our doings are outside of a user namespace in which we are root, as below podman of an ordinary user: the user that made it
    (user_namespaces(7)). Else our effective user id."""
    user = os.geteuid()
    if user != 0:
        return user
    try:
        with open("/proc/self/uid_map", "rb") as file:
            inside, outside, _ = map(int, file.readline().split())
    except (OSError, ValueError):
        return user  # a kernel without user namespaces
    return outside if inside == 0 else user


class Descriptor:
    """An open descriptor, closed when nobody holds it any more. Who waits on ``fd`` holds the owner, so it is never closed and reused
    under a waiting thread."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd: int = fd

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            _ffi.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class Process:
    """A process that is known by a pidfd. Ours to reap if ``spawn`` made it."""

    __slots__ = ("_generation", "_struct")

    def __init__(self) -> None:
        self._generation = forks.generation
        # What C fills in, so that a KeyboardInterrupt just after the call finds it here.
        self._struct = _ffi.new_process()

    @classmethod
    def open(cls, pid: int) -> Process:
        """Raises ProcessLookupError when there is none."""
        self = cls()
        self._struct.pidfd = _ffi.pidfd_open(pid)
        self._struct.pid = pid
        return self

    @classmethod
    def find(cls, pid: int) -> Process | None:
        """None when there is none. Raises OSError when we have no room for looking."""
        try:
            return cls.open(pid)
        except OSError as error:
            if error.errno in _ffi.SHORTAGES:
                raise
            return None

    def spawn(
        self,
        path: str,
        argv: list[str] | Block,
        env: Block,
        *,
        fds: Sequence[int] = (-1, -1, -1),
        cwd: str | None = None,
        process_group: bool = False,
        cgroup: int = -1,
        cgroup_procs: Sequence[int] = (),
        label: str | None = None,
        mounts: Mounts | None = None,
    ) -> Process:
        """Starts a program as this process (see ``_ffi.spawn``). Raises SpawnError."""
        _ffi.spawn(
            path,
            argv,
            env,
            self._struct,
            fds=fds,
            cwd=cwd,
            process_group=process_group,
            cgroup=cgroup,
            cgroup_procs=cgroup_procs,
            label=label,
            mounts=mounts,
        )
        return self

    @property
    def pidfd(self) -> int:
        """-1 when there is no process, or none any more."""
        return int(self._struct.pidfd)

    @property
    def pid(self) -> int:
        return int(self._struct.pid)

    def is_inherited(self) -> bool:
        """This object came through a fork: the process is our parent's to signal."""
        return self._generation != forks.generation

    def signal(self, signal: int) -> bool:
        """Sends a signal; False when the process is gone, or our parent's."""
        return (signal == 0 or not self.is_inherited()) and self._struct.pidfd >= 0 and _ffi.pidfd_signal(self._struct.pidfd, signal)

    def has_ended(self) -> bool:
        """It is dead, though perhaps not yet reaped."""
        return bool(_ffi.poll((self._struct.pidfd,), (), 0))

    def reap(self) -> tuple[int, int] | None:
        """(code, signal) of our own child that ended, None while it runs. Where SIGCHLD is ignored, or somebody else in this program
        reaped it, the kernel is asked (Linux 6.15); code -1 with signal 0 means that nobody knows."""
        try:
            return _ffi.pidfd_reap(self._struct.pidfd)
        except ChildProcessError:
            return _ffi.pidfd_exit_info(self._struct.pidfd) or (-1, 0)

    def reap_adopted(self) -> None:
        """Where this process is PID 1 or a subreaper, what conmon leaves behind becomes our child: no zombie of it may stay."""
        if self.pidfd >= 0:
            _ffi.pidfd_reap_if_ours(self._struct.pidfd)  # somebody else's, as a rule

    def exit_code(self) -> tuple[int, int] | None:
        """(code, signal) of a dead process that is not our child, None if the kernel does not tell: from the pidfd once it was reaped
        (Linux 6.15), before that from its zombie."""
        told = _ffi.pidfd_exit_info(self._struct.pidfd)
        if told is not None:
            return told
        stat = read_stat(self.pid)
        told = _ffi.pidfd_exit_info(self._struct.pidfd)  # reaped meanwhile: then the number may already be another's
        if told is not None or stat is None or stat.state not in "ZX" or stat.exit_code is None or not self.signal(0):
            return told
        if stat.exit_code == 0 and not _sees_exit_codes():
            return None
        return (-1, stat.exit_code & 0x7F) if stat.exit_code & 0x7F else (stat.exit_code >> 8 & 0xFF, 0)

    def identify(self, pid: int) -> tuple[int, Identity]:
        """Takes hold of a process that is there: its parent, and who it is. Raises OSError, ProcessLookupError when there is none."""
        parent, start_time, inode = _ffi.identify(pid, self._struct)
        return parent, Identity(pid, start_time, inode)

    def inode(self) -> int:
        """The number that the kernel gives to this process alone until it boots again (pidfs, Linux 6.9); before that the same for all."""
        return os.fstat(self.pidfd).st_ino

    def close(self) -> None:
        struct = self._struct
        fd, struct.pidfd = struct.pidfd, -1
        if fd >= 0:
            _ffi.close(fd)

    def __del__(self) -> None:
        self.close()


def has_capability(capability: int) -> bool:
    """In our effective set (capabilities(7))."""
    with open("/proc/self/status", "rb") as file:
        effective = next((line for line in file if line.startswith(b"CapEff:")), b"CapEff: 0")
    return bool(int(effective.split()[1], 16) >> capability & 1)


_sees: bool | None = None


def _sees_exit_codes() -> bool:
    """To others the kernel may show a 0 in the stat file of a process that is not theirs, as of one in a user namespace. Asked once."""
    global _sees
    if _sees is None:
        _sees = has_capability(CAP_SYS_PTRACE)
    return _sees


class Stat:
    """The fields of /proc/PID/stat that matter here (proc_pid_stat(5))."""

    __slots__ = ("exit_code", "ppid", "session", "start_time", "state")

    def __init__(self, state: str, ppid: int, session: int, start_time: int, exit_code: int | None) -> None:
        self.state: str = state
        self.ppid: int = ppid
        self.session: int = session
        self.start_time: int = start_time
        self.exit_code: int | None = exit_code


def read_stat(pid: int) -> Stat | None:
    """None when there is no such process. Raises OSError when we have no room for looking."""
    try:
        content, _ = _ffi.file_read(f"/proc/{pid}/stat", 1024)
    except OSError as error:  # ESRCH: it went away between open and read
        if error.errno in _ffi.SHORTAGES:
            raise
        return None
    # The name, in parentheses, can hold anything, so count from its end: state is field 3.
    fields = content.rpartition(b")")[2].split()
    return Stat(fields[0].decode(), int(fields[1]), int(fields[3]), int(fields[19]), int(fields[49]) if len(fields) > 49 else None)


def namespace_pids(pid: int) -> list[int]:
    """Its numbers in our pid namespace and in each one below it that it is in (pid_namespaces(7)); empty when it is gone. /proc/PID/ns would tell,
    too, but crun hides that from an ordinary user."""
    try:
        with open(f"/proc/{pid}/status", "rb", buffering=0) as file:
            status = file.read(4096) or b""
    except OSError:
        return []
    return next(([int(number) for number in line.split()[1:]] for line in status.splitlines() if line.startswith(b"NSpid:")), [])


def command_line(pid: int) -> bytes:
    """Its arguments, each closed by a NUL; empty for one that is dead, or is none. Raises OSError when we have no room for looking."""
    try:
        return _ffi.file_read(f"/proc/{pid}/cmdline", 65536)[0]
    except OSError as error:
        if error.errno in _ffi.SHORTAGES:
            raise
        return b""


def ended(process: Process, deadline: int) -> Operation[bool]:
    """Waits until a process is dead; False at the deadline."""
    while True:
        ready = yield Wait((process.pidfd,), (), deadline)
        if process.pidfd in ready:
            return True
        if passed(deadline):
            return False


class Output:
    """What a tool said."""

    __slots__ = ("stderr", "stdout")

    def __init__(self, stdout: bytes, stderr: bytes) -> None:
        self.stdout: bytes = stdout
        self.stderr: bytes = stderr


def returncode_of(exit: tuple[int, int]) -> int:
    """As subprocess tells it: the code, or -N for signal N. What nobody knows, (-1, 0), stays no success."""
    code, signal = exit
    return -signal if signal else code


def read_capture(fd: int, limit: int = STDERR_KEPT) -> bytes:
    """What was written to an ``_ffi.capture`` so far, up to where the writers, who share its offset, have come; at most ``limit`` bytes."""
    size = min(os.lseek(fd, 0, os.SEEK_CUR), limit)
    return os.pread(fd, size, 0) if size else b""


def invoke(
    step: str,
    path: str,
    argv: list[str],
    env: Block,
    timeout: float,
    *,
    stdout: bool = False,
    executable: str | None = None,
) -> Operation[Output]:
    """Runs a tool to its end: stdin is /dev/null, and what it says is captured (bounded), never ours; without ``stdout`` it is all stderr.
    ``executable``: what is executed in place of ``path``, the name by which it is spoken of.
    After ``timeout`` seconds, or when we are interrupted, it dies with all its descendants. Raises SpawnError, Timeout and, unless the exit
    code is 0, RuntimeFailed."""
    with Descriptor(_ffi.capture(STDERR_LIMIT)) as err, Descriptor(_ffi.capture(STDOUT_LIMIT) if stdout else -1) as out:
        tool = Process()
        try:
            tool.spawn(executable or path, argv, env, fds=(-1, out.fd if stdout else err.fd, err.fd), process_group=True)
            if not (yield from ended(tool, deadline_in(timeout))):
                raise Timeout(f"{step}: {path} did not end within {timeout:g} s and was killed", timeout)
            code = returncode_of(tool.reap() or (-1, 0))
        except BaseException:
            yield from kill_tree([tool])
            tool.close()
            raise
        tool.close()
        said = read_capture(err.fd)
        if code != 0:
            raise RuntimeFailed(step, [path, *argv[1:]], code, said)
        return Output(read_capture(out.fd, STDOUT_LIMIT) if stdout else b"", said)


def descendants(roots: set[int]) -> list[int]:
    """The pids below these, from one look at all of /proc. A process whose parent has died is not found: hold a subreaper above it."""
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            stat = read_stat(int(name))
            if stat is not None:
                parents[int(name)] = stat.ppid
    below: set[int] = set()
    grown = True
    while grown:
        new = {pid for pid, parent in parents.items() if (parent in roots or parent in below) and pid not in below}
        below |= new
        grown = bool(new)
    return sorted(below)


def kill_tree(roots: Iterable[Process], *, also: Callable[[], Iterable[int]] = tuple, grace: float = KILL_GRACE) -> Operation[bool]:
    """SIGKILL to these processes, to those that ``also`` finds, and to all below them, however they fork meanwhile; True when all are dead
    within ``grace`` seconds. Roots that came through a fork are left alone.

    Everything is stopped before it is looked below, until a look finds nothing new: so nothing can slip away by forking or by being
    reparented. A process is identified by its pidfd, taken before it is looked at a second time. What there is no room for looking at is looked at
    once more, and again when the others are dead; OSError is raised only then."""
    held: dict[int, Process] = {root.pid: root for root in roots if root.pidfd >= 0 and not root.is_inherited()}
    for process in held.values():
        process.signal(SIGSTOP)
    found, want = True, None
    while found:
        try:
            found = _stop_more(held, also)
        except OSError as error:
            found, want = want is None, error
    for process in held.values():
        process.signal(SIGKILL)
    deadline = deadline_in(grace)
    gone = True
    for process in held.values():
        gone = (yield from ended(process, deadline)) and gone
        process.reap_adopted()
    # SIGSTOP takes a moment to arrive: who forked in it, and was dead or reparented at the look, is found now.
    if gone and not held.keys() >= set(also()):
        if want is not None and not held:
            raise want
        held.clear()  # and closed
        return (yield from kill_tree((), also=also, grace=grace))
    return gone


def _stop_more(held: dict[int, Process], also: Callable[[], Iterable[int]]) -> bool:
    """One look for ``kill_tree``: takes hold of what is found, and stops it. False when there is nothing new. Raises OSError when we have no room for
    looking."""
    found = False
    for pid in {*descendants(set(held)), *also()} - set(held):
        process, stat = Process.find(pid), read_stat(pid)
        if process is None:
            continue
        # The parent's number is its own until it is reaped: after that its children are another's.
        is_below = stat is not None and stat.ppid in held and held[stat.ppid].signal(0)
        # Also what is dead: as a zombie of one that is killed here, it may become ours to reap.
        if stat is not None and (is_below or (stat.state not in "ZX" and pid in also())):
            process.signal(SIGSTOP)
            held[pid] = process
            found = True
    return found


class Identity:
    """Who a process is, for the disk: its pid, its start time (clock ticks since boot: a small pid_max is used up within one), its inode."""

    __slots__ = ("inode", "pid", "start_time")

    def __init__(self, pid: int, start_time: int, inode: int) -> None:
        self.pid: int = pid
        self.start_time: int = start_time
        self.inode: int = inode

    @classmethod
    def of(cls, process: Process) -> Self | None:
        """None when it is gone."""
        stat = read_stat(process.pid)
        return None if stat is None else cls(process.pid, stat.start_time, process.inode())

    @classmethod
    def parse(cls, words: Sequence[bytes], least: int = 2) -> Self | None:
        """What ``str`` made; None for anything else, and for a pid below ``least``."""
        if len(words) != 3 or not all(word.isdigit() and len(word) <= 20 for word in words) or int(words[0]) < least:
            return None
        return cls(*map(int, words))

    def __str__(self) -> str:
        return f"{self.pid} {self.start_time} {self.inode}"

    def find(self) -> Process | None:
        """The process, or None if it is gone and the number perhaps another's. Raises OSError when that cannot be told, as without a free
        descriptor."""
        process = Process()
        try:
            _, found = process.identify(self.pid)
        except ProcessLookupError:
            return None
        return process if (found.start_time, found.inode) == (self.start_time, self.inode) else None
