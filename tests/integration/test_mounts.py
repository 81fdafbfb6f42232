"""Containers with a user namespace whose root file system their mapped root cannot reach: the intermediate mount namespace (faults, row 26)."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import pyoci
from pyoci import aio, mounts
from tests.audit import sees_as, views
from tests.containers import FOREVER, Build

pytestmark = pytest.mark.root

UID, GID = 100_000, 200_000


@pytest.fixture
def closed(rootfs: str, tmp_path: Path) -> Path:
    """A directory that only root may enter, with a root file system that belongs to the mapped root."""
    directory = tmp_path / "closed"  # not below /run, which is often mounted noexec
    directory.mkdir(0o700)
    shutil.copytree(rootfs, directory / "rootfs", symlinks=True)
    for path in (directory / "rootfs", *(directory / "rootfs").rglob("*")):
        os.chown(path, UID, GID, follow_symlinks=False)
    return directory


def mapped(config: dict[str, Any], root: Path | None = None) -> dict[str, Any]:
    """The spec with a user namespace, and with another root file system, which it may write to."""
    if root is not None:
        config["root"] = {"path": str(root), "readonly": False}
    config["linux"]["namespaces"].append({"type": "user"})
    config["linux"]["uidMappings"] = [{"containerID": 0, "hostID": UID, "size": 1000}]
    config["linux"]["gidMappings"] = [{"containerID": 0, "hostID": GID, "size": 1000}]
    return config


@pytest.mark.everywhere
def test_it_fails_without_and_runs_with(runtime: pyoci.OCIRuntime, build: Build, closed: Path) -> None:
    script = "set -e; id -u; cat /proc/self/uid_map /proc/self/gid_map; echo new > /new; stat -c %u /new"
    config = mapped(build("sh", "-c", script), closed / "rootfs")
    with pytest.raises(pyoci.CreateError, match="ermission denied"):
        runtime.create(config, mount_namespace=False)
    before = views()
    with runtime.create(config) as container:
        assert sees_as(before)
        container.start()
        assert container.wait(20).code == 0
        words = [line.split(" F ", 1)[1].split() for line in Path(container.log_path).read_text().splitlines()]
        assert words == [["0"], ["0", str(UID), "1000"], ["0", str(GID), "1000"], ["0"]]
    assert sees_as(before)
    assert (closed / "rootfs" / "new").stat().st_uid == UID
    assert config["root"]["path"] == str(closed / "rootfs")


def test_conmon_has_a_namespace_with_a_run_directory_of_the_mapped_root(runtime: pyoci.OCIRuntime, build: Build, closed: Path) -> None:
    with runtime.create(mapped(build(*FOREVER), closed / "rootfs")) as container:
        before = views()
        assert os.readlink(f"/proc/{container.conmon_pid}/ns/mnt") != os.readlink("/proc/self/ns/mnt")
        run = os.stat(f"/proc/{container.conmon_pid}/root{mounts.PLACE}")
        assert (run.st_mode & 0o7777, run.st_uid, run.st_gid) == (0o700, UID, GID)
        assert os.path.samestat(os.stat(f"/proc/{container.conmon_pid}/root{mounts.ROOTFS}"), (closed / "rootfs").stat())
        assert (os.listdir(mounts.PLACE), os.listdir(mounts.ROOTFS)) == (["rootfs"], [])
        container.start()
        assert container.state() == "running"
        argv = [runtime.runtime_path, "--root", f"{runtime.state_dir}/{runtime.name}", "exec", container.id, "cat", "/proc/self/uid_map"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert (done.stdout.split(), done.stderr) == (["0", str(UID), "1000"], "")
        container.pause()
        container.resume()
        assert sees_as(before)


def test_another_process_that_knows_nothing_of_it_stops_and_deletes(runtime: pyoci.OCIRuntime, build: Build, closed: Path) -> None:
    container = runtime.create(mapped(build("sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done"), closed / "rootfs"), "mapped")
    container.start()
    while "ready" not in Path(container.log_path).read_text():
        time.sleep(0.01)
    program = """
import sys, pyoci
container = pyoci.Container.load("mapped", state_dir=sys.argv[1])
print(container.state(), container.stop(timeout=20).code)
container.delete()
"""
    done = subprocess.run([sys.executable, "-c", program, runtime.state_dir], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "running 9\n"


def test_the_sources_of_bind_mounts_need_no_place(runtime: pyoci.OCIRuntime, build: Build, closed: Path) -> None:
    (closed / "word").write_text("bound\n")
    (closed / "directory").mkdir()
    (closed / "directory" / "word").write_text("below\n")
    config = mapped(build("cat", "/tmp/word", "/tmp/directory/word"))
    for name in ("word", "directory"):
        config["mounts"].append({"destination": f"/tmp/{name}", "type": "bind", "source": str(closed / name), "options": ["rbind", "ro"]})
    with runtime.create(config) as container:
        # The root file system is open to all: no namespace.
        assert os.readlink(f"/proc/{container.conmon_pid}/ns/mnt") == os.readlink("/proc/self/ns/mnt")
        container.start()
        assert container.wait(20).code == 0
        assert [line.split(" F ", 1)[1] for line in Path(container.log_path).read_text().splitlines()] == ["bound", "below"]


def test_it_can_be_asked_for_without_a_user_namespace(runtime: pyoci.OCIRuntime, build: Build) -> None:
    with runtime.create(build("true"), mount_namespace=True) as container:
        assert os.readlink(f"/proc/{container.conmon_pid}/ns/mnt") != os.readlink("/proc/self/ns/mnt")
        container.start()
        assert container.wait(20).code == 0
    with pytest.raises(pyoci.InvalidOption, match="mount_namespace"):
        runtime.create(build("true"), mount_namespace="yes")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "stage", "path"),
    [
        ({"place": "/nonexistent/place"}, "making the place of the run directory", "/nonexistent/place"),
        ({"uid": (1 << 32) - 1}, "mounting the run directory", mounts.PLACE),
        ({"target": "/nonexistent/rootfs"}, "making the mount point", "/nonexistent/rootfs"),
        ({"source": "/nonexistent"}, "binding", "/nonexistent"),
    ],
)
def test_a_failing_step_is_told_and_leaves_nothing(
    runtime: pyoci.OCIRuntime, build: Build, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], stage: str, path: str
) -> None:
    def plan(config: Any, wanted: Any, **_: Any) -> mounts.Mounts:
        found = mounts.Mounts(config["root"]["path"], UID, GID)
        for name, value in change.items():
            setattr(found, name, value)
        return found

    monkeypatch.setattr(mounts, "plan", plan)
    before = views()
    with pytest.raises(pyoci.SpawnError) as caught:
        runtime.create(mapped(build("true")), "failing")
    assert (caught.value.stage, caught.value.filename) == (stage, path)
    assert sees_as(before)
    assert runtime.list() == []


def test_the_same_with_asyncio(runtime: pyoci.OCIRuntime, build: Build, closed: Path) -> None:
    async def life() -> int:
        awaited = aio.OCIRuntime(runtime.runtime_path, state_dir=runtime.state_dir)
        async with await awaited.create(mapped(build("sh", "-c", "exit 7"), closed / "rootfs")) as container:
            await container.start()
            return (await container.wait(20)).code or 0

    before = views()
    assert asyncio.run(life()) == 7
    assert sees_as(before)
