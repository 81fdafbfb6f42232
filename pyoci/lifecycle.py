"""The life of a container: each operation a generator (see ``waiting``), for the blocking and the asyncio face alike."""

from __future__ import annotations

import errno
import json
import os
from _socket import SOCK_STREAM  # socket itself takes a millisecond more to import
from signal import SIGKILL, SIGPIPE
from time import CLOCK_BOOTTIME, clock_gettime, time_ns

from pyoci import _ffi, activation, cgroups, conmon, forks, mounts, owners, rootless, runtimes, selinux, shortcuts
from pyoci.errors import (
    ConmonError,
    ConmonTooOld,
    ContainerInherited,
    ContainerNotFound,
    ContainerStateError,
    CreateError,
    DamagedRecord,
    Error,
    InvalidOption,
    NoCgroup,
    ProtocolError,
    RuntimeFailed,
    Timeout,
    said,
)
from pyoci.exits import ExitStatus, combine, parse_exit_file, read_small
from pyoci.observing import observed
from pyoci.options import CALLER, DIRECT, Options
from pyoci.process import (
    KILL_GRACE,
    STDERR_LIMIT,
    Descriptor,
    Identity,
    Process,
    command_line,
    ended,
    invoke,
    kill_tree,
    read_capture,
    read_stat,
    returncode_of,
)
from pyoci.runtimes import Runtime
from pyoci.store import RECORD_VERSION, Lock, Store, is_locked, mark, read_pids, read_record, remove_tree, unlink, write_file
from pyoci.waiting import NEVER, Wait, deadline_in, passed, sooner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    from pyoci._ffi import Block
    from pyoci.execs import Model
    from pyoci.mounts import Mounts
    from pyoci.networks import Connection
    from pyoci.options import CreateOptions
    from pyoci.process import Output
    from pyoci.runtimes import State
    from pyoci.sessions import Session
    from pyoci.shortcuts import Shortcut
    from pyoci.templates import Template
    from pyoci.waiting import Operation

CREATE_TIMEOUT = 240.0
"""Seconds; libpod's ContainerCreateTimeout."""
CALL_TIMEOUT = 60.0
"""Seconds for one call of the runtime (start, pause, delete …)."""
STOP_TIMEOUT = 10.0
"""Seconds between the stop signal and KILL, as podman and docker have it."""
CONMON_GRACE = 0.04
"""Seconds that conmon gets, after init is dead, to write the exit file and end; it needs 1 ms. The exit code is then known without it."""
FORCE_DELETE_TIMEOUT = 5.0
"""Seconds for ``RUNTIME delete --force`` when a create has failed."""
KILL_TIMEOUT = 5.0
"""Seconds in which a killed init must be dead, or a conmon that alone knows the exit code must tell it; libpod's killContainerTimeout. Where
nothing else is asked for: the container's record holds its own."""
LEFTOVERS_TIMEOUT = 2.0
"""Seconds in which what outlived init, and was killed as well, must be dead."""


class Host:
    """What all containers of one OCIRuntime share: the executables, the environment of every call, where state lies, the limits, and the options
    of ``create`` that hold for all of them."""

    __slots__ = (
        "_conmon_argv",
        "_options",
        "conmon_env_block",
        "conmon_path",
        "create_timeout",
        "defaults",
        "env",
        "env_block",
        "kill_timeout",
        "placement",
        "record",
        "runtime",
        "shortcuts",
        "store",
    )

    def __init__(
        self,
        conmon_path: str,
        runtime: Runtime,
        store: Store,
        env: Mapping[str, str],
        *,
        create_timeout: float = CREATE_TIMEOUT,
        kill_timeout: float = KILL_TIMEOUT,
        defaults: CreateOptions | None = None,
        wanted_shortcuts: bool | Iterable[Shortcut] = True,
        placement: cgroups.Manager | None = None,
    ) -> None:
        self.conmon_path: str = conmon_path
        self.runtime: Runtime = runtime
        self.store: Store = store
        self.env: dict[str, str] = dict(env)
        self.env_block: tuple[bytes, int] = _ffi.environment_block(env)
        self.conmon_env_block: tuple[bytes, int] = _ffi.environment_block({**env, **conmon.pipes(0)})
        self.create_timeout: float = create_timeout
        self.kill_timeout: float = kill_timeout
        self.defaults: CreateOptions = defaults or {}
        self.shortcuts: frozenset[str] = shortcuts.chosen(wanted_shortcuts, runtime.path, plain=not runtime.extra_args)
        self.record: dict[str, Any] = {
            "version": RECORD_VERSION,
            "runtime": runtime.path,
            "runtime_root": runtime.root,
            "runtime_args": runtime.extra_args,
            "conmon": conmon_path,
            "env": self.env,
            "kill_timeout": kill_timeout,
        }
        self.placement: cgroups.Manager = placement or cgroups.Manager()
        self._options = Options(**self.defaults)
        self._conmon_argv: tuple[object, list[bytes], int] = (None, [], 0)

    @property
    def hierarchies(self) -> cgroups.Cgroups:
        """The host's hierarchies, read at the first need."""
        return self.placement.hierarchies

    @property
    def executable(self) -> str:
        """The path by which the runtime is called: quicker than its own, where possible, but only good while this process lives."""
        return shortcuts.executable(self.runtime.path) if "memfd" in self.shortcuts else self.runtime.path

    def too_slow(self, id: str) -> Timeout:
        """The error of a create that took too long."""
        timeout = self.create_timeout
        return Timeout(f"creating {id!r} took longer than {timeout:g} s, and was undone; raise create_timeout, or look at its hooks", timeout)

    def options(self, **given: Any) -> Options:
        """How a container is created: as given, else as it holds for all."""
        return Options(**{**self.defaults, **given}) if given else self._options

    def conmon_env(self, options: Options) -> Block:
        """conmon's environment for creating this container."""
        if not options.passed_fds and options.notify_socket is None:
            return self.conmon_env_block
        return _ffi.environment_block({**self.env, **conmon.pipes(len(options.passed_fds)), **_notify(options.notify_socket)})

    def runtime_env(self, notify_socket: str | None) -> Block:
        """The environment of one call of the runtime."""
        return self.env_block if notify_socket is None else _ffi.environment_block({**self.env, **_notify(notify_socket)})

    def conmon_block(self, id: str, options: Options) -> Block:
        """``conmon_argv``, encoded; what does not depend on the id is kept for the next container that is created the same way."""
        key, parts, count = self._conmon_argv
        wanted = (options.argv, self.executable)
        if key != wanted:
            encoded, count = _ffi.block(self.conmon_argv(_MARK, options), "conmon's argv")
            parts = encoded.split(_MARK.encode())
            self._conmon_argv = (wanted, parts, count)
        return id.encode().join(parts), count

    def conmon_argv(self, id: str, options: Options) -> list[str]:
        """conmon's argv for creating this container."""
        return conmon.arguments(
            id=id,
            directory=self.store.path(id),
            exit_dir=self.store.exits,
            runtime=self.executable,
            runtime_args=self.runtime.global_args,
            systemd_cgroup=self.placement.is_systemd,
            **options.argv,
        )


