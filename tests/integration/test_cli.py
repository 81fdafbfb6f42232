"""The command line, as a command."""

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

import pyoci
from pyoci import cgroups, cli, runtimes, spec
from tests.commands import command_line, pyoci_command


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


@pytest.mark.once
def test_spec_names_the_directory_that_is_not_there() -> None:
    done = pyoci_command("spec", "-b", "/nonexistent")
    assert done.returncode == 125
    assert done.stderr == b"pyoci: --bundle /nonexistent: there is no such directory\n"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_standard_stream_that_is_closed_is_an_empty_one(where: list[str], closed: str) -> None:
    def exit_code(*argv: str) -> tuple[int, bytes]:
        command = ["sh", "-c", f'"$@" {closed}', "sh", *command_line(*argv)]
        done = subprocess.run(command, input=b"not to be read", capture_output=True, timeout=60, check=False)
        return done.returncode, done.stderr

    assert exit_code("run", *where, "-i", "--", "sh", "-c", "cat; echo on; echo err >&2; exit 3") == (3, b"" if "2>" in closed else b"err\n")
    assert exit_code("version") == (0, b"")


def test_run_on_a_terminal(where: list[str]) -> None:
    """conmon refuses terminals with passthrough; we serve ours through pipes."""
    ours, theirs = pty.openpty()
    argv = command_line("run", *where, "-i", "--", "sh", "-c", "read word; echo got $word; exit 4")
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


REFUSED = [
    (["run", "--memory", "lots", "true"], "lots"),
    (["run", "--rootfs", "/nonexistent", "true"], "/nonexistent"),
    (["run", "--id", "../x", "true"], "../x"),
    (["run", "-e", "=x", "true"], "=x"),
    (["run", "--runtime", "/nonexistent", "true"], "/nonexistent"),
    (["create", "/nonexistent"], "/nonexistent"),
    (["create", "--pid-file", "/nonexistent/pid", "--", "true"], "/nonexistent/pid"),
    (["kill", "-s", "NOISE", "some"], "NOISE"),
    (["stop", "-t", "-1", "some"], "timeout"),
    (["stop", "-s", "99", "some"], "99"),
    (["wait", "--timeout", "nan", "some"], "timeout"),
]
"""What a value of an option makes impossible: 125."""
SENSELESS = [
    (["run"], "command"),
    (["run", "-d", "--rm", "true"], "--rm"),
    (["run", "-t", "--json", "true"], "--json"),
    (["run", "--log-path", "/tmp/x", "true"], "--log-path"),
    (["create"], "bundle"),
    (["start"], "--all"),
    (["start", "--all", "some"], "--all"),
    (["start", "-A", "one", "two"], "--attach"),
    (["start", "-i", "one"], "--attach"),
    (["state"], "--all"),
    (["ps"], "--all"),
    (["exec", "some"], "command"),
    (["exec", "--json", "-t", "some", "true"], "--json"),
    (["exec", "-d", "-i", "some", "true"], "--detach"),
    (["kill"], "--all"),
    (["stop"], "--all"),
    (["pause"], "--all"),
    (["resume"], "--all"),
    (["wait"], "--all"),
    (["delete"], "--all"),
]
"""What is missing, or does not go together: 2."""


@pytest.mark.once
@pytest.mark.parametrize(("argv", "named", "code"), [*((*each, 125) for each in REFUSED), *((*each, 2) for each in SENSELESS)])
def test_bad_input_is_one_clear_line(state_dir: str, argv: list[str], named: str, code: int) -> None:
    done = pyoci_command(argv[0], "--state-dir", state_dir, *argv[1:])
    assert done.returncode == code
    assert done.stdout == b""
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("pyoci: ")
    assert named in line


