"""``pyoci attach`` and ``--network NAME``, as commands."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest

import pyoci
from pyoci.networks import NetworkNamespace
from tests.commands import command_line, pyoci_command

TIMEOUT = 30
ECHO = "echo ready; while read word; do echo got $word; test $word = end && exit 5; done; exit 6"


@pytest.fixture
def where(runtime: pyoci.OCIRuntime) -> list[str]:
    return ["--state-dir", runtime.state_dir, "--runtime", runtime.runtime_path]


def until(fd: int, word: bytes) -> bytes:
    said, deadline = b"", time.monotonic() + TIMEOUT
    while word not in said:
        assert time.monotonic() < deadline, said
        if select.select([fd], [], [], 1)[0]:
            said += os.read(fd, 4096)
    return said


def test_our_stdio_is_joined_to_its(where: list[str]) -> None:
    at = where[:2]
    assert pyoci_command("create", *where, "-i", "--id", "job", "--", "sh", "-c", ECHO).returncode == 0
    with subprocess.Popen(command_line("attach", *at, "job"), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as attached:
        assert attached.stdin is not None
        assert attached.stdout is not None
        deadline = time.monotonic() + TIMEOUT
        while not is_attached(attached.pid):
            assert time.monotonic() < deadline
        assert pyoci_command("start", *at, "job").returncode == 0
        assert until(attached.stdout.fileno(), b"ready") == b"ready\n"
        out, _ = attached.communicate(b"one\x10\x11\nend\n", timeout=TIMEOUT)  # no keys where there is no terminal
        assert (attached.returncode, out) == (5, b"got one\x10\x11\ngot end\n")
    ended = pyoci_command("attach", *at, "job")
    assert (ended.returncode, len(ended.stderr.splitlines())) == (125, 1)
    assert pyoci_command("delete", *at, "job").returncode == 0


def is_attached(pid: int) -> bool:
    """It has a socket: its only one is conmon's."""
    try:
        return any(os.readlink(f"/proc/{pid}/fd/{fd}").startswith("socket:") for fd in os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return False


def test_a_terminal_is_left_by_keys_and_found_again(where: list[str]) -> None:
    at = where[:2]
    assert pyoci_command("run", *where, "-dit", "--id", "job", "--", "sh", "-c", ECHO).returncode == 0
    ours, theirs = pty.openpty()
    try:
        for keys, argv in ((b"\x10\x11", ["attach", *at]), (b"a\x1a", ["attach", *at, "--detach-keys", "a,ctrl-z"])):
            with subprocess.Popen(command_line(*argv, "job"), stdin=theirs, stdout=theirs, stderr=subprocess.PIPE) as attached:
                os.write(ours, b"w\x10\r")  # the beginning of the keys, and no more: the container's
                until(ours, b"got w")
                os.write(ours, keys)
                assert attached.wait(TIMEOUT) == 0
                assert attached.stderr is not None
                assert attached.stderr.read() == b""
            assert b"running" in pyoci_command("state", *at, "job").stdout
        with subprocess.Popen(command_line("attach", *at, "--no-stdin", "job"), stdin=theirs, stdout=theirs) as attached:
            time.sleep(0.3)
            attached.send_signal(signal.SIGTERM)  # for which the shell has no handler
            assert attached.wait(TIMEOUT) == 143
        assert b"running" in pyoci_command("state", *at, "job").stdout
        with subprocess.Popen(command_line("attach", *at, "job"), stdin=theirs, stdout=theirs) as attached:
            os.write(ours, b"end\r")
            until(ours, b"got end")
            assert attached.wait(TIMEOUT) == 5
    finally:
        os.close(ours)
        os.close(theirs)
        assert pyoci_command("delete", *at, "-f", "job").returncode == 0


@pytest.mark.once
@pytest.mark.parametrize("keys", ["ctrl-", "ctrl-p,", ",", "ctrl-1", "ab", "é"])
def test_keys_that_are_none(state_dir: str, keys: str) -> None:
    done = pyoci_command("attach", "--state-dir", state_dir, "--detach-keys", keys, "job")
    assert (done.returncode, len(done.stderr.splitlines())) == (125, 1)
    assert b"--detach-keys" in done.stderr


@pytest.mark.root
@pytest.mark.usefixtures("network_names")
def test_a_network_namespace_by_its_name(where: list[str]) -> None:
    with NetworkNamespace.make("for-tests") as namespace:
        there = os.stat(namespace.path).st_ino
        done = pyoci_command("run", *where, "--network", "for-tests", "readlink", "/proc/self/ns/net")
        assert done.stdout.decode() == f"net:[{there}]\n", done.stderr
        assert f'"path": "{namespace.path}"'.encode() in pyoci_command("spec", "--print", "--network", "for-tests").stdout
    for name, words in (("for-tests", "does not exist"), ("../x", "must consist of"), ("/etc/passwd", "is no namespace")):
        done = pyoci_command("run", *where, "--network", name, "true")
        assert (done.returncode, len(done.stderr.splitlines())) == (125, 1), done.stderr
        assert words in done.stderr.decode()
    assert os.listdir(Path(where[1], "containers")) == []