# In place of an id, in what is kept.
_MARK = f"id-{os.urandom(16).hex()}"


def _notify(socket: str | None) -> dict[str, str]:
    return {} if socket is None else {"NOTIFY_SOCKET": socket}


class Life:
    """One container, as this process knows it: what lies on disk, and its processes by pidfd."""

    __slots__ = (
        "_conmon",
        "_generation",
        "_sync",
        "address",
        "bundle",
        "cgroups_path",
        "connection",
        "directory",
        "ends",
        "hooks",
        "host",
        "id",
        "init",
        "log_driver",
        "log_path",
        "mark",
        "model",
        "monitor",
        "monitored_by",
        "notify_socket",
        "own_pid_namespace",
        "place",
        "removed",
        "sessions",
        "status",
        "stop_signal",
    )

    def __init__(self, host: Host, id: str, directory: str, record: Mapping[str, Any]) -> None:
        self.host: Host = host
        self.id: str = id
        self.directory: str = directory
        self.place: cgroups.Place = cgroups.Place.recorded(record)
        self.cgroups_path: str | None = self.place.container
        self.own_pid_namespace: bool = record["own_pid_namespace"]
        self.stop_signal: int = record["stop_signal"]
        self.hooks: Sequence[str] = record["hooks"]
        self.log_driver: str = record["log_driver"]
        self.log_path: str = record["log_path"]
        self.notify_socket: str | None = record["notify_socket"]
        self.monitored_by: str = record["monitor"]
        self.bundle: str | None = record.get("bundle")
        self.init: Process | None = None
        self.monitor: Identity | None = None  # conmon's
        self._conmon: Process | None = None
        self.status: ExitStatus | None = None
        self.removed: bool = False
        self.ends: Sequence[Descriptor | None] = (None, None, None)  # ours of its stdio
        self.model: Model | None = None  # for execs, since the first
        self.sessions: list[Session] = []  # exec sessions of this process's that have not been swept
        self.mark: tuple[int, int] | None = None
        self.address: str | None = record.get("address")
        self.connection: Connection | None = None  # to the network that it was created with
        self._generation = forks.generation
        self._sync: Descriptor | None = None  # our end of the sync pipe, while it is created

    @property
    def conmon(self) -> Process | None:
        """Its conmon, None when that has ended. It is looked for at the first need, which is the container's end as a rule: a thousand that live
        hold no descriptors for theirs."""
        if self._conmon is None and self.monitor is not None:
            self._conmon = self.monitor.find()
        return self._conmon

    def close(self) -> None:
        """Gives its descriptors up, for who has it alone: an exception keeps what its frames hold, and the descriptors must not wait for it to go."""
        for process in (self.init, self._conmon):
            if process is not None:
                process.close()

    def call(self, verb: str, *args: str, timeout: float | None = None) -> Operation[Output]:
        """``RUNTIME VERB [ARGS] ID``. Raises RuntimeFailed."""
        host = self.host
        argv = host.runtime.argv(verb, *args)
        # At the start the runtimes wait for READY=1, on the socket that they made at the create, and pass it on.
        env = host.runtime_env(self.notify_socket if verb == "start" else None)
        step, timeout = f"{verb} {self.id!r}", timeout or CALL_TIMEOUT
        return invoke(step, host.runtime.path, argv, env, timeout, stdout=verb == "state", executable=host.executable)

    @property
    def is_direct(self) -> bool:
        """The process that created it is its monitor."""
        return self.monitored_by == DIRECT

    def has_ended(self) -> bool:
        return self.status is not None or self.init is None or self.init.has_ended()

    def own_cgroups(self) -> list[str]:
        """Those of the container's processes, without conmon's."""
        return self.host.hierarchies.directories(self.cgroups_path) if self.cgroups_path is not None else []

    def is_inherited(self) -> bool:
        """It came through a fork: it is the parent's."""
        return self._generation != forks.generation

    def is_current(self) -> bool:
        """It is still there, and its id has not been given to another one since."""
        return not self.removed and (mark(self.directory) == self.mark if self.mark is not None else os.path.isdir(self.directory))

    def check_current(self) -> None:
        """Raises ContainerNotFound when it is not there any more."""
        if not self.is_current():
            raise ContainerNotFound(f"no container {self.id!r}: it was deleted") from None

    def check_own(self, verb: str) -> None:
        """Raises ContainerInherited in a forked child."""
        if self.is_inherited():
            raise ContainerInherited(f"cannot {verb} {self.id!r} in a forked child by its parent's object; load it: Container.load({self.id!r})")


