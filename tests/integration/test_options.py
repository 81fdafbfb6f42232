"""The options of OCIRuntime and of create, on the real conmon's files and on what containers find."""

import asyncio
import json
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import pyoci
from tests.containers import FOREVER, Build, ready


def made(runtime: pyoci.OCIRuntime, **options: object) -> pyoci.OCIRuntime:
    """Another one with the same runtime and state directory."""
    return pyoci.OCIRuntime(runtime.runtime_path, state_dir=runtime.state_dir, **options)  # type: ignore[arg-type]


def output(container: pyoci.Container) -> str:
    """What it writes in its life."""
    container.start()
    container.wait(30)
    return Path(container.log_path).read_text()


# --- logs -------------------------------------------------------------------------------------------------------------------------


def test_the_log_begins_anew_at_its_size_limit(runtime: pyoci.OCIRuntime, build: Build) -> None:
    with runtime.create(build("sh", "-c", "for i in $(seq 1000); do echo line $i; done"), log_size_max=4096) as container:
        log = output(container)
        assert 0 < len(log) <= 4096
        assert log.endswith("line 1000\n")
        assert "line 1\n" not in log
        assert sorted(path.name for path in Path(container.directory).glob("log*")) == ["log"]


def test_without_a_limit_all_is_kept(runtime: pyoci.OCIRuntime, build: Build) -> None:
    with made(runtime, log_size_max=100).create(build("sh", "-c", "for i in $(seq 1000); do echo line $i; done"), log_size_max=-1) as container:
        log = output(container)
        assert log.startswith("20")
        assert " stdout F line 1\n" in log
        assert log.count("\n") >= 1000  # a line that came in two parts is told in two


def test_a_log_at_a_place_of_ones_own_stays(runtime: pyoci.OCIRuntime, build: Build, tmp_path: Path) -> None:
    path = tmp_path / "job.log"
    with runtime.create(build("echo", "hello"), log_path=path) as container:
        assert container.log_path == str(path)
        assert pyoci.Container.load(container.id, state_dir=runtime.state_dir).log_path == str(path)
        assert output(container).endswith(" stdout F hello\n")
        assert not Path(container.directory, "log").exists()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().endswith(" stdout F hello\n")


def test_no_log(runtime: pyoci.OCIRuntime, build: Build) -> None:
    with runtime.create(build("sh", "-c", "echo hello; exit 3"), log_driver="none") as container:
        assert container.log_driver == "none"
        container.start()
        assert container.wait(30).code == 3
        assert not Path(container.log_path).exists()


def test_a_log_that_cannot_be_opened(runtime: pyoci.OCIRuntime, build: Build, tmp_path: Path) -> None:
    with pytest.raises(pyoci.InvalidOption, match="no such directory"):
        runtime.create(build("true"), log_path=tmp_path / "nowhere" / "log")
    with pytest.raises(pyoci.ConmonError, match="Failed to open log file"):
        runtime.create(build("true"), log_path=tmp_path)


def test_a_failed_create_leaves_no_log(runtime: pyoci.OCIRuntime, build: Build, tmp_path: Path) -> None:
    config = build("true")
    config["mounts"].append({"destination": "/mnt", "type": "bind", "source": "/nowhere", "options": ["bind"]})
    path = tmp_path / "job.log"
    with pytest.raises(pyoci.CreateError, match="nowhere"):
        runtime.create(config, log_path=path)
    assert not path.exists()


@pytest.mark.host("systemd")
def test_the_journal(runtime: pyoci.OCIRuntime, build: Build) -> None:
    with runtime.create(build("sh", "-c", "echo out; echo err >&2"), log_driver="journald") as container:
        container.start()
        container.wait(30)
        assert not Path(container.log_path).exists()
        subprocess.run(["journalctl", "--sync"], check=True)
        argv = ["journalctl", "--output=json", f"CONTAINER_ID_FULL={container.id}"]
        lines = subprocess.run(argv, check=True, capture_output=True).stdout.splitlines()
        assert {(entry.stream, entry.text) for entry in container.logs(follow=True)} == {("stdout", "out"), ("stderr", "err")}
        assert [entry.data for entry in container.logs(stream="stderr", tail=1)] == [b"err"]
    assert {(entry["MESSAGE"], entry["PRIORITY"]) for entry in map(json.loads, lines)} == {("out\n", "6"), ("err\n", "3")}


