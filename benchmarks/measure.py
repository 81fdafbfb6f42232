"""Measuring: single lives of several drivers interleaved, several lives at once, and what to make of the numbers."""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter_ns
from typing import Protocol, TypeAlias

PHASES = ("create", "start", "wait", "delete", "total")

Sample: TypeAlias = dict[str, int]
"""Phase → nanoseconds; "total" is always there. "cpu" is the processor time of this process alone."""


class Driver(Protocol):
    """Something that can lead a container's life from nothing to nothing."""

    name: str

    def live(self, id: str) -> Sample: ...


class Broken(Exception):
    """This driver does not work on this host; the text says why."""


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def column(samples: Sequence[Sample], phase: str) -> list[int]:
    return [sample[phase] for sample in samples if phase in sample]


def interleaved(
    drivers: Mapping[str, Driver], lives: Mapping[str, int], new_id: Callable[[], str], step: Callable[[], None]
) -> dict[str, list[Sample]]:
    """Leads ``lives[name]`` lives by each driver, one at a time, in turn and in a new random order each round: whatever the machine does
    meanwhile, it does to all of them. Drivers with fewer lives take part in every so many rounds."""
    rounds = max(lives[name] for name in drivers)
    samples: dict[str, list[Sample]] = {name: [] for name in drivers}
    for i in range(rounds):
        due = [name for name in drivers if (i + 1) * lives[name] // rounds > i * lives[name] // rounds]
        random.shuffle(due)
        for name in due:
            samples[name].append(drivers[name].live(new_id()))
            step()
    return samples


def by_threads(drivers: Sequence[Driver], ids: Sequence[str]) -> int:
    """All the lives, one thread for each driver; nanoseconds."""
    left = deque(ids)
    errors: list[BaseException] = []

    def work(driver: Driver) -> None:
        try:
            while True:
                driver.live(left.popleft())
        except IndexError:
            pass
        except BaseException as error:
            left.clear()
            errors.append(error)

    threads = [threading.Thread(target=work, args=(driver,)) for driver in drivers]
    began = perf_counter_ns()
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        left.clear()  # interrupted: each ends with the life it is at
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]
    return perf_counter_ns() - began
