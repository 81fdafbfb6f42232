"""The parts of a container's life that are pyoci's own, one by one: ``pytest benchmarks``. Nothing here asserts a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from pyoci import _ffi, conmon, exits, spec
from pyoci.process import Process, ended
from pyoci.templates import Template, prepare
from pyoci.waiting import NEVER, drive

PROGRAM = os.path.realpath("/bin/true")
DIRECTORY = "/run/pyoci/containers/job-7"


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    return spec.build(["true"], rootfs=str(tmp_path), read_only=True)


@pytest.fixture
def conmon_argv() -> Callable[[], list[str]]:
    def build() -> list[str]:
        return conmon.arguments(
            id="job-7", directory=DIRECTORY, exit_dir="/run/pyoci/exits", runtime="/usr/bin/crun", runtime_args=["--root", "/run/pyoci/crun"]
        )

    return build


def started() -> Process:
    return Process().spawn(PROGRAM, ["true"], _ffi.environment_block({}))


def finish(process: Process) -> None:
    drive(ended(process, NEVER))
    process.reap()
    process.close()


def test_spawn(benchmark: BenchmarkFixture) -> None:
    """A clone and an exec; the end of what was started is waited for outside of the measurement."""
    running: list[Process] = []

    def clear() -> None:
        while running:
            finish(running.pop())

    benchmark.pedantic(lambda: running.append(started()), setup=clear, rounds=300, warmup_rounds=10)  # type: ignore[no-untyped-call]
    clear()


def test_spawn_and_wait(benchmark: BenchmarkFixture) -> None:
    benchmark(lambda: finish(started()))


def test_environment_block(benchmark: BenchmarkFixture) -> None:
    env = conmon.environment(os.environ)
    assert benchmark(_ffi.environment_block, env)[1] == len(env)


def test_conmon_argv(benchmark: BenchmarkFixture, conmon_argv: Callable[[], list[str]]) -> None:
    assert benchmark(conmon_argv)[0] == "conmon"


def test_conmon_argv_as_a_block(benchmark: BenchmarkFixture, conmon_argv: Callable[[], list[str]]) -> None:
    argv = conmon_argv()
    assert benchmark(_ffi.block, argv, "argv")[1] == len(argv)


def test_sync_message(benchmark: BenchmarkFixture) -> None:
    assert benchmark(conmon.parse_sync, b'{"data": 12345}\n', "job-7") == 12345


def test_spec_build(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    assert benchmark(lambda: spec.build(["true"], rootfs=str(tmp_path), memory="64M", pids=32))["ociVersion"]


def test_spec_resolve_and_check(benchmark: BenchmarkFixture, config: dict[str, Any]) -> None:
    """What ``create`` does once with a spec, before it makes anything."""

    def first() -> dict[str, Any]:
        resolved = spec.resolve(config, None)
        spec.check(resolved, "spec")
        return Template(resolved, resolved["root"]["path"], None).config

    assert benchmark(first)["process"]["args"] == ["true"]


def test_spec_seen_before(benchmark: BenchmarkFixture, config: dict[str, Any]) -> None:
    """What ``create`` does with the same spec each time."""
    assert benchmark(prepare, config).config["process"]["args"] == ["true"]


def test_spec_encode(benchmark: BenchmarkFixture, config: dict[str, Any]) -> None:
    assert json.loads(benchmark(spec.encode, config)) == config


@pytest.mark.parametrize("content", [b"0", b"137", b"-1", b"99999", b"7\n"])
def test_exit_code(benchmark: BenchmarkFixture, content: bytes) -> None:
    code = benchmark(exits.parse_exit_file, content)
    assert code is None or 0 <= code <= 255


def test_exit_file(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """Opened, checked and read, as after every end."""
    path = tmp_path / "exit"
    path.write_bytes(b"137")
    found = benchmark(exits.read_small, str(path))
    assert found is not None
    assert exits.parse_exit_file(found[0]) == 137


@pytest.mark.parametrize("statement", ["pass", "import pyoci", "import pyoci; pyoci.OCIRuntime", "import pyoci; pyoci.run", "import pyoci.aio"])
def test_import(benchmark: BenchmarkFixture, statement: str) -> None:
    """A whole interpreter each time: the difference to "pass" is what the import costs."""
    benchmark.pedantic(subprocess.run, args=([sys.executable, "-I", "-c", statement],), kwargs={"check": True}, rounds=20, warmup_rounds=2)  # type: ignore[no-untyped-call]
