"""Exec sessions: what lies on disk of one, in its container's directory, and its processes.

    execs/SESSION.json   what the runtime is to run
          SESSION.pid    the program's pid, written by the runtime once it runs
          SESSION.log    the runtime's own words

Making the first of them is the lock on the session's id; a directory for each would cost more than all of them. The runtime's process stays
as long as the program runs, because it is the one that gets to know the exit code. Its command line names these files: whoever finds a process
that does, and does not live in the container, knows its child as the program. The files go with the session.
"""

from __future__ import annotations

import errno
import os
from _thread import allocate_lock  # as threading's, which is slow to import

from pyoci import ids
from pyoci.conmon import parse_pidfile
from pyoci.errors import ContainerNotFound, InvalidID, ProtocolError, SessionExists, StateDirError
from pyoci.exits import read_small
from pyoci.process import STDERR_KEPT, Process, command_line, descendants, namespace_pids, read_stat
from pyoci.store import MODE, write_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from pyoci.exits import ExitStatus
    from pyoci.lifecycle import Life


_REAPING = allocate_lock()
LONGEST = 240
"""Of an id: its files' names are a little longer, and NAME_MAX is 255."""


def check_id(id: str) -> str:
    """As ``ids.check``, for a session's."""
    if len(ids.check(id, "session id")) > LONGEST:
        raise InvalidID(f"the session id has {len(id)} characters; at most {LONGEST} are possible: {id[:40]!r}…")
    return id


class Session:
    """One exec session, as this process knows it. ``runtime`` is our child if ``ours``, and ``told`` is how it ended; ``process`` is the
    program, once it is known. ``status`` is how the session ended, or ``failure`` why it never began: ``refusal`` is what the runtime said then."""

    __slots__ = ("_told_pid", "base", "failure", "id", "life", "ours", "process", "program", "refusal", "runtime", "status", "told")

    def __init__(self, life: Life, id: str, runtime: Process, *, program: str | None = None) -> None:
        self.life: Life = life
        self.id: str = id
        self.base: str = f"{life.directory}/execs/{id}"
        self.runtime: Process = runtime
        self.program: str | None = program
        self.ours: bool = program is not None
        self.process: Process | None = None
        self.told: tuple[int, int] | None = None
        self._told_pid = 0
        self.refusal: bytes | None = None
        self.status: ExitStatus | None = None
        self.failure: Exception | None = None

    @property
    def is_over(self) -> bool:
        return self.status is not None or self.failure is not None

    def find(self) -> Process | None:
        """The program, if the runtime has told its pid and it still runs."""
        if self.process is None:
            pidfile = read_small(f"{self.base}.pid")
            if pidfile is not None and pidfile[0]:
                self.process = self._child(pidfile[0])
        return self.process

    def _child(self, pidfile: bytes) -> Process | None:
        process = Process.find(parse_or_zero(pidfile))
        stat = read_stat(process.pid) if process is not None else None
        # The runtime's number is its own until it is reaped, so its child is what it says.
        if stat is None or stat.ppid != self.runtime.pid or not self.runtime.signal(0):
            return None
        return process

    def told_pid(self) -> int:
        """The program's pid, as the runtime has told it; 0: not yet. Known also after the end."""
        self._told_pid = self._told_pid or _told_pid(self.base)
        return self._told_pid

    def runtime_ended(self) -> tuple[int, int] | None:
        """(code, signal) of the runtime, reaped if it is our child; (-1, 0) when nobody knows, None while it lives."""
        if self.told is None and self.runtime.has_ended():
            with _REAPING:  # a second thread would find nothing to reap
                if self.told is None:
                    self.told_pid()  # first: for want of a descriptor it can fail, and the code is told once
                    self._take((self.runtime.reap() if self.ours else self.runtime.exit_code()) or (-1, 0))
        return self.told

    def _take(self, told: tuple[int, int]) -> None:
        # Without a pid it has failed itself, unless somebody has removed what lay on disk.
        if told[0] > 0 and self.process is None and not self._told_pid and os.path.lexists(f"{self.base}.json"):
            try:
                found = read_small(f"{self.base}.log", STDERR_KEPT)
            except OSError:
                found = None
            self.refusal = found[0] if found is not None else b""
        self.told = told

    def sweep(self) -> bool:
        """Once the runtime has ended: takes away what lies on disk of a session of ours. False while it lives."""
        if self.runtime_ended() is None:
            return False
        if self.ours and not self.life.is_inherited():
            self.remove()
        return True

    def remove(self) -> None:
        """What lies on disk; gone already is fine."""
        for suffix in (".pid", ".log", ".json"):  # the lock last
            try:
                os.unlink(self.base + suffix)
            except OSError:
                pass

    def members(self) -> list[Process]:
        """The program, all below it, and what else belongs to its session (setsid(2)), such as what it left in the background; nothing if
        it has ended. What made a session of its own and lost its parent is no part of it any more."""
        main = self.find()
        stat = read_stat(main.pid) if main is not None else None
        runtime = read_stat(self.runtime.pid)
        if main is None or stat is None or runtime is None:
            return []
        found = {main.pid: main}
        below = set(descendants({main.pid}))
        # A runtime that made no session for the program would leave it in the caller's.
        own = stat.session if stat.session != runtime.session else -1
        for pid in below | {int(name) for name in os.listdir("/proc") if name.isdecimal()}:
            if pid in found:
                continue
            process, looked = Process.find(pid), read_stat(pid)
            if process is not None and looked is not None and (looked.session == own or (pid in below and looked.ppid in below | {main.pid})):
                found[pid] = process
        # While it lived, its session's number was its own.
        return [] if main.has_ended() else list(found.values())

    def claim(self, process: bytes, ours: Collection[str] = ()) -> None:
        """Writes what the runtime is to run. ``ours``: ids that this process still holds. Raises SessionExists, ContainerNotFound, StateDirError."""
        path = f"{self.base}.json"
        for _ in range(3):
            try:
                return write_file(path, process)
            except StateDirError as error:
                if error.errno == errno.ENOENT:
                    self._make_directory()
                elif error.errno != errno.EEXIST:
                    self.remove()
                    raise
                elif self.id in ours or not self._remove_if_abandoned():
                    break
        raise SessionExists(f"{self.life.id!r} has an exec session {self.id!r} already: {path} exists; use another id")

    def _make_directory(self) -> None:
        try:
            os.mkdir(os.path.dirname(self.base), MODE)
        except FileExistsError:
            pass
        except FileNotFoundError:
            raise ContainerNotFound(f"no container {self.life.id!r}: it was deleted") from None

    def _remove_if_abandoned(self) -> bool:
        """Removes what an owner left behind that has gone itself: a program has run, and its runtime has ended and been reaped."""
        if not os.path.lexists(f"{self.base}.pid") or _runtime_of(self.base) is not None:
            return False
        self.remove()
        return True

    def release(self) -> None:
        """After a stop by somebody else than the owner, who may be gone."""
        if not self.ours:
            self._remove_if_abandoned()


