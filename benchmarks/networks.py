"""What a container's network costs: lives that differ in their network alone, one at a time and eight in flight, where the locks show that the
kernel makes and takes down network namespaces under.

It takes them down when it comes to it, after a life that is already over: so the ways take turns of several lives, with a pause after each in
which it can catch up, and no way pays for another."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pyoci
from benchmarks import pairs
from benchmarks.context import Context
from pyoci import lifecycle, networks, spec
from pyoci.bench import measure, tables
from pyoci.bench.ways import PATIENCE, TRUE, Life, Ours, checked, config_of
from pyoci.networks import Network
from pyoci.waiting import drive_all
from tests import machine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyoci.waiting import Operation

AT_ONCE = 8
TURNS = 5
BATCH = 5
"""Lives in a turn, one at a time."""
PAUSE = 0.2
"""Seconds."""
PRIVATE = "private"


class Networked(Life):
    """One at a time; after the last of a turn there is the pause."""

    def __init__(self, runtime: pyoci.OCIRuntime, name: str, config: dict[str, Any], network: Network | None = None) -> None:
        super().__init__(runtime, name, network=network)
        self.spec = config
        self._lives = 0

    def live(self) -> dict[str, float]:
        took = dict(super().live())
        self._lives += 1
        if self._lives % BATCH == 0:
            time.sleep(PAUSE)
        return took


class Lanes(Ours):
    """So many at once, on one thread."""

    def __init__(self, way: Networked) -> None:
        self.name = way.name
        self._way = way

    def live(self, until: float) -> list[float]:
        totals: list[float] = []

        def lane() -> Operation[None]:
            while (began := time.perf_counter()) < until:
                life = yield from self._way.runtime._create(self._way.spec, None, self._way.options)
                yield from lifecycle.start(life)
                checked(self.name, (yield from lifecycle.wait(life, PATIENCE)).code)
                yield from lifecycle.delete(life, force=False)
                totals.append(time.perf_counter() - began)

        for result in drive_all(lane() for _ in range(AT_ONCE)):
            if result is not None:
                raise result
        return totals


def without_namespace() -> dict[str, Any]:
    """As the private one, but for the namespace."""
    config = config_of()
    config["linux"]["namespaces"].remove({"type": "network"})
    return config


def ways(runtime: pyoci.OCIRuntime, ends: ExitStack) -> list[Networked]:
    # A directory of names that goes with us.
    os.makedirs(networks.NAMES, exist_ok=True)
    machine.mount("tmpfs", networks.NAMES, "mode=0755")
    ends.callback(machine.umount, networks.NAMES)
    # The bridge is made in a namespace, so that the machine's own network is left alone.
    host = ends.enter_context(networks.NetworkNamespace.make())
    return [
        Networked(runtime, PRIVATE, config_of()),
        Networked(runtime, "pooled", config_of(), ends.enter_context(networks.NetworkPool())),
        Networked(runtime, "named, shared", config_of(), ends.enter_context(networks.NetworkNamespace.make())),
        Networked(runtime, "host", spec.build(TRUE, rootfs=config_of()["root"]["path"], read_only=True, network="host")),
        Networked(runtime, "no namespace", without_namespace()),
        Networked(runtime, "bridge", config_of(), ends.enter_context(pyoci.bridges.Bridge(subnet="10.88.0.0/16", namespace=host))),
    ]


def run(context: Context) -> dict[str, Any]:
    """way → percentiles of the seconds of a life one at a time, of the processor seconds of all that was done for it, and containers per second."""
    with ExitStack() as ends:
        found = ways(context.runtime, ends)
        for way in found:
            for _ in range(BATCH):
                way.live()
        actions = {way.name: way.live for way in found}
        alone = pairs.interleaved(actions, context.lives, context.progress("networks", context.lives), batch=BATCH)
        lanes = [Lanes(way) for way in found]
        step = context.progress(f"networks, {AT_ONCE} in flight", TURNS * len(lanes))

        def pause() -> None:
            step()
            time.sleep(PAUSE * 2)

        rates = measure.together(lanes, TURNS, context.seconds, pause, context.everything)
        return {
            "alone": {name: measure.percentiles([row["total"] for row in rows]) for name, rows in alone.items()},
            "in flight": rates["ways"],
            "failed": rates["failed"],
        }


def report(found: dict[str, Any]) -> Iterator[str]:
    base = found["in flight"].get(PRIVATE, {}).get("per second")
    head = ["network", "p50, ms", "p90, ms", f"per second, {AT_ONCE} in flight", "to private", "all cpu, ms"]
    rows = []
    for name, seen in found["alone"].items():
        row = [name, tables.ms(seen["p50"], 2), tables.ms(seen["p90"], 2)]
        if (crowd := found["in flight"].get(name)) is not None:
            row += [f"{crowd['per second']:.0f}", tables.times(crowd["per second"], base), tables.ms(crowd["all"])]
        rows.append(row + [""] * (len(head) - len(row)))
    yield from tables.table(head, rows)
    yield from tables.failures(found["failed"])
