"""A D-Bus connection for generators: a socket that never blocks, jeepney for the bytes. Only what talking to systemd takes (dbus-specification)."""

from __future__ import annotations

import os
import socket
from collections import deque

from pyoci.errors import CgroupError
from pyoci.waiting import Wait, deadline_in, passed, sooner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from jeepney.low_level import Message

    from pyoci.waiting import Operation

LARGEST = 1 << 20
"""Bytes of one message; what we ask for is answered in a few hundred."""
CONNECT_AGAIN = 0.01
"""Seconds until a server whose queue of connections is full is tried again."""


class ConnectionLost(CgroupError):
    """There is no connection (any more)."""


class Refused(CgroupError):
    """The answer was an error; ``name`` is the D-Bus error's."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{text} ({name})" if text else name)
        self.name = name


def jeepney() -> Any:
    """The library, imported at its first use. Raises CgroupError where it is not installed."""
    try:
        import jeepney as found
    except ImportError:
        raise CgroupError("talking to systemd needs jeepney: pip install 'pyoci-runtime[systemd]'") from None
    return found


class Connection:
    """One connection to a bus, or to systemd itself (``peer``: its private socket, where there is no bus between). Any exception of a method leaves
    it unusable: close it then."""

    __slots__ = ("_parser", "_serial", "_socket", "peer", "signals")

    def __init__(self, peer: bool) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self.peer: bool = peer
        self.signals: deque[Message] = deque(maxlen=1000)
        self._parser = jeepney().Parser()
        self._serial = 0

    def close(self) -> None:
        self._socket.close()

    def __del__(self) -> None:
        self._socket.close()

    def open(self, address: str, deadline: int) -> Operation[None]:
        """Connects and authenticates as our effective user. ``address``: a path, or NUL and an abstract name. Raises ConnectionLost, CgroupError."""
        while True:
            try:
                self._socket.connect(address)
                break
            except BlockingIOError:  # AF_UNIX: the queue of connections is full, and nothing tells when it is not
                if passed(deadline):
                    raise CgroupError(f"{address} did not take the connection in time") from None
                yield Wait((), (), sooner(deadline, deadline_in(CONNECT_AGAIN)))
            except OSError as error:
                raise ConnectionLost(f"connecting to {address}: {error.strerror}") from None
        from jeepney.auth import BEGIN, Authenticator

        authenticator = Authenticator()
        for data in authenticator:  # empty: it wants to hear more first
            yield from self._send(data, deadline)
            received = yield from self._receive(deadline)
            try:
                authenticator.feed(received)
            except ValueError as error:
                raise CgroupError(f"{address} does not take us: {error}"[:500]) from None
        yield from self._send(BEGIN, deadline)
        if not self.peer:
            yield from self.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello", deadline=deadline)

    def send(self, to: str, path: str, interface: str, method: str, signature: str = "", *body: Any, deadline: int) -> Operation[int]:
        """Sends a call and returns its serial. The answer, if one is asked for, comes with ``answer``."""
        library = jeepney()
        message = library.new_method_call(library.DBusAddress(path, to, interface), method, signature or None, body)
        self._serial += 1
        yield from self._send(message.serialise(serial=self._serial), deadline)
        return self._serial

    def call(self, to: str, path: str, interface: str, method: str, signature: str = "", *body: Any, deadline: int) -> Operation[Message]:
        """Sends a call and waits for its answer. Raises Refused for an error, ConnectionLost, CgroupError at the deadline or for garbage."""
        serial = yield from self.send(to, path, interface, method, signature, *body, deadline=deadline)
        fields = jeepney().HeaderFields
        reply: Message | None = None
        while reply is None:
            for message in (yield from self._messages(deadline)):
                if message.header.fields.get(fields.reply_serial) == serial:
                    reply = message
        if reply.header.message_type is jeepney().MessageType.error:
            text = reply.body[0] if reply.body and isinstance(reply.body[0], str) else ""
            raise Refused(str(reply.header.fields.get(fields.error_name)), text)
        return reply

    def next_signal(self, deadline: int) -> Operation[Message]:
        """The next signal, from among those that came while an answer was waited for, or later."""
        while not self.signals:
            yield from self._messages(deadline)
        return self.signals.popleft()

    def _messages(self, deadline: int) -> Operation[list[Message]]:
        """What has come, if only a part of a message; signals are put by."""
        received = yield from self._receive(deadline)
        try:
            messages = self._parser.feed(received)
            too_large = (self._parser.next_msg_size or 0) > LARGEST
        except Exception as error:  # a parser that is fed garbage raises whatever it runs into
            raise CgroupError(f"the bus sent what is no D-Bus message: {error!r}"[:500]) from None
        if too_large:
            raise CgroupError(f"the bus announced a message of {self._parser.next_msg_size} bytes")
        self.signals += [message for message in messages if message.header.message_type is jeepney().MessageType.signal]
        return messages  # type: ignore[no-any-return]

    def _send(self, data: bytes, deadline: int) -> Operation[None]:
        view = memoryview(data)
        while view:
            try:
                view = view[self._socket.send(view, socket.MSG_NOSIGNAL) :]
            except BlockingIOError:
                if passed(deadline):
                    raise CgroupError("the bus did not take a message in time") from None
                yield Wait((), (self._socket.fileno(),), deadline)
            except OSError as error:
                raise ConnectionLost(f"the bus hung up: {error.strerror}") from None

    def _receive(self, deadline: int) -> Operation[bytes]:
        while True:
            try:
                received = self._socket.recv(65536)
            except BlockingIOError:
                if passed(deadline):
                    raise CgroupError("systemd did not answer in time") from None
                yield Wait((self._socket.fileno(),), (), deadline)
                continue
            except OSError as error:
                raise ConnectionLost(f"the bus hung up: {error.strerror}") from None
            if not received:
                raise ConnectionLost("the bus hung up")
            return received


def addresses() -> list[tuple[str, bool]]:
    """Where systemd can be reached, and whether that is systemd itself: root's is the system's manager, anybody else's their own."""
    root = os.geteuid() == 0
    given = os.environ.get("DBUS_SYSTEM_BUS_ADDRESS" if root else "DBUS_SESSION_BUS_ADDRESS", "")
    runtime_dir = "/run" if root else os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.geteuid()}")
    bus = f"{runtime_dir}/dbus/system_bus_socket" if root else f"{runtime_dir}/bus"
    found = []
    if given:
        from jeepney.bus import get_connectable_addresses

        try:
            found = [(address, False) for address in get_connectable_addresses(given)]
        except (RuntimeError, ValueError, KeyError) as error:
            raise CgroupError(f"the bus address {given!r} cannot be used: {error}") from None
    return [*(found or [(bus, False)]), (f"{runtime_dir}/systemd/private", True)]
