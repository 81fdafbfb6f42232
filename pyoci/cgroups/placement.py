"""Where a container and its conmon live: paths (pure), and conmon's way there.

Both get a cgroup below ``PARENT/pyoci-ID``: ``container`` and ``conmon``, side by side. cgroup v2 allows no process in a cgroup that hands
controllers on to others below it; and below the container's own, conmon would be counted against its limits and frozen with it.
"""

from __future__ import annotations

import os

from pyoci import _ffi
from pyoci.cgroups import detection
from pyoci.cgroups.detection import V2, read_control
from pyoci.errors import CgroupError, ContainerExists, InvalidID, InvalidOption, InvalidSpec, SpawnError
from pyoci.process import Descriptor, host_user
from pyoci.waiting import deadline_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from pyoci._ffi import Block
    from pyoci.cgroups.detection import Cgroups
    from pyoci.cgroups.systemd import Systemd
    from pyoci.process import Process
    from pyoci.waiting import Operation

CGROUPFS = "cgroupfs"
SYSTEMD = "systemd"
SEPARATE = "separate"
SHARED = "shared"
PREFIX = "pyoci"
LONGEST_UNIT = 255
"""UNIT_NAME_MAX - 1 (systemd.unit(5))."""

CGROUP_STAGES = ("clone", "joining the cgroup")
"""Where a spawn fails when the child cannot be born in its cgroup."""

_UNIT_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:_.\\-@")


# --- paths: pure ------------------------------------------------------------------------------------------------------------------


def check_parent(manager: str, parent: object) -> str:
    """The cgroup parent in its one spelling: an absolute path without ``.`` and ``..``, below the root of every hierarchy, or for systemd the name
    of a slice. Raises InvalidOption."""
    if not isinstance(parent, str):
        raise InvalidOption(f"cgroup_parent must be a str, not {type(parent).__name__}")
    if manager == SYSTEMD:
        expand_slice(parent)
        return parent
    if not parent.startswith("/"):
        raise InvalidOption(f"cgroup_parent must be an absolute path below the cgroup root, such as '/jobs', not {parent!r}")
    if "\0" in parent or "\n" in parent:
        raise InvalidOption(f"cgroup_parent must not hold NUL or newline: {parent!r}")
    parts = [part for part in parent.split("/") if part]
    if any(part in (".", "..") for part in parts):
        raise InvalidOption(f"cgroup_parent must not hold '.' or '..': {parent!r}")
    try:
        too_long = any(len(os.fsencode(part)) > 255 for part in parts) or len(os.fsencode(parent)) > 2048
    except UnicodeEncodeError:
        raise InvalidOption(f"cgroup_parent is not the name of a file: {parent!r}") from None
    if too_long:
        raise InvalidOption(f"cgroup_parent is too long: {parent[:100]!r}…")
    return "".join(f"/{part}" for part in parts)


def expand_slice(name: str) -> str:
    """The path of a slice, which its name spells (systemd.slice(5)): ``a-b.slice`` → ``/a.slice/a-b.slice``, ``-.slice`` → the empty path. Raises
    InvalidOption for what is no slice."""
    stem = name.removesuffix(".slice")
    if stem == name or not stem or len(name) > LONGEST_UNIT or not _UNIT_CHARACTERS.issuperset(name):
        raise InvalidOption(f"cgroup_parent must be the name of a slice, such as 'jobs.slice', for cgroup_manager='systemd', not {name[:300]!r}")
    if stem == "-":
        return ""
    parts = stem.split("-")
    if not all(parts):
        raise InvalidOption(f"cgroup_parent {name!r} is no slice: '-' separates the names of the slices it lies in, and none of them may be empty")
    return "".join(f"/{'-'.join(parts[: i + 1])}.slice" for i in range(len(parts)))


