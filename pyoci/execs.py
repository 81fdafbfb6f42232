"""Exec sessions: more programs in a running container, each operation a generator.

Without conmon: the runtime itself stays as long as the program runs, ends with its exit code, and is our child. The program's stdio are the
caller's descriptors, or pipes, or the two ends of a terminal; nothing stands in between but runc, which copies what is no terminal.
"""

from __future__ import annotations

import os
import re
from itertools import chain
from json.encoder import encode_basestring_ascii
from signal import SIGHUP, SIGTERM, SIGWINCH
from time import time_ns

from pyoci import forks, ids, rootless, runtimes, sessions, spec
from pyoci.errors import ContainerStateError, ExecError, ExecTimeout, InvalidOption, OutputTooLong, Timeout, said
from pyoci.exits import ExitStatus, combine
from pyoci.lifecycle import CALL_TIMEOUT, CONMON_GRACE, KILL_TIMEOUT, Life, is_created
from pyoci.options import boolean, open_fds
from pyoci.process import Descriptor, Process, ended, kill_tree
from pyoci.sessions import Session
from pyoci.streams import DEVNULL, PIPE, STDOUT, Pump, Stdio, StreamBase, check_bytes, near
from pyoci.waiting import NEVER, Wait, deadline_in, passed, sooner

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping, Sequence
    from typing import Any, TypedDict

    from pyoci.runtimes import State
    from pyoci.waiting import Operation

    class ExecOptions(TypedDict, total=False):
        """The options of ``Container.exec``; ``plan`` says what each means."""

        cwd: str | None
        env: Mapping[str, str] | None
        user: str | int | None
        capabilities: Sequence[str]
        no_new_privs: bool | None
        tty: bool
        size: tuple[int, int]
        stdin: Any
        stdout: Any
        stderr: Any
        preserve_fds: Sequence[int]
        session_id: str | None


FIRST_LOOK = 0.004
LAST_LOOK = 1.0
"""Seconds. Nobody says that the runtime has written the program's pid: it is looked for while the runtime starts, less and less often."""
SILENCE = 2.0
"""Seconds without output after the program's end, before communicate() leaves a runtime to what other processes may still write through it."""


class Started:
    """A session that was started here, with our ends of its stdio, or its terminal."""

    __slots__ = ("ends", "session", "terminal")

    def __init__(self, session: Session, ends: Sequence[Descriptor | None] = (None,) * 3, terminal: Descriptor | None = None) -> None:
        self.session: Session = session
        self.ends: Sequence[Descriptor | None] = ends
        self.terminal: Descriptor | None = terminal


# --- starting ---------------------------------------------------------------------------------------------------------------------


def plan(
    life: Life,
    args: Sequence[str],
    *,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    user: str | int | None = None,
    capabilities: Sequence[str] = (),
    no_new_privs: bool | None = None,
    tty: bool = False,
    size: tuple[int, int] = (24, 80),
    stdin: Any = DEVNULL,
    stdout: Any = None,
    stderr: Any = None,
    preserve_fds: Sequence[int] = (),
    session_id: str | None = None,
) -> Operation[Started]:
    """Checks everything that can be checked and gives the operation; nothing has been made by then.

    ``args``: the command, a list of strings. ``cwd``, ``env`` (added), ``user`` and ``no_new_privs``: as the container's own process has
    them where they are not given. ``capabilities``: more than that has; for another user than root they are ambient (capabilities(7)).

    ``stdin``, ``stdout``, ``stderr``: PIPE, DEVNULL, a descriptor, a file, or None for our own; stderr=STDOUT joins the two. ``tty``: a
    terminal of ``size`` (rows, columns) instead. ``preserve_fds``: descriptors of ours that the program gets from 3 on.

    ``session_id``: see ``ids.check``; a new one is made when None."""
    life.check_own("exec in")
    id = ids.new() if session_id is None else sessions.check_id(session_id)
    process = process_of(life, args, cwd, env, user, capabilities, no_new_privs, check_size(size) if boolean("tty", tty) else None)
    fds = open_fds("preserve_fds", preserve_fds)
    if tty and (stdin not in (None, PIPE, DEVNULL) or stdout not in (None, PIPE) or stderr not in (None, STDOUT)):
        raise InvalidOption("with tty=True the program's stdio are its terminal: leave stdin, stdout and stderr out")
    check_running(life)
    if capabilities and life.connection is not None:
        life.connection.is_kept = False  # what it may change there is not looked through
    # Last, because it opens descriptors; from here on the operation closes them.
    stdio = Stdio(DEVNULL, DEVNULL, DEVNULL) if tty else Stdio(stdin, stdout, stderr)
    return start(life, id, args[0], process, stdio, fds, size if tty else None)


