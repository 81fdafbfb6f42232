"""What must survive: a create that is cut down, or that has no room. Rows 7, 12 and 13 of docs/faults.md."""

import contextlib
import errno
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pyoci
from pyoci import cgroups, lifecycle
from pyoci.process import Process, command_line, descendants
from tests import audit, machine
from tests.containers import FOREVER, Build, kernel_tells
from tests.long import LONG

MS_RDONLY, MS_REMOUNT = 1, 32

# --- row 7 ------------------------------------------------------------------------------------------------------------------------


def kill_one(directory: str, kind: str) -> None:
    """SIGKILL to a conmon of this container's, or to a process of the runtime's that is just creating it, if there is one."""
    claimed = lifecycle.claimed_by(directory)
    monitors = [pid for pid in claimed if command_line(pid).startswith(b"conmon\0")]
    found = monitors if kind == "conmon" else sorted({*claimed, *descendants(set(claimed))} - set(monitors))
    if found:
        with contextlib.suppress(ProcessLookupError):
            Process.open(random.choice(found)).signal(signal.SIGKILL)


@pytest.mark.parametrize("kind", ["conmon", "runtime"])
def test_row_7_killed_at_random_points_of_create(runtime_name: str, state_dir: str, build: Build, kind: str) -> None:
    # A runc that is killed can leave its init to hold its stderr, which conmon reads to the end: until the deadline.
    runtime = pyoci.OCIRuntime(runtime_name, state_dir=state_dir, create_timeout=5)
    config = build(*FOREVER)
    # A runtime that is killed when init is there leaves it holding its stderr, and conmon reads that to its end: then only the deadline ends it.
    runtime = pyoci.OCIRuntime(runtime.runtime_path, state_dir=runtime.state_dir, create_timeout=2)
    began = time.monotonic()
    runtime.create(config).delete(force=True)
    longest = (time.monotonic() - began) * 1.2
    before = audit.everything(runtime.state_dir)
    failed = 0
    for _ in range(1000 if LONG else 60):
        id = pyoci.ids.new()
        directory = f"{runtime.state_dir}/containers/{id}"
        moment = random.random() * longest

        def kill(directory: str = directory, moment: float = moment) -> None:
            time.sleep(moment)
            kill_one(directory, kind)

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            container = runtime.create(config, id)
        except (pyoci.CreateError, pyoci.ConmonError, pyoci.Timeout):
            failed += 1
        else:
            killer.join()
            container.delete(force=True)
            del container  # and its pidfds with it
        killer.join()
        left = audit.left_over(before, runtime.state_dir)
        assert not left, f"killed after {moment * 1000:.1f} ms: {left}"
    assert failed


# --- row 12 -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.root
@pytest.mark.parametrize("limit", range(1, 11))
def test_row_12_a_small_pids_limit(runtime: pyoci.OCIRuntime, has_controller: Callable[[str], None], limit: int) -> None:
    has_controller("pids")
    try:
        assert pyoci.run(["true"], runtime=runtime, pids=limit, timeout=60).returncode == 0
    except (pyoci.CreateError, pyoci.ContainerStateError) as error:
        print(error)  # runc 1.1.5 needs a few more while it starts


LIMITED = """
import sys, pyoci
rt = pyoci.OCIRuntime(sys.argv[1], state_dir=sys.argv[2], create_timeout=60)
config = pyoci.spec.build(["true"], rootfs=sys.argv[3], read_only=True)
with open(sys.argv[4], "w") as file:
    file.write("0")
try:
    rt.create(config, "job").delete(force=True)
    print("created")
except pyoci.Error as error:
    print(type(error).__name__, getattr(error, "errno", None), error)
"""


