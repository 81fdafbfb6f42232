"""po_spawn_in_mounts: what the program finds there, what nobody else ever sees of it, and what is left when a step fails (faults, row 26)."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyoci import _ffi
from pyoci.errors import SpawnError
from pyoci.mounts import Mounts
from pyoci.process import Descriptor, Process, ended, read_capture
from pyoci.waiting import NEVER, drive
from tests import machine
from tests.audit import sees_as, views

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts are made")

ROOT = Path(__file__).parents[2]
UID, GID = 100_000, 200_000


@pytest.fixture
def mounts(tmp_path: Path) -> Mounts:
    (tmp_path / "closed" / "source").mkdir(parents=True)
    (tmp_path / "closed" / "source" / "word").write_text("found\n")
    return mounts_in(str(tmp_path))


def mounts_in(directory: str) -> Mounts:
    place = f"{directory}/place"
    return Mounts(f"{directory}/closed/source", UID, GID, place=place, target=f"{place}/rootfs")


def start(mounts: Mounts, *argv: str, fds: tuple[int, ...] = (-1, -1, -1)) -> Process:
    return Process().spawn(argv[0], list(argv), _ffi.environment_block({"PATH": os.environ["PATH"]}), fds=fds, mounts=mounts)


def finish(process: Process) -> tuple[int, int] | None:
    drive(ended(process, NEVER))
    exit = process.reap()
    process.close()
    return exit


def output(mounts: Mounts, script: str) -> str:
    with Descriptor(_ffi.capture(1 << 20)) as capture:
        assert finish(start(mounts, "/bin/sh", "-c", script, fds=(-1, capture.fd, capture.fd))) == (0, 0)
        return read_capture(capture.fd, 1 << 20).decode()


def attempt(mounts: Mounts, program: str = "/bin/true") -> tuple[int | None, str, str | None]:
    """What the error of a spawn tells; the process must be as it was."""
    before, descriptors = views(), os.listdir("/proc/self/fd")
    with pytest.raises(SpawnError) as caught:
        start(mounts, program)
    assert caught.value.stage in str(caught.value)
    assert sees_as(before)
    assert os.listdir("/proc/self/fd") == descriptors
    return caught.value.errno, caught.value.stage, caught.value.filename


def test_the_program_finds_the_source_in_a_run_directory_of_the_mapped_root(mounts: Mounts) -> None:
    said = output(mounts, f"stat -c '%a %u %g' {mounts.place}; cat {mounts.target}/word; ls {mounts.place}")
    assert said == f"700 {UID} {GID}\nfound\nrootfs\n"
    assert (os.listdir(mounts.place), os.listdir(mounts.target)) == (["rootfs"], [])


def test_what_is_mounted_below_the_source_comes_along(mounts: Mounts) -> None:
    inner = Mounts("/proc", UID, GID, place=mounts.place, target=mounts.target)
    assert output(inner, f"test -e {mounts.target}/self/stat && echo yes") == "yes\n"


def test_the_working_directory_is_the_callers(mounts: Mounts) -> None:
    assert output(mounts, "pwd") == f"{os.getcwd()}\n"


def test_nobody_else_sees_a_mount_before_during_and_after(mounts: Mounts) -> None:
    over = threading.Event()
    idle = threading.Thread(target=over.wait)
    idle.start()
    try:
        before = views()
        process = start(mounts, "/bin/sleep", "100")
        there = Path(f"/proc/{process.pid}/mountinfo").read_text()
        assert f" {mounts.place} " in there
        assert f" {mounts.target} " in there
        assert os.readlink(f"/proc/{process.pid}/ns/mnt") != os.readlink("/proc/self/ns/mnt")
        assert sees_as(before)
        process.signal(signal.SIGKILL)
        finish(process)
        assert sees_as(before)
    finally:
        over.set()
        idle.join()


@pytest.fixture
def shared_place(mounts: Mounts, tmp_path: Path) -> Iterator[Mounts]:
    """The place on a shared mount, as all are on a host with systemd."""
    machine.mount("tmpfs", str(tmp_path))
    machine.share(str(tmp_path))
    try:
        Path(mounts.source).mkdir(parents=True)
        yield mounts
    finally:
        machine.umount(str(tmp_path))


def test_nothing_propagates_to_the_host_and_the_hosts_mounts_still_come_in(shared_place: Mounts, tmp_path: Path) -> None:
    before = views()
    assert f" {tmp_path} rw" in Path("/proc/self/mountinfo").read_text()
    process = start(shared_place, "/bin/sleep", "100")
    assert sees_as(before)
    (tmp_path / "later").mkdir()
    machine.mount("tmpfs", str(tmp_path / "later"))
    there = Path(f"/proc/{process.pid}/mountinfo").read_text()
    machine.umount(str(tmp_path / "later"))
    process.signal(signal.SIGKILL)
    finish(process)
    assert f" {tmp_path}/later " in there
    lines = {line.split()[4]: line for line in there.splitlines()}
    assert " master:" in lines[str(tmp_path)]
    assert " shared:" not in lines[str(tmp_path)]
    assert " shared:" not in lines[shared_place.place]
    assert sees_as(before)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"place": "/nonexistent/place"}, (errno.ENOENT, "making the place of the run directory", "/nonexistent/place")),
        ({"place": "/" + "x" * 255 + "/place"}, (errno.ENOENT, "making the place of the run directory", "/" + "x" * 254)),
        ({"uid": (1 << 32) - 1}, (errno.EINVAL, "mounting the run directory", "{place}")),
        ({"target": "/nonexistent/rootfs"}, (errno.ENOENT, "making the mount point", "/nonexistent/rootfs")),
        ({"source": "/nonexistent"}, (errno.ENOENT, "binding", "/nonexistent")),
        ({"source": "/bin/true"}, (errno.ENOTDIR, "binding", "/bin/true")),
    ],
)
def test_a_failing_step_tells_its_path_and_errno_and_leaves_nothing(
    mounts: Mounts, change: dict[str, str | int], expected: tuple[int, str, str]
) -> None:
    for name, value in change.items():
        setattr(mounts, name, value)
    number, stage, path = expected
    assert attempt(mounts) == (number, stage, path.format(place=mounts.place))
    assert [path for path in Path(mounts.place).rglob("*") if str(path) != mounts.target] == []


def test_a_program_that_cannot_be_started_leaves_nothing(mounts: Mounts) -> None:
    assert attempt(mounts, "/nonexistent") == (errno.ENOENT, "executing", "/nonexistent")


@pytest.mark.parametrize(
    ("refused", "expected"),
    [
        ("clone3=1,clone=1", (errno.EPERM, "making a thread", None)),
        ("clone3=11,clone=11", (errno.EAGAIN, "making a thread", None)),
        ("unshare=1", (errno.EPERM, "making a mount namespace", None)),
        ("unshare", (errno.ENOSYS, "making a mount namespace", None)),
        ("slave=1", (errno.EPERM, "stopping the propagation of mounts", "{place}")),
        ("slave=22", (errno.EINVAL, "stopping the propagation of mounts", "{place}")),
        ("mount=12", (errno.ENOMEM, "stopping the propagation of mounts", "{place}")),
    ],
)
def test_a_step_that_the_kernel_refuses(mounts: Mounts, refused: str, expected: tuple[int, str, str | None]) -> None:
    program = "import sys; from tests.native.test_mounts import *; print(attempt(mounts_in(sys.argv[1])))"
    directory = str(Path(mounts.place).parent)
    argv = [sys.executable, "-m", "tests.native.seccomp", refused, sys.executable, "-c", program, directory]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    number, stage, path = expected
    assert (done.stdout, done.stderr) == (f"{(number, stage, path and path.format(place=mounts.place))}\n", "")


def test_a_missing_privilege_is_said(mounts: Mounts) -> None:
    program = "import sys; from tests.native.test_mounts import *; start(mounts_in(sys.argv[1]), '/bin/true')"
    argv = [sys.executable, "-m", "tests.native.seccomp", "unshare=1", sys.executable, "-c", program, str(Path(mounts.place).parent)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert "starting /bin/true: making a mount namespace: Operation not permitted (this needs CAP_SYS_ADMIN)" in done.stderr


def test_signals_are_the_callers_business_and_the_mask_is_as_before(mounts: Mounts) -> None:
    """A handler must run where the process's mounts are, never on the thread."""
    seen: list[str] = []
    previous = signal.signal(signal.SIGALRM, lambda number, frame: seen.append(os.readlink("/proc/thread-self/ns/mnt")))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        for _ in range(100):
            finish(start(mounts, "/bin/true"))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
    assert set(seen) == {os.readlink("/proc/self/ns/mnt")}
    assert output(mounts, "grep -E '^Sig(Blk|Ign)' /proc/self/status").split() == ["SigBlk:", "0" * 16, "SigIgn:", "0" * 16]


def test_from_many_threads_at_one_place(mounts: Mounts, tmp_path: Path) -> None:
    """One place serves all: each sees only its own."""
    said: list[str] = []
    for i in range(16):
        (tmp_path / str(i)).mkdir()
        (tmp_path / str(i) / "word").write_text(f"{i}")
    before = views()

    def read(i: int) -> None:
        mine = Mounts(str(tmp_path / str(i)), UID, GID, place=mounts.place, target=mounts.target)
        said.extend(output(mine, f"cat {mine.target}/word") for _ in range(10))

    threads = [threading.Thread(target=read, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(said) == sorted(str(i) for i in range(16) for _ in range(10))
    assert sees_as(before)
