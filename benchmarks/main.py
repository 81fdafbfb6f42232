"""The benchmark: a few hundred real containers, one at a time and several at once, pyoci beside the floor, the bare runtime and podman.

All that is compared is interleaved in one run, in random order, and compared by medians: the machine may be shared and noisy."""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import pyoci
from benchmarks import latency, report
from benchmarks.lives import PHASES, Direct, Floor, Plain, Pyoci, PyociRun, Way, bare_runtime, podman
from benchmarks.place import state_directory
from pyoci import rootfs, runtimes
from pyoci.conmon import environment
from tests import hosts

Lives = dict[str, list[Mapping[str, float]]]


class Progress:
    """A counter on a terminal, one line a stage elsewhere."""

    def __init__(self, stage: str, total: int) -> None:
        self.stage, self.total, self.done = stage, total, 0
        self.live = sys.stderr.isatty()
        print(stage, end="" if self.live else f" ({total})\n", file=sys.stderr, flush=True)

    def step(self) -> None:
        self.done += 1
        if self.live:
            print(f"\r{self.stage}: {self.done}/{self.total}", end="\n" if self.done == self.total else "", file=sys.stderr, flush=True)


def own_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def one_at_a_time(ways: list[tuple[Way, int]], warm_up: int) -> tuple[Lives, dict[str, float], dict[str, str]]:
    """Interleaved lives of each way; what pyoci itself and the floor itself used of the processor; and which way failed, and how."""
    lives: Lives = {way.name: [] for way, _ in ways}
    failed: dict[str, str] = {}
    for way, _ in ways:
        try:
            for _ in range(warm_up):
                way.live()
        except RuntimeError as error:
            failed[way.name] = str(error)
    order = [way for way, count in ways if way.name not in failed for _ in range(count)]
    random.shuffle(order)
    progress = Progress("one at a time", len(order))
    cpu: dict[str, list[float]] = {}
    for way in order:
        used = way.cpu if isinstance(way, Floor) else own_cpu if isinstance(way, Pyoci) else None
        before = used() if used is not None else 0
        lives[way.name].append(way.live())
        if used is not None:
            cpu.setdefault(way.name, []).append(used() - before)
        progress.step()
    # The mean: time is accounted in ticks on some kernels, and its median would be a tick.
    return lives, {name: sum(values) / len(values) for name, values in cpu.items() if values}, failed


def pyoci_at_once(runtime: pyoci.OCIRuntime, count: int, at_once: int, monitor: str = "conmon") -> float:
    """Lives per second with a Launcher."""
    began = time.perf_counter()
    with pyoci.Launcher(runtime=runtime, monitor=monitor, max_running=at_once, max_starting=at_once) as launcher:
        for done in launcher.map(["true"] for _ in range(count)):
            assert done.returncode == 0, done
    return count / (time.perf_counter() - began)


def ways_at_once(ways: list[Way], count: int) -> float:
    """Lives per second of as many of these as there are, each in a thread that only waits for it."""
    left = deque(range(count))

    def work(way: Way) -> None:
        try:
            while left:
                left.popleft()
                way.live()
        except IndexError:
            pass  # another thread took the last one

    began = time.perf_counter()
    with ThreadPoolExecutor(len(ways)) as pool:
        try:
            list(pool.map(work, ways))
        finally:
            left.clear()  # interrupted: each ends with the life it is at
    return count / (time.perf_counter() - began)


