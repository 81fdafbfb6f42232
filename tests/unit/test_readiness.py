"""READY=1 and its barrier, on sockets of the test's own."""

import os
import socket
import time

import pytest

from pyoci import readiness
from pyoci.waiting import drive


@pytest.fixture
def listener() -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(f"\0pyoci-tests-{os.getpid()}")
    return listener


def test_it_waits_until_the_barrier_is_read(listener: socket.socket) -> None:
    operation = readiness.tell(f"@pyoci-tests-{os.getpid()}")
    with listener:
        wait = operation.send(None)  # type: ignore[arg-type]
        assert listener.recv(100) == b"READY=1"
        data, fds, *_ = socket.recv_fds(listener, 100, 2)
        assert (data, len(fds)) == (b"BARRIER=1", 1)
        assert os.fstat(fds[0]).st_ino == os.fstat(wait.read[0]).st_ino  # the two ends of one pipe
        os.close(fds[0])
        with pytest.raises(StopIteration):
            operation.send(set(wait.read))


def test_who_does_not_read_does_not_hold_it_up_for_ever(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "TIMEOUT", 0.05)
    began = time.monotonic()
    with listener:
        drive(readiness.tell(f"@pyoci-tests-{os.getpid()}"))
    assert 0.05 <= time.monotonic() - began < 2


def test_nobody_is_there(tmp_path: os.PathLike[str]) -> None:
    drive(readiness.tell(f"{tmp_path}/none"))