def _about(life: Life, *_: object, **__: object) -> tuple[str, str]:
    return life.id, life.host.runtime.name


# --- create -----------------------------------------------------------------------------------------------------------------------


def record_of(host: Host, id: str, template: Template, options: Options, place: cgroups.Place) -> dict[str, Any]:
    """What later operations, in this process or another, must know and cannot ask anybody."""
    return {
        **host.record,
        **template.record,
        **place.record(),
        "log_driver": options.log_driver,
        "log_path": options.log_path or f"{host.store.path(id)}/log",
        "notify_socket": options.notify_socket,
        "monitor": options.monitor,
        "owner": owners.ours(),
        "bound": options.bound,
    }


@observed("create", lambda host, id, *_: (id, host.runtime.name))
def create(host: Host, id: str, template: Template, options: Options, deadline: int = NEVER) -> Operation[Life]:
    """Creates a container: afterwards it is "created", held by its monitor.

    Raises InvalidOption, ContainerExists, SpawnError, ConmonError, ProtocolError, CreateError, CgroupError, NoCgroup, NetworkError, StateDirError,
    Timeout.
    Whatever is raised, nothing is left."""
    deadline = sooner(deadline, deadline_in(host.create_timeout))
    place = host.placement.place(id, template.cgroups_path, monitored=options.monitor == "conmon")
    if place.spec is None:
        rootless.check_limits(template.config, id)
    namespace = mounts.plan(template.config, options.mount_namespace, privileged=os.geteuid() == 0)
    if namespace is not None:
        template = template.with_root(namespace.target)
    if options.listen_names:
        template = template.with_config(activation.tell(template.config, options.listen_names))
    if options.network is not None:
        template.check_network()
    record = record_of(host, id, template, options, place)
    life, first, is_vacant = Life(host, id, host.store.path(id), record), Process(), False
    is_new_log = options.log_path is not None and _will_be_made(options.log_path)
    began = clock_gettime(CLOCK_BOOTTIME)
    host.store.claim(id)
    try:
        host.placement.check_vacant(place, template.cgroups_path)
        is_vacant = True
        with Lock(life.directory, wait=True):
            network = None
            if options.network is not None:
                life.connection = options.network.connect()
                network = life.connection.path
                if life.connection.address is not None:
                    life.address = record["address"] = str(life.connection.address.ip)
            write_file(f"{life.directory}/config.json", template.config_json(place.spec, network))
            write_file(f"{life.directory}/record.json", json.dumps(record).encode())
            if life.monitored_by != "conmon":
                from pyoci import direct

                _identify(life, (yield from direct.launch(life, first, options, namespace, deadline)))
            else:
                yield from _launch(life, first, options, namespace, deadline)
            if life.connection is not None:
                from pyoci.networks import leaves_as_found

                life.connection.is_kept = leaves_as_found(template.config)
            return life
    except BaseException:
        if not is_vacant:
            host.store.remove(id)  # and nothing else: who lives in that cgroup is not ours to end
            raise
        yield from _persistently(lambda: _abandon(life, first, began))
        if is_new_log and not life.is_inherited():
            _remove_empty(life.log_path)
        raise


def _will_be_made(log: str) -> bool:
    """A log at a place of the caller's own, which conmon makes, but no directory for it. Raises InvalidOption."""
    if not os.path.isdir(os.path.dirname(log)):
        raise InvalidOption(f"log_path={log!r}: there is no such directory; make it first")
    return not os.path.lexists(log)


def _remove_empty(path: str) -> None:
    """A log at a place of the caller's own that conmon has made, and that nothing came into."""
    try:
        if os.path.getsize(path) == 0:
            os.unlink(path)
    except OSError:
        pass


