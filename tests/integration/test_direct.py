"""Without conmon: the same results, the same invariants."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import pyoci
import pyoci.aio
from pyoci.direct import reap_init
from pyoci.process import descendants
from pyoci.waiting import drive
from tests.containers import Build


@pytest.fixture
def direct(runtime_name: str, state_dir: str) -> pyoci.OCIRuntime:
    return pyoci.OCIRuntime(runtime_name, state_dir=state_dir, monitor="direct")


def test_a_whole_life(direct: pyoci.OCIRuntime, build: Build) -> None:
    with direct.create(build("sh", "-c", "exit 7"), "job") as container:
        assert container.state() == "created"
        assert container.conmon_pid is None
        assert container.pid is not None
        container.start()
        status = container.wait(20)
        assert (status.code, status.signal, status.oom_killed) == (7, None, False)
        assert status.finished_at is not None
        assert container.state() == "stopped"
        elsewhere = pyoci.Container.load("job", state_dir=direct.state_dir)
        assert elsewhere.wait(20).code == 7


def test_stop(direct: pyoci.OCIRuntime, build: Build) -> None:
    with direct.create(build("sleep", "100")) as container:
        container.start()
        status = container.stop(timeout=0)
        assert (status.code, status.signal) == (137, 9)


def test_run_gives_what_it_gives_with_conmon(direct: pyoci.OCIRuntime) -> None:
    done = pyoci.run(["sh", "-c", "cat; echo err >&2; exit 3"], input=b"in", runtime=direct)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"in", b"err\n")
    assert pyoci.run(["sh", "-c", "echo $0"], runtime=direct, text=True).stdout == "sh\n"
    assert pyoci.run(["nosuchprogram"], runtime=direct).returncode == 127
    assert pyoci.run(["/etc/passwd"], runtime=direct).returncode == 126
    with pytest.raises(pyoci.RunTimeout) as caught:
        pyoci.run(["sh", "-c", "echo part; sleep 100"], runtime=direct, timeout=0.5)
    assert caught.value.stdout == b"part\n"


def test_monitor_can_be_chosen_for_each_run(runtime: pyoci.OCIRuntime) -> None:
    assert pyoci.run(["true"], runtime=runtime, monitor="direct").returncode == 0
    assert pyoci.run(["true"], runtime=runtime, monitor="conmon").returncode == 0
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(pyoci.InvalidOption, match="monitor"):
        pyoci.run(["true"], runtime=runtime, monitor="nobody")
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_what_only_conmon_can_is_refused(direct: pyoci.OCIRuntime, build: Build, tmp_path: Path) -> None:
    for options in ({"log_driver": "k8s-file"}, {"log_path": str(tmp_path / "log")}):
        with pytest.raises(pyoci.InvalidOption, match="log_"):
            direct.create(build("true"), **options)  # type: ignore[arg-type]


def test_a_create_that_fails_says_why_and_leaves_nothing(direct: pyoci.OCIRuntime, build: Build) -> None:
    with pytest.raises(pyoci.CreateError, match="nosuchprogram"):
        direct.create(build("nosuchprogram"))
    assert direct.list() == []


@pytest.mark.root
def test_out_of_memory_is_told(direct: pyoci.OCIRuntime, has_controller: object) -> None:
    has_controller("memory")  # type: ignore[operator]
    done = pyoci.run(["sh", "-c", "x=$(head -c 100000000 /dev/zero | tr '\\0' x)"], memory="16M", runtime=direct)
    assert done.oom_killed


def test_everything_dies_with_init(direct: pyoci.OCIRuntime) -> None:
    done = pyoci.run(["sh", "-c", "sleep 100 & sleep 100 & exit 5"], runtime=direct)
    assert done.returncode == 5


def test_many_threads(direct: pyoci.OCIRuntime) -> None:
    codes: list[int | None] = []
    threads = [threading.Thread(target=lambda i=i: codes.append(pyoci.run(["sh", "-c", f"exit {i}"], runtime=direct).returncode)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(code or 0 for code in codes) == list(range(8))


def test_a_launcher(direct: pyoci.OCIRuntime) -> None:
    with pyoci.Launcher(runtime=direct) as pool:
        assert [done.returncode for done in pool.map(["sh", "-c", f"exit {i}"] for i in range(20))] == list(range(20))


def test_with_sigchld_ignored(direct: pyoci.OCIRuntime) -> None:
    previous = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert pyoci.run(["sh", "-c", "exit 6"], runtime=direct).returncode in (6, None)
    finally:
        signal.signal(signal.SIGCHLD, previous)


def test_what_its_creator_left_can_be_found_and_deleted(direct: pyoci.OCIRuntime) -> None:
    program = """
