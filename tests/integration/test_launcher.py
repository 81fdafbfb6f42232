"""Many containers at once: order, limits, back-pressure, cancelling, closing."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import pytest

import pyoci
import pyoci.aio

LONG = ["sh", "-c", "sleep 100 & wait"]


@pytest.fixture
def launcher(runtime: pyoci.OCIRuntime) -> Iterator[Callable[..., pyoci.Launcher]]:
    made: list[pyoci.Launcher] = []

    def make(**options: Any) -> pyoci.Launcher:
        made.append(pyoci.Launcher(runtime=runtime, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def echo(word: object) -> list[str]:
    return ["echo", str(word)]


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_results_come_in_the_order_of_the_commands(launcher: Callable[..., pyoci.Launcher]) -> None:
    with launcher(text=True) as pool:
        done = list(pool.map(["sh", "-c", f"sleep {0.1 * (i == 0)}; echo {i}"] for i in range(12)))
    assert [each.stdout for each in done] == [f"{i}\n" for i in range(12)]


def test_results_come_as_they_are_there(launcher: Callable[..., pyoci.Launcher]) -> None:
    with launcher(text=True, max_running=8, max_starting=8) as pool:
        commands = [["sh", "-c", "sleep 0.6; echo slow"], *(echo(i) for i in range(5))]
        seen = [(future.job.args, future.result().stdout) for future in pool.as_completed(commands)]
    assert sorted(out for _, out in seen) == ["0\n", "1\n", "2\n", "3\n", "4\n", "slow\n"]
    assert all(out == f"{args[-1]}\n" or out == "slow\n" for args, out in seen)
    assert seen[-1][1] == "slow\n"


def test_one_that_fails_disturbs_no_other(launcher: Callable[..., pyoci.Launcher]) -> None:
    with launcher(text=True) as pool:
        jobs = [pyoci.Job(echo("a")), pyoci.Job(["true"], rootfs="/nonexistent"), pyoci.Job(["sh", "-c", "exit 3"]), pyoci.Job(echo("b"))]
        first, second, third, fourth = pool.map(jobs, return_exceptions=True)
        assert (first.stdout, fourth.stdout, third.returncode) == ("a\n", "b\n", 3)
        assert isinstance(second, pyoci.InvalidSpec)
        with pytest.raises(pyoci.RunTimeout):
            pool.submit(LONG, timeout=0.05).result(30)
        assert pool.submit(echo("c")).result(30).stdout == "c\n"


def test_an_exception_of_map_ends_the_others(launcher: Callable[..., pyoci.Launcher], runtime: pyoci.OCIRuntime) -> None:
    pool = launcher()
    results = pool.map([["true"], pyoci.Job(["false"], check=True), *[LONG] * 4])
    assert next(results).returncode == 0
    with pytest.raises(pyoci.RunFailed):
        next(results)
    until(lambda: runtime.list() == [])


def test_limits_hold(launcher: Callable[..., pyoci.Launcher]) -> None:
    seen: list[pyoci.Progress] = []
    with launcher(max_starting=2, max_running=3, progress=seen.append) as pool:
        list(pool.map(["sleep", "0.05"] for _ in range(12)))
    assert max(at.starting for at in seen) <= 2
    assert max(at.starting + at.running for at in seen) == 3
    assert (seen[-1].done, seen[-1].failed, seen[-1].queued, seen[-1].running) == (12, 0, 0, 0)


def test_submit_blocks_when_the_queue_is_full(launcher: Callable[..., pyoci.Launcher]) -> None:
    pool = launcher(max_running=1, max_queued=1)
    running, queued = pool.submit(LONG), pool.submit(LONG)
    third: list[pyoci.LaunchFuture] = []
    thread = threading.Thread(target=lambda: third.append(pool.submit(["true"])))
    thread.start()
    time.sleep(0.1)
    assert not third
    running.cancel()
    thread.join(20)
    assert third
    queued.cancel()
    assert third[0].result(30).returncode == 0


def test_commands_are_taken_as_they_can_be_begun(launcher: Callable[..., pyoci.Launcher]) -> None:
    taken = 0

    def endless() -> Iterator[list[str]]:
        nonlocal taken
        while True:
            taken += 1
            yield ["true"]

    with launcher(max_running=2) as pool:
        results = pool.map(endless())
        for _ in range(5):
            assert next(results).returncode == 0
        assert taken < 20
        results.close()


def test_cancel(launcher: Callable[..., pyoci.Launcher], runtime: pyoci.OCIRuntime) -> None:
    pool = launcher(max_running=1)
    running, queued = pool.submit(LONG), pool.submit(LONG)
    until(lambda: any(container.pid for container in runtime.list()))
    assert queued.cancel()
    assert running.cancel()
    for future in (queued, running):
        with pytest.raises(concurrent.futures.CancelledError):
            future.result(30)
        assert future.cancelled()
        assert future.done()
    assert runtime.list() == []
    ended = pool.submit(["true"])
    ended.result(30)
    assert not ended.cancel()
    assert not ended.cancelled()


def all_run(futures: list[pyoci.LaunchFuture]) -> bool:
    return all(future.running() for future in futures)


def test_cancelling_twice_does_not_disturb_the_cleaning_up(launcher: Callable[..., pyoci.Launcher], runtime: pyoci.OCIRuntime) -> None:
    for _ in range(5):
        pool = launcher(max_starting=4)
        futures = [pool.submit(LONG) for _ in range(4)]
        until(partial(all_run, futures))
        for _ in range(20):
            for future in futures:
                future.cancel()
            time.sleep(0.001)
        pool.close()
        assert all(future.cancelled() for future in futures)
        assert runtime.list() == []


def test_leaving_by_an_exception_ends_what_runs(launcher: Callable[..., pyoci.Launcher], runtime: pyoci.OCIRuntime) -> None:
    with pytest.raises(ZeroDivisionError), launcher() as pool:
        futures = [pool.submit(LONG) for _ in range(4)]
        until(lambda: len(runtime.list()) == 4)
        _ = 1 / 0
    assert runtime.list() == []
    assert all(future.cancelled() for future in futures)


def test_shutdown(launcher: Callable[..., pyoci.Launcher]) -> None:
    pool = launcher(max_running=1)
    first, second = pool.submit(["sleep", "0.2"]), pool.submit(["true"])
    until(first.running)
    pool.shutdown(cancel_futures=True)
    assert first.result(0).returncode == 0
    assert second.cancelled()
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit(["true"])
    pool.shutdown()
    pool.close()


def test_a_job_is_a_value_and_can_run_by_itself(runtime: pyoci.OCIRuntime, state_dir: str) -> None:
    work = pyoci.Job(echo("x"), text=True, runtime=runtime.runtime_path, state_dir=state_dir)
    copy = pickle.loads(pickle.dumps(work))
    assert repr(copy) == repr(work)
    done = copy()
    assert done.stdout == "x\n"
    assert pickle.loads(pickle.dumps(done)).stdout == "x\n"


def test_what_makes_no_sense_is_refused(launcher: Callable[..., pyoci.Launcher]) -> None:
    for options in ({"max_running": 0}, {"max_starting": True}, {"max_queued": -1}):
        with pytest.raises(pyoci.InvalidOption, match=next(iter(options))):
            pyoci.Launcher(**options)
    with launcher() as pool, pytest.raises(pyoci.InvalidOption, match="list of strings"):
        pool.submit("true").result(30)


def test_futures_of_others_work_with_ours(launcher: Callable[..., pyoci.Launcher]) -> None:
    with launcher() as pool:
        futures = [pool.submit(["true"]) for _ in range(4)]
        done, pending = concurrent.futures.wait(futures, timeout=30)
        assert not pending
        assert {future.result().returncode for future in done} == {0}


def test_a_fork_does_not_share_it(launcher: Callable[..., pyoci.Launcher]) -> None:
    with launcher() as pool:
        pid = os.fork()
        if pid == 0:
            try:
                pool.submit(["true"])
            except RuntimeError:
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(pid, 0)[1] == 0


def test_the_end_of_the_interpreter_ends_the_containers(runtime: pyoci.OCIRuntime) -> None:
    program = f"""