# --- descriptors ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def three(tmp_path: Path) -> Iterator[list[int]]:
    """Descriptors of files that hold "a", "b" and "c"."""
    fds = []
    for name in "abc":
        (tmp_path / name).write_text(name)
        fds.append(os.open(tmp_path / name, os.O_RDONLY | os.O_CLOEXEC))
    yield fds
    for fd in fds:
        os.close(fd)


SHOW = "read -r a <&3; read -r b <&4; read -r c <&5; echo $a $b $c $LISTEN_FDS $LISTEN_PID $LISTEN_FDNAMES; [ -e /proc/self/fd/6 ] || echo no more"


def test_descriptors_reach_the_container_from_3_on(runtime: pyoci.OCIRuntime, build: Build, three: list[int]) -> None:
    a, b, c = three
    with runtime.create(build("sh", "-c", SHOW), listen_fds={"web": c, "api": a}, preserve_fds=[b]) as container:
        assert [line.split(" ", 3)[3] for line in output(container).splitlines()] == ["c a b 2 1 web:api", "no more"]


def test_descriptors_without_conmon(runtime: pyoci.OCIRuntime, rootfs: str, three: list[int]) -> None:
    direct = made(runtime, monitor="direct", preserve_fds=three)
    assert pyoci.run(["sh", "-c", SHOW], rootfs=rootfs, read_only=True, runtime=direct, text=True).stdout == "a b c\nno more\n"


def test_options_awaited(runtime: pyoci.OCIRuntime, build: Build, three: list[int], tmp_path: Path) -> None:
    async def main() -> None:
        awaited = pyoci.aio.OCIRuntime(runtime.runtime_path, state_dir=runtime.state_dir, log_size_max="1M", env={"WANTED": "yes"})
        config = build("sh", "-c", SHOW)
        async with await awaited.create(config, listen_fds=three[:2], preserve_fds=three[2:], log_path=tmp_path / "log") as container:
            await container.start()
            assert (await container.wait(30)).code == 0

    asyncio.run(main())
    assert " stdout F a b c 2 1 unknown:unknown\n" in (tmp_path / "log").read_text()


def test_preserved_descriptors_are_not_for_activation(runtime: pyoci.OCIRuntime, build: Build, three: list[int]) -> None:
    with runtime.create(build("sh", "-c", SHOW), preserve_fds=three) as container:
        assert " stdout F a b c\n" in output(container)


def test_descriptors_reach_a_program_that_is_run(runtime: pyoci.OCIRuntime, rootfs: str, three: list[int]) -> None:
    done = pyoci.run(["sh", "-c", SHOW], rootfs=rootfs, read_only=True, runtime=made(runtime, preserve_fds=three), text=True)
    assert done.stdout == "a b c\nno more\n"