class Place:
    """``spec``: the container's ``linux.cgroupsPath``. ``container``: its path below the root of each hierarchy. ``scope``: its scope. ``own``:
    PARENT/pyoci-ID, if that is made for it. ``conmon``: conmon's cgroup in there. ``unit``: conmon's scope. Each None where there is none."""

    __slots__ = ("conmon", "container", "own", "scope", "spec", "unit")

    def __init__(
        self,
        spec: str | None,
        container: str | None,
        *,
        scope: str | None = None,
        own: str | None = None,
        conmon: str | None = None,
        unit: str | None = None,
    ) -> None:
        self.spec: str | None = spec
        self.container: str | None = container
        self.scope: str | None = scope
        self.own: str | None = own
        self.conmon: str | None = conmon
        self.unit: str | None = unit

    @property
    def is_entered(self) -> bool:
        """conmon may have to be moved after it was born."""
        return self.conmon is not None or self.unit is not None

    @property
    def is_cgroupfs(self) -> bool:
        """The container's cgroups are known, and nobody else manages them."""
        return self.container is not None and self.scope is None

    def record(self) -> dict[str, str | None]:
        """For record.json."""
        cgroups = {"cgroups_path": self.container, "own_cgroup": self.own, "conmon_cgroup": self.conmon}
        return {**cgroups, "scope": self.scope, "conmon_scope": self.unit}

    @classmethod
    def recorded(cls, record: Mapping[str, Any]) -> Place:
        cgroups = {"own": record["own_cgroup"], "conmon": record["conmon_cgroup"]}
        return cls(None, record["cgroups_path"], scope=record["scope"], unit=record["conmon_scope"], **cgroups)

    def directories(self, hierarchies: Cgroups) -> list[str]:
        """All that is the container's and its conmon's own, in an order in which it can be removed."""
        paths = dict.fromkeys((self.container, self.conmon, self.own))
        return [directory for path in paths if path is not None for directory in hierarchies.directories(path)]

    def untrue(self, hierarchies: Cgroups) -> list[str]:
        """What crun takes for these cgroups in the unified hierarchy, where none is mounted."""
        paths = dict.fromkeys((self.container, self.own))
        return [directory for path in paths if path is not None and (directory := hierarchies.untrue(path)) is not None]


def of_cgroupfs(parent: str, id: str, given: str | None, separate: bool) -> Place:
    """``given``: the path that the spec names; then only conmon's is ours to choose."""
    own = f"{parent}/{PREFIX}-{id}"
    path = given or (f"{own}/container" if separate else own)
    ours = own if separate or not given else None
    return Place(path, path if path.startswith("/") else None, own=ours, conmon=f"{own}/conmon" if separate else None)


def of_systemd(slice: str, id: str, given: str | None, separate: bool, user: int = 0) -> Place:
    """As the runtimes read ``SLICE:PREFIX:NAME``: the scope PREFIX-NAME.scope in SLICE (an empty one is system.slice, with runc). ``user``: whose
    manager it is (user@.service(5)). Raises InvalidSpec when the spec names a path of another form, InvalidID when the id cannot be part of a
    unit's name."""
    unit = f"{PREFIX}-conmon-{id}.scope" if separate else None
    if (separate or not given) and not _can_name(f"{PREFIX}-conmon-{id}", id):
        most = LONGEST_UNIT - len(f"{PREFIX}-conmon-.scope")
        raise InvalidID(f"the container id {id!r} must not be longer than {most}, hold a '+' or end in '.slice' to be part of a scope's name")
    path = given or f"{slice}:{PREFIX}:{id}"
    parts = path.split(":")
    within, prefix, name = parts if len(parts) == 3 else ("", "", "")
    scope = f"{prefix}-{name}.scope"
    if not _can_name(f"{prefix}-{name}", name):
        raise InvalidSpec(f"linux.cgroupsPath must be SLICE:PREFIX:NAME for cgroup_manager='systemd', not {path!r:.300}")
    try:
        below = expand_slice(within or ("user.slice" if user else "system.slice"))
    except InvalidOption as error:
        raise InvalidSpec(f"linux.cgroupsPath: {error}") from None
    root = f"/user.slice/user-{user}.slice/user@{user}.service" if user else ""
    return Place(path, f"{root}{below}/{scope}", scope=scope, unit=unit)


def _can_name(stem: str, name: str) -> bool:
    """``stem``.scope is a unit, whose last part is ``name``; runc takes one that ends as a slice for a slice."""
    return bool(name) and not name.endswith(".slice") and len(stem) <= LONGEST_UNIT - len(".scope") and _UNIT_CHARACTERS.issuperset(stem)


