"""pyoci-runtime, verb by verb, as a command."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import pyoci
from pyoci import direct, runtimes
from tests.containers import Build
from tests.ociruntime import Command, eventually, is_alive, make_bundle, parent, read_all

SLEEP = ("sleep", "100")


@pytest.fixture
def command(runtime_name: str, state_dir: str) -> Command:
    return Command(state_dir, runtime_name)


@pytest.fixture
def bundle(build: Build, tmp_path: Path) -> str:
    return make_bundle(tmp_path / "bundle", build(*SLEEP))


@contextmanager
def running(command: Command, bundle: str, id: str = "job") -> Iterator[str]:
    command.detached("run", "--detach", "--bundle", bundle, id)
    try:
        yield id
    finally:
        command.ok("delete", "--force", id)


@contextmanager
def console(path: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        listener.settimeout(20)
        yield listener
    os.unlink(path)


def receive(listener: socket.socket) -> int:
    with listener.accept()[0] as connection:
        (master,) = socket.recv_fds(connection, 4096, 1)[1]
    return master


# --- a life -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.everywhere
def test_a_life_of_separate_processes(command: Command, build: Build, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", {**build(*SLEEP), "annotations": {"a.b": "c"}})
    command.detached("create", "--bundle", bundle, "--pid-file", str(tmp_path / "pid"), "job")
    pid = int((tmp_path / "pid").read_text())
    state = command.state("job")
    assert {name: state[name] for name in ("id", "status", "pid", "bundle", "annotations")} == {
        "id": "job",
        "status": "created",
        "pid": pid,
        "bundle": bundle,
        "annotations": {"a.b": "c"},
    }
    assert state["ociVersion"].startswith("1.")
    command.ok("start", "job")
    assert command.state("job")["status"] == "running"
    assert "already running" in command.refused("start", "job")
    assert "not stopped" in command.refused("delete", "job")
    command.ok("kill", "job", "KILL")
    eventually(lambda: command.state("job")["status"] == "stopped", "it ends")
    assert command.state("job")["pid"] == 0
    assert "container not running" in command.refused("kill", "job")
    assert "has stopped" in command.refused("start", "job")
    command.ok("delete", "job")
    assert "container does not exist" in command.refused("state", "job")


def test_the_caller_is_the_monitor(command: Command, build: Build, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", build("sh", "-c", "exit 7"))
    direct.become_subreaper()
    command.detached("create", "-b", bundle, "--pid-file", str(tmp_path / "pid"), "job")
    pid = int((tmp_path / "pid").read_text())
    assert parent(pid) == os.getpid()
    command.ok("start", "job")
    assert os.waitpid(pid, 0) == (pid, 7 << 8)
    assert command.state("job")["status"] == "stopped"
    command.ok("delete", "job")


def test_create_hands_stdio_and_descriptors_on(command: Command, build: Build, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", build("sh", "-c", "read line; echo got $line; echo err >&2; cat <&3; ls /proc/self/fd"))
    (tmp_path / "more").write_text("from 3\n")
    (tmp_path / "in").write_text("word\n")
    argv = ["sh", "-c", 'exec "$@" <in >out 2>&1 3<more', "sh", *command.line("create", "--preserve-fds=1", "--bundle", bundle, "job")]
    subprocess.run(argv, cwd=tmp_path, env={**os.environ, "PYTHONPATH": os.getcwd()}, timeout=60, check=True)
    command.ok("start", "job")
    eventually(lambda: command.state("job")["status"] == "stopped", "it ends")
    words = (tmp_path / "out").read_bytes().split()
    assert words[:5] == [b"got", b"word", b"err", b"from", b"3"]
    assert set(words[5:]) <= {b"0", b"1", b"2", b"3", b"4"}  # the last is ls's own
    command.ok("delete", "job")


def test_socket_activation_comes_before_preserved_descriptors(command: Command, build: Build, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", build("sh", "-c", "cat <&3; cat <&4; echo $LISTEN_FDS $LISTEN_PID"))
    (tmp_path / "one").write_text("one ")
    (tmp_path / "two").write_text("two ")
    start = 'export LISTEN_FDS=1 LISTEN_PID=$$; exec "$@" 3<one 4<two'
    argv = ["sh", "-c", start, "sh", *command.line("run", "--preserve-fds", "1", "-b", bundle, "job")]
    done = subprocess.run(argv, cwd=tmp_path, env={**os.environ, "PYTHONPATH": os.getcwd()}, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, b"one two 1 1\n"), done.stderr


def test_console_socket_gets_the_terminal(command: Command, build: Build, tmp_path: Path, state_dir: str) -> None:
    bundle = make_bundle(tmp_path / "bundle", build("sh", "-c", "test -t 0 && echo on a terminal; exit 3"), terminal=True)
    assert "console socket" in command.refused("create", "--bundle", bundle, "job")
    path = f"{state_dir}/.console"
    with console(path) as listener:
        command.detached("create", "--bundle", bundle, "--console-socket", path, "job")
        master = receive(listener)
        command.ok("start", "job")
        assert b"on a terminal" in read_all(master)
        os.close(master)
        command.ok("delete", "--force", "job")
        plain = make_bundle(tmp_path / "plain", build(*SLEEP))
        assert "cannot use console socket" in command.refused("create", "--bundle", plain, "--console-socket", path, "job")


@pytest.mark.parametrize("sort", ["no such program", "pid file", "bundle", "spec", "descriptor", "number", "console"])
def test_a_create_that_fails_leaves_nothing(command: Command, build: Build, tmp_path: Path, sort: str) -> None:
    bundle = make_bundle(tmp_path / "bundle", build("nosuchprogram" if sort == "no such program" else "true"))
    argv = ["--bundle", bundle]
    if sort == "pid file":
        argv += ["--pid-file", str(tmp_path / "none" / "pid")]
    elif sort == "bundle":
        argv = ["--bundle", str(tmp_path / "none")]
    elif sort == "spec":
        (tmp_path / "bundle/config.json").write_text("{")
    elif sort == "descriptor":
        argv += ["--preserve-fds", "99"]
    elif sort == "number":
        argv += ["--preserve-fds", "x"]
    elif sort == "console":
        bundle = make_bundle(tmp_path / "bundle", build("true"), terminal=True)
        argv += ["--console-socket", str(tmp_path / "none")]
    said = command.refused("create", *argv, "job")
    wanted = {
        "no such program": "nosuchprogram",
        "pid file": "--pid-file",
        "bundle": "no such bundle",
        "spec": "not JSON",
        "descriptor": "not an open descriptor",
        "number": "whole number",
        "console": "console_socket",
    }
    assert wanted[sort] in said
    assert command.ok("list", "--quiet") == ""


def test_an_id_that_is_taken(command: Command, bundle: str) -> None:
    with running(command, bundle):
        said = command.refused("create", "--bundle", bundle, "job")
        assert "container with given ID already exists" in said
        assert "container already exists" in said
        assert command.state("job")["status"] == "running"


# --- run --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.everywhere
def test_run_in_the_foreground(command: Command, build: Build, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", build("sh", "-c", "cat; echo err >&2; exit 9"))
    done = command("run", "--bundle", bundle, "--pid-file", str(tmp_path / "pid"), "job", stdin=b"in\n")
    assert (done.returncode, done.stdout, done.stderr) == (9, b"in\n", b"err\n")
    assert int((tmp_path / "pid").read_text()) > 1
    bundle = make_bundle(tmp_path / "bundle", build("sh", "-c", "kill -9 $$; sh -c 'kill -9 $$'; exit $?"))
    assert command("run", "job", cwd=bundle, env={**os.environ, "PYTHONPATH": os.getcwd()}).returncode == 137
    assert command.ok("list", "-q") == ""


def test_cruns_own_words(command: Command, build: Build, tmp_path: Path) -> None:
    """crun has --cgroup-manager for runc's --systemd-cgroup, and config.json by another name."""
    bundle = make_bundle(tmp_path / "bundle", build("true"))
    (tmp_path / "bundle/other").mkdir()
    (tmp_path / "bundle/config.json").rename(tmp_path / "bundle/other/spec")
    command.ok("--cgroup-manager", "cgroupfs", "run", "--config", "other/spec", "--bundle", bundle, "job")
    command.ok("run", "-f", f"{bundle}/other/spec", "-b", bundle, "job")
    command.detached("create", "--config", "other/spec", "--bundle", bundle, "job")
    command.ok("delete", "job")
    assert "config.json" in command.refused("run", "--bundle", bundle, "job")
    assert "nosuch" in command.refused("run", "--bundle", bundle, "-f", "nosuch", "job")
    assert "disabled" in command.refused("--cgroup-manager", "disabled", "run", "--bundle", bundle, "-f", "other/spec", "job")


