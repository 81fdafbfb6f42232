"""Which shortcuts are taken, and the sealed copy of a program."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import pyoci
from pyoci import shortcuts
from pyoci._ffi import poll
from pyoci.process import Descriptor
from pyoci.waiting import drive


@pytest.mark.parametrize("wanted", [["fast"], ["start", 1], "stop"])
def test_what_is_none_is_refused(wanted: object) -> None:
    with pytest.raises(pyoci.InvalidOption, match="delete, memfd, start, state"):
        shortcuts.chosen(wanted, "/usr/bin/crun", plain=True)  # type: ignore[arg-type]


def test_only_known_runtimes_without_options_of_the_callers() -> None:
    assert shortcuts.chosen(True, "/usr/bin/runc", plain=True) == {"start", "delete", "state"}
    assert shortcuts.chosen(("start",), "/usr/bin/runc", plain=True) == {"start"}
    assert shortcuts.chosen(["delete"], "/usr/bin/crun", plain=True) == {"delete"}
    for runtime, plain, wanted in (("/usr/bin/youki", True, True), ("/usr/bin/crun", False, True), ("/usr/bin/crun", True, False)):
        assert shortcuts.chosen(wanted, runtime, plain=plain) == frozenset()


def test_who_is_just_dying_is_started_by_nobody_else(tmp_path: Path) -> None:
    """An init that is killed closes its end of the FIFO a moment before its pidfd tells."""
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    with subprocess.Popen(["sleep", "0.01"]) as init, Descriptor(os.pidfd_open(init.pid)) as pidfd:
        assert not drive(shortcuts.start(fifo, "crun", pidfd.fd, 5))
        assert poll((pidfd.fd,), (), 0)
    with Descriptor(os.pidfd_open(os.getpid())) as pidfd, pytest.raises(pyoci.ContainerStateError, match="somebody else"):
        drive(shortcuts.start(fifo, "crun", pidfd.fd, 5))


def test_a_sealed_copy_runs_cannot_be_changed_and_follows_the_file(tmp_path: Path) -> None:
    program = tmp_path / "program"
    shutil.copy("/bin/true", program)
    path = shortcuts.executable(str(program))
    assert path.startswith(f"/proc/{os.getpid()}/fd/")
    assert path == shortcuts.executable(str(program))
    assert subprocess.run([path], check=False).returncode == 0
    with pytest.raises(OSError, match="not permitted"):
        os.write(int(path.rpartition("/")[2]), b"x")
    shutil.copy("/bin/false", program)
    assert subprocess.run([shortcuts.executable(str(program))], check=False).returncode == 1
    shortcuts._copies.clear()


def test_threads_that_make_it_at_once_use_one(monkeypatch: pytest.MonkeyPatch) -> None:
    # A second one would close the first, which another thread's conmon is just being given.
    gate = threading.Barrier(4, timeout=20)

    class Slow(shortcuts.SealedCopy):
        def __init__(self, path: str) -> None:
            super().__init__(path)
            gate.wait()

    monkeypatch.setattr(shortcuts, "SealedCopy", Slow)
    shortcuts._copies.clear()
    with ThreadPoolExecutor(4) as threads:
        (path,) = set(threads.map(shortcuts.executable, ["/bin/true"] * 4))
    assert subprocess.run([path], check=False).returncode == 0
    shortcuts._copies.clear()


def test_what_cannot_be_copied_is_run_as_it_is(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    for path in (str(script), str(tmp_path / "missing"), str(tmp_path)):
        assert shortcuts.executable(path) == path
        assert shortcuts.executable(path) == path
    shortcuts._copies.clear()
