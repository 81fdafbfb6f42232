"""What the intermediate mount namespace costs: ``python -m benchmarks.mounts [PAIRS]``.

Pairs in random order, with and without the mount namespace; medians of the differences within a pair, so that what else the machine does
concerns both alike. First of a spawn of ``true`` to its end, where nothing else is in the way; then of the lives of a container with a user
namespace, whose create varies by several milliseconds for reasons of its own (cgroup v1: moving a process waits for a grace period of RCU)."""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Mapping
from statistics import median, quantiles
from typing import Any

import pyoci
from benchmarks.lives import PHASES, Pyoci
from benchmarks.place import state_directory
from pyoci import _ffi, rootfs, runtimes, spec
from pyoci.conmon import environment
from pyoci.mounts import Mounts
from pyoci.process import Process, ended
from pyoci.waiting import NEVER, drive
from tests import hosts

TARGET = 0.5e-3
"""Seconds that a create may cost more."""


def mapped_spec() -> dict[str, Any]:
    # The host's network: making and removing network namespaces takes turns, and its time varies by more than is measured here.
    config = spec.build(["true"], rootfs=rootfs.builtin(), read_only=True, network="host")
    linux = config["linux"]
    linux["namespaces"].append({"type": "user"})
    linux["uidMappings"] = linux["gidMappings"] = [{"containerID": 0, "hostID": 100_000, "size": 65536}]
    return config


def spawn(mounts: Mounts | None) -> float:
    """Seconds from before the call to the end of a small program."""
    env = _ffi.environment_block({})
    began = time.perf_counter()
    process = Process().spawn("/bin/true", ["true"], env, mounts=mounts)
    drive(ended(process, NEVER))
    took = time.perf_counter() - began
    process.reap()
    process.close()
    return took


def spawns(pairs: int) -> list[float]:
    """The seconds that a spawn took longer in a mount namespace of its own, for each pair."""
    mounts = Mounts(rootfs.builtin(), 100_000, 100_000)
    more = []
    for _ in range(pairs):
        took = {which: spawn(mounts if which else None) for which in random.sample((True, False), 2)}
        more.append(took[True] - took[False])
    return more


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
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    hosts.become_v1_host()
    env = environment(os.environ)
    print(f"Milliseconds more with the mount namespace: medians of {pairs} pairs (of {10 * pairs} for the spawn), and quartiles.")
    print(f"A create may cost {TARGET * 1e3:g} more.", flush=True)
    with state_directory() as base:
        show("spawn", spawns(10 * pairs))
        for name in runtimes.CANDIDATES:
            try:
                if runtimes.unfit(runtimes.find_executable(name), env) is not None:
                    continue
            except pyoci.ExecutableError:
                continue
            for phase, values in measure(pyoci.OCIRuntime(name, state_dir=f"{base}/{name}"), pairs).items():
                show(f"{name} {phase}", values)
    return 0


def show(what: str, values: list[float]) -> None:
    first, _, third = quantiles(values, n=4)
    print(f"{what:12} {median(values) * 1e3:+.3f} ({first * 1e3:+.3f}, {third * 1e3:+.3f})", flush=True)


if __name__ == "__main__":
    sys.exit(main())