@pytest.mark.once
@pytest.mark.parametrize(
    "argv",
    [
        ["logs", "some", "--tail", "few"],
        ["logs"],
        ["logs", "--stream", "both", "some"],
        ["exec"],
        ["completion", "ksh"],
        ["version", "x"],
        ["list", "x"],
        ["doctor", "x"],
        ["create", "--log-driver", "tape", "x"],
        ["fly"],
        ["run", "--colour", "true"],
        [],
        ["run", "--pids", "few", "true"],
    ],
)
def test_a_command_line_that_makes_no_sense(argv: list[str]) -> None:
    done = pyoci_command(*argv)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(b"pyoci")
    assert line.endswith(b"--help")


def test_list(runtime: pyoci.OCIRuntime, rootfs: str) -> None:
    where = ["--state-dir", runtime.state_dir]
    assert pyoci_command("list", *where).stdout.decode().split() == ["ID", "STATE", "PID", "CODE", "RUNTIME", "CREATED", "COMMAND"]
    container = runtime.create(spec.build(["sh", "-c", "exit 3"], rootfs=rootfs), "a-job")
    other = runtime.create(spec.build(["true"], rootfs=rootfs), "b-job")
    container.start()
    container.wait(20)
    assert pyoci_command("list", "-q", *where).stdout == b"a-job\nb-job\n"
    rows = [json.loads(line) for line in pyoci_command("list", "--json", *where).stdout.splitlines()]
    assert [(row["id"], row["state"], row["code"]) for row in rows] == [("a-job", "stopped", 3), ("b-job", "created", None)]
    assert rows[1]["pid"] == other.pid
    table = pyoci_command("list", *where).stdout.decode().splitlines()
    assert table[1].split()[:5] == ["a-job", "stopped", "-", "3", runtime.name]
    assert table[1].endswith("sh -c exit 3")
    assert rows[0]["args"] == ["sh", "-c", "exit 3"]
    assert abs(datetime.fromisoformat(rows[0]["created"]).timestamp() - time.time()) < 60
    container.delete()
    other.delete(force=True)


NO_CONTAINER = 123


@pytest.mark.once
@pytest.mark.parametrize("verb", ["start", "state", "ps", "exec", "kill", "stop", "pause", "resume", "wait", "logs", "delete"])
def test_no_such_container(state_dir: str, verb: str) -> None:
    done = pyoci_command(verb, "--state-dir", state_dir, "nobody", *(["true"] if verb == "exec" else []))
    (line,) = done.stderr.decode().splitlines()
    assert (done.returncode, done.stdout) == (NO_CONTAINER, b"")
    assert line.startswith("pyoci: no container 'nobody'")


LASTING = "trap 'exit 7' TERM; echo ready; echo wrong >&2; while :; do sleep 0.05; done"


def until_ready(at: list[str], id: str) -> None:
    deadline = time.monotonic() + 20
    while b"ready" not in pyoci_command("logs", *at, id).stdout:
        assert time.monotonic() < deadline


def rows(*argv: str) -> list[dict[str, object]]:
    done = pyoci_command(*argv)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.root
