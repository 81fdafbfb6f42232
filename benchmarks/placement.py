"""What a cgroup of its own for conmon costs, on the host as it stands: ``python -m benchmarks.placement [PAIRS]``, or ``tests/host v2 …``.

Pairs in random order, conmon in a cgroup or scope of its own and conmon in the caller's; medians of the differences within a pair, so that what else
the machine does concerns both alike. Of the time that a life takes, and of the processor time that it takes in this process."""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import mean, median, quantiles

import pyoci
from benchmarks.lives import PHASES, Pyoci
from benchmarks.place import state_directory
from pyoci import cgroups, runtimes
from pyoci.cgroups.systemd import Systemd
from pyoci.conmon import environment
from pyoci.errors import CgroupError
from pyoci.waiting import deadline_in, drive
from tests import hosts

TARGETS = {"v1": 0.3, "v2": 0.05}
"""Milliseconds that a life may take longer."""


def own_processor_time() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def measure(made: Callable[[str], pyoci.OCIRuntime], pairs: int) -> dict[str, list[float]]:
    """phase → the seconds that it took longer with a cgroup of conmon's own, for each pair."""
    ways = {conmon: Pyoci(made(conmon)) for conmon in (cgroups.SEPARATE, cgroups.SHARED)}
    more: dict[str, list[float]] = {phase: [] for phase in (*PHASES, "total", "processor")}
    for way in ways.values():
        for _ in range(3):
            way.live()
    for _ in range(pairs):
        took = {}
        for which in random.sample((cgroups.SEPARATE, cgroups.SHARED), 2):
            before = own_processor_time()
            took[which] = dict(ways[which].live())
            took[which]["processor"] = own_processor_time() - before
        for phase, values in more.items():
            values.append(took[cgroups.SEPARATE][phase] - took[cgroups.SHARED][phase])
    return more


def scopes(count: int) -> dict[str, list[float]]:
    """Seconds of a scope for a process that waits: from the call to the end of its job."""
    took: dict[str, list[float]] = {"first scope, with the connection": [], "a scope": []}
    for made in range(count):
        systemd = Systemd()
        for what, values in took.items():
            with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
                began = time.perf_counter()
                drive(systemd.start_scope(f"pyoci-bench-{made}-{len(what)}.scope", "system.slice", process.pid, deadline_in(10)))
                values.append(time.perf_counter() - began)
    return took


def main() -> int:
    if os.geteuid() != 0:
        print("containers are created: this needs root", file=sys.stderr)
        return 1
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    if "PYOCI_TESTS_HOST" not in os.environ:
        hosts.become_v1_host()
    layout, env = cgroups.read().layout, environment(os.environ)
    print(f"cgroup {layout}: milliseconds more with a cgroup of conmon's own, medians of {pairs} pairs, and quartiles; the processor time is a mean.")
    print(f"A life may take {TARGETS.get(layout, 0):g} longer.", flush=True)
    with state_directory() as base:
        try:
            for what, values in scopes(pairs // 10 + 2).items():
                show(what, values)
            managers = [cgroups.CGROUPFS, cgroups.SYSTEMD]
        except CgroupError as error:
            print(f"no scopes: {error}")
            managers = [cgroups.CGROUPFS]
        for name in runtimes.CANDIDATES:
            try:
                if runtimes.unfit(runtimes.find_executable(name), env) is not None:
                    continue
            except pyoci.ExecutableError:
                continue
            for manager in managers:

                def made(conmon: str, name: str = name, manager: str = manager) -> pyoci.OCIRuntime:
                    return pyoci.OCIRuntime(name, state_dir=f"{base}/{name}", cgroup_manager=manager, conmon_cgroup=conmon, strict_cgroups=True)

                for phase, values in measure(made, pairs).items():
                    show(f"{name} {manager} {phase}", values)
    return 0


def show(what: str, values: list[float]) -> None:
    first, _, third = quantiles(values, n=4)
    middle = mean(values) if what.endswith("processor") else median(values)
    print(f"{what:34} {middle * 1e3:+.3f} ({first * 1e3:+.3f}, {third * 1e3:+.3f})", flush=True)


if __name__ == "__main__":
    sys.exit(main())
