"""po_spawn: what the child is given, what it is not, and what is left when it fails."""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyoci import _ffi
from pyoci.errors import InvalidOption, SpawnError
from pyoci.process import Descriptor, Process, ended, read_capture
from pyoci.waiting import NEVER, drive
from tests import machine
from tests.containers import status_fields

SH = "/bin/sh"


def spawn(argv: Sequence[str], env: dict[str, str] | None = None, **options: Any) -> tuple[int, int]:
    """(code, signal) of a program run to its end."""
    process = Process().spawn(argv[0], list(argv), _ffi.environment_block(env or {}), **options)
    drive(ended(process, NEVER))
    exit = process.reap()
    assert exit is not None
    process.close()
    return exit


def output(script: str, env: dict[str, str] | None = None, extra: Sequence[int] = (), **options: Any) -> str:
    with Descriptor(_ffi.capture(1 << 16)) as capture:
        assert spawn([SH, "-c", script], env, fds=(-1, capture.fd, capture.fd, *extra), **options) == (0, 0)
        return read_capture(capture.fd).decode("utf-8", "surrogateescape")


def test_exit_codes_and_signals() -> None:
    for code in (0, 1, 127, 255):
        assert spawn([SH, "-c", f"exit {code}"]) == (code, 0)
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV):
        assert spawn([SH, "-c", f"kill -{number} $$"])[1] == number


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(max_size=30).filter(lambda b: 0 not in b), max_size=5))
def test_any_bytes_but_nul_are_arguments(words: list[bytes]) -> None:
    texts = [os.fsdecode(word) for word in words]
    script = 'for word in "$@"; do printf "%s|" "$word"; done'
    with Descriptor(_ffi.capture(1 << 16)) as capture:
        assert spawn([SH, "-c", script, "sh", *texts], fds=(-1, capture.fd, -1)) == (0, 0)
        assert read_capture(capture.fd) == b"".join(word + b"|" for word in words)


def test_a_nul_is_refused() -> None:
    for argv in (["/bin/true", "a\0b"], ["/bin/tr\0ue"]):
        with pytest.raises(InvalidOption, match="NUL"):
            spawn(argv)
    with pytest.raises(InvalidOption, match="NUL"):
        _ffi.environment_block({"A": "b\0c"})


def test_environment_working_directory_and_process_group(tmp_path: Path) -> None:
    assert output('echo "$A"; pwd', {"A": "b c"}, cwd=str(tmp_path)) == f"b c\n{tmp_path}\n"
    script = "read -r pid comm state ppid pgrp rest < /proc/self/stat; echo $pgrp"
    assert int(output(script)) == os.getpgrp()
    assert int(output(script, process_group=True)) != os.getpgrp()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-1, 6), min_size=3, max_size=8))
def test_every_map_of_descriptors(wanted: list[int]) -> None:
    """Sources among the targets, exchanged, doubled, or none: each lands where it should."""
    files = [Descriptor(_ffi.capture(64)) for _ in range(7)]
    inodes = [os.fstat(file.fd).st_ino for file in files]
    fds = [files[w].fd if w >= 0 else -1 for w in wanted]
    process = Process().spawn("/bin/sleep", ["sleep", "100"], _ffi.environment_block({}), fds=fds)
    held = Path(f"/proc/{process.pid}/fd")
    placed = [(held / str(i)).stat().st_ino for i in range(len(wanted))]
    assert placed == [os.stat("/dev/null").st_ino if w < 0 else inodes[w] for w in wanted]
    process.signal(signal.SIGKILL)
    drive(ended(process, NEVER))
    process.reap()
    process.close()
    for file in files:
        file.close()


def test_low_descriptors_exchanged() -> None:
    """The parent's own 0, 1 and 2 among the sources and the targets."""
    assert spawn([SH, "-c", "exit 0"], fds=(2, 0, 1)) == (0, 0)
    assert spawn([SH, "-c", "exit 0"], fds=(1, 1, 1, 0, 2)) == (0, 0)


def test_nothing_else_is_open_in_the_child() -> None:
    over = threading.Event()

    def open_and_close() -> None:
        while not over.is_set():
            fd = os.open("/dev/zero", os.O_RDONLY)
            os.set_inheritable(fd, True)
            over.wait(0.001)
            os.close(fd)

    threads = [threading.Thread(target=open_and_close) for _ in range(16)]
    held = os.open("/dev/zero", os.O_RDONLY)
    os.set_inheritable(held, True)
    for thread in threads:
        thread.start()
    try:
        for _ in range(30):
            assert "/dev/zero" not in output("for fd in /proc/$$/fd/*; do readlink $fd; done; exit 0", {"PATH": os.environ["PATH"]})
    finally:
        over.set()
        for thread in threads:
            thread.join()
        os.close(held)


@pytest.mark.usefixtures("deaf_to_signals")
def test_the_child_starts_with_no_signal_blocked_or_ignored() -> None:
    with Descriptor(_ffi.capture(1 << 16)) as capture:
        process = Process().spawn("/bin/cat", ["cat", "/proc/self/status"], _ffi.environment_block({}), fds=(-1, capture.fd, -1))
        drive(ended(process, NEVER))
        status = read_capture(capture.fd).decode()
        process.close()
    # SIGCHLD is ignored here: nobody reaps, and the kernel has done so.
    fields = status_fields(status)
    assert {name: int(fields[name], 16) for name in ("SigBlk", "SigIgn", "SigCgt")} == {"SigBlk": 0, "SigIgn": 0, "SigCgt": 0}


