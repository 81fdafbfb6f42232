"""Scopes over D-Bus, with a bus that behaves badly. Row 28 of docs/faults.md; the real one: tests/integration/test_placement.py."""

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jeepney
import pytest
from jeepney.low_level import HeaderFields, Message, Parser

from pyoci import aio
from pyoci.cgroups import dbus, systemd
from pyoci.cgroups.systemd import Systemd
from pyoci.errors import CgroupError
from pyoci.waiting import deadline_in, drive

UNIT = "pyoci-conmon-test.scope"
OWNER = ":1.7"


class Bus:
    """A bus with a systemd on it. ``answer(bus, connection, message)`` is asked first about each call; where it gives True it has dealt with it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.answer: Callable[[Bus, socket.socket, Message], bool] = lambda *_: False
        self.authenticates = True
        self.calls: list[str] = []
        self.connections = 0
        self._ended = threading.Event()
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(path)
        self._listening.listen()
        self._listening.settimeout(0.05)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self._listening.close()

    def _serve(self) -> None:
        open_ones: list[threading.Thread] = []
        while not self._ended.is_set():
            try:
                connection, _ = self._listening.accept()
            except TimeoutError:
                continue
            self.connections += 1
            open_ones.append(threading.Thread(target=self._talk, args=(connection,)))
            open_ones[-1].start()
        for thread in open_ones:
            thread.join()

    def _talk(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(0.05)
            begun, parser, received = False, Parser(), b""
            while not self._ended.is_set():
                try:
                    data = connection.recv(65536)
                    if not data:
                        return
                    if not begun:
                        received += data
                        if received.endswith(b"\r\n") and b"BEGIN" not in received and self.authenticates:
                            connection.sendall(b"OK 0123\r\n")
                        if b"BEGIN\r\n" not in received:
                            continue
                        begun, data = True, received.partition(b"BEGIN\r\n")[2]
                    for message in parser.feed(data):
                        self._handle(connection, message)
                except TimeoutError:
                    continue
                except OSError:
                    return

    def _handle(self, connection: socket.socket, message: Message) -> None:
        method = message.header.fields[HeaderFields.member]
        self.calls.append(method)
        if self.answer(self, connection, message):
            return
        if method == "StartTransientUnit":
            self.reply(connection, message, "o", ("/job/1",))
            self.job_removed(connection, "/job/1", "done")
        else:
            self.reply(connection, message)

    def reply(self, connection: socket.socket, message: Message, signature: str | None = None, body: tuple[Any, ...] = ()) -> None:
        answer = jeepney.new_method_return(message, signature, body)
        answer.header.fields[HeaderFields.sender] = OWNER
        connection.sendall(answer.serialise(serial=1))

    def job_removed(self, connection: socket.socket, job: str, result: str, sender: str = OWNER) -> None:
        signal = jeepney.new_signal(jeepney.DBusAddress(systemd.PATH, interface=systemd.MANAGER), "JobRemoved", "uoss", (1, job, UNIT, result))
        signal.header.fields[HeaderFields.sender] = sender
        connection.sendall(signal.serialise(serial=2))


@pytest.fixture
def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bus]:
    made = Bus(str(tmp_path / "bus"))
    monkeypatch.setattr(systemd, "addresses", lambda: [(made.path, False)])
    yield made
    made.close()


def start(manager: Systemd, pid: int = 1) -> None:
    drive(manager.start_scope(UNIT, "system.slice", pid, deadline_in(20)))


def only(method: str, deal: Callable[[Bus, socket.socket, Message], object]) -> Callable[[Bus, socket.socket, Message], bool]:
    def answer(bus: Bus, connection: socket.socket, message: Message) -> bool:
        if message.header.fields[HeaderFields.member] != method:
            return False
        deal(bus, connection, message)
        return True

    return answer


def test_a_scope_and_another_on_the_same_connection(bus: Bus) -> None:
    manager = Systemd()
    start(manager)
    start(manager)
    assert bus.calls[:4] == ["Hello", "Subscribe", "AddMatch", "StartTransientUnit"]
    assert bus.connections == 1


def test_a_scope_awaited(bus: Bus) -> None:
    asyncio.run(aio.drive(Systemd().start_scope(UNIT, "system.slice", 1, deadline_in(20))))
    assert "StartTransientUnit" in bus.calls


def test_row_28_no_bus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(systemd, "addresses", lambda: [(str(tmp_path / "none"), False), (str(tmp_path / "nor this"), True)])
    with pytest.raises(CgroupError, match="none: No such file"):
        start(Systemd())


@pytest.mark.parametrize("silent", ["authentication", "Hello", "StartTransientUnit", "the job"])
def test_row_28_a_slow_bus(bus: Bus, monkeypatch: pytest.MonkeyPatch, silent: str) -> None:
    monkeypatch.setattr(systemd, "SCOPE_TIMEOUT", 0.2)
    bus.authenticates = silent != "authentication"
    if silent == "the job":
        bus.answer = only("StartTransientUnit", lambda bus, connection, message: bus.reply(connection, message, "o", ("/job/1",)))
    else:
        bus.answer = only(silent, lambda *_: None)
    with pytest.raises(CgroupError, match="did not answer in time"):
        start(Systemd())


def test_row_28_a_bus_that_takes_no_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "SCOPE_TIMEOUT", 0.2)
    monkeypatch.setattr(systemd, "addresses", lambda: [(str(tmp_path / "bus"), False)])
    with socket.socket(socket.AF_UNIX) as full:
        full.bind(str(tmp_path / "bus"))
        full.listen(0)
        held = []
        try:
            while True:
                held.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
                held[-1].connect(str(tmp_path / "bus"))
        except BlockingIOError:
            pass
        with pytest.raises(CgroupError, match="did not take the connection in time"):
            start(Systemd())
        for connection in held:
            connection.close()


def test_row_28_the_bus_is_restarted_between_two_scopes(bus: Bus) -> None:
    manager = Systemd()
    start(manager)
    manager._idle[0]._socket.shutdown(socket.SHUT_RDWR)
    start(manager)
    assert bus.connections == 2


def test_row_28_the_bus_is_restarted_in_the_middle(bus: Bus) -> None:
    def once(bus: Bus, connection: socket.socket, message: Message) -> bool:
        if message.header.fields[HeaderFields.member] == "StartTransientUnit" and bus.connections == 1:
            connection.shutdown(socket.SHUT_RDWR)
            return True
        return False

    bus.answer = once
    start(Systemd())
    assert bus.calls.count("StartTransientUnit") == 2


def test_row_28_the_bus_is_restarted_again_and_again(bus: Bus) -> None:
    bus.answer = only("StartTransientUnit", lambda _, connection, __: connection.shutdown(socket.SHUT_RDWR))
    with pytest.raises(CgroupError, match="hung up"):
        start(Systemd())
    assert bus.connections == 2


@pytest.mark.parametrize(
    "garbage", [b"\0" * 64, b"HTTP/1.1 400 Bad Request\r\n\r\n", os.urandom(4096), b"l\2\1\1" + b"\xff" * 60, b"l\4\1\1\0\0\0\x07" + b"\0" * 56]
)
@pytest.mark.parametrize("when", ["Hello", "StartTransientUnit"])
def test_row_28_garbage(bus: Bus, monkeypatch: pytest.MonkeyPatch, garbage: bytes, when: str) -> None:
    monkeypatch.setattr(systemd, "SCOPE_TIMEOUT", 1.0)
    bus.answer = only(when, lambda _, connection, __: connection.sendall(garbage))
    with pytest.raises(CgroupError):
        start(Systemd())


def test_row_28_a_bus_that_does_not_take_us(bus: Bus) -> None:
    bus.authenticates = False

    def reject(connection: socket.socket) -> None:
        with connection:
            connection.recv(100)
            connection.sendall(b"REJECTED KERBEROS\r\n")

    bus._talk = reject  # type: ignore[method-assign]
    with pytest.raises(CgroupError, match="does not take us"):
        start(Systemd())


def test_a_refusal_is_told(bus: Bus) -> None:
    def refuse(_: Bus, connection: socket.socket, message: Message) -> None:
        error = jeepney.new_error(message, "org.freedesktop.systemd1.UnitExists", "s", ("Unit was already loaded",))
        connection.sendall(error.serialise(serial=1))

    bus.answer = only("StartTransientUnit", refuse)
    with pytest.raises(CgroupError, match=r"already loaded \(org.freedesktop.systemd1.UnitExists\)"):
        start(Systemd())


def test_a_job_that_fails_is_told(bus: Bus) -> None:
    def fail(bus: Bus, connection: socket.socket, message: Message) -> None:
        bus.reply(connection, message, "o", ("/job/1",))
        bus.job_removed(connection, "/job/1", "done", sender=":1.99")  # anybody can send a signal
        bus.job_removed(connection, "/job/2", "done")
        bus.job_removed(connection, "/job/1", "failed")

    bus.answer = only("StartTransientUnit", fail)
    with pytest.raises(CgroupError, match="its job ended with 'failed'"):
        start(Systemd())


def test_answers_that_come_byte_by_byte(bus: Bus) -> None:
    def dribble(bus: Bus, connection: socket.socket, message: Message) -> None:
        whole = jeepney.new_method_return(message, "o", ("/job/1",))
        whole.header.fields[HeaderFields.sender] = OWNER
        for byte in whole.serialise(serial=1):
            connection.sendall(bytes([byte]))
        bus.job_removed(connection, "/job/1", "done")

    bus.answer = only("StartTransientUnit", dribble)
    start(Systemd())


def test_stopping_what_does_not_exist(bus: Bus) -> None:
    def refuse(_: Bus, connection: socket.socket, message: Message) -> None:
        connection.sendall(jeepney.new_error(message, "org.freedesktop.systemd1.NoSuchUnit", "s", ("not loaded",)).serialise(serial=1))

    bus.answer = only("StopUnit", refuse)
    drive(Systemd().stop(UNIT, deadline_in(20)))
    assert bus.calls[-2:] == ["StopUnit", "ResetFailedUnit"]


def test_a_fork_has_connections_of_its_own(bus: Bus) -> None:
    manager = Systemd()
    start(manager)
    manager._pid = 0
    start(manager)
    assert bus.connections == 2


def test_without_jeepney_that_is_said() -> None:
    code = "import sys; sys.modules['jeepney'] = None\nfrom pyoci.cgroups.dbus import Connection\nConnection(False)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pyoci.errors.CgroupError: talking to systemd needs jeepney" in done.stderr


def test_where_systemd_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DBUS_SYSTEM_BUS_ADDRESS", raising=False)
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert dbus.addresses() == [("/run/dbus/system_bus_socket", False), ("/run/systemd/private", True)]
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/elsewhere")
    assert dbus.addresses()[0] == ("/elsewhere", False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert dbus.addresses() == [("/run/user/1000/bus", False), ("/run/user/1000/systemd/private", True)]
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "tcp:host=localhost")
    with pytest.raises(CgroupError, match="cannot be used"):
        dbus.addresses()
