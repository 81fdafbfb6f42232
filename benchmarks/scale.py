"""Cost and scale of one process: its own processor time, many containers alive at once, very many one after another, and a busy thread
beside: ``python -m benchmarks.scale [--alive N] [--lives N] [--runtime crun]``. JSON on stdout.

Two ways of holding containers: ``plain``, objects of an OCIRuntime, and ``launcher``. Processor time and counts mean something on a loaded
machine as well; what is in seconds or per second does not.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from glob import glob
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Protocol

import pyoci
from benchmarks.context import Context
from benchmarks.latency import Witness
from benchmarks.place import state_directory
from pyoci import cgroups, rootfs, spec
from pyoci.bench.tables import ms, table
from pyoci.bench.ways import PATIENCE, config_of
from pyoci.runtime import stored
from tests import hosts

TARGETS = {
    "own ms per container, 8 in flight": 0.5,
    "MiB for 1,000 alive": 60,
    "descriptors each": 3,
    "wake-ups while idle": 0,
    "ms from death to told, p99": 5,
    "launch beside the living, to one beside none": 1.2,
    "throughput beside a busy thread, to that without": 0.8,
}
FOREVER = ["sleep", "1000000"]
SETTLE = 1.0
"""Seconds after which the last create has left no timer behind."""

# Kills PID a moment after it was asked, so that who waits for the end is waiting by then; prints the monotonic time of the death.
KILLER = """
import os, select, signal, sys, time
for line in sys.stdin:
    fd = os.pidfd_open(int(line))
    print("ready", flush=True)
    time.sleep(0.03)
    signal.pidfd_send_signal(fd, signal.SIGKILL)
    select.select([fd], [], [])
    print(time.monotonic_ns(), flush=True)
    os.close(fd)
"""


# --- what a process has and uses --------------------------------------------------------------------------------------------------


def memory() -> int:
    """Bytes of this process in memory that are its own (PSS, which leaves out what is shared with others)."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) - 1  # the listing's own


