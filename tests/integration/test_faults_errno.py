"""Row 11 of docs/faults.md: each system call of a thread of ours, in turn, fails for want of descriptors, of memory or of processes, while it does a
whole piece of work. What comes of it is an OSError, or an exception of pyoci's, or the right result; and nothing is left. See tests/injecting.py.

The normal suite tries a sample of each piece of work, the same each time."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pyoci
import pyoci.aio
from tests import audit
from tests.containers import FOREVER, Build, ready
from tests.injecting import Fault, faults, traced
from tests.long import LONG

pytestmark = [pytest.mark.root, pytest.mark.once]

SAMPLE = 3
Work = Callable[[], object]
Try = Callable[..., None]

EXIT_3 = ["sh", "-c", "cat; exit 3"]


def judge(fault: Fault, error: BaseException | None) -> None:
    """What may be raised. Python has one of its own for memory that it wanted itself."""
    if error is not None and not isinstance(error, OSError | pyoci.Error) and not (isinstance(error, MemoryError) and fault.errno == "ENOMEM"):
        raise AssertionError(f"{fault}: {error!r}") from error


@pytest.fixture
def try_each(state_dir: str) -> Try:
    """Does a piece of work again and again, each time with another fault. ``settle`` is called before it is looked what is left."""

    def try_each(work: Work, settle: Work = lambda: None, thread_id: int | None = None) -> None:
        for _ in range(2):  # what is made once and kept
            work()
            settle()
        every = list(faults(work, thread_id))
        settle()
        gc.collect()
        before = audit.everything(state_dir)
        for fault in every if LONG else random.Random(11).sample(every, min(SAMPLE, len(every))):
            outcome = traced(work, fault.options, thread_id)
            judge(fault, outcome.error)
            del outcome
            gc.collect()
            settle()
            left = audit.left_over(before, state_dir)
            assert not left, f"{fault} leaves behind:\n" + "\n".join(sorted(left))

    return try_each


@pytest.fixture(params=["conmon", "direct"])
def monitor(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextlib.contextmanager
def one_that_runs(runtime: pyoci.OCIRuntime, build: Build) -> Iterator[pyoci.Container]:
    with runtime.create(build(*FOREVER)) as container:
        container.start()
        ready(container)
        yield container


def test_row_11_run(runtime: pyoci.OCIRuntime, monitor: str, try_each: Try) -> None:
    def work() -> None:
        done = pyoci.run(EXIT_3, input=b"words", runtime=runtime, monitor=monitor)
        assert (done.returncode, done.stdout) == (3, b"words")

    try_each(work)


def test_row_11_a_life_by_the_runtime_s_own_commands(runtime: pyoci.OCIRuntime, build: Build, monitor: str, try_each: Try) -> None:
    plain = pyoci.OCIRuntime(runtime.runtime_path, state_dir=runtime.state_dir, shortcuts=False)
    spec = build(*EXIT_3)

    def work() -> None:
        with plain.create(spec, monitor=monitor) as container:
            container.start()
            assert container.wait(20).code == 3
            container.delete()

    try_each(work)


def test_row_11_a_create_that_fails_anyway(runtime: pyoci.OCIRuntime, build: Build, monitor: str, try_each: Try) -> None:
    spec = build("/nope")

    def work() -> None:
        with contextlib.suppress(pyoci.CreateError):
            runtime.create(spec, monitor=monitor)
            raise AssertionError("it was created")

    try_each(work)


def test_row_11_stop_logs_and_attach(runtime: pyoci.OCIRuntime, build: Build, try_each: Try) -> None:
    spec = build("sh", "-c", "trap 'exit 5' TERM; echo ready; sleep 100 & wait")

    def work() -> None:
        with runtime.create(spec) as container, container.attach() as attachment:
            container.start()
            assert attachment.read() == (1, b"ready\n")
            assert next(container.logs(follow=True)).data == b"ready"
            assert container.stop(10).code == 5

    try_each(work)


def test_row_11_exec(runtime: pyoci.OCIRuntime, build: Build, try_each: Try) -> None:
    with one_that_runs(runtime, build) as container:

        def piped() -> None:
            with container.exec(["sh", "-c", "cat; exit 4"], stdin=pyoci.PIPE, stdout=pyoci.PIPE) as session:
                assert session.communicate(b"words", timeout=20)[0] == b"words"
                assert session.wait(20).code == 4

        def on_a_terminal() -> None:
            with container.exec(["sh", "-c", "echo words; exit 4"], tty=True) as session:
                assert b"words" in (session.communicate(timeout=20)[0] or b"")
                assert session.wait(20).code == 4

        def settle() -> None:
            """What stays in its directory for want of memory at unlink(2) goes with the container."""
            for file in Path(container.directory, "execs").iterdir():
                file.unlink()

        for work in (piped, on_a_terminal):
            try_each(work, settle)


def test_row_11_what_others_ask(runtime: pyoci.OCIRuntime, build: Build, try_each: Try) -> None:
    with one_that_runs(runtime, build):

        def work() -> None:
            (found,) = runtime.list()
            assert runtime.prune() == []
            with contextlib.suppress(pyoci.ContainerStateError):
                found.resume()
            assert found.state() == "running"
            found.pause()
            assert found.state() == "paused"

        try_each(work)


def test_row_11_many(runtime: pyoci.OCIRuntime, monitor: str, try_each: Try) -> None:
    """On the caller's thread, and on a launcher's."""

    def all_of(pool: pyoci.Launcher) -> None:
        for result in [*pool.map([EXIT_3] * 2, return_exceptions=True)]:
            if isinstance(result, BaseException):
                raise result
            assert result.returncode == 3

    def work() -> None:
        with pyoci.Launcher(runtime=runtime, monitor=monitor) as pool:
            all_of(pool)

    try_each(work)
    with pyoci.Launcher(runtime=runtime, monitor=monitor) as pool:
        try_each(lambda: all_of(pool), thread_id=pool._worker.thread.native_id)


def test_row_11_a_warm_pool(runtime: pyoci.OCIRuntime, monitor: str) -> None:
    """On the claimer's thread, and on the pool's, where a create that fails is tried again. What waits differs each time: the audit of the test
    looks afterwards."""
    with pyoci.WarmPool(size=1, runtime=runtime, monitor=monitor) as pool:

        def work() -> None:
            pool.fill(20)
            assert pyoci.run(EXIT_3, pool=pool).returncode == 3

        work()
        for thread_id in (None, pool._worker.thread.native_id):
            every = list(faults(work, thread_id))
            for fault in every if LONG else random.Random(11).sample(every, SAMPLE):
                judge(fault, traced(work, fault.options, thread_id).error)


def test_row_11_a_network(runtime: pyoci.OCIRuntime, try_each: Try) -> None:
    def work() -> None:
        with pyoci.NetworkPool() as pool:
            assert pyoci.run(EXIT_3, runtime=runtime, network=pool).returncode == 3

    try_each(work)


def test_row_11_awaited(runtime: pyoci.OCIRuntime, build: Build, try_each: Try) -> None:
    awaited = pyoci.aio.OCIRuntime(runtime.runtime_path, state_dir=runtime.state_dir)
    spec = build(*EXIT_3)

    async def life() -> None:
        async with await awaited.create(spec) as container:
            await container.start()
            assert (await container.wait(20)).code == 3

    with asyncio.Runner() as runner:
        runner.get_loop()  # made before: asyncio keeps its epoll when it cannot have its socket pair (Python 3.11)
        try_each(lambda: runner.run(life()))


@pytest.mark.parametrize("free", range(25) if LONG else range(0, 25, 4))
def test_row_11_so_many_descriptors_are_free_and_no_more(runtime: pyoci.OCIRuntime, monitor: str, free: int) -> None:
    """For as long as the call lasts, what it does to undo itself included, and for what it starts."""
    pyoci.run(EXIT_3, runtime=runtime, monitor=monitor)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    first = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    os.close(first)
    resource.setrlimit(resource.RLIMIT_NOFILE, (first + free, limits[1]))
    error: BaseException | None = None
    try:
        assert pyoci.run(EXIT_3, runtime=runtime, monitor=monitor).returncode == 3
    except (OSError, pyoci.Error) as caught:
        error = caught
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert (error is None) or "open files" in str(error), error
    del error