def test_an_activated_process_passes_its_sockets_on(runtime: pyoci.OCIRuntime, rootfs: str) -> None:
    """The listening socket of a process that was activated as systemd does it serves a connection inside of the container."""
    program = """
import os, sys
os.environ["LISTEN_PID"] = str(os.getpid())
import pyoci
rt = pyoci.OCIRuntime(sys.argv[1], state_dir=sys.argv[2])
spec = pyoci.spec.build(["sh", "-c", "echo $LISTEN_FDS $LISTEN_PID $LISTEN_FDNAMES; readlink /proc/self/fd/3"], rootfs=sys.argv[3], read_only=True)
with rt.create(spec, listen_fds=True) as c:
    c.start()
    c.wait(30)
    print(open(c.log_path).read())
"""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{runtime.state_dir}/web")
        listener.listen()
        inode = os.fstat(listener.fileno()).st_ino
        # As systemd starts a service: the descriptor is 3, whatever else is open.
        shell = 'fd=$1; shift; exec 3<&"$fd" "$@"'
        argv = ["bash", "-c", f"{shell}", "bash", str(listener.fileno()), sys.executable, "-c", program]
        done = subprocess.run(
            [*argv, runtime.runtime_path, runtime.state_dir, rootfs],
            pass_fds=[listener.fileno()],
            env={**os.environ, "LISTEN_FDS": "1", "LISTEN_FDNAMES": "web"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        os.unlink(f"{runtime.state_dir}/web")
    assert "1 1 web\n" in done.stdout, done.stderr
    assert f"socket:[{inode}]" in done.stdout


# --- environment ------------------------------------------------------------------------------------------------------------------

LEAKS = ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "_OCI_ATTACHPIPE", "LD_PRELOAD_SECRET", "SECRET_TOKEN")

RECORDER = """#!/bin/bash
tr '\\0' '\\n' </proc/$$/environ >>"$(dirname "$0")/seen"
exec {real} "$@"
"""


def test_row_25_only_what_was_asked_for_passes(runtime: pyoci.OCIRuntime, build: Build, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """conmon, every call of the runtime, and the container: none sees the caller's secrets, nor what steers its service manager."""
    for name in LEAKS:
        monkeypatch.setenv(name, "leaked")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    recorder = tmp_path / "runtime"
    recorder.write_text(RECORDER.format(real=runtime.runtime_path))
    recorder.chmod(0o755)
    wanted = pyoci.OCIRuntime(recorder, state_dir=runtime.state_dir, env={"WANTED": "yes"})
    # Later it is another: every call of this container's gets what the create got.
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/elsewhere")
    with wanted.create(build(*FOREVER)) as container:
        environ = Path(f"/proc/{container.conmon_pid}/environ").read_bytes()
        assert b"leaked" not in environ
        assert b"WANTED=yes\0" in environ
        container.start()
        ready(container)
        environ = Path(f"/proc/{container.pid}/environ").read_bytes()
        assert b"leaked" not in environ
        assert b"WANTED" not in environ
        with container.exec(["env"], stdout=subprocess.PIPE) as session:
            said, _ = session.communicate(timeout=30)
        assert said is not None
        assert b"PATH=" in said
        assert b"leaked" not in said
        assert b"WANTED" not in said
        pyoci.Container.load(container.id, state_dir=runtime.state_dir).state()
    seen = (tmp_path / "seen").read_text()
    (tmp_path / "seen").unlink()
    assert "leaked" not in seen
    assert f"XDG_RUNTIME_DIR={tmp_path}\n" in seen
    assert "elsewhere" not in seen
    assert seen.count("WANTED=yes\n") == seen.count("XDG_RUNTIME_DIR=") >= 3


@pytest.mark.parametrize(
    "env", [{"": "x"}, {"A=B": "x"}, {"A": "x\0"}, {"A": 1}, {"NOTIFY_SOCKET": "/n"}, {"LISTEN_FDS": "1"}, {"_OCI_SYNCPIPE": "3"}]
)
def test_an_environment_that_makes_no_sense_is_refused(runtime: pyoci.OCIRuntime, env: dict[str, str]) -> None:
    with pytest.raises(pyoci.InvalidOption, match="env"):
        made(runtime, env=env)


@pytest.mark.parametrize("monitor", ["conmon", "direct"])
def test_the_start_tells_that_the_container_is_ready(runtime: pyoci.OCIRuntime, build: Build, monitor: str) -> None:
    """With notify_socket the runtime passes READY=1 on, and start returns then. busybox has no program that can send a datagram: what the
    container would say is said here, on the socket that it would say it on."""
    path = f"{runtime.state_dir}/notify"
    received: list[bytes] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours:
        ours.bind(path)

        def listen() -> None:
            while True:
                data, fds, *_ = socket.recv_fds(ours, 4096, 4)
                # crun waits for this, as sd_notify_barrier(3) does: systemd closes what comes with BARRIER=1.
                for fd in fds:
                    os.close(fd)
                received.append(data)
                if data == b"end":
                    return

        listener = threading.Thread(target=listen)
        listener.start()
        try:
            with runtime.create(build(*FOREVER), notify_socket=path, monitor=monitor) as container:
                starter = threading.Thread(target=container.start)
                starter.start()
                place = Path(runtime.state_dir, container._life.host.runtime.name, container.id)
                proxies: list[Path] = []
                while not proxies:  # it is made at the start
                    assert starter.is_alive()
                    time.sleep(0.01)
                    proxies = [path for path in place.rglob("notify*") if path.is_socket()]
                with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as theirs:
                    theirs.connect(str(proxies[0]))
                    theirs.send(b"READY=1\n")
                starter.join(30)
                assert not starter.is_alive()
                assert container.state() == "running"
                pid = container.pid
                assert pid is not None
                assert b"NOTIFY_SOCKET=" in Path(f"/proc/{pid}/environ").read_bytes()
        finally:
            ours.connect(path)
            ours.send(b"end")
            listener.join()
            os.unlink(path)
    assert any(data.startswith(b"READY=1") for data in received)


# --- OCIRuntime -------------------------------------------------------------------------------------------------------------------


def test_the_first_candidate_that_works_is_taken(runtime: pyoci.OCIRuntime, tmp_path: Path) -> None:
    other = pyoci.OCIRuntime([tmp_path / "none", runtime.runtime_path], state_dir=runtime.state_dir, conmon_path=[tmp_path / "none", "conmon"])
    assert other.runtime_path == runtime.runtime_path
    assert other.conmon_path == runtime.conmon_path


def test_no_candidate_works(runtime: pyoci.OCIRuntime, tmp_path: Path) -> None:
    with pytest.raises(pyoci.NoRuntime) as caught:
        pyoci.OCIRuntime([tmp_path / "a", tmp_path / "b"], state_dir=runtime.state_dir)
    assert set(caught.value.tried) == {str(tmp_path / "a"), str(tmp_path / "b")}
    with pytest.raises(pyoci.ExecutableError) as missing:
        made(runtime, conmon_path=[tmp_path / "a", tmp_path / "b"])
    assert missing.value.filename == str(tmp_path / "a")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("create_timeout", 0),
        ("create_timeout", -1),
        ("create_timeout", float("nan")),
        ("create_timeout", float("inf")),
        ("create_timeout", "5"),
        ("kill_timeout", 0),
        ("kill_timeout", True),
        ("runtime", ""),
        ("runtime", []),
        ("conmon_path", ""),
        ("conmon_path", []),
        ("runtime_args", "--debug"),
        ("runtime_args", [""]),
        ("runtime_args", ["a\0b"]),
        ("log_driver", "json-file"),
        ("log_size_max", 0),
        ("no_pivot", 1),
        ("preserve_fds", [-1]),
    ],
)
def test_a_bad_option_is_refused_before_anything_is_made(tmp_path: Path, name: str, value: object) -> None:
    with pytest.raises(pyoci.InvalidOption):
        pyoci.OCIRuntime(**{"runtime": "runc", "state_dir": tmp_path / "state", name: value})  # type: ignore[arg-type]
    assert not (tmp_path / "state").exists()


