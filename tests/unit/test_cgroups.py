"""Reading the mounts, and never leaving the container's cgroup."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyoci import _ffi, cgroups

V1 = b"""30 23 0:26 / /sys/fs/cgroup/memory rw,nosuid shared:12 - cgroup cgroup rw,memory
31 23 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
32 23 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
33 23 0:29 / /proc rw - proc proc rw
"""
UNIFIED = b"34 23 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"


@pytest.mark.parametrize(
    ("content", "layout"), [(V1, "v1"), (V1 + UNIFIED, "hybrid"), (UNIFIED, "v2"), (b"", "none"), (b"garbage\n - \n- cgroup", "none")]
)
def test_layouts(content: bytes, layout: str) -> None:
    assert cgroups.Cgroups(cgroups.parse_mountinfo(content)).layout == layout


def test_mount_points_with_escapes() -> None:
    mounts = cgroups.parse_mountinfo(rb"1 2 0:1 / /sys/fs/c\040g rw - cgroup2 none rw")
    assert mounts == {cgroups.V2: "/sys/fs/c g"}


def test_each_hierarchy_once() -> None:
    found = cgroups.Cgroups(cgroups.parse_mountinfo(V1))
    assert found.directories("/pyoci-a") == [
        "/sys/fs/cgroup/cpu,cpuacct/pyoci-a",
        "/sys/fs/cgroup/memory/pyoci-a",
        "/sys/fs/cgroup/systemd/pyoci-a",
    ]


@pytest.mark.parametrize("path", ["", "/", "//", "/..", "/a/../..", "/a/.."])
def test_a_path_that_is_no_cgroup_of_its_own_has_no_directories(path: str) -> None:
    assert cgroups.Cgroups({"memory": "/sys/fs/cgroup/memory"}).directories(path) == []


@pytest.mark.parametrize("frozen", ["", "/.."])
def test_what_is_in_or_below_a_frozen_cgroup_is_frozen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frozen: str) -> None:
    own = f"{tmp_path}/jobs/a/b"
    os.makedirs(own)
    found = cgroups.Cgroups({cgroups.V2: str(tmp_path)})
    read = _ffi.file_read
    monkeypatch.setattr(_ffi, "file_read", lambda path, limit: (b"0::/jobs/a/b\n", 0) if path == "/proc/1/cgroup" else read(path, limit))
    assert not found.is_frozen(1)
    os.close(os.open(f"{own}{frozen}/cgroup.freeze", os.O_CREAT | os.O_WRONLY))
    assert not found.is_frozen(1)
    fd = os.open(f"{own}{frozen}/cgroup.freeze", os.O_WRONLY)
    os.write(fd, b"1\n")
    os.close(fd)
    assert found.is_frozen(1)


@given(st.binary(max_size=400))
def test_arbitrary_mountinfo(content: bytes) -> None:
    assert cgroups.Cgroups(cgroups.parse_mountinfo(content + UNIFIED)).layout in ("v1", "v2", "hybrid", "none")
