"""What must survive: rows 1 to 6, 9, 10, 14, 15, 18, 23, 24 and 32 of the fault table in docs/faults.md. The audit fixture checks the
invariant (nothing left, nothing lost) after every test here."""

import contextlib
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import pyoci
from tests.containers import FOREVER, Build, asking, kernel_tells, status_fields
from tests.long import LONG


def script(path: Path, body: str) -> str:
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(0o755)
    return str(path)


# conmon's part in a handshake, for a fake of it: OPTION takes an option's value from the arguments, SAY writes a line to the sync pipe.
CONMON = """
option() { local want=$1; shift; while [ $# -gt 0 ]; do if [ "$1" = "$want" ]; then echo "$2"; return; fi; shift; done; }
bundle=$(option -b "$@"); pidfile=$(option --conmon-pidfile "$@")
say() { printf '%s' "$1" >&"$_OCI_SYNCPIPE"; }
IFS= read -r -d '' -n 1 -u "$_OCI_STARTPIPE" _
"""


# --- row 1 ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["conmon", "runtime"])
@pytest.mark.parametrize("what", ["missing", "directory", "mode", "format"])
def test_row_1_an_executable_that_is_none(state_dir: str, tmp_path: Path, which: str, what: str) -> None:
    path = tmp_path / "tool"
    if what == "directory":
        path.mkdir()
    elif what != "missing":
        path.write_text("no program")
        path.chmod(0o644 if what == "mode" else 0o755)
    with pytest.raises(pyoci.ExecutableError, match=str(path)) as caught:
        if which == "conmon":
            pyoci.OCIRuntime(conmon_path=path, state_dir=state_dir)
        else:
            pyoci.OCIRuntime(path, state_dir=state_dir)
    assert isinstance(caught.value, OSError)
    assert caught.value.errno
    assert not Path(state_dir, "containers").exists()


@pytest.mark.parametrize("which", ["conmon", "runtime"])
def test_row_1_an_executable_that_vanishes_later(runtime: pyoci.OCIRuntime, build: Build, tmp_path: Path, which: str) -> None:
    tool = script(tmp_path / "tool", "exit 0")
    made = pyoci.OCIRuntime(
        tool if which == "runtime" else runtime.runtime_path,
        conmon_path=tool if which == "conmon" else runtime.conmon_path,
        state_dir=runtime.state_dir,
    )
    os.unlink(tool)
    with pytest.raises(pyoci.Error, match=tool):
        made.create(build("true"))
    assert made.list() == []


# --- row 2 ------------------------------------------------------------------------------------------------------------------------


def test_row_2_conmon_fails_before_its_message(runtime: pyoci.OCIRuntime, build: Build, tmp_path: Path) -> None:
    conmon = script(tmp_path / "conmon", "echo 'conmon: no room for the log' >&2; exit 3")
    made = pyoci.OCIRuntime(runtime.runtime_path, conmon_path=conmon, state_dir=runtime.state_dir)
    with pytest.raises(pyoci.ConmonError) as caught:
        made.create(build("true"), "job")
    assert caught.value.returncode == 3
    assert caught.value.stderr == b"conmon: no room for the log\n"
    assert "no room for the log" in str(caught.value)
    assert "'job'" in str(caught.value)


