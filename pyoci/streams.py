"""Standard streams: what a caller may give for one, pipes for the rest, moving data through them, and the ends that callers hold."""

from __future__ import annotations

import errno
import fcntl
import os

from pyoci import _ffi
from pyoci._ffi import poll
from pyoci.errors import InvalidOption
from pyoci.process import Descriptor
from pyoci.waiting import NEVER, Wait, drive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType
    from typing import Any, Self

    from pyoci.waiting import Operation

PIPE, STDOUT, DEVNULL = -1, -2, -3
"""subprocess's own numbers; that module is not imported where a container is launched."""
CHUNK = 64 * 1024
NAMES = ("stdin", "stdout", "stderr")


def descriptor(wanted: Any, number: int) -> int:
    """subprocess's meanings, but for PIPE: None is our own descriptor ``number``, DEVNULL is -1, and a descriptor or a file is itself. Raises
    InvalidOption; also when it is not open, or not for what it is wanted for, unless it is our own: nohup(1) has a stdin that cannot be read."""
    fd = number if wanted is None else wanted
    if hasattr(fd, "fileno"):
        try:
            fd = int(fd.fileno())
        except (OSError, ValueError) as error:  # closed, or without one, as io.BytesIO
            raise InvalidOption(f"{NAMES[number]}={wanted!r:.200}: it has no descriptor: {error}") from None
    if type(fd) is not int or (fd < 0 and fd != DEVNULL):
        raise InvalidOption(f"{NAMES[number]}={wanted!r:.200}: give None, PIPE{', STDOUT' * (number == 2)}, DEVNULL, a descriptor or a file")
    if fd == DEVNULL:
        return -1
    try:
        access = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
    except (OSError, OverflowError):
        raise InvalidOption(f"{NAMES[number]}={wanted!r:.200}: descriptor {fd} is not open") from None
    if fd != number and access == (os.O_RDONLY if number else os.O_WRONLY):
        raise InvalidOption(f"{NAMES[number]}={wanted!r:.200}: descriptor {fd} is open for {'reading' if number else 'writing'} only")
    return fd


def check(stdin: Any, stdout: Any, stderr: Any) -> None:
    """As ``Stdio`` would. Raises InvalidOption; opens nothing."""
    for number, wanted in enumerate((stdin, stdout, stderr)):
        if type(wanted) is not int or wanted not in ((PIPE, STDOUT) if number == 2 else (PIPE,)):
            descriptor(wanted, number)


def pipe(number: int) -> tuple[Descriptor, Descriptor]:
    """(ours, the far one): the ends of a pipe for this standard stream; both close-on-exec, and ours does not block."""
    ends = _ffi.pipe(0 if number else 1)
    ours, far = ends if number else ends[::-1]
    return Descriptor(ours), Descriptor(far)


def near(end: Descriptor) -> Descriptor:
    os.set_blocking(end.fd, False)
    return end


class Stdio:
    """The three streams of a process as its caller wants them. ``fds``: what becomes its 0, 1 and 2 (-1: /dev/null). ``ends``: our ends of
    those that are pipes. Raises InvalidOption; nothing stays open then."""

    __slots__ = ("_far", "ends", "fds")

    def __init__(self, stdin: Any, stdout: Any, stderr: Any) -> None:
        self._far: list[Descriptor] = []
        self.ends: list[Descriptor | None] = [None, None, None]
        self.fds: list[int] = [-1, -1, -1]
        for number, wanted in enumerate((stdin, stdout, stderr)):
            if type(wanted) is int and wanted == STDOUT and number == 2:
                self.fds[2] = self.fds[1]
            elif type(wanted) is int and wanted == PIPE:
                ours, far = pipe(number)
                self._far.append(far)
                self.fds[number], self.ends[number] = far.fd, ours
            else:
                self.fds[number] = descriptor(wanted, number)

    def started(self) -> None:
        """The process has its ends: ours of them are closed, otherwise the pipes would never end."""
        for end in self._far:
            end.close()

    def close(self) -> None:
        self.started()
        for end in self.ends:
            if end is not None:
                end.close()


