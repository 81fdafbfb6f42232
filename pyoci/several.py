"""Waiting for several: what ``wait`` of concurrent.futures is for futures, for containers and whatever else tells its end by a descriptor."""

from __future__ import annotations

import select
from collections.abc import Iterable

from pyoci.errors import InvalidOption
from pyoci.waiting import Wait, deadline_in, drive, passed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol, TypeVar

    from pyoci.waiting import Operation

    class Ending(Protocol):
        """``fileno()`` becomes readable at the end; -1: it has ended."""

        def fileno(self) -> int: ...

    E = TypeVar("E", bound=Ending)

FIRST_COMPLETED = "FIRST_COMPLETED"
ALL_COMPLETED = "ALL_COMPLETED"


def watch(items: Iterable[E], timeout: float | None, return_when: str) -> Operation[tuple[set[E], set[E]]]:
    """The operation behind ``wait``: one epoll for all, which is itself what is waited for, so that an end costs the same among a thousand."""
    if return_when not in (FIRST_COMPLETED, ALL_COMPLETED):
        raise InvalidOption(f"return_when must be FIRST_COMPLETED or ALL_COMPLETED, not {return_when!r}")
    if not isinstance(items, Iterable):
        raise InvalidOption(f"items must be several, not {items!r:.200}")
    pending = set(items)
    for item in pending:
        if not hasattr(item, "fileno"):
            raise InvalidOption(f"{item!r:.200} has no fileno() that tells its end: futures are for concurrent.futures.wait")
    return _watch(pending, timeout, first=return_when == FIRST_COMPLETED)


def _watch(pending: set[E], timeout: float | None, *, first: bool) -> Operation[tuple[set[E], set[E]]]:
    deadline = deadline_in(timeout)
    done = {item for item in pending if item.fileno() < 0}
    pending -= done
    by_fd: dict[int, set[E]] = {}
    for item in pending:
        by_fd.setdefault(item.fileno(), set()).add(item)
    with select.epoll() as epoll:
        for fd in by_fd:
            epoll.register(fd, select.EPOLLIN)
        while pending:
            for fd, _ in epoll.poll(0, len(by_fd)):
                epoll.unregister(fd)
                ended = by_fd.pop(fd)
                done |= ended
                pending -= ended
            if not pending or (first and done) or passed(deadline):
                break
            yield Wait((epoll.fileno(),), (), deadline)
    return done, pending


def wait(items: Iterable[E], timeout: float | None = None, return_when: str = ALL_COMPLETED) -> tuple[set[E], set[E]]:
    """Waits until all of these have ended, or the first one (``return_when=FIRST_COMPLETED``), or ``timeout`` seconds are over; gives those that
    have ended and those that have not, as concurrent.futures.wait does, and raises nothing at the timeout.

    ``items``: containers, exec sessions, or other objects whose ``fileno()`` becomes readable at the end. How each one ended is told at once by
    its own ``wait()``. Raises InvalidOption."""
    return drive(watch(items, timeout, return_when))
