"""Driving operations, with hand-made ones."""

import asyncio
import errno
import os
import signal
import time
from collections.abc import Callable, Generator
from typing import Any

import pytest

from pyoci import aio
from pyoci._ffi import Epoll
from pyoci.waiting import NEVER, Many, Wait, deadline_in, drive, drive_all

Driver = Callable[[Generator[Wait, set[int], object]], object]


def drive_with_asyncio(operation: Generator[Wait, set[int], object]) -> object:
    return asyncio.run(aio.drive(operation))


def drive_with_epoll(operation: Generator[Wait, set[int], object]) -> object:
    (result,) = drive_all([operation])
    if isinstance(result, BaseException):
        raise result
    return result


every_driver = pytest.mark.parametrize("driver", [drive, drive_with_asyncio, drive_with_epoll])


@every_driver
def test_results_and_exceptions(driver: Driver) -> None:
    def result() -> Generator[Wait, set[int], int]:
        return 7
        yield

    def failure() -> Generator[Wait, set[int], int]:
        raise ValueError("why")
        yield

    assert driver(result()) == 7
    with pytest.raises(ValueError, match="why"):
        driver(failure())


@every_driver
def test_what_is_ready_is_sent(driver: Driver) -> None:
    read, write = os.pipe()

    def operation() -> Generator[Wait, set[int], list[set[int]]]:
        seen = [(yield Wait((read,), (), deadline_in(0.02)))]
        seen.append((yield Wait((read,), (write,))))
        os.write(write, b"x")
        seen.append((yield Wait((read,))))
        return seen

    assert driver(operation()) == [set(), {write}, {read}]
    os.close(read)
    os.close(write)


@every_driver
def test_a_passed_deadline_only_looks(driver: Driver) -> None:
    read, write = os.pipe()

    def operation() -> Generator[Wait, set[int], list[set[int]]]:
        first = yield Wait((read,), (), 0)
        os.write(write, b"x")
        return [first, (yield Wait((read,), (), deadline_in(5)))]

    assert driver(operation()) == [set(), {read}]
    os.close(read)
    os.close(write)


@pytest.mark.parametrize("wants", [1, 3, 1000])
def test_without_room_in_the_epoll_poll_must_do(monkeypatch: pytest.MonkeyPatch, wants: int) -> None:
    """ENOMEM, or ENOSPC for the user's limit of watches (epoll_ctl(2)), once, several times or for ever: nobody ends of it."""
    left, read, write = [wants], [], []
    wait = Epoll.wait

    def without_room(self: Epoll, changes: Any, deadline: int) -> list[int]:
        if left[0]:
            left[0] -= 1
            raise OSError(errno.ENOSPC, "epoll")
        return wait(self, changes, deadline)

    monkeypatch.setattr(Epoll, "wait", without_room)

    def reader(end: int) -> Generator[Wait, set[int], bytes]:
        yield Wait((end,), (), deadline_in(20))
        return os.read(end, 1)

    def writer(end: int) -> Generator[Wait, set[int], int]:
        yield Wait((), (end,))
        yield Wait((), (), deadline_in(0.01))
        return os.write(end, b"x")

    for _ in range(3):
        ours, theirs = os.pipe()
        read.append(ours)
        write.append(theirs)
    assert drive_all([*map(reader, read), *map(writer, write)]) == [b"x"] * 3 + [1] * 3
    assert left[0] < wants
    for end in read + write:
        os.close(end)


@pytest.mark.parametrize("driver", [drive, drive_with_epoll])
def test_an_interrupt_is_thrown_in_and_the_clean_up_may_wait(driver: Driver) -> None:
    read, write = os.pipe()
    steps = []

    def operation() -> Generator[Wait, set[int], None]:
        try:
            yield Wait((read,))
        except KeyboardInterrupt:
            steps.append("interrupted")
            yield Wait((read,), (), deadline_in(0.02))
            steps.append("cleaned up")
            raise

    previous = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            driver(operation())
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert steps == ["interrupted", "cleaned up"]
    os.close(read)
    os.close(write)


def test_a_cancelled_task_cleans_up_before_it_ends() -> None:
    read, write = os.pipe()
    steps = []

    def operation() -> Generator[Wait, set[int], None]:
        try:
            yield Wait((read,))
        finally:
            steps.append("cleaning")
            yield Wait((read,), (), deadline_in(0.02))
            steps.append("clean")

    async def main() -> None:
        task = asyncio.create_task(aio.drive(operation()))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert steps == ["cleaning", "clean"]
    os.close(read)
    os.close(write)


def test_many_wait_for_one_descriptor_and_for_their_deadlines() -> None:
    read, write = os.pipe()

    def reader() -> Generator[Wait, set[int], set[int]]:
        return (yield Wait((read,)))

    def sleeper(i: int) -> Generator[Wait, set[int], int]:
        yield Wait((), (), deadline_in(0.001 * (i % 20)))
        return i

    def writer() -> Generator[Wait, set[int], None]:
        yield Wait((), (), deadline_in(0.05))
        os.write(write, b"x")

    results = drive_all([*(reader() for _ in range(100)), *(sleeper(i) for i in range(900)), writer()])
    assert results == [{read}] * 100 + list(range(900)) + [None]
    os.close(read)
    os.close(write)


def test_one_that_fails_does_not_disturb_the_others() -> None:
    def operation(i: int) -> Generator[Wait, set[int], int]:
        yield Wait((), (), deadline_in(0.001 * i))
        if i == 3:
            raise ValueError(i)
        return i

    results = drive_all(operation(i) for i in range(6))
    assert isinstance(results[3], ValueError)
    assert [r for r in results if not isinstance(r, BaseException)] == [0, 1, 2, 4, 5]


def test_a_step_with_a_deadline_returns() -> None:
    many = Many()
    began = time.monotonic()
    many.step(deadline_in(0.02))
    assert 0.015 < time.monotonic() - began < 5
    assert len(many) == 0
    many.close()


@pytest.mark.parametrize("timeout", [None, float("inf"), 1e300, 10**11])
def test_a_timeout_longer_than_the_clock_is_none(timeout: float | None) -> None:
    assert deadline_in(timeout) == NEVER
