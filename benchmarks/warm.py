"""A warm pool: from the claim to the first instruction of the command, beside a container that is created for it; and how many containers per second
a Launcher gets through one. python -m benchmarks.warm [--lives N] [--runtime NAME]."""

from __future__ import annotations

import argparse
import json
import platform
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import quantiles
from typing import Any

import pyoci
from pyoci import runtimes
from tests import hosts

SOURCE = Path(__file__).with_name("first.c")
TARGETS = {"p50": 0.001, "p99": 0.005}
MONITORS = ("conmon", "direct")
IN_FLIGHT = (1, 4, 8)
PATIENCE = 60


def witness(directory: str) -> str:
    """The program that tells its first instruction's time, compiled into this directory."""
    program = f"{directory}/first"
    aligned = [] if platform.machine() == "x86_64" else ["-Dforce_align_arg_pointer=used"]
    subprocess.run(["cc", "-O2", "-static", "-nostartfiles", *aligned, "-o", program, SOURCE], check=True)
    return program


def template(runtime: pyoci.OCIRuntime, directory: str, monitor: str) -> dict[str, Any]:
    return {"runtime": runtime, "monitor": monitor, "mounts": [f"{directory}:/mnt:ro"]}


def claims(runtime: pyoci.OCIRuntime, directory: str, monitor: str, lives: int) -> dict[str, list[float]]:
    """Seconds from the call to the first instruction: claimed one at a time from a full pool, and by ``pyoci.run`` without one."""
    took: dict[str, list[float]] = {"claimed": [], "created": []}
    options = template(runtime, directory, monitor)
    with pyoci.WarmPool(size=4, **options) as pool:
        for life in range(lives + 5):
            pool.fill(PATIENCE)
            for how, times in took.items():
                began = time.monotonic_ns()
                if how == "claimed":
                    done = pyoci.run(["/mnt/first"], pool=pool, timeout=PATIENCE)
                else:
                    done = pyoci.run(["/mnt/first"], timeout=PATIENCE, **options)
                seconds, nanoseconds = struct.unpack("=qq", done.stdout)
                if life >= 5:  # the first ones find everything cold
                    times.append((seconds * 1_000_000_000 + nanoseconds - began) / 1e9)
    return took


def percentiles(values: list[float]) -> dict[str, float]:
    cuts = quantiles(values, n=100, method="inclusive")
    return {"p50": cuts[49], "p90": cuts[89], "p99": cuts[98]}


def per_second(runtime: pyoci.OCIRuntime, monitor: str, lives: int, in_flight: int, *, warm: bool) -> float:
    """Containers of ``true`` per second, through a Launcher, from a pool that fills beside it or each created for its command."""
    options: dict[str, Any] = {"runtime": runtime, "monitor": monitor}
    pool = pyoci.WarmPool(size=2 * in_flight, max_starting=in_flight, when_empty="wait", **options) if warm else None
    try:
        with pyoci.Launcher(max_starting=in_flight, max_running=in_flight, **({"pool": pool} if pool else options)) as launcher:
            list(launcher.map(["true"] for _ in range(2 * in_flight)))
            began = time.perf_counter()
            assert all(done.returncode == 0 for done in launcher.map(["true"] for _ in range(lives)))
            return lives / (time.perf_counter() - began)
    finally:
        if pool is not None:
            pool.close()


def measure(runtime: pyoci.OCIRuntime, lives: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="pyoci-first-", dir="/run") as directory:
        Path(directory).chmod(0o755)
        witness(directory)
        for monitor in MONITORS:
            found[monitor] = {how: percentiles(times) for how, times in claims(runtime, directory, monitor, lives).items()}
            rates = {how: {str(n): per_second(runtime, monitor, lives, n, warm=how == "warm") for n in IN_FLIGHT} for how in ("warm", "created")}
            found[monitor]["per second"] = rates
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lives", type=int, default=300)
    parser.add_argument("--runtime", action="append", choices=runtimes.CANDIDATES)
    options = parser.parse_args()
    hosts.become_v1_host()
    results = {}
    with tempfile.TemporaryDirectory(prefix="pyoci-warm-", dir="/run") as state_dir:
        for name in options.runtime or runtimes.CANDIDATES:
            results[name] = measure(pyoci.OCIRuntime(name, state_dir=state_dir), options.lives)
            for monitor, found in results[name].items():
                for how in ("claimed", "created"):
                    told = ", ".join(f"{percentile} {value * 1e3:.2f}" for percentile, value in found[how].items())
                    wanted = f" (targets: {', '.join(f'{p} {t * 1e3:g}' for p, t in TARGETS.items())})" if how == "claimed" else ""
                    print(f"{name}, {monitor}: {how} to the first instruction, ms: {told}{wanted}", file=sys.stderr)
                for how, rates in found["per second"].items():
                    told = ", ".join(f"{rate:.0f} with {n}" for n, rate in rates.items())
                    print(f"{name}, {monitor}: {how}, containers per second in flight: {told}", file=sys.stderr)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