@pytest.mark.root
@pytest.mark.parametrize("limit", range(1, 11))
def test_row_12_our_own_pids_limit(runtime: pyoci.OCIRuntime, rootfs: str, has_controller: Callable[[str], None], limit: int) -> None:
    has_controller("pids")
    found = cgroups.read().mounts
    directory = Path(found["pids"] if "pids" in found else found[cgroups.V2], f"pyoci-limited-{os.getpid()}")
    directory.mkdir()
    try:
        (directory / "pids.max").write_text(str(limit))
        program = [sys.executable, "-c", LIMITED, runtime.runtime_path, runtime.state_dir, rootfs, str(directory / "cgroup.procs")]
        done = subprocess.run(program, capture_output=True, text=True, timeout=100, check=True)
        # Not Timeout: whoever could not fork said so at once.
        assert done.stdout.split()[0] in ("created", "SpawnError", "ConmonError", "CreateError"), done.stdout
        assert limit > 1 or done.stdout.startswith("SpawnError 11 ")
    finally:
        directory.rmdir()


# --- row 13 -----------------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def file_system(path: str, options: str) -> Iterator[Callable[[int], None]]:
    """A tmpfs at this place, in this run's own mount namespace, and what mounts it once more with other flags."""
    machine.mount("tmpfs", path, f"mode=0750,{options}")

    def remount(flags: int) -> None:
        machine.libc(f"remounting {path}", "mount", None, path.encode(), None, MS_REMOUNT | flags, None)

    try:
        yield remount
    finally:
        machine.umount(path)


def fill(directory: str) -> None:
    """Leaves no room in a file system."""
    with Path(directory, "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


@pytest.mark.root
def test_row_13_no_inode_for_the_nth_file(runtime_name: str, state_dir: str, build: Build) -> None:
    failures, codes = [], []
    for inodes in range(6, 26):
        with file_system(state_dir, f"nr_inodes={inodes}"):
            try:
                container = pyoci.OCIRuntime(runtime_name, state_dir=state_dir, create_timeout=60).create(build("sh", "-c", "exit 5"), "job")
            except (pyoci.StateDirError, pyoci.CreateError, pyoci.ConmonError) as error:
                failures.append(error)
                assert not os.path.exists(f"{state_dir}/containers/job")
            else:
                container.start()
                codes.append(container.wait(60).code)
                container.delete()
                del container
            assert not [process for process in audit.processes(state_dir) if state_dir in process]
    assert len(failures) > 5
    assert codes
    assert set(codes) <= ({5} if kernel_tells() else {5, None})


@pytest.mark.root
def test_row_13_no_room_once_it_runs(runtime_name: str, state_dir: str, build: Build) -> None:
    """For the exit file, for the log: neither is in the way of the code."""
    with file_system(state_dir, "size=256k"):
        runtime = pyoci.OCIRuntime(runtime_name, state_dir=state_dir)
        container = runtime.create(build("sh", "-c", "trap 'head -c 400000 /dev/zero; exit 5' TERM; echo ready; while :; do sleep 0.02; done"), "job")
        container.start()
        while "ready" not in Path(container.log_path).read_text():
            time.sleep(0.005)
        fill(state_dir)
        container.kill("TERM")
        assert container.wait(60).code in ((5,) if kernel_tells() else (5, None))
        assert runtime.load("job").wait(60).code in (5, None)
        container.delete()
        assert runtime.list() == []


@pytest.mark.root
def test_row_13_no_room_from_the_start(runtime_name: str, state_dir: str, build: Build) -> None:
    with file_system(state_dir, "size=64k"):
        runtime = pyoci.OCIRuntime(runtime_name, state_dir=state_dir)
        fill(state_dir)
        with pytest.raises(pyoci.StateDirError) as caught:
            runtime.create(build("true"), "job")
        assert caught.value.errno == errno.ENOSPC
        assert runtime.list() == []


@pytest.mark.root
def test_row_13_read_only(runtime_name: str, state_dir: str, build: Build) -> None:
    with file_system(state_dir, "size=4m") as remount:
        runtime = pyoci.OCIRuntime(runtime_name, state_dir=state_dir)
        container = runtime.create(build(*FOREVER), "job")
        container.start()
        container.stop(timeout=0)
        remount(MS_RDONLY)
        with pytest.raises(pyoci.StateDirError) as caught:
            runtime.create(build("true"), "other")
        assert caught.value.errno == errno.EROFS
        with pytest.raises(pyoci.StateDirError):
            container.delete()
        remount(0)
        container.delete()
        assert runtime.list() == []