def switches(thread: int) -> int:
    """How often this thread went to sleep, and so was woken."""
    lines = Path(f"/proc/self/task/{thread}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))


def entries(state_dir: str) -> int:
    """Files and directories of containers in a state directory."""
    return sum(len(directories) + len(files) for path, directories, files in os.walk(state_dir) if path != state_dir)


def own_cgroups() -> int:
    return sum(len(glob(f"{point}/pyoci-*")) for point in cgroups.read().points)


def own_time() -> float:
    """Seconds of processor time of this process, all its threads, without its children."""
    return time.process_time_ns() / 1e9


# --- two ways of holding containers -----------------------------------------------------------------------------------------------


class Holder(Protocol):
    """Holds containers that live, and leads short lives beside them."""

    def hold(self, count: int) -> None: ...

    def live(self) -> None: ...

    def waiting(self) -> int:
        """The thread that now waits for all of them."""

    def kill(self, witness: Witness) -> float:
        """Seconds from the death of one of them, killed from outside, to when that is told."""

    def close(self) -> None: ...


class Plain:
    """Containers of an OCIRuntime, waited for by ``pyoci.wait``."""

    def __init__(self, runtime: pyoci.OCIRuntime, monitor: str) -> None:
        self.runtime = runtime
        self.monitor = monitor
        self._spec = config_of()
        self._containers: set[pyoci.Container] = set()
        self._thread: threading.Thread | None = None

    def hold(self, count: int) -> None:
        forever = spec.build(FOREVER, rootfs=rootfs.builtin(), read_only=True)
        for _ in range(count):
            container = self.runtime.create(forever, monitor=self.monitor)
            self._containers.add(container)
            container.start()

    def live(self) -> None:
        with self.runtime.create(self._spec, monitor=self.monitor) as container:
            container.start()
            assert container.wait(PATIENCE).code == 0

    def waiting(self) -> int:
        self._thread = threading.Thread(target=pyoci.wait, args=(set(self._containers), None, pyoci.FIRST_COMPLETED))
        self._thread.start()
        assert self._thread.native_id is not None
        return self._thread.native_id

    def kill(self, witness: Witness) -> float:
        victim = random.choice(list(self._containers))
        witness.ask(str(victim.pid))
        done, self._containers = pyoci.wait(self._containers, PATIENCE, pyoci.FIRST_COMPLETED)
        assert done == {victim}
        status = victim.wait(PATIENCE)
        told = time.monotonic_ns()
        assert status.signal == 9, status
        late = (told - int(witness.answer())) / 1e9
        victim.delete()
        return late

    def close(self) -> None:
        for container in self._containers:
            container.delete(force=True)
        if self._thread is not None:
            self._thread.join()


class Launched:
    """Containers of a Launcher, with their output captured, and waited for by it."""

    def __init__(self, runtime: pyoci.OCIRuntime, monitor: str) -> None:
        self.runtime = runtime
        self._launcher = pyoci.Launcher(runtime=runtime, monitor=monitor, max_running=1 << 20)
        self._futures: dict[str, Any] = {}
        self._held = self._told = 0

    def hold(self, count: int) -> None:
        started = threading.Semaphore(0)
        for _ in range(count):
            self._held += 1
            id = f"held-{self._held}"
            self._futures[id] = self._launcher.submit(FOREVER, id=id, on_start=started.release)
        for _ in range(count):
            assert started.acquire(timeout=PATIENCE)

    def live(self) -> None:
        assert self._launcher.submit(["true"]).result(PATIENCE).returncode == 0

    def waiting(self) -> int:
        assert self._launcher._worker.thread.native_id is not None
        return self._launcher._worker.thread.native_id

    def kill(self, witness: Witness) -> float:
        id = random.choice(list(self._futures))
        future = self._futures.pop(id)
        future.add_done_callback(lambda _: setattr(self, "_told", time.monotonic_ns()))
        witness.ask(Path(f"{self.runtime.state_dir}/containers/{id}/pidfile").read_text())
        assert future.result(PATIENCE).returncode == -9
        return (self._told - int(witness.answer())) / 1e9

    def close(self) -> None:
        self._launcher.close()


HOLDERS: Mapping[str, Callable[[pyoci.OCIRuntime, str], Holder]] = {"plain": Plain, "launcher": Launched}


# --- what is measured -------------------------------------------------------------------------------------------------------------


def alive(runtime: pyoci.OCIRuntime, way: str, count: int, *, monitor: str = "conmon", exits: int = 200, beside: int = 40) -> dict[str, float]:
    """``count`` containers alive at once, held in one of the ``HOLDERS``. ``exits``: how many of them are killed; ``beside``: how many short ones
    are launched one after another, before, beside them, and afterwards."""
    holder = HOLDERS[way](runtime, monitor)
    try:
        holder.hold(3)  # what is made once, and kept
        before_time = [own_time_of(holder.live) for _ in range(beside)]
        gc.collect()
        before = memory(), descriptors()
        holder.hold(count)
        gc.collect()
        time.sleep(SETTLE)
        after = memory(), descriptors()
        beside_time = [own_time_of(holder.live) for _ in range(beside)]
        with Witness(KILLER) as witness:
            late = [holder.kill(witness) for _ in range(min(exits, count))]
        thread = holder.waiting()
        time.sleep(SETTLE)
        asleep = switches(thread)
        time.sleep(3)
        woken = switches(thread) - asleep
    finally:
        holder.close()
    return {
        "alive": count,
        "MiB": (after[0] - before[0]) / (1 << 20),
        "descriptors each": (after[1] - before[1]) / count,
        "wake-ups in 3 s": woken,
        "death to told, p50": median(late),
        "death to told, p99": quantiles(late, n=100, method="inclusive")[98],
        "own time of a launch beside none": median(before_time),
        "own time of a launch beside the living": median(beside_time),
        "the latter to the former": median(beside_time) / median(before_time),
    }


def own_time_of(call: Callable[[], object]) -> float:
    before = own_time()
    call()
    return own_time() - before


def own_time_each(runtime: pyoci.OCIRuntime, count: int, at_once: int, monitor: str = "conmon") -> float:
    """Seconds of processor time of this process for each of ``count`` containers; 1 at once: of an OCIRuntime; more: of a Launcher."""
    if at_once == 1:
        plain = Plain(runtime, monitor)
        plain.live()
        return sum(own_time_of(plain.live) for _ in range(count)) / count
    with pyoci.Launcher(runtime=runtime, monitor=monitor, max_running=at_once, max_starting=at_once) as launcher:
        list(launcher.map(["true"] for _ in range(2 * at_once)))
        return own_time_of(lambda: list(launcher.map(["true"] for _ in range(count)))) / count


def per_second(runtime: pyoci.OCIRuntime, count: int, at_once: int, monitor: str) -> float:
    with pyoci.Launcher(runtime=runtime, monitor=monitor, max_running=at_once, max_starting=at_once) as launcher:
        list(launcher.map(["true"] for _ in range(at_once)))
        began = time.perf_counter()
        for done in launcher.map(["true"] for _ in range(count)):
            assert done.returncode == 0, done
        return count / (time.perf_counter() - began)


@contextmanager
def busy_thread() -> Iterator[None]:
    """A thread of this process that only computes, in Python."""
    over = False

    def compute() -> None:
        while not over:
            sum(range(1000))

    thread = threading.Thread(target=compute, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over = True
        thread.join()


@contextmanager
def busy_process() -> Iterator[None]:
    """The same in another process: what the processor that it takes costs, without the interpreter lock."""
    with Witness("while True: sum(range(1000))"):
        yield


BESIDE: Mapping[str, Callable[[], Any]] = {"nothing": ExitStack, "a busy thread": busy_thread, "a busy process": busy_process}


def busy(runtime: pyoci.OCIRuntime, count: int, at_once: int = 8, *, monitor: str = "conmon", rounds: int = 3) -> dict[str, float]:
    """Containers per second of a Launcher beside nothing, beside a busy Python thread, and beside a busy process; medians of ``rounds``."""
    seen: dict[str, list[float]] = {name: [] for name in BESIDE}
    for _ in range(rounds):
        for name, beside in BESIDE.items():
            with beside():
                seen[name].append(per_second(runtime, count, at_once, monitor))
    figures = {name: median(values) for name, values in seen.items()}
    ratios = {f"{name}, to nothing": figures[name] / figures["nothing"] for name in BESIDE if name != "nothing"}
    return {**figures, **ratios}


def lives(runtime: pyoci.OCIRuntime, count: int, at_once: int = 8, *, monitor: str = "conmon", samples: int = 20) -> list[dict[str, float]]:
    """``count`` containers in this process, with what it holds before, from time to time, and after: with the Launcher, and a tenth of them one
    at a time by an OCIRuntime."""
    taken: list[dict[str, float]] = []
    plain = Plain(runtime, monitor)

    def sample(done: int) -> None:
        gc.collect()
        held = {"MiB": memory() / (1 << 20), "descriptors": descriptors(), "threads": threading.active_count()}
        taken.append({"lives": done, **held, "files": entries(runtime.state_dir), "cgroups": own_cgroups(), "own time": own_time()})

    with pyoci.Launcher(runtime=runtime, monitor=monitor, max_running=at_once, max_starting=at_once) as launcher:
        list(launcher.map(["true"] for _ in range(2 * at_once)))
        plain.live()
        sample(0)
        each = max(count // samples, 1)
        for done in range(each, count + 1, each):
            alone = each // 10
            for result in launcher.map(["true"] for _ in range(each - alone)):
                assert result.returncode == 0, result
            for _ in range(alone):
                plain.live()
            sample(done)
            print(f"\r{done}/{count} lives", end="" if done + each <= count else "\n", file=sys.stderr, flush=True)
    return taken


def measure(runtime: pyoci.OCIRuntime, count_alive: int, count_lives: int, few: int = 200) -> dict[str, Any]:
    figures: dict[str, Any] = {"targets": TARGETS}
    for monitor in ("conmon", "direct"):
        print(f"{runtime.name}, monitor {monitor!r}", file=sys.stderr, flush=True)
        result: dict[str, Any] = {"own time each": {at_once: own_time_each(runtime, few, at_once, monitor) for at_once in (1, 8)}}
        if count_alive:
            result["alive"] = {way: alive(runtime, way, count_alive, monitor=monitor) for way in HOLDERS}
        result["beside"] = {at_once: busy(runtime, few, at_once, monitor=monitor) for at_once in (1, 8)}
        figures[monitor] = result
    if count_lives:
        figures["lives"] = lives(runtime, count_lives)
    assert not stored(runtime.state_dir), "containers were left"
    return figures


def run(context: Context) -> dict[str, Any]:
    """With 200 lives: 1,000 alive, 20,000 one after another."""
    return measure(context.runtime, 5 * context.lives, 100 * context.lives, context.lives)


def report(found: dict[str, Any]) -> Iterator[str]:
    yield f"Targets: {', '.join(f'{what}: {target:g}' for what, target in found['targets'].items())}"
    yield ""
    monitors = {name: seen for name, seen in found.items() if name in ("conmon", "direct")}
    for monitor, seen in monitors.items():
        yield from table(["own ms each", *seen["own time each"]], [[monitor, *(ms(each, 2) for each in seen["own time each"].values())]])
        yield ""
        if "alive" in seen:
            yield from _columns(f"alive, {monitor}", seen["alive"])
            yield ""
        yield from _columns(f"per second, {monitor}, in flight", seen["beside"])
        yield ""
    if "lives" in found:
        some = found["lives"][:: max(len(found["lives"]) // 5, 1)]
        yield from _columns("lives one after another", {str(round(sample["lives"])): sample for sample in some})


def _columns(title: str, columns: Mapping[Any, Mapping[str, float]]) -> Iterator[str]:
    """A table with a column for each, and a row for each of their figures."""
    rows = next(iter(columns.values()))
    yield from table([title, *map(str, columns)], [[what, *(f"{column[what]:.4g}" for column in columns.values())] for what in rows])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--alive", type=int, default=1000, help="how many containers live at once (default: 1000; 0: not measured)")
    parser.add_argument("--lives", type=int, default=20000, help="how many live one after another (default: 20000; 0: not measured)")
    parser.add_argument("--few", type=int, default=200, help="of how many medians and rates are taken (default: 200)")
    parser.add_argument("--runtime", default="crun")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("this creates containers in cgroups and needs root", file=sys.stderr)
        return 1
    hosts.become_v1_host()
    rootfs.builtin()
    with state_directory() as state_dir:
        runtime = pyoci.OCIRuntime(options.runtime, state_dir=f"{state_dir}/{options.runtime}")
        print(json.dumps(measure(runtime, options.alive, options.lives, options.few), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