def test_every_verb_on_one_container(where: list[str], tmp_path: Path) -> None:
    at = where[:2]
    done = pyoci_command("run", *where, "-d", "--id", "job", "--", "sh", "-c", LASTING)
    assert (done.returncode, done.stdout) == (0, b"job\n")
    until_ready(at, "job")

    (state,) = rows("state", *at, "--json", "job")
    assert (state["state"], state["code"], state["log_driver"]) == ("running", None, "k8s-file")
    assert pyoci_command("state", *at, "--all").stdout.decode().splitlines()[1].split()[:2] == ["job", "running"]

    seen = rows("ps", *at, "--json", "job")
    assert (seen[0]["pid"], seen[0]["pid_inside"], seen[0]["args"]) == (state["pid"], 1, ["sh", "-c", LASTING])
    table = pyoci_command("ps", *at, "--all").stdout.decode().splitlines()
    assert table[0].split() == ["ID", "PID", "PPID", "INSIDE", "USER", "STATE", "TIME", "COMMAND"]
    assert table[1].split()[:2] == ["job", str(state["pid"])]
    assert pyoci_command("ps", *at, "-q", "job").stdout.split()[0] == str(state["pid"]).encode()

    inside = ["-e", "A=b", "-w", "/tmp", "-u", "5:6", "--cap", "KILL", "--session-id", "mine", "--timeout", "20"]
    done = pyoci_command("exec", *at, *inside, "job", "--", "sh", "-c", "echo $A $(pwd) $(id -u) $(id -g); cat; exit 4", stdin=b"unread")
    assert (done.returncode, done.stdout) == (4, b"b /tmp 5 6\n")
    assert pyoci_command("exec", *at, "-i", "job", "cat", stdin=b"read").stdout == b"read"
    done = pyoci_command("exec", *at, "--json", "job", "sh", "-c", "echo out; echo err >&2; kill -9 $$")
    told = json.loads(done.stdout)
    assert (done.returncode, told["signal"], told["stdout"], told["stderr"]) == (137, 9, "out\n", "err\n")
    assert pyoci_command("exec", *at, "job", "nope").returncode == 127
    assert pyoci_command("exec", *at, "--timeout", "0.3", "job", "sleep", "9").returncode == 124
    assert pyoci_command("exec", *at, "-d", "job", "sleep", "99").stdout.strip()
    assert pyoci_command("exec", *at, "-d", "job", "nope").returncode == 127
    assert any(row["args"] == ["sleep", "99"] for row in rows("ps", *at, "--json", "job"))
    assert pyoci_command("exec", *at, "-t", "job", "sh", "-c", "tty; exit 3").returncode == 3

    assert pyoci_command("wait", *at, "--timeout", "0.1", "job").returncode == 124
    refused = pyoci_command("delete", *at, "job")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (125, 1)
    assert pyoci_command("kill", *at, "-s", "USR1", "job").stdout == b"job\n"
    assert pyoci_command("kill", *at, "-s", "15", "--all").stdout == b"job\n"
    assert pyoci_command("wait", *at, "job").stdout == b"7\n"
    assert pyoci_command("stop", *at, "job").stdout == b"job\n"
    (ended,) = rows("wait", *at, "--json", "--all")
    assert (ended["id"], ended["code"], ended["signal"]) == ("job", 7, None)
    assert rows("ps", *at, "--json", "job") == []
    dead = pyoci_command("exec", *at, "job", "true")
    assert (dead.returncode, len(dead.stderr.splitlines())) == (125, 1)

    logged = pyoci_command("logs", *at, "-f", "job")
    assert (logged.stdout, logged.stderr) == (b"ready\n", b"wrong\n")
    assert pyoci_command("logs", *at, "--stream", "stderr", "-n", "1", "--since", "1h30m", "job").stderr == b"wrong\n"
    assert pyoci_command("logs", *at, "--since", "2100-01-01T00:00:00Z", "job").stdout == b""
    assert pyoci_command("logs", *at, "-t", "--stream", "stdout", "job").stdout.endswith(b"Z ready\n")
    assert [row["text"] for row in rows("logs", *at, "--json", "--stream", "stdout", "job")] == ["ready"]
    assert pyoci_command("logs", *at, "--since", "yesterday", "job").returncode == 125
    assert pyoci_command("logs", *at, "--tail", "-1", "job").returncode == 125
    assert pyoci_command("delete", *at, "--all").stdout == b"job\n"


