"""``Container``: what the caller holds of one container."""

from __future__ import annotations

from pyoci import execs, lifecycle, runtimes, spec
from pyoci.errors import InvalidOption
from pyoci.store import store_at
from pyoci.streams import Stream, StreamBase
from pyoci.waiting import drive

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence
    from ipaddress import IPv4Address
    from types import TracebackType
    from typing import NoReturn, Self, Unpack

    from pyoci.attach import Attachment
    from pyoci.execs import ExecOptions
    from pyoci.exits import ExitStatus
    from pyoci.logs import LogEntry, LogOptions, Reader
    from pyoci.processes import ContainerProcess
    from pyoci.runtimes import State
    from pyoci.sessions import Session


class ContainerBase:
    """What the blocking and the asyncio Container share: everything that does not wait."""

    __slots__ = ("_life", "stderr", "stdin", "stdout")

    _life: lifecycle.Life
    _stream: type[StreamBase]
    stdin: StreamBase | None
    stdout: StreamBase | None
    stderr: StreamBase | None

    @classmethod
    def _of(cls, life: lifecycle.Life) -> Self:
        self = cls.__new__(cls)
        self._life = life
        self.stdin, self.stdout, self.stderr = (None if end is None else cls._stream(end) for end in life.ends)
        return self

    @property
    def id(self) -> str:
        """Unique in its state directory."""
        return self._life.id

    @property
    def directory(self) -> str:
        """The container's own directory: config.json, log, exit file and what else docs/architecture.md names."""
        return self._life.directory

    @property
    def log_path(self) -> str:
        """The log in Kubernetes' format, one line per line of output: time, stream, F or P (partial), text. Written when ``log_driver`` is
        ``k8s-file``."""
        return self._life.log_path

    @property
    def log_driver(self) -> str:
        """Where its output goes; see ``options.Options``."""
        return self._life.log_driver

    @property
    def pid(self) -> int | None:
        """The pid of the container's init as this pid namespace sees it; None once it has ended."""
        init = self._life.init
        return None if init is None or self._life.has_ended() else init.pid

    @property
    def address(self) -> IPv4Address | None:
        """Its own in the network that it was created with; None where that gives none."""
        from ipaddress import IPv4Address

        address = self._life.address
        return None if address is None else IPv4Address(address)

    @property
    def conmon_pid(self) -> int | None:
        """The pid of its conmon; None when that has ended."""
        monitor = self._life.conmon
        return None if monitor is None or monitor.has_ended() else monitor.pid

    @property
    def exit_status(self) -> ExitStatus | None:
        """How it ended, if ``wait`` or ``stop`` has told so here; waits for nothing."""
        return self._life.status

    def fileno(self) -> int:
        """A pidfd of init that becomes readable when the container ends, for event loops; -1 if it had ended before it was loaded. It stays
        this object's: do not close it."""
        return self._life.init.pidfd if self._life.init is not None else -1

    def processes(self) -> list[ContainerProcess]:
        """The processes in it, by pid; none once it has ended."""
        from pyoci import processes

        return processes.of(self._life)

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self!r} cannot be pickled or copied, for it holds descriptors: pass its id on, and Container.load finds it")

    def _close(self) -> None:
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                stream._close()

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__name__} {self.id}>"


