"""Tools that drive an OCI runtime by its command line, driving pyoci-runtime: conmon and podman."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from glob import glob
from pathlib import Path

import pytest

from pyoci import cgroups, runtimes
from tests.containers import Build, scopes
from tests.integration.test_ociruntime import on_a_terminal
from tests.ociruntime import TIMEOUT, Command, eventually, make_bundle, podman_with

pytestmark = [pytest.mark.root, pytest.mark.once]


@pytest.fixture
def command(runtime_name: str, state_dir: str) -> Command:
    return Command(f"{state_dir}/oci", runtime_name)


@pytest.fixture(autouse=True)
def _empty(state_dir: str) -> Iterator[None]:
    """What stays of a state directory when all containers are gone is its own directories, and crun's cache of compiled seccomp profiles."""
    yield
    assert [path for path in Path(state_dir, "oci").rglob("*") if not path.is_dir() and ".cache" not in path.parts] == []
    shutil.rmtree(f"{state_dir}/oci")


# --- conmon -----------------------------------------------------------------------------------------------------------------------


class Conmon:
    """One container's conmon, called as podman calls it."""

    def __init__(self, command: Command, directory: Path, bundle: str) -> None:
        self.directory = directory
        (directory / "exits").mkdir()
        self.argv = [runtimes.find_executable("conmon"), "--api-version", "1", "--runtime", command.script(Path(bundle).parent / "oci")]
        self.argv += ["--bundle", bundle, "--cid", "job", "--cuuid", "job", "--name", "job", "--exit-dir", str(directory / "exits")]
        self.argv += ["--persist-dir", str(directory), "--full-attach", "--socket-dir-path", str(directory)]
        self.argv += ["--runtime-arg", "--log-format=json", "--runtime-arg", "--log", "--runtime-arg", str(directory / "oci-log")]

    def __call__(self, name: str, *more: str) -> int:
        """The pid that it tells: of the container's init, or of the exec session's program."""
        ours, theirs = socket.socketpair()
        with ours, theirs, theirs.dup() as start:  # conmon closes the one that it has read its start byte from
            ours.sendall(b"\0")
            fds = [theirs.fileno(), start.fileno()]
            argv = [*self.argv, "--container-pidfile", str(self.directory / f"{name}.pid"), "--log-path", f"k8s-file:{self.directory}/{name}.log"]
            argv += ["--conmon-pidfile", str(self.directory / f"{name}.conmon"), *more]
            env = {**os.environ, "_OCI_SYNCPIPE": str(fds[0]), "_OCI_STARTPIPE": str(fds[1])}
            null = subprocess.DEVNULL
            subprocess.run(argv, env=env, pass_fds=fds, stdin=null, stdout=null, stderr=null, timeout=TIMEOUT, check=False)
            theirs.close()
            start.close()
            ours.settimeout(TIMEOUT)
            told = json.loads(ours.makefile().readline())
        assert "message" not in told, told
        return int(told["data"])

    def code(self) -> int:
        """What it says of the container's end."""
        path = self.directory / "exits/job"
        eventually(lambda: path.exists() and path.read_text(), "conmon writes the exit file")
        return int(path.read_text())

    def ended(self, name: str) -> None:
        pid = (self.directory / f"{name}.conmon").read_text().strip()
        eventually(lambda: not Path(f"/proc/{pid}/exe").exists(), "conmon ends")


@pytest.fixture
def short_path(state_dir: str) -> Iterator[Path]:
    """For conmon's sockets."""
    path = Path(f"{state_dir}.c")
    path.mkdir()
    yield path
    shutil.rmtree(path)


@pytest.mark.parametrize("tty", [False, True])
def test_conmon_creates_and_reaps(command: Command, build: Build, tmp_path: Path, short_path: Path, tty: bool) -> None:
    script = "test -t 1 && echo on a terminal; echo out; exit 7"
    conmon = Conmon(command, short_path, make_bundle(tmp_path / "bundle", build("sh", "-c", script), terminal=tty))
    pid = conmon("job", *(["--terminal"] if tty else []))
    state = command.state("job")
    assert (state["status"], state["pid"]) == ("created", pid)
    command.ok("start", "job")
    assert conmon.code() == 7
    log = (short_path / "job.log").read_text()
    assert ("on a terminal" in log, "out" in log) == (tty, True)
    assert command.state("job")["status"] == "stopped"
    command.ok("delete", "job")
    conmon.ended("job")