@pytest.mark.root
def test_create_start_pause_resume_stop(where: list[str], tmp_path: Path) -> None:
    at = where[:2]
    assert pyoci_command("spec", "-b", str(tmp_path), "--", "sh", "-c", LASTING).returncode == 0
    assert pyoci_command("spec", "-b", str(tmp_path)).returncode == 125
    assert pyoci_command("spec", "-f", "-b", str(tmp_path), "-m", "64M", "--", "sh", "-c", LASTING).returncode == 0
    assert json.loads(pyoci_command("spec", "--print", "-t").stdout)["process"]["terminal"] is True
    pid_file = tmp_path / "pid"
    made = json.loads(pyoci_command("create", *where, "--json", "--id", "one", "--pid-file", str(pid_file), str(tmp_path)).stdout)
    assert (made["id"], str(made["pid"])) == ("one", pid_file.read_text())
    assert pyoci_command("create", *where, "--id", "one", str(tmp_path)).returncode == 125
    assert pyoci_command("create", *where, "--id", "two", "-i", "--", "sh", "-c", "read x; echo got $x; exit 6").stdout == b"two\n"
    done = pyoci_command("start", *at, "-Ai", "two", stdin=b"word\n")
    assert (done.returncode, done.stdout) == (6, b"got word\n")
    assert pyoci_command("start", *at, "--all").stdout == b"one\n"
    assert pyoci_command("start", *at, "one").returncode == 125
    until_ready(at, "one")
    assert pyoci_command("pause", *at, "--all").stdout == b"one\n"
    assert rows("state", *at, "--json", "one")[0]["state"] == "paused"
    assert pyoci_command("resume", *at, "--all").stdout == b"one\n"
    assert pyoci_command("resume", *at, "one").returncode == 125
    assert pyoci_command("stop", *at, "-t", "9", "-s", "TERM", "--all").stdout == b"one\n"
    mixed = pyoci_command("wait", *at, "two", "nobody", "one")
    assert (mixed.returncode, mixed.stdout, len(mixed.stderr.splitlines())) == (NO_CONTAINER, b"6\n7\n", 1)
    assert pyoci_command("delete", *at, "-f", "one", "two").stdout == b"one\ntwo\n"


@pytest.mark.root
def test_options_of_create(where: list[str], tmp_path: Path) -> None:
    at = where[:2]
    log = tmp_path / "log"
    options = ["--log-path", str(log), "--log-size-max", "1M", "--sync-log", "--log-level", "error", "--log-driver", "k8s-file", "--no-shortcuts"]
    options += [
        "--cgroup-manager",
        "cgroupfs",
        "--conmon-cgroup",
        "shared",
        "--strict-cgroups",
        "--create-timeout",
        "30",
    ]
    options += ["--conmon", "conmon", "--mount-namespace", "--no-new-keyring", "--preserve-fds", "1", "--read-write", "--name", "many"]
    options += ["--rootfs", shutil.copytree(pyoci.rootfs.builtin(), str(tmp_path / "root"), symlinks=True)]
    given = os.open(tmp_path / "given", os.O_RDWR | os.O_CREAT)
    os.write(given, b"preserved")
    os.lseek(given, 0, os.SEEK_SET)
    argv = command_line("create", *where, *options, "--", "sh", "-c", "cat <&3")

    def third() -> None:
        os.dup2(given, 3)

    try:
        made = subprocess.run(argv, preexec_fn=third, close_fds=False, capture_output=True, timeout=60, check=False)
        assert (made.returncode, made.stdout) == (0, b"many\n"), made.stderr
        assert pyoci_command("start", *at, "-A", "many").stdout == b"preserved"
        assert log.read_text().endswith("P preserved\n")
        assert pyoci_command("delete", *at, "many").returncode == 0
        assert log.exists()
    finally:
        os.close(given)
    assert pyoci_command("run", *where, "--runtime-arg=--nonsense", "true").returncode == 125
    assert pyoci_command("run", *where, "--conmon", "/nonexistent", "true").returncode == 125
    assert pyoci_command("run", *where, "--preserve-fds", "99", "true").returncode == 125
    assert pyoci_command("run", *where, "--notify-socket", "relative", "true").returncode == 125
    assert pyoci_command("run", *where, "--listen-fds", "--rm", "true").returncode == 0
    assert pyoci_command("run", *where, "-d", "--log-driver", "none", "--id", "mute", "true").returncode == 0
    assert pyoci_command("wait", *at, "mute").stdout == b"0\n"
    assert pyoci_command("logs", *at, "mute").returncode == 125
    assert pyoci_command("delete", *at, "mute").returncode == 0


