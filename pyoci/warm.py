"""``WarmPool``: containers created ahead, from one template, that wait at their FIFO until a command claims them.

What a container is made of (file systems, namespaces, cgroup and limits, user, capabilities) takes the time of a create, and is the same for all
that come from one template. So a pool's container is created with a program of ours (csrc/warm.c), which the runtime executes through a
descriptor: a sealed memory file, so nothing of it is to be seen in the container. It waits in state "created", as any container does that has not
been started: nothing has been executed in it. A claim sends arguments, environment, working directory and the standard streams (SCM_RIGHTS,
unix(7)) by a socket that only the pool and this one container have, and opens the FIFO; the program takes them, closes what it has, and
becomes the command. A container is used once. docs/guide/warm.md says what a claim cannot change.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from concurrent.futures import CancelledError
from socket import SOCK_STREAM
from stat import S_ISFIFO

from pyoci import _ffi, ids, lifecycle, oneshot, shortcuts, spec
from pyoci.container import Container
from pyoci.errors import ContainerStateError, Error, InvalidOption, Timeout
from pyoci.launcher import count
from pyoci.options import one_of
from pyoci.process import Descriptor
from pyoci.streams import DEVNULL, Stdio
from pyoci.waiting import NEVER, Wait, deadline_in, drive, passed
from pyoci.worker import Worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Any, NoReturn, Self, Unpack

    from pyoci.lifecycle import Life
    from pyoci.oneshot import TemplateOptions
    from pyoci.waiting import Many, Operation

PROGRAM = os.path.join(os.path.dirname(__file__), "_warm")
PROGRAM_FD = 3
"""The descriptor of the program in the container; that of the socket is the next one. csrc/warm.c knows both."""
REQUEST_LIMIT = 1 << 21
"""Bytes of arguments, environment and working directory together; csrc/warm.c."""
STRINGS_LIMIT = 1 << 16
STARTING_PER_PROCESSOR = 1
FIRST_REST, LONGEST_REST = 0.1, 10.0
"""Seconds until the next try after a create that failed: twice as long each time."""


# --- the request ------------------------------------------------------------------------------------------------------------------


def request(args: Sequence[str], env: Mapping[str, str] | None = None, cwd: str | None = None) -> tuple[bytes, int, int]:
    """What csrc/warm.c is sent of a command, but for the header: strings, and the numbers of arguments and of variables. Raises InvalidOption."""
    args = spec.arguments(args)
    if not args[0]:
        raise InvalidOption("the first of args must name a program, and is empty")
    if cwd is not None and (not isinstance(cwd, str) or not cwd.startswith("/")):
        raise InvalidOption(f"cwd must be an absolute path in the container, not {cwd!r:.200}")
    variables = [f"{name}={value}" for name, value in spec.environment(env).items()]
    try:
        "".join([cwd or "", *args, *variables]).encode()
    except UnicodeEncodeError:
        # The program could take any bytes; but a command is to mean the same with a pool and without one.
        raise InvalidOption(f"args, env and cwd must be UTF-8, which is all that config.json can hold, being JSON; not {args!r:.200}") from None
    strings, number = _ffi.block([cwd or "", *args, *variables], "the command")
    if len(strings) > REQUEST_LIMIT or number > STRINGS_LIMIT:
        raise InvalidOption(
            f"args and env are {len(strings)} bytes in {number} strings; at most {REQUEST_LIMIT} in {STRINGS_LIMIT} fit: use input for data"
        )
    return strings, len(args), len(variables)


def header(size: int, argc: int, envc: int, fds: Sequence[int]) -> bytes:
    """``fds``: what becomes the command's 0, 1 and 2; -1: stays /dev/null."""
    return struct.pack("=IIII", size, argc, envc, sum(1 << stream for stream, fd in enumerate(fds) if fd >= 0))


# --- what waits -------------------------------------------------------------------------------------------------------------------


