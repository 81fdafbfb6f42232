"""Waiting for several, with pipes: a pipe has ended when it is readable."""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import pyoci


class Pipe:
    def __init__(self) -> None:
        self.read, self.write = os.pipe()

    def fileno(self) -> int:
        return self.read

    def end(self) -> None:
        os.write(self.write, b"x")


class Ended:
    def fileno(self) -> int:
        return -1


@pytest.fixture
def pipes() -> Iterator[list[Pipe]]:
    made = [Pipe() for _ in range(50)]
    yield made
    for pipe in made:
        os.close(pipe.read)
        os.close(pipe.write)


def wait_with_asyncio(*args: Any, **options: Any) -> Any:
    return asyncio.run(pyoci.aio.wait(*args, **options))


both_faces = pytest.mark.parametrize("wait", [pyoci.wait, wait_with_asyncio])
Waiter = Callable[..., tuple[set[Any], set[Any]]]


@both_faces
def test_the_first(wait: Waiter, pipes: list[Pipe]) -> None:
    timer = threading.Timer(0.05, pipes[7].end)
    timer.start()
    assert wait(pipes, return_when=pyoci.FIRST_COMPLETED) == ({pipes[7]}, set(pipes) - {pipes[7]})
    timer.join()
    pipes[9].end()
    assert wait(pipes, 20, return_when=pyoci.FIRST_COMPLETED)[0] == {pipes[7], pipes[9]}


@both_faces
def test_all(wait: Waiter, pipes: list[Pipe]) -> None:
    timers = [threading.Timer(0.001 * i, pipe.end) for i, pipe in enumerate(pipes)]
    for timer in timers:
        timer.start()
    assert wait(pipes) == (set(pipes), set())
    for timer in timers:
        timer.join()


@both_faces
def test_the_timeout_raises_nothing(wait: Waiter, pipes: list[Pipe]) -> None:
    pipes[3].end()
    assert wait(pipes, timeout=0.02) == ({pipes[3]}, set(pipes) - {pipes[3]})
    assert wait(pipes, timeout=0) == ({pipes[3]}, set(pipes) - {pipes[3]})


@both_faces
def test_nothing_twice_and_what_has_ended(wait: Waiter, pipes: list[Pipe]) -> None:
    assert wait([]) == (set(), set())
    assert wait([], return_when=pyoci.FIRST_COMPLETED) == (set(), set())
    ended = Ended()
    assert wait([ended, *pipes], return_when=pyoci.FIRST_COMPLETED) == ({ended}, set(pipes))
    pipes[0].end()
    assert wait([pipes[0], pipes[0], ended]) == ({pipes[0], ended}, set())


def test_two_with_one_descriptor(pipes: list[Pipe]) -> None:
    class Other:
        def fileno(self) -> int:
            return pipes[0].read

    both: list[Pipe | Other] = [pipes[0], Other()]
    pipes[0].end()
    assert pyoci.wait(both) == (set(both), set())


@both_faces
def test_bad_input(wait: Waiter) -> None:
    with pytest.raises(pyoci.InvalidOption, match="FIRST_EXCEPTION"):
        wait([], return_when="FIRST_EXCEPTION")