def test_run_as_json(where: list[str]) -> None:
    done = pyoci_command("run", *where, "--json", "--", "sh", "-c", "echo out; echo err >&2; exit 3")
    told = json.loads(done.stdout)
    assert (done.returncode, told["code"], told["stdout"], told["stderr"]) == (3, 3, "out\n", "err\n")
    assert set(told["timings"]) == {"create", "start", "wait", "delete", "total"}


def test_run_detached_of_no_program_leaves_nothing(where: list[str]) -> None:
    done = pyoci_command("run", *where, "-d", "nope")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (127, b"", 1)
    assert pyoci_command("list", "-q", *where[:2]).stdout == b""


@pytest.mark.parametrize(
    ("script", "sent", "code"),
    [
        ("trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done", [signal.SIGTERM], 9),
        ("echo ready; exec sleep 99", [signal.SIGINT], 130),
        ("trap : INT; echo ready; while :; do sleep 0.05; done", [signal.SIGINT, signal.SIGINT], 130),
    ],
)
def test_signals_are_passed_on_and_end_it_where_nobody_handles_them(where: list[str], script: str, sent: list[signal.Signals], code: int) -> None:
    argv = command_line("run", *where, "--", "sh", "-c", script)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        for number in sent:
            process.send_signal(number)
            time.sleep(0.3)
        assert process.wait(20) == code
    assert pyoci_command("list", "-q", *where[:2]).stdout == b""


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_a_real_terminal(where: list[str], verb: str) -> None:
    """Raw, of our size, and of its new size when that changes."""
    at = where[:2]
    # conmon sets a size in its own time; ours changes on the way.
    script = "while [ \"$(stty size)\" != '30 100' ]; do sleep 0.05; done; stty size; "
    script += "read word; echo got $word; while [ \"$(stty size)\" = '30 100' ]; do sleep 0.05; done; stty size; exit 4"
    if verb == "exec":
        pyoci_command("run", *where, "-d", "--id", "box", "sleep", "99")
    head = ["run", *where, "-it"] if verb == "run" else ["exec", *at, "-it", "box"]
    ours, theirs = pty.openpty()
    import fcntl
    import struct
    import termios

    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    said = b""

    def until(word: bytes) -> None:
        nonlocal said
        deadline = time.monotonic() + 20
        while word not in said:
            assert time.monotonic() < deadline, said
            if select.select([ours], [], [], 1)[0]:
                said += os.read(ours, 4096)

    before = termios.tcgetattr(theirs)
    with subprocess.Popen(command_line(*head, "--", "sh", "-c", script), stdin=theirs, stdout=theirs, stderr=theirs) as process:
        until(b"30 100")
        os.write(ours, b"typed\r")
        until(b"got typed")
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        process.send_signal(signal.SIGWINCH)
        until(b"40 120")
        assert process.wait(20) == 4
    assert termios.tcgetattr(theirs) == before
    os.close(theirs)
    os.close(ours)
    if verb == "exec":
        assert pyoci_command("delete", *at, "-f", "box").returncode == 0


@pytest.mark.once
def test_version_and_features() -> None:
    (versions,) = rows("version", "--json")
    assert versions["pyoci"] == pyoci.__version__
    assert "conmon" in versions
    assert b"kernel" in pyoci_command("version").stdout
    found = {row["runtime"]: row for row in rows("features", "--json")}
    assert found["runc"]["cgroup_v1"] is True
    assert found["runc"]["features"] is not None
    assert found["crun"]["seccomp"] is True
    assert b"RUNC" in pyoci_command("features").stdout
    assert pyoci_command("features", "/nonexistent").returncode == 125


