"""``pyoci bench``: that it says something of every way, and leaves nothing; not what it says."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

import pyoci
from tests import audit
from tests.commands import command_line, pyoci_command


def bench(*argv: str) -> subprocess.CompletedProcess[str]:
    done = pyoci_command("bench", *argv, timeout=120)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.mark.everywhere
def test_figures_of_every_way(runtime: pyoci.OCIRuntime, state_dir: str) -> None:
    done = bench("--seconds", "1", "--runtime", runtime.name, "--place", state_dir, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    figures = json.loads(done.stdout)
    found = figures["runtimes"][runtime.name]
    ways = {"pyoci", "pyoci plain", "pyoci direct", "pyoci warm", f"{runtime.name} run"}
    assert found["alone"]["ways"].keys() >= ways | {"pyoci.run"}
    for count, seen in found["together"].items():
        assert int(count) >= 1
        assert seen["ways"].keys() >= ways
        assert all(way["per second"] > 0 for way in seen["ways"].values())
    assert figures["host"]["conmon"]
    assert len(figures["load"]["after"]) == 3


@pytest.mark.once
def test_table(runtime_name: str, state_dir: str) -> None:
    done = bench("--seconds", "1", "--runtime", runtime_name, "--place", state_dir)
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[1].strip() for line in done.stdout.splitlines() if line.startswith("| ")]
    assert rows.count("pyoci direct") == rows.count(f"{runtime_name} run") == 2


@pytest.mark.once
@pytest.mark.root
def test_an_interrupt_leaves_nothing(runtime_name: str, state_dir: str) -> None:
    before = audit.everything(state_dir)
    with subprocess.Popen(
        command_line("bench", "--seconds", "60", "--runtime", runtime_name, "--place", state_dir), stderr=subprocess.PIPE
    ) as process:
        deadline = time.monotonic() + 30
        while not list(Path(state_dir).iterdir()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=60)[1] == b""
    assert process.returncode == 128 + signal.SIGTERM
    assert audit.left_over(before, state_dir) == set()


SENSELESS = [("--seconds", "0"), ("--seconds", "nan"), ("--seconds", "soon"), ("--runtime", "youki"), ("--place", "/nonexistent")]


@pytest.mark.parametrize("argv", SENSELESS)
@pytest.mark.once
def test_what_makes_no_sense_is_refused(argv: tuple[str, str]) -> None:
    done = bench(*argv)
    assert done.returncode == (2 if argv[1] in ("soon", "youki") else 125)
    assert done.stdout == ""
    assert argv[1] in done.stderr
    assert len(done.stderr.splitlines()) == 1