def test_options_reach_conmons_command_line(runtime: pyoci.OCIRuntime, build: Build) -> None:
    tuned = made(runtime, no_new_keyring=True, log_level="debug", log_size_max="1M", runtime_args=["--debug"])
    with tuned.create(build(*FOREVER)) as container:
        line = Path(f"/proc/{container.conmon_pid}/cmdline").read_bytes().decode().split("\0")
        for wanted in ("--no-new-keyring", "--syslog", "--debug"):
            assert wanted in line
        assert line[line.index("--log-size-max") + 1] == str(1 << 20)
        assert line[line.index("--log-level") + 1] == "debug"
        container.start()
        assert container.state() == "running"


def test_a_container_without_pivot_root(runtime: pyoci.OCIRuntime, build: Build) -> None:
    with runtime.create(build("sh", "-c", "ls /bin/busybox"), no_pivot=True) as container:
        assert " stdout F /bin/busybox\n" in output(container)


def test_the_kill_timeout_goes_with_the_container(runtime: pyoci.OCIRuntime, build: Build) -> None:
    with made(runtime, kill_timeout=7.5).create(build("true")) as container:
        assert pyoci.Container.load(container.id, state_dir=runtime.state_dir)._life.host.kill_timeout == 7.5


@pytest.mark.parametrize("version", ["2.0.25", "2.1.6", "nonsense"])
def test_a_conmon_that_is_too_old_is_named(runtime: pyoci.OCIRuntime, build: Build, tmp_path: Path, version: str) -> None:
    tool = tmp_path / "conmon"
    tool.write_text(
        f'#!/bin/sh\nif [ "$1" = --version ]; then echo conmon version {version}; exit; fi\necho "Unknown option --full-attach" >&2; exit 1\n'
    )
    tool.chmod(0o755)
    with pytest.raises(pyoci.ConmonError, match="Unknown option --full-attach") as caught:
        made(runtime, conmon_path=tool).create(build("true"))
    assert isinstance(caught.value, pyoci.ConmonTooOld) == (version == "2.0.25")
    if isinstance(caught.value, pyoci.ConmonTooOld):
        assert caught.value.version == (2, 0, 25)
        assert "2.0.25" in str(caught.value)
        assert "2.0.31 or newer is needed" in str(caught.value)
