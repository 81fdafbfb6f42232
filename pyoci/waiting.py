"""Drives operations. An operation is a generator: it does its work in small steps that never block and yields a Wait when it must.

It is sent the set of descriptors that are ready: empty when the deadline passed, or for no reason at all (a signal arrived), so that an
operation always looks at the clock and at its descriptors itself. An exception in the driver (KeyboardInterrupt, a cancelled task) is
thrown into the operation, which may yield again while it cleans up. psycopg's generators.py and waiting.py are the model.
"""

from __future__ import annotations

import select
from heapq import heappop, heappush
from math import isnan
from time import monotonic_ns

from pyoci import forks
from pyoci._ffi import POLLIN, POLLOUT, Epoll, poll
from pyoci.errors import InvalidOption

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence
    from typing import Any, TypeAlias, TypeVar

    T = TypeVar("T")
    Operation: TypeAlias = "Generator[Wait, set[int], T]"


NEVER: int = -1
"""The deadline that never comes; PO_NEVER in csrc/pyoci.h."""
LONGEST: float = 1e9
"""Seconds. The kernel counts nanoseconds in 64 bits, which do not hold all that somebody may mean by "for ever"."""


class Wait:
    """Wake me when one of these descriptors is ready, or at the deadline (CLOCK_MONOTONIC, nanoseconds)."""

    __slots__ = ("deadline", "read", "write")

    def __init__(self, read: Sequence[int], write: Sequence[int] = (), deadline: int = NEVER) -> None:
        self.read: Sequence[int] = read
        self.write: Sequence[int] = write
        self.deadline: int = deadline


def deadline_in(timeout: float | None) -> int:
    """The deadline that is ``timeout`` seconds from now; None, or more than thirty years (infinity, too): never. Raises InvalidOption for what is no
    number."""
    if timeout is not None and (not isinstance(timeout, int | float) or isnan(timeout)):
        raise InvalidOption(f"timeout must be a number of seconds, not {timeout!r:.200}")
    return NEVER if timeout is None or timeout > LONGEST else monotonic_ns() + int(max(timeout, 0) * 1_000_000_000)


def passed(deadline: int) -> bool:
    return deadline != NEVER and monotonic_ns() >= deadline


def sooner(a: int, b: int) -> int:
    """The earlier of two deadlines."""
    return b if a == NEVER else a if b == NEVER else min(a, b)


def is_over(operation: Operation[Any]) -> bool:
    return operation.gi_frame is None  # type: ignore[attr-defined]


def drive(operation: Operation[T]) -> T:
    """Runs one operation to its end; the calling thread waits in poll(2) with the interpreter lock released."""
    ready: set[int] | None = None  # None starts a generator
    error: BaseException | None = None
    while True:
        try:
            while True:  # in here, so that an interrupt between two rounds meets the operation, too
                wait = operation.send(ready) if error is None else operation.throw(error)  # type: ignore[arg-type]
                error = None
                ready = poll(wait.read, wait.write, wait.deadline)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        except BaseException as e:
            if is_over(operation):  # it was the operation itself that ended with this
                raise
            error = e