class Container(ContainerBase):
    """One container. ``OCIRuntime.create`` makes it, ``Container.load`` finds it again. As a context manager it is stopped and deleted at the
    end; when an exception leaves the block it is killed at once. ``stdin``, ``stdout``, ``stderr``: a Stream where ``create`` was asked for a pipe,
    else None."""

    __slots__ = ()

    _stream = Stream
    stdin: Stream | None
    stdout: Stream | None
    stderr: Stream | None

    @classmethod
    def load(cls, id: str, *, state_dir: str | os.PathLike[str] | None = None) -> Self:
        """The container with this id, whichever process created it. Raises ContainerNotFound."""
        return cls._of(lifecycle.load(store_at(state_dir), id))

    def state(self) -> State:
        """``created``, ``running``, ``paused`` or ``stopped``; ``configured`` when the runtime does not know it any more (somebody else deleted it
        there): how it ended is still told, and it can be deleted. Raises ContainerNotFound after delete."""
        return drive(lifecycle.state(self._life))

    def start(self) -> None:
        """Starts it. Raises ContainerStateError unless it is "created"."""
        drive(lifecycle.start(self._life))

    def wait(self, timeout: float | None = None) -> ExitStatus:
        """Waits for its end, for at most ``timeout`` seconds; Timeout then, and it goes on. Returns the same again later."""
        return drive(lifecycle.wait(self._life, timeout))

    def kill(self, signal: int | str = "KILL") -> None:
        """Sends a signal to its init. Raises ContainerStateError when it has ended."""
        drive(lifecycle.kill(self._life, spec.signal_number(signal)))

    def stop(self, timeout: float = lifecycle.STOP_TIMEOUT, *, signal: int | str | None = None) -> ExitStatus:
        """Ends it: the stop signal (given, or that of the image, or TERM), then KILL to everything in it after ``timeout`` seconds. A paused
        container is thawed first; one that has ended already is fine."""
        return drive(lifecycle.stop(self._life, timeout, None if signal is None else spec.signal_number(signal)))

    def pause(self) -> None:
        """Freezes it (cgroup freezer). Raises ContainerStateError unless it is running, NoCgroup when it has no cgroup (docs/rootless.md)."""
        drive(lifecycle.pause(self._life))

    def resume(self) -> None:
        """Thaws it. Raises ContainerStateError unless it is paused."""
        drive(lifecycle.resume(self._life))

    def delete(self, *, force: bool = False) -> None:
        """Removes it with everything of it. Raises ContainerStateError while it lives, unless ``force``, which kills it first;
        ContainerNotFound when it was deleted before."""
        drive(lifecycle.delete(self._life, force))

    def exec(self, args: Sequence[str], **options: Unpack[ExecOptions]) -> ExecSession:
        """Starts one more program in it; see ``execs.plan`` for the options. Returns as soon as the runtime is at work: what keeps the
        program from running is told by the session's ``wait``.

        Raises InvalidOption, InvalidID, InvalidSpec, SessionExists, SpawnError, and ContainerStateError unless the container is running."""
        return ExecSession._of(drive(execs.plan(self._life, args, **options)))

    def exec_sessions(self) -> list[ExecSession]:
        """The exec sessions that live, whichever process started them; without their streams, which are its own."""
        return [ExecSession._of(execs.Started(session)) for session in execs.living(self._life)]

    def exec_stop(self, timeout: float = lifecycle.STOP_TIMEOUT) -> None:
        """Ends all exec sessions: TERM to their processes, KILL to what is left ``timeout`` seconds later. Nothing else is touched. Raises
        ContainerStateError in a paused container."""
        drive(execs.stop(execs.living(self._life), timeout))

    def logs(self, **options: Unpack[LogOptions]) -> Iterator[LogEntry]:
        """What it has written, entry by entry, from its log: a file, or the journal (``log_driver``). With ``follow=True`` it goes on until the
        container has ended. ``logs.reader`` tells the other options: ``tail``, ``since``, ``stream``.

        Raises InvalidOption, StateDirError, both at the call. Close the iterator, or read it to its end."""
        from pyoci import logs

        return _entries(logs.reader(self._life, **options))

    def attach(self) -> Attachment:
        """Attaches to its stdio: the terminal, or what goes to the log, and stdin where it was kept open. Raises ContainerStateError when it
        has ended, InvalidOption when its stdio are descriptors of its creator's."""
        from pyoci.attach import Attachment, connect

        return Attachment(self._life, drive(connect(self._life)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            drive(lifecycle.leave(self._life, failed=kind is not None))
        finally:
            self._close()


def _entries(reader: Reader) -> Iterator[LogEntry]:
    try:
        while entries := drive(reader.more()):
            yield from entries
    finally:
        reader.close()


class ExecSessionBase:
    """What the blocking and the asyncio ExecSession share: everything that does not wait."""

    __slots__ = ("_session", "stderr", "stdin", "stdout")

    _session: Session
    _stream: type[StreamBase]
    stdin: StreamBase | None
    stdout: StreamBase | None
    stderr: StreamBase | None

    @classmethod
    def _of(cls, started: execs.Started) -> Self:
        self = cls.__new__(cls)
        self._session = started.session
        terminal = None if started.terminal is None else self._stream(started.terminal)
        ends = [None if end is None else self._stream(end) for end in started.ends]
        self.stdin, self.stdout, self.stderr = (terminal, terminal, None) if terminal is not None else ends
        return self

    @property
    def id(self) -> str:
        """The session's id, unique in its container."""
        return self._session.id

    @property
    def pid(self) -> int | None:
        """The program's pid as this pid namespace sees it; None until the runtime has started it, and once it has ended."""
        program = self._session.find()
        return None if program is None or program.has_ended() else program.pid

    @property
    def exit_status(self) -> ExitStatus | None:
        """How it ended, if ``wait``, ``poll`` or ``communicate`` has told so here; waits for nothing."""
        return self._session.status

    @property
    def returncode(self) -> int | None:
        """``exit_status`` as subprocess has it: the code, -N for signal N, None while it runs (or when nobody knows)."""
        status = self._session.status
        return None if status is None else status.code if status.signal is None else -status.signal

    @property
    def runtime_words(self) -> bytes:
        """What the runtime said when it could not start the program, at most 64 KiB; empty else."""
        return runtimes.parse_log(self._session.refusal or b"")

    def poll(self) -> ExitStatus | None:
        """How it ended, None while it runs; waits for nothing. Raises as ``wait``."""
        execs.poll(self._session)
        return execs.result(self._session) if self._session.is_over else None

    def resize(self, rows: int, columns: int) -> None:
        """Sets the size of its terminal; the program gets SIGWINCH. Raises InvalidOption when it has none."""
        if self.stdin is None or self.stdin is not self.stdout:
            raise InvalidOption(f"exec session {self.id!r} has no terminal here")
        execs.resize(self._session, self.stdin.fileno(), rows, columns)

    def fileno(self) -> int:
        """A pidfd of the runtime's process, which ends with the program, for event loops. It stays this object's: do not close it."""
        return self._session.runtime.pidfd

    def _ends(self) -> tuple[StreamBase | None, ...]:
        return self.stdin, self.stdout, self.stderr

    def _close(self) -> None:
        for stream in self._ends():
            if stream is not None:
                stream._close()

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__name__} {self.id} in {self._session.life.id}>"


class ExecSession(ExecSessionBase):
    """A program that ``Container.exec`` started; much as subprocess.Popen. ``stdin``, ``stdout``, ``stderr``: a Stream where a pipe was asked
    for; of a session with a terminal the first two are the terminal. As a context manager it closes its streams at the end and waits; when an
    exception leaves the block the session is killed."""

    __slots__ = ()

    _stream = Stream
    stdin: Stream | None
    stdout: Stream | None
    stderr: Stream | None

    def wait(self, timeout: float | None = None) -> ExitStatus:
        """Waits for the program's end, for at most ``timeout`` seconds; Timeout then, and it goes on. A program that is not there gives 127,
        one that cannot be executed 126. Raises ExecError when the runtime could not start it for another reason, ContainerStateError when
        the container had ended."""
        return drive(execs.wait(self._session, timeout))

    def communicate(
        self, input: bytes | None = None, timeout: float | None = None, *, max_output: int | None = None
    ) -> tuple[bytes | None, bytes | None]:
        """Writes ``input`` to stdin and closes it, reads stdout and stderr to their ends, waits, and returns both. What the program left in
        the background is not waited for. After ``timeout`` seconds the session's processes are killed: ExecTimeout keeps the output so
        far; so does OutputTooLong at more than ``max_output`` bytes of a stream. Raises as ``wait``."""
        return drive(execs.communicate(self._session, self._ends(), input, timeout, max_output))

    def kill(self, signal: int | str = "KILL") -> None:
        """Sends a signal to the program. Raises ContainerStateError when it has ended."""
        drive(execs.kill(self._session, spec.signal_number(signal)))

    def stop(self, timeout: float = lifecycle.STOP_TIMEOUT) -> None:
        """TERM to the session's processes, KILL to what is left ``timeout`` seconds later; one that has ended is fine."""
        drive(execs.stop((self._session,), timeout))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()
        drive(execs.leave(self._session, failed=kind is not None))
