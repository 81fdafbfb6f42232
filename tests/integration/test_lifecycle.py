"""The life of containers, through the real conmon and each real runtime."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import pyoci
from tests.containers import FOREVER, Build, ready

pytestmark = pytest.mark.everywhere


def test_a_whole_life(runtime: pyoci.OCIRuntime, build: Build) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    container = runtime.create(build("sh", "-c", "echo out; echo err >&2; exit 7"), "job-7")
    assert container.state() == "created"
    assert container.pid is not None
    assert container.conmon_pid is not None
    container.start()
    status = container.wait(timeout=20)
    assert status.code == 7
    assert status.signal is None
    assert not status.oom_killed
    assert status.finished_at is not None
    assert before < status.finished_at < datetime.now(UTC) + timedelta(seconds=1)
    assert container.state() == "stopped"
    assert container.pid is None
    assert container.wait() == status == container.exit_status
    log = Path(container.log_path).read_text()
    assert " stdout F out\n" in log
    assert " stderr F err\n" in log
    directory = container.directory
    container.delete()
    assert not Path(directory).exists()


@pytest.mark.parametrize("code", [0, 1, 125, 126, 127, 128, 137, 255])
def test_exit_codes_come_through(runtime: pyoci.OCIRuntime, build: Build, code: int) -> None:
    container = runtime.create(build("sh", "-c", f"exit {code}"))
    container.start()
    status = container.wait(20)
    container.delete()
    assert status.code == code
    # The kernel tells a code from a signal; where only conmon's file speaks, 137 reads as KILL.
    assert status.signal is None or code > 128


@pytest.mark.parametrize("name", ["KILL", "SIGSEGV", "15", 9])
def test_kill_sends_the_signal_and_the_status_names_it(runtime: pyoci.OCIRuntime, build: Build, name: int | str) -> None:
    # PID 1 of a namespace only gets what it has a handler for, but for KILL from outside.
    number = {"KILL": 9, "SIGSEGV": 11, "15": 15, 9: 9}[name]
    body = "sleep 100 & wait" if number == 9 else f"trap 'exit {128 + number}' {number}; echo ready; while :; do sleep 0.1; done"
    with runtime.create(build("sh", "-c", body)) as container:
        container.start()
        if number != 9:
            ready(container)
        container.kill(name)
        status = container.wait(20)
        assert status.code == 128 + number
        with pytest.raises(pyoci.ContainerStateError) as caught:
            container.kill(name)
        assert caught.value.state == "stopped"


@pytest.mark.parametrize("signal_name", ["NOPE", 0, 65, -1, "", "SIG"])
def test_what_is_no_signal_is_refused(runtime: pyoci.OCIRuntime, build: Build, signal_name: int | str) -> None:
    with runtime.create(build(*FOREVER)) as container, pytest.raises(pyoci.InvalidOption, match="signal"):
        container.kill(signal_name)


def test_wait_has_a_timeout_and_the_container_goes_on(runtime: pyoci.OCIRuntime, build: Build) -> None:
    with runtime.create(build(*FOREVER)) as container:
        container.start()
        with pytest.raises(pyoci.Timeout) as caught:
            container.wait(timeout=0.05)
        assert isinstance(caught.value, TimeoutError)
        assert container.id in str(caught.value)
        assert container.state() == "running"
        with pytest.raises(pyoci.Timeout):
            container.wait(timeout=0)


def test_stop_sends_the_stop_signal_first(runtime: pyoci.OCIRuntime, build: Build) -> None:
    body = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done"
    with runtime.create(build("sh", "-c", body)) as container:
        container.start()
        ready(container)
        assert container.stop(timeout=20).code == 3
        assert container.stop().code == 3


def test_stop_takes_the_images_stop_signal_or_the_one_that_is_given(runtime: pyoci.OCIRuntime, build: Build) -> None:
    body = "trap 'exit 4' USR1; trap 'exit 5' USR2; echo ready; while :; do sleep 0.05; done"
    config = build("sh", "-c", body)
    config["annotations"] = {"org.opencontainers.image.stopSignal": "SIGUSR1"}
    for given, code in ((None, 4), ("USR2", 5)):
        with runtime.create(config) as container:
            container.start()
            ready(container)
            assert container.stop(timeout=20, signal=given).code == code


def test_stop_kills_everything_at_the_timeout(runtime: pyoci.OCIRuntime, build: Build) -> None:
    with runtime.create(build("sh", "-c", "trap '' TERM; sleep 100 & echo ready; while :; do sleep 1; done")) as container:
        container.start()
        ready(container)
        status = container.stop(timeout=0.2)
        assert (status.code, status.signal) == (137, 9)


@pytest.mark.root
def test_children_that_outlive_init_in_a_shared_pid_namespace_are_killed(runtime: pyoci.OCIRuntime, build: Build) -> None:
    mark = f"{86_000 + os.getpid() % 1000}"
    config = build("sh", "-c", f"(trap '' TERM HUP; sleep {mark}) & sleep 0.2; exit 0")
    config["linux"]["namespaces"] = [n for n in config["linux"]["namespaces"] if n["type"] != "pid"]

    def alive() -> list[str]:
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    if f"\0{mark}\0".encode() in b"\0" + (entry / "cmdline").read_bytes():
                        found.append(entry.name)
                except OSError:
                    pass
        return found

    container = runtime.create(config)
    container.start()
    assert container.wait(20).code == 0
    assert alive()
    container.stop(timeout=0.2)
    assert not alive()
    container.delete()


@pytest.mark.root
def test_pause_and_resume(runtime: pyoci.OCIRuntime, build: Build) -> None:
    with runtime.create(build(*FOREVER)) as container:
        for action in (container.pause, container.resume):
            with pytest.raises(pyoci.ContainerStateError) as caught:
                action()
            assert caught.value.state == "created"
        container.start()
        container.pause()
        assert container.state() == "paused"
        with pytest.raises(pyoci.ContainerStateError, match="paused"):
            container.pause()
        container.resume()
        assert container.state() == "running"
        with pytest.raises(pyoci.ContainerStateError, match="running"):
            container.resume()


@pytest.mark.root
def test_a_paused_container_is_thawed_by_stop(runtime: pyoci.OCIRuntime, build: Build) -> None:
    body = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done"
    with runtime.create(build("sh", "-c", body)) as container:
        container.start()
        ready(container)
        container.pause()
        assert container.stop(timeout=20).code == 3


@pytest.mark.root
def test_a_paused_container_can_be_deleted_by_force(runtime: pyoci.OCIRuntime, build: Build) -> None:
    container = runtime.create(build(*FOREVER))
    container.start()
    container.pause()
    container.delete(force=True)


def test_things_done_twice_or_out_of_order_are_typed(runtime: pyoci.OCIRuntime, build: Build) -> None:
    container = runtime.create(build(*FOREVER))
    container.start()
    with pytest.raises(pyoci.ContainerStateError) as caught:
        container.start()
    assert caught.value.state == "running"
    with pytest.raises(pyoci.ContainerStateError, match="stop it first"):
        container.delete()
    assert container.state() == "running"
    container.stop(timeout=0)
    with pytest.raises(pyoci.ContainerStateError) as caught:
        container.start()
    assert caught.value.state == "stopped"
    container.delete()
    for action in (container.delete, container.state):
        with pytest.raises(pyoci.ContainerNotFound):
            action()
    with pytest.raises(pyoci.ContainerNotFound):
        runtime.load(container.id)


def test_a_created_container_can_be_stopped_and_deleted(runtime: pyoci.OCIRuntime, build: Build) -> None:
    container = runtime.create(build("true"))
    container.stop(timeout=0.5)
    container.delete()
    runtime.create(build("true")).delete(force=True)


def test_the_block_stops_and_deletes(runtime: pyoci.OCIRuntime, build: Build) -> None:
    with runtime.create(build("sh", "-c", "trap 'exit 0' TERM; echo ready; while :; do sleep 0.05; done"), "a") as container:
        container.start()
        ready(container)
    assert runtime.list() == []


def test_the_block_kills_at_once_when_it_fails(runtime: pyoci.OCIRuntime, build: Build) -> None:
    began = time.monotonic()
    with pytest.raises(ZeroDivisionError), runtime.create(build("sh", "-c", "trap '' TERM; while :; do sleep 0.05; done")) as container:
        container.start()
        _ = 1 / 0
    assert time.monotonic() - began < 8  # not the ten seconds of a patient stop
    assert runtime.list() == []


def test_delete_inside_the_block_is_fine(runtime: pyoci.OCIRuntime, build: Build) -> None:
    with runtime.create(build("true")) as container:
        container.start()
        container.wait(20)
        container.delete()


def test_many_containers_from_one_bundle_at_once_and_the_bundle_is_only_read(runtime: pyoci.OCIRuntime, build: Build, tmp_path: Path) -> None:
    config = build("cat", "/data/word")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "word").write_text("relative")
    (tmp_path / "rootfs").symlink_to(config["root"]["path"])
    config["root"]["path"] = "rootfs"
    config["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"})
    config["mounts"].append({"destination": "/tmp/data", "type": "bind", "source": "data", "options": ["rbind", "ro"]})
    config["process"]["args"] = ["cat", "/tmp/data/word"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    before = {p.name: p.lstat().st_mtime_ns for p in tmp_path.iterdir()}
    containers = [runtime.create(tmp_path) for _ in range(8)]
    for container in containers:
        container.start()
    assert [container.wait(20).code for container in containers] == [0] * 8
    assert all(" F relative\n" in Path(c.log_path).read_text() or " P relative\n" in Path(c.log_path).read_text() for c in containers)
    for container in containers:
        container.delete()
    assert {p.name: p.lstat().st_mtime_ns for p in tmp_path.iterdir()} == before


def test_a_mapping_is_not_changed(runtime: pyoci.OCIRuntime, build: Build) -> None:
    config = build("true")
    before = json.dumps(config)
    runtime.create(config).delete(force=True)
    assert json.dumps(config) == before


def test_another_process_loads_waits_stops_and_deletes(runtime: pyoci.OCIRuntime, build: Build) -> None:
    container = runtime.create(build("sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done"), "shared")
    container.start()
    ready(container)
    program = """
