"""exec of /bin/true in a running container, beside the least C program that spawns the same command (exec_floor.c); and how fast output comes
back."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyoci
from benchmarks.context import Context
from benchmarks.pairs import interleaved
from benchmarks.ways import FLOOR, compiled
from pyoci import PIPE, execs, rootfs, spec
from pyoci.bench.measure import percentiles
from pyoci.bench.tables import ms, table, times
from pyoci.bench.ways import PATIENCE, PYOCI

TARGET = 1.05
BATCH = 10
"""In a row, as who executes much does it."""
BYTES_PER_LIFE = 5 << 20
"""So that the output of an exec is 1 GB where there are 200."""


class Floor:
    """exec_floor with the command that pyoci itself would run; ``sealed``: by the sealed copy of the runtime, as pyoci does, not by its path."""

    def __init__(self, container: pyoci.Container, *, sealed: bool = False) -> None:
        life = container._life
        base = f"{life.directory}/floor{'-sealed' if sealed else ''}"
        Path(f"{base}.json").write_bytes(execs.process_of(life, ["/bin/true"]))
        argv = life.host.runtime.exec_argv(life.id, base)
        executable = life.host.executable if sealed else life.host.runtime.path
        command = [str(compiled("exec_floor")), f"{base}.pid", f"{base}.log", "--", executable, *argv[1:]]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=life.host.env, process_group=0)

    def measure(self) -> float:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"exec_floor ended with {self._process.wait()}")
        return int(answer.split()[0]) / 1e9

    def close(self) -> None:
        self._process.communicate(timeout=PATIENCE)


def measure_pyoci(container: pyoci.Container) -> float:
    began = time.perf_counter()
    status = container.exec(["/bin/true"], stdout=pyoci.DEVNULL, stderr=pyoci.DEVNULL).wait(PATIENCE)
    took = time.perf_counter() - began
    assert status.code == 0, status
    return took


def throughput(container: pyoci.Container, size: int) -> float:
    """Bytes per second from a program's stdout to a reader that throws them away."""
    began = time.perf_counter()
    with container.exec(["head", "-c", str(size), "/dev/zero"], stdout=PIPE) as session:
        assert session.stdout is not None
        left = size
        while left:
            left -= len(session.stdout.read(1 << 16))
    return size / (time.perf_counter() - began)


def run(context: Context) -> dict[str, Any]:
    config = spec.build(["sleep", "1000000"], rootfs=rootfs.builtin(), read_only=True)
    with context.runtime.create(config) as container:
        container.start()
        floors = {FLOOR: Floor(container), "floor, sealed copy": Floor(container, sealed=True)}
        try:
            actions = {name: floor.measure for name, floor in floors.items()} | {PYOCI: partial(measure_pyoci, container)}
            took = interleaved(actions, context.lives, context.progress("exec", context.lives), batch=BATCH)
            rate = throughput(container, BYTES_PER_LIFE * context.lives)
        finally:
            for floor in floors.values():
                floor.close()
        container.stop(0)
    return {"ways": {name: percentiles(seconds) for name, seconds in took.items()}, "bytes per second": rate}


def report(found: dict[str, Any]) -> Iterator[str]:
    ways = found["ways"]
    base = ways[FLOOR]["p50"]
    rows = [[name, ms(seen["p50"], 2), ms(seen["p90"], 2), times(seen["p50"], base)] for name, seen in ways.items()]
    yield from table(["exec of /bin/true, ms", "p50", "p90", f"to {FLOOR} (pyoci: at most {TARGET:g} ×)"], rows)
    yield ""
    yield f"output of an exec: {found['bytes per second'] / 1e6:.0f} MB/s"
