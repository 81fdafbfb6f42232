"""Where the suite's containers lie, and the account of all processor time that is spent there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pyoci import cgroups
from pyoci.bench import place
from tests import hosts, machine


@contextmanager
def state_directory(parent: str | None = None) -> Iterator[str]:
    """``pyoci.bench.place.temporary``, in memory that only this process and its children see."""
    with place.temporary(parent) as base:
        hosts.mount_tmpfs(base)
        try:
            yield base
        finally:
            try:
                place.clear(base)
            finally:
                machine.umount(base)


def everything() -> Callable[[], float] | None:
    """What tells the seconds of processor time of all processes on this host so far, dead ones, conmons, runtimes and containers among them. A host
    made of namespaces has a cgroup of its own around all that (docs/hosts.md); on others there is no such account."""
    if "PYOCI_TESTS_HOST" not in os.environ:
        return None
    mounts = cgroups.read().mounts
    if "cpuacct" in mounts:
        return _reader(f"{mounts['cpuacct']}/cpuacct.usage", lambda content: int(content) / 1e9)
    if cgroups.V2 in mounts:
        return _reader(f"{mounts[cgroups.V2]}/cpu.stat", lambda content: int(content.split()[1]) / 1e6)  # usage_usec comes first
    return None


def _reader(path: str, parse: Callable[[bytes], float]) -> Callable[[], float] | None:
    try:
        file: Any = open(path, "rb", buffering=0)  # noqa: SIM115 — it is kept
    except OSError:
        return None
    return lambda: parse(os.pread(file.fileno(), 4096, 0))