# --- the way there ----------------------------------------------------------------------------------------------------------------


class Manager:
    """How one OCIRuntime places its containers and their conmons."""

    __slots__ = ("_hierarchies", "_parent", "_systemd", "_warned", "conmon", "name", "strict")

    def __init__(self, name: str = CGROUPFS, parent: str | None = None, conmon: str | None = None, strict: bool = False) -> None:
        """Raises InvalidOption; nothing is looked at."""
        if name not in (CGROUPFS, SYSTEMD):
            raise InvalidOption(f"cgroup_manager must be '{CGROUPFS}' or '{SYSTEMD}', not {name!r}")
        if conmon not in (None, SEPARATE, SHARED):
            raise InvalidOption(f"conmon_cgroup must be '{SEPARATE}' or '{SHARED}', not {conmon!r}")
        if type(strict) is not bool:
            raise InvalidOption(f"strict_cgroups must be True or False, not {strict!r}")
        self.name = name
        self.conmon = conmon
        self.strict: bool = strict
        self._parent = None if parent is None else check_parent(name, parent)
        self._hierarchies: Cgroups | None = None
        self._systemd: Systemd | None = None
        self._warned = False

    @property
    def hierarchies(self) -> Cgroups:
        """The host's hierarchies, read at the first need."""
        if self._hierarchies is None:
            self._hierarchies = detection.read()
        return self._hierarchies

    @property
    def is_systemd(self) -> bool:
        return self.name == SYSTEMD

    @property
    def separate(self) -> bool:
        """conmon gets a cgroup of its own. Where nobody said: with systemd, and on cgroup v2, but for users to whom none is delegated."""
        if self.conmon is None:
            possible = self.hierarchies.layout == "v2" and (self.strict or self.parent is not None)
            self.conmon = SEPARATE if self.is_systemd or possible else SHARED
        return self.conmon == SEPARATE

    @property
    def parent(self) -> str | None:
        """Root of the host: the hierarchies' root, or system.slice. Others: their own cgroup where it is delegated to them, or user.slice. None:
        nowhere."""
        if self._parent is None:
            root = host_user() == 0
            if self.is_systemd:
                self._parent = "system.slice" if root else "user.slice"
            elif root:
                self._parent = ""
            else:
                return delegated(self.hierarchies)
        return self._parent

    def place(self, id: str, given: str | None, *, monitored: bool = True) -> Place:
        """Where this container and its conmon, if it is ``monitored`` by one, go; nothing is made. ``given``: the path that the spec names. Raises
        CgroupError, InvalidID, InvalidSpec."""
        parent, separate = self.parent, monitored and self.separate
        if parent is None:
            if separate:
                self.cannot(CgroupError(f"conmon cannot have a cgroup of its own: none is delegated to user {os.geteuid()}"))
            return Place(given, given if given and given.startswith("/") else None)
        if self.is_systemd:
            if not os.path.isdir(directory := detection.systemd_directory()):
                whose = "systemd" if host_user() == 0 else "this user's systemd"
                raise CgroupError(f"{whose} was to manage the cgroups, and does not run (there is no {directory}); the default, cgroupfs, needs none")
            return of_systemd(parent, id, given, separate, host_user())
        return of_cgroupfs(parent, id, given, separate)

    def check_vacant(self, place: Place, given: str | None) -> None:
        """Raises ContainerExists when somebody lives in the cgroup that is to be ours, CgroupError when it is the one that the spec names: what is
        killed at a failure must be ours alone."""
        if directory := self._populated(place.own or (None if given else place.container)):
            raise ContainerExists(f"the cgroup {directory} has processes in it: of a container with the same id in another state directory")
        if given and (directory := self._populated(place.container)):
            raise CgroupError(f"linux.cgroupsPath {given!r}: the cgroup {directory} has processes in it, and must be this container's alone")

    def _populated(self, path: str | None) -> str | None:
        """The directory of this cgroup, if processes are in it."""
        for directory in self.hierarchies.directories(path)[:1] if path is not None else ():
            if _ffi.exists(directory) and detection.is_populated(directory):
                return directory
        return None

    def spawn(self, place: Place, process: Process, path: str, argv: list[str] | Block, env: Block, **how: Any) -> None:
        """``process.spawn``; on cgroup v2 conmon is born in its cgroup. Raises SpawnError, CgroupError."""
        with Descriptor(self._birthplace(place)) as cgroup:
            try:
                process.spawn(path, argv, env, cgroup=cgroup.fd, **how)
                return
            except SpawnError as error:
                if cgroup.fd < 0 or error.stage not in CGROUP_STAGES:
                    raise
                self.cannot(CgroupError(f"conmon cannot have a cgroup of its own: {error.strerror}"))
        process.spawn(path, argv, env, **how)

    def _birthplace(self, place: Place) -> int:
        """conmon's cgroup, made and opened; -1 where it enters later or not at all."""
        if place.conmon is None or self.hierarchies.layout != "v2":
            return -1
        mount = self.hierarchies.mounts[V2]
        try:
            _ffi.cgroups_make(_with_parents(mount, place.conmon))
            return os.open(f"{mount}{place.conmon}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            self.cannot(CgroupError(f"conmon cannot have a cgroup of its own: {error.strerror}"))
            return -1

    def enter(self, place: Place, process: Process, deadline: int) -> Operation[None]:
        """Moves conmon, which waits for its start byte, to where it was not born. What that needs is made while conmon's own start goes on beside
        us, on another processor: as a rule it costs no time. Raises CgroupError."""
        try:
            if place.unit is not None:
                if self._systemd is None:
                    from pyoci.cgroups.systemd import Systemd

                    self._systemd = Systemd()
                yield from self._systemd.start_scope(place.unit, self.parent or "", process.pid, deadline)
            elif place.conmon is not None and self.hierarchies.layout != "v2":
                self._enter_v1(place.conmon, process.pid)
        except CgroupError as error:
            if not process.has_ended():  # then what it said is the explanation
                self.cannot(error)

    def _enter_v1(self, path: str, pid: int) -> None:
        directories: list[str] = []
        cpusets = 0
        for point in self.hierarchies.points:
            made = _with_parents(point, path)
            if point == self.hierarchies.mounts.get("cpuset"):
                cpusets = ((1 << len(made)) - 1) << len(directories)
            directories += made
        try:
            _ffi.cgroups_make(directories, cpusets)
            _ffi.cgroups_join(self.hierarchies.directories(path), pid)
        except OSError as error:
            raise CgroupError(f"conmon cannot have a cgroup of its own: {error.strerror}") from None

    def forget(self, place: Place) -> Operation[None]:
        """After a failed create: the scope that the runtime may have left; conmon's ends with conmon. Whether systemd answers changes nothing any
        more."""
        if place.scope is None:
            return
        from pyoci.cgroups.systemd import SCOPE_TIMEOUT, Systemd

        systemd = self._systemd or Systemd()
        try:
            yield from systemd.stop(place.scope, deadline_in(SCOPE_TIMEOUT))
        except CgroupError as error:
            import logging

            logging.getLogger("pyoci").debug("the scope of a failed create: %s", str(error))

    def cannot(self, error: CgroupError) -> None:
        """The fallback: conmon stays where the caller is, and that is said once. With ``strict`` it is an error."""
        if self.strict:
            raise error
        if not self._warned:
            import logging

            self._warned = True
            # The text alone: a record that is kept would keep the error's frames.
            logging.getLogger("pyoci").warning("%s, and stays in the caller's; not said again for this OCIRuntime", str(error))


def _with_parents(mount: str, path: str) -> list[str]:
    parts = path.strip("/").split("/")
    return [f"{mount}/{'/'.join(parts[: i + 1])}" for i in range(len(parts))]


def delegated(hierarchies: Cgroups) -> str | None:
    """Our own cgroup on cgroup v2, if we may make others in it and move processes between them (cgroups(7), "Delegation")."""
    if hierarchies.layout != "v2":
        return None
    for line in os.fsdecode(read_control("/proc/self/cgroup")).splitlines():
        if line.startswith("0::/"):
            path = line[3:].rstrip("/")
            directory = f"{hierarchies.mounts[V2]}{path}"
            if "/.." not in path and os.access(directory, os.W_OK) and os.access(f"{directory}/cgroup.procs", os.W_OK):
                return path
    return None
