"""The same objects for asyncio: the same operations, driven by the event loop. The only module that imports asyncio.

A cancelled call cleans up after itself before it ends: what a cancelled create has begun is removed, and then CancelledError is raised.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterable
from time import monotonic_ns

from pyoci import execs, forks, lifecycle, logs, oneshot, recovery, several, spec
from pyoci.attach import AttachmentBase, connect
from pyoci.container import ContainerBase, ExecSessionBase
from pyoci.launcher import Job, Limits, Progress, check_progress, job
from pyoci.runtime import RuntimeBase, loaded
from pyoci.store import store_at
from pyoci.streams import DEVNULL, StreamBase
from pyoci.waiting import NEVER, is_over
from pyoci.warm import PoolBase

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
    from types import TracebackType
    from typing import Any, Self, TypeVar, Unpack

    from pyoci.execs import ExecOptions
    from pyoci.exits import ExitStatus
    from pyoci.launcher import Command
    from pyoci.logs import LogEntry, LogOptions
    from pyoci.oneshot import RunOptions
    from pyoci.options import CreateOptions
    from pyoci.recovery import Pruned
    from pyoci.runtimes import State
    from pyoci.several import E
    from pyoci.waiting import Operation, Wait

    T = TypeVar("T")


async def drive(operation: Operation[T]) -> T:
    """Runs one operation to its end on the running event loop."""
    ready: set[int] | None = None  # None starts a generator
    error: BaseException | None = None
    is_cancelled = False
    while True:
        try:
            wait = operation.send(ready) if error is None else operation.throw(error)  # type: ignore[arg-type]
            error = None
            ready = await _wait(wait)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        except BaseException as e:
            if is_over(operation):
                raise
            if is_cancelled and isinstance(e, asyncio.CancelledError):
                ready = set()  # again, while it cleans up: let it
            else:
                is_cancelled = isinstance(e, asyncio.CancelledError)
                error = e


async def _wait(wait: Wait) -> set[int]:
    loop = asyncio.get_running_loop()
    born = forks.generation
    woken: asyncio.Future[None] = loop.create_future()
    ready: set[int] = set()

    def wake(fd: int | None = None) -> None:
        if fd is not None:
            ready.add(fd)
        if not woken.done():
            woken.set_result(None)

    timer = None
    if wait.deadline != NEVER:
        timer = loop.call_later(max(wait.deadline - monotonic_ns(), 0) / 1e9, wake)
    # A loop knows one callback per descriptor, and two tasks may wait for one pidfd: each waits on a duplicate of its own.
    duplicates: list[tuple[int, bool]] = []
    try:
        for fds, add, is_write in ((wait.read, loop.add_reader, False), (wait.write, loop.add_writer, True)):
            for fd in fds:
                duplicate = os.dup(fd)
                duplicates.append((duplicate, is_write))
                add(duplicate, wake, fd)
        await woken
    finally:
        if timer is not None:
            timer.cancel()
        for duplicate, is_write in duplicates:
            if forks.generation == born:  # the loop's epoll is shared with a forked child, which must not take our parent's out of it
                (loop.remove_writer if is_write else loop.remove_reader)(duplicate)
            os.close(duplicate)
    return ready


class Stream(StreamBase):
    """As ``pyoci.streams.Stream``, awaited; for one reader and one writer."""

    __slots__ = ()

    async def read(self, size: int = -1) -> bytes:
        """As ``pyoci.streams.Stream.read``."""
        return await drive(self._read(size))

    async def readline(self) -> bytes:
        """As ``pyoci.streams.Stream.readline``."""
        return await drive(self._readline())

    async def write(self, data: bytes | bytearray | memoryview) -> int:
        """As ``pyoci.streams.Stream.write``."""
        return await drive(self._write(data))

    async def close(self) -> None:
        """As ``pyoci.streams.Stream.close``."""
        self._close()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while line := await self.readline():
            yield line

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()


class Container(ContainerBase):
    """One container; as ``pyoci.Container``, awaited. ``async with`` stops and deletes it at the end."""

    __slots__ = ()

    _stream = Stream
    stdin: Stream | None
    stdout: Stream | None
    stderr: Stream | None

    @classmethod
    async def load(cls, id: str, *, state_dir: str | os.PathLike[str] | None = None) -> Self:
        """The container with this id, whichever process created it. Raises ContainerNotFound."""
        return cls._of(lifecycle.load(store_at(state_dir), id))

    async def state(self) -> State:
        """As ``pyoci.Container.state``."""
        return await drive(lifecycle.state(self._life))

    async def start(self) -> None:
        """As ``pyoci.Container.start``."""
        await drive(lifecycle.start(self._life))

    async def wait(self, timeout: float | None = None) -> ExitStatus:  # noqa: ASYNC109
        """As ``pyoci.Container.wait``."""
        return await drive(lifecycle.wait(self._life, timeout))

    async def kill(self, signal: int | str = "KILL") -> None:
        """As ``pyoci.Container.kill``."""
        await drive(lifecycle.kill(self._life, spec.signal_number(signal)))

    async def stop(self, timeout: float = lifecycle.STOP_TIMEOUT, *, signal: int | str | None = None) -> ExitStatus:  # noqa: ASYNC109
        """As ``pyoci.Container.stop``."""
        return await drive(lifecycle.stop(self._life, timeout, None if signal is None else spec.signal_number(signal)))

    async def pause(self) -> None:
        """As ``pyoci.Container.pause``."""
        await drive(lifecycle.pause(self._life))

    async def resume(self) -> None:
        """As ``pyoci.Container.resume``."""
        await drive(lifecycle.resume(self._life))

    async def delete(self, *, force: bool = False) -> None:
        """As ``pyoci.Container.delete``."""
        await drive(lifecycle.delete(self._life, force))

    async def exec(self, args: Sequence[str], **options: Unpack[ExecOptions]) -> ExecSession:
        """As ``pyoci.Container.exec``."""
        return ExecSession._of(await drive(execs.plan(self._life, args, **options)))

    async def exec_sessions(self) -> list[ExecSession]:
        """As ``pyoci.Container.exec_sessions``."""
        return [ExecSession._of(execs.Started(session)) for session in execs.living(self._life)]

    async def exec_stop(self, timeout: float = lifecycle.STOP_TIMEOUT) -> None:  # noqa: ASYNC109
        """As ``pyoci.Container.exec_stop``."""
        await drive(execs.stop(execs.living(self._life), timeout))

    def logs(self, **options: Unpack[LogOptions]) -> AsyncIterator[LogEntry]:
        """As ``pyoci.Container.logs``, for ``async for``."""
        return _entries(logs.reader(self._life, **options))

    async def attach(self) -> Attachment:
        """As ``pyoci.Container.attach``."""
        return Attachment(self._life, await drive(connect(self._life)))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            await drive(lifecycle.leave(self._life, failed=kind is not None))
        finally:
            self._close()


async def _entries(reader: logs.Reader) -> AsyncIterator[LogEntry]:
    try:
        while entries := await drive(reader.more()):
            for entry in entries:
                yield entry
    finally:
        reader.close()


class Attachment(AttachmentBase):
    """As ``pyoci.attach.Attachment``, awaited."""

    __slots__ = ()

    async def read(self) -> tuple[int, bytes] | None:
        """As ``pyoci.attach.Attachment.read``."""
        return await drive(self._read())

    async def write(self, data: bytes | bytearray | memoryview) -> int:
        """As ``pyoci.attach.Attachment.write``."""
        return await drive(self._write(data))

    async def close_stdin(self) -> None:
        """As ``pyoci.attach.Attachment.close_stdin``."""
        self._close_stdin()

    async def close(self) -> None:
        """As ``pyoci.attach.Attachment.close``."""
        self._close()

    async def __aiter__(self) -> AsyncIterator[tuple[int, bytes]]:
        while (packet := await self.read()) is not None:
            yield packet

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()


class ExecSession(ExecSessionBase):
    """As ``pyoci.ExecSession``, awaited; its streams too."""

    __slots__ = ()

    _stream = Stream
    stdin: Stream | None
    stdout: Stream | None
    stderr: Stream | None

    async def wait(self, timeout: float | None = None) -> ExitStatus:  # noqa: ASYNC109
        """As ``pyoci.ExecSession.wait``."""
        return await drive(execs.wait(self._session, timeout))

    async def communicate(
        self,
        input: bytes | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
        *,
        max_output: int | None = None,
    ) -> tuple[bytes | None, bytes | None]:
        """As ``pyoci.ExecSession.communicate``."""
        return await drive(execs.communicate(self._session, self._ends(), input, timeout, max_output))

    async def kill(self, signal: int | str = "KILL") -> None:
        """As ``pyoci.ExecSession.kill``."""
        await drive(execs.kill(self._session, spec.signal_number(signal)))

    async def stop(self, timeout: float = lifecycle.STOP_TIMEOUT) -> None:  # noqa: ASYNC109
        """As ``pyoci.ExecSession.stop``."""
        await drive(execs.stop((self._session,), timeout))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()
        await drive(execs.leave(self._session, failed=kind is not None))


class OCIRuntime(RuntimeBase):
    """As ``pyoci.OCIRuntime``, awaited. ``async with`` is possible and does nothing at its end: containers outlive it."""

    async def create(self, bundle: str | os.PathLike[str] | Mapping[str, Any], id: str | None = None, **options: Unpack[CreateOptions]) -> Container:
        """As ``pyoci.OCIRuntime.create``."""
        return Container._of(await drive(self._create(bundle, id, options)))

    async def load(self, id: str) -> Container:
        """As ``pyoci.OCIRuntime.load``."""
        return Container._of(lifecycle.load(self._host.store, id))

    async def list(self) -> list[Container]:
        """As ``pyoci.OCIRuntime.list``."""
        return [Container._of(life) for life in loaded(self._host.store)]

    async def prune(self, *, dry_run: bool = False, created: bool = False, older_than: float = 0.0) -> Sequence[Pruned]:
        """As ``pyoci.OCIRuntime.prune``."""
        return await drive(self._prune(dry_run, created, older_than))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return None


async def prune(
    state_dir: str | os.PathLike[str] | None = None, *, dry_run: bool = False, created: bool = False, older_than: float = 0.0
) -> list[Pruned]:
    """As ``pyoci.prune``."""
    return await drive(recovery.sweep(store_at(state_dir), dry_run=dry_run, created=created, older_than=older_than))


async def wait(
    items: Iterable[E],
    timeout: float | None = None,  # noqa: ASYNC109
    return_when: str = several.ALL_COMPLETED,
) -> tuple[set[E], set[E]]:
    """As ``pyoci.wait``."""
    return await drive(several.watch(items, timeout, return_when))


class Launcher:
    """As ``pyoci.Launcher``, on the event loop. To be used on one loop, within it."""

    def __init__(
        self,
        *,
        max_starting: int | None = None,
        max_running: int | None = None,
        progress: Callable[[Progress], object] | None = None,
        **defaults: Unpack[RunOptions],
    ) -> None:
        oneshot.check_names(defaults)
        check_progress(progress)
        self.limits: Limits = Limits(max_starting, max_running)
        self._defaults = defaults
        self._report = progress
        self._progress = Progress()
        # Of asyncio's: first come, first served.
        self._may_start = asyncio.Semaphore(self.limits.starting)
        self._may_run = asyncio.Semaphore(self.limits.running)
        self._tasks: set[asyncio.Task[oneshot.CompletedProcess]] = set()

    async def run(self, command: Command, /, **options: Unpack[RunOptions]) -> oneshot.CompletedProcess:
        """Runs a container when its turn comes, and gives what ``pyoci.aio.run`` gives."""
        work = job(command).given(options)
        self._count(queued=1)
        waits = True
        try:
            async with self._may_run:
                await self._may_start.acquire()
                waits = False
                self._count(queued=-1, starting=1)
                return await self._live(work)
        finally:
            self._count(done=1, queued=-1 if waits else 0)

    async def _live(self, work: Job) -> oneshot.CompletedProcess:
        is_starting = True

        def started() -> None:
            nonlocal is_starting
            is_starting = False
            self._may_start.release()
            self._count(starting=-1, running=1)

        try:
            return await drive(work.operation(self._defaults, started))
        except BaseException:
            self._progress.failed += 1
            raise
        finally:
            if is_starting:
                self._may_start.release()
                self._count(starting=-1)
            else:
                self._count(running=-1)

    def submit(self, command: Command, /, **options: Unpack[RunOptions]) -> asyncio.Task[oneshot.CompletedProcess]:
        """``run`` as a task; cancelled, its container is killed and removed."""
        task = asyncio.ensure_future(self.run(command, **options))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def map(
        self, commands: Iterable[Command] | AsyncIterable[Command], /, *, return_exceptions: bool = False, **options: Unpack[RunOptions]
    ) -> AsyncIterator[Any]:
        """As ``pyoci.Launcher.map``: the results in the order of the commands, which are taken as they can be begun, a few ahead."""
        ahead: deque[asyncio.Task[oneshot.CompletedProcess]] = deque()
        source = _source(commands)
        more = True
        try:
            while True:
                while more and len(ahead) < 2 * self.limits.running:
                    try:
                        command = await anext(source)
                    except StopAsyncIteration:
                        more = False
                    else:
                        ahead.append(self.submit(command, **options))
                if not ahead:
                    return
                task = ahead[0]
                await asyncio.wait((task,))
                ahead.popleft()
                error = None if task.cancelled() else task.exception()
                yield error if return_exceptions and isinstance(error, Exception) else task.result()
        finally:
            await _end(ahead)

    async def as_completed(
        self, commands: Iterable[Command] | AsyncIterable[Command], /, **options: Unpack[RunOptions]
    ) -> AsyncIterator[asyncio.Task[oneshot.CompletedProcess]]:
        """The tasks of the commands as they end; the commands are taken as they can be begun."""
        going: set[asyncio.Task[oneshot.CompletedProcess]] = set()
        source = _source(commands)
        more = True
        try:
            while True:
                while more and len(going) < 2 * self.limits.running:
                    try:
                        command = await anext(source)
                    except StopAsyncIteration:
                        more = False
                    else:
                        going.add(self.submit(command, **options))
                if not going:
                    return
                ended, _ = await asyncio.wait(going, return_when=asyncio.FIRST_COMPLETED)
                for task in ended:
                    going.discard(task)
                    yield task
        finally:
            await _end(going)

    async def close(self) -> None:
        """Kills and removes what was submitted and runs, and waits for the end of that."""
        await _end(self._tasks)

    def _count(self, **changes: int) -> None:
        for name, change in changes.items():
            setattr(self._progress, name, getattr(self._progress, name) + change)
        if self._report is not None:
            self._report(self._progress)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None and self._tasks:
            await asyncio.wait(self._tasks)
        await self.close()


class WarmPool(PoolBase):
    """As ``pyoci.WarmPool``, awaited. It fills on a thread of its own all the same."""

    async def claim(
        self,
        args: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stdin: Any = None,
        stdout: Any = None,
        stderr: Any = None,
    ) -> Container:
        """As ``pyoci.WarmPool.claim``."""
        return Container._of(await drive(self._claim(args, env, cwd, (DEVNULL if stdin is None else stdin, stdout, stderr))))

    async def fill(self, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """As ``pyoci.WarmPool.fill``."""
        await drive(self._fill(timeout))

    async def close(self) -> None:
        """As ``pyoci.WarmPool.close``."""
        await drive(self._close())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()


async def _source(commands: Iterable[Command] | AsyncIterable[Command]) -> AsyncIterator[Command]:
    if isinstance(commands, AsyncIterable):
        async for command in commands:
            yield command
    else:
        for command in commands:
            yield command


async def _end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancels what has not ended, and waits until it has cleaned up."""
    left = [task for task in tasks if not task.done()]
    for task in left:
        if not task.cancelling():  # a second time would interrupt the cleaning up
            task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


async def run(args: Sequence[str], **options: Unpack[RunOptions]) -> oneshot.CompletedProcess:
    """As ``pyoci.run``, awaited; cancelled, it kills and removes the container."""
    return await drive(oneshot.plan(args, **options))


run.__wrapped__ = oneshot.plan  # type: ignore[attr-defined]