def _launch(life: Life, first: Process, options: Options, namespace: Mounts | None, deadline: int) -> Operation[None]:
    host = life.host
    ours, theirs = map(Descriptor, _ffi.socketpair(SOCK_STREAM))
    life._sync = ours
    # With passthrough the container gets conmon's own stdio; otherwise conmon's stderr is the only explanation if it fails.
    passthrough = options.log_driver == "passthrough"
    with theirs, Descriptor(-1 if passthrough else _ffi.capture(STDERR_LIMIT)) as capture:
        stdin, stdout, stderr = options.stdio
        host.placement.spawn(
            life.place,
            first,
            host.conmon_path,
            host.conmon_block(life.id, options),
            host.conmon_env(options),
            fds=(stdin, stdout, stderr if passthrough else capture.fd, *options.passed_fds, theirs.fd, theirs.fd),
            cwd=life.directory,  # conmon 2.1.6 writes "oom" to its working directory
            process_group=True,
            label=selinux.conmon_label(),
            mounts=namespace,
        )
        theirs.close()
        # Here conmon waits: it goes on at the first byte.
        if life.place.is_entered:
            yield from host.placement.enter(life.place, first, deadline)
        try:
            _ffi.write(ours.fd, b"\0")
        except BrokenPipeError:
            pass  # it has ended already, and what it said is read below
        line = yield from _sync_line(life, ours.fd, deadline)
        ours.close()  # not before: conmon 2.1.6 dies of EPIPE, without an exit file, when it cannot write this line, its last
        exit = yield from _reap_first(life, first, deadline)
        if line is None:
            stderr_text = runtimes.read_log(f"{life.directory}/runtime.log") if passthrough else read_capture(capture.fd)
            if exit != (0, 0):
                raise (yield from _conmon_failed(life, exit, stderr_text))
            raise CreateError(f"creating {life.id!r}: the runtime failed, or succeeded without a pidfile, and said nothing", stderr_text)
    _identify(life, conmon.parse_sync(line, life.id))


def _conmon_failed(life: Life, exit: tuple[int, int], stderr: bytes) -> Operation[ConmonError]:
    """The error for a conmon that ended before it called the runtime. Only here its version is asked for: one that knows its options is new
    enough, and the question costs a process."""
    host = life.host
    message = f"creating {life.id!r} in {life.directory}: conmon {_how(exit)}"
    try:
        version = (yield from runtimes.ask_version(host.conmon_path, host.env_block)) if not exit[1] else None
    except (Error, OSError):
        version = None
    if version is None or version >= conmon.LEAST_VERSION:
        return ConmonError(message, returncode_of(exit), stderr)
    found, needed = (".".join(map(str, numbers)) for numbers in (version, conmon.LEAST_VERSION))
    message += f"; {host.conmon_path} is conmon {found}, and {needed} or newer is needed"
    return ConmonTooOld(message, returncode_of(exit), stderr, version, conmon.LEAST_VERSION)


def _how(exit: tuple[int, int]) -> str:
    return f"was killed by signal {exit[1]}" if exit[1] else f"exited {exit[0]} before it called the runtime"


def _sync_line(life: Life, fd: int, deadline: int) -> Operation[bytes | None]:
    """conmon's line, or None when the pipe closed without one."""
    reader = _ffi.LineReader(fd, conmon.LINE_LIMIT)
    while True:
        yield Wait((fd,), (), deadline)
        try:
            whole = reader.read()
        except ConnectionResetError:
            whole = False
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise
            raise ProtocolError(f"creating {life.id!r}: conmon's message is longer than {reader.limit} bytes", reader.received) from None
        if whole:
            return reader.received
        if whole is False:
            if reader.received:
                raise ProtocolError(f"creating {life.id!r}: conmon's message was cut off: {reader.received[:200]!r}", reader.received)
            return None
        if passed(deadline):
            raise life.host.too_slow(life.id)


def _reap_first(life: Life, first: Process, deadline: int) -> Operation[tuple[int, int]]:
    """conmon's first process, which ends when the real one has forked off and its pidfile is written."""
    if (exit := first.reap()) is None:
        if not (yield from ended(first, deadline)):
            timeout = life.host.create_timeout
            raise Timeout(f"creating {life.id!r}: conmon did not go to the background within {timeout:g} s", timeout)
        exit = first.reap() or (-1, 0)
    first.close()
    return exit


def _identify(life: Life, pid: int) -> None:
    """Takes hold of the monitor (conmon, this process, or one above it) and of the container's init, and writes down who they are. Raises
    ProtocolError when a pid is not what it should be: nothing unverified is ever signalled."""
    monitor_pid = _monitor_pid(life, pid)
    monitor, init = Process(), Process()
    try:
        _, monitor_identity = monitor.identify(monitor_pid)
        parent, identity = init.identify(pid) if pid > 1 else (-1, None)
        if parent != monitor_pid:
            raise ProtocolError(f"creating {life.id!r}: pid {pid} is not a child of this container's monitor ({monitor_pid}); it was left alone")
    except ProcessLookupError:
        raise CreateError(f"creating {life.id!r}: its monitor ({monitor_pid}) or the container's init ({pid}) was killed meanwhile") from None
    except BaseException:
        init.close()
        raise
    finally:
        monitor.close()
    life.init = init
    if life.monitored_by == "conmon":
        life.monitor = monitor_identity
    write_file(f"{life.directory}/pids", f"{identity} {monitor_identity}\n".encode())
    life.mark = mark(life.directory)


def _monitor_pid(life: Life, pid: int) -> int:
    if life.is_direct:
        return os.getpid()
    if life.monitored_by == CALLER:
        from pyoci import direct

        return direct.adopter(pid)
    return _conmon_pid(life)


def _conmon_pid(life: Life) -> int:
    pidfile = read_small(f"{life.directory}/conmon.pid")
    if pidfile is None:
        raise ProtocolError(f"creating {life.id!r}: conmon wrote no {life.directory}/conmon.pid")
    return conmon.parse_pidfile(pidfile[0], f"{life.directory}/conmon.pid")


