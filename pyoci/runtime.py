"""``OCIRuntime``: a runtime, a conmon and a state directory, from which containers are created, listed and loaded."""

from __future__ import annotations

import os

from pyoci import cgroups, conmon, ids, lifecycle, runtimes, templates
from pyoci.container import Container
from pyoci.errors import ContainerNotFound, Error, ExecutableError, InvalidID, InvalidOption
from pyoci.options import Options, seconds
from pyoci.store import Store, store_at
from pyoci.streams import Stdio
from pyoci.waiting import drive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any, TypeAlias, Unpack

    from pyoci.options import CreateOptions
    from pyoci.recovery import Pruned
    from pyoci.shortcuts import Shortcut
    from pyoci.waiting import Operation

    Executable: TypeAlias = str | os.PathLike[str]


class RuntimeBase:
    """What the blocking and the asyncio OCIRuntime share: everything that does not wait."""

    def __init__(
        self,
        runtime: Executable | Sequence[Executable] | None = None,
        *,
        conmon_path: Executable | Sequence[Executable] = "conmon",
        env: Mapping[str, str] | None = None,
        state_dir: str | os.PathLike[str] | None = None,
        runtime_args: Sequence[str] = (),
        create_timeout: float = lifecycle.CREATE_TIMEOUT,
        kill_timeout: float = lifecycle.KILL_TIMEOUT,
        shortcuts: bool | Iterable[Shortcut] = True,
        cgroup_manager: str = cgroups.CGROUPFS,
        cgroup_parent: str | None = None,
        conmon_cgroup: str | None = None,
        strict_cgroups: bool = False,
        **defaults: Unpack[CreateOptions],
    ) -> None:
        """``runtime``: a name (``crun``) or a path; or several, of which the first that works on this host is taken; None: crun, runc.
        ``conmon_path``: a name or a path; or several, of which the first that can be executed is taken. ``env``: added to what conmon, the
        runtime and its hooks get of our environment (``conmon.PASSED_ENVIRONMENT``), the same for every call; it stands in the containers'
        records. ``state_dir``: where containers are kept; /run/pyoci for root, else $XDG_RUNTIME_DIR/pyoci. ``runtime_args``: global options
        of every call of the runtime. ``create_timeout``: seconds for a create. ``kill_timeout``: seconds in which what was sent KILL must be
        dead. ``shortcuts``: what is done without the runtime's commands where that is safe (see ``pyoci.shortcuts``): True, False, or some of
        "start", "delete", "state", "memfd".

        ``cgroup_manager``: "cgroupfs", or "systemd": then containers and conmons get scopes. ``cgroup_parent``: where their cgroups go: a path
        ("/jobs"; made if it is not there, and left), or a slice ("jobs.slice"). ``conmon_cgroup``: "separate": each conmon gets a cgroup of
        its own; "shared": it stays in the caller's; None: separate, but shared with cgroupfs on cgroup v1, where it costs much, and
        for users without a delegated cgroup.
        ``strict_cgroups``: CgroupError where conmon cannot have its cgroup, rather than a warning and the caller's.

        ``defaults``: options of ``create`` that hold for every container unless it is given others; see
        ``options.Options``.

        Raises ExecutableError, NoRuntime, InvalidOption, StateDirError; nothing is started by then."""
        Options(**defaults)
        placement = cgroups.Manager(cgroup_manager, cgroup_parent, conmon_cgroup, strict_cgroups)
        seconds("create_timeout", create_timeout)
        seconds("kill_timeout", kill_timeout)
        conmon.check_environment(env or {})
        args = _arguments(runtime_args)
        passed = conmon.environment(os.environ, env)
        conmon_found = _first_executable("conmon_path", conmon_path)
        if runtime is None:
            path = runtimes.choose(passed)
        elif isinstance(runtime, str | os.PathLike):
            path = _first_executable("runtime", runtime)
        else:
            path = runtimes.choose(passed, _names("runtime", runtime))
        store = store_at(state_dir)
        store.prepare()
        found = runtimes.Runtime(path, f"{store.directory}/{os.path.basename(path)}", args)
        self._host = lifecycle.Host(
            conmon_found,
            found,
            store,
            passed,
            create_timeout=create_timeout,
            kill_timeout=kill_timeout,
            defaults=defaults,
            wanted_shortcuts=shortcuts,
            placement=placement,
        )

    @property
    def runtime_path(self) -> str:
        """The runtime's binary."""
        return self._host.runtime.path

    @property
    def name(self) -> str:
        """The runtime's name: the last part of its path."""
        return self._host.runtime.name

    @property
    def conmon_path(self) -> str:
        """conmon's binary."""
        return self._host.conmon_path

    @property
    def state_dir(self) -> str:
        """Where the containers' directories are."""
        return self._host.store.directory

    def __repr__(self) -> str:
        return f"{type(self).__module__}.OCIRuntime({self.runtime_path!r}, state_dir={self.state_dir!r})"

    def _prune(self, dry_run: bool, created: bool, older_than: float) -> Operation[list[Pruned]]:
        from pyoci import recovery

        parent = self._host.placement.parent
        parents = [] if parent is None or self._host.placement.is_systemd else [parent]
        roots = [self._host.runtime.root]
        return recovery.sweep(self._host.store, dry_run=dry_run, created=created, older_than=older_than, runtime_roots=roots, cgroup_parents=parents)

    def _create(self, bundle: str | os.PathLike[str] | Mapping[str, Any], id: str | None, options: CreateOptions) -> Operation[lifecycle.Life]:
        """Checks everything that can be checked and gives the operation; nothing has been made by then."""
        checked_id = ids.new() if id is None else ids.check(id)
        all_options = self._host.options(**options)
        all_options.check_id(checked_id)
        template = templates.prepare(bundle)
        terminal = bool(template.config["process"].get("terminal"))
        if all_options.tty is None:
            if terminal:
                all_options = all_options.replaced(tty=True)
        elif all_options.tty != terminal:
            template = template.with_config({**template.config, "process": {**template.config["process"], "terminal": all_options.tty}})
        has_place = all_options.monitor == "conmon" or all_options.console_socket is not None
        if all_options.tty and (all_options.streams is not None or all_options.log_driver == "passthrough" or not has_place):
            raise InvalidOption("a container with a terminal needs conmon, or a console_socket, and neither passthrough nor stdio of ours")
        if not all_options.tty and all_options.console_socket is not None:
            raise InvalidOption("console_socket: the container has no terminal (process.terminal)")
        if all_options.streams is None:
            return lifecycle.create(self._host, checked_id, template, all_options)
        return _with_stdio(self._host, checked_id, template, all_options, all_options.streams)


