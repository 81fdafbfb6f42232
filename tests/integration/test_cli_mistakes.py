"""Bad input to every verb of the command line: one clear line on stderr, a documented exit code, nothing left behind."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pyoci
from pyoci.cli import VERBS
from tests.commands import command_line, pyoci_command

TIMEOUT = 30
ONE = ["attach", "exec", "logs"]
"""The verbs that take one id …"""
SEVERAL = ["start", "state", "ps", "kill", "stop", "pause", "resume", "wait", "delete"]
"""… and several."""
WITH_STATE = ["run", "create", "list", "prune", *ONE, *SEVERAL]
LASTS = ("sh", "-c", "trap '' TERM; while :; do sleep 0.05; done")


@pytest.fixture(autouse=True)
def _buffered(monkeypatch: pytest.MonkeyPatch) -> None:
    """As people have it: what cannot be written is noticed late."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)


def words_after(verb: str) -> list[str]:
    """What stands behind the id."""
    return ["true"] if verb == "exec" else []


def refused(code: int, *argv: str, **how: Any) -> str:
    """The line on stderr, which is all that comes."""
    done = pyoci_command(*argv, **how)
    said = done.stderr.decode()
    assert (done.returncode, done.stdout) == (code, b""), said
    assert said.startswith("pyoci"), said
    assert said.endswith("\n"), said
    assert said.count("\n") == 1, said
    assert len(said) < 1000
    return said


@pytest.mark.once
@pytest.mark.parametrize("verb", VERBS)
def test_an_option_that_there_is_not(verb: str) -> None:
    words = ["bash"] if verb == "completion" else ["job", *words_after(verb)] if verb in ONE else []
    assert "--nonsense" in refused(2, verb, "--nonsense", *words)


@pytest.mark.once
@pytest.mark.parametrize("verb", [*ONE, *SEVERAL])
def test_ids_that_are_none(state_dir: str, verb: str) -> None:
    assert "must consist of letters" in refused(125, verb, "--state-dir", state_dir, "../x", *words_after(verb))
    assert refused(125, verb, "--state-dir", state_dir, "x" * 100_000, *words_after(verb))


@pytest.mark.once
@pytest.mark.parametrize("verb", ["attach", "logs", "list", "prune", "doctor", "version", "bench", "completion"])
def test_a_word_too_many(verb: str) -> None:
    words = {"attach": ["one", "two"], "logs": ["one", "two"], "completion": ["bash", "two"]}.get(verb, ["two"])
    assert "two" in refused(2, verb, *words)


@pytest.mark.once
@pytest.mark.parametrize("verb", WITH_STATE)
def test_a_state_directory_that_is_a_file(tmp_path: Path, verb: str) -> None:
    place = tmp_path / "file"
    place.touch()
    words = ["true"] if verb == "run" else ["--", "true"] if verb == "create" else ["job", *words_after(verb)] if verb in (*ONE, *SEVERAL) else []
    assert str(place) in refused(125, verb, "--state-dir", str(place), *words)


@pytest.mark.once
@pytest.mark.parametrize("verb", ["run", "list", "state"])
def test_no_place_for_state(verb: str) -> None:
    """An ordinary user outside of a session: said with what to do."""
    words = {"run": ["true"], "state": ["job"]}.get(verb, [])
    empty = {"PATH": os.environ["PATH"], "PYTHONPATH": os.getcwd(), "PYTHONDONTWRITEBYTECODE": "1"}
    if os.geteuid() != 0:
        assert "XDG_RUNTIME_DIR" in refused(125, verb, *words, env=empty)
    elif verb != "run":  # root needs neither HOME nor XDG_RUNTIME_DIR
        assert pyoci_command(verb, *words, env=empty).returncode == (123 if words else 0)


@pytest.mark.once
@pytest.mark.parametrize("verb", ["state", "logs", "delete"])
def test_a_record_that_is_damaged(state_dir: str, verb: str) -> None:
    place = Path(state_dir, "containers/job")
    place.mkdir(parents=True)
    (place / "record.json").write_text('{"runtime":')
    assert "record.json" in refused(125, verb, "--state-dir", state_dir, "job")
    assert pyoci_command("list", "--state-dir", state_dir).returncode == 125
    (place / "record.json").unlink()
    place.rmdir()