def claimed_by(directory: str) -> list[int]:
    """The processes whose command line names this container's directory as bundle, or its pidfile: its conmon, and a runtime in the act of
    creating it, wherever they have been reparented to."""
    name = os.fsencode(directory)
    marks = (b"\0-b\0" + name + b"\0", b"\0--bundle\0" + name + b"\0", b"\0--bundle=" + name + b"\0", b"\0--pid-file\0" + name + b"/pidfile\0")
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            line = command_line(int(entry))
            if any(mark in line for mark in marks) and not _is_elsewhere(entry, os.path.dirname(directory)):
                found.append(int(entry))
    return found


def _is_elsewhere(pid: str, directory: str) -> bool:
    """The path that it names is not ours, but one of another mount namespace. What has changed its root, on the way into the container, cannot be
    asked."""
    try:
        there = os.stat(f"/proc/{pid}/root{directory}")
        return not os.path.samestat(there, os.stat(directory))
    except OSError:
        return False


def _persistently(work: Callable[[], Operation[None]]) -> Operation[None]:
    """For what nobody will try again: a second time, after a want of descriptors or memory, which may have passed."""
    try:
        yield from work()
    except OSError as error:
        if error.errno not in _ffi.SHORTAGES:
            raise
        yield from work()


def _abandon(life: Life, first: Process, began: float) -> Operation[None]:
    """A create has failed: ends and removes everything of it. The id is ours by the claim, and the runtime's state root is ours alone, so
    nothing here can be somebody else's. In a forked child it is the parent's, which goes on with it."""
    if life.is_inherited():
        return
    if first.pid > 0:
        yield from _end_unfinished(life, [first])
    if life.is_direct and first.pid > 0:
        from pyoci import direct

        yield from direct.reap_group(first.pid)
    yield from _reap_init(life, began)
    yield from _remove(life)
    yield from life.host.placement.forget(life.place)
    first.close()
    life.close()


def _reap_init(life: Life, began: float) -> Operation[None]:
    """One that crun has left behind, which is then a zombie of a subreaper, whoever the monitor was to be."""
    from pyoci import direct

    if direct.is_subreaper():
        try:
            yield from _persistently(lambda: direct.reap_init(life.host.store, life.id, began))
        except OSError:
            pass  # no room for looking whose it is


def abandon(life: Life) -> Operation[None]:
    """Ends and removes what a creator that is gone has left half made. Who calls it holds the lock on it."""
    if claimed_by(life.directory) or os.path.lexists(f"{life.host.runtime.root}/{life.id}"):
        yield from _end_unfinished(life, ())
    elif any(map(cgroups.is_populated, life.place.directories(life.host.hierarchies))):
        life.place = cgroups.Place(None, None)  # nothing has been started: who lives there is somebody else's
    yield from _remove(life)
    yield from life.host.placement.forget(life.place)


def _end_unfinished(life: Life, roots: Iterable[Process]) -> Operation[None]:
    """Kills all that works at a create, and what came of it; the runtime forgets it."""
    yield from kill_tree(roots, also=lambda: claimed_by(life.directory))
    yield from _kill_leftovers(life.place.directories(life.host.hierarchies))
    # Its answer does not matter: what is to go is removed afterwards, whether or not the runtime knew of it.
    try:
        yield from life.call("delete", "--force", life.id, timeout=FORCE_DELETE_TIMEOUT)
    except (Error, OSError):
        pass
    yield from _kill_leftovers(life.place.directories(life.host.hierarchies))
    yield from _reap_conmon(life)


def _reap_conmon(life: Life) -> Operation[None]:
    """One that ended by itself, as it does when the runtime has failed: where this process is PID 1 or a subreaper, that is our zombie."""
    try:
        monitor = Process.open(_conmon_pid(life))
    except (ProtocolError, OSError):
        return
    stat = read_stat(monitor.pid)
    if stat is not None and stat.ppid == os.getpid() and not command_line(monitor.pid):
        yield from ended(monitor, deadline_in(CONMON_GRACE))
        monitor.reap_adopted()
    monitor.close()


def _kill_leftovers(directories: list[str]) -> Operation[list[int]]:
    """SIGKILL to all that still runs in these cgroups; the pids of those that do not die of it."""
    killed = cgroups.kill_all(directories)
    deadline = deadline_in(LEFTOVERS_TIMEOUT)
    alive = []
    for process in killed:
        if not (yield from ended(process, deadline)):
            alive.append(process.pid)
        process.reap_adopted()
    return alive


def _remove(life: Life) -> Operation[None]:
    yield from cgroups.clear(life.place.directories(life.host.hierarchies))
    if life.host.runtime.name == "crun":
        for directory in life.place.untrue(life.host.hierarchies):
            remove_tree(directory)
    remove_tree(f"{life.host.runtime.root}/{life.id}")
    life.host.store.remove(life.id)
    life.removed = True
    if life.connection is not None:
        life.connection.close()
    if life._sync is not None:
        life._sync.close()


# --- finding it again -------------------------------------------------------------------------------------------------------------


