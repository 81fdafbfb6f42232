"""One container at a time: the whole life and each phase of it, every way beside the others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from benchmarks.context import Context
from benchmarks.ways import FLOOR, ByHand, Floor
from pyoci.bench import measure, tables
from pyoci.bench.ways import DIRECT, PLAIN, PYOCI, Life, Run, Warm, Way, bare_runtime, plain, podman

TARGETS = {PLAIN: {"crun": 1.05, "runc": 1.03}, PYOCI: {"crun": 0.72, "runc": 0.90}, DIRECT: {"crun": 0.45, "runc": 0.60}}
"""Of the whole life, by medians, to the floor's."""


def run(context: Context) -> dict[str, Any]:
    runtime, lives = context.runtime, context.lives
    with ExitStack() as ends:
        counts: dict[Way, int] = {
            Life(runtime): lives,
            Life(plain(runtime), PLAIN): lives,
            Life(runtime, DIRECT, monitor="direct"): lives,
            Warm(runtime): lives,
            Floor(runtime): lives,
            Run(runtime): lives,
            ByHand(runtime): lives,
            bare_runtime(runtime): lives,
        }
        other = podman(runtime)
        if other is not None:
            counts[other] = max(lives // 8, 4)
        for way in counts:
            ends.callback(way.close)
        order = measure.shuffled({way.name: wanted for way, wanted in counts.items()})
        found = measure.alone(list(counts), order, context.progress("one at a time", len(order)), context.everything)
    return {**found, "targets": {name: targets[runtime.name] for name, targets in TARGETS.items() if runtime.name in targets}}


def report(found: dict[str, Any]) -> Iterator[str]:
    yield from tables.alone(found, FLOOR)
    yield from against_floor(found)


def against_floor(found: dict[str, Any]) -> Iterator[str]:
    ways = found["ways"]
    if FLOOR in ways:
        yield ""
        for name, target in found["targets"].items():
            if name in ways:
                ratio = ways[name]["phases"]["total"]["p50"] / ways[FLOOR]["phases"]["total"]["p50"]
                yield f"{name} to the floor: {ratio:.2f} × (target: at most {target:g} ×)  "
