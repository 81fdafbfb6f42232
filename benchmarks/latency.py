"""How soon an end is told, and what a spawn costs a large process: measured with a second process as witness, so that no thread of ours is
in the way of what is measured."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median, quantiles
from typing import Self

import pyoci
from pyoci import rootfs, spec
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
    """Seconds from what the witness saw to the return of wait(), or of another call that tells the end; the container is deleted then."""
    if told is None:
        container.wait(60)
    else:
        told()
    returned = time.monotonic_ns()
    late = (returned - int(witness.answer())) / 1e9
    container.delete()
    return late


def exit_file(runtime: pyoci.OCIRuntime, count: int, step: Callable[[], None]) -> float:
    """The median of the seconds from the exit file's appearance to the return of wait(); below zero: wait() was first."""
    config = spec.build(["sleep", "0.02"], rootfs=rootfs.builtin(), read_only=True)
    late = []
    with Witness(FILE_WITNESS, f"{runtime.state_dir}/exits") as witness:
        for _ in range(count):
            container = runtime.create(config)
            witness.ask(container.id)
            container.start()
            late.append(_lateness(container, witness))
            step()
    return median(late)


def stop(runtime: pyoci.OCIRuntime, count: int, step: Callable[[], None]) -> float:
    """The median of the seconds from the exit file's appearance to the return of stop(), for a container that obeys TERM."""
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
    return median(late)


def conmon_killed(runtime: pyoci.OCIRuntime, count: int, step: Callable[[], None]) -> float:
    """The median of the seconds from init's death to the return of wait() when conmon was killed before."""
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
    return median(late)


def spawn_sizes(count: int, step: Callable[[], None]) -> dict[str, dict[str, float]]:
    """Seconds of a spawn inside the C call, median and tenth percentile: from a small process, from another small one (how far two equal
    processes differ here: the processor that the child is put on counts), and from one with 2 GiB of touched memory."""
    with Witness(SPAWNER, "0") as small, Witness(SPAWNER, "0") as control, Witness(SPAWNER, str(2 << 30)) as large:
        names = {small: "small", control: "small again", large: "2 GiB"}
        took: dict[str, list[float]] = {name: [] for name in names.values()}
        for witness in names:
            witness.ask("warm up")
        for _ in range(count):
            for witness in random.sample(list(names), len(names)):
                took[names[witness]].append(int(witness.ask("")) / 1e9)
            step()
    return {name: {"p50": median(values), "p10": quantiles(values, n=10)[0]} for name, values in took.items()}