def _with_stdio(
    host: lifecycle.Host, id: str, template: templates.Template, options: Options, wanted: tuple[Any, Any, Any]
) -> Operation[lifecycle.Life]:
    stdio = Stdio(*wanted)
    try:
        if options.monitor == "conmon" and any(fd >= 0 and os.isatty(fd) for fd in stdio.fds):
            raise InvalidOption("stdin, stdout and stderr cannot be a terminal of ours, conmon refuses that: use tty=True and attach, or pipes")
        life = yield from lifecycle.create(host, id, template, options.replaced(stdio=stdio.fds))
    except BaseException:
        stdio.close()
        raise
    stdio.started()
    life.ends = stdio.ends
    return life


def _names(option: str, given: Executable | Sequence[Executable]) -> list[str]:
    names = [os.fspath(name) for name in ([given] if isinstance(given, str | os.PathLike) else given)]
    if not names or not all(isinstance(name, str) and name and "\0" not in name for name in names):
        raise InvalidOption(f"{option} must be a name, a path, or several of them, not {given!r:.200}")
    return names


def _first_executable(option: str, given: Executable | Sequence[Executable]) -> str:
    """Raises the first one's ExecutableError when none can be executed."""
    wrong: ExecutableError | None = None
    for name in _names(option, given):
        try:
            return runtimes.find_executable(name)
        except ExecutableError as error:
            wrong = wrong or error
    assert wrong is not None  # there is at least one name
    raise wrong


