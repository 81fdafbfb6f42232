"""The programs of docs/examples, as people start them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

import pyoci

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
pytestmark = [pytest.mark.once, pytest.mark.root]
SUM = 'read a b; echo "$((a + b))"'

SUBMISSIONS = {
    "right.sh": (SUM, "AC"),
    "right.awk": ("{ print $1 + $2 }", "AC"),
    "script": (f"#!/bin/sh\n{SUM}\n", "AC"),
    "wrong.sh": ("read a b; echo $((a - b))", "WA"),
    "wrong-later.sh": ("read a b; test $a -lt 100 && echo $((a + b))", "RE"),
    "slow.sh": ("sleep 60", "TLE"),
    "busy.sh": ("while :; do :; done", "TLE"),
    "big.sh": ("x=x; while :; do x=$x$x; done", "MLE"),
    "talking.sh": ("while :; do echo again and again; done", "OLE"),
    "forking.sh": ("for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18; do sleep 1 & done; wait", "RE"),
    "crash.sh": ("echo what it was >&2; exit 3", "RE"),
    "writing.sh": ("echo x >/judged/program.sh && echo $(($(cat)))", "RE"),
    "no-program.sh": ("if then else", "CE"),
    "garbage": ("\x7fno program", "CE"),
}


def start(example: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, EXAMPLES / example, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(autouse=True)
def _no_containers_are_left() -> None:
    assert pyoci.OCIRuntime().list() == []


@pytest.fixture
def problem(tmp_path: Path) -> Path:
    directory = tmp_path / "problem"
    directory.mkdir()
    for number, (given, wanted) in enumerate((("1 2\n", "3\n"), ("100 200\n", "300\n")), 1):
        (directory / f"{number}.in").write_text(given)
        (directory / f"{number}.out").write_text(wanted)
    return directory


def test_judge_gives_every_verdict(problem: Path, tmp_path: Path, runtime_name: str) -> None:
    paths = []
    for name, (program, _) in SUBMISSIONS.items():
        paths.append(tmp_path / name)
        paths[-1].write_text(program)
        paths[-1].chmod(0o600)
    options = ("--json", "--time", "1", "--memory", "24M", "--output", "1000", "--jobs", "4", "--runtime", runtime_name)
    done = start("judge.py", problem, *paths, *options)
    assert done.returncode == 0, done.stderr
    found = {Path(line["submission"]).name: line for line in map(json.loads, done.stdout.splitlines())}
    assert {name: line["word"] for name, line in found.items()} == {name: word for name, (_, word) in SUBMISSIONS.items()}
    assert found["wrong-later.sh"]["case"] == "2"
    assert found["crash.sh"]["why"] == "exit code 3: what it was"
    assert found["slow.sh"]["seconds"] == 1
    assert pyoci.OCIRuntime().list() == []


def test_judge_prints_a_table(problem: Path, tmp_path: Path) -> None:
    (tmp_path / "a.sh").write_text(SUM)
    done = start("judge.py", problem, tmp_path / "a.sh")
    assert done.stdout.split()[:4] == ["a.sh", "AC", "2", "cases"]
    assert start("judge.py", "--help").stdout.startswith("usage: judge")


@pytest.mark.parametrize("arguments", [("{tmp}", "{tmp}/a.sh"), ("{problem}", "{tmp}/none")])
def test_judge_refuses(problem: Path, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "a.sh").write_text(SUM)
    done = start("judge.py", *(argument.format(problem=problem, tmp=tmp_path) for argument in arguments))
    assert done.returncode == 1
    assert done.stderr.startswith("judge: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_judge_tells_its_own_failure(problem: Path, tmp_path: Path) -> None:
    (tmp_path / "a.sh").write_text(SUM)
    done = start("judge.py", problem, tmp_path / "a.sh", "--rootfs", "/nonexistent")
    assert done.returncode == 1
    assert done.stdout.split()[1] == "IE"
    assert "/nonexistent" in done.stdout


TESTS = {
    "passes": "grep hello data",
    "fails": "echo looking; grep nothing data",
    "skips": "exit 77",
    "hangs": "echo begun; sleep 60",
    "hungry": "x=x; while :; do x=$x$x; done",
    "alone": "echo x >/project/data",
}


def test_harness(tmp_path: Path, runtime_name: str) -> None:
    (tmp_path / "data").write_text("hello\n")
    (tmp_path / "tests").mkdir()
    for name, script in TESTS.items():
        (tmp_path / "tests" / f"{name}.sh").write_text(script)
    report = tmp_path / "junit.xml"
    limits = ("--timeout", 1, "--memory", "24M", "--runtime", runtime_name)
    done = start("harness.py", tmp_path / "tests", "--project", tmp_path, "--junit", report, *limits)
    assert done.returncode == 1, done.stderr
    assert "\n1 passed, 4 failed, 1 skipped in " in done.stdout
    assert "--- failed: fails\nlooking\n\nexit code 1" in done.stdout
    suite = ElementTree.parse(report).getroot()
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "6",
        "failures": "4",
        "errors": "0",
        "skipped": "1",
    }
    messages = {case.get("name"): failure.get("message") for case in suite for failure in case.findall("failure")}
    assert messages == {"fails": "exit code 1", "hangs": "no end within 1 s", "hungry": "out of memory", "alone": "exit code 1"}
    assert pyoci.OCIRuntime().list() == []


def test_harness_interrupted(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"{number}.sh").write_text("true" if number == 0 else "sleep 60")
    command = [sys.executable, str(EXAMPLES / "harness.py"), str(tmp_path), "--project", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "passed" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
    assert process.returncode == 130
    assert "1 passed in" in rest
    assert rest.endswith("interrupted\n")
    assert pyoci.OCIRuntime().list() == []


def test_harness_without_tests(tmp_path: Path) -> None:
    done = start("harness.py", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no test scripts" in done.stderr


def test_ci(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text(
        """
        memory = "64M"
        env = {WHO = "world"}
        [[steps]]
        name = "build"
        run = "echo hello $WHO >made"
        [[steps]]
        name = "test"
        run = "cat made; test ! -e /tmp/x; exit 4"
        timeout = 20
        [[steps]]
        run = "echo never"
        """
    )
    done = start("ci.py", tmp_path / "job.toml", "--workspace", tmp_path)
    assert done.returncode == 4, done
    assert "=== build: done in " in done.stdout
    assert "hello world\n=== test: failed with exit code 4 in " in done.stdout
    assert "never" not in done.stdout


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ("", "there are no steps"),
        ("[[steps]]\nname='a'", "a: run must hold shell commands"),
        ("[[steps]]\nrun='true'\nmemori='1M'", "step 1: unknown: memori"),
        ("[[steps]]\nrun='true'\nmemory='much'", "memory must be"),
        ("[[steps", "Expected"),
    ],
)
def test_ci_refuses(tmp_path: Path, job: str, said: str) -> None:
    (tmp_path / "job.toml").write_text(job)
    done = start("ci.py", tmp_path / "job.toml")
    assert done.returncode == 2
    assert said in done.stderr


def test_ci_stops_at_a_timeout(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text("timeout = 0.3\n[[steps]]\nrun = 'echo begun; sleep 60'")
    done = start("ci.py", tmp_path / "job.toml")
    assert done.returncode == 124
    assert "begun\n=== step 1: no end within 0.3 s" in done.stdout
