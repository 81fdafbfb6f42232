"""Options of the command line, each seen by what it does: tests/test_commands.py says which have no test."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

import pyoci
from tests.commands import command_line, pyoci_command

pytestmark = pytest.mark.root
NOTIFY = """use Socket; socket(S, AF_UNIX, SOCK_DGRAM, 0); send(S, "READY=1\\n", 0, pack_sockaddr_un($ENV{NOTIFY_SOCKET})); sleep 100"""
TIMEOUT = 30


@pytest.fixture
def where(runtime: pyoci.OCIRuntime) -> list[str]:
    return ["--state-dir", runtime.state_dir]


@pytest.fixture
def tools(runtime: pyoci.OCIRuntime, tmp_path: Path) -> list[str]:
    """The options for a runtime and a conmon that write down how they are called."""
    place = tmp_path / "tools"
    place.mkdir()
    for path in (runtime.runtime_path, runtime.conmon_path):
        script = place / Path(path).name
        script.write_text(f'#!/bin/sh\necho "$@" >>{script}.calls\nexec {path} "$@"\n')
        script.chmod(0o755)
    return ["--runtime", str(place / runtime.name), "--conmon", str(place / "conmon")]


@pytest.fixture
def with_third(tmp_path: Path) -> list[str]:
    """The words that give a command one descriptor more, a file's."""
    (tmp_path / "given").write_text("preserved\n")
    return ["sh", "-c", f'exec "$@" 3<{tmp_path}/given', "sh"]


@pytest.mark.parametrize("verb", ["run", "create"])
def test_what_the_tools_are_told(where: list[str], tools: list[str], with_third: list[str], rootfs: str, tmp_path: Path, verb: str) -> None:
    root, log = tmp_path / "root", tmp_path / "log"
    shutil.copytree(rootfs, root, symlinks=True)
    options = ["--id", "job", "--rootfs", str(root), "--read-write", "--pid-file", str(tmp_path / "pid"), "--create-timeout", "30"]
    options += ["--runtime-arg=--debug", "--no-shortcuts", "--no-pivot", "--no-new-keyring", "--mount-namespace", "--preserve-fds", "1"]
    options += ["--log-driver", "k8s-file", "--log-path", str(log), "--log-size-max", "1M", "--sync-log", "--log-level", "error"]
    options += ["--cgroup-manager", "cgroupfs", "--conmon-cgroup", "shared", "--strict-cgroups", "--listen-fds", "--network", "host"]
    words = [*(["-d"] if verb == "run" else []), *options, "--", "sh", "-c", "cat <&3; touch /written; sleep 100"]
    argv = [*with_third, *command_line(verb, *where, *tools, *words)]
    done = subprocess.run(argv, capture_output=True, timeout=TIMEOUT, check=False)
    assert (done.returncode, done.stdout) == (0, b"job\n"), done.stderr
    try:
        if verb == "create":
            assert pyoci_command("start", *where, "job").returncode == 0
        with subprocess.Popen(command_line("logs", *where, "-f", "job"), stdout=subprocess.PIPE) as follow:
            assert follow.stdout is not None
            assert follow.stdout.readline() == b"preserved\n"
            follow.kill()
        (state,) = map(json.loads, pyoci_command("state", *where, "--json", "job").stdout.splitlines())
        assert int((tmp_path / "pid").read_text()) == state["pid"]
        assert os.readlink(f"/proc/{state['pid']}/ns/net") == os.readlink("/proc/self/ns/net")
        assert "preserved" in log.read_text()
        assert (root / "written").exists()
        conmon = (tmp_path / "tools/conmon.calls").read_text()
        for word in (
            f"k8s-file:{log}",
            "--log-size-max 1048576",
            "--log-level error",
            "--no-pivot",
            "--no-new-keyring",
            "--runtime-arg --debug",
        ):
            assert word in conmon
        assert "--no-sync-log" not in conmon
        calls = Path(f"{tools[1]}.calls").read_text()
        create = next(line for line in calls.splitlines() if " create " in line)
        for word in ("--debug", "--no-pivot", "--no-new-keyring", "--preserve-fds"):
            assert word in create
        assert " start " in calls  # without shortcuts
    finally:
        assert pyoci_command("delete", *where, "-f", "job").returncode == 0
        shutil.rmtree(root)


