"""Attaching to a container's stdio through conmon: a SEQPACKET socket for the data, a FIFO for the size of a terminal (conmon(8), docs/conmon.md).

What the container wrote before stands in its log. conmon waits for a client that does not read, and with it the container: read on, or close.
"""

from __future__ import annotations

import os
from collections import deque

from pyoci.errors import ContainerNotFound, ContainerStateError, InvalidOption, Timeout
from pyoci.execs import check_size
from pyoci.process import Descriptor
from pyoci.streams import check_bytes, read_now
from pyoci.waiting import Wait, deadline_in, drive, passed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

    from pyoci.lifecycle import Life
    from pyoci.waiting import Operation

PACKET_IN = 32 * 1024
"""conmon cuts longer ones without a word."""
PACKET_OUT = 8193
"""A byte that names the stream (2: stdout, 3: stderr), then at most 8192 of data."""
CONNECT_TIMEOUT = 5.0
QUEUED = 1024 * 1024
"""Bytes of output that are taken in while input waits for conmon."""


def connect(life: Life) -> Operation[Descriptor]:
    """A connection to the container's conmon. Raises ContainerStateError when it has ended, InvalidOption when its stdio are not conmon's."""
    import socket

    life.check_own("attach to")
    if life.monitored_by != "conmon" or life.log_driver == "passthrough":
        raise InvalidOption(f"cannot attach to {life.id!r}: its stdio are descriptors of its creator's, and no monitor is in between")
    deadline = deadline_in(CONNECT_TIMEOUT)
    with Descriptor(_directory(life)) as directory, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as client:
        while True:
            try:
                client.connect(f"/proc/self/fd/{directory.fd}/attach")  # a socket's path holds 107 bytes
                return Descriptor(client.detach())
            except BlockingIOError:  # its queue is full, and nobody tells when it is not
                if passed(deadline):
                    raise Timeout(f"attaching to {life.id!r}: conmon took nobody in for {CONNECT_TIMEOUT:g} s", CONNECT_TIMEOUT) from None
                yield Wait((), (), deadline_in(0.01))
            except (FileNotFoundError, ConnectionRefusedError):
                life.check_current()
                raise ContainerStateError(f"cannot attach to {life.id!r}: it has ended, or its conmon has", "stopped") from None


def _directory(life: Life) -> int:
    try:
        return os.open(life.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise ContainerNotFound(f"no container {life.id!r}: it was deleted") from None


def resize(life: Life, rows: int, columns: int) -> None:
    """Tells conmon the new size of the container's terminal. Raises InvalidOption, ContainerStateError when conmon has ended."""
    rows, columns = check_size((rows, columns))
    try:
        fifo = Descriptor(os.open(f"{life.directory}/ctl", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:  # ENXIO: nobody reads it
        life.check_current()
        raise ContainerStateError(f"cannot resize the terminal of {life.id!r}: conmon's {life.directory}/ctl: {error.strerror}", "stopped") from None
    with fifo:
        os.write(fifo.fd, f"1 {rows} {columns}\n".encode())  # one line in one write: 2.1.6 mishandles several in one read


class AttachmentBase:
    """A client of a container's stdio."""

    __slots__ = ("_end", "_life", "_queue")

    def __init__(self, life: Life, end: Descriptor) -> None:
        self._life = life
        self._end = end
        self._queue: deque[bytes] = deque()  # packets that came while we wrote

    def fileno(self) -> int:
        """The socket, which does not block, and stays this object's; -1 once closed."""
        return self._end.fd

    @property
    def closed(self) -> bool:
        return self._end.fd < 0

    def resize(self, rows: int, columns: int) -> None:
        """Sets the size of the container's terminal. Raises ContainerStateError when it has ended."""
        resize(self._life, rows, columns)

    def _check(self) -> Descriptor:
        if self._end.fd < 0:
            raise ValueError("I/O operation on a closed attachment")
        return self._end

    def _read(self) -> Operation[tuple[int, bytes] | None]:
        end = self._check()
        while True:
            packet = self._queue.popleft() if self._queue else read_now(end, PACKET_OUT)
            if packet is not None:
                return (2 if packet[0] == 3 else 1, packet[1:]) if packet else None
            yield Wait((end.fd,))
            end = self._check()

    def _write(self, data: bytes | bytearray | memoryview) -> Operation[int]:
        left = check_bytes("data", data)
        size = len(left)
        while left:
            end = self._check()
            try:
                left = left[os.write(end.fd, left[:PACKET_IN]) :]
            except BlockingIOError:
                # conmon may be waiting for us to read.
                more = len(self._queue) * PACKET_OUT < QUEUED
                ready = yield Wait((end.fd,) if more else (), (end.fd,))
                if more and end.fd in ready and (packet := read_now(end, PACKET_OUT)):
                    self._queue.append(packet)
        return size

    def _close_stdin(self) -> None:
        import socket

        with socket.socket(fileno=os.dup(self._check().fd)) as end:
            try:
                end.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # conmon has gone

    def _close(self) -> None:
        self._queue.clear()
        self._end.close()


class Attachment(AttachmentBase):
    """A client of a container's stdio, as ``Container.attach`` gives it. Iterating gives what ``read`` does, until the end."""

    __slots__ = ()

    def read(self) -> tuple[int, bytes] | None:
        """The next of the output: (1 for stdout and a terminal, 2 for stderr; at most 8 KiB); None when the container has ended."""
        return drive(self._read())

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Writes all of it to the container's stdin, which must be open (``create(…, stdin=True)``, or a terminal). Raises BrokenPipeError when
        the container has ended."""
        return drive(self._write(data))

    def close_stdin(self) -> None:
        """The container sees the end of its input; output can still be read."""
        self._close_stdin()

    def close(self) -> None:
        """Leaves; the container goes on. Twice is fine."""
        self._close()

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        return iter(self.read, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()
