"""Measuring ways side by side: interleaved, in random order, so that what else the machine does concerns all alike; told by percentiles."""

from __future__ import annotations

import os
import platform
import random
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import mean, median, quantiles
from typing import Any

from pyoci import cgroups, direct, runtimes
from pyoci.bench.ways import PATIENCE, PHASES, Crowd, Way
from pyoci.errors import Error
from pyoci.process import read_stat

WARM_UP = 3
FAILURES = (Error, OSError, RuntimeError)
"""What keeps one way from working; the others go on."""


def why(error: Exception) -> str:
    """In one line: of what a tool said, the last."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def percentiles(values: Sequence[float]) -> dict[str, float]:
    cuts = quantiles(values, n=100, method="inclusive") if len(values) > 1 else [values[0]] * 99
    return {"p50": cuts[49], "p90": cuts[89], "p99": cuts[98]}


def reap_adopted() -> None:
    """Who runs containers without conmon is a subreaper (``pyoci.direct``): the conmons of podman and of others become its children when their
    parents end. A conmon leads a session; what this process has started itself, and will ask for, does not."""
    if not direct.is_subreaper():
        return
    try:
        while (dead := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            stat = read_stat(dead.si_pid)
            if stat is None or stat.session != dead.si_pid:
                return
            os.waitpid(dead.si_pid, 0)
    except ChildProcessError:
        pass  # it has no children


class Lives:
    """What was seen of one way's lives."""

    def __init__(self) -> None:
        self.rows: list[Mapping[str, float]] = []
        self.own: list[float] = []
        self.all: list[float] = []

    def figures(self) -> dict[str, Any]:
        """``phases``: percentiles of each, in seconds; ``own``, ``all``: processor seconds for each life, as a mean (time is accounted in ticks on
        some kernels, and its median would be a tick); ``totals``: every life, in microseconds, in the order they were led."""
        values = {phase: [row[phase] for row in self.rows if phase in row] for phase in (*PHASES, "total")}
        return {
            "lives": len(self.rows),
            "phases": {phase: percentiles(seen) for phase, seen in values.items() if seen},
            "own": mean(self.own) if self.own else None,
            "all": mean(self.all) if self.all else None,
            "totals": [round(total * 1e6) for total in values["total"]],
        }


def shuffled(counts: Mapping[str, int]) -> list[str]:
    """Each name so many times."""
    order = [name for name, wanted in counts.items() for _ in range(wanted)]
    random.shuffle(order)
    return order


def rounds(names: Sequence[str], seconds: float, rare: Iterable[str] = (), every: int = 8) -> Iterator[str]:
    """Each name once a round, in random order, for so many seconds from the first on, but for one round at least; the rare ones in one round of
    ``every``."""
    seldom, turn, until = set(rare), 0, time.perf_counter() + seconds
    while turn == 0 or time.perf_counter() < until:
        yield from random.sample(names, len(names)) if turn % every == 0 else shuffled({name: 1 for name in names if name not in seldom})
        turn += 1


def alone(
    ways: Sequence[Way], order: Iterable[str], step: Callable[[], object] = lambda: None, everything: Callable[[], float] | None = None
) -> dict[str, Any]:
    """Leads lives one at a time, each way's when its name's turn comes. ``everything``: the processor seconds that all processes concerned have used
    so far. Gives ``ways``: name → ``Lives.figures``, and ``failed``: name → why it was given up."""
    named = {way.name: way for way in ways}
    failed: dict[str, str] = {}
    seen = {name: Lives() for name in named}

    def lead(name: str, *, kept: bool) -> None:
        way, lives = named[name], seen[name]
        own, all_of_it = way.spent(), everything() if everything is not None else 0.0
        try:
            row = way.live()
        except FAILURES as error:
            failed[name] = why(error)
            return
        if kept:
            lives.rows.append(row)
            if own is not None:
                lives.own.append((way.spent() or 0) - own)
            if everything is not None:
                lives.all.append(everything() - all_of_it)

    for name in named:
        for _ in range(WARM_UP):
            if name not in failed:
                lead(name, kept=False)
    for name in order:
        if name not in failed:
            lead(name, kept=True)
            reap_adopted()
        step()
    return {"ways": {name: lives.figures() for name, lives in seen.items() if lives.rows}, "failed": failed}


class Blocks:
    """What was seen of one crowd."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.own: list[float] = []
        self.all: list[float] = []
        self.totals: list[float] = []

    def figures(self) -> dict[str, Any]:
        """``per second``: the median of the rounds; ``rounds``: each of them; ``total``: percentiles of a life's seconds; ``own``, ``all``: processor
        seconds for each life."""
        return {
            "per second": median(self.rates),
            "rounds": self.rates,
            "lives": len(self.totals),
            "total": percentiles(self.totals),
            "own": median(self.own) if self.own else None,
            "all": median(self.all) if self.all else None,
        }


def together(
    crowds: Sequence[Crowd],
    turns: int,
    seconds: float,
    step: Callable[[], object] = lambda: None,
    everything: Callable[[], float] | None = None,
) -> dict[str, Any]:
    """Blocks of so many seconds, each crowd's once a turn, in random order. Gives ``ways``: name → ``Blocks.figures``, and ``failed``."""
    failed: dict[str, str] = {}
    seen = {crowd.name: Blocks() for crowd in crowds}
    for _ in range(turns):
        for crowd in random.sample(crowds, len(crowds)):
            if crowd.name not in failed:
                own, all_of_it = crowd.spent(), everything() if everything is not None else 0.0
                began = time.perf_counter()
                try:
                    totals = crowd.live(began + seconds)
                except FAILURES as error:
                    failed[crowd.name] = why(error)
                else:
                    blocks = seen[crowd.name]
                    blocks.rates.append(len(totals) / (time.perf_counter() - began))
                    blocks.totals += totals
                    if own is not None:
                        blocks.own.append(((crowd.spent() or 0) - own) / len(totals))
                    if everything is not None:
                        blocks.all.append((everything() - all_of_it) / len(totals))
                reap_adopted()
            step()
    return {"ways": {name: blocks.figures() for name, blocks in seen.items() if blocks.totals}, "failed": failed}


def host() -> dict[str, Any]:
    """What the figures depend on."""
    found = cgroups.read()
    facts: dict[str, Any] = {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "processor": _processor(),
        "processors": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "cgroups": found.layout,
    }
    for tool in ("conmon", *runtimes.CANDIDATES, "podman"):
        try:
            path = runtimes.find_executable(tool)
            said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True, timeout=PATIENCE).stdout
        except (Error, OSError, subprocess.SubprocessError):
            continue
        facts[tool] = said.splitlines()[0].rpartition(" ")[2] if said else "?"
    return facts


def load() -> list[float]:
    """The averages of 1, 5 and 15 minutes (getloadavg(3)): what else the machine had to do, before the measuring and, with it, after."""
    return [round(average, 2) for average in os.getloadavg()]


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "")
    except OSError:
        return ""
