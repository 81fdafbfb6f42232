"""podman of an ordinary user, driving pyoci-runtime, which then is root of podman's user namespace and not of the host."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ociruntime import TIMEOUT, Command, eventually, podman_with

pytestmark = pytest.mark.host("user")


@pytest.fixture
def podman(runtime_name: str, state_dir: str, tmp_path: Path) -> Iterator[list[str]]:
    command = Command(f"{state_dir}/oci", runtime_name)
    root = f"{state_dir}.p"
    argv = podman_with(root, command.script(tmp_path / "oci"))
    yield argv
    subprocess.run([*argv, "rm", "--all", "--force", "--time", "0"], capture_output=True, timeout=TIMEOUT, check=True)
    assert command.ok("list", "-q") == ""
    shutil.rmtree(command.root)
    subprocess.run([*argv, "system", "migrate"], capture_output=True, timeout=TIMEOUT, check=True)  # ends what keeps its namespace
    shutil.rmtree(root)


def test_podman_of_an_ordinary_user(podman: list[str], rootfs: str, tmp_path: Path) -> None:
    root = tmp_path / "rootfs"
    shutil.copytree(rootfs, root, symlinks=True)
    (root / "etc").mkdir(exist_ok=True)
    how = ("--network", "none", "--read-only", "--rootfs", str(root))

    def call(*argv: str, code: int = 0) -> str:
        done = subprocess.run([*podman, *argv], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        assert done.returncode == code, (argv, done.stdout, done.stderr)
        return done.stdout

    assert os.geteuid() != 0
    assert call("run", "--rm", *how, "sh", "-c", "id -u; exit 7", code=7) == "0\n"
    call("run", "--rm", *how, "nosuchprogram", code=127)
    call("run", "--detach", "--name", "job", *how, "sh", "-c", "trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done")
    assert call("exec", "job", "sh", "-c", "echo in; exit 4", code=4) == "in\n"
    eventually(lambda: call("logs", "job") == "ready\n", "its program runs")
    call("stop", "job")
    assert call("inspect", "--format", "{{.State.ExitCode}}", "job") == "3\n"
    call("rm", "job")
