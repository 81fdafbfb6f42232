"""After a crash of the caller: prune. Row 8 of docs/faults.md."""

import asyncio
import contextlib
import gc
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pyoci
from pyoci import cgroups, direct, recovery, rootfs
from pyoci.cli import main
from pyoci.networks import NetworkNamespace
from tests import audit
from tests.commands import pyoci_command
from tests.containers import FOREVER, Build, ready
from tests.long import LONG

Script = Callable[[pyoci.OCIRuntime, Build], object]


def killed_creator(runtime: pyoci.OCIRuntime, build: Build, script: Script, after: float | None = None) -> None:
    """A process that does this and is then killed; or it is killed so many seconds after it has begun."""
    begun, done = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(begun[1], b"!")
            # A conmon would keep the pipe open otherwise, if the child is killed before it can close it.
            script(pyoci.OCIRuntime(runtime.runtime_path, state_dir=runtime.state_dir), build)
            os.write(done[1], b"!")
            signal.pause()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(begun[1])
    os.close(done[1])
    assert os.read(begun[0], 1) == b"!"
    if after is None:
        assert os.read(done[0], 1) == b"!", "the script failed"
    else:
        time.sleep(after)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(begun[0])
    os.close(done[0])


def sleeper(runtime: pyoci.OCIRuntime, build: Build, id: str, **options: Any) -> pyoci.Container:
    container = runtime.create(build("sleep", "100"), id, **options)
    container.start()
    return container


@contextlib.contextmanager
def living(runtime: pyoci.OCIRuntime, build: Build) -> Iterator[pyoci.Container]:
    """A container of this process's, whom no prune may touch."""
    container = sleeper(runtime, build, "beside", bound=True)
    try:
        yield container
        assert container.state() == "running"
    finally:
        container.delete(force=True)


def several(runtime: pyoci.OCIRuntime, build: Build) -> None:
    sleeper(runtime, build, "free")
    sleeper(runtime, build, "bound", bound=True)
    sleeper(runtime, build, "direct", monitor="direct")
    runtime.create(build("true"), "waiting")
    over = runtime.create(build("sh", "-c", "exit 7"), "over")
    over.start()
    over.wait()


def pruned(found: Any) -> dict[str, pyoci.Pruned]:
    assert all(item.error is None for item in found), found
    return {item.id: item for item in found}


@pytest.mark.root
def test_what_is_removed_and_what_stays(runtime: pyoci.OCIRuntime, build: Build) -> None:
    with living(runtime, build):
        killed_creator(runtime, build, several)
        seen = pruned(runtime.prune(dry_run=True))
        assert {id for id, item in seen.items() if item.kind == "container"} == set(seen) == {"bound", "direct", "over"}
        assert seen["over"].status is not None
        assert seen["over"].status.code == 7
        assert f"{runtime.state_dir}/containers/bound" in seen["bound"].parts
        assert sum(part.startswith("process ") for part in seen["bound"].parts) == 2  # init and conmon
        assert len(runtime.list()) == 6
        done = pruned(runtime.prune())
        assert set(done) == set(seen)
        assert done["over"].status == seen["over"].status
        assert done["bound"].status is not None
        assert done["bound"].status.code == 137
        assert runtime.prune() == []
        assert runtime.load("free").state() == "running"
        assert runtime.load("waiting").state() == "created"
        # What was started for good is anybody's to end.
        runtime.load("free").stop(timeout=0)
        assert runtime.prune(older_than=60) == []
        assert set(pruned(runtime.prune(created=True))) == {"free", "waiting"}
        assert [container.id for container in runtime.list()] == ["beside"]


@pytest.mark.root
def test_nothing_is_taken_from_a_creator_that_lives(runtime: pyoci.OCIRuntime, build: Build) -> None:
    several(runtime, build)
    assert runtime.prune(created=True) == []
    assert pyoci.prune(runtime.state_dir) == []
    for container in runtime.list():
        container.delete(force=True)


@pytest.mark.root
def test_what_belongs_to_the_caller_s_caller(runtime: pyoci.OCIRuntime, build: Build) -> None:
    killed_creator(runtime, build, lambda runtime, build: sleeper(runtime, build, "job", monitor="caller"))
    assert runtime.prune() == []
    container = runtime.load("job")
    assert container.state() == "running"
    container.kill()
    container.wait()
    assert set(pruned(runtime.prune())) == {"job"}  # process 1 has it, and will not delete it


