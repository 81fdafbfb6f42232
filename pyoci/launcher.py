"""Many short containers: ``Launcher``, an executor whose work items are containers (concurrent.futures), all driven by one thread on one epoll.

Starting is what costs a processor, running may cost nothing: so there are two limits, for containers that are being created and started, and for
all that exist. Work begins in the order in which it was handed in.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from concurrent.futures import CancelledError, Executor, Future
from contextvars import copy_context
from itertools import islice
from queue import SimpleQueue

from pyoci import oneshot
from pyoci.errors import InvalidOption
from pyoci.worker import Worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
    from types import TracebackType
    from typing import Any, Self, TypeAlias, Unpack

    from pyoci.oneshot import CompletedProcess, RunOptions
    from pyoci.waiting import Many, Operation

    Command: TypeAlias = Sequence[str] | "Job"

STARTING_PER_PROCESSOR = 2
RUNNING_PER_PROCESSOR = 8


class Job:
    """A container to be run: ``pyoci.run``'s arguments, as a value that can be pickled when they can. Called, it runs: so other engines
    (ProcessPoolExecutor, dask, ray) can carry it to where it shall run."""

    __slots__ = ("args", "options")

    def __init__(self, args: Sequence[str], **options: Unpack[RunOptions]) -> None:
        oneshot.check_names(options)
        self.args: Sequence[str] = args
        self.options: RunOptions = options

    def __call__(self) -> CompletedProcess:
        return oneshot.run(self.args, **self.options)

    def __repr__(self) -> str:
        return f"Job({self.args!r}{''.join(f', {name}={value!r}' for name, value in self.options.items())})"

    def given(self, options: Mapping[str, Any]) -> Job:
        """The same with these options in place of its own."""
        changed: dict[str, Any] = {**self.options, **options}
        return Job(self.args, **changed) if options else self

    def operation(self, defaults: Mapping[str, Any], on_start: Callable[[], object]) -> Operation[CompletedProcess]:
        """What runs it, with these options where it has none of its own; ``on_start`` is called before the caller's."""
        options: Any = {**defaults, **self.options}
        theirs = options.get("on_start")

        def both() -> None:
            on_start()
            if theirs is not None:
                theirs()

        return oneshot.plan(self.args, **{**options, "on_start": both})


def job(command: Command) -> Job:
    return command if isinstance(command, Job) else Job(command)


class Progress:
    """How far a launcher has come: numbers of containers. ``done`` counts ``failed`` in: those whose future holds an exception."""

    __slots__ = ("done", "failed", "queued", "running", "starting")

    def __init__(self, queued: int = 0, starting: int = 0, running: int = 0, done: int = 0, failed: int = 0) -> None:
        self.queued: int = queued
        self.starting: int = starting
        self.running: int = running
        self.done: int = done
        self.failed: int = failed

    def __repr__(self) -> str:
        return f"Progress({', '.join(f'{name}={getattr(self, name)}' for name in ('queued', 'starting', 'running', 'done', 'failed'))})"


class Limits:
    """``max_starting`` and ``max_running``, by default from the processors that we may use. Raises InvalidOption."""

    __slots__ = ("running", "starting")

    def __init__(self, max_starting: int | None, max_running: int | None) -> None:
        processors = len(os.sched_getaffinity(0))
        self.starting: int = count("max_starting", max_starting, STARTING_PER_PROCESSOR * processors)
        self.running: int = count("max_running", max_running, max(RUNNING_PER_PROCESSOR * processors, self.starting))


def count(name: str, given: int | None, default: int) -> int:
    """A whole number from 1 on, as given or by default. Raises InvalidOption."""
    if given is None:
        return default
    if type(given) is not int or given < 1:
        raise InvalidOption(f"{name} must be a whole number from 1 on, not {given!r:.200}")
    return given


def check_progress(progress: object) -> None:
    """Raises InvalidOption."""
    if progress is not None and not callable(progress):
        raise InvalidOption(f"progress must be something that can be called with a Progress, not {progress!r:.200}")


