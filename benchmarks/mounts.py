"""What the intermediate mount namespace costs: ``python -m benchmarks.mounts [PAIRS]``.

Pairs of lives of one container with a user namespace, with and without the mount namespace, in random order; medians of the differences within a
pair, so that what else the machine does concerns both alike."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Mapping
from statistics import median, quantiles
from typing import Any

import pyoci
from benchmarks.lives import PHASES, Pyoci, true_spec
from benchmarks.place import state_directory
from pyoci import runtimes
from pyoci.conmon import environment
from tests import hosts

TARGET = 0.5e-3
"""Seconds that a create may cost more."""


def mapped_spec() -> dict[str, Any]:
    config = true_spec()
    linux = config["linux"]
    linux["namespaces"].append({"type": "user"})
    linux["uidMappings"] = linux["gidMappings"] = [{"containerID": 0, "hostID": 100_000, "size": 65536}]
    return config


class InMounts(Pyoci):
    """create, start, wait, delete through the library, with the mount namespace or without."""

    def __init__(self, runtime: pyoci.OCIRuntime, mount_namespace: bool) -> None:
        super().__init__(runtime, mount_namespace=mount_namespace)
        self.spec = mapped_spec()


def measure(runtime: pyoci.OCIRuntime, pairs: int) -> dict[str, list[float]]:
    """phase → the seconds that it took longer with than without, for each pair."""
    ways = {True: InMounts(runtime, True), False: InMounts(runtime, False)}
    more: dict[str, list[float]] = {phase: [] for phase in (*PHASES, "total")}
    for way in ways.values():
        for _ in range(3):
            way.live()
    for _ in range(pairs):
        order = random.sample((True, False), 2)
        took: dict[bool, Mapping[str, float]] = {which: ways[which].live() for which in order}
        for phase, values in more.items():
            values.append(took[True][phase] - took[False][phase])
    return more


def main() -> int:
    if os.geteuid() != 0:
        print("containers are created: this needs root", file=sys.stderr)
        return 1
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    hosts.become_v1_host()
    env = environment(os.environ)
    print(f"milliseconds more with the mount namespace, {pairs} pairs: median (quartiles); a create may cost {TARGET * 1e3:g} more")
    with state_directory() as base:
        for name in runtimes.CANDIDATES:
            try:
                if runtimes.unfit(runtimes.find_executable(name), env) is not None:
                    continue
            except pyoci.ExecutableError:
                continue
            for phase, values in measure(pyoci.OCIRuntime(name, state_dir=f"{base}/{name}"), pairs).items():
                first, _, third = quantiles(values, n=4)
                print(f"{name:5} {phase:7} {median(values) * 1e3:+.3f} ({first * 1e3:+.3f}, {third * 1e3:+.3f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
