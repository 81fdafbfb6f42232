"""Captured output, one bounded line, waiting, pidfds."""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyoci import _ffi
from pyoci.process import Process, read_capture
from pyoci.waiting import NEVER, deadline_in


def test_a_capture_takes_its_size_and_refuses_the_rest() -> None:
    fd = _ffi.capture(10)
    assert read_capture(fd) == b""
    assert os.write(fd, b"0123456\0") == 8
    assert read_capture(fd) == b"0123456\0"
    with pytest.raises(PermissionError):
        os.write(fd, b"abc")  # what does not fit whole is refused whole
    assert os.write(fd, b"ab") == 2
    with pytest.raises(PermissionError):
        os.write(fd, b"x")
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 100)
    assert read_capture(fd) == b"0123456\0ab"
    assert not os.get_inheritable(fd)
    os.close(fd)


def test_a_child_that_says_too_much_is_not_blocked() -> None:
    fd = _ffi.capture(1000)
    done = subprocess.run(["sh", "-c", "while echo xxxxxxxxx; do :; done; exit 1"], stdout=fd, stderr=subprocess.DEVNULL, timeout=30, check=False)
    assert done.returncode != 0
    assert len(read_capture(fd)) == 1000
    os.close(fd)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chunks=st.lists(st.binary(min_size=1, max_size=20), max_size=8))
def test_one_line_however_it_is_split(chunks: list[bytes]) -> None:
    ours, theirs = _ffi.socketpair(1)
    reader = _ffi.LineReader(theirs, 64)
    sent = b"".join(chunks)
    result: bool | None = None
    error = 0
    for chunk in chunks:
        os.write(ours, chunk)
        if result is None and not error:
            try:
                result = reader.read()
            except OSError as e:
                error = e.errno or 0
    os.close(ours)
    line, newline, rest = sent.partition(b"\n")
    if newline and len(line) < 64:
        assert result is True
        assert reader.received == line + b"\n"
        left = b""
        while part := os.read(theirs, 4096):
            left += part
        assert left == rest  # what comes after the line stays in the socket
    elif len(sent) >= 64:
        assert error == errno.EMSGSIZE
        assert reader.received == sent[:64]
    else:
        assert result is None
        assert reader.read() is False
        assert reader.received == sent
    os.close(theirs)


def test_a_line_has_a_deadline_and_keeps_what_came() -> None:
    ours, theirs = _ffi.socketpair(1)
    reader = _ffi.LineReader(theirs, 64)
    os.write(ours, b"half")
    began = time.monotonic()
    assert reader.read(deadline_in(0.05)) is None
    assert 0.04 < time.monotonic() - began < 5
    timer = threading.Timer(0.05, os.write, (ours, b" line\n"))
    timer.start()
    assert reader.read(NEVER) is True
    timer.join()
    assert reader.received == b"half line\n"
    os.close(ours)
    os.close(theirs)


def test_poll() -> None:
    read, write = os.pipe()
    began = time.monotonic()
    assert _ffi.poll((read,), (), deadline_in(0.05)) == set()
    assert 0.04 < time.monotonic() - began < 5
    assert _ffi.poll((read,), (write,), NEVER) == {write}
    os.write(write, b"x")
    assert _ffi.poll((read,), (write,), 0) == {read, write}
    os.read(read, 1)
    os.close(write)
    assert _ffi.poll((read,), (), NEVER) == {read}  # the end of the stream wakes too
    os.close(read)
    assert _ffi.poll((), (), 0) == set()
    assert _ffi.poll((999,), (), 0) == {999}  # POLLNVAL is told, not waited for


def test_a_signal_ends_poll_so_that_its_handler_runs() -> None:
    read, write = os.pipe()
    seen: list[int] = []
    previous = signal.signal(signal.SIGALRM, lambda number, frame: seen.append(number))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        assert _ffi.poll((read,), (), deadline_in(20)) == set()
        assert seen == [signal.SIGALRM]
    finally:
        signal.signal(signal.SIGALRM, previous)
        os.close(read)
        os.close(write)


def test_pidfds() -> None:
    child = subprocess.Popen(["sleep", "100"])
    process = Process.open(child.pid)
    assert process.signal(0)
    assert not process.has_ended()
    assert process.exit_code() is None
    assert process.signal(signal.SIGTERM)
    _ffi.poll((process.pidfd,), (), NEVER)
    assert process.has_ended()
    assert process.exit_code() == (-1, signal.SIGTERM)  # a zombie still
    assert process.reap() == (-1, signal.SIGTERM)
    assert not process.signal(signal.SIGTERM)
    child.wait()
    process.close()
    process.close()
    assert process.pidfd == -1
    assert not process.signal(0)