def test_row_2_the_real_conmon_with_a_log_that_it_cannot_open(runtime: pyoci.OCIRuntime, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyoci import conmon

    real = conmon.arguments

    def arguments(**options: Any) -> list[str]:
        argv = real(**options)
        return [argument.replace("k8s-file:", "k8s-file:/nonexistent/") for argument in argv]

    monkeypatch.setattr(conmon, "arguments", arguments)
    with pytest.raises(pyoci.ConmonError, match=r"log file.*No such file") as caught:
        runtime.create(build("true"))
    assert caught.value.returncode == 1


def test_row_2_conmon_killed_before_its_message(runtime: pyoci.OCIRuntime, build: Build, tmp_path: Path) -> None:
    made = pyoci.OCIRuntime(runtime.runtime_path, conmon_path=script(tmp_path / "conmon", "kill -9 $$"), state_dir=runtime.state_dir)
    with pytest.raises(pyoci.ConmonError, match="signal 9") as caught:
        made.create(build("true"))
    assert caught.value.returncode == -9


# --- row 3 ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", ["exit 0", "exit 1"])
def test_row_3_a_runtime_without_a_pidfile_or_a_word(runtime: pyoci.OCIRuntime, build: Build, tmp_path: Path, body: str) -> None:
    made = pyoci.OCIRuntime(script(tmp_path / "runtime", body), state_dir=runtime.state_dir)
    with pytest.raises(pyoci.CreateError) as caught:
        made.create(build("true"), "job")
    assert "'job'" in str(caught.value)


def test_row_3_the_runtimes_words_are_told(runtime: pyoci.OCIRuntime, build: Build) -> None:
    config = build("true")
    config["mounts"].append({"destination": "/home", "type": "nosuchfs", "source": "x"})
    with pytest.raises(pyoci.CreateError) as caught:
        runtime.create(config)
    assert "No such device" in str(caught.value) or "no such device" in str(caught.value)
    assert caught.value.stderr


# --- row 4 ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pid", ["0", "1", "$PPID", "OURS", "BYSTANDER", "4194305"])
def test_row_4_a_pid_that_is_not_the_containers_is_left_alone(runtime: pyoci.OCIRuntime, build: Build, tmp_path: Path, pid: str) -> None:
    bystander = subprocess.Popen(["sleep", "100"])
    try:
        told = pid.replace("OURS", str(os.getpid())).replace("BYSTANDER", str(bystander.pid))
        body = f"""{CONMON}
( sleep 0.1 & echo -n $! > "$pidfile"; say '{{"data": '{told}'}}
'; wait ) & exit 0"""
        made = pyoci.OCIRuntime(runtime.runtime_path, conmon_path=script(tmp_path / "conmon", body), state_dir=runtime.state_dir)
        with pytest.raises((pyoci.ProtocolError, pyoci.CreateError)):
            made.create(build("true"))
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


@pytest.mark.parametrize("content", ["abc", "0", "1", "-1", ""])
def test_row_4_a_bad_pidfile_passes_through_conmon_and_is_refused(runtime: pyoci.OCIRuntime, build: Build, tmp_path: Path, content: str) -> None:
    body = f"""while [ $# -gt 0 ]; do [ "$1" = --pid-file ] && echo -n '{content}' > "$2"; shift; done"""
    made = pyoci.OCIRuntime(script(tmp_path / "runtime", body), state_dir=runtime.state_dir)
    with pytest.raises((pyoci.ProtocolError, pyoci.CreateError, pyoci.ConmonError)):
        made.create(build("true"))


def test_row_4_a_recycled_pid_on_disk_is_not_the_container(runtime: pyoci.OCIRuntime, build: Build) -> None:
    container = runtime.create(build(*FOREVER), "job")
    container.start()
    container.stop(timeout=0)
    bystander = subprocess.Popen(["sleep", "100"])
    try:
        pids = Path(container.directory, "pids")
        pids.write_text(" ".join([str(bystander.pid), *pids.read_text().split()[1:]]) + "\n")
        loaded = runtime.load("job")
        assert loaded.pid is None
        loaded.stop(timeout=0)
        with pytest.raises(pyoci.ContainerStateError):
            loaded.kill("KILL")
        loaded.delete(force=True)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


# --- row 5 ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        r"say $'\xff\xfe\n'",
        """say '{"data": 47'""",
        """say '{"data": 4711, "data": 4712}\n'""",
        """say '{"data": true}\n'""",
        """say '{"data": 1000000000000000000000000000000}\n'""",
        """head -c 1048576 /dev/zero | tr '\\0' x >&"$_OCI_SYNCPIPE\"""",
        """say '\n'""",
    ],
)
def test_row_5_what_is_no_message_is_a_protocol_error(runtime: pyoci.OCIRuntime, build: Build, tmp_path: Path, message: str) -> None:
    body = f'{CONMON}\n( sleep 0.3 & echo -n $! > "$pidfile"; {message} ) & exit 0'
    made = pyoci.OCIRuntime(runtime.runtime_path, conmon_path=script(tmp_path / "conmon", body), state_dir=runtime.state_dir)
    with pytest.raises(pyoci.ProtocolError) as caught:
        made.create(build("true"), "job")
    assert "'job'" in str(caught.value)
    assert len(caught.value.received) <= 64 * 1024


