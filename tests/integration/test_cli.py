"""The command line, as a command."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import pyoci
from pyoci import runtimes, spec


def pyoci_command(*argv: str, stdin: bytes = b"", timeout: float = 60) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-m", "pyoci", *argv], input=stdin, capture_output=True, timeout=timeout, check=False)


@pytest.fixture
def where(runtime: pyoci.OCIRuntime) -> list[str]:
    return ["--state-dir", runtime.state_dir, "--runtime", runtime.runtime_path]


def test_run_gives_output_and_exit_code(where: list[str]) -> None:
    done = pyoci_command("run", *where, "--", "sh", "-c", "echo out; echo err >&2; exit 9")
    assert (done.returncode, done.stdout, done.stderr) == (9, b"out\n", b"err\n")
    assert pyoci_command("run", *where, "echo", "--help").stdout == b"--help\n"


def test_run_passes_stdin_on_only_when_asked(where: list[str]) -> None:
    assert pyoci_command("run", *where, "-i", "cat", stdin=b"data").stdout == b"data"
    assert pyoci_command("run", *where, "cat", stdin=b"data").stdout == b""


def test_run_on_a_terminal(where: list[str]) -> None:
    """conmon refuses terminals with passthrough; we serve ours through pipes."""
    ours, theirs = pty.openpty()
    argv = [sys.executable, "-m", "pyoci", "run", *where, "-i", "--", "sh", "-c", "read word; echo got $word; exit 4"]
    with subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        os.write(ours, b"typed\n")
        assert process.wait(60) == 4
    said = b""
    try:
        while part := os.read(ours, 4096):
            said += part
    except OSError:
        pass  # EIO: the other end has closed
    os.close(ours)
    assert b"got typed" in said


@pytest.mark.parametrize(
    ("argv", "code"),
    [(("nope",), 127), (("/etc",), 126), (("sh", "-c", "sh -c 'kill -9 $$'; exit $?"), 137), (("--timeout", "0.2", "sleep", "9"), 124)],
)
def test_exit_codes(where: list[str], argv: tuple[str, ...], code: int) -> None:
    assert pyoci_command("run", *where, *argv).returncode == code


@pytest.mark.root
def test_run_options(where: list[str], tmp_path: Path, has_controller: Callable[[str], None]) -> None:
    for controller in ("memory", "pids", "cpu"):
        has_controller(controller)
    (tmp_path / "word").write_text("mounted")
    options = ["-w", "/var", "-e", "A=b", "-e", "PYOCI_NOT_SET", "--hostname", "box", "-v", f"{tmp_path}:/tmp/m:ro", "-u", "0:5"]
    options += ["-m", "64M", "--pids", "50", "--cpus", "1", "--read-only", "--network", "private", "--id", "cli-job"]
    done = pyoci_command("run", *where, *options, "--", "sh", "-c", "pwd; echo $A; hostname; cat /tmp/m/word; id -g; touch /x")
    assert done.stdout.split()[:4] == [b"/var", b"b", b"box", b"mounted5"]
    assert b"Read-only file system" in done.stderr


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["run", "--memory", "lots", "true"], "lots"),
        (["run", "--rootfs", "/nonexistent", "true"], "/nonexistent"),
        (["run", "--id", "../x", "true"], "../x"),
        (["run", "-e", "=x", "true"], "=x"),
        (["run"], "command"),
        (["run", "--runtime", "/nonexistent", "true"], "/nonexistent"),
    ],
)
def test_bad_input_is_one_clear_line(state_dir: str, argv: list[str], named: str) -> None:
    done = pyoci_command(argv[0], "--state-dir", state_dir, *argv[1:])
    assert done.returncode == 125
    assert done.stdout == b""
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("pyoci: ")
    assert named in line


@pytest.mark.parametrize("argv", [["fly"], ["run", "--colour", "true"], [], ["run", "--pids", "few", "true"]])
def test_a_command_line_that_makes_no_sense(argv: list[str]) -> None:
    done = pyoci_command(*argv)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(b"pyoci")
    assert line.endswith(b"--help")


def test_list(runtime: pyoci.OCIRuntime, rootfs: str) -> None:
    where = ["--state-dir", runtime.state_dir]
    assert pyoci_command("list", *where).stdout.decode().split() == ["ID", "STATE", "PID", "CODE"]
    container = runtime.create(spec.build(["sh", "-c", "exit 3"], rootfs=rootfs), "a-job")
    other = runtime.create(spec.build(["true"], rootfs=rootfs), "b-job")
    container.start()
    container.wait(20)
    assert pyoci_command("list", "-q", *where).stdout == b"a-job\nb-job\n"
    rows = [json.loads(line) for line in pyoci_command("list", "--json", *where).stdout.splitlines()]
    assert [(row["id"], row["state"], row["code"]) for row in rows] == [("a-job", "stopped", 3), ("b-job", "created", None)]
    assert rows[1]["pid"] == other.pid
    table = pyoci_command("list", *where).stdout.decode().splitlines()
    assert table[1].split() == ["a-job", "stopped", "-", "3"]
    container.delete()
    other.delete(force=True)


def test_doctor_proves_each_runtime_by_a_container(runtime: pyoci.OCIRuntime) -> None:
    done = pyoci_command("doctor", "--json", "--state-dir", runtime.state_dir)
    checks = {row["name"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert done.returncode == 0
    assert "launched a container" in checks[runtime.name]["found"]
    assert checks["conmon"]["result"] == "ok"
    assert all(row["fix"] for row in checks.values() if row["result"] != "ok")
    assert b"launched a container" in pyoci_command("doctor", "--state-dir", runtime.state_dir).stdout


def test_doctor_says_what_is_missing_and_how_to_get_it(state_dir: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyoci.runtimes.SEARCH_PATH", "/nonexistent")
    monkeypatch.setenv("PATH", "/nonexistent")
    from pyoci.doctor import examine

    checks = {check.name: check for check in examine(state_dir)}
    assert checks["conmon"].result == "missing"
    assert "apt install conmon" in checks["conmon"].fix
    assert "apt install runc" in checks["runc"].fix
    assert checks["a runtime that works"].result == "missing"


@pytest.mark.root
def test_doctor_misses_a_capability(state_dir: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyoci.process.has_capability", lambda capability: False)
    from pyoci.doctor import examine

    checks = {check.name: check for check in examine(state_dir)}
    assert checks["privileges"].result == "missing"
    assert "CAP_SYS_ADMIN" in checks["privileges"].found


def test_doctor_tells_what_is_missing_from_what_a_runtime_said(runtime: pyoci.OCIRuntime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in runtimes.CANDIDATES:
        (tmp_path / name).symlink_to(runtime.runtime_path)
    monkeypatch.setattr("pyoci.runtimes.SEARCH_PATH", "/nonexistent")
    monkeypatch.setenv("PATH", str(tmp_path))
    from pyoci.doctor import examine

    tried = next(check for check in examine(runtime.state_dir) if "could not launch" in check.found)
    assert "'conmon' was not found" in tried.found
    assert tried.fix == "see the lines above"


def test_help_and_version() -> None:
    assert b"127" in pyoci_command("--help").stdout
    assert b"--memory" in pyoci_command("run", "--help").stdout
    assert pyoci_command("--version").stdout.decode() == f"pyoci {pyoci.__version__}\n"


def test_a_reader_that_goes_away(runtime: pyoci.OCIRuntime) -> None:
    argv = [sys.executable, "-m", "pyoci", "list", "--state-dir", runtime.state_dir]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(argv, stdout=write, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(write)
    assert b"Traceback" not in done.stderr