class Member:
    """A container that waits, and our end of its socket."""

    __slots__ = ("channel", "life")

    def __init__(self, life: Life, channel: Descriptor) -> None:
        self.life: Life = life
        self.channel: Descriptor = channel

    def give_up(self) -> Operation[None]:
        try:
            yield from lifecycle.leave(self.life, failed=True)
        finally:
            self.channel.close()


class Waiter:
    """Somebody who waits for the pool's thread: for a container, for all of them, or for its end."""

    __slots__ = ("bell", "error", "is_served", "member")

    def __init__(self) -> None:
        self.bell: Descriptor = Descriptor(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
        self.is_served: bool = False
        self.member: Member | None = None
        self.error: BaseException | None = None

    def serve(self, member: Member | None = None, error: BaseException | None = None) -> None:
        self.member, self.error, self.is_served = member, error, True
        os.eventfd_write(self.bell.fd, 1)

    def wait(self, deadline: int, what: str) -> Operation[None]:
        """Raises Timeout, or what the thread has to say."""
        while not self.is_served:
            yield Wait((self.bell.fd,), (), deadline)
            if not self.is_served and passed(deadline):
                raise Timeout(f"{what}: not within the given time", None)
        if self.error is not None:
            raise self.error


class Claim:
    """One command for a container of a pool; for ``oneshot``, in place of a container that is created for it."""

    __slots__ = ("_fds", "_member", "_pool", "_request")

    def __init__(self, pool: PoolBase, args: Sequence[str], env: Mapping[str, str] | None, cwd: str | None, fds: Sequence[int]) -> None:
        self._pool = pool
        self._request = request(args, env, cwd)
        self._fds = fds
        self._member: Member | None = None

    @property
    def id(self) -> str:
        return self._member.life.id if self._member is not None else ""

    @property
    def runtime_name(self) -> str:
        return self._pool._host.runtime.name

    def create(self, deadline: int) -> Operation[Life]:
        self._member = yield from self._pool._take(deadline)
        return self._member.life

    def start(self, life: Life, deadline: int) -> Operation[Life]:
        """Lets the container run the command; another one, if it was killed in the moment since it was taken. Gives the one that runs."""
        try:
            yield from self._start(life, deadline)
            return life
        except ContainerStateError:
            # With the FIFO there nobody has started it, so nothing has run in it, the command least of all.
            if not (life.has_ended() and lifecycle.is_created(life)):
                raise
        yield from lifecycle.leave(life, failed=True)
        other = yield from self.create(deadline)
        try:
            return (yield from self.start(other, deadline))
        except BaseException:
            yield from lifecycle.leave(other, failed=True)
            raise

    def _start(self, life: Life, deadline: int) -> Operation[None]:
        """Sends the request and opens the FIFO. What the socket has no room for goes on its way as the program reads."""
        assert self._member is not None
        assert life.init is not None
        member, init = self._member, life.init
        strings, argc, envc = self._request
        left = memoryview(header(len(strings), argc, envc, self._fds) + strings)
        sent = [fd for fd in self._fds if fd >= 0]
        self._pool._give_to_user(sent)
        with member.channel:
            left = _sent(member.channel, left, sent)
            yield from lifecycle.start(life)
            self._pool._worker.tell("started", member)
            ready: set[int] = set()
            while left and init.pidfd not in ready:
                if passed(deadline):
                    raise Timeout(f"sending the command to {life.id!r} was not done within the given time", None)
                if member.channel.fd in ready:
                    left = _sent(member.channel, left)
                if left:
                    ready = yield Wait((init.pidfd,), (member.channel.fd,), deadline)

    def refused(self, error: Error, _said: bytes) -> NoReturn:
        raise error


def _sent(channel: Descriptor, data: memoryview, fds: Sequence[int] = ()) -> memoryview:
    """What is left to be sent; nothing where nobody reads any more: it was killed, which its start or its end tells."""
    try:
        return data[_ffi.send(channel.fd, data, fds) :]
    except ConnectionError:
        return data[:0]


class PoolBase:
    """What the blocking and the asyncio WarmPool share."""

    def __init__(
        self,
        *,
        size: int | None = None,
        max_starting: int | None = None,
        when_empty: str = "create",
        **template: Unpack[TemplateOptions],
    ) -> None:
        """``size``: how many containers wait, by default two for each processor. ``max_starting``: how many are created at a time; by default one
        for each processor. ``when_empty``: what a claim does that finds none: "create" one at once, or "wait" for one.

        ``template``: options of ``pyoci.run``, for all the containers: rootfs, user, mounts, hostname, memory, pids, cpus, read_only, network,
        runtime, state_dir, monitor; and env and cwd, where a claim has no others. The pool begins to fill at once.

        Raises InvalidOption and what the options of ``pyoci.run`` raise; nothing is started by then."""
        processors = len(os.sched_getaffinity(0))
        self.size: int = count("size", size, 2 * processors)
        self.max_starting: int = count("max_starting", max_starting, STARTING_PER_PROCESSOR * processors)
        self.when_empty: str = one_of("when_empty", when_empty, ("create", "wait"))
        self._host, self._template, how = oneshot.prepared([f"/proc/self/fd/{PROGRAM_FD}"], **template)
        name = self._host.runtime.name
        if name not in shortcuts.KNOWN:
            raise InvalidOption(f"a warm pool needs {' or '.join(shortcuts.KNOWN)}: it is not known how {name} executes a program by its descriptor")
        # Its words at a failed create go to runtime.log: the streams are not there yet.
        self._options = self._host.options(log_driver="passthrough", log_path=None, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL, **how)
        if self._options.passed_fds or self._options.notify_socket:
            raise InvalidOption("listen_fds, preserve_fds and notify_socket, which the runtime object has, cannot be had in a warm pool")
        if not os.path.exists(PROGRAM):
            raise Error(f"no warm pools here: {PROGRAM} is missing; it was not built with pyoci (no compiler for csrc/warm.c?)")
        self._program: shortcuts.SealedCopy | None = shortcuts.SealedCopy(PROGRAM)
        self._ready: deque[Member] = deque()
        self._waiters: deque[Waiter] = deque()
        self._fillers: list[Waiter] = []
        self._closers: list[Waiter] = []
        self._closed = self._is_over = False
        self._creating: set[Operation[Member]] = set()
        self._ending: set[Operation[None]] = set()
        self._watches: dict[Member, Operation[None]] = {}
        self._rest = 0.0
        self._resting: Operation[None] | None = None
        self._worker = Worker("pyoci-warm-pool", self._turn, lambda: drive(self._close()))
        self._worker.start()

    @property
    def ready(self) -> int:
        """How many containers wait now."""
        return len(self._ready)

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__name__}: {self.ready} of {self.size} ready{', closed' if self._closed else ''}>"

    # --- for claimers, on any thread ----------------------------------------------------------------------------------------------

    def _check(self) -> None:
        if not self._worker.is_ours():
            raise RuntimeError("this warm pool belongs to the process that made it, not to its fork")
        if self._closed:
            raise RuntimeError("this warm pool is closed")

    def _take(self, deadline: int) -> Operation[Member]:
        """A container that waits, which from here on is the caller's to end."""
        self._check()
        member: Member | None = None
        waiter: Waiter | None = None
        try:
            with self._worker.lock:
                while self._ready and member is None:
                    # In this order: wherever an interrupt comes in between, it is held by us or by the pool.
                    member = self._ready[0]
                    del self._ready[0]
                    if member.life.has_ended():
                        self._worker.told.append(("dead", member))
                        self._worker.ring()
                        member = None
                if member is None and self.when_empty == "wait":
                    waiter = Waiter()
                    self._waiters.append(waiter)
                    self._worker.ring()
            if waiter is not None:
                yield from waiter.wait(deadline, "waiting for a container of a warm pool")
                member = waiter.member
            if member is None:
                member = yield from self._create(deadline)
        except BaseException:
            if waiter is not None:
                with self._worker.lock:
                    if waiter in self._waiters:
                        self._waiters.remove(waiter)
                member = waiter.member
            if member is not None:
                yield from member.give_up()
            raise
        return member

    def _create(self, deadline: int = NEVER) -> Operation[Member]:
        program = self._program  # held until it is passed on, whenever the pool lets go of it
        if program is None:
            raise RuntimeError("this warm pool was closed")
        ours, theirs = map(Descriptor, _ffi.socketpair(SOCK_STREAM))
        life: Life | None = None
        try:
            with theirs:
                options = self._options.replaced(passed_fds=[program.file.fd, theirs.fd])
                life = yield from lifecycle.create(self._host, ids.new(), self._template, options, deadline)
            return Member(life, ours)
        except BaseException:
            ours.close()
            if life is not None:  # an interrupt after it was created
                yield from lifecycle.leave(life, failed=True)
            raise

    def _give_to_user(self, fds: Sequence[int]) -> None:
        """A pipe becomes the container's user's, as the runtimes do it at a create: else he could not open /dev/stdout."""
        user = self._template.config["process"]["user"]
        if user["uid"] != 0 and os.geteuid() == 0:
            for fd in fds:
                if S_ISFIFO(os.fstat(fd).st_mode):
                    os.fchown(fd, user["uid"], user["gid"])

    def _claiming(self, args: Sequence[str], env: Mapping[str, str] | None, cwd: str | None, fds: Sequence[int]) -> Claim:
        """For ``oneshot``. Nothing has been taken by then."""
        self._check()
        return Claim(self, args, env, cwd, fds)

    def _claim(self, args: Sequence[str], env: Mapping[str, str] | None, cwd: str | None, streams: tuple[Any, Any, Any]) -> Operation[Life]:
        stdio = Stdio(*streams)
        life: Life | None = None
        try:
            claim = Claim(self, args, env, cwd, stdio.fds)
            life = yield from claim.create(NEVER)
            life = yield from claim.start(life, NEVER)
            stdio.started()
            life.ends = stdio.ends
            return life
        except BaseException:
            try:
                stdio.close()
            finally:
                if life is not None:
                    yield from lifecycle.leave(life, failed=True)
            raise

    def _fill(self, timeout: float | None) -> Operation[None]:
        self._check()
        waiter = Waiter()
        with self._worker.lock:
            self._fillers.append(waiter)
            self._worker.ring()
        yield from waiter.wait(deadline_in(timeout), "filling a warm pool")

    def _close(self) -> Operation[None]:
        if not self._worker.is_ours():
            return
        with self._worker.lock:
            is_first, self._closed = not self._closed, True
            if is_first:
                self._worker.told.append(("close", None))
            self._worker.ring()
        waiter = Waiter()  # if that fails, it closes all the same
        with self._worker.lock:
            if self._is_over:
                waiter.serve()
            else:
                self._closers.append(waiter)
        yield from waiter.wait(NEVER, "closing a warm pool")
        self._worker.join()

    # --- the pool's thread --------------------------------------------------------------------------------------------------------

    def _turn(self, many: Many) -> bool:
        while self._worker.told:
            what, member = self._worker.told.popleft()
            if what == "close":
                self._empty(many)
                continue
            if member in self._watches:
                many.throw(self._watches[member], CancelledError())
            if what == "dead":
                self._end(many, member)
        if not self._closed:
            self._replenish(many)
        elif not self._creating and not self._ending:
            with self._worker.lock:
                self._is_over, self._program = True, None
                while self._closers:
                    self._closers.pop().serve()
            return False
        return True

    def _replenish(self, many: Many) -> None:
        with self._worker.lock:
            wanted = self.size + len(self._waiters) - len(self._ready) - len(self._creating)
            if len(self._ready) >= self.size:
                self._serve_fillers(None)
        while wanted > 0 and len(self._creating) < self.max_starting and self._resting is None:
            wanted -= 1
            operation = self._create()
            self._creating.add(operation)
            many.add(operation, lambda member, error, operation=operation: self._created(many, operation, member, error))  # type: ignore[misc]

    def _created(self, many: Many, operation: Operation[Member], member: Member | None, error: BaseException | None) -> None:
        self._creating.discard(operation)
        if member is None:
            if not self._closed and error is not None:
                self._failed(many, error)
            return
        self._rest = 0.0
        with self._worker.lock:
            if not self._closed:
                if self._waiters:
                    self._waiters.popleft().serve(member)
                else:
                    self._ready.append(member)
                    operation_of_watch = self._watches[member] = self._watch(member)
        if self._closed:
            self._end(many, member)
        elif member in self._watches:
            many.add(operation_of_watch, lambda _result, _error: self._watches.pop(member, None) and None)
        self._worker.ring()

    def _failed(self, many: Many, error: BaseException) -> None:
        """Who waits is told, and there is a rest before the next try."""
        if not self._rest:
            import logging

            logging.getLogger("pyoci").warning("a warm pool cannot create a container: %s; it goes on trying", str(error))
        self._rest = min(2 * self._rest or FIRST_REST, LONGEST_REST)
        with self._worker.lock:
            while self._waiters:
                self._waiters.popleft().serve(error=error)
            self._serve_fillers(error)

        def rested(_result: object, _error: object) -> None:
            self._resting = None

        if self._resting is None:
            self._resting = _rest(deadline_in(self._rest))
            many.add(self._resting, rested)

    def _serve_fillers(self, error: BaseException | None) -> None:
        while self._fillers:
            self._fillers.pop().serve(error=error)

    def _watch(self, member: Member) -> Operation[None]:
        """Until it is claimed. One that dies is nobody's loss: it is removed, and another one made."""
        assert member.life.init is not None
        while not member.life.has_ended():
            yield Wait((member.life.init.pidfd,))
        with self._worker.lock:
            if member not in self._ready:
                return
            self._ready.remove(member)
        yield from member.give_up()

    def _end(self, many: Many, member: Member) -> None:
        operation = member.give_up()
        self._ending.add(operation)
        many.add(operation, lambda _result, _error: self._ended(operation))

    def _ended(self, operation: Operation[None]) -> None:
        self._ending.discard(operation)
        self._worker.ring()

    def _empty(self, many: Many) -> None:
        error = RuntimeError("this warm pool was closed")
        with self._worker.lock:
            waiting = list(self._ready)
            self._ready.clear()
            while self._waiters:
                self._waiters.popleft().serve(error=error)
            self._serve_fillers(error)
        for operation in [*self._creating, *self._watches.values(), *([self._resting] if self._resting else [])]:
            many.throw(operation, CancelledError())
        for member in waiting:
            self._end(many, member)


