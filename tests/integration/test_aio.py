"""The asyncio face: the same operations on an event loop."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import pytest

import pyoci
from pyoci import spec
from tests.containers import FOREVER


@pytest.fixture
def aruntime(runtime_name: str, state_dir: str) -> pyoci.aio.OCIRuntime:
    return pyoci.aio.OCIRuntime(runtime_name, state_dir=state_dir)


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(main)


def test_a_whole_life(aruntime: pyoci.aio.OCIRuntime, rootfs: str) -> None:
    async def main() -> None:
        container = await aruntime.create(spec.build(["sh", "-c", "sleep 0.1; exit 7"], rootfs=rootfs), "job")
        assert await container.state() == "created"
        await container.start()
        assert (await container.wait(timeout=20)).code == 7
        await container.delete()
        with pytest.raises(pyoci.ContainerNotFound):
            await aruntime.load("job")

    run(main())


@pytest.mark.root
def test_context_managers_list_load_pause_and_kill(aruntime: pyoci.aio.OCIRuntime, rootfs: str) -> None:
    async def main() -> None:
        async with aruntime as runtime, await runtime.create(spec.build(FOREVER, rootfs=rootfs), "job") as container:
            await container.start()
            await container.pause()
            assert await container.state() == "paused"
            await container.resume()
            assert [found.id for found in await runtime.list()] == ["job"]
            loaded = await pyoci.aio.Container.load("job", state_dir=runtime.state_dir)
            await loaded.kill("KILL")
            assert (await container.wait(20)).signal == 9
        assert await aruntime.list() == []

    run(main())


def test_many_at_once_on_one_thread(aruntime: pyoci.aio.OCIRuntime) -> None:
    async def main() -> None:
        calls = [pyoci.aio.run(["sh", "-c", f"echo {i}; exit {i}"], runtime=aruntime, text=True, timeout=60) for i in range(12)]
        done = await asyncio.gather(*calls)
        assert [(d.returncode, d.stdout) for d in done] == [(i, f"{i}\n") for i in range(12)]

    run(main())


def test_the_loop_goes_on_meanwhile(aruntime: pyoci.aio.OCIRuntime) -> None:
    async def main() -> None:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticking = asyncio.create_task(tick())
        await pyoci.aio.run(["sleep", "0.5"], runtime=aruntime)
        ticking.cancel()
        assert ticks > 10

    run(main())


def test_two_tasks_wait_for_one_container_and_one_is_cancelled(aruntime: pyoci.aio.OCIRuntime, rootfs: str) -> None:
    async def main() -> None:
        async with await aruntime.create(spec.build(["sh", "-c", "sleep 0.4; exit 5"], rootfs=rootfs)) as container:
            await container.start()
            waiting = [asyncio.create_task(container.wait(20)) for _ in range(3)]
            await asyncio.sleep(0.05)
            waiting[0].cancel()
            statuses = await asyncio.gather(*waiting, return_exceptions=True)
            assert isinstance(statuses[0], asyncio.CancelledError)
            assert [status.code for status in statuses[1:] if isinstance(status, pyoci.ExitStatus)] == [5, 5]

    run(main())


@pytest.mark.parametrize("delay", [0.0, 0.001, 0.003, 0.006, 0.01, 0.02, 0.04])
def test_a_cancelled_create_leaves_nothing(aruntime: pyoci.aio.OCIRuntime, rootfs: str, delay: float) -> None:
    async def main() -> None:
        for _ in range(3):
            task = asyncio.create_task(aruntime.create(spec.build(FOREVER, rootfs=rootfs)))
            await asyncio.sleep(delay)
            while not task.done():  # who cancels again does not disturb the cleaning up
                task.cancel()
                await asyncio.sleep(0.001)
            if not task.cancelled():
                await task.result().delete(force=True)
        assert await aruntime.list() == []

    run(main())


def test_a_cancelled_run_is_killed_and_removed(aruntime: pyoci.aio.OCIRuntime) -> None:
    async def main() -> None:
        task = asyncio.create_task(pyoci.aio.run(["sleep", "100"], runtime=aruntime))
        await asyncio.sleep(0.3)
        began = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - began < 5
        assert await aruntime.list() == []

    run(main())


def test_timeouts(aruntime: pyoci.aio.OCIRuntime, rootfs: str) -> None:
    async def main() -> None:
        with pytest.raises(pyoci.RunTimeout):
            await pyoci.aio.run(["sleep", "100"], runtime=aruntime, timeout=0.1)
        async with await aruntime.create(spec.build(FOREVER, rootfs=rootfs)) as container:
            with pytest.raises(pyoci.Timeout):
                await container.wait(0)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await container.wait()

    run(main())


def test_both_faces_have_the_same_names() -> None:
    def names(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    assert names(pyoci.Container) == names(pyoci.aio.Container)
    assert names(pyoci.OCIRuntime) == names(pyoci.aio.OCIRuntime)


def test_operations_side_by_side_on_one_epoll(runtime: pyoci.OCIRuntime) -> None:
    from pyoci.oneshot import plan
    from pyoci.waiting import drive_all

    done = drive_all(plan(["sh", "-c", f"sleep 0.1; exit {i}"], runtime=runtime) for i in range(8))
    assert [d.returncode for d in done if isinstance(d, pyoci.CompletedProcess)] == list(range(8))
