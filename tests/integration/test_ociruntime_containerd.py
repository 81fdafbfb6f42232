"""containerd's shim, driving pyoci-runtime: a containerd of the test's own, and ctr. What is below makes no difference to it: runc is."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import machine, trees
from tests.integration.test_ociruntime import on_a_terminal
from tests.ociruntime import TIMEOUT, Command, eventually

pytestmark = [pytest.mark.root, pytest.mark.once]

HERE = Path("/run/containerd")
"""Where the shims have their sockets, whatever the configuration says."""
CONFIG = """
version = 2
root = "{0}/root"
state = "{0}/state"
disabled_plugins = [{1}]
[grpc]
address = "{0}/socket"
[ttrpc]
address = "{0}/ttrpc"
"""
UNUSED = ("grpc.v1.cri", "internal.v1.opt", *(f"snapshotter.v1.{name}" for name in ("btrfs", "zfs", "aufs", "devmapper", "overlayfs")))

Ctr = Callable[..., str]


@pytest.fixture
def ctr_argv(state_dir: str) -> Iterator[list[str]]:
    programs = trees.unpacked("containerd") / "usr/bin"
    directory = Path(f"{state_dir}.c")
    directory.mkdir()
    config = directory / "config.toml"
    config.write_text(CONFIG.format(directory, ", ".join(f'"io.containerd.{name}"' for name in UNUSED)))
    was_there = HERE.exists()
    HERE.mkdir(exist_ok=True)
    machine.mount("tmpfs", str(HERE), "mode=0711")
    argv = [str(programs / "ctr"), "--address", str(directory / "socket")]
    with (directory / "log").open("wb") as log:
        daemon = subprocess.Popen(
            [programs / "containerd", "--config", config],
            env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        eventually(lambda: subprocess.run([*argv, "version"], capture_output=True, timeout=TIMEOUT, check=False).returncode == 0, "containerd is up")
        yield argv
    finally:
        # Where the test has failed: a shim outlives its containerd.
        subprocess.run([*argv, "task", "delete", "--force", "job"], capture_output=True, timeout=TIMEOUT, check=False)
        daemon.terminate()
        daemon.wait(TIMEOUT)
        machine.umount(str(HERE))
        if not was_there:
            HERE.rmdir()
        shutil.rmtree(directory)


@pytest.fixture
def ctr(ctr_argv: list[str]) -> Ctr:
    def call(*argv: str, code: int = 0, on_stderr: str = "") -> str:
        done = subprocess.run([*ctr_argv, *argv], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        assert done.returncode == code, (argv, done.stdout, done.stderr)
        assert on_stderr in done.stderr
        return done.stdout

    return call


def test_containerd_runs_and_execs(ctr: Ctr, ctr_argv: list[str], rootfs: str, tmp_path: Path) -> None:
    script = Command(f"{HERE}/runc/default", "runc").script(tmp_path / "oci")
    root = tmp_path / "rootfs"
    shutil.copytree(rootfs, root, symlinks=True)
    how = ("--runc-binary", script, "--cgroup", "/ctr-job", "--env", "PATH=/bin", "--rootfs")

    def status() -> list[str]:
        return ctr("task", "ls").splitlines()[1].split()

    assert ctr("run", "--rm", *how, str(root), "job", "sh", "-c", "echo out; exit 7", code=7) == "out\n"
    ctr("run", "--rm", *how, str(root), "job", "nosuchprogram", code=1, on_stderr="nosuchprogram")
    ctr("run", "--detach", *how, str(root), "job", "sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.05; done")
    assert ctr("task", "exec", "--exec-id", "a", "job", "sh", "-c", "echo in; exit 4", code=4) == "in\n"
    ctr("task", "exec", "--exec-id", "b", "job", "nosuchprogram", code=1, on_stderr="nosuchprogram")
    command = ["sh", "-c", "test -t 1 && read word && echo got $word; exit 5"]
    code, said = on_a_terminal([*ctr_argv, "task", "exec", "--tty", "--exec-id", "c", "job", *command], b"typed\n")
    assert (code, b"got typed" in said) == (5, True), said
    ctr("task", "exec", "--detach", "--exec-id", "d", "job", "sleep", "100")
    listed = ctr("task", "ps", "job")
    assert "ExecID:d" in listed or 'exec_id:"d"' in listed  # containerd 1.6, 1.7
    _, pid, state = status()
    assert (pid in listed.split(), state) == (True, "RUNNING")
    ctr("task", "pause", "job")
    assert status()[2] == "PAUSED"
    ctr("task", "resume", "job")
    assert status()[2] == "RUNNING"
    ctr("task", "kill", "--exec-id", "d", "--signal", "KILL", "job")
    ctr("task", "kill", "--signal", "TERM", "job")
    eventually(lambda: status()[2] == "STOPPED", "it ends")
    ctr("task", "delete", "job", on_stderr="exit code 3")
    ctr("container", "rm", "job")