def load(store: Store, id: str, *, unfinished: bool = False) -> Life:
    """The container as another process left it. ``unfinished``: also one that is not ready, or whose processes are not to be read any more, and
    has no ``mark``. Raises ContainerNotFound, DamagedRecord."""
    directory = store.path(id)
    record = read_record(directory, id)
    try:
        runtime = Runtime(record["runtime"], record["runtime_root"], record["runtime_args"])
        host = Host(record["conmon"], runtime, store, record["env"], kill_timeout=record["kill_timeout"])
        life = Life(host, id, directory, record)
    except (KeyError, TypeError, AttributeError) as error:
        raise DamagedRecord(f"{directory}/record.json is damaged: {error!r}") from None
    try:
        life.mark, pids = mark(directory), read_pids(directory)
    except DamagedRecord:
        life.mark = pids = None  # perhaps they are just being written
    if pids is None and not unfinished:
        if is_locked(directory):
            raise ContainerNotFound(f"no container {id!r} yet: it is being created")
        life.mark, pids = mark(directory), read_pids(directory)  # it has just been
    if pids is not None and owners.is_of_this_boot(record.get("owner")):
        life.init = pids[0].find()
        if life.monitored_by == "conmon":  # else it is not ours to end
            life.monitor = pids[1]
    return life


# --- the rest of a life -----------------------------------------------------------------------------------------------------------


def state(life: Life) -> Operation[State]:
    """``created``, ``running``, ``paused`` or ``stopped``; ``configured`` when it has ended and the runtime does not know it any more. The runtime
    is asked when nothing of it is in the runtime's state root, and where its ways are not known. Raises ContainerNotFound."""
    is_known = os.path.lexists(f"{life.host.runtime.root}/{life.id}")
    if life.has_ended():
        life.check_current()
        if is_known:
            return "stopped"
    elif is_known and "state" in life.host.shortcuts and life.place.is_cgroupfs:
        life.check_current()
        if is_created(life):
            return "created"
        is_paused = life.host.hierarchies.is_paused_at(life.cgroups_path or "")
        if is_paused is not None and not life.has_ended():
            return "paused" if is_paused else "running"
    try:
        output = yield from life.call("state", life.id)
    except RuntimeFailed as error:
        if not runtimes.says_missing(error.stderr):
            raise
        life.check_current()
        if life.has_ended():
            yield from _back_to_configured(life)
            return "configured"
        raise ContainerStateError(
            f"the runtime does not know {life.id!r} any more, but its init ({_pid(life)}) is alive; delete it with force", "unknown"
        ) from None
    status, _ = runtimes.parse_state(output.stdout, life.id)
    return "stopped" if life.init is not None and life.has_ended() else status


def _back_to_configured(life: Life) -> Operation[None]:
    """Somebody deleted it from the runtime: what conmon made goes as well; how it ended, the log and what we wrote stay. libpod's
    removeConmonFiles."""
    if life.mark is None or life.is_inherited():
        return  # its creator died and left no word about conmon, which may be at work
    yield from wait(life, None)
    if life.conmon is None or life.conmon.has_ended():
        for name in ("attach", "ctl", "winsz", "conmon.pid", "pidfile"):
            unlink(f"{life.directory}/{name}")


def _pid(life: Life) -> int:
    return life.init.pid if life.init is not None else 0


@observed("start", _about)
def start(life: Life) -> Operation[None]:
    """Starts what was created. Raises ContainerStateError when it is not in state "created"."""
    life.check_own("start")
    if _can_start_alone(life) and life.init is not None:
        runtime = life.host.runtime
        try:
            if (yield from shortcuts.start(f"{runtime.root}/{life.id}/exec.fifo", runtime.name, life.init.pidfd, CALL_TIMEOUT)):
                return
        except ContainerStateError as error:
            raise ContainerStateError(f"cannot start {life.id!r}: {error}", error.state) from None
    try:
        yield from life.call("start", life.id)
    except RuntimeFailed as error:
        if not is_created(life) and _hook_left_unread(life, "poststart", error):
            return
        status = yield from state(life)
        if status == "created":
            raise
        raise ContainerStateError(f"cannot start {life.id!r}: it is {status}{said(error.stderr)}", status) from None
    if life.notify_socket is not None and not life.has_ended():
        from pyoci import readiness

        yield from readiness.tell(life.notify_socket)


def _hook_left_unread(life: Life, stage: str, error: RuntimeFailed) -> bool:
    """crun (1.8.1) dies of SIGPIPE when a hook ends without having read the state that it is given. A failure of these hooks is worth a warning,
    and the life goes on (runtime-spec, lifecycle)."""
    if error.returncode != -SIGPIPE or stage not in life.hooks:
        return False
    import logging

    words = "%s: %s; a %s hook did not read the state on its stdin, and hooks after it were not run"
    logging.getLogger("pyoci").warning(words, life.id, str(error), stage)
    return True


def _can_start_alone(life: Life) -> bool:
    """All that the runtime's ``start`` would do is to open the gate: no hooks, and nobody to be told that it is ready."""
    return "start" in life.host.shortcuts and "poststart" not in life.hooks and life.notify_socket is None


