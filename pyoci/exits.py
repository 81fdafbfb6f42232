"""How a container ended: conmon's exit file and OOM mark, the kernel's word, and the ``ExitStatus`` made of them."""

from __future__ import annotations

from os import O_NOFOLLOW

from pyoci import _ffi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import datetime

LAST_SIGNAL = 64


class ExitStatus:
    """How a container ended.

    ``code`` is what a shell would say: the exit code, or 128 + N when signal N killed it; None when nobody knows (never a made-up 0).
    ``signal`` is N, or None. ``oom_killed`` tells that the kernel killed something in the container for lack of memory.
    ``finished_at`` is in UTC, to the precision of the exit file's time; None when unknown."""

    __slots__ = ("_finished_ns", "code", "oom_killed", "signal")

    def __init__(self, code: int | None, signal: int | None = None, oom_killed: bool = False, finished_ns: int | None = None) -> None:
        self.code: int | None = code
        self.signal: int | None = signal
        self.oom_killed: bool = oom_killed
        self._finished_ns = finished_ns

    @property
    def finished_at(self) -> datetime | None:
        """When it ended, in UTC; None when unknown."""
        if self._finished_ns is None:
            return None
        from datetime import UTC, datetime, timedelta

        return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=self._finished_ns // 1000)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ExitStatus) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __reduce__(self) -> tuple[type[ExitStatus], tuple[int | None, int | None, bool, int | None]]:
        return ExitStatus, self._key()

    def _key(self) -> tuple[int | None, int | None, bool, int | None]:
        return self.code, self.signal, self.oom_killed, self._finished_ns

    def __repr__(self) -> str:
        return f"ExitStatus(code={self.code}, signal={self.signal}, oom_killed={self.oom_killed}, finished_at={self.finished_at})"


def parse_exit_file(content: bytes) -> int | None:
    """conmon's decimal number, 0 to 255; anything else is None: unknown. ``-1`` is how conmon says that it does not know."""
    return int(content) if content.isdigit() and len(content) <= 3 and int(content) <= 255 else None


def read_small(path: str, limit: int = 64) -> tuple[bytes, int] | None:
    """The start of a regular file and its modification time in nanoseconds; None if there is none. Never follows a link, never blocks on a
    FIFO, never reads more than ``limit`` bytes: what lies in a state directory is not believed. Raises OSError when we have no room for looking."""
    try:
        return _ffi.file_read(path, limit, O_NOFOLLOW)
    except OSError as error:
        if error.errno in _ffi.SHORTAGES:
            raise
        return None


def combine(filed: int | None, kernel: tuple[int, int] | None, *, oom_killed: bool, finished_ns: int | None) -> ExitStatus:
    """The kernel's word wins: conmon writes 0 when it could not get the status of a process that was not its child."""
    if kernel is not None and kernel != (-1, 0):
        code, signal = kernel
        return ExitStatus(128 + signal if signal else code, signal or None, oom_killed, finished_ns)
    # Only the file: 128 + N is what conmon writes for signal N, and a program that exits with such a code means the same.
    signal_of = filed - 128 if filed is not None and 128 < filed <= 128 + LAST_SIGNAL else None
    return ExitStatus(filed, signal_of, oom_killed, finished_ns)
