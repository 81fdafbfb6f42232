"""What a section of the suite is given, and what it is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyoci


class Progress:
    """A counter on a terminal, one line a stage elsewhere."""

    def __init__(self, stage: str, total: int) -> None:
        self.stage, self.total, self.done = stage, total, 0
        self.live = sys.stderr.isatty()
        print(stage, end="" if self.live else f" ({total})\n", file=sys.stderr, flush=True)

    def step(self) -> None:
        self.done += 1
        if self.live:
            print(f"\r{self.stage}: {self.done}/{self.total}", end="\n" if self.done == self.total else "", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Context:
    """``lives``: how many of the ways that are compared most closely; others lead fewer. ``seconds``: how long a block of many at once takes.
    ``counts``: how many are in flight, one after the other."""

    runtime: pyoci.OCIRuntime
    lives: int
    seconds: float
    counts: Sequence[int]
    everything: Callable[[], float] | None

    def progress(self, stage: str, total: int) -> Callable[[], None]:
        return Progress(f"{self.runtime.name}: {stage}", total).step


@dataclass(frozen=True)
class Section:
    """``measure`` gives figures that JSON can hold, ``report`` their lines in Markdown. ``once``: for a host, not for each of its runtimes."""

    about: str
    measure: Callable[[Context], dict[str, Any]]
    report: Callable[[dict[str, Any]], Iterator[str]]
    once: bool = False
