"""Our stdio, and our terminal, joined to those of a container or of an exec session."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager, nullcontext

from pyoci import terminal
from pyoci.attach import PACKET_IN, PACKET_OUT
from pyoci.cli.shared import exit_code
from pyoci.cli.signals import Passing
from pyoci.errors import Error, Timeout
from pyoci.terminal import Interrupted
from pyoci.waiting import NEVER, Wait, deadline_in, drive, passed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pyoci.container import Container, ExecSession
    from pyoci.process import Descriptor
    from pyoci.waiting import Operation


def attended(container: Container, *, interactive: bool, timeout: float | None = None) -> int:
    """Starts a created container, passes its output on, and our input if ``interactive``, until it ends; its exit code."""
    tty = has_terminal(container)
    try:
        with (
            Passing(find=lambda: container._life) as passing,
            container.attach() as attachment,
            our_terminal(attachment.resize if tty else None, interactive),
        ):
            container.start()
            passing.started()

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


def joined(container: Container, *, interactive: bool, detach: bytes) -> int:
    """The same for one that runs already, and goes on when we leave: by the keys ``detach``, or because a signal is not for it."""
    tty = has_terminal(container)
    try:
        with (
            Passing(find=lambda: container._life),
            container.attach() as attachment,
            our_terminal(attachment.resize if tty else None, interactive),
        ):
            at_end = attachment.close_stdin if not tty else lambda: None
            keys = Keys(detach if tty else b"")
            if drive(join(attachment._check(), unpack, 0 if interactive else -1, at_end, NEVER, keys)):
                return 0
            status = container.wait()
    except Interrupted as interrupt:
        return 128 + interrupt.signal
    return exit_code(container.id, status.code)


def has_terminal(container: Container) -> bool:
    from pyoci import spec

    return bool(spec.load(container.directory)["process"].get("terminal"))


def unpack(packet: bytes) -> tuple[int, bytes]:
    """Of conmon's attach socket: (our descriptor, data)."""
    return (2 if packet[0] == 3 else 1), packet[1:]


class Keys:
    """Finds the keys that detach in what is typed. What may be the beginning of them is held back until that is clear."""

    def __init__(self, keys: bytes = b"") -> None:
        self._keys = keys
        self._held = b""

    def sift(self, typed: bytes) -> tuple[bytes, bool]:
        """(what is for the container, they were there)."""
        data = self._held + typed
        if self._keys and (at := data.find(self._keys)) >= 0:
            return data[:at], True
        held = next((n for n in range(len(self._keys) - 1, 0, -1) if data.endswith(self._keys[:n])), 0)
        self._held = data[len(data) - held :]
        return data[: len(data) - held], False


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


def join(
    end: Descriptor,
    unpack: Callable[[bytes], tuple[int, bytes]],
    source: int,
    at_end: Callable[[], object],
    deadline: int,
    detach: Keys | None = None,
) -> Operation[bool]:
    """Moves what comes from ``end`` to our stdout and stderr, and what comes from ``source`` to it, until ``end`` ends, or the deadline passes.
    ``at_end``: called at the end of the input. True: the keys ``detach`` came."""
    from pyoci.streams import read_now

    keys = detach or Keys()
    pending = memoryview(b"")
    while not passed(deadline):
        ready = yield Wait((end.fd, source) if source >= 0 and not pending else (end.fd,), (end.fd,) if pending else (), deadline)
        while (packet := read_now(end, PACKET_OUT)) is not None:
            if not packet:
                return False
            to, data = unpack(packet)
            write_all(to, data)
        if source in ready and not pending:
            typed = os.read(source, PACKET_IN - PACKET_IN // 8)  # and what was held back
            if not typed:
                source = -1
                at_end()
            data, is_left = keys.sift(typed)
            if is_left:
                return True  # with what was typed before them: nobody waits for that
            pending = memoryview(data)
        while pending:
            try:
                pending = pending[os.write(end.fd, pending) :]
            except BlockingIOError:
                break
            except OSError:
                pending, source = memoryview(b""), -1  # it has ended; what it said last is still to be read
    return False


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
