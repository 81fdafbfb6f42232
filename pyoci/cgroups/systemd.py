"""conmon's scope: StartTransientUnit over D-Bus, and waiting for its job (org.freedesktop.systemd1(5)). A scope ends with its last process."""

from __future__ import annotations

import os

from pyoci.cgroups.dbus import Connection, ConnectionLost, Refused, addresses, jeepney
from pyoci.cgroups.detection import read_control
from pyoci.errors import CgroupError
from pyoci.waiting import deadline_in, sooner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from jeepney.low_level import Message

    from pyoci.waiting import Operation

NAME = "org.freedesktop.systemd1"
PATH = "/org/freedesktop/systemd1"
MANAGER = "org.freedesktop.systemd1.Manager"
BUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
SCOPE_TIMEOUT = 5.0
"""Seconds for systemd to make a scope; it takes a few milliseconds."""


class Systemd:
    """The manager of units, and a connection to it that is kept between calls. Threads and tasks may share one: each call takes a connection of
    its own out."""

    __slots__ = ("_idle", "_pid")

    def __init__(self) -> None:
        self._idle: list[Connection] = []
        self._pid = os.getpid()

    def start_scope(self, unit: str, slice: str, pid: int, deadline: int) -> Operation[None]:
        """Puts a process into a new scope and waits until it is there. Raises CgroupError. A connection that was lost (the bus was restarted) is
        made anew once."""
        deadline = sooner(deadline, deadline_in(SCOPE_TIMEOUT))
        for attempt in (1, 2):
            try:
                yield from self._start_scope(unit, slice, pid, deadline)
                return
            except CgroupError as error:
                # Whatever was said, or not said any more: where the process is decides.
                if is_in(pid, unit):
                    return
                if attempt == 2 or not isinstance(error, ConnectionLost):
                    raise CgroupError(f"conmon cannot have a cgroup of its own, because systemd made no scope {unit}: {error}") from None
                self._idle.clear()

    def _start_scope(self, unit: str, slice: str, pid: int, deadline: int) -> Operation[None]:
        properties = [
            ("Description", ("s", "conmon of a pyoci container")),
            ("Slice", ("s", slice)),
            ("PIDs", ("au", [pid])),
            # Nothing that stops before the container does may stop it; nor is a scope kept that ended badly.
            ("DefaultDependencies", ("b", False)),
            ("CollectMode", ("s", "inactive-or-failed")),
        ]
        connection = yield from self._take(deadline)
        try:
            if not connection.peer:
                match = f"type='signal',sender='{NAME}',path='{PATH}',interface='{MANAGER}',member='JobRemoved',arg2='{unit}'"
                yield from connection.send(*BUS, "AddMatch", "s", match, deadline=deadline)
            reply = yield from self._call(connection, "StartTransientUnit", "ssa(sv)a(sa(sv))", unit, "fail", properties, [], deadline=deadline)
            result = yield from self._job_result(connection, reply, deadline)
            if not connection.peer:
                yield from connection.send(*BUS, "RemoveMatch", "s", match, deadline=deadline)
        except BaseException:
            connection.close()
            raise
        self._give(connection)
        if result != "done":
            raise CgroupError(f"its job ended with {result!r}")

    def _job_result(self, connection: Connection, reply: Message, deadline: int) -> Operation[str]:
        library = jeepney()
        sender = reply.header.fields.get(library.HeaderFields.sender)
        while True:
            signal = yield from connection.next_signal(deadline)
            fields = signal.header.fields
            # Anybody on the bus can send us a signal.
            if fields.get(library.HeaderFields.member) != "JobRemoved" or fields.get(library.HeaderFields.sender) != sender:
                continue
            if len(signal.body) == 4 and signal.body[1:2] == reply.body[:1]:
                return str(signal.body[3])

    def stop(self, unit: str, deadline: int) -> Operation[None]:
        """Ends a unit, if there is one of that name, and forgets that it failed. Raises CgroupError."""
        connection = yield from self._take(deadline)
        try:
            for method, arguments in (("StopUnit", (unit, "replace")), ("ResetFailedUnit", (unit,))):
                try:
                    yield from self._call(connection, method, "s" * len(arguments), *arguments, deadline=deadline)
                except Refused as error:
                    if not error.name.endswith(".NoSuchUnit"):
                        raise
        except BaseException:
            connection.close()
            raise
        self._give(connection)

    def version(self, deadline: int) -> Operation[str]:
        """systemd's own. Raises CgroupError when it does not answer."""
        connection = yield from self._take(deadline)
        try:
            properties = "org.freedesktop.DBus.Properties"
            reply = yield from connection.call(NAME, PATH, properties, "Get", "ss", MANAGER, "Version", deadline=deadline)
        except BaseException:
            connection.close()
            raise
        self._give(connection)
        return str(reply.body[0][1])

    def forget_failed(self, patterns: list[str], wanted: Callable[[str], bool], deadline: int, *, dry_run: bool = False) -> Operation[list[str]]:
        """Forgets the failed units of these names that are ``wanted``; tells which. Raises CgroupError."""
        connection = yield from self._take(deadline)
        try:
            reply = yield from self._call(connection, "ListUnitsByPatterns", "asas", ["failed"], patterns, deadline=deadline)
            units = [str(unit[0]) for unit in reply.body[0] if wanted(str(unit[0]))]
            for unit in () if dry_run else units:
                try:
                    yield from self._call(connection, "ResetFailedUnit", "s", unit, deadline=deadline)
                except Refused as error:
                    if not error.name.endswith(".NoSuchUnit"):
                        raise
        except BaseException:
            connection.close()
            raise
        self._give(connection)
        return units

    def _call(self, connection: Connection, method: str, signature: str, *body: Any, deadline: int) -> Operation[Message]:
        return connection.call(NAME, PATH, MANAGER, method, signature, *body, deadline=deadline)

    def _take(self, deadline: int) -> Operation[Connection]:
        if self._pid != os.getpid():  # a fork: the connections are the parent's
            self._pid, self._idle = os.getpid(), []
        while self._idle:
            try:
                return self._idle.pop()
            except IndexError:  # another thread was faster
                break
        lost: ConnectionLost | None = None
        for address, peer in addresses():
            connection = Connection(peer)
            try:
                yield from connection.open(address, deadline)
                if not peer:
                    # Without it systemd sends no signals to the bus at all; to a peer it sends all.
                    yield from connection.send(NAME, PATH, MANAGER, "Subscribe", deadline=deadline)
                return connection
            except ConnectionLost as error:
                connection.close()
                lost = lost or error
            except BaseException:
                connection.close()
                raise
        raise lost or ConnectionLost("systemd has no address")

    def _give(self, connection: Connection) -> None:
        """Kept for the next call; but to a peer systemd sends all signals, which nobody would read meanwhile."""
        if connection.peer or self._pid != os.getpid():
            connection.close()
        else:
            connection.signals.clear()
            self._idle.append(connection)


def is_in(pid: int, unit: str) -> bool:
    """The process is in this unit's cgroup, in the hierarchy that systemd manages."""
    lines = os.fsdecode(read_control(f"/proc/{pid}/cgroup", 65536)).splitlines()
    return any(line.startswith(("0::", "1:name=systemd:")) or ":name=systemd:" in line for line in lines if line.rstrip().endswith(f"/{unit}"))
