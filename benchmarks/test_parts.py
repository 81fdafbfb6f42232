"""The parts of a launch that are pyoci's own, by pytest-benchmark: ``.venv/bin/pytest benchmarks``. Figures, no assertions on time."""

import subprocess
import sys
from typing import Any

import pytest

from pyoci import _ffi, conmon, rootfs, spec
from pyoci.exits import combine, parse_exit_file
from pyoci.process import Process, ended
from pyoci.runtime import prepare
from pyoci.waiting import NEVER, drive

BUILTIN = rootfs.builtin()


def test_spawn(benchmark: Any) -> None:
    env = _ffi.environment_block({})

    def spawn() -> None:
        process = Process().spawn("/bin/true", ["true"], env)
        drive(ended(process, NEVER))
        assert process.reap() == (0, 0)

    benchmark(spawn)


def test_build_check_and_encode_a_spec(benchmark: Any) -> None:
    benchmark(lambda: spec.encode(prepare(spec.build(["true"], rootfs=BUILTIN, read_only=True))))


def test_conmon_arguments(benchmark: Any) -> None:
    benchmark(
        lambda: conmon.arguments(id="a", directory="/run/pyoci/containers/a", exit_dir="/run/pyoci/exits", runtime="/usr/bin/crun", runtime_args=[])
    )


def test_conmon_message(benchmark: Any) -> None:
    assert benchmark(lambda: conmon.parse_sync(b'{"data": 4711}\n', "a")) == 4711


def test_exit_status(benchmark: Any) -> None:
    assert benchmark(lambda: combine(parse_exit_file(b"7"), (7, 0), oom_killed=False, finished_ns=1)).code == 7


@pytest.mark.parametrize("program", ["pass", "import pyoci", "import pyoci; pyoci.run", "import pyoci; pyoci.OCIRuntime", "import pyoci; pyoci.aio"])
def test_start_up(benchmark: Any, program: str) -> None:
    benchmark.pedantic(lambda: subprocess.run([sys.executable, "-c", program], check=True), rounds=20, warmup_rounds=2)