class Many:
    """Drives any number of operations on one thread, on one epoll. Not for use from several threads."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watching = Epoll(self._epoll.fileno())
        self._generation = forks.generation
        self._waits: dict[Any, tuple[Wait, int, Callable[[Any, BaseException | None], object]]] = {}
        self._waiting: dict[int, dict[Any, int]] = {}  # descriptor -> operation -> events
        self._changed: dict[int, bool] = {}  # descriptor -> whether the epoll had it at the last wait
        self._deadlines: list[tuple[int, int, Any]] = []
        self._turn = 0

    def __len__(self) -> int:
        return len(self._waits)

    def add(self, operation: Operation[T], done: Callable[[T | None, BaseException | None], object]) -> None:
        """Starts an operation; ``done(result, error)`` is called when it ends, which may be at once."""
        self._advance(operation, lambda: next(operation), done)

    def step(self, deadline: int = NEVER) -> None:
        """Waits until something is ready or a deadline passes, and advances what that concerns."""
        while self._deadlines and not self._is_current(self._deadlines[0]):
            heappop(self._deadlines)
        nearest = sooner(deadline, self._deadlines[0][0] if self._deadlines else NEVER)
        ready: dict[Any, set[int]] = {}
        for fd in self._ready(nearest):
            for operation in self._waiting.get(fd, ()):
                ready.setdefault(operation, set()).add(fd)
        now = monotonic_ns()
        while self._deadlines and self._deadlines[0][0] <= now:
            entry = heappop(self._deadlines)
            if self._is_current(entry):
                ready.setdefault(entry[2], set())
        for operation, fds in ready.items():
            self._resume(operation, lambda operation=operation, fds=fds: operation.send(fds))  # type: ignore[misc]

    def _ready(self, deadline: int) -> Iterable[int]:
        changes = self._changes()
        try:
            # A look keeps the interpreter lock, which it may take long to have back: among several there is often something ready.
            return self._watching.wait(changes, 0) or self._watching.wait((), deadline)
        except OSError:
            pass
        # No room to watch one more (epoll_ctl(2)): nobody is to suffer from that. It is told again next time, and until then poll(2) must do; for
        # want of memory even for that, we come again.
        for fd, _, watched in changes:
            self._changed.setdefault(fd, watched)
        try:
            return poll(self._wanting(POLLIN), self._wanting(POLLOUT), deadline)
        except OSError:
            return ()

    def _wanting(self, kind: int) -> list[int]:
        return [fd for fd, holders in self._waiting.items() if any(events & kind for events in holders.values())]

    def throw(self, operation: Operation[Any], error: BaseException) -> None:
        """Throws into a waiting operation, which then cleans up and ends."""
        if operation in self._waits:
            self._resume(operation, lambda: operation.throw(error))

    def close(self) -> None:
        self._epoll.close()

    def _is_current(self, entry: tuple[int, int, Any]) -> bool:
        wait = self._waits.get(entry[2])
        return wait is not None and wait[1] == entry[1]

    def _resume(self, operation: Operation[Any], step: Callable[[], Wait]) -> None:
        wait, _, done = self._waits.pop(operation)
        for fd in {*wait.read, *wait.write}:
            self._unregister(fd, operation)
        self._advance(operation, step, done)

    def _advance(self, operation: Operation[Any], step: Callable[[], Wait], done: Callable[[Any, BaseException | None], object]) -> None:
        result: Any = None
        error: BaseException | None = None
        wait: Wait | None = None
        try:
            wait = step()
        except StopIteration as stop:
            result = stop.value
        except BaseException as e:
            error = e
        if wait is None:
            # Out here: what a callback raises has nothing to do with how the operation ended.
            try:
                done(result, error)
                if error is not None and not isinstance(error, Exception):
                    raise error
            finally:
                error = None  # it holds this frame
            return
        self._turn += 1
        self._waits[operation] = (wait, self._turn, done)
        for fd in wait.read:
            self._register(fd, operation, POLLIN)
        for fd in wait.write:
            self._register(fd, operation, POLLOUT)
        if wait.deadline != NEVER:
            heappush(self._deadlines, (wait.deadline, self._turn, operation))

    def _register(self, fd: int, operation: Any, events: int) -> None:
        self._changed.setdefault(fd, fd in self._waiting)
        holders = self._waiting.setdefault(fd, {})
        holders[operation] = holders.get(operation, 0) | events

    def _unregister(self, fd: int, operation: Any) -> None:
        self._changed.setdefault(fd, True)
        holders = self._waiting[fd]
        holders.pop(operation, None)
        if not holders:
            del self._waiting[fd]

    def _changes(self) -> list[tuple[int, int, bool]]:
        """What the epoll has to learn: all that anybody began or ceased to wait for since the last time. A number is told again even if it is as
        it was, for it can have become another file's."""
        if self._generation != forks.generation:
            self._changed.clear()  # in a forked child, whose epoll is its parent's as well
        changes = []
        for fd, watched in self._changed.items():
            events = 0
            for wanted in self._waiting.get(fd, {}).values():
                events |= wanted
            if events or watched:
                changes.append((fd, events, watched))
        self._changed.clear()
        return changes


def drive_all(operations: Iterable[Operation[T]]) -> list[T | BaseException]:
    """Runs operations side by side on one thread; each one's result, or the exception it ended with, in the order given."""
    results: dict[int, T | BaseException] = {}
    many = Many()
    started: list[Operation[T]] = []

    def keep(i: int) -> Callable[[T | None, BaseException | None], object]:
        return lambda value, error: results.__setitem__(i, value if error is None else error)  # type: ignore[assignment]

    try:
        for i, operation in enumerate(operations):
            started.append(operation)
            many.add(operation, keep(i))
        interrupt: BaseException | None = None
        while many:
            try:
                many.step()
            except BaseException as e:
                interrupt = e
                for operation in started:
                    many.throw(operation, e)
        if interrupt is not None:
            raise interrupt
        return [results[i] for i in range(len(started))]
    finally:
        many.close()