import sys, pyoci
container = pyoci.Container.load("shared", state_dir=sys.argv[1])
print(container.state(), container.pid)
print(container.stop(timeout=20).code)
container.delete()
"""
    done = subprocess.run([sys.executable, "-c", program, runtime.state_dir], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["running", str(container.pid or container._life.init.pid if container._life.init else 0), "9"]
    assert container.wait(5).code == 9  # by the pidfd, though the files are gone
    with pytest.raises(pyoci.ContainerNotFound):
        container.delete()


def test_a_container_outlives_its_creator(runtime: pyoci.OCIRuntime, rootfs: str) -> None:
    program = """
import sys, pyoci
rt = pyoci.OCIRuntime(sys.argv[1], state_dir=sys.argv[2])
rt.create(pyoci.spec.build(["sh", "-c", "sleep 0.5; exit 11"], rootfs=sys.argv[3]), "orphan").start()
"""
    subprocess.run([sys.executable, "-c", program, runtime.runtime_path, runtime.state_dir, rootfs], timeout=60, check=True)
    (container,) = runtime.list()
    assert container.id == "orphan"
    status = container.wait(20)
    assert status.code == 11
    container.delete()


def test_the_code_of_one_that_ended_long_ago_is_still_told(runtime: pyoci.OCIRuntime, build: Build) -> None:
    container = runtime.create(build("sh", "-c", "exit 12"))
    container.start()
    status = container.wait(20)
    loaded = runtime.load(container.id)
    assert loaded.state() == "stopped"
    assert loaded.wait(0).code == 12
    assert loaded.wait(0).finished_at == status.finished_at
    loaded.delete()


def test_list_is_sorted_and_empty_afterwards(runtime: pyoci.OCIRuntime, build: Build) -> None:
    made = [runtime.create(build("true"), id) for id in ("b", "a", "c")]
    assert [container.id for container in runtime.list()] == ["a", "b", "c"]
    for container in made:
        container.delete(force=True)
    assert runtime.list() == []


def test_two_threads_wait_for_one_container(runtime: pyoci.OCIRuntime, build: Build) -> None:
    with runtime.create(build("sh", "-c", "sleep 0.2; exit 6")) as container:
        container.start()
        codes: list[int | None] = []
        threads = [threading.Thread(target=lambda: codes.append(container.wait(20).code)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert codes == [6] * 8


def test_fileno_becomes_readable_at_the_end(runtime: pyoci.OCIRuntime, build: Build) -> None:
    import select

    with runtime.create(build("sleep", "0.1")) as container:
        container.start()
        assert select.select([container], [], [], 20)[0] == [container]


def test_keyboard_interrupt_in_wait_leaves_a_usable_container(runtime: pyoci.OCIRuntime, build: Build) -> None:
    with runtime.create(build(*FOREVER)) as container:
        container.start()
        timer = threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            container.wait(20)
        timer.join()
        assert container.state() == "running"


@pytest.mark.interrupted
# Python ignores an interrupt that comes while an object is being given up, and says so.
@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # a file of which nobody has taken hold yet
@pytest.mark.parametrize("delay", [0.0, 0.001, 0.003, 0.006, 0.01, 0.02])
def test_keyboard_interrupt_in_create_leaves_nothing(runtime: pyoci.OCIRuntime, build: Build, delay: float) -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)
    previous = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        for _ in range(5):
            try:
                signal.setitimer(signal.ITIMER_REAL, max(delay, 1e-6))
                runtime.create(build(*FOREVER), "interrupted")
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                pass
            # It may have come when all was done, an instant before the return: then the whole container is there, and listed.
            for finished in runtime.list():
                finished.delete(force=True)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert runtime.list() == []


def test_the_processes_of_a_container(runtime: pyoci.OCIRuntime, build: Build) -> None:
    with runtime.create(build(*FOREVER)) as container:
        container.start()
        ready(container)
        init, other = container.processes()
        assert (init.pid, init.pid_inside) == (container.pid, 1)
        assert (other.ppid, other.args) == (init.pid, ["sleep", "100"])
        container.stop(5)
        assert container.processes() == []


@pytest.mark.parametrize("by_another", [False, True])
def test_what_is_asked_of_a_deleted_container(runtime: pyoci.OCIRuntime, build: Build, by_another: bool) -> None:
    with runtime.create(build("sleep", "100"), "job") as container:
        container.start()
        kept = runtime.load("job")
        container.kill()
    gone = kept if by_another else container
    calls: list[Callable[[], object]] = [
        gone.state,
        gone.start,
        gone.kill,
        gone.pause,
        gone.resume,
        gone.delete,
        gone.attach,
        gone.logs,
        lambda: gone.delete(force=True),
        lambda: gone.exec(["true"]),
    ]
    for call in calls:
        with pytest.raises(pyoci.ContainerNotFound, match="it was deleted"):
            call()
    # How it ended is known for as long as somebody holds it.
    assert gone.wait(0) == gone.stop()
    assert gone.processes() == []
    assert gone.exec_sessions() == []