plan.__qualname__ = "exec"  # which is what somebody called who reads of an unexpected argument


class Model:
    """The container's own process, from which others are made: ``process`` without what is each one's own, and ``encoded``."""

    __slots__ = ("encoded", "process", "root")

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.root: str = config["root"]["path"]
        self.process: dict[str, Any] = {
            name: value for name, value in config["process"].items() if name not in ("args", "commandLine", "consoleSize")
        }
        self.process["terminal"] = False
        self.encoded: bytes = spec.encode(self.process)


def process_of(
    life: Life,
    args: Sequence[str],
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    user: str | int | None = None,
    capabilities: Sequence[str] = (),
    no_new_privs: bool | None = None,
    size: tuple[int, int] | None = None,
    more: Mapping[str, Any] | None = None,
) -> bytes:
    """The process object (runtime-spec, config.md), encoded: the container's own, changed as was asked for; ``size``: of a terminal; ``more``: fields
    as they stand there, and for ``user`` what is added to it."""
    args = spec.arguments(args)
    if life.model is None:
        life.check_current()
        life.model = Model(spec.load(life.directory))
    model = life.model
    changes: dict[str, Any] = {}
    if cwd is not None:
        changes["cwd"] = cwd
    if given := spec.environment(env):
        kept = [entry for entry in model.process.get("env") or () if entry.partition("=")[0] not in given]
        changes["env"] = kept + [f"{name}={value}" for name, value in given.items()]
    if user is not None:
        changes["user"] = spec.user_ids(user, model.root)
    if more:
        changes.update(more)
        if "user" in more:
            changes["user"] = {**(spec.user_ids(user, model.root) if user is not None else model.process.get("user") or {}), **more["user"]}
    if no_new_privs is not None:
        changes["noNewPrivileges"] = no_new_privs
    if capabilities:
        changes["capabilities"] = _capabilities({**model.process, **changes}, capabilities)
    if size is not None:
        changes["terminal"] = True
        changes["consoleSize"] = {"height": size[0], "width": size[1]}
    if changes or not _plain(args):
        spec.check_process({"cwd": "/", **(model.process if changes else {}), **changes, "args": list(args)}, "exec")
    rest = spec.encode({**model.process, **changes}) if changes else model.encoded
    return f'{{"args":[{",".join(map(encode_basestring_ascii, args))}],'.encode() + rest[1:]


def _plain(args: Sequence[str]) -> bool:
    """Nothing in them needs a closer look."""
    joined = "".join(args)
    return bool(args and args[0]) and joined.isascii() and "\0" not in joined


def _capabilities(process: Mapping[str, Any], more: Sequence[str]) -> dict[str, list[str]]:
    if isinstance(more, str | bytes):
        raise InvalidOption(f"capabilities must be a list of names, not {more!r:.200}")
    names = [name if isinstance(name, str) and name.startswith("CAP_") else f"CAP_{name}" for name in more]
    for name in names:
        if not re.fullmatch("CAP_[A-Z0-9_]+", name):
            raise InvalidOption(f"{name!r:.200} is no capability; give names such as CAP_NET_ADMIN")
    sets = ["bounding", "effective", "permitted"]
    if (process.get("user") or {}).get("uid"):
        sets += ["inheritable", "ambient"]  # exec takes all others away from who is not root
    result = {name: list(held) for name, held in (process.get("capabilities") or {}).items()}
    for kind in sets:
        result[kind] = list(dict.fromkeys([*result.get(kind, ()), *names]))
    return result


def check_size(size: tuple[int, int]) -> tuple[int, int]:
    try:
        rows, columns = size
        if type(rows) is int and type(columns) is int and 0 < rows < 1 << 16 and 0 < columns < 1 << 16:
            return rows, columns
    except (TypeError, ValueError):
        pass
    raise InvalidOption(f"the size of a terminal is (rows, columns), each from 1 to 65535, not {size!r:.200}")