def test_features_of_a_runtime_that_does_not_work_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from pyoci import cli, runtimes

    monkeypatch.setattr(runtimes, "unfit", lambda path, env: f"{path} is out of order")
    assert cli.main(["features", "runc"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("/runc is out of order")


@pytest.mark.once
def test_help_of_every_verb_and_what_a_run_imports() -> None:
    from pyoci.cli import VERBS

    program = "import sys; from pyoci.cli import VERBS, parser_of; [parser_of(verb).format_help() for verb in VERBS]; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=True).stdout.decode().split()
    assert {f"pyoci.cli.{verb}" for verb in VERBS} <= set(loaded)
    assert not {"pyoci.lifecycle", "asyncio", "json", "logging", "shutil"} & set(loaded)


@pytest.mark.once
@pytest.mark.parametrize("verb", cli.VERBS)
def test_help_teaches(verb: str) -> None:
    """Of each verb: what every option does, examples, exit codes; with --json, the fields."""
    said = pyoci_command(verb, "--help").stdout.decode()
    assert re.search(rf"Examples?\b[^$]*pyoci {verb}\b", said)
    assert "Exit codes: " in said.splitlines()[-1]
    assert all(action.help for action in cli.parser_of(verb)._actions)
    at = said.find("  --json ")
    assert at < 0 or ("object" in said[at:] and ":" in said[at : at + 300])


@pytest.mark.once
def test_fields_of_json_are_those_that_help_names(runtime_name: str, state_dir: str) -> None:
    where = ["--state-dir", state_dir]
    pyoci_command("run", *where, "--runtime", runtime_name, "-d", "--id", "job", "sleep", "100")
    for verb, words in (("list", []), ("state", ["job"]), ("ps", ["job"]), ("version", []), ("wait", ["--timeout", "9", "job"])):
        if verb == "wait":
            pyoci_command("kill", *where, "job")
        (action,) = (action for action in cli.parser_of(verb)._actions if "--json" in action.option_strings)
        assert action.help is not None
        named = action.help.partition(": ")[2].split(", ")
        at = [] if verb == "version" else where
        (row,) = rows(verb, *at, "--json", *words)
        assert sorted(row) == sorted(named)
    assert pyoci_command("delete", *where, "-f", "job").returncode == 0


@pytest.mark.once
def test_what_the_commands_import() -> None:
    """Start-up is imports: what a verb does not need, it does not load."""

    def loaded(words: str) -> set[str]:
        program = f"import sys; from pyoci.cli import main\ntry: main({words.split()})\nexcept SystemExit: pass\nprint(*sys.modules)"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=True)
        return set(done.stdout.decode().splitlines()[-1].split())

    heavy = {"asyncio", "logging", "shutil", "unicodedata", "jeepney", "pyroute2", "concurrent.futures", "tempfile", "socket", "ssl", "hashlib"}
    assert not loaded("--version") & (heavy | {"json", "subprocess", "_cffi_backend", "pyoci.lifecycle"})
    assert not loaded("list --state-dir /nonexistent") & (heavy | {"subprocess", "pyoci.oneshot", "pyoci.warm", "pyoci.bench"})
    assert not loaded("run --memory lots true") & (heavy | {"pyoci.warm", "pyoci.bench", "pyoci.networks", "pyoci.launcher"}) - {"concurrent.futures"}


@pytest.mark.once
def test_completion_knows_everything() -> None:
    """Every verb and every option, in each shell's script."""
    for shell in ("bash", "zsh", "fish"):
        script = pyoci_command("completion", shell).stdout.decode()
        for verb in cli.VERBS:
            head, tail = {"bash": (f"    {verb})", ";;\n        ;;"), "zsh": (f"        {verb}) _arg", ";;\n"), "fish": ("", "")}[shell]
            at = script.index(head)
            if shell == "fish":
                part = "\n".join(line for line in script.splitlines() if f"seen_subcommand_from {verb}'" in line)
            elif shell == "zsh":
                part = script[at : script.index(tail, at)]
            else:
                part = script[at:].split("\n        ;;\n")[0]
            for action in cli.parser_of(verb)._actions:
                for name in action.option_strings:
                    dashed = name if shell != "fish" else f"-l {name[2:]} " if name.startswith("--") else f"-s {name[1:]} "
                    assert dashed in f"{part} ", (shell, verb, name)


@pytest.mark.once
def test_bash_completion(tmp_path: Path) -> None:
    """By the shell itself."""
    script = tmp_path / "pyoci.bash"
    script.write_bytes(pyoci_command("completion", "bash").stdout)
    bash = f'source {script}; pyoci() {{ echo job-7; }}; ask() {{ COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _pyoci; echo ${{COMPREPLY[@]}}; }}'
    asked = f"{bash}; ask pyoci sta; ask pyoci run --mem; ask pyoci logs jo; ask pyoci create --log-driver k; ask pyoci completion z"
    asked += "; ask pyoci run --runtime cr; ask pyoci features ru; ask pyoci attach jo"
    answers = subprocess.run(["bash", "-c", asked], capture_output=True, timeout=20, check=True).stdout.decode().splitlines()
    assert answers == ["start state", "--memory", "job-7", "k8s-file", "zsh", "crun", "runc", "job-7"]


@pytest.mark.once
@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_completion_is_a_script_of_the_shell(tmp_path: Path, shell: str) -> None:
    script = tmp_path / shell
    script.write_bytes(pyoci_command("completion", shell).stdout)
    assert shutil.which(shell), f"tests/setup.sh installs {shell}"
    subprocess.run([shell, "-n", str(script)], timeout=20, check=True)
    if shell == "fish":
        asked = (
            f"function pyoci; echo job-7; end; source {script}; complete -C 'pyoci sta'; complete -C 'pyoci logs jo'; complete -C 'pyoci run --mem'"
        )
        answers = subprocess.run(["fish", "-c", asked], capture_output=True, timeout=20, check=True).stdout.decode()
        assert [line.split("\t")[0] for line in answers.splitlines()] == ["start", "state", "job-7", "--memory"]


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
    argv = command_line("list", "--state-dir", runtime.state_dir)
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(argv, stdout=write, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(write)
    assert b"Traceback" not in done.stderr


@pytest.mark.root
def test_where_cgroups_go_and_what_a_ramdisk_needs(where: list[str]) -> None:
    parent = f"/pyoci-cli-{os.getpid()}"
    try:
        done = pyoci_command("run", *where, "--cgroup-parent", parent, "--conmon-cgroup", "separate", "--strict-cgroups", "cat", "/proc/self/cgroup")
        assert f"{parent}/pyoci-" in done.stdout.decode(), done.stderr
    finally:
        for mount in cgroups.read().mounts.values():
            if os.path.isdir(f"{mount}{parent}"):
                os.rmdir(f"{mount}{parent}")  # it is the caller's
    assert pyoci_command("run", *where, "--no-pivot", "true").returncode == 0


def test_socket_activation_is_passed_on(where: list[str]) -> None:
    """As systemd starts a service: LISTEN_PID names the process that it has become."""
    said = "echo $LISTEN_FDS $LISTEN_PID; cat <&3"
    argv = command_line("run", *where, "--listen-fds", "--", "sh", "-c", said)
    script = 'export LISTEN_FDS=1 LISTEN_PID=$$; exec "$@" 3<&0 </dev/null'
    done = subprocess.run(["sh", "-c", script, "sh", *argv], input=b"activated", capture_output=True, timeout=60, check=False)
    assert done.stdout == b"1 1\nactivated", done.stderr


def test_a_timeout_on_a_terminal(where: list[str]) -> None:
    ours, theirs = pty.openpty()
    argv = command_line("run", *where, "-t", "--timeout", "0.5", "sleep", "100")
    try:
        with subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs) as process:
            assert process.wait(60) == 124
    finally:
        os.close(theirs)
        os.close(ours)