class Pump:
    """Moves input to where it is wanted and output to where it belongs, as far as that goes without blocking. Output is kept up to a limit
    (one chunk more tells that it was passed); what is too much is read and thrown away."""

    def __init__(self, limit: int | None) -> None:
        if limit is not None and (type(limit) is not int or limit < 0):
            raise InvalidOption(f"max_output must be a whole number of bytes from 0 on, not {limit!r:.200}")
        self.limit = limit
        self.captured: dict[int, bytearray] = {}
        self._drains: dict[int, tuple[Descriptor, bytearray | int]] = {}
        self._into: Descriptor | None = None
        self._pending = memoryview(b"")
        self._source = -1  # a descriptor whose input is passed on

    def feed(self, into: Descriptor, data: bytes | bytearray | memoryview, source: int = -1) -> None:
        """``data``, then what comes from ``source``, goes to ``into``, which is closed at the end of it."""
        self._into, self._pending, self._source = into, memoryview(data).cast("B"), source

    def capture(self, number: int, end: Descriptor, kept: bytearray | None = None) -> None:
        """What comes from ``end`` is kept as ``result(number)``, after what is in ``kept``."""
        self.captured[number] = kept = bytearray() if kept is None else kept
        self._drains[end.fd] = (end, kept)

    def forward(self, end: Descriptor, to: int) -> None:
        """What comes from ``end`` is written to a descriptor of the caller's; -1: thrown away."""
        self._drains[end.fd] = (end, to)

    @property
    def idle(self) -> bool:
        """Nothing is left to do."""
        return self._into is None and not self._drains

    def wait(self, also: Sequence[int], deadline: int) -> Wait:
        """For one of ``also`` to become readable, or for something to do here."""
        read = [*also, *self._drains]
        if self._source >= 0 and not self._pending:
            read.append(self._source)
        return Wait(read, (self._into.fd,) if self._into is not None and (self._pending or self._source < 0) else (), deadline)

    def serve(self, ready: set[int]) -> None:
        """Moves what can be moved without blocking."""
        for fd in ready:
            if fd in self._drains:
                self._drain(fd)
            elif fd == self._source:
                self._pending = memoryview(os.read(fd, CHUNK))
                if not self._pending:
                    self._source = -1
                self._push()
            elif self._into is not None and fd == self._into.fd:
                self._push()

    def drain_all(self) -> None:
        """Everything that is there now; whoever still holds a far end is not waited for."""
        for fd in list(self._drains):
            while self._drain(fd):
                pass

    def _drain(self, fd: int) -> bool:
        """One chunk; False when there is no more for now."""
        end, into = self._drains[fd]
        data = read_now(end)
        if data is None:
            return False
        if not data:
            end.close()
            del self._drains[fd]
            return False
        if isinstance(into, bytearray):
            if self.limit is None or len(into) <= self.limit:
                into += data
            return True
        self.forwarding(data)
        while data and into >= 0:
            try:
                data = data[os.write(into, data) :]
            except BlockingIOError:
                poll((), (into,), NEVER)  # the caller's descriptor does not block: it is waited for as if it did
            except OSError:  # nobody reads it any more, or it is full: the program sees that as it would with the descriptor itself
                end.close()
                del self._drains[fd]
                return False
        return True

    def forwarding(self, data: bytes) -> None:
        """Called with what is about to be forwarded."""

    def _push(self) -> None:
        """Input as far as the pipe takes it; at its end, or when nobody reads it any more, the pipe is closed."""
        if self._into is None:
            return
        try:
            while self._pending:
                self._pending = self._pending[os.write(self._into.fd, self._pending[:CHUNK]) :]
            if self._source >= 0:
                return
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):  # EIO: of a terminal
                raise
            self._source = -1
        self._into.close()
        self._into = None

    def over_limit(self) -> bool:
        return self.limit is not None and any(len(data) > self.limit for data in self.captured.values())

    def result(self, number: int) -> bytes | None:
        data = self.captured.get(number)
        return None if data is None else bytes(data if self.limit is None else data[: self.limit])

    def close(self) -> None:
        for end in [self._into, *(end for end, _ in self._drains.values())]:
            if end is not None:
                end.close()


