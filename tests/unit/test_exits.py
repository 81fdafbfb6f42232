"""Exit files, OOM marks and the kernel's word."""

import os
import pickle
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyoci.exits import ExitStatus, combine, parse_exit_file, read_small


@pytest.mark.parametrize(("content", "code"), [(b"0", 0), (b"7", 7), (b"137", 137), (b"255", 255)])
def test_a_code(content: bytes, code: int) -> None:
    assert parse_exit_file(content) == code


@pytest.mark.parametrize("content", [b"", b"7\n", b" 7", b"abc", b"-1", b"256", b"99999", b"+7", b"0x7", b"7\0", b"1e2", "٣".encode(), b"0007"])
def test_anything_else_is_unknown(content: bytes) -> None:
    assert parse_exit_file(content) is None


@given(st.binary(max_size=70))
def test_arbitrary_bytes_are_a_code_or_unknown(content: bytes) -> None:
    code = parse_exit_file(content)
    assert code is None or (0 <= code <= 255 and int(content) == code)


def test_the_kernel_wins_over_the_file() -> None:
    assert combine(0, (7, 0), oom_killed=False, finished_ns=None) == ExitStatus(7)
    assert combine(0, (-1, 9), oom_killed=True, finished_ns=5) == ExitStatus(137, 9, True, 5)


def test_without_the_kernel_the_file_counts() -> None:
    assert combine(7, None, oom_killed=False, finished_ns=None) == ExitStatus(7)
    assert combine(137, None, oom_killed=False, finished_ns=None) == ExitStatus(137, 9)
    assert combine(255, (-1, 0), oom_killed=False, finished_ns=None) == ExitStatus(255)


def test_what_nobody_knows_is_none_and_never_zero() -> None:
    for kernel in (None, (-1, 0)):
        status = combine(None, kernel, oom_killed=False, finished_ns=None)
        assert status.code is None
        assert status.signal is None
        assert status.finished_at is None


@given(st.one_of(st.none(), st.integers(0, 255)), st.one_of(st.none(), st.just((-1, 0)), st.tuples(st.integers(0, 255), st.just(0))))
def test_a_zero_is_only_told_when_somebody_said_zero(filed: int | None, kernel: tuple[int, int] | None) -> None:
    status = combine(filed, kernel, oom_killed=False, finished_ns=None)
    if status.code == 0:
        assert kernel == (0, 0) or (filed == 0 and kernel in (None, (-1, 0)))


def test_the_finish_time_is_in_utc() -> None:
    status = ExitStatus(0, None, False, 1_700_000_000_123_456_789)
    assert status.finished_at == datetime(2023, 11, 14, 22, 13, 20, 123456, UTC)


def test_it_can_be_pickled_compared_and_shown() -> None:
    status = ExitStatus(137, 9, True, 12)
    assert pickle.loads(pickle.dumps(status)) == status
    assert hash(status) == hash(ExitStatus(137, 9, True, 12))
    assert status != ExitStatus(137, 9, False, 12)
    assert "code=137" in repr(status)
    assert "oom_killed=True" in repr(status)


def test_only_the_start_of_a_regular_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "exit"
    assert read_small(str(file)) is None
    file.write_bytes(b"7")
    found = read_small(str(file))
    assert found is not None
    assert found == (b"7", file.stat().st_mtime_ns)
    with file.open("wb") as big:
        big.truncate(1 << 30)
    found = read_small(str(file))
    assert found is not None
    assert found[0] == bytes(64)


def test_links_fifos_sockets_devices_and_directories_are_not_read_and_never_block(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"7")
    (tmp_path / "link").symlink_to("real")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "dir").mkdir()
    for name in ("link", "fifo", "dir"):
        assert read_small(str(tmp_path / name)) is None
    assert read_small("/dev/zero") is None
