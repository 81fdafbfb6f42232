"""The caller's terminal and a container's, with us in between, for ``run`` and ``exec`` in the foreground."""

from __future__ import annotations

import os
from contextlib import contextmanager

from pyoci.execs import set_size
from pyoci.process import Descriptor
from pyoci.streams import Pump, near
from pyoci.waiting import NEVER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyoci.process import Process
    from pyoci.waiting import Operation

DEFAULT_SIZE = (24, 80)


def size() -> tuple[int, int]:
    """(rows, columns) of ours."""
    try:
        columns, rows = os.get_terminal_size(0)
    except OSError:
        return DEFAULT_SIZE
    return (rows, columns) if rows and columns else DEFAULT_SIZE


@contextmanager
def raw() -> Iterator[None]:
    """Ours, if stdin is one, hands everything on: the container's has the line discipline."""
    import termios
    import tty

    try:
        before = termios.tcgetattr(0)
    except termios.error:
        yield
        return
    tty.setraw(0, termios.TCSANOW)  # and not by throwing away what was typed already
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def relay(master: Descriptor, over: Process) -> Operation[None]:
    """Until the process ``over`` ends: our stdin goes to the terminal, and what it says to our stdout; its size follows ours."""
    from signal import SIGWINCH, signal

    signal(SIGWINCH, lambda number, frame: set_size(master.fd, *size()))
    set_size(master.fd, *size())
    pump = Pump(None)
    pump.feed(near(Descriptor(os.dup(master.fd))), b"", source=0)
    pump.forward(near(Descriptor(os.dup(master.fd))), 1)
    while not over.has_ended():
        pump.serve((yield pump.wait((over.pidfd,), NEVER)))
    pump.drain_all()
    pump.close()
