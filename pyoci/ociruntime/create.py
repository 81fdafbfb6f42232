"""``create`` and ``run``. The caller is the monitor; in the foreground, ``run`` is it itself."""

from __future__ import annotations

import os
from contextlib import contextmanager

from pyoci import ids, lifecycle, spec, templates
from pyoci.errors import InvalidOption
from pyoci.ociruntime import common
from pyoci.options import CALLER, DIRECT, Options
from pyoci.process import Descriptor
from pyoci.store import write_pid
from pyoci.waiting import drive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyoci.lifecycle import Life
    from pyoci.ociruntime.words import Given


def create(given: Given, id: str) -> int:
    _create(given, id, CALLER, given.text("console-socket"))
    return 0


def run(given: Given, id: str) -> int:
    if given.flag("detach"):
        life = _create(given, id, CALLER, given.text("console-socket"))
        with _or_none(life):
            drive(lifecycle.start(life))
        return 0
    if given.text("console-socket") is not None:
        raise InvalidOption("cannot use console socket if runc will not detach or allocate tty: use run --detach, or create")
    if not _has_terminal(given):
        return _follow(_create(given, id, DIRECT, None))
    import socket

    # Short for any state directory: a socket's path holds 107 bytes. The runtime opens it by our number, as long as we live.
    place = common.store(given)
    place.prepare()
    name = f".{os.urandom(8).hex()}"
    with (
        Descriptor(os.open(place.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as directory,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener,
    ):
        path = f"/proc/{os.getpid()}/fd/{directory.fd}/{name}"
        listener.bind(path)
        try:
            listener.listen(1)
            life = _create(given, id, DIRECT, path)
            # It is there: the runtime has sent it, and ended.
            with _or_none(life), listener.accept()[0] as connection:
                terminal = Descriptor(socket.recv_fds(connection, 4096, 1, socket.MSG_CMSG_CLOEXEC)[1][0])
        finally:
            os.unlink(path)
    return _follow(life, terminal)


def _has_terminal(given: Given) -> bool:
    return bool(_template(given).config["process"].get("terminal"))


def _template(given: Given) -> templates.Template:
    """Of the bundle; ``--config`` is crun's, and relative to it."""
    return templates.prepare(given.text("bundle") or ".", given.text("config") or spec.CONFIG)


def _create(given: Given, id: str, monitor: str, console_socket: str | None) -> Life:
    ids.check(id)
    template = _template(given)
    terminal = bool(template.config["process"].get("terminal"))
    if terminal and console_socket is None:
        raise InvalidOption("cannot allocate tty if runc will detach without setting console socket: process.terminal needs --console-socket")
    if not terminal and console_socket is not None:
        raise InvalidOption("cannot use console socket if runc will not detach or allocate tty: process.terminal is false")
    pid_file = common.pid_file(given)
    listen = "LISTEN_FDS" in os.environ
    options = Options(
        monitor=monitor,
        log_driver="none",
        no_pivot=given.flag("no-pivot"),
        no_new_keyring=given.flag("no-new-keyring"),
        listen_fds=listen,
        preserve_fds=common.preserved(given, int(os.environ["LISTEN_FDS"]) if listen else 0),
        notify_socket="NOTIFY_SOCKET" in os.environ,
        console_socket=console_socket,
        stdio=common.stdio(),
    )
    life = drive(lifecycle.create(common.host(given), id, template, options))
    with _or_none(life):
        if pid_file is not None and life.init is not None:
            write_pid(pid_file, life.init.pid)
    return life


@contextmanager
def _or_none(life: Life) -> Iterator[None]:
    """What fails in its block leaves no container."""
    try:
        yield
    except BaseException:
        drive(lifecycle.delete(life, force=True))
        raise


def _follow(life: Life, terminal: Descriptor | None = None) -> int:
    """In the foreground, to its end; then nothing is left of it."""
    init = life.init
    assert init is not None  # it was just created
    try:
        common.forward_signals(init.signal)
        if terminal is not None:
            from pyoci.ociruntime.terminal import keep_newlines

            keep_newlines(terminal)
        drive(lifecycle.start(life))
        if terminal is not None:
            from pyoci.ociruntime.terminal import relay
            from pyoci.terminal import raw

            with raw(), terminal:
                drive(relay(terminal, init))
        code = drive(lifecycle.wait(life, None)).code
    finally:
        drive(lifecycle.delete(life, force=True))
    return 1 if code is None else code
