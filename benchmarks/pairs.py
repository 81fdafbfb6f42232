"""Small differences: actions in turns, each turn in random order, so that what else the machine does concerns all alike."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import mean, median, quantiles
from typing import Any, TypeVar

from pyoci.bench.tables import table

T = TypeVar("T")
Seen = Mapping[str, float]


def interleaved(
    actions: Mapping[str, Callable[[], T]], turns: int, step: Callable[[], object] = lambda: None, *, batch: int = 1
) -> dict[str, list[T]]:
    """What each action gave, ``turns`` times: in each turn each of them, ``batch`` times in a row."""
    seen: dict[str, list[T]] = {name: [] for name in actions}
    for turn in range(turns):
        if turn % batch == 0:
            for name in random.sample(list(actions), len(actions)):
                seen[name] += [actions[name]() for _ in range(min(batch, turns - turn))]
        step()
    return seen


def differences(with_it: Sequence[Seen], without: Sequence[Seen]) -> dict[str, dict[str, float]]:
    """Seconds more with it than without, pair by pair, of each thing that was seen: the median, the quartiles, the mean."""
    found = {}
    for what in with_it[0]:
        more = [a[what] - b[what] for a, b in zip(with_it, without, strict=True)]
        first, _, third = quantiles(more, n=4) if len(more) > 1 else more * 3
        found[what] = {"median": median(more), "first quartile": first, "third quartile": third, "mean": mean(more)}
    return found


def report(title: str, found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """In milliseconds; of processor time the mean counts, because some kernels account it in ticks."""

    def row(what: str, seen: Mapping[str, float]) -> list[str]:
        middle = seen["mean"] if what.endswith("processor") else seen["median"]
        return [what, *(f"{value * 1e3:+.3f}" for value in (middle, seen["first quartile"], seen["third quartile"]))]

    yield from table([title, "ms more", "first quartile", "third quartile"], [row(what, seen) for what, seen in found.items()])
