"""Our stdio, and our terminal, joined to those of a container or of an exec session."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager, nullcontext

from pyoci import terminal
from pyoci.attach import PACKET_IN, PACKET_OUT
from pyoci.cli.shared import exit_code
from pyoci.cli.signals import Interrupted, Passing
from pyoci.errors import Error, Timeout
from pyoci.waiting import Wait, deadline_in, drive, passed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pyoci.container import Container, ExecSession
    from pyoci.process import Descriptor
    from pyoci.waiting import Operation


def attended(container: Container, *, interactive: bool, timeout: float | None = None) -> int:
    """Starts a created container, passes its output on, and our input if ``interactive``, until it ends; its exit code."""
    from pyoci import spec

    tty = bool(spec.load(container.directory)["process"].get("terminal"))
    try:
        with (
            Passing(find=lambda: container._life) as passing,
            container.attach() as attachment,
            our_terminal(attachment.resize if tty else None, interactive),
        ):
            container.start()
            passing.started()

            def unpack(packet: bytes) -> tuple[int, bytes]:
                return (2 if packet[0] == 3 else 1), packet[1:]

            deadline = deadline_in(timeout)
            drive(join(attachment._check(), unpack, 0 if interactive else -1, attachment.close_stdin if not tty else lambda: None, deadline))
            status = container.wait(None if timeout is None else 0 if passed(deadline) else timeout)
    except Interrupted as interrupt:
        container.stop(0)
        return 128 + interrupt.signal
    except Timeout:
        container.stop(0)
        raise
    return exit_code(container.id, status.code)


def attended_exec(session: ExecSession, *, interactive: bool, timeout: float | None) -> int:
    """The same for an exec session with a terminal."""
    assert session.stdin is not None
    deadline = deadline_in(timeout)
    try:
        with Passing(session.kill), our_terminal(session.resize, interactive):
            drive(join(session.stdin._check(), lambda data: (1, data), 0 if interactive else -1, lambda: None, deadline))
            status = session.wait(None if timeout is None else 0 if passed(deadline) else timeout)
    except Interrupted as interrupt:
        session.stop(0)
        return 128 + interrupt.signal
    except Timeout:
        session.stop(0)
        raise
    finally:
        session._close()
    if status.code in (126, 127) and session.runtime_words:
        from pyoci.cli.exec import refused

        return refused(session, status.code)
    return exit_code(session.id, status.code)


def join(end: Descriptor, unpack: Callable[[bytes], tuple[int, bytes]], source: int, at_end: Callable[[], object], deadline: int) -> Operation[None]:
    """Moves what comes from ``end`` to our stdout and stderr, and what comes from ``source`` to it, until ``end`` ends, or the deadline passes.
    ``at_end``: called at the end of the input."""
    from pyoci.streams import read_now

    pending = memoryview(b"")
    while not passed(deadline):
        ready = yield Wait((end.fd, source) if source >= 0 and not pending else (end.fd,), (end.fd,) if pending else (), deadline)
        while (packet := read_now(end, PACKET_OUT)) is not None:
            if not packet:
                return
            to, data = unpack(packet)
            write_all(to, data)
        if source in ready and not pending:
            pending = memoryview(os.read(source, PACKET_IN))
            if not pending:
                source = -1
                at_end()
        while pending:
            try:
                pending = pending[os.write(end.fd, pending) :]
            except BlockingIOError:
                break
            except OSError:
                pending, source = memoryview(b""), -1  # it has ended; what it said last is still to be read


def write_all(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]


@contextmanager
def our_terminal(resize: Callable[[int, int], object] | None, interactive: bool) -> Iterator[None]:
    """Within its block our terminal, if stdin is one, hands every key on, and its size goes to ``resize`` now and at SIGWINCH. None: it stays as it
    is."""
    if resize is None:
        yield
        return

    def fit(*_: object) -> None:
        try:
            resize(*terminal.size())
        except Error:
            pass  # it has ended

    handler = signal.signal(signal.SIGWINCH, fit)
    try:
        fit()
        with terminal.raw() if interactive else nullcontext():
            yield
    finally:
        signal.signal(signal.SIGWINCH, handler)
