"""Operations driven step by step, to be interrupted where they wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest

from pyoci._ffi import poll
from pyoci.waiting import drive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyoci.waiting import Operation

T = TypeVar("T")
ENOUGH = 300


def interrupt_each_step(make: Callable[[], Operation[T]], whole: Callable[[T], object], least: int) -> None:
    """Interrupts one operation at its first wait, the next one at its second, and so on, until one comes to its end undisturbed after more than
    ``least`` waits; ``whole`` gets what those that end return."""
    for steps in range(ENOUGH):
        operation = make()
        try:
            wait = next(operation)
            for _ in range(steps):
                wait = operation.send(poll(wait.read, wait.write, wait.deadline))
        except StopIteration as end:
            whole(end.value)
            if steps > least:
                return
            continue
        with pytest.raises(KeyboardInterrupt):
            drive(_interrupted(operation))
    raise AssertionError(f"no end after {ENOUGH} waits")


def _interrupted(operation: Operation[T]) -> Operation[T]:
    """The rest of an operation, interrupted where it waits."""
    wait = operation.throw(KeyboardInterrupt())
    while True:
        ready = yield wait
        wait = operation.send(ready)
