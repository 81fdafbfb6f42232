"""Files written and trees removed in one call each."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from pyoci import _ffi
from tests import machine


def test_a_file_is_new_whole_and_not_open_to_others(tmp_path: Path) -> None:
    content = os.urandom(3 << 20)
    path = tmp_path / "file"
    _ffi.file_write(str(path), content)
    assert path.read_bytes() == content
    assert path.stat().st_mode & 0o7777 & ~0o640 == 0
    with pytest.raises(FileExistsError, match="file"):
        _ffi.file_write(str(path), b"other")
    assert path.read_bytes() == content


def test_a_failing_write_is_told() -> None:
    with pytest.raises(OSError, match="writing /nonexistent/file: No such file"):
        _ffi.file_write("/nonexistent/file", b"")


def test_a_tree_goes_with_all_in_it_and_no_link_is_followed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    tree = tmp_path / "tree"
    (tree / "a/b/c").mkdir(parents=True)
    for name in ("a/file", "a/b/c/file", "file"):
        (tree / name).write_text("content")
    os.mkfifo(tree / "a/fifo")
    (tree / "a/link").symlink_to(kept)
    _ffi.tree_remove(str(tree))
    assert not tree.exists()
    assert (kept / "file").exists()
    _ffi.tree_remove(str(tree))
    (tmp_path / "way").symlink_to(kept)
    with pytest.raises(NotADirectoryError):
        _ffi.tree_remove(str(tmp_path / "way"))
    assert (kept / "file").exists()


def test_a_bottomless_tree_is_told(tmp_path: Path) -> None:
    (tmp_path / "/".join(["d"] * 70)).mkdir(parents=True)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match=r"\(d\)"):
        _ffi.tree_remove(str(tmp_path / "d"))
    assert len(os.listdir("/proc/self/fd")) == before


def test_two_removers_get_along(tmp_path: Path) -> None:
    for _ in range(50):
        tree = tmp_path / "tree"
        (tree / "sub").mkdir(parents=True)
        for i in range(40):
            (tree / f"sub/{i}").touch()
        failed: list[BaseException] = []

        def remove(tree: Path = tree, failed: list[BaseException] = failed) -> None:
            try:
                _ffi.tree_remove(str(tree))
            except OSError as error:
                failed.append(error)

        threads = [threading.Thread(target=remove) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
        assert not tree.exists()


def test_a_mounted_file_is_unmounted_and_the_file_below_is_kept(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    (tmp_path / "kept").write_text("kept")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "runc.x").touch()
    machine.bind(str(tmp_path / "kept"), str(tmp_path / "tree" / "runc.x"))
    _ffi.tree_remove(str(tmp_path / "tree"))
    assert not (tmp_path / "tree").exists()
    assert (tmp_path / "kept").read_text() == "kept"


def test_a_small_file_is_read_with_its_time(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    os.utime(path, ns=(1, 1_234_567_890_123_456_789))
    assert _ffi.file_read(str(path), 64) == (b"content", 1_234_567_890_123_456_789)
    assert _ffi.file_read(str(path), 3)[0] == b"con"


def test_what_is_no_regular_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("/etc/hostname")
    for name, flags in (("fifo", 0), (".", 0), ("link", os.O_NOFOLLOW), ("none", 0)):
        with pytest.raises(OSError, match=name.replace(".", "[.]")):
            _ffi.file_read(f"{tmp_path}/{name}", 64, flags)
    assert _ffi.file_read(f"{tmp_path}/link", 1 << 10)[0] == Path("/etc/hostname").read_bytes()


def test_a_mark_tells_a_file_from_its_successor(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    mark, status = _ffi.Mark(str(path)), path.stat()
    assert (mark.device, mark.inode, mark.size) == (status.st_dev, status.st_ino, 5)
    assert (mark.mtime, mark.ctime) == (status.st_mtime_ns, status.st_ctime_ns)
    link = tmp_path / "link"
    link.symlink_to(path)
    assert _ffi.Mark(str(link)).inode == link.lstat().st_ino
    assert _ffi.Mark(str(link), follow=True).inode == status.st_ino
    path.unlink()
    assert _ffi.exists(str(link))
    assert not _ffi.exists(str(path))
    with pytest.raises(FileNotFoundError):
        _ffi.Mark(str(link), follow=True)


def test_the_kernels_own_files_are_read_to_their_end() -> None:
    """They come a page at a time: a cgroup of a thousand processes tells of six hundred at the first read."""
    assert len(_ffi.file_read("/proc/self/smaps", 1 << 15)[0]) == 1 << 15
