"""What a cgroup, or a scope, of its own for conmon costs: pairs, with it and with conmon in the caller's. Of the time that a life takes, and of the
processor time that it takes in this process."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import pyoci
from benchmarks import pairs
from benchmarks.context import Context
from pyoci import cgroups
from pyoci.bench.measure import WARM_UP, percentiles
from pyoci.bench.tables import ms, table
from pyoci.bench.ways import Life
from pyoci.cgroups.systemd import Systemd
from pyoci.errors import CgroupError
from pyoci.waiting import deadline_in, drive

TARGETS = {"v1": 0.3, "v2": 0.05}
"""Milliseconds that a life may take longer."""


def accounted(way: Life) -> Mapping[str, float]:
    before = way.spent()
    seen = dict(way.live())
    return seen | {"processor": way.spent() - before}


def scopes(count: int) -> dict[str, list[float]]:
    """Seconds of a scope for a process that waits: from the call to the end of its job. Raises CgroupError where there is no systemd."""
    took: dict[str, list[float]] = {"first scope, with the connection": [], "a scope": []}
    for made in range(count):
        systemd = Systemd()
        for what, values in took.items():
            with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
                began = time.perf_counter()
                drive(systemd.start_scope(f"pyoci-bench-{made}-{len(what)}.scope", "system.slice", process.pid, deadline_in(10)))
                values.append(time.perf_counter() - began)
    return took


def run(context: Context) -> dict[str, Any]:
    found: dict[str, Any] = {"layout": cgroups.read().layout}
    managers = [cgroups.CGROUPFS, cgroups.SYSTEMD]
    try:
        found["scopes"] = {what: percentiles(values) for what, values in scopes(context.lives // 10 + 2).items()}
    except CgroupError as error:
        found["no scopes"] = str(error)
        managers.remove(cgroups.SYSTEMD)
    step = context.progress("conmon's place", len(managers) * context.lives)
    found["managers"] = {manager: _differences(context, manager, step) for manager in managers}
    return found


def _differences(context: Context, manager: str, step: Callable[[], None]) -> dict[str, Any]:
    given = context.runtime

    def way(conmon: str) -> Life:
        made = pyoci.OCIRuntime(given.runtime_path, state_dir=given.state_dir, cgroup_manager=manager, conmon_cgroup=conmon, strict_cgroups=True)
        life = Life(made)
        for _ in range(WARM_UP):
            life.live()
        return life

    actions = {conmon: partial(accounted, way(conmon)) for conmon in (cgroups.SEPARATE, cgroups.SHARED)}
    seen = pairs.interleaved(actions, context.lives, step)
    return pairs.differences(seen[cgroups.SEPARATE], seen[cgroups.SHARED])


def report(found: dict[str, Any]) -> Iterator[str]:
    layout = found["layout"]
    for manager, seen in found["managers"].items():
        target = f" (total: at most +{TARGETS[layout]:g})" if layout in TARGETS and manager == cgroups.CGROUPFS else ""
        yield from pairs.report(f"conmon's own cgroup, {layout}, {manager}{target}", seen)
        yield ""
    if "scopes" in found:
        rows = [[what, ms(seen["p50"], 2), ms(seen["p90"], 2)] for what, seen in found["scopes"].items()]
        yield from table(["making a scope, ms", "p50", "p90"], rows)
    else:
        yield f"no scopes: {found['no scopes']}"
