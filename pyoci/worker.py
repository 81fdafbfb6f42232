"""One thread that drives operations on one epoll and does what other threads tell it: what ``Launcher`` and ``WarmPool`` are made of."""

from __future__ import annotations

import atexit
import os
import threading
from collections import deque
from errno import EAGAIN
from sys import byteorder
from weakref import WeakSet

from pyoci import _ffi
from pyoci.errors import SpawnError
from pyoci.process import Descriptor
from pyoci.waiting import Many, Wait

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pyoci.waiting import Operation


ONE = (1).to_bytes(8, byteorder)
"""What an eventfd takes."""


class Worker:
    """``turn``: called on the thread with what drives its operations, whenever something has happened or was told; the thread ends when it gives
    False. ``close``: called when the interpreter ends and the thread has not. ``told``: what was told and not yet taken out by ``turn``.
    ``lock``: held while something is told; for what ``turn`` shares with other threads."""

    def __init__(self, name: str, turn: Callable[[Many], bool], close: Callable[[], object]) -> None:
        self.told: deque[tuple[str, Any]] = deque()
        self.lock: threading.Lock = threading.Lock()
        self.close = close
        self._turn = turn
        self._bell = Descriptor(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
        self._many = Many()
        self._owner = os.getpid()
        self.thread: threading.Thread = threading.Thread(target=self._work, name=name, daemon=True)

    def start(self) -> None:
        """Not in the constructor: ``turn`` may need this object at its owner's. Raises SpawnError."""
        try:
            self.thread.start()
        except RuntimeError as error:  # all that Python tells of pthread_create(3)
            self._bell.close()
            self._many.close()
            raise SpawnError(EAGAIN, f"starting the thread {self.thread.name}: {error}; is the limit of threads reached (ulimit -u)?") from None
        _open.add(self)

    def is_ours(self) -> bool:
        """It belongs to this process, not to the parent of a fork."""
        return self._owner == os.getpid()

    def tell(self, what: str, about: Any = None) -> None:
        """Nothing any more when the thread has ended."""
        with self.lock:
            if self._bell.fd >= 0:
                self.told.append((what, about))
                self.ring()

    def ring(self) -> None:
        """Makes it take a turn."""
        if self._bell.fd >= 0:  # -1: the thread has ended
            try:
                _ffi.write(self._bell.fd, ONE)
            except BlockingIOError:
                pass  # it rings already

    def join(self) -> None:
        """Waits for the end of the thread; from itself, or in a forked child, it is nothing."""
        if self.is_ours() and threading.current_thread() is not self.thread:
            self.thread.join()

    def _work(self) -> None:
        many = self._many
        bell = self._listen()
        many.add(bell, lambda _result, _error: None)
        try:
            while self._turn(many):
                many.step()
        finally:
            bell.close()
            many.close()
            with self.lock:
                self._bell.close()
                self.told.clear()
            _open.discard(self)

    def _listen(self) -> Operation[None]:
        while True:
            yield Wait((self._bell.fd,))
            try:
                _ffi.read(self._bell.fd, len(ONE))
            except BlockingIOError:
                pass


_open: WeakSet[Worker] = WeakSet()


@atexit.register
def _close_all() -> None:
    """The interpreter ends: containers of launchers and pools do not outlive it."""
    for worker in list(_open):
        if worker.is_ours():
            worker.close()
