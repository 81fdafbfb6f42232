"""Where conmon and the container live, on whatever layout the host has; rows 27 and 28 of docs/faults.md."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import pyoci
from pyoci import cgroups
from tests.containers import Build


def paths_of(pid: int | None) -> dict[str, str]:
    """controllers → path of a process, as /proc/PID/cgroup has it."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return {controllers: path for _, controllers, path in (line.split(":", 2) for line in lines)}


def mounted(paths: dict[str, str]) -> dict[str, str]:
    """Without the hierarchies that nobody can see here."""
    mounts = cgroups.read().mounts
    return {key: path for key, path in paths.items() if all(part in mounts for part in key.split(","))}


@pytest.fixture
def parent() -> Iterator[str]:
    path = f"/pyoci-parent-{os.getpid()}"
    yield path
    assert cgroups.remove(cgroups.read().directories(path)) == {}


def made(runtime: pyoci.OCIRuntime, **options: object) -> pyoci.OCIRuntime:
    return pyoci.OCIRuntime(runtime.runtime_path, state_dir=runtime.state_dir, **options)  # type: ignore[arg-type]


def test_separate_places(runtime: pyoci.OCIRuntime, build: Build, parent: str) -> None:
    strict = made(runtime, cgroup_parent=parent, conmon_cgroup="separate", strict_cgroups=True)
    with strict.create(build("sleep", "100"), id="placed") as container:
        conmon, init = mounted(paths_of(container.conmon_pid)), mounted(paths_of(container.pid))
        assert len(conmon) >= 1
        assert set(conmon.values()) == {f"{parent}/pyoci-placed/conmon"}
        assert set(init.values()) == {f"{parent}/pyoci-placed/container"}
    assert not any(map(os.path.lexists, cgroups.read().directories(f"{parent}/pyoci-placed")))


def test_a_shared_place(runtime: pyoci.OCIRuntime, build: Build, parent: str) -> None:
    with made(runtime, cgroup_parent=parent, conmon_cgroup="shared").create(build("sleep", "100"), id="placed") as container:
        assert paths_of(container.conmon_pid) == paths_of(os.getpid())
        assert set(mounted(paths_of(container.pid)).values()) == {f"{parent}/pyoci-placed"}