VALUES = [
    ("run", "--cpus", "nan"),
    ("run", "--cpus", "-1"),
    ("run", "--memory", "9" * 5000),
    ("run", "--pids", "0"),
    ("run", "--timeout", "1e400"),
    ("run", "--timeout", "nan"),
    ("run", "--create-timeout", "-1"),
    ("run", "--preserve-fds", "-1"),
    ("run", "--preserve-fds", "99999999999"),
    ("run", "--user", "nobody2"),
    ("run", "--hostname", "h" * 65),
    ("run", "--mount", "relative"),
    ("run", "--cwd", "relative"),
    ("run", "--cgroup-parent", "../x"),
    ("run", "--network", "nosuch"),
    ("run", "--rootfs", "/etc/passwd"),
    ("run", "--runtime", "/etc"),
    ("run", "--conmon", "/etc/passwd"),
    ("run", "--env", "A=\udcff"),
    ("run", "--cwd", "/\udcff"),
    ("create", "--log-size-max", "few"),
    ("create", "--notify-socket", "relative"),
    ("exec", "--timeout", "0"),
    ("exec", "--preserve-fds", "-1"),
    ("exec", "--env", "=x"),
    ("kill", "--signal", "99"),
    ("stop", "--timeout", "inf"),
    ("wait", "--timeout", "-1"),
    ("logs", "--since", "1e400"),
    ("prune", "--older-than", "soon"),
    ("spec", "--bundle", "/etc/passwd"),
    ("bench", "--seconds", "-1"),
]


@pytest.mark.once
@pytest.mark.parametrize(("verb", "option", "value"), VALUES)
def test_values_that_make_no_sense(state_dir: str, rootfs: str, verb: str, option: str, value: str) -> None:
    where = [] if verb in ("spec", "bench") else ["--state-dir", state_dir]
    words = {"run": ["true"], "create": ["--", "true"], "prune": [], "spec": [], "bench": []}.get(verb, ["job", *words_after(verb)])
    if verb in ("logs", "exec", "kill", "stop", "wait"):  # said before the container is looked for
        assert pyoci_command(verb, *where, *words).returncode == 123
    refused(125, verb, *where, f"{option}={value}", *words)
    assert list(Path(state_dir, "containers").glob("*")) == []


@pytest.mark.once
@pytest.mark.parametrize(
    ("option", "value", "why"), [("--log-path", "/nonexistent/log", "no such directory"), ("--pid-file", "/etc", "it is a directory")]
)
def test_a_place_for_a_file_that_is_none(state_dir: str, option: str, value: str, why: str) -> None:
    """Said before anything is started."""
    said = refused(125, "create", "--state-dir", state_dir, option, value, "--", "true")
    assert value in said
    assert why in said


@pytest.mark.once
@pytest.mark.parametrize("force", [[], ["--force"]])
def test_a_spec_that_does_not_fit_leaves_no_half(tmp_path: Path, rootfs: str, force: list[str]) -> None:
    """What was there is kept."""
    path = tmp_path / "config.json"
    if force:
        path.write_text("{}")
    argv = command_line("spec", "--bundle", str(tmp_path), "--rootfs", rootfs, *force)
    done = subprocess.run(["sh", "-c", 'ulimit -f 0; exec "$@"', "sh", *argv], capture_output=True, timeout=TIMEOUT, check=False)
    assert (done.returncode, str(path) in done.stderr.decode()) == (125, True), done.stderr
    assert [each.read_text() for each in tmp_path.iterdir()] == ["{}"] * len(force)


@pytest.mark.parametrize("how", ["run", "exec", "a pool"])
def test_arguments_that_are_no_utf_8(runtime: pyoci.OCIRuntime, build: Callable[..., dict[str, Any]], how: str) -> None:
    """config.json is JSON, which holds UTF-8; and a command is the same with a pool and without."""
    where = ["--state-dir", runtime.state_dir]
    bad = "caf\udce9"
    if how == "run":
        assert "UTF-8" in refused(125, "run", *where, "--runtime", runtime.runtime_path, "echo", bad)
    elif how == "exec":
        with runtime.create(build("sleep", "100"), "job") as container:
            container.start()
            assert "UTF-8" in refused(125, "exec", *where, "job", "echo", bad)
            container.kill("KILL")
    else:
        with pyoci.WarmPool(size=1, runtime=runtime) as pool:
            for words in ({"args": ["echo", bad]}, {"args": ["echo"], "env": {"A": bad}}, {"args": ["echo"], "cwd": f"/{bad}"}):
                with pytest.raises(pyoci.InvalidOption, match="UTF-8"):
                    pool.claim(**words)
    assert "must consist of" in refused(125, "state", *where, bad)
    assert "no verb" in refused(2, bad)


@pytest.mark.once
@pytest.mark.parametrize(
    "argv", [["--help"], ["--version"], ["run", "--help"], ["version"], ["features", "runc"], ["completion", "zsh"], ["spec", "--print"]]
)
def test_output_that_cannot_be_written(argv: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command_line(*argv), stdout=full, stderr=subprocess.PIPE, timeout=TIMEOUT, check=False)
    assert (done.returncode, done.stderr) == (125, b"pyoci: writing to our stdout: No space left on device\n")
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command_line(*argv), stdout=write, stderr=subprocess.PIPE, timeout=TIMEOUT, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (125, b"")