def test_run_passes_signals_on(command: Command, build: Build, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", build("sh", "-c", "trap 'exit 6' TERM; echo ready; while :; do sleep 0.05; done"))
    with subprocess.Popen(command.line("run", "-b", bundle, "job"), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 6
    assert command.ok("list", "-q") == ""


def on_a_terminal(argv: list[str], typed: bytes) -> tuple[int, bytes]:
    ours, theirs = pty.openpty()
    with subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        os.write(ours, typed)
        said = read_all(ours)
        code = process.wait(20)
    os.close(ours)
    return code, said


def test_run_and_exec_on_a_terminal(command: Command, build: Build, tmp_path: Path, bundle: str) -> None:
    program = ("sh", "-c", "test -t 1 && read word && echo got $word; exit 4")
    tty = make_bundle(tmp_path / "tty", build(*program), terminal=True)
    code, said = on_a_terminal(command.line("run", "--bundle", tty, "job"), b"typed\n")
    assert (code, b"got typed" in said) == (4, True), said
    with running(command, bundle):
        code, said = on_a_terminal(command.line("exec", "--tty", "job", *program), b"typed\n")
        assert (code, b"got typed" in said) == (4, True), said


def test_what_a_terminal_says_to_a_pipe_has_plain_newlines(command: Command, build: Build, tmp_path: Path) -> None:
    tty = make_bundle(tmp_path / "tty", build("sh", "-c", "test -t 1 && echo one && echo two"), terminal=True)
    assert command("run", "--bundle", tty, "job").stdout == b"one\ntwo\n"


def test_run_that_cannot_start_leaves_nothing(command: Command, build: Build, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", build("nosuchprogram"))
    for how in ([], ["--detach"]):
        assert "nosuchprogram" in command.refused("run", *how, "--bundle", bundle, "job")
    assert command.ok("list", "-q") == ""


# --- exec -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.everywhere
def test_exec_with_single_options(command: Command, bundle: str) -> None:
    with running(command, bundle):
        done = command("exec", "job", "sh", "-c", "cat; echo err >&2; exit 5", stdin=b"in")
        assert (done.returncode, done.stdout, done.stderr) == (5, b"in", b"err\n")
        script = "pwd; echo $A $B; id -u; id -G; grep NoNewPrivs /proc/self/status"
        argv = ["--cwd", "/tmp", "-e", "A=1", "--env=B=2", "--user", "0:0", "-no-new-privs"]
        if os.geteuid() == 0:
            argv += ["--additional-gids", "11", "-g", "12"]
        lines = command.ok("exec", *argv, "job", "sh", "-c", script).splitlines()
        assert lines[:3] == ["/tmp", "1 2", "0"]
        assert lines[3] == ("0 11 12" if os.geteuid() == 0 else lines[3])
        assert lines[4].endswith("1")
        assert command.ok("exec", "job", "echo", "--help", "-t") == "--help -t\n"  # the program's own


@pytest.mark.root
def test_exec_as_another_user_with_a_capability(command: Command, bundle: str) -> None:
    with running(command, bundle):
        plain = command.ok("exec", "--user", "7:8", "job", "sh", "-c", "id -u; id -g; grep CapEff /proc/self/status").split()
        assert plain == ["7", "8", "CapEff:", "0000000000000000"]
        more = command.ok("exec", "-u", "7:8", "--cap", "CAP_KILL", "job", "grep", "CapEff", "/proc/self/status").split()
        assert int(more[1], 16) == 1 << 5


def test_exec_of_a_process_file(command: Command, build: Build, bundle: str, tmp_path: Path) -> None:
    process = {**build("sh", "-c", "echo $WORD; exit 8")["process"], "env": ["PATH=/bin", "WORD=said"]}
    (tmp_path / "process").write_text(json.dumps(process))
    with running(command, bundle):
        done = command("exec", "--process", str(tmp_path / "process"), "job")
        assert (done.returncode, done.stdout) == (8, b"said\n")
        said = command.refused("exec", "-p", str(tmp_path / "process"), "--cwd", "/", "job", code=255)
        assert "--process" in said
        assert "No such file" in command.refused("exec", "-p", str(tmp_path / "none"), "job", code=255)
        assert command("exec", "-p", "/dev/stdin", "job", stdin=json.dumps(process).encode()).returncode == 8  # a pipe
        (tmp_path / "process").write_text('{"args": []}')
        assert "process.args" in command.refused("exec", "-p", str(tmp_path / "process"), "job", code=255)


def test_exec_detached_belongs_to_the_caller(command: Command, bundle: str, tmp_path: Path, state_dir: str) -> None:
    direct.become_subreaper()
    pid_file = tmp_path / "pid"
    with running(command, bundle):
        command.detached("exec", "--detach", "--pid-file", str(pid_file), "job", "sh", "-c", "exit 3")
        pid = int(pid_file.read_text())
        assert os.waitpid(pid, 0) == (pid, 3 << 8)
        path = f"{state_dir}/.console"
        with console(path) as listener:
            argv = ["-d", "-t", "--console-socket", path, "--pid-file", str(pid_file)]
            command.detached("exec", *argv, "job", "sh", "-c", "test -t 0 && echo on a terminal")
            master = receive(listener)
        assert b"on a terminal" in read_all(master)
        os.close(master)
        pid = int(pid_file.read_text())
        assert os.waitpid(pid, 0) == (pid, 0)
        assert os.listdir(f"{state_dir}/containers/job/execs") == []
        assert "console socket" in command.refused("exec", "-d", "-t", "job", "true", code=255)
        init = command.state("job")["pid"]
        command.ok("kill", "job", "KILL")
        os.waitpid(init, 0)


def test_exec_hands_descriptors_on(command: Command, bundle: str, tmp_path: Path) -> None:
    (tmp_path / "more").write_text("from 3\n")
    with running(command, bundle):
        argv = ["sh", "-c", 'exec "$@" 3<more', "sh", *command.line("exec", "--preserve-fds", "1", "job", "cat", "/proc/self/fd/3")]
        done = subprocess.run(argv, cwd=tmp_path, env={**os.environ, "PYTHONPATH": os.getcwd()}, capture_output=True, timeout=60, check=False)
        assert done.stdout == b"from 3\n", done.stderr


def test_exec_passes_signals_on(command: Command, bundle: str, tmp_path: Path) -> None:
    with running(command, bundle):
        program = ["sh", "-c", "trap 'exit 6' TERM; echo ready; while :; do sleep 0.05; done"]
        with subprocess.Popen(command.line("exec", "--pid-file", str(tmp_path / "pid"), "job", *program), stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            eventually((tmp_path / "pid").exists, "its pid is told")
            assert is_alive(int((tmp_path / "pid").read_text()))
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 6


def test_the_pid_file_of_a_short_exec(command: Command, bundle: str, tmp_path: Path) -> None:
    with running(command, bundle):
        command.ok("exec", "--pid-file", str(tmp_path / "pid"), "job", "true")
        assert int((tmp_path / "pid").read_text()) > 1
        for how in ([], ["--detach"]):
            assert "--pid-file" in command.refused("exec", *how, "--pid-file", str(tmp_path / "none/pid"), "job", "true", code=255)


def test_exec_that_cannot_start(command: Command, bundle: str) -> None:
    with running(command, bundle):
        for how in ([], ["--detach"]):
            done = command("exec", *how, "job", "nosuchprogram")
            assert (done.returncode, done.stdout) == (255, b"")
            assert b"nosuchprogram" in done.stderr
        assert "cannot be empty" in command.refused("exec", "job", code=255)
        assert "NAME=VALUE" in command.refused("exec", "-e", "A", "job", "true", code=255)
        assert "additional-gids" in command.refused("exec", "-g", "x", "job", "true", code=255)
        assert "no --pidfd-socket" in command.refused("exec", "--pidfd-socket", "/s", "job", "true", code=255)
    assert "does not exist" in command.refused("exec", "job", "true", code=255)


def test_exec_in_what_was_only_created(command: Command, bundle: str) -> None:
    command.detached("create", "-b", bundle, "job")
    assert command.ok("exec", "job", "echo", "early") == "early\n"
    assert command.state("job")["status"] == "created"
    command.ok("delete", "job")  # as runc: what was only created needs no force


# --- the other verbs --------------------------------------------------------------------------------------------------------------


@pytest.mark.root
def test_pause_and_resume(command: Command, bundle: str) -> None:
    with running(command, bundle):
        command.ok("pause", "job")
        assert command.state("job")["status"] == "paused"
        assert "not running" in command.refused("pause", "job")
        assert "paused" in command.refused("exec", "job", "true", code=255)
        late = ["exec", "--ignore-paused", "job", "echo", "late"]
        if command.runtime == "crun":
            assert "--ignore-paused" in command.refused(*late, code=255)
            command.ok("resume", "job")
        else:
            with subprocess.Popen(command.line(*late), stdout=subprocess.PIPE) as process:
                time.sleep(0.2)
                command.ok("resume", "job")
                assert process.communicate(timeout=20)[0] == b"late\n"
        assert "not paused" in command.refused("resume", "job")
        command.ok("pause", "job")  # and so it is killed


@pytest.mark.root
def test_ps_and_kill_all(command: Command, build: Build, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", build("sh", "-c", "sleep 101 & sleep 102; true"))
    with running(command, bundle):
        eventually(lambda: len(json.loads(command.ok("ps", "--format", "json", "job"))) == 3, "three processes")
        pids = json.loads(command.ok("ps", "-f", "json", "job"))
        assert command.state("job")["pid"] in pids
        table = command.ok("ps", "job").splitlines()
        assert len(table) == 4
        assert "PID" in table[0]
        assert "sleep 101" in "".join(table)
        assert len(command.ok("ps", "job", "-eo", "pid,comm").splitlines()) == 4
        assert "PID field" in command.refused("ps", "job", "-eo", "comm")
        command.ok("kill", "--all", "job", "9")
        eventually(lambda: not any(map(is_alive, pids)), "all are dead")
        assert json.loads(command.ok("ps", "-f", "json", "job")) == []
        assert len(command.ok("ps", "job").splitlines()) == 1
        command.ok("kill", "-a", "job", "0")  # as runc: nobody is left, and that is what was wanted


@pytest.mark.root
def test_what_shares_its_pid_namespace_dies_as_a_whole(command: Command, build: Build, tmp_path: Path) -> None:
    config = build("sh", "-c", "sleep 101 & sleep 102; true")
    config["linux"]["namespaces"] = [n for n in config["linux"]["namespaces"] if n["type"] != "pid"]
    bundle = make_bundle(tmp_path / "bundle", config)
    with running(command, bundle):
        eventually(lambda: len(json.loads(command.ok("ps", "--format", "json", "job"))) == 3, "three processes")
        pids = json.loads(command.ok("ps", "-f", "json", "job"))
        command.ok("kill", "job", "KILL")
        eventually(lambda: not any(map(is_alive, pids)), "all are dead")


def test_list(command: Command, bundle: str) -> None:
    assert command.ok("list", "-f", "json").strip() == "null"
    assert command.ok("list", "-q") == ""
    with running(command, bundle, "one"), running(command, bundle, "two"):
        assert command.ok("list", "-q") == "one\ntwo\n"
        head, one, two = command.ok("list").splitlines()
        assert head.split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
        assert one.split()[:4] == ["one", str(command.state("one")["pid"]), "running", bundle]
        rows = json.loads(command.ok("list", "--format=json"))
        assert [row["id"] for row in rows] == ["one", "two"]
        assert two.split()[4] == rows[1]["created"]
    assert "format" in command.refused("list", "--format", "yaml")


def test_delete(command: Command, bundle: str) -> None:
    command.ok("delete", "--force", "none")
    assert "does not exist" in command.refused("delete", "none")
    with running(command, bundle):
        command.ok("delete", "-f", "job")


def test_spec_makes_a_bundle_that_runs(command: Command, rootfs: str, tmp_path: Path) -> None:
    command.ok("spec", "--bundle", str(tmp_path))
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["root"]["path"], config["process"]["terminal"], config["process"]["args"]) == ("rootfs", True, ["sh"])
    assert "exists. Remove it first" in command.refused("spec", "-b", str(tmp_path))
    (tmp_path / "rootfs").symlink_to(rootfs)
    assert on_a_terminal(command.line("run", "-b", str(tmp_path), "job"), b"exit 11\n")[0] == 11
    (tmp_path / "config.json").unlink()
    command.ok("spec", "--rootless", "--bundle", str(tmp_path))
    assert {"type": "user"} in json.loads((tmp_path / "config.json").read_text())["linux"]["namespaces"]
    assert "none" in command.refused("spec", "-b", str(tmp_path / "none"))


def test_features(command: Command) -> None:
    done = subprocess.run([command.runtime, "features"], capture_output=True, check=False)
    if done.returncode == 0:
        assert json.loads(command.ok("features")) == json.loads(done.stdout)
    else:
        assert "features" in command.refused("features")


@pytest.mark.root
def test_hooks_are_told_of_the_bundle(command: Command, build: Build, tmp_path: Path) -> None:
    """runc takes its config.json from the bundle that it names; crun can tell the two apart."""
    hook = {"path": "/bin/sh", "args": ["sh", "-c", f"cat >> {tmp_path}/told; echo >> {tmp_path}/told"]}
    stages = ("createRuntime", "poststart", "poststop")
    bundle = make_bundle(tmp_path / "bundle", {**build(*SLEEP), "hooks": {stage: [hook] for stage in stages}})
    with running(command, bundle):
        pass
    told = [json.loads(line) for line in (tmp_path / "told").read_text().splitlines()]
    assert [state["id"] for state in told] == ["job"] * 3
    own = f"{command.root}/containers/job"
    assert {state["bundle"] for state in told} == {bundle if command.runtime == "crun" else own}


# --- global options, and what makes no sense --------------------------------------------------------------------------------------


def test_log(command: Command, tmp_path: Path) -> None:
    log = tmp_path / "log"
    said = command.refused("--log", str(log), "--log-format", "json", "state", "none")
    entry = json.loads(log.read_text())
    assert (entry["level"], entry["msg"]) == ("error", said.strip())
    assert entry["time"].endswith("Z")
    command.refused("--log", str(log), "state", "none")
    assert log.read_text().splitlines()[1].startswith('time="')
    assert "level=error msg=" in command.refused("state", "none")
    assert "log-format" in command.refused("--log-format", "xml", "state", "none")
    assert "--log" in command.refused("--log", str(tmp_path / "none/log"), "state", "none")


def test_the_log_of_a_failed_create_holds_one_object(command: Command, build: Build, tmp_path: Path) -> None:
    """podman reads it as one."""
    bundle = make_bundle(tmp_path / "bundle", build("nosuchprogram"))
    command.refused("--log", str(tmp_path / "log"), "--log-format=json", "create", "-b", bundle, "job")
    assert "nosuchprogram" in json.loads((tmp_path / "log").read_text())["msg"]


def test_debug(command: Command, tmp_path: Path) -> None:
    command.ok("--debug", "--log", str(tmp_path / "log"), "list")
    assert "level=debug" in (tmp_path / "log").read_text()
    assert b"Traceback" in command("--debug", "state", "none").stderr


BAD = [
    (("bogus",), 1, "no command 'bogus'"),
    (("checkpoint", "job"), 1, "which runc has"),
    (("restore", "job"), 1, "which runc has"),
    (("events", "job"), 1, "which runc has"),
    (("update", "job"), 1, "which runc has"),
    (("run", "--no-subreaper", "job"), 1, "no --no-subreaper here, which runc has"),
    (("run", "--keep", "job"), 1, "which runc has"),
    (("create", "--pidfd-socket", "x", "job"), 1, "which runc has"),
    (("create", "--nonsense", "job"), 1, "not defined: -nonsense"),
    (("create", "--bundle"), 1, "needs an argument"),
    (("create",), 1, "requires exactly 1"),
    (("create", "/../job"), 1, "container id"),
    (("run", "a", "b"), 1, "requires exactly 1"),
    (("start",), 1, "requires exactly 1"),
    (("start", "none"), 1, "container does not exist"),
    (("state",), 1, "requires exactly 1"),
    (("state", "../x"), 1, "container id"),
    (("kill", "none"), 1, "container does not exist"),
    (("kill", "a", "b", "c"), 1, "requires"),
    (("delete", "--force=maybe", "none"), 1, "true or false"),
    (("exec",), 255, "requires at least 1"),
    (("ps", "none"), 1, "container does not exist"),
    (("pause", "none"), 1, "container does not exist"),
    (("resume", "none"), 1, "container does not exist"),
    (("list", "job"), 1, "requires exactly 0"),
    (("features", "--nonsense"), 1, "not defined"),
    (("--nonsense",), 1, "not defined"),
]


@pytest.mark.once
@pytest.mark.parametrize(("argv", "code", "words"), BAD, ids=[" ".join(argv) for argv, _, _ in BAD])
def test_what_makes_no_sense_is_one_line(state_dir: str, argv: tuple[str, ...], code: int, words: str) -> None:
    assert words in Command(state_dir, "runc").refused(*argv, code=code)


def test_options_that_the_runtime_below_is_told(build: Build, state_dir: str, tmp_path: Path, runtime_name: str) -> None:
    """Seen by a runtime that writes down how it is called."""
    script = tmp_path / "tools" / runtime_name
    script.parent.mkdir()
    process = f'for word; do [ "$before" = --process ] && cat "$word" >>{script}.calls; before=$word; done'
    script.write_text(f'#!/bin/sh\n{process}\necho "$@" >>{script}.calls\nexec {runtimes.find_executable(runtime_name)} "$@"\n')
    script.chmod(0o755)
    spied = Command(state_dir, str(script))
    bundle = make_bundle(tmp_path / "bundle", build(*SLEEP))
    tty = make_bundle(tmp_path / "tty", build("sh", "-c", "test -t 0 && echo on a terminal"), terminal=True)
    places = ["--rootless", "auto", "--log-format", "text"]

    def told(verb: str) -> str:
        return [line for line in Path(f"{script}.calls").read_text().splitlines() if f" {verb} " in line][-1]

    spied.detached(*places, "create", "--no-pivot", "--no-new-keyring", "-b", bundle, "job")
    assert "--no-pivot --no-new-keyring" in told("create")
    spied.ok("delete", "job")
    spied.detached(*places, "run", "-d", "--no-pivot", "--no-new-keyring", "-b", bundle, "job")
    assert "--no-pivot --no-new-keyring" in told("create")
    # What this host cannot give, but the runtime is asked for.
    argv = spied.line("exec", "--apparmor", "a-profile", "--process-label", "a:b:c:s0", "--cgroup", "/nosuch", "job", "true")
    assert subprocess.run(argv, capture_output=True, timeout=60, check=False).returncode == 255
    assert "--cgroup /nosuch" in told("exec")
    asked = json.loads(next(line for line in Path(f"{script}.calls").read_text().splitlines() if "a-profile" in line).rpartition("}")[0] + "}")
    assert (asked["apparmorProfile"], asked["selinuxLabel"]) == ("a-profile", "a:b:c:s0")
    spied.ok("delete", "-f", "job")
    path = f"{state_dir}/.console"
    with console(path) as listener:
        spied.detached("run", "--detach", "--console-socket", path, "--bundle", tty, "job")
        master = receive(listener)
    assert b"on a terminal" in read_all(master)
    os.close(master)
    spied.ok("delete", "-f", "job")


@pytest.mark.once
@pytest.mark.parametrize("argv", [["--help"], ["--version"], ["list"], ["list", "-f", "json"]])
def test_output_that_cannot_be_written(state_dir: str, monkeypatch: pytest.MonkeyPatch, argv: list[str]) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    line = Command(state_dir, "runc").line(*argv)
    with open("/dev/full", "wb") as full:
        done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, timeout=60, check=False)
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
    assert b"writing to our stdout: No space left on device" in done.stderr
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(line, stdout=write, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.once
def test_an_error_that_nobody_can_be_told(state_dir: str) -> None:
    command = Command(state_dir, "runc")
    said = command.refused("--log", "/dev/full", "state", "none")
    assert "does not exist" in said
    assert "No space left" in said
    for how in (">/dev/full 2>/dev/full", ">&- 2>&-", "<&- >/dev/null 2>&-"):
        argv = ["sh", "-c", f'"$@" {how}', "sh", *command.line("state", "none")]
        done = subprocess.run(argv, capture_output=True, timeout=60, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")


@pytest.mark.once
@pytest.mark.parametrize("verb", ["create", "start", "state", "kill", "delete", "exec", "ps", "pause", "resume", "list", "run"])
def test_a_root_that_is_a_file(build: Build, tmp_path: Path, verb: str) -> None:
    place = tmp_path / "file"
    place.touch()
    words = {"list": [], "exec": ["job", "true"]}.get(verb, ["job"])
    if verb in ("create", "run"):
        words = ["--bundle", make_bundle(tmp_path / "bundle", build("true")), *words]
    assert str(place) in Command(str(place), "runc").refused(verb, *words, code=255 if verb == "exec" else 1)


@pytest.mark.root
def test_a_signal_during_a_create_leaves_nothing(build: Build, state_dir: str, tmp_path: Path, runtime_name: str) -> None:
    begun = tmp_path / "begun"
    os.mkfifo(begun)
    script = tmp_path / runtime_name
    real = runtimes.find_executable(runtime_name)
    script.write_text(f'#!/bin/sh\ncase " $* " in *" create "*) echo >{begun}; sleep 100;; esac\nexec {real} "$@"\n')
    script.chmod(0o755)
    command = Command(state_dir, str(script))
    argv = command.line("create", "-b", make_bundle(tmp_path / "bundle", build("true")), "job")
    fd = os.open(begun, os.O_RDONLY | os.O_NONBLOCK)
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        assert select.select([fd], [], [], 20)[0]
        os.close(fd)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143
    assert command.ok("list", "-q") == ""


def test_a_signal_that_is_none(command: Command, bundle: str) -> None:
    with running(command, bundle):
        assert "is no signal" in command.refused("kill", "job", "NONSENSE")
        command.ok("kill", "job", "0")
        command.ok("kill", "job", "SIGKILL")


def test_the_root_and_the_runtime_of_the_environment(build: Build, state_dir: str, tmp_path: Path, runtime_name: str) -> None:
    bundle = make_bundle(tmp_path / "bundle", build("true"))
    argv = [sys.executable, "-m", "pyoci.ociruntime", "--root", state_dir, "run", "-b", bundle, "job"]
    subprocess.run(argv, env={**os.environ, "PYOCI_RUNTIME": runtime_name}, timeout=60, check=True)
    assert os.listdir(f"{state_dir}/{runtime_name}") == []
    done = subprocess.run(argv, env={**os.environ, "PYOCI_RUNTIME": "/nosuch"}, capture_output=True, timeout=60, check=False)
    assert (done.returncode, b"/nosuch" in done.stderr) == (1, True)


@pytest.mark.once
def test_help_and_version() -> None:
    command = Command("/nonexistent", "runc")
    said = command.ok
    assert said("--version").startswith(f"pyoci-runtime version {pyoci.__version__}\nspec: 1.")
    assert said("-v") == said("--version")
    assert "create a container" in said() == said("--help") == said("help")
    assert "--console-socket" in said("create", "--help")


@pytest.mark.once
def test_only_what_a_verb_needs_is_imported(state_dir: str) -> None:
    """Start-up time is imports; conmon waits for each call of its runtime."""
    script = "import sys; from pyoci.ociruntime import main; main(['--root', sys.argv[1], 'state', 'none']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script, state_dir], capture_output=True, text=True, timeout=60, check=True)
    heavy = {"asyncio", "argparse", "subprocess", "logging", "typing", "pyoci.execs", "pyoci.runtime", "pyoci.container", "pyoci.direct"}
    assert heavy & set(done.stdout.split()) == set()


# --- the library's third monitor --------------------------------------------------------------------------------------------------


def test_the_library_itself(runtime: pyoci.OCIRuntime, build: Build) -> None:
    with runtime.create(build("sh", "-c", "exit 7"), "job", monitor="caller") as container:
        assert (container.state(), container.conmon_pid) == ("created", None)
        assert container.pid is not None
        assert parent(container.pid) not in (0, os.getpid())
        elsewhere = pyoci.Container.load("job", state_dir=runtime.state_dir)
        elsewhere.start()
        status = container.wait(20)
        assert status.code in (7, None)  # the kernel's word, where it tells others than the parent
        assert container.state() == "stopped"
    with pytest.raises(pyoci.InvalidOption, match="monitor"):
        pyoci.run(["true"], runtime=runtime, monitor="caller")
    with pytest.raises(pyoci.InvalidOption, match="log_driver"):
        runtime.create(build("true"), monitor="caller", log_driver="k8s-file")
    with pytest.raises(pyoci.InvalidOption, match="console_socket"):
        runtime.create(build("true"), console_socket="/run/none")
    with pytest.raises(pyoci.InvalidOption, match="terminal"):
        runtime.create(build("true"), monitor="caller", tty=True)