def several_at_once(runtime: pyoci.OCIRuntime, lives: int, with_podman: bool, counts: Sequence[int], rounds: int = 3) -> dict[str, dict[str, float]]:
    """Containers per second at so many in flight; the median of interleaved rounds."""
    table: dict[str, dict[str, float]] = {}
    progress = Progress("several at once", len(counts) * rounds)
    for at_once in counts:
        seen: dict[str, list[float]] = {"pyoci": [], "direct": [], "floor": [], "podman run": []}
        with ExitStack() as ends:
            floors: list[Way] = []
            for _ in range(at_once):
                floors.append(Floor(runtime))
                ends.callback(floors[-1].close)
            for _ in range(rounds):
                count = max(lives // rounds, at_once)
                seen["floor"].append(ways_at_once(floors, count))
                seen["pyoci"].append(pyoci_at_once(runtime, count, at_once))
                seen["direct"].append(pyoci_at_once(runtime, count, at_once, "direct"))
                if with_podman:
                    podmans: list[Way] = [way for way in (podman(runtime) for _ in range(at_once)) if way is not None]
                    seen["podman run"].append(ways_at_once(podmans, max(count // 8, at_once)))
                progress.step()
        table[str(at_once)] = {name: median(values) for name, values in seen.items() if values}
    return table


def summary(lives: Lives) -> dict[str, dict[str, dict[str, float]]]:
    """way → phase → p50, p90, p99, in seconds."""
    table: dict[str, dict[str, dict[str, float]]] = {}
    for name, rows in lives.items():
        if len(rows) < 2:
            continue
        table[name] = {}
        for phase in (*PHASES, "total"):
            values = [row[phase] for row in rows if phase in row]
            if values:
                cuts = quantiles(values, n=100, method="inclusive")
                table[name][phase] = {"p50": median(values), "p90": cuts[89], "p99": cuts[98]}
    return table


def measure(name: str, lives: int, quick: bool, counts: Sequence[int], state_dir: str) -> dict[str, Any]:
    runtime = pyoci.OCIRuntime(name, state_dir=f"{state_dir}/{name}")
    few = max(lives // 10, 5)
    floor = Floor(runtime)
    ways: list[tuple[Way, int]] = [(Pyoci(runtime), lives), (Direct(runtime), lives), (Plain(runtime), lives), (floor, lives)]
    ways += [(PyociRun(runtime), lives // 2), (bare_runtime(runtime), lives // 2)]
    other = podman(runtime)
    if other is not None:
        ways.append((other, few))
    print(f"{name}: {runtime.runtime_path}", file=sys.stderr)
    try:
        rows, cpu, failed = one_at_a_time(ways, 3)
    finally:
        for way, _ in ways:
            way.close()
    result: dict[str, Any] = {"lives": lives, "one at a time": summary(rows), "own processor time": cpu, "failed": failed}
    result["several at once"] = several_at_once(runtime, lives // 2 if quick else lives, other is not None and other.name not in failed, counts)
    ends = max(lives // 4, 5)
    progress = Progress("how soon an end is told", 3 * ends)
    result["exit file to wait"] = latency.exit_file(runtime, ends, progress.step)
    result["exit file to stop"] = latency.stop(runtime, ends, progress.step)
    result["death to wait without conmon"] = latency.conmon_killed(runtime, ends, progress.step)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks/run", description=__doc__)
    parser.add_argument("--lives", type=int, default=200, help="of pyoci and of the floor, for each runtime (default: 200)")
    parser.add_argument("--concurrency", default="1,2,4,8", metavar="N,…", help="how many in flight, one after the other (default: 1,2,4,8)")
    parser.add_argument("--runtime", action="append", choices=runtimes.CANDIDATES, help="only this one (repeatable)")
    parser.add_argument("--quick", action="store_true", help="a tenth of it, to see that all works")
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "latest.json", help="where the figures go")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("the benchmark creates containers and needs root: sudo benchmarks/run", file=sys.stderr)
        return 1
    try:
        counts = [int(word) for word in options.concurrency.split(",")]
    except ValueError:
        counts = [0]
    if min(counts) < 1 or options.lives < 1:
        parser.error("--lives and --concurrency take positive numbers")
    # SIGTERM leaves the same way as Ctrl-C, through everything that cleans up.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    lives = max(options.lives // 10, 10) if options.quick else options.lives
    hosts.become_v1_host()
    env = environment(os.environ)
    names, skipped = [], {}
    for name in options.runtime or runtimes.CANDIDATES:
        try:
            why = runtimes.unfit(runtimes.find_executable(name), env)
        except pyoci.ExecutableError as error:
            why = str(error.strerror)
        if why is None:
            names.append(name)
        else:
            skipped[name] = why
    rootfs.builtin()
    figures: dict[str, Any] = {"host": report.host(), "skipped": skipped, "runtimes": {}}
    with state_directory() as state_dir:
        for name in names:
            figures["runtimes"][name] = measure(name, lives, options.quick, counts, state_dir)
    if report.free_memory() > 4 << 30:
        figures["spawn"] = latency.spawn_sizes(lives, Progress("spawning from a large process", lives).step)
    else:
        figures["skipped"]["spawning from a large process"] = "less than 4 GiB of memory are free"
    report.write(figures, options.json)
    report.show(figures)
    print(f"\nThe figures are in {options.json}.")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\ninterrupted; the containers were removed", file=sys.stderr)
        sys.exit(130)
