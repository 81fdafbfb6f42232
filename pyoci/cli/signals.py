"""Signals that are meant for the program in a container, and come to us."""

from __future__ import annotations

import signal

from pyoci.errors import Error
from pyoci.terminal import Interrupted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any, Self

    from pyoci.lifecycle import Life

PASSED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


class Passing:
    """Within its block, signals go to ``send``, or to the container that ``find`` finds by then. One that comes before its start, that could not be
    passed on, that the container has no handler for, or that comes again, is Interrupted."""

    def __init__(self, send: Callable[[int], object] | None = None, find: Callable[[], Life] | None = None) -> None:
        self._send = send
        self._find = find
        self._seen: set[int] = set()
        self._early: list[int] = []  # came while it was being started
        self._before: list[tuple[int, Any]] = []

    def started(self) -> None:
        """The program runs: it gets what came meanwhile."""
        while self._early:
            self._handle(self._early.pop(0), None)

    def __enter__(self) -> Self:
        # What our caller has ignored stays so, as nohup(1) and the background of a shell want it.
        heard = [number for number in PASSED if signal.getsignal(number) != signal.SIG_IGN]
        self._before = [(number, signal.signal(number, self._handle)) for number in heard]
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before:
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number in self._seen or number in self._early or not self._passed(number):
            raise Interrupted(number)
        if number not in (signal.SIGUSR1, signal.SIGUSR2, *self._early):
            self._seen.add(number)

    def _passed(self, number: int) -> bool:
        from pyoci import lifecycle

        try:
            if self._send is not None:
                self._send(number)
                return True
            assert self._find is not None
            life = self._find()
            if life.init is not None and lifecycle.is_created(life):
                self._early.append(number)
                return True
            if life.init is None or (life.own_pid_namespace and not handles(life.init.pid, number)):
                return False
            return life.init.signal(number)
        except (Error, OSError):
            return False


def handles(pid: int, number: int) -> bool:
    """A process catches or ignores a signal (proc_pid_status(5): SigCgt, SigIgn). To process 1 of a namespace no other is delivered."""
    try:
        with open(f"/proc/{pid}/status") as status:
            masks = [int(line.split()[1], 16) for line in status if line.startswith(("SigCgt:", "SigIgn:"))]
    except (OSError, ValueError):
        return False
    return any(mask >> (number - 1) & 1 for mask in masks)
