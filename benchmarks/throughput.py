"""Many containers at once: how many a second, how long each takes, what of the processor each costs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from benchmarks.context import Context
from benchmarks.ways import FLOOR, ByHand, Floor
from pyoci.bench import measure, tables
from pyoci.bench.ways import DIRECT, PLAIN, PODMAN, PYOCI, Crowd, Launched, Threads, WarmLaunched, bare_runtime, plain, podman

TURNS = 3
TARGETS: dict[str, dict[str, float]] = {PYOCI: {FLOOR: 1.3, PODMAN: 14}, DIRECT: {FLOOR: 2, PODMAN: 20}}
"""Containers per second, at 4 and at 8 in flight, to those of as many others."""
OWN_TARGET = 0.5e-3
"""pyoci's own processor seconds for each container, at 8 in flight."""


def run(context: Context) -> dict[str, Any]:
    runtime = context.runtime
    ways = 8
    step = context.progress("many at once", len(context.counts) * TURNS * ways)
    found = {}
    for at_once in context.counts:
        with ExitStack() as ends:
            crowds: list[Crowd] = []

            def add(crowd: Crowd, ends: ExitStack = ends, crowds: list[Crowd] = crowds) -> None:
                ends.callback(crowd.close)
                crowds.append(crowd)

            add(Launched(PYOCI, at_once, runtime))
            add(Launched(PLAIN, at_once, plain(runtime)))
            add(Launched(DIRECT, at_once, runtime, "direct"))
            add(WarmLaunched(at_once, runtime))
            add(Threads([Floor(runtime) for _ in range(at_once)]))
            add(Threads([ByHand(runtime) for _ in range(at_once)]))
            add(Threads([bare_runtime(runtime)] * at_once))
            other = podman(runtime)
            if other is not None:
                add(Threads([other] * at_once))
            found[str(at_once)] = measure.together(crowds, TURNS, context.seconds, step, context.everything)
    return {"in flight": found}


def report(found: dict[str, Any]) -> Iterator[str]:
    by_count = found["in flight"]
    for cell in ("per second", "p50", "p99", "own", "all"):
        yield from tables.together(by_count, cell)
        yield ""
    yield from tables.failed_together(by_count)
    for count in ("4", "8"):
        ways = by_count.get(count, {}).get("ways", {})
        for name, targets in TARGETS.items():
            for other, target in targets.items():
                if name in ways and other in ways:
                    ratio = ways[name]["per second"] / ways[other]["per second"]
                    yield f"{count} in flight: {name} to {other}: {ratio:.2f} × the containers per second (target: at least {target:g} ×)  "
    ours = by_count.get("8", {}).get("ways", {}).get(PYOCI)
    if ours is not None:
        yield f"8 in flight: own processor time for each: {ours['own'] * 1e3:.2f} ms (target: at most {OWN_TARGET * 1e3:g} ms)  "
