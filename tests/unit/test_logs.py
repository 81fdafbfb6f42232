"""Lines of conmon's log, and where the last of them begin."""

import os
import tempfile
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyoci import logs


@pytest.mark.parametrize(
    ("line", "parsed"),
    [
        (b"1970-01-01T00:00:01.000000002+00:00 stdout F text", (1_000_000_002, "stdout", b"text", True)),
        (b"1970-01-01T01:00:01.5+01:00 stderr P  two", (1_500_000_000, "stderr", b" two", False)),
        (b"1970-01-01T00:00:00Z stdout F:tag ", (0, "stdout", b"", True)),
        (b"1970-01-01T00:00:00Z stdout F", (0, "stdout", b"", True)),
        (b"1970-13-01T00:00:00Z stdout F x", None),
        (b"1970-01-01T00:00:00Z stdin F x", None),
        (b"", None),
        (b"\xff\0", None),
    ],
)
def test_a_line(line: bytes, parsed: tuple[int, str, bytes, bool] | None) -> None:
    assert logs.parse_line(line) == parsed


@given(st.binary())
def test_no_line_is_too_strange(line: bytes) -> None:
    logs.parse_line(line)


@given(
    st.lists(st.tuples(st.sampled_from(logs.STREAMS), st.sampled_from("FP"), st.integers(0, 9)), max_size=12),
    st.integers(0, 8),
    st.sampled_from([None, *logs.STREAMS]),
)
def test_the_start_of_the_tail(lines: list[tuple[str, str, int]], tail: int, stream: str | None) -> None:
    encoded = [f"1970-01-01T00:00:00Z {name} {kind} {'x' * length}\n".encode() for name, kind, length in lines]
    with tempfile.TemporaryFile() as file:
        file.write(b"".join(encoded))
        file.flush()
        start = logs.start_of_tail(file.fileno(), tail, stream)
        os.lseek(file.fileno(), start, os.SEEK_SET)
        rest = os.read(file.fileno(), 1 << 20).splitlines(keepends=True)
    assert rest == encoded[len(encoded) - len(rest) :]
    assert joined(rest, stream)[-tail:] == joined(encoded, stream)[-tail:] if tail else True


def joined(lines: list[bytes], stream: str | None) -> list[bytes]:
    """The entries that end in these lines."""
    entries: list[bytes] = []
    pieces: dict[str, bytes] = {}
    for line in lines:
        parsed = logs.parse_line(line[:-1])
        assert parsed is not None
        _, name, data, is_whole = parsed
        if stream in (None, name):
            pieces[name] = pieces.get(name, b"") + data
            if is_whole:
                entries.append(pieces.pop(name))
    return entries


def test_the_tail_of_a_long_log() -> None:
    """Only as much of it is read as is needed."""
    line = b"1970-01-01T00:00:00Z stdout F " + b"x" * 69 + b"\n"
    with tempfile.TemporaryFile() as file:
        file.write(line * 10_000)
        file.flush()
        for tail in (0, 1, 655, 656, 3000, 9999, 10_000, 20_000):
            assert logs.start_of_tail(file.fileno(), tail, None) == max(10_000 - tail, 0) * 100


def test_a_message_of_the_journal() -> None:
    at = datetime(2026, 11, 23, tzinfo=UTC) + timedelta(microseconds=7)
    whole = {"MESSAGE": "text\n", "PRIORITY": 6, "__REALTIME_TIMESTAMP": at}
    assert logs.journal_piece(whole) == (int(at.timestamp()) * 10**9 + 7000, "stdout", b"text", True)
    part = {"MESSAGE": b"\xff", "PRIORITY": 3, "__REALTIME_TIMESTAMP": at, "CONTAINER_PARTIAL_MESSAGE": "true"}
    assert logs.journal_piece(part)[1:] == ("stderr", b"\xff", False)
