"""What the intermediate mount namespace costs: pairs, with and without it.

First of a spawn of ``true`` to its end, where nothing else is in the way; then of the lives of a container with a user namespace, whose create
varies by several milliseconds for reasons of its own (cgroup v1: moving a process waits for a grace period of RCU)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from benchmarks import pairs
from benchmarks.context import Context
from pyoci import _ffi, rootfs, spec
from pyoci.bench.measure import WARM_UP
from pyoci.bench.ways import Life
from pyoci.mounts import Mounts
from pyoci.process import Process, ended
from pyoci.waiting import NEVER, drive

TARGET = 0.5e-3
"""Seconds that a create may cost more."""


def mapped_spec() -> dict[str, Any]:
    # The host's network: making and removing network namespaces takes turns, and its time varies by more than is measured here.
    config = spec.build(["true"], rootfs=rootfs.builtin(), read_only=True, network="host")
    linux = config["linux"]
    linux["namespaces"].append({"type": "user"})
    linux["uidMappings"] = linux["gidMappings"] = [{"containerID": 0, "hostID": 100_000, "size": 65536}]
    return config


def spawn(mounts: Mounts | None) -> dict[str, float]:
    """From before the call to the end of a small program."""
    env = _ffi.environment_block({})
    began = time.perf_counter()
    process = Process().spawn("/bin/true", ["true"], env, mounts=mounts)
    drive(ended(process, NEVER))
    took = time.perf_counter() - began
    process.reap()
    process.close()
    return {"spawn": took}


def run(context: Context) -> dict[str, Any]:
    runtime, lives = context.runtime, context.lives
    mounts = Mounts(rootfs.builtin(), 100_000, 100_000)
    spawns = pairs.interleaved({"with": partial(spawn, mounts), "without": partial(spawn, None)}, 10 * lives)
    ways = {"with": Life(runtime, mount_namespace=True), "without": Life(runtime, mount_namespace=False)}
    for way in ways.values():
        way.spec = mapped_spec()
        for _ in range(WARM_UP):
            way.live()
    seen = pairs.interleaved({name: way.live for name, way in ways.items()}, lives, context.progress("the mount namespace", lives))
    return pairs.differences(spawns["with"], spawns["without"]) | pairs.differences(seen["with"], seen["without"])


def report(found: dict[str, Any]) -> Iterator[str]:
    yield from pairs.report(f"with a mount namespace (create: at most +{TARGET * 1e3:g})", found)
