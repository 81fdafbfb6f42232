"""After fork() of this process: what the child may not do, and what it must not keep.

The child has a copy of every object and of every descriptor. What it does with an inherited object would happen to the parent's containers, so
objects remember the generation they were made in (``Life``), and what cleans up looks at it: in a child, the end of a ``with`` block, a
cancelled call and the collector leave the parent's containers alone. os.fork and multiprocessing are seen; a fork from C is not.
"""

from __future__ import annotations

import os
from _thread import RLock

from pyoci import _ffi

generation: int = 0
"""How many forks lie between the process that imported this and the one that we are."""

_guard = RLock()  # no fork while a descriptor is open and not yet known here
_private: set[Private] = set()


class Private:
    """A descriptor that no forked child keeps: a flock belongs to the open file, and a copy of the descriptor would hold it on."""

    __slots__ = ("fd",)

    def __init__(self, path: str, flags: int) -> None:
        with _guard:
            self.fd: int = _ffi.open_file(path, flags)
            _private.add(self)

    def close(self) -> None:
        with _guard:
            fd, self.fd = self.fd, -1
            _private.discard(self)
            if fd >= 0:
                _ffi.close(fd)


def _in_child() -> None:
    global generation
    generation += 1
    while _private:
        _private.pop().close()
    _guard.release()


os.register_at_fork(before=_guard.acquire, after_in_parent=_guard.release, after_in_child=_in_child)