def _rest(deadline: int) -> Operation[None]:
    while not passed(deadline):
        yield Wait((), (), deadline)


class WarmPool(PoolBase):
    """Containers created ahead, each of which becomes one command. Threads may share one. ``pyoci.run(…, pool=)``, ``Job(…, pool=)`` and
    ``Launcher(pool=)`` draw from it, and so does ``claim``. As a context manager it is closed at the end."""

    def claim(
        self,
        args: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stdin: Any = None,
        stdout: Any = None,
        stderr: Any = None,
    ) -> Container:
        """A container in which the command runs. ``env``: added to the template's. ``cwd``: an absolute path; None: the template's. ``stdin``,
        ``stdout``, ``stderr``: as for ``OCIRuntime.create``: PIPE, DEVNULL, a descriptor or a file, stderr=STDOUT; None is an empty
        stdin, and our own stdout and stderr. A program that is not there gives 127, one that cannot be executed 126, with a word on its stderr.

        Raises InvalidOption, RuntimeError when the pool is closed, and, where the pool has none, what ``OCIRuntime.create`` raises."""
        return Container._of(drive(self._claim(args, env, cwd, (DEVNULL if stdin is None else stdin, stdout, stderr))))

    def fill(self, timeout: float | None = None) -> None:
        """Waits until all ``size`` containers are ready; Timeout after so many seconds. Raises what keeps one from being created."""
        drive(self._fill(timeout))

    def close(self) -> None:
        """Removes what waits, and waits for the end of that. What was claimed goes on."""
        drive(self._close())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
