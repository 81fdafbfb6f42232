"""The suite's sections, in the order in which they run."""

from __future__ import annotations

from benchmarks import execs, latency, life, memory, mounts, networks, placement, scale, throughput, warm
from benchmarks.context import Section

SECTIONS = {
    "life": Section("one container at a time: the whole life and each phase", life.run, life.report),
    "throughput": Section("many at once", throughput.run, throughput.report),
    "warm": Section("from a claim of a warm container to its first instruction", warm.run, warm.report),
    "latency": Section("how soon an end is told", latency.run, latency.report),
    "memory": Section("memory of a living container, and of who leads a life", memory.run, memory.report),
    "exec": Section("exec in a running container", execs.run, execs.report),
    "spawn": Section("a spawn from a large process", latency.run_spawns, latency.report_spawns, once=True),
    "mounts": Section("the intermediate mount namespace", mounts.run, mounts.report),
    "placement": Section("a cgroup or scope of its own for conmon", placement.run, placement.report),
    "networks": Section("a life by its network: private, pooled, named, host, none, bridged", networks.run, networks.report),
    "scale": Section("a thousand alive at once, twenty thousand one after another", scale.run, scale.report, once=True),
}
"""``--section``: what it is."""
EXTRA = ("mounts", "placement", "networks", "scale")
"""Only when asked for."""
