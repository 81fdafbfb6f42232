"""Standard streams: what may be given, pumping, and our ends; on pipes alone."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyoci import streams
from pyoci.errors import InvalidOption
from pyoci.process import Descriptor
from pyoci.streams import DEVNULL, PIPE, STDOUT, Pump, Stdio, Stream, near
from pyoci.waiting import drive


@pytest.fixture
def ends() -> Iterator[tuple[Descriptor, Descriptor]]:
    read, write = streams.pipe(1)
    with read, near(write):
        yield read, write


def test_what_a_stream_may_be(tmp_path: Path) -> None:
    assert streams.descriptor(None, 2) == 2
    assert streams.descriptor(DEVNULL, 1) == -1
    with (tmp_path / "file").open("w+") as file:
        assert streams.descriptor(file.fileno(), 0) == file.fileno()
        assert streams.descriptor(file, 1) == file.fileno()


def test_our_own_are_handed_on_as_they_are() -> None:
    """Also the stdin that nohup(1) gives in place of a terminal, which cannot be read."""
    kept = os.dup(0)
    try:
        with open(os.devnull, "wb") as unreadable:
            os.dup2(unreadable.fileno(), 0)
            assert streams.descriptor(None, 0) == streams.descriptor(0, 0) == 0
            with pytest.raises(InvalidOption, match="open for writing only"):
                streams.descriptor(unreadable, 0)
    finally:
        os.dup2(kept, 0)
        os.close(kept)


@pytest.mark.parametrize("wanted", ["name", -9, True, STDOUT, 1.5, b""])
def test_what_it_may_not_be(wanted: Any) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(InvalidOption, match="stdout"):
        Stdio(PIPE, wanted, None)
    assert os.listdir("/proc/self/fd") == before


def test_stdio_of_pipes_and_others() -> None:
    stdio = Stdio(PIPE, PIPE, STDOUT)
    assert stdio.fds[1] == stdio.fds[2]
    stdin, stdout, stderr = stdio.ends
    assert stdin is not None
    assert stdout is not None
    assert stderr is None
    os.write(stdin.fd, b"in")
    assert os.read(stdio.fds[0], 9) == b"in"
    assert streams.read_now(stdout) is None
    stdio.started()
    assert streams.read_now(stdout) == b""
    with pytest.raises(BrokenPipeError):
        os.write(stdin.fd, b"x")
    stdio.close()
    assert Stdio(DEVNULL, None, DEVNULL).fds == [-1, 1, -1]


def test_reading_by_size_and_by_line(ends: tuple[Descriptor, Descriptor]) -> None:
    read, write = ends
    stream = Stream(read)
    os.write(write.fd, b"one\ntwo\nthree")
    assert stream.readline() == b"one\n"
    assert stream.read(2) == b"tw"
    assert stream.read(100) == b"o\nthree"
    assert stream.read(0) == b""
    os.write(write.fd, b"\n\nlast")
    write.close()
    assert list(stream) == [b"\n", b"\n", b"last"]
    assert stream.readline() == stream.read() == b""
    stream.close()
    assert stream.closed
    with pytest.raises(ValueError, match="closed"):
        stream.read()


def test_writing_all_of_it(ends: tuple[Descriptor, Descriptor]) -> None:
    read, write = ends
    data = os.urandom(1 << 20)
    operation = Stream(write)._write(data)
    wait = next(operation)
    got = bytearray()
    with pytest.raises(StopIteration) as stop:
        while True:
            assert tuple(wait.write) == (write.fd,)
            got += os.read(read.fd, 1 << 16)
            wait = operation.send({write.fd})
    assert stop.value.value == len(data)
    while (more := streams.read_now(read)) is not None:
        got += more
    assert got == data
    read.close()
    with pytest.raises(BrokenPipeError):
        Stream(write).write(b"x")


def test_a_pump_keeps_no_more_than_its_limit_and_drains_the_rest(ends: tuple[Descriptor, Descriptor]) -> None:
    read, write = ends
    pump = Pump(10)
    pump.capture(1, read, bytearray(b"before"))
    for _ in range(20):
        os.write(write.fd, bytes(1 << 15))
        pump.serve({read.fd})
    assert pump.over_limit()
    assert pump.result(1) == b"before" + bytes(4)
    assert len(pump.captured[1]) <= 10 + streams.CHUNK
    assert pump.result(2) is None


def test_a_pump_feeds_and_closes(ends: tuple[Descriptor, Descriptor]) -> None:
    read, write = ends
    pump = Pump(None)
    data = os.urandom(1 << 18)
    pump.feed(write, data)
    got = bytearray()
    while not pump.idle:
        wait = pump.wait((), 0)
        pump.serve(set(wait.write))
        while more := streams.read_now(read):
            got += more
    assert bytes(got) == data
    assert write.fd == -1


def test_nobody_reads_what_is_fed(ends: tuple[Descriptor, Descriptor]) -> None:
    read, write = ends
    pump = Pump(None)
    pump.feed(write, b"x" * 10)
    read.close()
    pump.serve({write.fd})
    assert pump.idle


def test_a_terminal_that_is_gone_is_the_end() -> None:
    master, slave = map(Descriptor, os.openpty())
    with near(master):
        os.write(slave.fd, b"bye\n")
        slave.close()
        stream = Stream(master)
        assert drive(stream._read(-1)) == b"bye\r\n"
