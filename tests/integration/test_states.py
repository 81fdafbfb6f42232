"""What a container's state is when others have been at it; waiting for several."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import pyoci
from pyoci import lifecycle, store
from tests.containers import FOREVER, Build


def told(status: pyoci.ExitStatus) -> tuple[int | None, bool]:
    """All but the time, which is conmon's if it was quick enough."""
    return status.code, status.oom_killed


def test_no_call_of_the_runtime_when_the_end_is_known(runtime: pyoci.OCIRuntime, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    with runtime.create(build("sh", "-c", "exit 3"), "job") as container:
        container.start()
        container.wait(20)
        monkeypatch.setattr(lifecycle, "invoke", lambda *args, **options: pytest.fail("the runtime was called"))
        assert container.state() == "stopped"
        assert runtime.load("job").state() == "stopped"
        monkeypatch.undo()


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("conmon_dies", [False, True])
def test_a_container_that_the_runtime_forgot_is_configured_and_its_exit_is_kept(
    runtime: pyoci.OCIRuntime, build: Build, loaded: bool, conmon_dies: bool
) -> None:
    container = runtime.create(build("sh", "-c", "echo words; exit 9"), "job")
    if conmon_dies:
        assert container._life.conmon is not None
        container._life.conmon.signal(signal.SIGKILL)
    container.start()
    status = container.wait(20)
    called = [runtime.runtime_path, "--root", container._life.host.runtime.root, "delete", "job"]
    subprocess.run(called, env=container._life.host.env, check=True, timeout=60)
    if loaded:
        container = runtime.load("job")
    assert container.state() == "configured"
    assert container.state() == "configured"
    names = set(os.listdir(container.directory))
    assert names & {"attach", "ctl", "winsz", "conmon.pid", "pidfile"} == set()
    assert names >= {"config.json", "record.json", "log"}
    # conmon's word or, where it was killed, the kernel's as the first wait wrote it down.
    if status.code is not None:
        assert told(container.wait(0)) == told(status) == told(runtime.load("job").wait(0))
        assert status.code == 9
    with pytest.raises(pyoci.ContainerStateError) as caught:
        container.start()
    assert caught.value.state == "configured"
    assert container.stop(timeout=0).code == status.code
    container.delete()
    with pytest.raises(pyoci.ContainerNotFound):
        container.state()


@pytest.mark.root
def test_out_of_memory_is_kept_too(runtime: pyoci.OCIRuntime, build: Build, has_controller: Callable[[str], None]) -> None:
    has_controller("memory")
    with runtime.create(build("sh", "-c", "x=x; while :; do x=$x$x; done", memory="16M"), "job") as container:
        container.start()
        status = container.wait(60)
        assert status.oom_killed
        assert told(status) == told(runtime.load("job").wait(0))
        shutil.rmtree(f"{container._life.host.runtime.root}/job")
        loaded = runtime.load("job")
        assert loaded.state() == "configured"
        assert told(loaded.wait(0)) == told(status)


@pytest.mark.root
def test_an_old_object_leaves_the_next_container_of_its_id_alone(runtime: pyoci.OCIRuntime, build: Build) -> None:
    config = build(*FOREVER)
    config["linux"]["namespaces"] = [n for n in config["linux"]["namespaces"] if n["type"] != "pid"]
    old = runtime.create(config, "job")
    old.start()
    elsewhere = runtime.load("job")
    elsewhere.stop(timeout=0)
    elsewhere.delete()
    with runtime.create(config, "job") as new:
        new.start()
        assert old.stop(timeout=0).code in (137, None)
        for action in (old.delete, old.state, lambda: old.delete(force=True)):
            with pytest.raises(pyoci.ContainerNotFound):
                action()
        assert new.state() == "running"
        assert runtime.load("job").pid == new.pid


def test_a_container_in_the_making_is_not_there_yet(runtime: pyoci.OCIRuntime, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    real = lifecycle._identify

    def identify(life: lifecycle.Life, pid: int) -> None:
        seen.append(runtime.list())
        with pytest.raises(pyoci.ContainerNotFound, match="being created"):
            runtime.load("job")
        real(life, pid)

    monkeypatch.setattr(lifecycle, "_identify", identify)
    with runtime.create(build(*FOREVER), "job"):
        assert seen == [[]]
        assert len(runtime.list()) == 1


def test_waiting_for_several(runtime: pyoci.OCIRuntime, build: Build) -> None:
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(runtime.create(build("sh", "-c", f"trap 'exit {i}' TERM; sleep 100 & wait"))) for i in range(4)]
        quick = stack.enter_context(runtime.create(build("sh", "-c", "exit 7")))
        for container in [*made, quick]:
            container.start()
        done, pending = pyoci.wait([*made, quick], 20, pyoci.FIRST_COMPLETED)
        assert (done, pending) == ({quick}, set(made))
        assert quick.wait(0).code == 7
        assert pyoci.wait(made, timeout=0.05) == (set(), set(made))
        made[1].kill()
        assert asyncio.run(pyoci.aio.wait(made, 20, pyoci.FIRST_COMPLETED)) == ({made[1]}, {made[0], made[2], made[3]})
        timers = [threading.Timer(0.05, made[i].kill) for i in (0, 2, 3)]
        for timer in timers:
            timer.start()
        assert pyoci.wait(made, 20) == (set(made), set())
        for timer in timers:
            timer.join()
        assert {container.wait(0).code for container in made} == {137}
        # One that had ended before it was loaded has no descriptor any more.
        assert pyoci.wait([runtime.load(quick.id)], 0)[1] == set()


def test_waiting_for_an_exec_session_or_its_container(runtime: pyoci.OCIRuntime, build: Build) -> None:
    with runtime.create(build(*FOREVER)) as container:
        container.start()
        session = container.exec(["sh", "-c", "exit 3"])
        both: list[pyoci.Container | pyoci.ExecSession] = [container, session]
        assert pyoci.wait(both, 60, pyoci.FIRST_COMPLETED) == ({session}, {container})
        assert session.wait(60).code == 3


def test_the_lock_of_a_directory(tmp_path: Path) -> None:
    assert not store.is_locked(str(tmp_path))
    with store.Lock(str(tmp_path)):
        assert store.is_locked(str(tmp_path))
        with pytest.raises(BlockingIOError):
            store.Lock(str(tmp_path))
    assert not store.is_locked(str(tmp_path))
    assert not store.is_locked(f"{tmp_path}/none")
