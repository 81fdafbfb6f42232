"""Doing without the runtime's binary, or with a quicker one, where the outcome is the same: what runc and crun do in ``start``, ``delete`` and
``state`` of an ordinary container is little, and starting a process for it costs more than all the rest. Each can be switched off
(``OCIRuntime(shortcuts=…)``), and the plain command always stands behind it.

``start``   through the FIFO at which a created container's init waits (runc libcontainer/init_linux.go, crun src/libcrun/status.c): writing a
            byte to crun's, reading runc's. Not for containers with poststart hooks, which the ``start`` command runs.
``delete``  removing the cgroups and the runtime's state ourselves. Not for containers with poststop hooks.
``state``   of a container that lives: its FIFO and its freezer are looked at, as the runtimes do. Not below systemd, which chooses the cgroup.
``memfd``   crun from a sealed memory file: it copies itself into one on every call otherwise (CVE-2019-5736). Root only, not under SELinux,
            where the file's label decides the domain.
"""

from __future__ import annotations

import os
from errno import ENXIO
from fcntl import F_ADD_SEALS, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_WRITE, LOCK_EX, fcntl

from pyoci import _ffi, selinux
from pyoci.errors import ContainerStateError, InvalidOption
from pyoci.process import Descriptor
from pyoci.waiting import Wait, deadline_in, passed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Literal, TypeAlias

    from pyoci.waiting import Operation

    Shortcut: TypeAlias = Literal["start", "delete", "state", "memfd"]

ALL: frozenset[str] = frozenset(("start", "delete", "state", "memfd"))
KNOWN = ("crun", "runc")
"""The runtimes whose ways are known; any other gets the plain commands."""
DYING = 0.05
"""Seconds that the death of a process takes at most, from its files' to its own."""
MFD_EXEC = 0x10  # Linux 6.3
SEALS = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE


def chosen(wanted: bool | Iterable[Shortcut], runtime: str, *, plain: bool) -> frozenset[str]:
    """The shortcuts that are wanted and possible with this runtime. ``plain``: it is called without options of the caller's, which could
    mean anything. Raises InvalidOption for a name that is none."""
    names = ALL if wanted is True else frozenset() if wanted is False else frozenset((wanted,) if isinstance(wanted, str) else wanted)
    if not names <= ALL:
        raise InvalidOption(f"shortcuts must be True, False or some of {', '.join(sorted(ALL))}, not {wanted!r}")
    if os.path.basename(runtime) not in KNOWN or not plain:
        return frozenset()
    if os.path.basename(runtime) != "crun" or os.geteuid() != 0 or selinux.enabled():
        return names - {"memfd"}
    return names


def start(fifo: str, runtime: str, init: int, timeout: float) -> Operation[bool]:
    """Lets a created container go; ``init`` is the pidfd of its init. False when nothing waits there: the plain command then tells why. Raises
    ContainerStateError when somebody else starts it at the same time."""
    try:
        # Without waiting for the other end: whoever waits there is let go by the opening of ours.
        gate = Descriptor(_ffi.open_file(fifo, os.O_NONBLOCK | (os.O_WRONLY if runtime == "crun" else os.O_RDONLY)))
    except OSError as error:
        if error.errno == ENXIO:  # nobody waits there any more, and yet it is there
            yield from _check_dead(init)
        return False
    with gate:
        try:
            _ffi.lock(gate.fd, LOCK_EX)
        except BlockingIOError:
            raise ContainerStateError("somebody else starts it at the same time", "running") from None
        if not _ffi.exists(fifo):  # while we opened it, he who held the lock has been through
            return False
        if runtime == "crun":
            try:
                _ffi.write(gate.fd, b"\0")
            except BrokenPipeError:
                yield from _check_dead(init)
                return False
        else:
            deadline, ready = deadline_in(timeout), set[int]()
            while gate.fd not in ready:
                ready = yield Wait((gate.fd, init), (), deadline)
                if gate.fd not in ready and (init in ready or passed(deadline)):
                    return False
            if not _ffi.read(gate.fd, 1):
                yield from _check_dead(init)
                return False
        _ffi.unlink(fifo)
    return True


def _check_dead(init: int) -> Operation[None]:
    """Nobody waits at the FIFO. If init lives, somebody else has let it go and is about to remove the FIFO: the command would wait there for
    ever. Who dies closes his files a moment before his pidfd tells."""
    deadline = deadline_in(DYING)
    while init not in (yield Wait((init,), (), deadline)):
        if passed(deadline):
            raise ContainerStateError("somebody else starts it at the same time", "running")


class SealedCopy:
    """A program in a sealed, executable memory file."""

    __slots__ = ("file",)

    def __init__(self, path: str) -> None:
        self.file: Descriptor = Descriptor(_memory_file())
        source = Descriptor(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        with source:
            while os.sendfile(self.file.fd, source.fd, None, 1 << 24):
                pass
        fcntl(self.file.fd, F_ADD_SEALS, SEALS)

    @property
    def path(self) -> str:
        """Good for as long as this process lives: not to be written down. A forked child has the same descriptor."""
        return f"/proc/{os.getpid()}/fd/{self.file.fd}"


def _memory_file() -> int:
    for flags in (os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | MFD_EXEC, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING):
        try:
            return os.memfd_create("pyoci-runtime", flags)
        except OSError as error:
            if error.errno != 22:  # EINVAL: a kernel that does not know the flag
                raise
    raise AssertionError


_copies: dict[tuple[str, tuple[int, ...]], SealedCopy | None] = {}
"""By path and mark; None as a sign that it cannot be had."""


def executable(path: str) -> str:
    """A path of a sealed copy of this program, made at the first need and again when the file has changed; the path itself where that is
    not possible (a script, no such system call, not allowed)."""
    try:
        status = _ffi.Mark(path, follow=True)
    except OSError:
        return path
    mark = (status.device, status.inode, status.size, status.mtime, status.ctime)
    key = path, mark
    if key not in _copies:
        made: SealedCopy | None = None
        try:
            with open(path, "rb") as file:
                if file.read(4) == b"\x7fELF":
                    made = SealedCopy(path)
        except OSError:
            pass
        # Of threads that make one at once the first one's stays: none is closed that another thread's conmon is just being given.
        _copies.setdefault(key, made)
        for other in [other for other in list(_copies) if other[0] == path and other != key]:
            _copies.pop(other, None)
    copy = _copies.get(key)
    return path if copy is None else copy.path