# --- the ends that callers hold ---------------------------------------------------------------------------------------------------


def check_bytes(name: str, data: object) -> memoryview:
    """As bytes to write. Raises InvalidOption for text and for what is no buffer."""
    if isinstance(data, bytes | bytearray | memoryview):
        return memoryview(data).cast("B")
    raise InvalidOption(f"{name} must be bytes, not {type(data).__name__}")


def read_now(end: Descriptor, size: int = CHUNK) -> bytes | None:
    """What is there now; None if nothing is, and empty at the end. The end of a terminal is EIO, that of a socket can be ECONNRESET."""
    try:
        return _ffi.read(end.fd, size)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno in (5, 104):
            return b""
        raise


class StreamBase:
    """Our end of a standard stream (a pipe, or the master of a terminal): one object for one reader and one writer."""

    __slots__ = ("_buffer", "_end")

    def __init__(self, end: Descriptor) -> None:
        self._end = end
        self._buffer = bytearray()  # read, but not wanted yet

    def fileno(self) -> int:
        """The descriptor; it does not block, and stays this object's. -1 once closed."""
        return self._end.fd

    @property
    def closed(self) -> bool:
        return self._end.fd < 0

    def surrender(self) -> tuple[Descriptor, bytearray]:
        """The end and what was read ahead of it, to somebody else, who will close it."""
        return self._end, self._buffer

    def _check(self) -> Descriptor:
        if self._end.fd < 0:
            raise ValueError("I/O operation on a closed stream")
        return self._end

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def _some(self) -> Operation[bytes]:
        end = self._check()
        while (data := read_now(end)) is None:
            yield Wait((end.fd,))
            end = self._check()
        return data

    def _read(self, size: int) -> Operation[bytes]:
        if size == 0:
            return b""
        if size < 0:
            while data := (yield from self._some()):
                self._buffer += data
            return self._take(len(self._buffer))
        if not self._buffer:
            self._buffer += yield from self._some()
        return self._take(size)

    def _readline(self) -> Operation[bytes]:
        seen = 0
        while (newline := self._buffer.find(b"\n", seen)) < 0:
            seen = len(self._buffer)
            data = yield from self._some()
            if not data:
                return self._take(seen)
            self._buffer += data
        return self._take(newline + 1)

    def _write(self, data: bytes | bytearray | memoryview) -> Operation[int]:
        left = check_bytes("data", data)
        size = len(left)
        while left:
            end = self._check()
            try:
                left = left[os.write(end.fd, left[:CHUNK]) :]
            except BlockingIOError:
                yield Wait((), (end.fd,), NEVER)
        return size

    def _close(self) -> None:
        self._buffer.clear()
        self._end.close()


class Stream(StreamBase):
    """Our end of a standard stream. Nothing is buffered on the way out; what was read beyond a line is kept."""

    __slots__ = ()

    def read(self, size: int = -1) -> bytes:
        """At most ``size`` bytes, as soon as there are any; -1: all up to the end. Empty at the end."""
        return drive(self._read(size))

    def readline(self) -> bytes:
        """One line with its newline; the last one may have none; empty at the end."""
        return drive(self._readline())

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Writes all of it. Raises BrokenPipeError when nobody reads any more."""
        return drive(self._write(data))

    def close(self) -> None:
        """Closes our end: a program that reads sees the end of its input. Twice is fine."""
        self._close()

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()
