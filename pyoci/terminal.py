"""The terminal that this process has itself, for the command lines that hand it on to a container."""

from __future__ import annotations

import os
from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT_SIZE = (24, 80)


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
