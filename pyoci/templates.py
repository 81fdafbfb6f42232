"""A spec prepared once for any number of containers: checked, resolved and encoded, with what later operations must know of it.

Checking and encoding the same spec for each of a thousand containers costs more than all else that Python does for them. A template is found
again by the spec's content (or by the identity of a bundle's config.json), and never changes.
"""

from __future__ import annotations

import json
import marshal
import os
from collections.abc import Mapping
from signal import SIGTERM
from time import time_ns

from pyoci import _ffi, rootfs, spec
from pyoci.errors import InvalidOption
from pyoci.options import path as a_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

KEPT = 64
"""How many templates are remembered; the oldest goes first."""
SETTLED_NS = 2_000_000_000
"""A file that was changed less than this ago may be changed again within one tick of its time stamp: it is read each time."""

_CGROUP_MARK, _NETWORK_MARK = (f"pyoci-{os.urandom(16).hex()}" for _ in range(2))


class Template:
    """``config``: the resolved spec, only to be read. ``bundle``: the directory that it came from, if any. ``cgroups_path``: the one that it names,
    if any. ``record``: what later operations must know of it; it goes into the container's record."""

    __slots__ = ("_encoded", "_given_root", "_moved", "_networked", "_root", "_working_directory", "bundle", "cgroups_path", "config", "record")

    def __init__(self, config: dict[str, Any], given_root: str, working_directory: str | None, bundle: str | None = None) -> None:
        linux = config.get("linux") or {}
        annotations = config.get("annotations") or {}
        pid_namespace = next((n for n in linux.get("namespaces") or () if n.get("type") == "pid"), None)
        self.config: dict[str, Any] = config
        self.bundle: str | None = bundle
        self.cgroups_path: str | None = linux.get("cgroupsPath") or None
        # Only if it is new: killing init then ends everything in it (pid_namespaces(7)).
        self.record: dict[str, Any] = {
            "bundle": bundle,
            "own_pid_namespace": pid_namespace is not None and not pid_namespace.get("path"),
            "stop_signal": spec.signal_number(annotations.get(spec.STOP_SIGNAL) or int(SIGTERM)),
            "hooks": [stage for stage, hooks in (config.get("hooks") or {}).items() if hooks],
        }
        marked = config if self.cgroups_path else {**config, "linux": {**linux, "cgroupsPath": _CGROUP_MARK}}
        # In two halves where the container's cgroup is still to be told.
        self._encoded = spec.encode(marked).split(_CGROUP_MARK.encode())
        self._networked: list[bytes] | None = None  # the same, with a mark for the network namespace's path, once one was asked for
        self._given_root = given_root
        self._root = _identity(given_root)
        self._working_directory = working_directory
        self._moved: Template | None = None

    def with_root(self, path: str) -> Template:
        """The same with another ``root.path``, as it is true in another mount namespace."""
        if self._moved is None or self._moved.config["root"]["path"] != path:
            self._moved = self.with_config({**self.config, "root": {**self.config["root"], "path": path}})
        return self._moved

    def with_config(self, config: dict[str, Any]) -> Template:
        """One of a spec that was made from this one's."""
        return Template(config, config["root"]["path"], None, self.bundle)

    def config_json(self, cgroups_path: str | None, network: str | None = None) -> bytes:
        """What config.json holds for a container with this cgroup, and in the network namespace with this path, if one is given."""
        parts = self._encoded if network is None else [part.replace(_NETWORK_MARK.encode(), _inner(network)) for part in self._for_networks()]
        return parts[0] if self.cgroups_path else _inner(cgroups_path or "").join(parts)

    def check_network(self) -> None:
        """Raises InvalidOption unless a network namespace's path can be put in: the spec asks for a new one."""
        if not any(_is_new_network(n) for n in (self.config.get("linux") or {}).get("namespaces") or ()):
            raise InvalidOption("network= puts a container into a network namespace: the spec must have one in linux.namespaces, without a path")

    def _for_networks(self) -> list[bytes]:
        if self._networked is None:
            linux = self.config["linux"]
            namespaces = [{**n, "path": _NETWORK_MARK} if _is_new_network(n) else n for n in linux["namespaces"]]
            self._networked = self.with_config({**self.config, "linux": {**linux, "namespaces": namespaces}})._encoded
        return self._networked

    def is_current(self) -> bool:
        """The paths in it still mean what they meant."""
        if self._working_directory is not None and self._working_directory != spec.working_directory():
            return False
        resolved: str = self.config["root"]["path"]
        return (
            self._root is not None
            and self._root == _identity(resolved, follow_symlinks=False)
            and (self._given_root == resolved or self._root == _identity(self._given_root))
        )


_known: dict[object, Template] = {}


def prepare(bundle: str | os.PathLike[str] | Mapping[str, Any], name: str = spec.CONFIG) -> Template:
    """The template of a bundle directory, where the spec has this name, or of a spec given as a mapping; neither is changed. Raises InvalidSpec."""
    directory: str | None
    key: object
    if isinstance(bundle, str | os.PathLike):
        directory = os.path.abspath(a_path("bundle", bundle))
        where = os.path.join(directory, name)
        key = _key_of_file(where)
    else:
        if not isinstance(bundle, Mapping):
            raise InvalidOption(f"bundle must be a bundle directory, or a spec as a mapping, not {bundle!r:.200}")
        directory, where = None, "spec"
        try:
            key = marshal.dumps(bundle, 2)  # type: ignore[arg-type]  # the version without references: equal content, equal bytes
        except ValueError:  # what JSON cannot hold either, or a mapping that is no dict
            key = None
    if key is not None and (known := _known.get(key)) is not None and known.is_current():
        rootfs.note_use(known._given_root)
        return known
    config = spec.load(directory, name) if directory is not None else marshal.loads(key) if isinstance(key, bytes) else dict(bundle)  # type: ignore[arg-type]
    resolved = spec.resolve(config, directory)
    spec.check(resolved, where)
    given_root = os.path.join(directory or os.getcwd(), config["root"]["path"])
    # Only what is relative means another thing elsewhere.
    working_directory = os.getcwd() if directory is None and resolved != config else None
    template = Template(resolved, given_root, working_directory, directory)
    rootfs.note_use(given_root)
    # A namespace's path was looked at, and may mean another one tomorrow.
    if key is not None and not any(n.get("path") for n in (resolved.get("linux") or {}).get("namespaces") or ()):
        _known[key] = template
        while len(_known) > KEPT:
            _known.pop(next(iter(_known)), None)
    return template


def _inner(text: str) -> bytes:
    """As it stands between the quotes of a JSON string."""
    return json.dumps(text)[1:-1].encode()


def _is_new_network(namespace: Mapping[str, Any]) -> bool:
    return namespace.get("type") == "network" and not namespace.get("path")


def _identity(path: str, *, follow_symlinks: bool = True) -> tuple[int, int] | None:
    try:
        found = _ffi.Mark(path, follow=follow_symlinks)
    except OSError:
        return None
    return found.device, found.inode


def _key_of_file(path: str) -> object:
    try:
        status = os.stat(path)
    except OSError:
        return None
    if time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) < SETTLED_NS:
        return None
    return path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