import pyoci, sys
runtime = pyoci.OCIRuntime(sys.argv[1], state_dir=sys.argv[2])
pool = pyoci.Launcher(runtime=runtime)
pool.submit({LONG!r})
while not runtime.list():
    pass
"""
    subprocess.run([sys.executable, "-c", program, runtime.runtime_path, runtime.state_dir], check=True, timeout=60)
    assert runtime.list() == []


def test_asyncio(runtime: pyoci.OCIRuntime) -> None:
    seen: list[tuple[int, int]] = []

    def progress(at: pyoci.Progress) -> None:
        seen.append((at.starting, at.running))

    async def commands() -> AsyncIterator[list[str]]:
        for i in range(6):
            await asyncio.sleep(0)
            yield echo(i)

    async def main() -> None:
        async with pyoci.aio.Launcher(runtime=runtime, text=True, max_starting=2, max_running=3, progress=progress) as pool:
            assert [done.stdout async for done in pool.map(commands())] == [f"{i}\n" for i in range(6)]
            assert {task.result().stdout async for task in pool.as_completed(echo(i) for i in range(4))} == {f"{i}\n" for i in range(4)}
            assert (await pool.run(pyoci.Job(echo("job")))).stdout == "job\n"
            failing: list[list[str] | pyoci.Job] = [["true"], pyoci.Job(["true"], rootfs="/nonexistent")]
            outcomes = [outcome async for outcome in pool.map(failing, return_exceptions=True)]
            assert isinstance(outcomes[1], pyoci.InvalidSpec)
            task = pool.submit(LONG)
            await asyncio.to_thread(until, runtime.list)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert runtime.list() == []
        with pytest.raises(ZeroDivisionError):
            async with pyoci.aio.Launcher(runtime=runtime) as pool:
                pool.submit(LONG)
                await asyncio.to_thread(until, runtime.list)
                _ = 1 / 0
        assert runtime.list() == []

    asyncio.run(main())
    assert max(starting for starting, _ in seen) <= 2
    assert max(starting + running for starting, running in seen) <= 3
    assert seen[-1] == (0, 0)


@pytest.mark.parametrize("monitor", ["conmon", "direct"])
def test_what_lives_holds_three_descriptors_and_nothing_wakes(launcher: Callable[..., pyoci.Launcher], monitor: str) -> None:
    pool = launcher(monitor=monitor, max_running=16)
    assert pool.submit(["true"]).result(20).returncode == 0  # what is made once, and kept
    started = threading.Semaphore(0)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(8):
        pool.submit(LONG, on_start=started.release)
    for _ in range(8):
        assert started.acquire(timeout=20)
    until(lambda: len(os.listdir("/proc/self/fd")) <= before + 8 * 3)

    def woken() -> str:
        with open(f"/proc/self/task/{pool._worker.thread.native_id}/status") as status:
            return next(line for line in status if line.startswith("voluntary"))

    time.sleep(0.2)
    asleep = woken()
    time.sleep(0.5)
    assert woken() == asleep
