"""What must survive: fork() of the Python process. Row 33 of docs/faults.md."""

import asyncio
import multiprocessing
import os
import sys
import threading
import traceback
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

import pyoci
from pyoci import forks, lifecycle, store
from pyoci._ffi import poll
from pyoci.waiting import Many, Wait
from tests.containers import FOREVER, Build, asking

pytestmark = pytest.mark.once


def in_child(body: Callable[[], object]) -> None:
    """Runs this in a forked child, to its end as an interpreter ends (all that is on the stack is unwound); fails when it does."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            body()
            code = 0
        except SystemExit:
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    reap(pid)


def reap(pid: int) -> None:
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_row_33_the_childs_objects_leave_the_parents_container_alone(runtime: pyoci.OCIRuntime, build: Build) -> None:
    with runtime.create(build(*FOREVER), "job") as container:
        container.start()

        def child() -> None:
            calls: list[Callable[[], object]] = [
                session.kill,
                session.stop,
                container.start,
                container.stop,
                container.kill,
                container.pause,
                container.resume,
                container.delete,
                lambda: container.delete(force=True),
                lambda: container.exec(["true"]),
            ]
            for call in calls:
                with pytest.raises(pyoci.ContainerInherited, match=r"Container\.load"):
                    call()
            assert container.state() == "running"
            with pytest.raises(pyoci.Timeout):
                container.wait(0.01)
            with container, session:
                pass
            with pytest.raises(ZeroDivisionError), container, session:
                _ = 1 / 0

        session = container.exec(["sleep", "100"])
        in_child(child)
        assert session.poll() is None
        session.kill()
        assert session.wait(60).code == 137
        assert container.state() == "running"
        assert container.conmon_pid is not None


@pytest.mark.parametrize("error", [SystemExit, ValueError, KeyboardInterrupt])
def test_row_33_the_end_of_the_parents_block_in_the_child(runtime: pyoci.OCIRuntime, build: Build, error: type[BaseException]) -> None:
    reached = None
    try:
        with runtime.create(build(*FOREVER), "job") as container:
            container.start()
            pid = os.fork()
            if pid == 0:
                raise error
            reap(pid)
            assert container.state() == "running"
            reached = True
    except error:
        os._exit(0)
    assert reached


def test_row_33_the_child_can_load_create_wait_and_run(runtime: pyoci.OCIRuntime, build: Build) -> None:
    with runtime.create(build("sh", "-c", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.02; done"), "job") as container:
        container.start()
        while "ready" not in Path(container.log_path).read_text():
            pass

        def child() -> None:
            with runtime.create(build("sh", "-c", "exit 3")) as own:
                own.start()
                assert own.wait(60).code == 3
            assert pyoci.run(["echo", "child"], runtime=runtime, text=True).stdout == "child\n"
            assert pyoci.Container.load("job", state_dir=runtime.state_dir).stop(timeout=60).code == 7
            assert container.wait(60).code == 7

        in_child(child)
        assert container.wait(60).code == 7


def _work(argument: tuple[str, str, int]) -> int | None:
    path, state_dir, code = argument
    return pyoci.run(["sh", "-c", f"exit {code}"], runtime=path, state_dir=state_dir).returncode


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python 3.12 warns of a fork where there are threads
def test_row_33_multiprocessing(runtime: pyoci.OCIRuntime) -> None:
    pyoci.run(["true"], runtime=runtime)
    with multiprocessing.get_context("fork").Pool(3) as pool:
        codes = pool.map(_work, [(runtime.runtime_path, runtime.state_dir, i) for i in range(9)])
        pool.close()
        pool.join()
    assert codes == list(range(9))


def test_row_33_the_child_unwinds_what_its_parent_is_in_the_midst_of(runtime: pyoci.OCIRuntime, build: Build) -> None:
    """A create, step by step: the child closes the operation at each of its waits, as the collector would."""
    config = build(*FOREVER)
    operation = runtime._create(config, "job", {})
    wait = next(operation)
    waits = 0
    with pytest.raises(StopIteration) as stopped:
        while True:
            in_child(operation.close)
            waits += 1
            wait = operation.send(poll(wait.read, wait.write, wait.deadline))
    assert waits
    container = pyoci.Container._of(stopped.value.value)
    container.start()
    assert container.state() == "running"
    container.delete(force=True)


def test_row_33_a_call_of_the_runtime_that_the_parent_is_waiting_for(runtime: pyoci.OCIRuntime, build: Build) -> None:
    runtime = asking(runtime)
    with runtime.create(build(*FOREVER), "job") as container:
        operation = lifecycle.state(container._life)
        wait = next(operation)
        in_child(operation.close)
        with pytest.raises(StopIteration) as stopped:
            while True:
                wait = operation.send(poll(wait.read, wait.write, wait.deadline))
        assert stopped.value.value == "created"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_row_33_asyncio(runtime: pyoci.OCIRuntime, build: Build) -> None:
    """The child leaves asyncio.run, which cancels all tasks: the parent's creates, waits and blocks go on."""
    config = build(*FOREVER)
    made = pyoci.aio.OCIRuntime(runtime.runtime_path, state_dir=runtime.state_dir)

    async def one() -> None:
        async with await made.create(config) as container:
            await container.start()
            await container.kill()
            assert (await container.wait(60)).code == 137

    async def main() -> str:
        async with await made.create(config, "job") as container:
            await container.start()
            waiting = asyncio.create_task(container.wait(60))
            others = [asyncio.create_task(one()) for _ in range(3)]
            await asyncio.sleep(0.01)
            pid = os.fork()
            if pid == 0:
                raise SystemExit
            reap(pid)
            await asyncio.gather(*others)
            assert await container.state() == "running"
            await container.kill()
            assert (await waiting).code == 137
        return "parent"

    try:
        assert asyncio.run(main()) == "parent"
    except SystemExit:
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        raise


def test_row_33_an_epoll_that_is_shared(tmp_path: Path) -> None:
    read, write = os.pipe()

    def operation() -> Generator[Wait, set[int], set[int]]:
        try:
            return (yield Wait((read,)))
        except ValueError:
            return set()

    found: list[object] = []
    many, task = Many(), operation()
    many.add(task, lambda value, error: found.append(value))
    in_child(lambda: many.throw(task, ValueError()))
    os.write(write, b"x")
    while many:
        many.step()
    assert found == [{read}]
    many.close()
    os.close(read)
    os.close(write)


def test_row_33_a_child_keeps_no_lock(tmp_path: Path) -> None:
    read, write = os.pipe()
    with store.Lock(str(tmp_path)):
        pid = os.fork()
        if pid == 0:
            os.close(write)
            os.read(read, 1)
            os._exit(0)
        assert store.is_locked(str(tmp_path))
    try:
        # As if the parent had died in the midst of it: closing alone, with nothing told to the kernel.
        assert not store.is_locked(str(tmp_path))
    finally:
        os.close(write)
        os.close(read)
        reap(pid)


def test_row_33_forks_while_threads_lock(tmp_path: Path) -> None:
    """No deadlock, no descriptor closed that is somebody else's."""
    over = threading.Event()

    def lock(directory: str) -> None:
        while not over.is_set():
            with store.Lock(directory):
                pass

    directories = [tmp_path / str(i) for i in range(4)]
    for directory in directories:
        directory.mkdir()
    threads = [threading.Thread(target=lock, args=(str(directory),)) for directory in directories]
    for thread in threads:
        thread.start()
    before = forks.generation
    try:
        for _ in range(50):
            in_child(lambda: store.is_locked(str(tmp_path)))
            assert forks.generation == before
    finally:
        over.set()
        for thread in threads:
            thread.join()