def test_what_a_created_command_finds(runtime: pyoci.OCIRuntime, tmp_path: Path) -> None:
    where = ["--state-dir", runtime.state_dir, "--runtime", runtime.runtime_path]
    (tmp_path / "word").write_text("mounted")
    options = ["-w", "/var", "-e", "A=b", "--hostname", "box", "-v", f"{tmp_path}:/tmp/m:ro", "-u", "0:5", "--cgroup-parent", "/"]
    options += ["-m", "64M", "--pids", "50", "--cpus", "0.5", "--read-only", "--network", "private", "-t"]
    done = pyoci_command("create", *where, *options, "--id", "job", "--", "sh", "-c", "pwd; echo $A; hostname; cat /tmp/m/word; id -g; tty; touch /x")
    assert (done.returncode, done.stdout) == (0, b"job\n"), done.stderr
    config = json.loads((Path(runtime.state_dir) / "containers/job/config.json").read_text())
    resources = config["linux"]["resources"]
    assert (resources["memory"]["limit"], resources["pids"]["limit"]) == (64 << 20, 50)
    assert resources["cpu"]["quota"] / resources["cpu"]["period"] == 0.5
    said = pyoci_command("start", *where[:2], "-A", "job").stdout.decode()
    assert said.split()[:4] == ["/var", "b", "box", "mounted5"]
    assert "/dev/" in said
    assert "Read-only file system" in said
    assert pyoci_command("delete", *where[:2], "job").returncode == 0


@pytest.mark.once
def test_what_a_spec_says(rootfs: str, tmp_path: Path) -> None:
    options = ["-w", "/var", "-e", "A=b", "--hostname", "box", "-v", f"{tmp_path}:/tmp/m:ro", "-u", "7:5", "--rootfs", rootfs]
    options += ["-m", "64M", "--pids", "50", "--cpus", "0.5", "--read-only", "--network", "host"]
    config = json.loads(pyoci_command("spec", "--print", *options, "--", "true").stdout)
    process, linux = config["process"], config["linux"]
    assert (process["cwd"], process["args"], process["user"]["uid"], process["user"]["gid"]) == ("/var", ["true"], 7, 5)
    assert "A=b" in process["env"]
    assert (config["hostname"], config["root"]["readonly"]) == ("box", True)
    assert config["root"]["path"].startswith(rootfs)
    assert config["mounts"][-1]["source"] == str(tmp_path)
    assert linux["resources"]["pids"]["limit"] == 50
    assert "network" not in [namespace["type"] for namespace in linux["namespaces"]]
    assert json.loads(pyoci_command("spec", "--print", "--rootfs", "/", "--read-write").stdout)["root"]["readonly"] is False


def test_exec_with_its_other_options(where: list[str], runtime: pyoci.OCIRuntime, with_third: list[str]) -> None:
    assert pyoci_command("run", *where, "--runtime", runtime.runtime_path, "-d", "--id", "job", "sleep", "100").returncode == 0
    argv = command_line("exec", *where, "--no-new-privs", "--preserve-fds", "1", "job", "sh", "-c", "cat <&3; grep NoNewPrivs /proc/self/status")
    done = subprocess.run([*with_third, *argv], capture_output=True, timeout=TIMEOUT, check=False)
    assert pyoci_command("delete", *where, "-f", "job").returncode == 0
    assert done.stdout.split() == [b"preserved", b"NoNewPrivs:", b"1"]


@pytest.mark.parametrize("verb", ["run", "create"])
def test_starting_waits_for_the_program_that_says_ready(where: list[str], runtime: pyoci.OCIRuntime, tmp_path: Path, verb: str) -> None:
    for name in ("usr", "proc", "dev", "sys", "run", "tmp", "etc"):
        (tmp_path / "root" / name).mkdir(parents=True)
    for link in ("bin", "sbin", "lib", "lib64"):
        if os.path.islink(f"/{link}"):
            (tmp_path / "root" / link).symlink_to(f"usr/{link}")
    path = f"{runtime.state_dir}/notify"
    options = ["--runtime", runtime.runtime_path, "--id", "job", "--notify-socket", path, "--rootfs", f"{tmp_path}/root", "--read-only"]
    words = [*where, *options, "--mount", "/usr:/usr:ro", "--", "perl", "-e", NOTIFY]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours:
        ours.bind(path)
        ours.settimeout(0.05)
        if verb == "create":
            assert pyoci_command("create", *words).returncode == 0
        argv = command_line("run", "-d", *words) if verb == "run" else command_line("start", *where, "job")
        received = b""
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as starting:
            while starting.poll() is None:
                try:
                    data, fds, *_ = socket.recv_fds(ours, 4096, 4)
                except TimeoutError:
                    continue
                received += data
                for fd in fds:  # crun waits for their end, as sd_notify_barrier(3) does
                    os.close(fd)
            assert starting.communicate(timeout=TIMEOUT)[0] == b"job\n"
        assert b"READY=1" in received
    assert pyoci_command("delete", *where, "-f", "job").returncode == 0
    os.unlink(path)


@pytest.mark.once
def test_debug_tells_what_is_decided_and_where_it_failed(state_dir: str) -> None:
    done = pyoci_command("--debug", "run", "--state-dir", state_dir, "true")
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"pyoci: " in done.stderr
    assert b"Traceback" in pyoci_command("--debug", "state", "--state-dir", state_dir, "--all", "--json", "none").stderr