import os, sys, pyoci
from pyoci import rootfs, spec
runtime = pyoci.OCIRuntime(sys.argv[1], state_dir=sys.argv[2], monitor="direct")
runtime.create(spec.build(["sleep", "100"], rootfs=rootfs.builtin(), read_only=True), "orphan").start()
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", program, direct.runtime_path, direct.state_dir], check=True, timeout=60)
    (container,) = direct.list()
    assert container.state() == "running"
    assert container.stop(timeout=0).code in (137, None)
    container.delete()


async def _aio(direct: pyoci.OCIRuntime) -> int | None:
    return (await pyoci.aio.run(["sh", "-c", "exit 4"], runtime=direct)).returncode


def test_asyncio(direct: pyoci.OCIRuntime) -> None:
    import asyncio

    assert asyncio.run(_aio(direct)) == 4


def test_a_failed_create_with_conmon_leaves_a_subreaper_no_zombie(direct: pyoci.OCIRuntime, build: Build) -> None:
    with direct.create(build("true")):
        pass
    for _ in range(8):
        with pytest.raises(pyoci.CreateError):
            direct.create(build("true", mounts=[{"destination": "/x", "type": "nonsense", "source": "nonsense"}]), monitor="conmon")


@pytest.mark.root
def test_its_cgroup_is_its_own_without_a_place_for_conmon(direct: pyoci.OCIRuntime, build: Build) -> None:
    alone = pyoci.OCIRuntime(direct.runtime_path, state_dir=direct.state_dir, conmon_cgroup="separate", strict_cgroups=True, monitor="direct")
    with alone.create(build("sleep", "100"), id="placed") as container:
        assert ":/pyoci-placed\n" in Path(f"/proc/{container.pid}/cgroup").read_text()


LEAVING_AN_INIT = """#!/bin/sh
# As a runtime that fails when its container's init, in a session of its own, is dead and not reaped.
case " $* " in *" create "*) ;; *) exit 1 ;; esac
setsid unshare --user --map-root-user --pid --fork sh -c ': >begun; sleep 0.05' >/dev/null 2>&1 &
until [ -e begun ]; do sleep 0.01; done
kill -STOP $!
sleep 0.4
kill -KILL $!
wait $!
exit 1
"""


def test_an_init_that_a_failed_runtime_leaves_is_reaped(state_dir: str, tmp_path: Path, build: Build) -> None:
    path = tmp_path / "leaving"
    path.write_text(LEAVING_AN_INIT)
    path.chmod(0o755)
    runtime = pyoci.OCIRuntime(str(path), state_dir=state_dir, monitor="direct")
    with pytest.raises(pyoci.CreateError, match="exited 1"):
        runtime.create(build("true"))
    assert descendants({os.getpid()}) == []


def test_only_that_init_is_reaped(direct: pyoci.OCIRuntime, tmp_path: Path, build: Build) -> None:
    with direct.create(build("sh", "-c", "exit 7")) as container:
        container.start()
        select.select([container.fileno()], [], [], 20)
        with pytest.raises(pyoci.CreateError):
            direct.create(build("nosuchprogram"))
        drive(reap_init(direct._host.store, "another", 0))
        assert container.wait(20).code == 7