@pytest.mark.root
def test_while_the_caller_s_caller_lives(runtime: pyoci.OCIRuntime, build: Build) -> None:
    direct.become_subreaper()
    killed_creator(runtime, build, lambda runtime, build: sleeper(runtime, build, "job", monitor="caller"))
    container = runtime.load("job")
    container.kill()
    container.wait()
    assert runtime.prune() == []
    container.delete()
    with contextlib.suppress(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@pytest.mark.root
def test_asyncio(runtime: pyoci.OCIRuntime, build: Build) -> None:
    async def main() -> list[str]:
        other = pyoci.aio.OCIRuntime(runtime.runtime_path, state_dir=runtime.state_dir)
        assert [item.id for item in await pyoci.aio.prune(runtime.state_dir, dry_run=True)] == ["bound"]
        return [item.id for item in await other.prune()]

    killed_creator(runtime, build, lambda runtime, build: sleeper(runtime, build, "bound", bound=True))
    assert asyncio.run(main()) == ["bound"]


@pytest.mark.root
def test_on_the_command_line(runtime: pyoci.OCIRuntime, build: Build) -> None:
    def verb(*args: str) -> str:
        done = pyoci_command("prune", "--state-dir", runtime.state_dir, *args)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode()

    killed_creator(runtime, build, several)
    assert [line.split()[:3] for line in verb("--dry-run").splitlines()] == [
        ["KIND", "ID", "CODE"],
        ["container", "bound", "-"],
        ["container", "direct", "-"],
        ["container", "over", "7"],
    ]
    assert [json.loads(line)["id"] for line in verb("--older-than", "1h", "--json", "-n").splitlines()] == ["bound", "direct"]
    told = [json.loads(line) for line in verb("--created", "--json").splitlines()]
    assert {item["id"]: (item["removed"], item["status"]["code"]) for item in told} == {
        "bound": (True, 137),
        "direct": (True, 137),
        "over": (True, 7),
        "waiting": (True, 137),
    }
    assert verb() == ""
    runtime.load("free").delete(force=True)
    for bad in ("x", "1y", "", "-1"):
        done = pyoci_command("prune", f"--older-than={bad}")
        assert done.returncode == 125
        assert b"older" in done.stderr
        assert done.stderr.count(b"\n") == 1


def test_bad_ages(tmp_path: Path) -> None:
    for age in (-1, float("nan"), "1", True):
        with pytest.raises(pyoci.InvalidOption, match="older_than"):
            pyoci.prune(tmp_path, older_than=age)  # type: ignore[arg-type]


# --- row 8 ------------------------------------------------------------------------------------------------------------------------


def run(runtime: pyoci.OCIRuntime, _: Build) -> None:
    while True:
        pyoci.run(["true"], runtime=runtime)


def run_direct(runtime: pyoci.OCIRuntime, _: Build) -> None:
    while True:
        pyoci.run(["true"], runtime=runtime, monitor="direct")


def launch(runtime: pyoci.OCIRuntime, _: Build) -> None:
    with pyoci.Launcher(runtime=runtime, max_running=4) as launcher:
        for _done in launcher.map(["sleep", "0.02"] for _ in range(10**6)):
            pass


def warm(runtime: pyoci.OCIRuntime, _: Build) -> None:
    with pyoci.WarmPool(size=3, runtime=runtime) as pool:
        while True:
            pyoci.run(["true"], pool=pool)


def lives(runtime: pyoci.OCIRuntime, build: Build) -> None:
    while True:
        container = runtime.create(build("sleep", "100"), "job")
        container.start()
        container.stop(timeout=0)
        container.delete()


def execs(runtime: pyoci.OCIRuntime, build: Build) -> None:
    container = sleeper(runtime, build, "job", bound=True)
    while True:
        container.exec(["true"]).wait()


@pytest.mark.root
def test_row_8_the_process_killed_at_any_point(
    runtime: pyoci.OCIRuntime, build: Build, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "pyoci")
    monkeypatch.setattr(recovery, "YOUNG", 0.0)  # nobody else is making one
    dice = random.Random(8)
    with living(runtime, build):
        before = audit.everything(runtime.state_dir)
        for script in (run, run_direct, launch, warm, lives, execs):
            for _ in range(100 if LONG else 5):
                killed_creator(runtime, build, script, after=dice.uniform(0, 0.15))
                pruned(runtime.prune())
                for adopted in runtime.list():
                    if adopted.id != "beside":
                        # It was to outlive its creator, and whoever comes next can have it.
                        assert (script, adopted.id) == (lives, "job")
                        assert adopted.state() in ("created", "running", "stopped")  # killed amid the start, runc's init finds nobody at the FIFO
                        adopted.delete(force=True)
                    del adopted
                gc.collect()
                # The living one's conmon may be seen in another state.
                left = audit.left_over(before, runtime.state_dir, but="beside")
                assert not left, f"{script.__name__}: {left}"
                assert runtime.prune() == []


def test_root_file_systems_out_of_use(runtime: pyoci.OCIRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o755)
    monkeypatch.setenv("PYOCI_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(rootfs, "_made", None)
    long_ago = time.time() - rootfs.UNUSED - 60

    def found() -> set[str]:
        gone = [each for each in runtime.prune() if each.kind == "root file system"]
        assert [each.error for each in gone if each.error is not None] == []
        return {each.name for each in gone}

    config = pyoci.spec.build(["sleep", "100"], rootfs=rootfs.builtin(), cwd="/for/tests")
    copy = config["root"]["path"]
    older, half = tmp_path / "cache" / "rootfs-0-of-old", tmp_path / "cache" / ".making-x"
    for path in (older, half):
        (path / "bin").mkdir(parents=True)
        os.utime(path, (long_ago, long_ago))
    os.utime(copy, (long_ago, long_ago))
    os.utime(rootfs.builtin(), (long_ago, long_ago))
    with runtime.create(config) as container:
        container.start()
        assert time.time() - os.stat(copy).st_mtime < 60  # who is created notes it
        os.utime(copy, (long_ago, long_ago))
        assert found() == {str(older), str(half)}
        container.kill()
    assert found() == {copy}
    last = rootfs.builtin()
    assert os.listdir(tmp_path / "cache") == [os.path.basename(last)]
    assert found() == set()
    monkeypatch.setattr(rootfs, "CANDIDATES", (str(tmp_path / "busybox"),))  # where there is no busybox any more, none is today's
    os.utime(last, (long_ago, long_ago))
    assert found() == {last}


def test_an_exit_file_that_is_just_being_written_is_left_alone(runtime: pyoci.OCIRuntime, build: Build) -> None:
    """conmon writes beside it and renames (g_file_set_contents)."""
    partial = Path(runtime.state_dir, "exits", "job.7DHGZ3")
    with sleeper(runtime, build, "job") as container:
        partial.write_text("3")
        assert runtime.prune() == []
        container.kill()
    assert [(each.kind, each.id) for each in runtime.prune()] == [("exit file", partial.name)]


@pytest.mark.root
def test_prune_beside_a_launcher_disturbs_nobody(runtime: pyoci.OCIRuntime) -> None:
    stop = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(stop[1])
            rounds, found = 0, 0
            os.set_blocking(stop[0], False)
            while True:
                found += len(pyoci.prune(runtime.state_dir))
                rounds += 1
                with contextlib.suppress(BlockingIOError):
                    if os.read(stop[0], 1) == b"":
                        break
            code = 0 if rounds > 5 and found == 0 else 2
        finally:
            os._exit(code)
    os.close(stop[0])
    try:
        with pyoci.Launcher(runtime=runtime) as launcher:
            done = list(launcher.map(["sh", "-c", "exit 3"] for _ in range(1000 if LONG else 100)))
    finally:
        os.close(stop[1])
        _, status = os.waitpid(pid, 0)
    assert {item.returncode for item in done} == {3}
    assert os.waitstatus_to_exitcode(status) == 0


# --- what has no directory any more -----------------------------------------------------------------------------------------------


@pytest.mark.root
def test_a_directory_that_was_removed_by_hand(runtime: pyoci.OCIRuntime, build: Build) -> None:
    container = sleeper(runtime, build, "job")
    shutil.rmtree(container.directory)
    seen = runtime.prune(dry_run=True)
    assert {item.kind for item in seen} >= {"conmon", "runtime state"}
    assert container.pid is not None
    assert {item.kind for item in runtime.prune()} >= {"conmon", "runtime state"}
    assert container.pid is None
    assert runtime.prune() == []


@pytest.mark.root
def test_one_that_lives_without_conmon_and_directory_is_left_alone(runtime: pyoci.OCIRuntime, build: Build, caplog: pytest.LogCaptureFixture) -> None:
    container = runtime.create(build(*FOREVER), "job")
    container.start()
    ready(container)  # until its program is executed, crun's init has crun's command line
    monitor = container.conmon_pid
    assert monitor is not None
    os.kill(monitor, signal.SIGKILL)
    while container.conmon_pid is not None:
        time.sleep(0.001)
    moved = f"{runtime.state_dir}/aside"
    os.rename(container.directory, moved)
    caplog.set_level("DEBUG", "pyoci")
    assert runtime.prune() == []
    assert "delete --force job" in caplog.text
    assert container.pid is not None
    os.rename(moved, container.directory)
    container.delete(force=True)


@pytest.mark.root
def test_a_container_of_the_same_path_in_another_mount_namespace(runtime: pyoci.OCIRuntime, build: Build) -> None:
    code = f"""
import os, shutil, pyoci
runtime = pyoci.OCIRuntime({runtime.runtime_path!r}, state_dir={runtime.state_dir!r})
container = runtime.create({build("sleep", "100")!r}, "job")
container.start()
print(container.pid, flush=True)
input()
container.delete(force=True)
"""
    there = ["unshare", "-m", "sh", "-c", f'mount -t tmpfs -o mode=755 none {runtime.state_dir} && exec "$0" -c "$1"', sys.executable, code]
    with subprocess.Popen(there, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        pid = int(other.stdout.readline())
        while Path(f"/proc/{pid}/comm").read_text() != "sleep\n":
            time.sleep(0.005)  # the runtime's init is on its way to the program
        # Here there is no such directory, and then one of a crashed creator.
        assert runtime.prune() == []
        killed_creator(runtime, build, lambda runtime, build: Path(runtime.state_dir, "containers", "job").mkdir())
        os.utime(f"{runtime.state_dir}/containers/job")
        assert Path(f"/proc/{pid}/comm").read_text() == "sleep\n"
        os.rmdir(f"{runtime.state_dir}/containers/job")
        other.communicate(b"\n")
    assert other.returncode == 0


def test_left_over_files(state_dir: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("containers/half", "exits", "crun/gone"):
        Path(state_dir, path).mkdir(parents=True)
    Path(state_dir, "exits", "old").write_text("3")
    assert [(item.kind, item.id) for item in pyoci.prune(state_dir, dry_run=True)] == [("runtime state", "gone"), ("exit file", "old")]
    found = pyoci.prune(state_dir)
    assert [(item.kind, item.id) for item in found] == [("runtime state", "gone"), ("exit file", "old")]
    assert found[1].status is not None
    assert found[1].status.code == 3
    assert Path(state_dir, "containers", "half").is_dir()  # somebody may be just making it
    monkeypatch.setattr(recovery, "YOUNG", 0.0)
    assert [(item.kind, item.id) for item in pyoci.prune(state_dir)] == [("container", "half")]
    assert pyoci.prune(state_dir) == []


@pytest.mark.root
def test_a_record_that_was_cut_off_or_is_of_another_version(runtime: pyoci.OCIRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "YOUNG", 0.0)
    for id, content in (("cut", '{"version": 1, "runt'), ("newer", json.dumps({"version": 10**6}))):
        directory = Path(runtime.state_dir, "containers", id)
        directory.mkdir()
        (directory / "record.json").write_text(content)
    assert [item.id for item in runtime.prune()] == ["cut"]
    shutil.rmtree(f"{runtime.state_dir}/containers/newer")


@pytest.mark.root
@pytest.mark.parametrize("name", ["pids", "record.json"])
def test_damage_is_no_end_and_does_not_hide_the_others(
    runtime: pyoci.OCIRuntime, build: Build, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.setattr(recovery, "YOUNG", 0.0)

    def two(runtime: pyoci.OCIRuntime, build: Build) -> None:
        for id in "hurt", "whole":
            sleeper(runtime, build, id)

    killed_creator(runtime, build, two)
    kept = runtime.load("hurt")
    path = Path(kept.directory, name)
    whole = path.rename(f"{path}.whole")
    path.write_bytes(whole.read_bytes()[:20])
    try:
        with pytest.raises(pyoci.DamagedRecord, match=str(path)):
            runtime.load("hurt")
        assert [container.id for container in runtime.list()] == ["whole"]
        assert main(["list", "--quiet", "--state-dir", runtime.state_dir]) == 125
        said = capfd.readouterr()
        assert said.out == "whole\n"
        assert str(path) in said.err
        assert main(["delete", "--force", "--all", "--state-dir", runtime.state_dir]) == 125
        assert capfd.readouterr().out == "whole\n"
        assert runtime.prune() == []  # it lives
        conmon = os.pidfd_open(int(Path(kept.directory, "conmon.pid").read_text()))
        kept.kill("KILL")
        assert select.select([conmon], [], [], 10)[0]
        os.close(conmon)
        assert [item.id for item in runtime.prune()] == ["hurt"]
        assert runtime.prune() == []
    finally:
        if whole.exists():
            whole.rename(path)
            kept.delete(force=True)


@pytest.mark.root
def test_a_mount_in_the_directory(runtime: pyoci.OCIRuntime, build: Build, tmp_path: Path) -> None:
    def mounted(runtime: pyoci.OCIRuntime, build: Build) -> None:
        directory = sleeper(runtime, build, "job", bound=True).directory
        os.mkdir(f"{directory}/a b")
        subprocess.run(["mount", "--bind", tmp_path, f"{directory}/a b"], check=True)

    (tmp_path / "kept").touch()
    killed_creator(runtime, build, mounted)
    (found,) = runtime.prune()
    assert f"mount {runtime.state_dir}/containers/job/a b" in found.parts
    assert found.error is None
    assert (tmp_path / "kept").exists()


@pytest.mark.root
def test_empty_cgroups_that_only_we_name_so(runtime: pyoci.OCIRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    hierarchies = cgroups.read()
    if not hierarchies.points:
        pytest.skip("this host has no cgroup file system")
    id, parent = "0123456789abcdef" * 2, cgroups.Manager().parent
    made = [Path(path) for name in (f"pyoci-{id}", "pyoci-job") for path in hierarchies.directories(f"{parent}/{name}")]
    for path in made:
        path.mkdir()
    try:
        assert runtime.prune() == []  # not yet: the container of another state directory may have just ended
        monkeypatch.setattr(recovery, "STRAY", 0.0)
        assert {item.id for item in runtime.prune()} == {id}
        assert runtime.prune() == []
    finally:
        for path in made:
            with contextlib.suppress(FileNotFoundError):
                path.rmdir()


@pytest.mark.root
@pytest.mark.once
@pytest.mark.usefixtures("network_names")
def test_networks(state_dir: str) -> None:
    code = """
import os, signal
from pyoci.bridges import Bridge
from pyoci.networks import NetworkNamespace
NetworkNamespace.make()
bridge = Bridge(subnet="192.0.2.0/29")
print(bridge.name, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=False)
    with NetworkNamespace.make() as ours:
        seen = [(item.kind, item.id) for item in pyoci.prune(state_dir, dry_run=True)]
        assert [kind for kind, _ in seen] == ["network namespace", "bridge"]
        assert seen[1][1] == done.stdout.strip()
        assert [(item.kind, item.id) for item in pyoci.prune(state_dir)] == seen
        assert pyoci.prune(state_dir) == []
        assert NetworkNamespace.list() == [ours]


# --- systemd ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.host("systemd", "debian13", "guest")
def test_scopes(runtime: pyoci.OCIRuntime, build: Build) -> None:
    id = "fedcba9876543210" * 2
    unit = f"pyoci-{id}.scope"
    subprocess.run(["systemd-run", "--scope", f"--unit={unit}", "-p", "RuntimeMaxSec=1", "sleep", "100"], check=False, capture_output=True)
    deadline = time.monotonic() + 30
    while "failed" not in units(unit):
        assert time.monotonic() < deadline, units(unit)
        time.sleep(0.05)

    def script(runtime: pyoci.OCIRuntime, build: Build) -> None:
        other = pyoci.OCIRuntime(runtime.runtime_path, state_dir=runtime.state_dir, cgroup_manager="systemd")
        sleeper(other, build, "job", bound=True)

    killed_creator(runtime, build, script)
    assert "pyoci-conmon-job.scope" in units("pyoci-*.scope")
    assert [(item.kind, item.id) for item in runtime.prune(dry_run=True)] == [("container", "job"), ("scope", id)]
    assert [(item.kind, item.id) for item in runtime.prune()] == [("container", "job"), ("scope", id)]
    deadline = time.monotonic() + 30
    while units("pyoci-*.scope"):
        assert time.monotonic() < deadline, units("pyoci-*.scope")
        time.sleep(0.05)
    assert runtime.prune() == []


def units(pattern: str) -> str:
    return subprocess.run(["systemctl", "list-units", "--all", "--plain", "--no-legend", pattern], check=True, capture_output=True, text=True).stdout
