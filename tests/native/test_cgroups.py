"""Cgroups in one call for all hierarchies. Making and removing are mkdir and rmdir, which any file system has."""

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyoci import _ffi, cgroups


def test_made_in_the_order_given_and_removed_likewise(tmp_path: Path) -> None:
    directories = [str(tmp_path / name) for name in ("a", "a/b", "c")]
    _ffi.cgroups_make(directories)
    _ffi.cgroups_make(directories)  # there already: fine
    assert _ffi.cgroups_remove(directories) == [errno.ENOTEMPTY, 0, 0]
    assert _ffi.cgroups_remove(directories) == []
    assert _ffi.cgroups_remove(directories) == []  # gone already: fine
    assert _ffi.cgroups_remove([]) == []


@pytest.mark.parametrize("name", ["missing/x", "x" * 300])
def test_what_cannot_be_made_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(OSError, match="making the cgroup") as caught:
        _ffi.cgroups_make([str(tmp_path / "first"), str(tmp_path / name)])
    assert caught.value.errno in (errno.ENOENT, errno.ENAMETOOLONG)
    assert str(caught.value.filename).startswith(str(tmp_path / name)[:200])
    assert (tmp_path / "first").is_dir()


def test_a_cpuset_without_a_parent_that_has_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="copying the cpuset"):
        _ffi.cgroups_make([str(tmp_path / "a")], cpusets=1)


def test_a_path_with_a_nul(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="NUL"):
        _ffi.cgroups_make([f"{tmp_path}/a\0b"])


def test_joining_what_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="joining the cgroup"):
        _ffi.cgroups_join([str(tmp_path / "missing")], os.getpid())


@pytest.fixture
def v1_directories() -> Iterator[list[str]]:
    mounts = {point: key for key, point in cgroups.read().mounts.items() if key != cgroups.V2}
    if not mounts or os.geteuid() != 0:
        pytest.skip("needs root and a cgroup v1 hierarchy")
    directories = [f"{point}/pyoci-native-{os.getpid()}" for point in mounts]
    try:
        _ffi.cgroups_make(directories, sum(1 << i for i, key in enumerate(mounts.values()) if key == "cpuset"))
        yield directories
    finally:
        assert _ffi.cgroups_remove(directories) == []


def test_a_process_in_all_hierarchies(v1_directories: list[str]) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        _ffi.cgroups_join(v1_directories, child.pid)
        lines = Path(f"/proc/{child.pid}/cgroup").read_text().splitlines()
        assert sum(line.endswith(f"/pyoci-native-{os.getpid()}") for line in lines) == len(v1_directories)
        assert set(_ffi.cgroups_remove(v1_directories)) == {errno.EBUSY}
        assert len(cgroups.remove(v1_directories)) == len(v1_directories)


def test_trees_are_removed_whole(v1_directories: list[str]) -> None:
    _ffi.cgroups_make([f"{v1_directories[0]}/below", f"{v1_directories[0]}/below/more"])
    assert cgroups.remove(v1_directories) == {}
    assert not any(map(os.path.lexists, v1_directories))


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "kept").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    assert cgroups.remove([str(tmp_path / "link")])
    assert (tmp_path / "elsewhere" / "kept").is_dir()
