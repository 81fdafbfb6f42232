"""``exec``: in the foreground with the program's exit code, or with ``--detach`` handed over to the caller."""

from __future__ import annotations

import json
import os

from pyoci import execs, ids, runtimes, spec, terminal
from pyoci.errors import ExecError, InvalidOption
from pyoci.ociruntime import EXEC_FAILURE, common
from pyoci.ociruntime.terminal import relay
from pyoci.options import open_fds
from pyoci.store import write_pid
from pyoci.streams import DEVNULL, Stdio
from pyoci.waiting import drive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from pyoci.lifecycle import Life
    from pyoci.ociruntime.words import Given
    from pyoci.runtimes import State

SINGLE = ("cwd", "env", "user", "additional-gids", "cap", "no-new-privs", "apparmor", "process-label")
"""The options that say what a ``--process`` file says."""


def exec(given: Given, arguments: Sequence[str]) -> int:
    id, *command = arguments
    life = common.load(given, id)
    program, process, tty = _process(life, given, command)
    detach, console_socket = given.flag("detach"), given.text("console-socket")
    if detach and tty and console_socket is None:
        raise InvalidOption("cannot allocate tty if runc will detach without setting console socket")
    if console_socket is not None and not (detach and tty):
        raise InvalidOption("cannot use console socket if runc will not detach or allocate tty")
    also: list[State] = ["created"]
    switches = [word for path in given.texts("cgroup") for word in ("--cgroup", path)]
    if given.flag("ignore-paused"):
        if life.host.runtime.name == "crun":
            raise InvalidOption("--ignore-paused is not possible here: crun refuses to exec in what is paused")
        also.append("paused")
        switches.append("--ignore-paused")
    pid_file, fds = common.pid_file(given), common.preserved(given, 0)
    open_fds("preserve-fds", fds)
    execs.check_running(life, also)
    if detach:
        socket = None if console_socket is None else os.path.abspath(console_socket)
        pid = drive(execs.hand_over(life, program, process, [*common.stdio(), *fds], console_socket=socket, switches=switches))
        if pid_file is not None:
            write_pid(pid_file, pid)
        return 0
    return _follow(life, pid_file, program, process, tty, fds, switches)


def _process(life: Life, given: Given, command: Sequence[str]) -> tuple[str, bytes, bool]:
    """(program, process object, it has a terminal)."""
    path = given.text("process")
    if path is not None:
        if command or any(given.texts(name) for name in SINGLE):
            raise InvalidOption("with --process that file says all of it: leave the command and its single options out")
        return _from_file(path, tty=given.flag("tty"))
    if not command:
        raise InvalidOption("process args cannot be empty: pyoci-runtime exec ID COMMAND …, or --process FILE")
    more: dict[str, Any] = {}
    if given.texts("additional-gids"):
        more["user"] = {"additionalGids": [_gid(gid) for gid in given.texts("additional-gids")]}
    for option, field in (("apparmor", "apparmorProfile"), ("process-label", "selinuxLabel")):
        if given.text(option) is not None:
            more[field] = given.text(option)
    size = terminal.size() if given.flag("tty") else None
    no_new_privs = given.flag("no-new-privs") if given.text("no-new-privs") is not None else None
    cap, user = given.texts("cap"), given.text("user")
    process = execs.process_of(life, command, given.text("cwd"), _env(given.texts("env")), user, cap, no_new_privs, size, more)
    return command[0], process, given.flag("tty")


def _from_file(path: str, *, tty: bool) -> tuple[str, bytes, bool]:
    try:
        with open(path, "rb") as file:  # which can be a pipe: a shell's <(…)
            process = json.loads(file.read(spec.CONFIG_LIMIT))
    except OSError as error:
        raise InvalidOption(f"--process {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InvalidOption(f"--process {path}: not JSON: {error}") from None
    if not isinstance(process, dict):
        raise InvalidOption(f"--process {path}: must be a JSON object")
    if tty:
        process["terminal"] = True
    spec.check_process(process, f"--process {path}")
    return process["args"][0], spec.encode(process), bool(process.get("terminal"))


def _env(entries: Sequence[str]) -> dict[str, str]:
    env = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not name or not equals:
            raise InvalidOption(f"--env must be NAME=VALUE, not {entry!r:.200}")
        env[name] = value
    return env


def _gid(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 11):
        raise InvalidOption(f"--additional-gids must be a number, not {text!r:.200}")
    return int(text)


def _follow(life: Life, pid_file: str | None, program: str, process: bytes, tty: bool, fds: Sequence[int], switches: Sequence[str]) -> int:
    stdio = Stdio(DEVNULL, DEVNULL, DEVNULL) if tty else Stdio(*(fd if fd >= 0 else DEVNULL for fd in common.stdio()))
    size = terminal.size() if tty else None
    started = drive(execs.start(life, ids.new(), program, process, stdio, fds, size, switches))
    session = started.session

    def forward(signal: int) -> None:
        target = session.find()
        if target is not None:
            target.signal(signal)

    common.forward_signals(forward)
    if pid_file is not None:
        drive(execs.known(session))
        if session.told_pid():
            write_pid(pid_file, session.told_pid())
    if started.terminal is not None:
        with terminal.raw(), started.terminal:
            drive(relay(started.terminal, session.runtime))
    status = drive(execs.wait(session, None))
    if session.refusal is not None:
        raise ExecError(f"exec in {life.id!r}: the runtime failed", runtimes.parse_log(session.refusal))
    return EXEC_FAILURE if status.code is None else status.code