@pytest.mark.parametrize("tty", [False, True])
def test_conmon_execs(command: Command, build: Build, tmp_path: Path, short_path: Path, tty: bool) -> None:
    conmon = Conmon(command, short_path, make_bundle(tmp_path / "bundle", build("sleep", "100")))
    conmon("job")
    command.ok("start", "job")
    process = {**build("sh", "-c", "test -t 1 && echo on a terminal; exit 9")["process"], "terminal": tty}
    (short_path / "process").write_text(json.dumps(process))
    conmon("exec", "--exec", "--exec-process-spec", str(short_path / "process"), *(["--terminal"] if tty else []))
    assert conmon.code() == 9
    assert ("on a terminal" in (short_path / "exec.log").read_text()) == tty
    conmon.ended("exec")
    (short_path / "exits/job").unlink()
    command.ok("kill", "job", "KILL")
    assert conmon.code() == 137
    command.ok("delete", "job")
    conmon.ended("job")


@pytest.mark.host("systemd", "debian13", "guest")
@pytest.mark.usefixtures("no_scope_is_left")
def test_conmon_asks_for_a_scope(command: Command, build: Build, tmp_path: Path, short_path: Path) -> None:
    """By -s, as podman asks it: then it gives --systemd-cgroup."""
    config = build("sleep", "100")
    config["linux"]["cgroupsPath"] = "pyoci-tests.slice:libpod:one"
    conmon = Conmon(command, short_path, make_bundle(tmp_path / "bundle", config))
    pid = conmon("job", "-s")
    assert scopes() == {"libpod-one.scope"}
    assert "/pyoci.slice/pyoci-tests.slice/libpod-one.scope" in Path(f"/proc/{pid}/cgroup").read_text()
    command.ok("start", "job")
    process = build("sh", "-c", "grep -q libpod-one.scope /proc/self/cgroup && exit 9")["process"]
    (short_path / "process").write_text(json.dumps(process))
    conmon("exec", "-s", "--exec", "--exec-process-spec", str(short_path / "process"))
    assert conmon.code() == 9
    conmon.ended("exec")
    (short_path / "exits/job").unlink()
    command.ok("kill", "job", "KILL")
    assert conmon.code() == 137
    command.ok("delete", "job")
    assert scopes() == set()
    conmon.ended("job")


def test_conmon_passes_on_why_a_create_failed(command: Command, build: Build, tmp_path: Path, short_path: Path) -> None:
    conmon = Conmon(command, short_path, make_bundle(tmp_path / "bundle", build("nosuchprogram")))
    with pytest.raises(AssertionError, match="nosuchprogram"):
        conmon("job")
    assert "nosuchprogram" in json.loads((short_path / "oci-log").read_text())["msg"]


# --- podman -----------------------------------------------------------------------------------------------------------------------

MARKS = ("/run/containers", "/run/libpod", "/sys/fs/cgroup/*/libpod_parent", "/sys/fs/cgroup/libpod_parent")
"""What podman makes outside of its own roots."""

HOW = ("--network", "none", "--pids-limit", "-1", "--read-only")
"""Not every host has the controller for the limit that is podman's default."""

Podman = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def cgroup_manager() -> str:
    return "cgroupfs"


