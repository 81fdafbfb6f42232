"""exec of /bin/true, interleaved with the least C program that spawns the same command (exec_floor.c): python -m benchmarks.execs [ROUNDS]."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyoci
from benchmarks.lives import PATIENCE
from pyoci import PIPE, execs, rootfs, runtimes, spec
from tests import hosts

SOURCE = Path(__file__).with_name("exec_floor.c")
TARGET = 1.05
BATCH = 10


class Floor:
    """exec_floor with the command that pyoci itself would run; ``sealed``: by the sealed copy of the runtime, as pyoci does, not by its path."""

    def __init__(self, container: pyoci.Container, *, sealed: bool = False) -> None:
        life = container._life
        base = f"{life.directory}/floor{'-sealed' if sealed else ''}"
        Path(f"{base}.json").write_bytes(execs.process_of(life, ["/bin/true"]))
        argv = life.host.runtime.exec_argv(life.id, base)
        program = SOURCE.with_suffix("")
        if not program.exists() or program.stat().st_mtime < SOURCE.stat().st_mtime:
            subprocess.run(["cc", "-O2", "-o", program, SOURCE], check=True)
        executable = life.host.executable if sealed else life.host.runtime.path
        command = [str(program), f"{base}.pid", f"{base}.log", "--", executable, *argv[1:]]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=life.host.env, process_group=0)

    def measure(self) -> float:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"exec_floor ended with {self._process.wait()}")
        return int(answer) / 1e9

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rounds", nargs="?", type=int, default=200)
    rounds = parser.parse_args().rounds
    hosts.become_v1_host()
    results = {}
    with tempfile.TemporaryDirectory(prefix="pyoci-execs-", dir="/run") as state_dir:
        for name in runtimes.CANDIDATES:
            runtime = pyoci.OCIRuntime(name, state_dir=state_dir)
            config = spec.build(["sleep", "1000000"], rootfs=rootfs.builtin(), read_only=True)
            with runtime.create(config) as container:
                container.start()
                floor, sealed = Floor(container), Floor(container, sealed=True)
                ours, theirs, through_copy = [], [], []
                try:
                    for _ in range(max(rounds // BATCH, 1)):
                        theirs += [floor.measure() for _ in range(BATCH)]
                        through_copy += [sealed.measure() for _ in range(BATCH)]
                        ours += [measure_pyoci(container) for _ in range(BATCH)]
                    rate = throughput(container, 1 << 30)
                finally:
                    floor.close()
                    sealed.close()
                container.stop(0)
            pyoci_p50, floor_p50, copy_p50 = (statistics.median(times) for times in (ours, theirs, through_copy))
            results[name] = {"pyoci": pyoci_p50, "floor": floor_p50, "floor, sealed copy": copy_p50, "bytes per second": rate}
            ratio = f"{pyoci_p50 / floor_p50:.3f} × (target: at most {TARGET} ×)"
            print(
                f"{name}: exec floor {floor_p50 * 1e3:.2f} ms, pyoci {pyoci_p50 * 1e3:.2f} ms, {ratio}; "
                f"floor through the sealed copy {copy_p50 * 1e3:.2f} ms, {pyoci_p50 / copy_p50:.3f} ×; 1 GiB at {rate / 1e6:.0f} MB/s",
                file=sys.stderr,
            )
    print(json.dumps(results))


if __name__ == "__main__":
    main()