def test_the_callers_mask_is_as_before() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    spawn(["/bin/true"])
    with pytest.raises(SpawnError):
        spawn(["/nonexistent"])
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


@pytest.mark.parametrize(
    ("argv", "options", "number", "stage", "path"),
    [
        (["/nonexistent"], {}, errno.ENOENT, "executing", "/nonexistent"),
        (["/etc"], {}, errno.EACCES, "executing", "/etc"),
        (["/proc/self/status"], {}, errno.EACCES, "executing", "/proc/self/status"),
        (["/bin/true"], {"cwd": "/nonexistent"}, errno.ENOENT, "changing to the working directory", "/nonexistent"),
        (["/bin/true"], {"cwd": "/bin/true"}, errno.ENOTDIR, "changing to the working directory", "/bin/true"),
        (["/bin/true"], {"fds": (0, 1, 2, 999)}, errno.EBADF, "placing the descriptors", None),
        (["/bin/true"], {"cgroup_procs": (999,)}, errno.EBADF, "joining the cgroup", None),
        (["/bin/true", "x" * 200_000], {}, errno.E2BIG, "executing", "/bin/true"),
    ],
)
def test_a_failure_tells_step_path_and_errno(argv: list[str], options: dict[str, Any], number: int, stage: str, path: str | None) -> None:
    with pytest.raises(SpawnError) as caught:
        spawn(argv, **options)
    assert (caught.value.errno, caught.value.stage, caught.value.filename) == (number, stage, path)
    assert stage in str(caught.value)


def test_a_file_that_is_no_program(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no program")
    (tmp_path / "text").chmod(0o755)
    with pytest.raises(SpawnError) as caught:
        spawn([str(tmp_path / "text")])
    assert caught.value.errno == errno.ENOEXEC


def test_a_context_that_cannot_be_set() -> None:
    with pytest.raises(SpawnError) as caught:
        spawn(["/bin/true"], label="no context")
    # ENOENT: a kernel without security modules.
    assert caught.value.errno in (errno.EINVAL, errno.ENOENT)
    assert (caught.value.stage, caught.value.filename) == ("setting the SELinux context", "/proc/self/attr/exec")


def test_a_long_path_is_cut_in_the_message_only() -> None:
    with pytest.raises(SpawnError) as caught:
        spawn(["/" + "x" * 1000])
    assert caught.value.errno in (errno.ENOENT, errno.ENAMETOOLONG)
    assert caught.value.filename == "/" + "x" * 254


def test_no_descriptors_left_is_an_error_and_not_a_leak() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    filler: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 10, hard))
    try:
        try:
            while True:
                filler.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
        with pytest.raises(SpawnError) as caught:
            spawn(["/bin/true"])
        assert caught.value.errno == errno.EMFILE
    finally:
        for fd in filler:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_thousand_spawns_leak_nothing() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1])

    for _ in range(200):
        spawn(["/bin/true"])
    before, descriptors = resident(), len(os.listdir("/proc/self/fd"))
    for _ in range(1000):
        spawn(["/bin/true"])
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert resident() - before < 512  # pages: 2 MiB


@pytest.mark.root
def test_a_v1_cgroup_is_joined_before_exec() -> None:
    from pyoci import cgroups

    mounts = cgroups.read().mounts
    controller = next((name for name in ("pids", "freezer", "memory") if name in mounts), None)
    if controller is None:
        pytest.skip("this host has no cgroup v1 hierarchy")
    directory = Path(mounts[controller], f"pyoci-native-{os.getpid()}")
    directory.mkdir()
    try:
        procs = os.open(directory / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        said = output("cat /proc/self/cgroup", {"PATH": os.environ["PATH"]}, cgroup_procs=(procs,))
        os.close(procs)
        assert f":{controller}:" in said
        assert f"/{directory.name}\n" in said
    finally:
        directory.rmdir()


@pytest.mark.root
def test_a_v2_cgroup_is_born_into(tmp_path: Path) -> None:
    machine.mount("cgroup2", str(tmp_path))
    directory = tmp_path / f"pyoci-native-{os.getpid()}"
    try:
        directory.mkdir()
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        said = output("cat /proc/self/cgroup", {"PATH": os.environ["PATH"]}, cgroup=fd)
        os.close(fd)
        assert f"/{directory.name}\n" in said
        directory.rmdir()
    finally:
        machine.umount(str(tmp_path))


def test_spawning_from_many_threads() -> None:
    codes: list[tuple[int, int]] = []
    threads = [threading.Thread(target=lambda i=i: codes.extend(spawn([SH, "-c", f"exit {i}"]) for _ in range(20))) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == sorted((i, 0) for i in range(16) for _ in range(20))


def test_somebody_else_reaps_the_child() -> None:
    process = Process().spawn("/bin/sh", ["sh", "-c", "exit 5"], _ffi.environment_block({}))
    os.waitpid(process.pid, 0)
    assert process.reap() in ((5, 0), (-1, 0))
    process.close()


def test_sockets_are_close_on_exec_and_connected() -> None:
    a, b = _ffi.socketpair(socket.SOCK_STREAM)
    assert not os.get_inheritable(a)
    assert not os.get_inheritable(b)
    os.write(a, b"x")
    assert os.read(b, 9) == b"x"
    os.close(a)
    os.close(b)