def check_running(life: Life, also: Sequence[State] = ()) -> None:
    """Raises ContainerStateError unless it runs, or is in one of the states ``also``; ContainerNotFound when it was deleted. Asked of the kernel,
    not of the runtime: crun hangs in a container that is paused, and neither is in need of the call otherwise."""
    status: State
    init = life.init
    if init is None or life.has_ended():
        status = "stopped"
    elif is_created(life):
        status = "created"
    elif _is_frozen(life, init):
        status = "paused"
    else:
        return
    if status in also:
        return
    life.check_current()
    raise ContainerStateError(f"cannot exec in {life.id!r}: it is {status}", status)


def _is_frozen(life: Life, init: Process) -> bool:
    # In a scope crun freezes a cgroup of its own below, which holds all that it has started.
    frozen = life.host.hierarchies.is_frozen_at(life.cgroups_path or "") if life.place.is_cgroupfs else None
    return life.host.hierarchies.is_frozen(init.pid) if frozen is None else frozen


def hand_over(
    life: Life,
    program: str,
    process: bytes,
    fds: Sequence[int],
    *,
    console_socket: str | None = None,
    switches: Sequence[str] = (),
) -> Operation[int]:
    """Starts a program that belongs to the nearest subreaper above this process, as a container with ``monitor="caller"`` does: the runtime ends at
    once (``--detach``), and no session is left. Gives the program's pid. ``fds``: its stdio, and what it gets from 3 on. ``console_socket``: gets the
    master of its terminal. Raises ExecError with what the runtime said, ContainerStateError, Timeout."""
    life.check_own("exec in")
    session = Session(life, ids.new(), Process(), program=program)
    if os.geteuid() != 0 and life.init is not None:
        yield from rootless.until_open(life.init)
    session.claim(process)
    try:
        switches = ["--detach", *switches]
        _spawn(life, session, life.host.runtime.exec_argv(life.id, session.base, len(fds) - 3, console_socket, switches), fds)
        if not (yield from ended(session.runtime, deadline_in(CALL_TIMEOUT))):
            raise Timeout(f"exec in {life.id!r}: the runtime did not end within {CALL_TIMEOUT:g} s and was killed", CALL_TIMEOUT)
        told, pid = session.runtime_ended(), session.told_pid()
        if told != (0, 0) or not pid:
            words = runtimes.read_log(f"{session.base}.log")
            if life.has_ended():
                raise ContainerStateError(f"cannot exec in {life.id!r}: it has ended{said(words)}", "stopped")
            raise ExecError(f"exec in {life.id!r}: the runtime failed", words)
        return pid
    finally:
        if not life.is_inherited():
            if not session.runtime.has_ended():
                yield from kill_tree([session.runtime])
            session.remove()
        session.runtime.close()


def start(
    life: Life,
    id: str,
    program: str,
    process: bytes,
    stdio: Stdio,
    preserve_fds: Sequence[int] = (),
    size: tuple[int, int] | None = None,
    switches: Sequence[str] = (),
) -> Operation[Started]:
    """Starts a session of a process object that has been checked; ``switches``: more options of the runtime's exec."""
    life.check_own("exec in")
    session = Session(life, id, Process(), program=program)
    claimed = False
    born = forks.generation
    try:
        life.sessions[:] = [other for other in life.sessions if not other.sweep()]
        if os.geteuid() != 0 and life.init is not None:
            yield from rootless.until_open(life.init)
        session.claim(process, {other.id for other in life.sessions})
        claimed = True
        if size is None:
            argv = life.host.runtime.exec_argv(life.id, session.base, len(preserve_fds), None, switches)
            _spawn(life, session, argv, [*stdio.fds, *preserve_fds])
            terminal = None
        elif life.host.runtime.sends_console:
            terminal = yield from _receive_terminal(life, session, stdio, preserve_fds, switches)
        else:
            terminal = _relayed_terminal(life, session, preserve_fds, size, switches)
        if terminal is not None and size is not None:
            set_size(terminal.fd, *size)
        stdio.started()
        life.sessions.append(session)
        return Started(session, stdio.ends, terminal)
    except BaseException:
        if forks.generation == born:
            if session.runtime.pidfd >= 0:
                yield from kill_tree([session.runtime])
            if claimed:
                session.remove()
        session.runtime.close()
        stdio.close()
        raise


