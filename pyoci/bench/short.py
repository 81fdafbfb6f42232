"""The short form, for any machine on which pyoci is installed: no compiler, no namespaces of its own, a given time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

from pyoci import __version__, rootfs, runtimes
from pyoci.bench import measure, tables
from pyoci.bench.place import temporary
from pyoci.bench.ways import DIRECT, PLAIN, PODMAN, PYOCI, Crowd, Launched, Life, Run, Threads, Warm, WarmLaunched, Way, bare_runtime, plain, podman
from pyoci.conmon import environment
from pyoci.errors import NoRuntime
from pyoci.runtime import OCIRuntime

SCHEMA = 1
ALONE_SHARE = 0.5
"""Of the time, for lives one at a time; the rest is for many at once."""


def working(names: tuple[str, ...]) -> tuple[list[str], dict[str, str]]:
    """Which of these runtimes work here, and why the others do not."""
    works, skipped = [], {}
    env = environment(os.environ)
    for name in names:
        try:
            why = runtimes.unfit(runtimes.find_executable(name), env)
        except OSError as error:
            why = str(error.strerror)
        if why is None:
            works.append(name)
        else:
            skipped[name] = why
    return works, skipped


def run(
    seconds: float,
    names: tuple[str, ...] = runtimes.CANDIDATES,
    parent: str | None = None,
    tell: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """Measures for about so many seconds, in a new directory in ``parent`` (``place.temporary``). Raises NoRuntime where none of the runtimes
    works, and what the built-in root file system raises."""
    works, skipped = working(names)
    if not works:
        raise NoRuntime(f"no runtime to measure with: {'; '.join(f'{name}: {why}' for name, why in skipped.items())}", skipped)
    rootfs.builtin()
    figures: dict[str, Any] = {"schema": SCHEMA, "pyoci": __version__, "date": datetime.now(UTC).isoformat(timespec="seconds")}
    figures |= {"host": measure.host(), "load": {"before": measure.load()}, "skipped": skipped, "runtimes": {}}
    with temporary(parent) as base:
        for name in works:
            tell(name)
            figures["runtimes"][name] = _measure(OCIRuntime(name, state_dir=f"{base}/{name}"), seconds / len(works))
    figures["load"]["after"] = measure.load()
    return figures


def _measure(runtime: OCIRuntime, seconds: float) -> dict[str, Any]:
    alone = _alone(runtime, seconds * ALONE_SHARE)
    counts = (1, 2 * len(os.sched_getaffinity(0)))
    rest = seconds * (1 - ALONE_SHARE) / len(counts)
    return {"alone": alone, "together": {str(count): _together(runtime, count, rest, alone["failed"]) for count in counts}}


def _alone(runtime: OCIRuntime, seconds: float) -> dict[str, Any]:
    ways: list[Way] = [Life(runtime), Life(plain(runtime), PLAIN), Life(runtime, DIRECT, monitor="direct"), Warm(runtime), Run(runtime)]
    ways.append(bare_runtime(runtime))
    other = podman(runtime)
    if other is not None:
        ways.append(other)
    with ExitStack() as ends:
        for way in ways:
            ends.callback(way.close)
        return measure.alone(ways, measure.rounds([way.name for way in ways], seconds, rare=[PODMAN]))


def _together(runtime: OCIRuntime, count: int, seconds: float, failed: Mapping[str, str]) -> dict[str, Any]:
    """``failed``: what need not be tried again."""
    crowds: list[Crowd] = [
        Launched(PYOCI, count, runtime),
        Launched(PLAIN, count, plain(runtime)),
        Launched(DIRECT, count, runtime, "direct"),
        WarmLaunched(count, runtime),
        Threads([bare_runtime(runtime)] * count),
    ]
    other = podman(runtime)
    if other is not None:
        crowds.append(Threads([other] * count))
    with ExitStack() as ends:
        for crowd in crowds:
            ends.callback(crowd.close)
        wanted = [crowd for crowd in crowds if crowd.name not in failed]
        return measure.together(wanted, 1, seconds / len(crowds))


def report(figures: dict[str, Any]) -> Iterator[str]:
    """The lines of the tables."""
    yield tables.host(figures["host"])
    yield f"load average {figures['load']['before'][0]:.2f} before, {figures['load']['after'][0]:.2f} after"
    for name, why in figures["skipped"].items():
        yield f"{name} was not measured: {why}"
    for name, found in figures["runtimes"].items():
        yield f"\n## {name}\n"
        yield from tables.alone(found["alone"], f"{name} run")
        yield ""
        yield from tables.together(found["together"])
        yield from tables.failed_together(found["together"])
