"""Memory: what a living container costs besides its own processes, and what the programs that lead a life take at their peak."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

import pyoci
from benchmarks.context import Context
from benchmarks.ways import compiled
from pyoci import rootfs, spec
from pyoci.bench.measure import FAILURES, why
from pyoci.bench.tables import failures, table
from pyoci.bench.ways import DIRECT, PATIENCE, PYOCI, Command, bare_runtime, podman

ALIVE = 8
ASLEEP = ["sleep", "86399"]
"""What the containers do, and by what they are known among the processes."""
LIVES = """
import sys
import pyoci
runtime = pyoci.OCIRuntime(sys.argv[1], state_dir=sys.argv[2], monitor=sys.argv[3])
for _ in range(20):
    assert pyoci.run(["true"], runtime=runtime).returncode == 0
"""


def run(context: Context) -> dict[str, Any]:
    runtime = context.runtime
    config = spec.build(ASLEEP, rootfs=rootfs.builtin(), read_only=True)
    ways: dict[str, Callable[[], AbstractContextManager[None]]] = {
        PYOCI: partial(ours, runtime, config, "conmon"),
        DIRECT: partial(ours, runtime, config, "direct"),
    }
    for command in (bare_runtime(runtime, ASLEEP), podman(runtime, ASLEEP)):
        if command is not None:
            ways[command.name] = partial(called, command)
    step = context.progress("memory", len(ways))
    alive: dict[str, float] = {}
    failed = {}
    for name, held in ways.items():
        try:
            with held():
                pass  # once before, so that what is made at the first is not counted
            before = footprint()
            with held():
                alive[name] = (footprint() - before) / ALIVE
        except FAILURES as error:
            failed[name] = why(error)
        step()
    python = [sys.executable, "-c"]
    peaks = {
        "a bare python": peak([*python, "pass"]),
        PYOCI: peak([*python, LIVES, runtime.runtime_path, runtime.state_dir, "conmon"]),
        DIRECT: peak([*python, LIVES, runtime.runtime_path, runtime.state_dir, "direct"]),
    }
    for command in (bare_runtime(runtime), podman(runtime)):
        if command is not None and command.name not in failed:
            peaks[command.name] = peak(command.words())
    return {"alive": alive, "peaks": peaks, "failed": failed}


@contextmanager
def ours(runtime: pyoci.OCIRuntime, config: dict[str, Any], monitor: str) -> Iterator[None]:
    with ExitStack() as ends:
        for _ in range(ALIVE):
            container = runtime.create(config, monitor=monitor)
            ends.callback(container.delete, force=True)
            container.start()
        asleep(ALIVE)
        yield


@contextmanager
def called(command: Command) -> Iterator[None]:
    """The command stays for as long as its container lives."""
    with ExitStack() as ends:
        started = []
        for _ in range(ALIVE):
            quiet = subprocess.DEVNULL
            started.append(ends.enter_context(subprocess.Popen(command.words(), stdin=quiet, stdout=quiet, stderr=quiet, process_group=0)))
        ends.callback(end_sleepers)
        asleep(ALIVE, started)
        yield


def processes() -> Iterator[tuple[int, bytes]]:
    """Of this host: pid and command line."""
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    yield int(name), file.read()
            except OSError:
                pass  # it has ended


def sleepers() -> list[int]:
    wanted = b"".join(os.fsencode(word) + b"\0" for word in ASLEEP)
    return [pid for pid, line in processes() if line == wanted]


def asleep(count: int, started: Sequence[subprocess.Popen[bytes]] = ()) -> None:
    """Returns when so many containers do what they are to do, for which none of the commands may have ended."""
    deadline = time.monotonic() + PATIENCE
    while len(sleepers()) < count:
        if time.monotonic() > deadline or any(command.poll() is not None for command in started):
            raise RuntimeError(f"only {len(sleepers())} of {count} containers have started")
        time.sleep(0.01)


def end_sleepers() -> None:
    """Until there are none: one that was still on its way is found at the next look."""
    while found := sleepers():
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def footprint() -> float:
    """Bytes of all processes on this host but the containers' own, what they share counted once (proc_pid_smaps_rollup(5), Pss)."""
    without = set(sleepers())
    total = 0
    for pid, _ in processes():
        if pid not in without:
            with suppress(OSError), open(f"/proc/{pid}/smaps_rollup", "rb") as file:
                total += sum(int(line.split()[1]) for line in file if line.startswith(b"Pss:"))
    return total * 1024


def peak(argv: Sequence[str]) -> int:
    """Bytes: the largest resident set of a command or of a process that it has waited for (getrusage(2))."""
    done = subprocess.run(
        [compiled("exec_floor"), "--", *argv], input="\n", capture_output=True, text=True, check=False, process_group=0, timeout=PATIENCE
    )
    if done.returncode != 0:
        raise RuntimeError(f"{argv[0]}: {done.stderr.strip()}")
    return int(done.stdout.split()[1]) * 1024


def report(found: dict[str, Any]) -> Iterator[str]:
    rows = [[name, f"{size / 1e6:.2f}"] for name, size in found["alive"].items()]
    yield from table(["a living container, without its own processes", "MB"], rows)
    yield from failures(found["failed"])
    yield ""
    yield from table(["peak of the program that leads a life", "MB"], [[name, f"{size / 1e6:.1f}"] for name, size in found["peaks"].items()])