def _spawn(life: Life, session: Session, argv: list[str], fds: Sequence[int]) -> None:
    host = life.host
    # A group of its own: what a terminal of ours sends to us is not meant for the container.
    session.runtime.spawn(host.executable, argv, host.env_block, fds=fds, process_group=True)


class _Relay(Descriptor):
    """The master of a terminal that a runtime relays: it does not pass a hanging up on, but signals."""

    __slots__ = ("_generation", "_runtime")

    def __init__(self, master: Descriptor, runtime: Process) -> None:
        self._runtime = runtime
        self._generation = forks.generation
        super().__init__(master.fd)
        master.fd = -1

    def close(self) -> None:
        if self.fd >= 0 and forks.generation == self._generation:
            self._runtime.signal(SIGHUP)
        super().close()


def _relayed_terminal(life: Life, session: Session, preserve_fds: Sequence[int], size: tuple[int, int], switches: Sequence[str]) -> Descriptor:
    """A terminal between us and the runtime, which copies from and to the container's. Ours is raw: the other one has the line discipline."""
    import tty

    master, slave = map(Descriptor, os.openpty())
    with slave:
        tty.setraw(slave.fd)
        set_size(slave.fd, *size)
        argv = life.host.runtime.exec_argv(life.id, session.base, len(preserve_fds), None, switches)
        _spawn(life, session, argv, [slave.fd, slave.fd, slave.fd, *preserve_fds])
    return near(_Relay(master, session.runtime))