@observed("wait", lambda life, *_: _about(life) if life.status is None else None)
def wait(life: Life, timeout: float | None) -> Operation[ExitStatus]:
    """Waits for the end of the container's init, by its pidfd. Raises Timeout. After the end, conmon gets a moment to write its exit file;
    the code does not depend on it where the kernel tells it."""
    if life.status is None:
        kernel, was_oom = None, False
        if life.init is not None:
            if not (yield from ended(life.init, deadline_in(timeout))):
                raise Timeout(f"{life.id!r} did not end within {timeout or 0:g} s; it goes on", timeout)
            was_oom = _was_oom(life)
            kernel = life.init.reap() if life.is_direct else life.init.exit_code()
            if kernel == (-1, 0):
                kernel = None  # somebody else has reaped it, and this kernel does not tell
        is_over = True  # conmon
        try:
            if (monitor := life.conmon) is not None:
                # Without the kernel's word there is only conmon's, and it is worth waiting for.
                is_over = yield from ended(monitor, deadline_in(CONMON_GRACE if kernel is not None else life.host.kill_timeout))
        except OSError:
            is_over = False  # no descriptor is free for it
            if kernel is None:
                raise
        if kernel is None and life.init is not None:
            kernel = life.init.exit_code()
        if kernel is None and life.status is None:
            life.check_current()
        life.status = life.status or _read_exit(life, kernel, is_over, was_oom)
    return life.status


def _was_oom(life: Life) -> bool:
    """For lack of memory, as a scope's cgroup tells at once: systemd removes it when nothing is left in it."""
    try:
        return life.place.scope is not None and life.host.hierarchies.has_oom_kill(life.cgroups_path or "")
    except OSError:
        return False  # no room for looking; it is looked once more


def _read_exit(life: Life, kernel: tuple[int, int] | None, conmon_is_over: bool, was_oom: bool) -> ExitStatus:
    found, filed, oom_killed = None, None, False
    try:
        if life.is_current():
            found = read_small(f"{life.directory}/exit") or read_small(f"{life.host.store.exits}/{life.id}")
            if found is None and kernel is not None and conmon_is_over:
                found = _keep_exit(life, kernel)
        filed = parse_exit_file(found[0]) if found is not None else None
        # conmon marks it, but can miss it when init itself is what was killed; the cgroup still knows.
        failed = filed != 0 or (kernel is not None and kernel != (0, 0))
        oom_killed = _ffi.exists(f"{life.directory}/oom") or (failed and (was_oom or life.host.hierarchies.has_oom_kill(life.cgroups_path or "")))
    except OSError:  # no room for looking; what the kernel has told, it may not tell again
        if kernel is None:
            raise
    finished = found[1] if found is not None else time_ns() if kernel is not None else None
    return combine(filed, kernel, oom_killed=oom_killed, finished_ns=finished)


def _keep_exit(life: Life, kernel: tuple[int, int]) -> tuple[bytes, int] | None:
    """conmon was killed, or could not write: the next process to ask could not ask the kernel any more."""
    code, signal = kernel
    path = f"{life.directory}/exit"
    try:
        write_file(f"{path}.kernel", b"%d" % (128 + signal if signal else code))
        os.rename(f"{path}.kernel", path)
    except OSError:
        return None  # no room, or another thread is at it: then it is only known here
    return read_small(path)


def kill(life: Life, signal: int, everything: bool = False) -> Operation[None]:
    """Sends a signal to the container's init, through its pidfd; ``everything``: to each process in its cgroup. Raises ContainerStateError when
    it has ended, and with ``everything`` when nobody is there; ContainerNotFound when it was deleted."""
    life.check_own("signal")
    if everything and life.cgroups_path is not None and cgroups.signal_all(life.own_cgroups(), signal):
        return
    if life.has_ended() or life.init is None or not life.init.signal(signal):
        life.check_current()
        raise ContainerStateError(f"cannot signal {life.id!r}: it has ended", "stopped")
    return
    yield


def stop(life: Life, timeout: float, signal: int | None) -> Operation[ExitStatus]:
    """The stop signal to init, then SIGKILL to everything in the container when ``timeout`` seconds are over; a paused container is thawed first.
    Has it ended already, that is fine. Every stop has a deadline of its own: whichever comes first sends KILL, and ends the wait of the others.
    Raises ContainerStateError when even SIGKILL does not end it (uninterruptible sleep)."""
    life.check_own("stop")
    if timeout is None:
        raise InvalidOption("timeout must be a number of seconds; for as long as it takes: math.inf")
    deadline = deadline_in(timeout)
    init = life.init
    if init is not None and not life.has_ended():
        if is_created(life):
            timeout = 0  # no program of the container's runs yet that could make use of the time
        if timeout > 0:
            init.signal(signal or life.stop_signal)
        frozen = yield from _thaw(life, init)
        if timeout <= 0 or not (yield from ended(init, deadline)):
            init.signal(SIGKILL)
            if not life.own_pid_namespace:
                yield from _kill_leftovers(life.own_cgroups())  # now, for init may not die
            kill_timeout = life.host.kill_timeout
            if not (yield from ended(init, deadline_in(kill_timeout))):
                raise ContainerStateError(f"cannot stop {life.id!r}: {kill_timeout:g} s after SIGKILL {_doing(init.pid)}", "running") from frozen
    # Where init is not the first process of a namespace, the others outlive it: what `kill --all` is for.
    if not life.own_pid_namespace and life.is_current():
        alive = yield from _kill_leftovers(life.own_cgroups())
        if alive:
            raise ContainerStateError(f"cannot stop {life.id!r}: after SIGKILL {'; '.join(map(_doing, alive))}", "stopped")
    return (yield from wait(life, None))


