"""``OCIRuntime``: a runtime, a conmon and a state directory, from which containers are created, listed and loaded."""

from __future__ import annotations

import os

from pyoci import conmon, ids, lifecycle, runtimes, spec
from pyoci.container import Container
from pyoci.errors import ContainerNotFound, InvalidID, InvalidOption
from pyoci.options import Options
from pyoci.store import Store, store_at
from pyoci.waiting import drive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Unpack

    from pyoci.options import CreateOptions
    from pyoci.waiting import Operation


class RuntimeBase:
    """What the blocking and the asyncio OCIRuntime share: everything that does not wait."""

    def __init__(
        self,
        runtime: str | os.PathLike[str] | None = None,
        *,
        conmon_path: str | os.PathLike[str] = "conmon",
        state_dir: str | os.PathLike[str] | None = None,
        runtime_args: Sequence[str] = (),
        create_timeout: float = lifecycle.CREATE_TIMEOUT,
    ) -> None:
        """``runtime``: a name (``crun``) or a path; None takes the fastest that works on this host. ``conmon_path``: a name or a path.
        ``state_dir``: where containers are kept; /run/pyoci for root, else $XDG_RUNTIME_DIR/pyoci. ``runtime_args``: global options of
        every call of the runtime. ``create_timeout``: seconds.

        Raises ExecutableError, NoRuntime, InvalidOption, StateDirError; nothing is started by then."""
        if not create_timeout > 0:
            raise InvalidOption(f"create_timeout must be a positive number of seconds, not {create_timeout!r}")
        env = conmon.environment(os.environ)
        conmon_found = runtimes.find_executable(os.fspath(conmon_path))
        path = runtimes.choose(env) if runtime is None else runtimes.find_executable(os.fspath(runtime))
        store = store_at(state_dir)
        store.prepare()
        root = f"{store.directory}/{os.path.basename(path)}"
        self._host = lifecycle.Host(conmon_found, runtimes.Runtime(path, root, tuple(runtime_args)), store, env, create_timeout)

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

    def _create(self, bundle: str | os.PathLike[str] | Mapping[str, Any], id: str | None, options: CreateOptions) -> Operation[lifecycle.Life]:
        """Checks everything that can be checked and gives the operation; nothing has been made by then."""
        checked_id = ids.new() if id is None else ids.check(id)
        return lifecycle.create(self._host, checked_id, prepare(bundle), Options(**options))


def loaded(store: Store) -> list[lifecycle.Life]:
    """All containers of a state directory, as they are on disk."""
    found = []
    for id in store.ids():
        try:
            found.append(lifecycle.load(store, id))
        except (ContainerNotFound, InvalidID):
            pass  # deleted meanwhile, about to be created, or nothing of ours
    return found


def prepare(bundle: str | os.PathLike[str] | Mapping[str, Any]) -> dict[str, Any]:
    """The checked and resolved spec of a bundle directory, or of a spec given as a mapping; neither is changed. Raises InvalidSpec."""
    directory: str | None
    if isinstance(bundle, str | os.PathLike):
        directory = os.path.abspath(os.fspath(bundle))
        config, where = spec.load(directory), f"{directory}/config.json"
    else:
        directory, config, where = None, dict(bundle), "spec"
    resolved = spec.resolve(config, directory)
    spec.check(resolved, where)
    return resolved


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
        """All containers in the state directory, by id."""
        return [Container._of(life) for life in loaded(self._host.store)]


def stored(state_dir: str | os.PathLike[str] | None = None) -> list[Container]:
    """All containers in a state directory, by id, without a runtime at hand: each knows its own."""
    return [Container._of(life) for life in loaded(store_at(state_dir))]
