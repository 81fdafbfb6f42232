"""A warm pool: from the claim to the first instruction of the command, beside a container that is created for it. How many containers per second a
Launcher gets through one is told by the section ``throughput``."""

from __future__ import annotations

import platform
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyoci
from benchmarks.context import Context
from pyoci.bench.measure import percentiles
from pyoci.bench.tables import ms, table
from pyoci.bench.ways import PATIENCE

SOURCE = Path(__file__).with_name("first.c")
TARGETS = {"p50": 0.001, "p99": 0.005}
"""Seconds from a claim to the first instruction."""
MONITORS = ("conmon", "direct")
COLD = 5
"""The first ones, which are not counted."""


def witness(directory: str) -> str:
    """The program that tells its first instruction's time, compiled into this directory."""
    program = f"{directory}/first"
    aligned = [] if platform.machine() == "x86_64" else ["-Dforce_align_arg_pointer=used"]
    subprocess.run(["cc", "-O2", "-static", "-nostartfiles", *aligned, "-o", program, SOURCE], check=True)
    return program


def template(runtime: pyoci.OCIRuntime, directory: str, monitor: str) -> dict[str, Any]:
    return {"runtime": runtime, "monitor": monitor, "mounts": [f"{directory}:/mnt:ro"]}


def claims(runtime: pyoci.OCIRuntime, directory: str, monitor: str, lives: int, step: Callable[[], None]) -> dict[str, list[float]]:
    """Seconds from the call to the first instruction: claimed one at a time from a full pool, and by ``pyoci.run`` without one."""
    took: dict[str, list[float]] = {"claimed": [], "created": []}
    options = template(runtime, directory, monitor)
    with pyoci.WarmPool(size=4, **options) as pool:
        for life in range(lives + COLD):
            pool.fill(PATIENCE)
            for how, times in took.items():
                began = time.monotonic_ns()
                if how == "claimed":
                    done = pyoci.run(["/mnt/first"], pool=pool, timeout=PATIENCE)
                else:
                    done = pyoci.run(["/mnt/first"], timeout=PATIENCE, **options)
                seconds, nanoseconds = struct.unpack("=qq", done.stdout)
                if life >= COLD:  # the first ones find everything cold
                    times.append((seconds * 1_000_000_000 + nanoseconds - began) / 1e9)
            step()
    return took


def run(context: Context) -> dict[str, Any]:
    step = context.progress("claims from a warm pool", len(MONITORS) * (context.lives + COLD))
    found = {}
    with tempfile.TemporaryDirectory(prefix="pyoci-first-", dir="/run") as directory:
        Path(directory).chmod(0o755)
        witness(directory)
        for monitor in MONITORS:
            seen = claims(context.runtime, directory, monitor, context.lives, step)
            found[monitor] = {how: percentiles(times) for how, times in seen.items()}
    return found


def report(found: dict[str, Any]) -> Iterator[str]:
    rows = [
        [f"{how}, {monitor}", *(ms(seen[percentile], 2) for percentile in ("p50", "p90", "p99"))]
        for monitor, both in found.items()
        for how, seen in both.items()
    ]
    wanted = ", ".join(f"{percentile} {ms(target, 0)}" for percentile, target in TARGETS.items())
    yield from table([f"to the first instruction, ms (claimed: at most {wanted})", "p50", "p90", "p99"], rows)