@pytest.fixture
def podman_argv(command: Command, tmp_path: Path, state_dir: str, cgroup_manager: str) -> Iterator[list[str]]:
    """podman with storage of its own, and pyoci-runtime."""
    before = {path for mark in MARKS for path in glob(mark)}
    root = Path(f"{state_dir}.p")
    argv = podman_with(str(root), command.script(tmp_path / "oci"), cgroup_manager)
    yield argv
    subprocess.run([*argv, "rm", "--all", "--force", "--time", "0"], capture_output=True, timeout=TIMEOUT, check=True)
    shutil.rmtree(root)
    for path in {path for mark in MARKS for path in glob(mark)} - before:
        if path.startswith("/sys/"):
            eventually(lambda: not cgroups.remove([path]), "its cgroups go")  # noqa: B023
        else:
            shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def podman(podman_argv: list[str]) -> Podman:
    def call(*argv: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([*podman_argv, *argv], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        assert done.returncode == code, (argv, done.stdout, done.stderr)
        return done

    return call


def test_podman_runs_and_execs(podman: Podman, podman_argv: list[str], rootfs: str, command: Command) -> None:
    how = (*HOW, "--rootfs", rootfs)
    assert podman("run", "--rm", *how, "sh", "-c", "echo out; exit 7", code=7).stdout == "out\n"
    assert "nosuchprogram" in podman("run", "--rm", *how, "nosuchprogram", code=127).stderr
    podman("run", "--rm", *how, "/etc", code=126)
    code, said = on_a_terminal([*podman_argv, "run", "--rm", "-it", *how, "sh", "-c", "test -t 1 && read word && echo got $word"], b"typed\n")
    assert (code, b"got typed" in said) == (0, True), said

    podman("run", "--detach", "--name", "job", *how, "sh", "-c", "trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done")
    assert podman("exec", "job", "sh", "-c", "echo in; exit 4", code=4).stdout == "in\n"
    assert "nosuchprogram" in podman("exec", "job", "nosuchprogram", code=127).stderr
    podman("exec", "--detach", "job", "sleep", "100")
    code, said = on_a_terminal([*podman_argv, "exec", "-it", "job", "sh", "-c", "test -t 1 && read word && echo got $word; exit 5"], b"typed\n")
    assert (code, b"got typed" in said) == (5, True), said
    assert podman("logs", "job").stdout == "ready\n"

    assert json.loads(command.ok("list", "--format", "json"))[0]["status"] == "running"
    podman("pause", "job")
    assert json.loads(command.ok("list", "--format", "json"))[0]["status"] == "paused"
    podman("unpause", "job")
    podman("stop", "job")
    assert podman("inspect", "--format", "{{.State.ExitCode}} {{.State.Status}}", "job").stdout == "3 exited\n"
    podman("start", "job")
    podman("kill", "job")
    assert podman("wait", "job").stdout == "137\n"
    podman("start", "job")
    podman("rm", "--force", "--time", "0", "job")
    eventually(lambda: command.ok("list", "-q") == "", "all is deleted")


@pytest.mark.host("systemd")
@pytest.mark.usefixtures("no_scope_is_left")
@pytest.mark.parametrize("cgroup_manager", ["systemd"])
def test_podman_has_its_scopes(podman: Podman, rootfs: str, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INVOCATION_ID", raising=False)  # in a unit of systemd's podman leaves conmon where it is
    how = (*HOW, "--rootfs", rootfs)
    assert podman("run", "--rm", *how, "sh", "-c", "echo out; exit 7", code=7).stdout == "out\n"
    eventually(lambda: scopes() == set(), "its scopes go")
    program = "trap 'exit 3' TERM; echo ready; while :; do sleep 1 & wait; done"
    id = podman("run", "--detach", "--name", "job", *how, "sh", "-c", program).stdout.strip()
    assert scopes() == {f"libpod-{id}.scope", f"libpod-conmon-{id}.scope"}
    place = podman("inspect", "--format", "{{.State.CgroupPath}}", "job").stdout.strip()
    assert place == f"/machine.slice/libpod-{id}.scope"
    podman("exec", "--detach", "job", "sleep", "100")
    inside = json.loads(command.ok("ps", "--format", "json", id))
    assert len(inside) >= 2
    assert all(place in Path(f"/proc/{pid}/cgroup").read_text() for pid in inside)
    podman("pause", "job")
    podman("unpause", "job")
    podman("stop", "job")
    assert podman("inspect", "--format", "{{.State.ExitCode}} {{.State.Status}}", "job").stdout == "3 exited\n"
    eventually(lambda: scopes() == set(), "conmon's scope goes")
    podman("start", "job")
    podman("rm", "--force", "--time", "0", "job")
    eventually(lambda: command.ok("list", "-q") == "", "all is deleted")
