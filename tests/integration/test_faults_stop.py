"""What must survive: stop where it is hard, and from many sides at once. Rows 17, 19 and 20 of docs/faults.md."""

import contextlib
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pyoci
from pyoci import cgroups, lifecycle, process
from tests.containers import FOREVER, Build
from tests.long import LONG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyoci.waiting import Operation

DEAF = ("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done")


def ready(container: pyoci.Container) -> None:
    while "ready" not in Path(container.log_path).read_text():
        time.sleep(0.005)


def shared_pid_namespace(config: dict[str, object]) -> dict[str, object]:
    linux = config["linux"]
    assert isinstance(linux, dict)
    linux["namespaces"] = [n for n in linux["namespaces"] if n["type"] != "pid"]
    return config


# --- row 17 -----------------------------------------------------------------------------------------------------------------------


def forkers(mark: str) -> str:
    """A script whose processes go on forking, deaf to TERM, in sessions of their own."""
    return f"trap '' TERM HUP; for i in 1 2 3; do (while :; do setsid sleep {mark} & sleep 0.01; done) & done; echo ready; sleep 0.2"


def named(mark: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                if mark.encode() in (entry / "cmdline").read_bytes():
                    found.append(entry.name)
    return found


@pytest.mark.parametrize("init_goes_first", [True, False])
@pytest.mark.root
def test_row_17_children_that_fork_and_outlive_init_in_a_shared_pid_namespace(runtime: pyoci.OCIRuntime, build: Build, init_goes_first: bool) -> None:
    mark = f"10{os.getpid()}.5"
    container = runtime.create(shared_pid_namespace(build("sh", "-c", forkers(mark) + ("" if init_goes_first else "; wait"))))
    container.start()
    if init_goes_first:
        assert container.wait(20).code == 0
        assert named(mark)
    else:
        ready(container)
    container.stop(timeout=0.2)
    assert not named(mark)
    container.delete()


@pytest.mark.root
def test_row_17_a_container_that_somebody_else_thaws_meanwhile(runtime: pyoci.OCIRuntime, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    with runtime.create(build("sh", "-c", "trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done")) as container:
        container.start()
        ready(container)
        container.pause()
        real = lifecycle.resume

        def resume(life: lifecycle.Life) -> "Operation[None]":
            yield from real(life)
            yield from real(life)  # and now it is not paused any more

        monkeypatch.setattr(lifecycle, "resume", resume)
        assert container.stop(timeout=20).code == 3
        monkeypatch.undo()


@pytest.fixture
def frozen_parent() -> Iterator[tuple[str, Callable[[bool], None]]]:
    """A cgroup path whose cgroups hang below one that can be frozen, and the freezing: a process in D state that is real. On cgroup v1 the
    runtime can thaw its own cgroup, but not the one above, and SIGKILL waits."""
    mounts = cgroups.read().mounts
    if "freezer" not in mounts:
        pytest.skip("this host has no cgroup v1 freezer; on v2 a frozen process can be killed")
    parent = f"/pyoci-tests-{os.getpid()}"
    state = Path(f"{mounts['freezer']}{parent}", "freezer.state")

    def freeze(wanted: bool) -> None:
        state.write_text("FROZEN" if wanted else "THAWED")
        deadline = time.monotonic() + 20
        while state.read_text().strip() != ("FROZEN" if wanted else "THAWED"):
            assert time.monotonic() < deadline, state.read_text()
            time.sleep(0.005)

    yield f"{parent}/job", freeze
    for mount in set(mounts.values()):
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(mount + parent)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.root
def test_row_17_an_init_that_even_kill_does_not_end(
    runtime: pyoci.OCIRuntime,
    build: Build,
    frozen_parent: tuple[str, Callable[[bool], None]],
    monkeypatch: pytest.MonkeyPatch,
    shared: bool,
) -> None:
    runtime = pyoci.OCIRuntime(runtime.runtime_path, state_dir=runtime.state_dir, kill_timeout=0.2)
    monkeypatch.setattr(lifecycle, "LEFTOVERS_TIMEOUT", 0.2)
    path, freeze = frozen_parent
    config = build(*DEAF)
    config["linux"]["cgroupsPath"] = path
    container = runtime.create(shared_pid_namespace(config) if shared else config, "job")
    container.start()
    ready(container)  # runc's threads, frozen in the midst of exec, would stay FREEZING
    try:
        freeze(True)
        with pytest.raises(pyoci.ContainerStateError, match=rf"'job'.*pid {container.pid} is in state D") as caught:
            container.stop(timeout=0.1)
        assert caught.value.state == "running"
        with pytest.raises(pyoci.ContainerStateError, match="state D"):
            container.delete(force=True)
        assert container.pid is not None
    finally:
        freeze(False)
    assert container.wait(20).code == 137
    container.delete()


def test_row_17_the_state_is_named_whatever_the_host(runtime: pyoci.OCIRuntime, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with SIGKILL kept from it and a made-up stat."""
    runtime = pyoci.OCIRuntime(runtime.runtime_path, state_dir=runtime.state_dir, kill_timeout=0.1)
    with runtime.create(build(*DEAF), "job") as container:
        container.start()
        ready(container)
        real = process.read_stat
        with monkeypatch.context() as patch:
            patch.setattr(process.Process, "signal", lambda self, signal: True)
            patch.setattr(lifecycle, "read_stat", lambda pid: process.Stat("D", 1, 1, 1, None) if pid == container.pid else real(pid))
            with pytest.raises(pyoci.ContainerStateError, match=rf"0\.1 s after SIGKILL pid {container.pid} is in state D"):
                container.stop(timeout=0.1)
        container.kill()


# --- row 19 -----------------------------------------------------------------------------------------------------------------------


class Siege:
    """64 threads at one container, through one object or each through its own."""

    def __init__(self, runtime: pyoci.OCIRuntime, container: pyoci.Container, *, shared: bool) -> None:
        self.runtime = runtime
        self.container = container
        self.shared = shared
        self.gate = threading.Barrier(64)
        self.deleted = 0
        self.wrong: list[BaseException] = []

    def act(self, number: int) -> None:
        own = self.container if self.shared else self.runtime.load(self.container.id)
        verb = ("stop", "delete", "kill", "wait")[number % 4]
        self.gate.wait(60)
        time.sleep(random.random() * 0.02)
        try:
            if verb == "stop":
                assert own.stop(timeout=random.choice((0, 0.01, 20))).code in (0, 137)
            elif verb == "wait":
                assert own.wait(60).code in (0, 137)
            elif verb == "kill":
                own.kill(random.choice(("TERM", "KILL")))
            else:
                own.delete(force=number % 8 == 1)
                self.deleted += 1
        except (pyoci.ContainerNotFound, pyoci.ContainerStateError):
            # Never of a stop or a wait: by its pidfd each knows the end, whoever has deleted it.
            assert verb in ("delete", "kill")

    def thread(self, number: int) -> None:
        try:
            self.act(number)
        except BaseException as error:
            self.wrong.append(error)

    def go(self) -> None:
        threads = [threading.Thread(target=self.thread, args=(number,), daemon=True) for number in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
            assert not thread.is_alive(), "a deadlock"
        assert not self.wrong, self.wrong
        assert self.deleted <= 1


@pytest.mark.parametrize("shared", [True, False])
def test_row_19_stop_delete_kill_and_wait_from_64_threads(runtime: pyoci.OCIRuntime, build: Build, shared: bool) -> None:
    """A round is one call of one thread."""
    for _ in range(10_000 // 64 + 1 if LONG else 3):
        container = runtime.create(build(*FOREVER), "job")
        container.start()
        siege = Siege(runtime, container, shared=shared)
        siege.go()
        if not siege.deleted:
            container.delete(force=True)
        assert container.wait(0).code in (0, 137)
        assert runtime.list() == []


# --- row 20 -----------------------------------------------------------------------------------------------------------------------

STOP = """
import sys, pyoci
print(pyoci.Container.load("job", state_dir=sys.argv[1]).stop(timeout=0.1).code)
"""


@pytest.mark.parametrize("elsewhere", [False, True])
def test_row_20_a_second_stop_with_a_shorter_timeout_shortens_the_first(runtime: pyoci.OCIRuntime, build: Build, elsewhere: bool) -> None:
    with runtime.create(build(*DEAF), "job") as container:
        container.start()
        ready(container)
        codes: list[int | None] = []
        first = threading.Thread(target=lambda: codes.append(container.stop(timeout=1000).code))
        first.start()
        first.join(0.1)
        assert first.is_alive()
        if elsewhere:
            done = subprocess.run([sys.executable, "-c", STOP, runtime.state_dir], capture_output=True, text=True, timeout=60, check=True)
            codes.append(int(done.stdout))
        else:
            codes.append(container.stop(timeout=0.1).code)
        first.join(60)
        assert codes == [137, 137]