def _arguments(given: Sequence[str]) -> Sequence[str]:
    if isinstance(given, str | bytes) or not all(isinstance(argument, str) and argument and "\0" not in argument for argument in given):
        raise InvalidOption(f"runtime_args must be a list of strings, not {given!r:.200}")
    return tuple(given)


def on_disk(store: Store) -> list[lifecycle.Life | Error]:
    """All containers of a state directory, as they are on disk. One whose record is damaged, or of another version, is told by its error: it does
    not keep the others."""
    found: list[lifecycle.Life | Error] = []
    for id in store.ids():
        try:
            found.append(lifecycle.load(store, id))
        except (ContainerNotFound, InvalidID):
            pass  # deleted meanwhile, about to be created, or nothing of ours
        except Error as error:
            error.__context__ = None  # its frames, as those of the traceback, hold all that was found
            found.append(error.with_traceback(None))
    return found


def loaded(store: Store) -> list[lifecycle.Life]:
    """Those that can be taken up; what is wrong with the others is a warning in the log."""
    found = []
    for life in on_disk(store):
        if isinstance(life, Error):
            import logging

            logging.getLogger("pyoci").warning("a container is left out: %s", str(life))
        else:
            found.append(life)
    return found


class OCIRuntime(RuntimeBase):
    """Creates, lists and loads containers; every call blocks until it is done. Threads may share one."""

    def create(self, bundle: str | os.PathLike[str] | Mapping[str, Any], id: str | None = None, **options: Unpack[CreateOptions]) -> Container:
        """Creates a container from a bundle directory or from a spec. Both are only read: the container gets a directory of its own, so any
        number can come from one bundle. ``id``: see ``ids.check``; a new one is made when None. ``options``: see ``options.Options``.

        The output goes to the log (k8s-file) in the container's directory. Raises InvalidSpec, InvalidID, InvalidOption, ContainerExists,
        CreateError, ConmonError, ProtocolError, SpawnError, Timeout; nothing is left behind then."""
        return Container._of(drive(self._create(bundle, id, options)))

    def load(self, id: str) -> Container:
        """The container with this id, whichever process created it. Raises ContainerNotFound."""
        return Container._of(lifecycle.load(self._host.store, id))

    def list(self) -> list[Container]:
        """All containers in the state directory, by id. One whose record is damaged is left out, with a warning in the log (``pyoci``)."""
        return [Container._of(life) for life in loaded(self._host.store)]

    def prune(self, *, dry_run: bool = False, created: bool = False, older_than: float = 0.0) -> Sequence[Pruned]:
        """Removes what is dead or orphaned in the state directory, as after a crash of its creator, and tells what that was; with ``dry_run`` it
        only tells. What a process that lives has created stays, and so does what lives and may outlive its creator. See ``recovery.sweep``.

        What could not be removed has an ``error``. Raises InvalidOption."""
        return drive(self._prune(dry_run, created, older_than))


def stored(state_dir: str | os.PathLike[str] | None = None) -> list[Container]:
    """All containers in a state directory, by id, without a runtime at hand: each knows its own."""
    return [Container._of(life) for life in loaded(store_at(state_dir))]


def prune(state_dir: str | os.PathLike[str] | None = None, *, dry_run: bool = False, created: bool = False, older_than: float = 0.0) -> list[Pruned]:
    """As ``OCIRuntime.prune``, without a runtime at hand."""
    from pyoci import recovery

    return drive(recovery.sweep(store_at(state_dir), dry_run=dry_run, created=created, older_than=older_than))
