"""The caller's terminal and a container's, with us in between, for ``run`` and ``exec`` in the foreground."""

from __future__ import annotations

import os

from pyoci.execs import set_size
from pyoci.process import Descriptor
from pyoci.streams import Pump, near
from pyoci.terminal import size
from pyoci.waiting import NEVER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyoci.process import Process
    from pyoci.waiting import Operation


def keep_newlines(master: Descriptor) -> None:
    """A terminal puts a carriage return before each newline (termios(3), ONLCR). Where our own stdout is none, what reads it gets the program's
    lines as they are, as below runc."""
    if not os.isatty(1):
        import termios

        settings = termios.tcgetattr(master.fd)
        settings[1] &= ~termios.ONLCR
        termios.tcsetattr(master.fd, termios.TCSANOW, settings)


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