def test_no_such_process() -> None:
    with pytest.raises(ProcessLookupError):
        Process.open((1 << 22) - 1)
    for pid in (0, -1):
        with pytest.raises(OSError, match="pidfd_open"):
            Process.open(pid)


def test_a_child_of_somebody_else_cannot_be_reaped() -> None:
    process = Process.open(os.getpid())
    with pytest.raises(ChildProcessError):
        _ffi.pidfd_reap(process.pidfd)
    process.close()


def test_the_kernel_tells_the_code_of_what_somebody_else_reaped() -> None:
    child = subprocess.Popen(["sh", "-c", "exit 77"])
    process = Process.open(child.pid)
    child.wait()
    told = _ffi.pidfd_exit_info(process.pidfd)
    process.close()
    major, minor = (int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
    assert told == ((77, 0) if (major, minor) >= (6, 15) else None)


# --- pipes, epoll, the interpreter lock -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ours", [0, 1])
def test_our_end_of_a_pipe_does_not_block(ours: int) -> None:
    ends = _ffi.pipe(ours)
    try:
        assert [os.get_blocking(fd) for fd in ends] == [ours == 1, ours == 0]
        assert not any(os.get_inheritable(fd) for fd in ends)
        assert _ffi.write(ends[1], b"words") == 5
        assert _ffi.read(ends[0], 64) == b"words"
    finally:
        for fd in ends:
            _ffi.close(fd)


def test_an_epoll_takes_changes_and_waits_in_one_call() -> None:
    with select.epoll() as epoll:
        watching = _ffi.Epoll(epoll.fileno())
        read, write = os.pipe()
        assert watching.wait([(read, _ffi.POLLIN, False)], deadline_in(0.02)) == []
        os.write(write, b"1")
        assert watching.wait((), NEVER) == [read]
        # The same number for another file, whatever is believed of it.
        os.dup2(write, read)
        assert watching.wait([(read, _ffi.POLLOUT, True)], NEVER) == [read]
        assert watching.wait([(read, _ffi.POLLOUT, False)], NEVER) == [read]
        assert watching.wait([(read, 0, True)], 0) == []
        os.close(read)
        os.close(write)
        assert watching.wait([(read, 0, True)], 0) == []
        with pytest.raises(OSError, match="epoll"):
            watching.wait([(read, _ffi.POLLIN, False)], 0)


@pytest.fixture
def busy() -> Iterator[list[int]]:
    """A thread that computes, and may do so for a second before it must give the lock away; how far it has come."""
    rounds, over = [0], False

    def compute() -> None:
        while not over:
            rounds[0] += 1

    interval = sys.getswitchinterval()
    thread = threading.Thread(target=compute)
    thread.start()
    sys.setswitchinterval(1)
    yield rounds
    over = True
    sys.setswitchinterval(interval)
    thread.join()


def test_short_calls_keep_the_interpreter_lock(busy: list[int]) -> None:
    time.sleep(0)  # gives it away, and so begins a turn of our own
    before = busy[0]
    for _ in range(200):
        _ffi.exists("/")
        _ffi.poll((), (), 0)
    assert busy[0] == before


def test_who_waits_lets_others_run(busy: list[int]) -> None:
    before = busy[0]
    _ffi.poll((), (), deadline_in(0.05))
    assert busy[0] > before


def test_who_a_process_is() -> None:
    process = Process()
    parent, identity = process.identify(os.getpid())
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    assert (parent, identity.pid, identity.start_time) == (os.getppid(), os.getpid(), int(fields[19]))
    assert identity.inode == process.inode()
    found = identity.find()
    assert found is not None
    assert found.pid == os.getpid()
    identity.start_time += 1
    assert identity.find() is None
    identity.pid = (1 << 22) + 1
    assert identity.find() is None


def test_an_epoll_does_not_take_a_file_for_the_one_that_had_its_number_before() -> None:
    with select.epoll() as epoll:
        old, writer = os.pipe()
        copy = os.dup(old)  # as a process has it that another thread is just starting
        os.write(writer, b"x")
        watching = _ffi.Epoll(epoll.fileno())
        assert list(watching.wait([(old, _ffi.POLLIN, False)], 0)) == [old]
        os.close(old)
        new, other = os.pipe()
        assert new == old
        assert list(watching.wait([(new, _ffi.POLLIN, True)], 0)) == []
        os.write(other, b"y")
        assert set(watching.wait((), 0)) == {new}
        for fd in (copy, new, writer, other):
            os.close(fd)