class LaunchFuture(Future["CompletedProcess"]):
    """The future of one container's CompletedProcess. ``cancel`` also ends one that runs: it is killed and removed, and the future then is
    cancelled."""

    def __init__(self, launcher: Launcher, work: Job) -> None:
        super().__init__()
        self.job = work
        self._launcher = launcher
        self._context = copy_context()  # who hands it in is the parent of its spans
        self._is_cancelled = False

    def cancel(self) -> bool:
        """False when it has ended already."""
        if super().cancel():
            self._launcher._worker.tell("forget", self)
            return True
        if self.done():
            return False
        self._launcher._worker.tell("cancel", self)
        return True

    def cancelled(self) -> bool:
        return self._is_cancelled or super().cancelled()


class Launcher(Executor):
    """Runs containers, many at once. The calls may come from any thread.

    ``max_starting``: how many are created and started at a time; ``max_running``: how many exist at a time; by default 2 and 8 for each processor.
    ``max_queued``: how many more ``submit`` takes before it blocks; None: any number. ``progress``: called with a ``Progress`` after each
    change, on the launcher's thread: it must be quick. ``defaults``: options of ``pyoci.run`` for every container that has no others.

    As a context manager it waits for all that was handed in; when an exception leaves the block, it kills and removes what runs."""

    def __init__(
        self,
        *,
        max_starting: int | None = None,
        max_running: int | None = None,
        max_queued: int | None = None,
        progress: Callable[[Progress], object] | None = None,
        **defaults: Unpack[RunOptions],
    ) -> None:
        oneshot.check_names(defaults)
        check_progress(progress)
        self.limits: Limits = Limits(max_starting, max_running)
        self._room = None if max_queued is None else threading.Semaphore(count("max_queued", max_queued, 1))
        self._progress = progress
        self._defaults = defaults
        self._closed = False
        self._queue: deque[LaunchFuture] = deque()
        self._operations: dict[LaunchFuture, Operation[CompletedProcess]] = {}
        self._starting: set[LaunchFuture] = set()
        self._ending: set[LaunchFuture] = set()
        self._done = self._failed = 0
        self._worker = Worker("pyoci-launcher", self._turn, self.close)
        self._worker.start()

    # --- for callers, on any thread ---------------------------------------------------------------------------------------------------

    def submit(self, command: Command, /, **options: Unpack[RunOptions]) -> LaunchFuture:  # type: ignore[override]
        """Hands a container in: a command with options as for ``pyoci.run``, or a ``Job``. The future gives its CompletedProcess, or the exception
        that ``pyoci.run`` would raise. Blocks while ``max_queued`` wait."""
        if not self._worker.is_ours():
            raise RuntimeError("this launcher belongs to the process that made it, not to its fork")
        work = job(command).given(options)
        if self._room is not None:
            self._room.acquire()
        future = LaunchFuture(self, work)
        with self._worker.lock:
            if self._closed:
                if self._room is not None:
                    self._room.release()
                raise RuntimeError("this launcher is closed")
            self._worker.told.append(("submit", future))
            self._worker.ring()
        return future

    def map(  # type: ignore[override]
        self, commands: Iterable[Command], /, *, return_exceptions: bool = False, **options: Unpack[RunOptions]
    ) -> Generator[Any, None, None]:
        """The results in the order of the commands, which are taken from their iterable as they can be begun, a few ahead. An exception is raised
        in its turn and ends the others, or given as a result with ``return_exceptions``. ``timeout``, among the options, is each container's."""
        ahead: deque[LaunchFuture] = deque()
        source = iter(commands)
        try:
            while True:
                ahead.extend(self.submit(command, **options) for command in islice(source, self._window - len(ahead)))
                if not ahead:
                    return
                future = ahead.popleft()
                result: Any
                try:
                    result = future.result()
                except BaseException as error:
                    if not return_exceptions or not future.done() or not isinstance(error, Exception):
                        future.cancel()
                        raise
                    result = error
                yield result
        finally:
            for future in ahead:
                future.cancel()

    def as_completed(self, commands: Iterable[Command], /, **options: Unpack[RunOptions]) -> Generator[LaunchFuture, None, None]:
        """The futures of the commands as they end; ``future.job`` tells which it is. The commands are taken as they can be begun."""
        ended: SimpleQueue[LaunchFuture] = SimpleQueue()
        going: set[LaunchFuture] = set()
        source = iter(commands)
        try:
            while True:
                for command in islice(source, self._window - len(going)):
                    future = self.submit(command, **options)
                    going.add(future)
                    future.add_done_callback(ended.put)  # type: ignore[arg-type]
                if not going:
                    return
                future = ended.get()
                going.remove(future)
                yield future
        finally:
            for future in going:
                future.cancel()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more; ``wait``: until all that was handed in has ended. ``cancel_futures``: what has not begun is given up."""
        self._close("give up" if cancel_futures else "finish")
        if wait:
            self._worker.join()

    def close(self) -> None:
        """Takes no more, kills and removes what runs, gives up what has not begun, and waits for the end of that."""
        self._close("stop")
        self._worker.join()

    def _close(self, how: str) -> None:
        with self._worker.lock:
            self._closed = True
        self._worker.tell(how)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.shutdown()
        else:
            self.close()

    @property
    def _window(self) -> int:
        return 2 * self.limits.running

    # --- the launcher's thread --------------------------------------------------------------------------------------------------------

    def _turn(self, many: Many) -> bool:
        self._obey(many)
        self._begin(many)
        return not (self._closed and not self._worker.told and not self._queue and not self._operations)

    def _obey(self, many: Many) -> None:
        while self._worker.told:
            what, future = self._worker.told.popleft()
            if what == "submit":
                self._queue.append(future)
            elif what == "forget":
                self._notify()  # it is passed over when its turn comes
            elif what == "cancel":
                self._end(many, future)
            elif what in ("give up", "stop"):
                for waiting in self._queue:
                    Future.cancel(waiting)
                if what == "stop":
                    for running in list(self._operations):
                        self._end(many, running)

    def _end(self, many: Many, future: LaunchFuture) -> None:
        # Once: a second time would interrupt the cleaning up.
        if future in self._operations and future not in self._ending:
            self._ending.add(future)
            many.throw(self._operations[future], CancelledError())

    def _begin(self, many: Many) -> None:
        while self._queue and len(self._starting) < self.limits.starting and len(self._operations) < self.limits.running:
            future = self._queue.popleft()
            if self._room is not None:
                self._room.release()
            if not future.set_running_or_notify_cancel():
                self._done += 1
                self._notify()
                continue
            try:
                operation = future.job.operation(self._defaults, lambda future=future: self._has_started(future))  # type: ignore[misc]
            except Exception as error:
                self._ended(future, None, error)
                continue
            self._operations[future] = operation
            self._starting.add(future)
            self._notify()
            future._context.run(many.add, operation, lambda result, error, future=future: self._ended(future, result, error))

    def _has_started(self, future: LaunchFuture) -> None:
        self._starting.discard(future)
        self._notify()

    def _ended(self, future: LaunchFuture, result: CompletedProcess | None, error: BaseException | None) -> None:
        self._operations.pop(future, None)
        self._starting.discard(future)
        self._ending.discard(future)
        self._done += 1
        self._failed += error is not None
        self._notify()
        if result is not None:
            future.set_result(result)
        else:
            future._is_cancelled = isinstance(error, CancelledError)
            future.set_exception(error)
        self._worker.ring()  # its place is free

    def _notify(self) -> None:
        if self._progress is not None:
            starting = len(self._starting)
            try:
                self._progress(Progress(len(self._queue), starting, len(self._operations) - starting, self._done, self._failed))
            except Exception:
                import logging

                logging.getLogger("pyoci").exception("a launcher's progress callback failed")