def _thaw(life: Life, init: Process) -> Operation[Error | None]:
    """Thaws it if it is frozen; gives why that failed. No reason to stop here: on v2 a frozen process can be killed, or somebody else thawed it."""
    if life.host.hierarchies.is_frozen(init.pid):
        try:
            yield from resume(life)
        except Error as error:
            return error
    return None


def _doing(pid: int) -> str:
    """What a process that does not die is doing (proc_pid_stat(5))."""
    stat = read_stat(pid)
    if stat is None:
        return f"pid {pid} has only just ended"
    return f"pid {pid} is in state {stat.state}" + (" (uninterruptible sleep, or frozen)" if stat.state == "D" else "")


def is_created(life: Life) -> bool:
    """It waits to be started: both runtimes remove this FIFO when it is."""
    return os.path.lexists(f"{life.host.runtime.root}/{life.id}/exec.fifo")


def pause(life: Life) -> Operation[None]:
    """Freezes all processes of the container. Raises ContainerStateError unless it is running, NoCgroup when it has none."""
    life.check_own("pause")
    yield from _switch(life, "pause", "running", "paused")
    # The freezer of cgroup v1 can still be FREEZING when the runtime returns (seen with crun 1.8.1), and it notifies nobody.
    deadline = deadline_in(life.host.kill_timeout)
    while (yield from state(life)) == "running" and not passed(deadline):
        yield Wait((), (), deadline_in(0.001))


def resume(life: Life) -> Operation[None]:
    """Thaws a paused container. Raises ContainerStateError unless it is paused."""
    life.check_own("resume")
    yield from _switch(life, "resume", "paused", "running")


def _switch(life: Life, verb: str, before: str, wanted: str) -> Operation[None]:
    # crun pauses what is paused, and even what is only created; runc does not. Asked first, both are alike.
    status = yield from state(life)
    if status != before:
        raise ContainerStateError(f"cannot {verb} {life.id!r}: it is {status}", status)
    if life.cgroups_path is None:
        raise NoCgroup(f"cannot {verb} {life.id!r}: {rootless.NO_CGROUP}")
    try:
        yield from life.call(verb, life.id)
    except RuntimeFailed as error:
        status = yield from state(life)
        if status == wanted:
            return
        if status == "stopped":
            raise ContainerStateError(f"cannot {verb} {life.id!r}: it has ended{said(error.stderr)}", status) from None
        raise


@observed("delete", _about)
def delete(life: Life, force: bool) -> Operation[None]:
    """Removes an ended container: from the runtime, its cgroups, its files. With ``force`` a living one is killed first. Raises
    ContainerStateError for a living one, or while somebody else deletes it; ContainerNotFound when it is gone already."""
    life.check_own("delete")
    with _lock_for_delete(life):
        yield from delete_locked(life, force)


def delete_locked(life: Life, force: bool) -> Operation[None]:
    """``delete`` for who holds the lock on it."""
    if not force and not life.has_ended():
        raise ContainerStateError(f"cannot delete {life.id!r}: it has not ended; stop it first, or use force", "running")
    # Of one that has ended this ends what outlived init, and learns the exit: that must not go with the files.
    yield from stop(life, 0, None)
    if not _can_remove_alone(life):
        try:
            yield from life.call("delete", life.id)
        except RuntimeFailed as error:
            if not (runtimes.says_missing(error.stderr) or _hook_left_unread(life, "poststop", error)):
                # Both runtimes can stumble over half a state; with force they remove what there is.
                yield from life.call("delete", "--force", life.id)
    monitor = life.conmon
    if monitor is not None and not (yield from ended(monitor, deadline_in(CONMON_GRACE))):
        # Stopped, or stuck on a log or a client: it has nothing left to do.
        yield from kill_tree([monitor])
    for process in (life.init, monitor):
        if process is not None:
            process.reap_adopted()
    for session in life.sessions:
        if not (yield from ended(session.runtime, deadline_in(KILL_GRACE))):
            yield from kill_tree([session.runtime])
        session.runtime_ended()
    yield from _remove(life)


def _can_remove_alone(life: Life) -> bool:
    """All that the runtime's ``delete`` would do is what ``_remove`` does anyway: its cgroups are known and stand where cgroupfs has them."""
    return "delete" in life.host.shortcuts and "poststop" not in life.hooks and life.place.is_cgroupfs


def _lock_for_delete(life: Life) -> Lock:
    try:
        lock = Lock(life.directory)
    except BlockingIOError:
        raise ContainerStateError(f"{life.id!r} is being deleted by somebody else", "stopped") from None
    except FileNotFoundError:
        pass
    else:
        # Looked at under the lock: somebody else can have deleted it before, and even made another one under its id.
        try:
            if life.is_current():
                return lock
        except BaseException:
            lock.release()
            raise
        lock.release()
    life.removed = True
    raise ContainerNotFound(f"no container {life.id!r}: it was deleted")


def leave(life: Life, *, failed: bool) -> Operation[None]:
    """The end of a ``with`` block: stopped and deleted; killed at once when the block failed. Deleted inside the block is fine. In a forked
    child it is nothing: the block is the parent's."""

    def end() -> Operation[None]:
        if not life.removed and not life.is_inherited():
            yield from stop(life, 0 if failed else STOP_TIMEOUT, None)
            yield from delete(life, force=True)

    try:
        yield from _persistently(end)
    except ContainerNotFound:
        pass