# --- row 6 ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        "sleep 100",
        "trap '' TERM; sleep 100 & sleep 100 & wait",
        "setsid sleep 100 & exec sleep 100",
        "(sleep 100 &) & sleep 100",
        "head -c 100000 /dev/zero | tr '\\0' x >&2; sleep 100",
        "(sleep 100 >&2 &) ; exit 1",
    ],
)
def test_row_6_a_runtime_that_hangs_dies_with_its_tree_at_the_deadline(
    state_dir: str, build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    from pyoci import lifecycle

    monkeypatch.setattr(lifecycle, "FORCE_DELETE_TIMEOUT", 0.5)
    made = pyoci.OCIRuntime(script(tmp_path / "runtime", body), state_dir=state_dir, create_timeout=0.5)
    began = time.monotonic()
    with pytest.raises((pyoci.Timeout, pyoci.CreateError)) as caught:
        made.create(build("true"), "job")
    # The clean-up calls the runtime once more.
    assert time.monotonic() - began < 10
    assert "'job'" in str(caught.value)


def test_row_6_a_call_that_hangs_is_killed_and_the_container_is_not_lost(
    runtime: pyoci.OCIRuntime, build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyoci import lifecycle

    container = runtime.create(build("true"))
    hung = script(tmp_path / "hung", "sleep 100 & sleep 100")
    monkeypatch.setattr(lifecycle, "CALL_TIMEOUT", 0.3)
    container._life.host.shortcuts = frozenset()
    real = container._life.host.runtime.path
    container._life.host.runtime.path = hung
    try:
        with pytest.raises(pyoci.Timeout, match="start"):
            container.start()
    finally:
        container._life.host.runtime.path = real
    assert container.state() == "created"
    container.delete(force=True)


# --- rows 9 and 10 ----------------------------------------------------------------------------------------------------------------


def test_row_9_a_used_id_leaves_the_first_one_untouched(runtime: pyoci.OCIRuntime, build: Build) -> None:
    with runtime.create(build(*FOREVER), "job") as first:
        first.start()
        before = {entry.name: entry.lstat() for entry in Path(first.directory).iterdir() if entry.name != "log"}
        with pytest.raises(pyoci.ContainerExists, match="'job'"):
            runtime.create(build("true"), "job")
        after = {entry.name: entry.lstat() for entry in Path(first.directory).iterdir() if entry.name != "log"}
        assert {n: (s.st_ino, s.st_mtime_ns) for n, s in before.items()} == {n: (s.st_ino, s.st_mtime_ns) for n, s in after.items()}
        assert first.state() == "running"
        first.kill()


def test_row_9_of_32_creates_of_one_id_exactly_one_succeeds(runtime: pyoci.OCIRuntime, build: Build) -> None:
    made: list[pyoci.Container] = []
    refused: list[pyoci.ContainerExists] = []
    gate = threading.Barrier(32)

    def create() -> None:
        gate.wait()
        try:
            made.append(runtime.create(build(*FOREVER), "job"))
        except pyoci.ContainerExists as error:
            refused.append(error)

    threads = [threading.Thread(target=create) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), len(refused)) == (1, 31)
    made[0].start()
    assert made[0].state() == "running"
    made[0].delete(force=True)


@pytest.mark.parametrize("id", ["", ".", "..", "../x", "a/b", "a\0b", "a\n", "-x", "x" * 256, "é"])
def test_row_10_a_bad_id_is_refused_everywhere(runtime: pyoci.OCIRuntime, build: Build, id: str) -> None:
    with pytest.raises(ValueError, match="id"):
        runtime.create(build("true"), id)
    with pytest.raises(ValueError, match="id"):
        runtime.load(id)
    with pytest.raises(ValueError, match="id"):
        pyoci.Container.load(id, state_dir=runtime.state_dir)


# --- row 14 -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["empty", "7\n", "abc", "99999", "link", "fifo", "huge", "gone"])
@pytest.mark.parametrize("kernel", [True, False])
def test_row_14_an_exit_file_that_is_none(runtime: pyoci.OCIRuntime, build: Build, monkeypatch: pytest.MonkeyPatch, fault: str, kernel: bool) -> None:
    container = runtime.create(build("sh", "-c", "exit 5"), "job")
    init, conmon = container._life.init, container._life.conmon
    assert init is not None
    assert conmon is not None
    container.start()
    while not conmon.has_ended():
        time.sleep(0.005)
    for path in (Path(container.directory, "exit"), Path(runtime.state_dir, "exits", "job")):
        path.unlink()
        if fault == "link":
            path.symlink_to("/etc/hostname")
        elif fault == "fifo":
            os.mkfifo(path)
        elif fault == "huge":
            with path.open("wb") as file:
                file.truncate(1 << 30)
        elif fault == "empty":
            path.touch()
        elif fault != "gone":
            path.write_text(fault)
    if not kernel:
        monkeypatch.setattr(type(init), "exit_code", lambda self: None)
    status = container.wait(10)
    told = init.exit_code() is not None
    assert status.code == (5 if told else None)
    container.delete()


def test_row_14_a_file_with_a_temporary_name_is_not_the_exit(runtime: pyoci.OCIRuntime, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    with runtime.create(build("sh", "-c", "exit 5"), "job") as container:
        container.start()
        conmon, init = container._life.conmon, container._life.init
        assert conmon is not None
        assert init is not None
        while not conmon.has_ended():
            time.sleep(0.005)
        for path in (Path(container.directory, "exit"), Path(runtime.state_dir, "exits", "job")):
            path.rename(f"{path}.TMP123")
        monkeypatch.setattr(type(init), "exit_code", lambda self: None)
        assert container.wait(10).code is None
    Path(runtime.state_dir, "exits", "job.TMP123").unlink()


def test_row_14_an_exit_file_that_comes_late_is_waited_for_where_the_kernel_does_not_tell(
    runtime: pyoci.OCIRuntime, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    with runtime.create(build("sh", "-c", "sleep 0.1; exit 5"), "job") as container:
        container.start()
        init, conmon = container._life.init, container._life.conmon
        assert init is not None
        assert conmon is not None
        monkeypatch.setattr(type(init), "exit_code", lambda self: None)
        conmon.signal(signal.SIGSTOP)
        timer = threading.Timer(1.5, lambda: conmon.signal(signal.SIGCONT))
        timer.start()
        try:
            assert container.wait(10).code == 5
        finally:
            timer.join()


# --- row 15 -----------------------------------------------------------------------------------------------------------------------


def test_row_15_conmon_killed_while_running(runtime: pyoci.OCIRuntime, build: Build) -> None:
    container = runtime.create(build("sh", "-c", "sleep 0.5; exit 7"))
    container.start()
    conmon = container._life.conmon
    assert conmon is not None
    conmon.signal(signal.SIGKILL)
    status = container.wait(20)
    if kernel_tells():
        assert status.code == 7
    else:
        assert status.code in (7, None)
    assert container.state() == "stopped"
    container.delete()


def test_row_15_stop_and_delete_work_at_the_first_try_without_conmon(runtime: pyoci.OCIRuntime, build: Build) -> None:
    container = runtime.create(build("sleep", "100"))
    container.start()
    conmon = container._life.conmon
    assert conmon is not None
    conmon.signal(signal.SIGKILL)
    while not os.readlink(f"/proc/{container.pid}/exe").endswith("busybox"):
        time.sleep(0.001)  # a moment before exec it is still runc's, which ends with 2 at TERM
    status = container.stop(timeout=0.1)
    if kernel_tells():
        assert status.code == 137
    container.delete()


def test_row_15_conmon_stopped_when_the_container_dies(runtime: pyoci.OCIRuntime, build: Build) -> None:
    container = runtime.create(build("sh", "-c", "sleep 0.2; exit 7"))
    container.start()
    conmon = container._life.conmon
    assert conmon is not None
    conmon.signal(signal.SIGSTOP)
    assert container.wait(20).code == 7
    assert container.state() == "stopped"
    container.delete()


# --- rows 23, 24, 25 --------------------------------------------------------------------------------------------------------------


@pytest.mark.root
def held(pid: int | None) -> set[str]:
    """What its descriptors stand for."""
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found.add(os.readlink(entry))
    return found


@pytest.mark.once
def test_row_23_descriptors_of_other_threads_reach_neither_conmon_nor_init(runtime: pyoci.OCIRuntime, build: Build) -> None:
    over = threading.Event()

    def open_and_close() -> None:
        while not over.is_set():
            fds = [os.open("/dev/zero", os.O_RDONLY) for _ in range(8)]
            for fd in fds:
                os.set_inheritable(fd, True)
            time.sleep(0.002)  # or 32 busy threads keep the interpreter lock to themselves
            for fd in fds:
                os.close(fd)

    threads = [threading.Thread(target=open_and_close) for _ in range(32)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10_000 if LONG else 5):
            with runtime.create(build(*FOREVER)) as container:
                for pid in (container.pid, container.conmon_pid):
                    assert "/dev/zero" not in held(pid)
                container.start()
                while not os.readlink(f"/proc/{container.pid}/exe").endswith("busybox"):
                    time.sleep(0.001)  # it is still the runtime's, a moment before exec
                assert sorted(os.listdir(f"/proc/{container.pid}/fd")) == ["0", "1", "2"]
                container.kill()
    finally:
        over.set()
        for thread in threads:
            thread.join()


@pytest.mark.root
@pytest.mark.usefixtures("deaf_to_signals")
def test_row_24_the_container_starts_with_no_signal_blocked_or_ignored(runtime: pyoci.OCIRuntime, build: Build) -> None:
    container = runtime.create(build("sleep", "100"))
    try:
        container.start()
        while not os.readlink(f"/proc/{container.pid}/exe").endswith("busybox"):
            time.sleep(0.001)  # it is still the runtime's, a moment before exec
        fields = status_fields(Path(f"/proc/{container.pid}/status").read_text())
        assert int(fields["SigBlk"], 16) == 0
        assert int(fields["SigIgn"], 16) == 0
        fields = status_fields(Path(f"/proc/{container.conmon_pid}/status").read_text())
        # conmon itself ignores SIGPIPE, and nothing else.
        assert int(fields["SigIgn"], 16) & ~(1 << (signal.SIGPIPE - 1)) == 0
    finally:
        container.delete(force=True)


# --- row 32 -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    ["echo garbage", "echo '{}'", "true", 'echo \'{"id": "job", "status": "dreaming"}\'', "echo 'container is away' >&2; exit 1", "kill -9 $$"],
)
def test_row_32_a_state_that_is_none_is_typed_and_never_gone(runtime: pyoci.OCIRuntime, build: Build, tmp_path: Path, body: str) -> None:
    runtime = asking(runtime)
    with runtime.create(build(*FOREVER), "job") as container:
        container.start()
        tool = script(tmp_path / "runtime", body)
        real = container._life.host.runtime.path
        container._life.host.runtime.path = tool
        try:
            with pytest.raises((pyoci.ProtocolError, pyoci.RuntimeFailed)) as caught:
                container.state()
            assert "'job'" in str(caught.value)
        finally:
            container._life.host.runtime.path = real
        assert container.state() == "running"


def test_row_32_the_runtimes_own_word_for_missing_while_init_lives(runtime: pyoci.OCIRuntime, build: Build, tmp_path: Path) -> None:
    runtime = asking(runtime)
    with runtime.create(build(*FOREVER), "job") as container:
        container.start()
        real = container._life.host.runtime.path
        container._life.host.runtime.path = script(tmp_path / "runtime", "echo 'container does not exist' >&2; exit 1")
        try:
            with pytest.raises(pyoci.ContainerStateError, match="alive"):
                container.state()
        finally:
            container._life.host.runtime.path = real


# --- bad bundles ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, "config.json"),
        (b"", "config.json"),
        (b"{", "config.json"),
        (b"[]", "config.json"),
        (b"{}", "ociVersion"),
        (b'{"ociVersion": "1.0.2"}', "root"),
        (b'{"ociVersion": "1.0.2", "root": {"path": "nowhere"}, "process": {"args": ["true"], "cwd": "/"}}', "nowhere"),
        (b'{"ociVersion": "1.0.2", "root": {"path": "."}}', "process"),
        (b'{"ociVersion": "1.0.2", "root": {"path": "."}, "process": {"args": [], "cwd": "/"}}', "process.args"),
        (b'{"ociVersion": "1.0.2", "root": {"path": "."}, "process": {"args": ["true"], "cwd": "x"}}', "process.cwd"),
    ],
)
def test_a_bad_bundle_is_refused_before_anything_starts(
    runtime: pyoci.OCIRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, named: str
) -> None:
    from pyoci import _ffi

    monkeypatch.setattr(_ffi, "spawn", lambda *args, **options: pytest.fail("something was started"))
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    if content is not None:
        (bundle / "config.json").write_bytes(content)
    with pytest.raises(pyoci.InvalidSpec) as caught:
        runtime.create(bundle)
    assert named in str(caught.value)
    assert str(bundle) in str(caught.value)


