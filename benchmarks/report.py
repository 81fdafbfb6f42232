"""The figures as a table for people and as JSON for programs."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.lives import PHASES
from pyoci import cgroups

TARGETS = {
    "plain": ("pyoci without shortcuts", {"crun": 1.05, "runc": 1.03}),
    "pyoci": ("pyoci", {"crun": 0.72, "runc": 0.90}),
    "direct": ("pyoci without conmon", {"crun": 0.45, "runc": 0.60}),
}
"""Of create + start + wait + delete, by medians, to the floor's."""


def host() -> dict[str, Any]:
    facts = {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "cgroups": cgroups.read().layout,
    }
    for tool in ("conmon", "crun", "runc", "podman"):
        try:
            said = subprocess.run([tool, "--version"], capture_output=True, text=True, check=True, timeout=30).stdout
        except (OSError, subprocess.SubprocessError):
            continue
        facts[tool] = said.splitlines()[0].rpartition(" ")[2]
    return facts


def free_memory() -> int:
    """Bytes."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def write(figures: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=1) + "\n")


def show(figures: dict[str, Any]) -> None:
    facts = figures["host"]
    print("\n" + ", ".join(f"{name} {value}" for name, value in facts.items()))
    for name, result in figures["runtimes"].items():
        _show_runtime(name, result)
    for name, why in figures["skipped"].items():
        print(f"\n{name} was not measured: {why}")
    if "spawn" in figures:
        small, again, large = (figures["spawn"][name] for name in ("small", "small again", "2 GiB"))
        print(f"\nspawn, inside the C call: {small['p50'] * 1e6:.0f} µs; with 2 GiB of touched memory {large['p50'] * 1e6:.0f} µs", end="")
        print(_against(large["p50"] / small["p50"], 1.2, "×"))
        print(f"for comparison: two small processes {again['p50'] / small['p50']:.2f} ×; by tenth percentiles {large['p10'] / small['p10']:.2f} ×")


def _against(value: float, target: float, unit: str) -> str:
    return f" → {value:.2f} {unit} (target: at most {target:g} {unit})"


def _show_runtime(name: str, result: dict[str, Any]) -> None:
    alone = result["one at a time"]
    print(f"\n{name}, one at a time, {result['lives']} lives; p50 and p99 in ms")
    print(f"{'':12}" + "".join(f"{phase:>16}" for phase in (*PHASES, "total")) + f"{'per second':>12}{'to floor':>10}")
    floor = alone.get("floor", {}).get("total", {}).get("p50")
    for way, phases in alone.items():
        cells = [f"{phases[p]['p50'] * 1e3:8.2f}{phases[p]['p99'] * 1e3:8.2f}" if p in phases else f"{'':16}" for p in (*PHASES, "total")]
        total = phases["total"]["p50"]
        print(f"{way:12}" + "".join(cells) + f"{1 / total:12.1f}" + (f"{total / floor:8.2f} ×" if floor else ""))
    for way, why in result["failed"].items():
        print(f"{way:12}does not work here: {why}")
    cpu = result["own processor time"]
    for way, (what, targets) in TARGETS.items():
        if floor and way in alone:
            print(f"{what} to the floor" + _against(alone[way]["total"]["p50"] / floor, targets[name], "×"))
            print(f"own processor time per container: floor {cpu['floor'] * 1e3:.2f} ms, {what}" + _against(cpu[way] * 1e3, 0.6, "ms"))
    print("exit file to the return of wait()" + _against(result["exit file to wait"] * 1e3, 1, "ms"))
    print("exit file to the return of stop()" + _against(result["exit file to stop"] * 1e3, 2, "ms"))
    print("init's death to the return of wait(), conmon killed" + _against(result["death to wait without conmon"] * 1e3, 5, "ms"))
    print(f"\n{name}, several at once, containers per second")
    ways = ("pyoci", "direct", "floor", "podman run")
    print(f"{'in flight':12}" + "".join(f"{way:>12}" for way in ways) + f"{'to floor':>12}")
    for at_once, row in result["several at once"].items():
        cells = [f"{row[way]:12.1f}" if way in row else f"{'-':>12}" for way in ways]
        print(f"{at_once:12}" + "".join(cells) + f"{row['pyoci'] / row['floor']:10.2f} ×")