def _runtime_of(base: str) -> Process | None:
    """The runtime's process: above the program, or, while that is not known, found among all. What it has forked and is not yet the program
    has the same command line, so it is the topmost that has it."""
    program = _told_pid(base)
    mark = os.fsencode(f"\0--pid-file\0{base}.pid\0")
    for start in [program] if read_stat(program) is not None else [int(name) for name in os.listdir("/proc") if name.isdecimal()]:
        pid = start
        while (stat := read_stat(pid)) is not None and mark in command_line(stat.ppid):
            pid = stat.ppid
        process = Process.find(pid)
        if process is not None and mark in command_line(pid) and _is_outside(pid) and process.signal(0):
            return process
    return None


def _told_pid(base: str) -> int:
    """The program's pid, as the runtime has told it; 0: not yet."""
    found = read_small(f"{base}.pid")
    return parse_or_zero(found[0]) if found is not None else 0


def parse_or_zero(pidfile: bytes) -> int:
    try:
        return parse_pidfile(pidfile, "pidfile")
    except ProtocolError:
        return 0


def _is_outside(pid: int) -> bool:
    """The process is in our pid namespace: what lives in a container can call itself what it likes. Told by the only number that it has."""
    return len(namespace_pids(pid)) == 1


def recorded(life: Life) -> list[Session]:
    """The sessions that live, by id, whichever process started them."""
    try:
        names = sorted(os.listdir(f"{life.directory}/execs"))
    except FileNotFoundError:
        return []
    found = []
    for name in names:
        id, suffix = os.path.splitext(name)
        if suffix != ".json":
            continue
        runtime = _runtime_of(f"{life.directory}/execs/{id}")
        if runtime is None or runtime.has_ended():
            continue
        # runc outlives the program while something else still holds its output.
        program = _told_pid(f"{life.directory}/execs/{id}")
        stat = read_stat(program)
        if not program or (stat is not None and stat.state not in "ZX"):
            found.append(Session(life, id, runtime))
    return found