def test_a_bundle_that_does_not_exist(runtime: pyoci.OCIRuntime, tmp_path: Path) -> None:
    with pytest.raises(pyoci.InvalidSpec, match="nowhere"):
        runtime.create(tmp_path / "nowhere")


def test_unknown_options_are_refused(runtime: pyoci.OCIRuntime, state_dir: str) -> None:
    with pytest.raises(TypeError, match="colour"):
        runtime.create({}, colour="red")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="colour"):
        pyoci.OCIRuntime(colour="red", state_dir=state_dir)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="colour"):
        pyoci.run(["true"], colour="red")  # type: ignore[call-arg]


# --- full file systems ------------------------------------------------------------------------------------------------------------


def test_sigchld_ignored_by_the_caller(runtime: pyoci.OCIRuntime, rootfs: str) -> None:
    """The kernel then reaps our children before we can; the codes must come through all the same."""
    program = """
import signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
import pyoci
rt = pyoci.OCIRuntime(sys.argv[1], state_dir=sys.argv[2])
with rt.create(pyoci.spec.build(["sh", "-c", "exit 9"], rootfs=sys.argv[3], read_only=True)) as c:
    c.start()
    print(c.wait(20).code)
"""
    argv = [sys.executable, "-c", program, runtime.runtime_path, runtime.state_dir, rootfs]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    if kernel_tells():
        assert done.stdout == "9\n", done.stderr


def test_state_directories_are_closed_to_others(runtime: pyoci.OCIRuntime, build: Build) -> None:
    with runtime.create(build("true")) as container:
        for path in (runtime.state_dir, container.directory):
            assert stat.S_IMODE(os.stat(path).st_mode) & 0o027 == 0
