"""What a process has by itself: its standard streams, its terminal, its signals; for the two command lines, which hand them on to containers."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from errno import EDQUOT, EFBIG, EIO, ENOSPC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT_SIZE = (24, 80)


class Interrupted(BaseException):
    """A signal that is to end what we do, as KeyboardInterrupt does: operations clean up, and then it is our end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = number


def end_by_signal() -> None:
    """TERM and HUP end what we do as Ctrl-C does, through everything that cleans up. What our caller has ignored (nohup) stays ignored."""
    from signal import SIG_DFL, SIGHUP, SIGTERM, getsignal, signal

    def interrupt(number: int, _frame: object) -> None:
        raise Interrupted(number)

    for number in (SIGTERM, SIGHUP):
        if getsignal(number) == SIG_DFL:
            signal(number, interrupt)


def open_streams() -> None:
    """A standard stream that our caller has closed becomes /dev/null, before another file of ours gets its number and the container that file."""
    for name, mode in ("stdin", "r"), ("stdout", "w"), ("stderr", "w"):
        if getattr(sys, name) is None:
            fd = os.open(os.devnull, os.O_RDWR)  # the lowest that is free: the stream's own
            os.set_inheritable(fd, True)
            setattr(sys, name, os.fdopen(fd, mode, closefd=False))


def unheard() -> None:
    """Our output cannot be written; what Python still holds for it must not complain at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def words_for(error: BaseException) -> str:
    """The error's own; but where it is our stdout that cannot be written, those that tell that (a file has its name in the error), and nothing
    more is written there."""
    if isinstance(error, OSError) and error.errno in (ENOSPC, EDQUOT, EFBIG, EIO) and error.filename is None:
        unheard()
        return f"writing to our stdout: {error.strerror}"
    return str(error)


def size() -> tuple[int, int]:
    """(rows, columns) of ours, whichever of our standard streams has one."""
    for fd in (0, 1, 2):
        try:
            columns, rows = os.get_terminal_size(fd)
        except OSError:
            continue
        if rows and columns:
            return rows, columns
    return DEFAULT_SIZE


@contextmanager
def raw() -> Iterator[None]:
    """Within its block ours, if stdin is one, hands every key on: the container's has the line discipline."""
    import termios
    import tty

    try:
        before = termios.tcgetattr(0)
    except termios.error:
        yield
        return
    try:
        tty.setraw(0, termios.TCSANOW)  # and not by throwing away what was typed already
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
