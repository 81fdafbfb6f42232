"""How soon an end is told, and what a spawn costs a large process: measured with a second process as witness, so that no thread of ours is
in the way of what is measured."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Self

import pyoci
from benchmarks.context import Context
from benchmarks.pairs import interleaved
from pyoci import rootfs, spec
from pyoci.bench.measure import percentiles
from pyoci.bench.tables import ms, table
from tests.containers import FOREVER, ready

# Prints the monotonic time, in nanoseconds, at which FILE appeared in DIRECTORY.
FILE_WITNESS = """
import ctypes, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
fd = libc.inotify_init1(0)
libc.inotify_add_watch(fd, sys.argv[1].encode(), 0x80)
for line in sys.stdin:
    name = line.strip().encode()
    print("ready", flush=True)
    while name not in os.read(fd, 65536): pass
    print(time.monotonic_ns(), flush=True)
"""

# Prints the monotonic time at which PID died.
DEATH_WITNESS = """
import os, select, sys, time
for line in sys.stdin:
    fd = os.pidfd_open(int(line))
    print("ready", flush=True)
    select.select([fd], [], [])
    print(time.monotonic_ns(), flush=True)
    os.close(fd)
"""

# Prints the nanoseconds of one spawn, with as many bytes of touched memory as asked for.
SPAWNER = """
import sys, time
from pyoci import _ffi
ballast = bytearray(int(sys.argv[1]))
for at in range(0, len(ballast), 4096): ballast[at] = 1
env = _ffi.environment_block({})
real = _ffi.lib.po_spawn
class Timed:
    def __getattr__(self, name): return getattr(real_lib, name)
    def po_spawn(self, *arguments):
        began = time.perf_counter_ns()
        result = real(*arguments)
        self.took = time.perf_counter_ns() - began
        return result
real_lib = _ffi.lib
_ffi.lib = timed = Timed()
from pyoci.process import Process, ended
from pyoci.waiting import NEVER, drive
for line in sys.stdin:
    process = Process()
    process.spawn("/bin/true", ["true"], env)
    drive(ended(process, NEVER))
    process.reap()
    print(timed.took, flush=True)
"""


class Witness:
    """A process that is given a line and answers with a number."""

    def __init__(self, program: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0
        )

    def ask(self, line: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self.answer()

    def answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()  # it may be waiting for what will never come
        self._process.communicate()


def _lateness(container: pyoci.Container, witness: Witness, told: Callable[[], object] | None = None) -> float:
    """Seconds from what the witness saw to the return of wait(), or of another call that tells the end (below zero: that was first); the container is
    deleted then."""
    if told is None:
        container.wait(60)
    else:
        told()
    returned = time.monotonic_ns()
    late = (returned - int(witness.answer())) / 1e9
    container.delete()
    return late


def exit_file(runtime: pyoci.OCIRuntime, count: int, step: Callable[[], None]) -> list[float]:
    """From the exit file's appearance to the return of wait()."""
    config = spec.build(["sleep", "0.02"], rootfs=rootfs.builtin(), read_only=True)
    late = []
    with Witness(FILE_WITNESS, f"{runtime.state_dir}/exits") as witness:
        for _ in range(count):
            container = runtime.create(config)
            witness.ask(container.id)
            container.start()
            late.append(_lateness(container, witness))
            step()
    return late


def stop(runtime: pyoci.OCIRuntime, count: int, step: Callable[[], None]) -> list[float]:
    """From the exit file's appearance to the return of stop(), for a container that obeys TERM."""
    config = spec.build(FOREVER, rootfs=rootfs.builtin(), read_only=True)
    late = []
    with Witness(FILE_WITNESS, f"{runtime.state_dir}/exits") as witness:
        for _ in range(count):
            container = runtime.create(config)
            witness.ask(container.id)
            container.start()
            ready(container)
            late.append(_lateness(container, witness, container.stop))
            step()
    return late


def conmon_killed(runtime: pyoci.OCIRuntime, count: int, step: Callable[[], None]) -> list[float]:
    """From init's death to the return of wait() when conmon was killed before."""
    config = spec.build(["sleep", "0.05"], rootfs=rootfs.builtin(), read_only=True)
    late = []
    with Witness(DEATH_WITNESS) as witness:
        for _ in range(count):
            container = runtime.create(config)
            witness.ask(str(container.pid))
            container.start()
            assert container.conmon_pid is not None
            conmon = os.pidfd_open(container.conmon_pid)
            signal.pidfd_send_signal(conmon, signal.SIGKILL)
            select.select([conmon], [], [])
            os.close(conmon)
            late.append(_lateness(container, witness))
            step()
    return late


TOLD = {
    "exit file to the return of wait()": (exit_file, 1e-3),
    "exit file to the return of stop()": (stop, 2e-3),
    "init's death to the return of wait(), conmon killed": (conmon_killed, 5e-3),
}
"""What is measured, by what, and the seconds that it may take."""


def run(context: Context) -> dict[str, Any]:
    count = max(context.lives // 4, 4)
    step = context.progress("how soon an end is told", len(TOLD) * count)
    return {what: percentiles(measured(context.runtime, count, step)) for what, (measured, _) in TOLD.items()}


def report(found: dict[str, Any]) -> Iterator[str]:
    rows = [[what, ms(seen["p50"], 2), ms(seen["p99"], 2), f"at most {ms(TOLD[what][1], 0)}"] for what, seen in found.items()]
    yield from table(["how soon an end is told, ms", "p50", "p99", "target of p50"], rows)


SIZES = {"small": 0, "small again": 0, "2 GiB": 2 << 30}
"""Processes to spawn from, by their touched memory. Two are equal: how far equal processes differ here; the processor that the child is put on
counts."""
SPAWN_TARGET = 1.2


def run_spawns(context: Context) -> dict[str, Any]:
    """Inside the C call."""
    if free_memory() < 4 << 30:
        raise RuntimeError("less than 4 GiB of memory are free")
    with ExitStack() as ends:
        witnesses = {name: ends.enter_context(Witness(SPAWNER, str(size))) for name, size in SIZES.items()}
        for witness in witnesses.values():
            witness.ask("warm up")
        actions = {name: partial(_spawn, witness) for name, witness in witnesses.items()}
        took = interleaved(actions, context.lives, context.progress("spawning from a large process", context.lives))
    return {name: percentiles(seconds) for name, seconds in took.items()}


def _spawn(witness: Witness) -> float:
    return int(witness.ask("")) / 1e9


def report_spawns(found: dict[str, Any]) -> Iterator[str]:
    small = found["small"]["p50"]
    rows = [[name, f"{seen['p50'] * 1e6:.0f}", f"{seen['p90'] * 1e6:.0f}", f"{seen['p50'] / small:.2f} ×"] for name, seen in found.items()]
    yield from table(["a spawn from a process of, µs", "p50", "p90", f"to small (at most {SPAWN_TARGET:g} ×)"], rows)


def free_memory() -> int:
    """Bytes."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0