def _receive_terminal(life: Life, session: Session, stdio: Stdio, preserve_fds: Sequence[int], switches: Sequence[str]) -> Operation[Descriptor]:
    """The master of the container's terminal, as the runtime sends it (runc's docs/terminals.md). Where the runtime ends without sending
    one, /dev/null stands for it: how it ended is told by wait."""
    import socket

    # Short for any state directory and any id, for us and for the runtime alike: a socket's path holds 107 bytes.
    name = f".{os.urandom(8).hex()}"
    with (
        Descriptor(os.open(os.path.dirname(session.base), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as directory,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as listener,
    ):
        listener.bind(f"/proc/self/fd/{directory.fd}/{name}")
        try:
            listener.listen(1)
            fds = [*stdio.fds, *preserve_fds, directory.fd]
            path = f"/proc/self/fd/{len(fds) - 1}/{name}"
            _spawn(life, session, life.host.runtime.exec_argv(life.id, session.base, len(preserve_fds), path, switches), fds)
            deadline = deadline_in(CALL_TIMEOUT)
            if (yield from _readable(session, listener, deadline)):
                with listener.accept()[0] as connection:
                    connection.setblocking(False)
                    if (yield from _readable(session, connection, deadline)):
                        _, received, _, _ = socket.recv_fds(connection, 4096, 1, socket.MSG_CMSG_CLOEXEC)
                        if received:
                            return near(Descriptor(received[0]))
        finally:
            if not life.is_inherited():
                os.unlink(f"/proc/self/fd/{directory.fd}/{name}")
    return Descriptor(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC))


def _readable(session: Session, sock: socket.socket, deadline: int) -> Operation[bool]:
    """False when the runtime ended instead."""
    while True:
        ready = yield Wait((sock.fileno(), session.runtime.pidfd), (), deadline)
        if sock.fileno() in ready:
            return True
        if session.runtime.pidfd in ready:
            return False
        if passed(deadline):
            raise Timeout(f"exec {session.id!r} in {session.life.id!r}: no terminal came within {CALL_TIMEOUT:g} s", CALL_TIMEOUT)


def set_size(terminal: int, rows: int, columns: int) -> None:
    """TIOCSWINSZ; a terminal that is gone is fine."""
    import termios

    if terminal < 0:
        return
    try:
        termios.tcsetwinsize(terminal, (rows, columns))
    except (OSError, termios.error):
        pass


def resize(session: Session, terminal: int, rows: int, columns: int) -> None:
    """Sets the size of a session's terminal."""
    set_size(terminal, *check_size((rows, columns)))
    if not session.life.host.runtime.sends_console:
        session.runtime.signal(SIGWINCH)  # it is no foreground process of that terminal, so the kernel does not tell it


# --- following --------------------------------------------------------------------------------------------------------------------


def wait(session: Session, timeout: float | None) -> Operation[ExitStatus]:
    """Waits for the program's end. Raises Timeout, and it goes on; ExecError or ContainerStateError when the runtime did not start it."""
    if not (yield from _attend(session, deadline_in(timeout), None)):
        raise Timeout(f"exec session {session.id!r} in {session.life.id!r} did not end within {timeout or 0:g} s; it goes on", timeout)
    return result(session)


def result(session: Session) -> ExitStatus:
    """How it ended. Raises what kept it from beginning."""
    if session.failure is not None:
        raise session.failure.with_traceback(None)
    assert session.status is not None
    return session.status


def poll(session: Session) -> None:
    """Looks, without waiting, whether it has ended."""
    if not session.is_over:
        _settle(session, late=True)


def _attend(session: Session, deadline: int, pump: Pump | None) -> Operation[bool]:
    """Serves the pump until the session is over; False at the deadline, or when the pump has had too much."""
    look = FIRST_LOOK
    silent: int | None = None  # the program has ended; until then the runtime is waited for
    while True:
        # Also before anything is waited for: it may have ended, or another thread may have reaped it.
        if not session.is_over:
            _settle(session, late=silent is not None and passed(silent))
        if session.is_over:
            return True
        if silent is not None and passed(silent):
            silent = NEVER  # the kernel does not tell: only the runtime can
        if passed(deadline) and look > FIRST_LOOK:
            return False
        program = session.process if look == FIRST_LOOK else session.find()
        pidfds = [session.runtime.pidfd] if session.told is None else []
        until = deadline
        if silent is not None:
            until = sooner(deadline, silent)
        elif program is not None:
            pidfds.append(program.pidfd)
        elif look <= LAST_LOOK:
            until = sooner(deadline, deadline_in(look))
        look *= 2
        ready = yield Wait(pidfds, (), until) if pump is None else pump.wait(pidfds, until)
        if pump is not None:
            pump.serve(ready)
            if pump.over_limit():
                return False
        if program is not None and (program.pidfd in ready or (silent is not None and ready)):
            silent = deadline_in(CONMON_GRACE if pump is None else SILENCE)


def _settle(session: Session, *, late: bool) -> None:
    """Takes the exit code, once there is one: the runtime's, checked against the kernel's word about the program. ``late``: the runtime
    outlives the program, and is not waited for where the kernel tells."""
    told = session.runtime_ended()
    if told is None and not late:
        return
    # The runtime's code needs no confirming where it cannot mean a signal.
    program = session.process if told is not None and 0 <= told[0] <= 128 else session.find()
    alive = program is not None and not program.has_ended()
    kernel = program.exit_code() if program is not None and not alive else None
    if told is None and kernel is None:
        return
    code, signal = told or (-1, 0)
    filed = code if code >= 0 and not signal else None
    if filed is None and alive:
        return  # the runtime was killed, and the program goes on
    if session.refusal is not None:
        _not_started(session, runtimes.parse_log(session.refusal))
    else:
        session.status = combine(filed, kernel, oom_killed=False, finished_ns=time_ns())
    if session.sweep() and session in session.life.sessions:
        session.life.sessions.remove(session)


def _not_started(session: Session, words: bytes) -> None:
    """The runtime has failed: with a code as shells have it when there is no such program, else for a reason of its own."""
    code = runtimes.says_program(words, session.program or "")
    if code is not None:
        session.status = ExitStatus(code, finished_ns=time_ns())
    elif session.life.has_ended():
        session.failure = ContainerStateError(f"cannot exec in {session.life.id!r}: it has ended{said(words)}", "stopped")
    else:
        session.failure = ExecError(f"exec {session.id!r} in {session.life.id!r}: the runtime failed", words)


# --- ending -----------------------------------------------------------------------------------------------------------------------


def known(session: Session) -> Operation[None]:
    """Waits until the program is known, or the session over."""
    look = FIRST_LOOK
    while session.find() is None and not session.is_over:
        yield Wait((session.runtime.pidfd,), (), deadline_in(min(look, LAST_LOOK)))
        look *= 2
        _settle(session, late=False)


def kill(session: Session, signal: int) -> Operation[None]:
    """Sends a signal to the program. Raises ContainerStateError when it has ended."""
    session.life.check_own("signal an exec session of")
    yield from known(session)
    program = session.find()
    if session.is_over or program is None or program.has_ended() or not program.signal(signal):
        raise ContainerStateError(f"cannot signal exec session {session.id!r} in {session.life.id!r}: it has ended", "stopped")


def stop(stopped: Sequence[Session], timeout: float) -> Operation[None]:
    """TERM to all processes of these sessions, then KILL to what is left ``timeout`` seconds later; nothing else is touched. Raises
    ContainerStateError in a paused container, where they would not see the signal, or when even KILL does not end one."""
    members = []
    for session in stopped:
        life = session.life
        life.check_own("stop an exec session of")
        if life.init is not None and _is_frozen(life, life.init):
            raise ContainerStateError(f"cannot stop exec session {session.id!r}: {life.id!r} is paused", "paused")
        yield from known(session)
        members.append(session.members())
    if timeout > 0:
        for process in chain(*members):
            process.signal(SIGTERM)
        deadline = deadline_in(timeout)
        for process in chain(*members):
            yield from ended(process, deadline)
    for session, seen in zip(stopped, members, strict=True):
        # What it has started since, if it lives; else what was seen and lives.
        left = session.members() or [process for process in seen if not process.has_ended()]
        if left and not (yield from kill_tree(left, grace=KILL_TIMEOUT)):
            raise ContainerStateError(f"exec session {session.id!r} in {session.life.id!r} is there {KILL_TIMEOUT:g} s after SIGKILL", "running")
        yield from _attend(session, deadline_in(KILL_TIMEOUT), None)
        session.release()


def living(life: Life) -> list[Session]:
    """The container's sessions that live, by id, whichever process started them."""
    ours = {session.id: session for session in [*life.sessions]}
    for session in ours.values():
        poll(session)
    others = [session for session in sessions.recorded(life) if session.id not in ours]
    return sorted([*(session for session in ours.values() if not session.is_over), *others], key=lambda session: session.id)


def leave(session: Session, *, failed: bool) -> Operation[None]:
    """The end of a ``with`` block: as subprocess.Popen's it waits; a failed block has the session killed. In a forked child it is nothing."""
    if session.life.is_inherited():
        return
    if failed and not session.is_over:
        yield from stop((session,), 0)
    yield from _attend(session, NEVER, None)


# --- feeding and draining ---------------------------------------------------------------------------------------------------------


def communicate(
    session: Session, ends: Sequence[StreamBase | None], data: bytes | None, timeout: float | None, max_output: int | None
) -> Operation[tuple[bytes | None, bytes | None]]:
    """Feeds and drains the pipes, or the terminal, until the program ends. Raises ExecTimeout and OutputTooLong; the session is killed then."""
    if data is not None:
        check_bytes("input", data)
    stdin, *outputs = ends
    if data and stdin is None:
        raise InvalidOption(f"exec session {session.id!r} has no stdin of ours to write the input to; start it with stdin=PIPE")
    deadline = deadline_in(timeout)
    pump = Pump(max_output)
    for number, stream in enumerate(outputs, 1):
        if stream is not None and not stream.closed:
            pump.capture(number, *stream.surrender())
    if stdin is not None and not stdin.closed:
        # A terminal has no end of input but its hanging up: only a duplicate of it is closed.
        pump.feed(near(Descriptor(os.dup(stdin.fileno()))) if stdin in outputs else stdin.surrender()[0], data or b"")
    whole = yield from _attend(session, deadline, pump)
    if not whole:
        yield from stop((session,), 0)
    pump.drain_all()
    pump.close()
    told = pump.result(1), pump.result(2)
    if pump.over_limit():
        raise OutputTooLong(f"exec session {session.id!r} wrote more than {max_output} bytes; it was killed", *told)
    if not whole:
        raise ExecTimeout(f"exec session {session.id!r} took longer than {timeout or 0:g} s; it was killed", timeout, *told)
    result(session)
    return told
