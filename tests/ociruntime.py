"""Driving ``pyoci-runtime`` as tools do: by its command line alone."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pyoci import runtimes
from tests import commands

CHECKOUT = str(Path(__file__).resolve().parent.parent)
TIMEOUT = 60


class Command:
    """The command with a state directory and a runtime of the test's own."""

    def __init__(self, root: str, runtime: str) -> None:
        self.root = root
        self.runtime = runtime
        self.argv = [sys.executable, "-m", "pyoci.ociruntime", "--root", root, "--runtime", runtimes.find_executable(runtime)]

    def line(self, *argv: str) -> list[str]:
        """For a test that starts the command itself, and looks at what comes of it."""
        commands.RUNTIME_RAN.append((*self.argv[3:], *argv))
        return [*self.argv, *argv]

    def __call__(self, *argv: str, stdin: bytes = b"", **how: Any) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run([*self.argv, *argv], input=stdin, capture_output=True, timeout=TIMEOUT, check=False, **how)
        if done.returncode not in (1, 255):  # else it was refused, and its options not used
            self.line(*argv)
        return done

    def ok(self, *argv: str, **how: Any) -> str:
        """What it prints; it succeeds."""
        done = self(*argv, **how)
        assert done.returncode == 0, (argv, done.stderr)
        return done.stdout.decode()

    def detached(self, *argv: str, **how: Any) -> None:
        """For what hands its stdio on: a file, and no pipe of ours that a container would keep open."""
        with tempfile.TemporaryFile() as said:
            done = subprocess.run(self.line(*argv), stdin=subprocess.DEVNULL, stdout=said, stderr=said, timeout=TIMEOUT, check=False, **how)
            said.seek(0)
            assert done.returncode == 0, (argv, said.read())

    def refused(self, *argv: str, code: int = 1) -> str:
        """What it says on stderr: one line. Nothing else comes, and it ends with this code."""
        done = self(*argv)
        said = done.stderr.decode()
        assert (done.returncode, done.stdout) == (code, b""), said
        assert said.count("\n") == 1, said
        return said

    def state(self, id: str) -> dict[str, Any]:
        found = json.loads(self.ok("state", id))
        assert isinstance(found, dict)
        return found

    def script(self, path: Path) -> str:
        """The same as one executable, for tools that take a path."""
        path.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(CHECKOUT)} exec {shlex.join(self.argv)} "$@"\n')
        path.chmod(0o755)
        return str(path)


def podman_with(root: str, runtime: str, cgroup_manager: str = "cgroupfs") -> list[str]:
    """podman with storage of its own below ``root``, and with this runtime. That one is a script (``Command.script``): podman's own clean-up after
    a container's end does not get its --runtime-flag."""
    argv = ["podman", "--root", f"{root}/root", "--runroot", f"{root}/run", "--tmpdir", f"{root}/tmp", "--cgroup-manager", cgroup_manager]
    return [*argv, "--storage-driver", "vfs", "--events-backend", "none", "--runtime", runtime]


def make_bundle(path: Path, config: Mapping[str, Any], **process: Any) -> str:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps({**config, "process": {**config["process"], **process}}))
    return str(path)


def eventually(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def read_all(fd: int) -> bytes:
    """Until a terminal hangs up."""
    said = b""
    try:
        while part := os.read(fd, 4096):
            said += part
    except OSError:
        pass  # EIO
    return said