def test_a_container_of_which_nobody_is_told_is_not_kept(runtime: pyoci.OCIRuntime) -> None:
    where = ["--state-dir", runtime.state_dir, "--runtime", runtime.runtime_path]
    for argv in (["run", *where, "-d", "sleep", "100"], ["create", *where, "--", "true"], ["create", *where, "--json", "--", "true"]):
        with open("/dev/full", "wb") as full:
            done = subprocess.run(command_line(*argv), stdout=full, stderr=subprocess.PIPE, timeout=TIMEOUT, check=False)
        assert (done.returncode, done.stderr) == (125, b"pyoci: writing to our stdout: No space left on device\n")
        assert runtime.list() == []


@pytest.mark.once
@pytest.mark.parametrize("argv", [["state", "nobody"], ["nonsense"], ["wait"]])
def test_an_error_that_nobody_can_be_told(state_dir: str, argv: list[str]) -> None:
    where = [] if argv == ["nonsense"] else ["--state-dir", state_dir]
    code = pyoci_command(argv[0], *where, *argv[1:]).returncode
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command_line(argv[0], *where, *argv[1:]), stdout=subprocess.PIPE, stderr=full, timeout=TIMEOUT, check=False)
    assert (done.returncode, done.stdout) == (code, b"")


def test_a_command_that_is_too_long(runtime: pyoci.OCIRuntime) -> None:
    """execve(2): a string may have 128 KiB, and all together a quarter of the stack's limit."""
    where = ["--state-dir", runtime.state_dir, "--runtime", runtime.runtime_path]
    assert pyoci_command("run", *where, "true", "x" * 131_000).returncode == 0
    many = ["x" * 120_000] * 8
    assert pyoci_command("run", *where, "true", *many).returncode == 0
    with pytest.raises(OSError, match="Argument list too long"):
        pyoci_command("run", *where, "true", "x" * (1 << 17))
    assert runtime.list() == []


def test_a_working_directory_that_cannot_be_written_to(runtime: pyoci.OCIRuntime, rootfs: str, tmp_path: Path) -> None:
    where = ["--state-dir", runtime.state_dir, "--runtime", runtime.runtime_path]
    env = {**os.environ, "PYTHONPATH": os.getcwd()}
    done = pyoci_command("run", *where, "echo", "on", cwd="/proc", env=env)
    assert (done.returncode, done.stdout) == (0, b"on\n")
    said = refused(125, "spec", cwd="/proc", env=env)
    assert "config.json" in said


# --- signals ----------------------------------------------------------------------------------------------------------------------


def interrupted(argv: list[str], number: signal.Signals, ready: Callable[[subprocess.Popen[bytes]], object]) -> None:
    """It ends with 128 + N, and says nothing."""
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        ready(process)
        process.send_signal(number)
        out, err = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, out, err) == (128 + number, b"", b"")


def waits(process: subprocess.Popen[bytes]) -> None:
    """It sleeps in poll(2) or epoll_wait(2)."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            where = Path(f"/proc/{process.pid}/wchan").read_text()
        except OSError:
            where = ""
        if "poll" in where:
            return
        assert time.monotonic() < deadline, where
        time.sleep(0.01)


@pytest.mark.root
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_a_verb_that_waits(runtime: pyoci.OCIRuntime, build: Callable[..., dict[str, Any]], number: signal.Signals) -> None:
    where = ["--state-dir", runtime.state_dir]
    with runtime.create(build(*LASTS), "job") as container:
        container.start()
        for argv in (["wait", *where, "job"], ["logs", *where, "-f", "job"], ["stop", *where, "-t", "60", "job"]):
            interrupted(command_line(*argv), number, waits)
            assert container.state() == "running"
        container.kill("KILL")


@pytest.mark.root
@pytest.mark.parametrize("verb", ["create", "run", "run -d"])
def test_a_signal_during_a_create_leaves_nothing(runtime: pyoci.OCIRuntime, tmp_path: Path, verb: str) -> None:
    begun = tmp_path / "begun"
    os.mkfifo(begun)
    script = tmp_path / runtime.name
    script.write_text(f'#!/bin/sh\ncase " $* " in *" create "*) echo >{begun}; sleep 100;; esac\nexec {runtime.runtime_path} "$@"\n')
    script.chmod(0o755)

    def creating(process: subprocess.Popen[bytes]) -> None:
        fd = os.open(begun, os.O_RDONLY | os.O_NONBLOCK)
        assert select.select([fd], [], [], TIMEOUT)[0]
        os.close(fd)

    words = [*verb.split(), "--state-dir", runtime.state_dir, "--runtime", str(script), "--", "true"]
    interrupted(command_line(*words), signal.SIGTERM, creating)
    assert runtime.list() == []


@pytest.mark.root
def test_a_hangup_that_is_ignored_stays_so(runtime: pyoci.OCIRuntime) -> None:
    """As by nohup(1)."""
    argv = command_line("run", "--state-dir", runtime.state_dir, "--runtime", runtime.runtime_path, "--", "sh", "-c", "echo ready; sleep 1; exit 4")
    with subprocess.Popen(["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *argv], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGHUP)
        assert process.wait(TIMEOUT) == 4
