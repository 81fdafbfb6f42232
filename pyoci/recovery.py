"""After a crash of the caller: finding what is dead or orphaned in a state directory, and removing it; see docs/guide/recovery.md.

A container is removed when its creator is gone and it has ended, or was bound to its creator, or never got ready. What belongs to a creator that
lives is not looked at any closer. All else that is removed has no container's directory, and names one of this state directory: a conmon by
its command line, the runtime's state and an exit file by their place. Each is removed under the lock on its container, so that
two at once, or a create of the same id, do not meet.
"""

from __future__ import annotations

import os
import re
from time import time, time_ns

from pyoci import cgroups, conmon, ids, lifecycle, owners, runtimes, sessions
from pyoci._ffi import environment_block
from pyoci.errors import (
    ContainerExists,
    ContainerNotFound,
    ContainerStateError,
    DamagedRecord,
    Error,
    ExecutableError,
    InvalidOption,
)
from pyoci.exits import ExitStatus, parse_exit_file, read_small
from pyoci.options import CALLER
from pyoci.process import command_line, descendants, invoke, kill_tree
from pyoci.store import Lock, read_pids, read_record, remove_tree, unlink
from pyoci.waiting import Wait, deadline_in, passed, sooner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, Literal, TypeAlias

    from pyoci.lifecycle import Life
    from pyoci.store import Store
    from pyoci.waiting import Operation

    Kind: TypeAlias = Literal[
        "container", "conmon", "runtime state", "exit file", "cgroup", "scope", "network namespace", "bridge", "root file system"
    ]

YOUNG = 10.0
"""Seconds in which a directory without a record may be one that somebody is just making: what is written next says who."""
STRAY = 3600.0
"""Seconds after which an empty cgroup with a name as only we give is taken for left behind, though nothing tells of which state directory."""
BUSY_TIMEOUT = 2.0
"""Seconds to wait for who else holds a container's lock: a create's first process, just after its creator was killed, or another prune."""
MNT_DETACH = 2


class Pruned:
    """One thing that was removed, or that would be (``dry_run``).

    ``kind``: what it is: a "container" with all that belongs to it, which ``parts`` lists; or, of one that has no directory any more, a
    "conmon" (with what runs below it), "runtime state", an "exit file", a "cgroup", a "scope"; or a "network namespace" or a "bridge" of a
    process that is gone; or a "root file system" that has come out of use. ``id``: the container's, or the network's name. ``name``: its path,
    pid or unit. ``why``: a sentence. ``status``: how the container ended, which is known nowhere else from now on; None if it never got ready.
    ``error``: why it could not be removed, or None."""

    __slots__ = ("error", "id", "kind", "name", "parts", "status", "why")

    def __init__(self, kind: Kind, id: str, name: str, why: str, *, parts: Iterable[str] = (), status: ExitStatus | None = None) -> None:
        self.kind = kind
        self.id: str = id
        self.name: str = name
        self.why: str = why
        self.parts: tuple[str, ...] = tuple(parts)
        self.status: ExitStatus | None = status
        self.error: Exception | None = None

    def __repr__(self) -> str:
        failed = f", error={str(self.error)!r}" if self.error is not None else ""
        return f"Pruned({self.kind!r}, {self.id!r}, {self.name!r}, {self.why!r}, status={self.status}{failed})"


def sweep(
    store: Store,
    *,
    dry_run: bool = False,
    created: bool = False,
    older_than: float = 0.0,
    runtime_roots: Iterable[str] = (),
    cgroup_parents: Iterable[str] = (),
) -> Operation[list[Pruned]]:
    """Removes what is dead or orphaned in this state directory, and tells what that was; with ``dry_run`` it only tells.

    ``created``: also containers that were never started, and whose creator is gone: else they wait for a start by somebody else. ``older_than``:
    containers that have ended (or, with ``created``, were created) less than so many seconds ago stay, for who still wants to know how they ended.
    ``runtime_roots``, ``cgroup_parents``: where more may lie than the containers' records name.

    What cannot be removed is in the result with its ``error``, and does not keep the rest. Raises InvalidOption, StateDirError."""
    if isinstance(older_than, bool) or not isinstance(older_than, int | float) or not older_than >= 0:
        raise InvalidOption(f"older_than must be a number of seconds, not {older_than!r:.200}")
    work = _Pruning(store, dry_run, created, older_than, runtime_roots, cgroup_parents)
    for id in store.ids():
        yield from work.container(id)
    yield from work.strays()
    yield from work.scopes()
    work.networks()
    work.root_file_systems()
    return work.found


class _StaysError(Exception):
    """Why a container is not removed."""


class _Pruning:
    """One walk through a state directory."""

    __slots__ = ("created", "dry_run", "found", "hierarchies", "older_than", "parents", "roots", "store")

    def __init__(
        self, store: Store, dry_run: bool, created: bool, older_than: float, runtime_roots: Iterable[str], cgroup_parents: Iterable[str]
    ) -> None:
        self.store = store
        self.dry_run = dry_run
        self.created = created
        self.older_than = older_than
        self.hierarchies = cgroups.read()
        self.roots = {f"{store.directory}/{name}" for name in runtimes.CANDIDATES} | set(runtime_roots)
        own = cgroups.Manager().parent
        self.parents = ({own} if own is not None else set()) | set(cgroup_parents)
        self.found: list[Pruned] = []

    # --- containers -------------------------------------------------------------------------------------------------------------------

    def container(self, id: str) -> Operation[None]:
        """One that has a directory."""
        try:
            pruned, life = self._look(id)
        except _StaysError as reason:
            return _keep(id, str(reason))
        try:
            if life is not None and life.mark is not None and life.has_ended():
                pruned.status = yield from lifecycle.wait(life, None)
                finished = pruned.status._finished_ns
                if self._is_recent(life.mark[1] if finished is None else finished):
                    raise _StaysError("it ended only recently")
            pruned.parts = tuple(self._parts(id, life))
            if not self.dry_run:
                yield from self._remove_container(id, pruned)
        except _StaysError as reason:
            return _keep(id, str(reason))
        except ContainerNotFound:
            return None  # somebody else was faster
        except (Error, OSError) as error:
            pruned.error = error
        self.found.append(pruned)

    def _look(self, id: str) -> tuple[Pruned, Life | None]:
        """What is to be removed, and the container if it can be loaded. Raises _StaysError."""
        record = self._record(id)
        directory = self.store.path(id)
        if record is None:
            return Pruned("container", id, directory, "it is half made, or half deleted, without a record"), None
        self._remember(record)
        owner, fate = f"its creator, process {owners.pid(record.get('owner'))},", owners.fate(record.get("owner"))
        if fate != "gone":
            raise _StaysError(f"{owner} {'lives' if fate == 'alive' else 'is not to be seen from here'}")
        if record.get("monitor") == CALLER and _monitor_lives(directory):
            raise _StaysError("its monitor lives")
        try:
            life = lifecycle.load(self.store, id, unfinished=True)
        except DamagedRecord as error:
            if _lives(directory):
                raise _StaysError(f"its processes live: {error}") from None
            return Pruned("container", id, directory, f"{owner} is gone, and its record is damaged"), None
        except (Error, OSError) as error:
            raise _StaysError(str(error)) from None
        if life.mark is None:
            if os.path.lexists(f"{directory}/pids") and not lifecycle.is_created(life) and self._is_at_work(life):
                raise _StaysError(f"it lives, and {directory}/pids is damaged")
            why = f"{owner} is gone, and left it half made"
        elif life.has_ended():
            why = f"it has ended, and {owner} is gone"
        elif record.get("bound"):
            why = f"it was bound to its creator, process {owners.pid(record['owner'])}, which is gone"
        elif self.created and lifecycle.is_created(life) and not self._is_recent(life.mark[1]):
            why = f"it was never started, and {owner} is gone"
        else:
            raise _StaysError("it lives, and may outlive its creator")
        return Pruned("container", id, directory, why), life

    def _is_at_work(self, life: Life) -> bool:
        """Something of it lives, though it is not known which processes are its own."""
        return bool(lifecycle.claimed_by(life.directory)) or any(map(cgroups.is_populated, life.place.directories(self.hierarchies)))

    def _record(self, id: str) -> dict[str, Any] | None:
        """None where there is none, and can be none any more. Raises _StaysError."""
        if not ids.is_valid(id):
            raise _StaysError("it is nothing of ours")
        directory = self.store.path(id)
        try:
            return read_record(directory, id)
        except (ContainerNotFound, DamagedRecord) as error:
            if not _is_old(directory, YOUNG):
                raise _StaysError("it is being made, or has just been") from None
            if _lives(directory):
                raise _StaysError(f"its processes live: {error}") from None
            return None
        except Error as error:
            raise _StaysError(str(error)) from None

    def _remove_container(self, id: str, pruned: Pruned) -> Operation[None]:
        with (yield from _lock(id, pruned.name)):
            # Once more under the lock: it can have been removed meanwhile, and even be another one of the same id.
            _, life = self._look(id)
            for point in mounts_below(pruned.name):
                _detach(point)
            if life is None:
                yield from self._end_claimed(id)
                yield from cgroups.clear(self._cgroups_named(id))
                self._remove_files(id)
            elif life.mark is None:
                yield from lifecycle.abandon(life)
            else:
                life.sessions = sessions.recorded(life)
                yield from lifecycle.delete_locked(life, force=True)
                pruned.status = life.status

    def _remember(self, record: dict[str, Any]) -> None:
        """Where this container has what is not in its directory: others may have left something there."""
        if isinstance(root := record.get("runtime_root"), str):
            self.roots.add(root)
        if isinstance(own := record.get("own_cgroup"), str):
            self.parents.add(os.path.dirname(own).rstrip("/"))

    def _parts(self, id: str, life: Life | None) -> Iterator[str]:
        directory = self.store.path(id)
        for pid in lifecycle.claimed_by(directory):
            yield f"process {pid}"
        if life is not None:
            if life.init is not None and not life.has_ended():
                yield f"process {life.init.pid}"
            yield from (path for path in life.place.directories(self.hierarchies) if os.path.isdir(path))
            yield from (unit for unit in (life.place.scope, life.place.unit) if unit is not None)
        yield from (path for root in sorted(self.roots) if os.path.isdir(path := f"{root}/{id}"))
        yield from (f"mount {point}" for point in mounts_below(directory))
        yield directory

    def _is_recent(self, when_ns: int) -> bool:
        return 0 <= time_ns() - when_ns < self.older_than * 1e9

    # --- what has no container's directory --------------------------------------------------------------------------------------------

    def strays(self) -> Operation[None]:
        """What is left of containers whose directory is gone: removed by hand, as a rule."""
        ids_seen = {*self._claimed_ids(), *self._names(self.store.exits)}
        for root in self.roots:
            ids_seen.update(self._names(root))
        for id in sorted(ids_seen):
            written = _WRITTEN.fullmatch(id)
            if not os.path.lexists(self.store.path(id)) and not (written is not None and os.path.lexists(self.store.path(written[1]))):
                yield from self._stray(id)
        for id in sorted(self._stray_cgroups()):
            yield from self._stray_cgroup(id)

    def _names(self, directory: str) -> Iterator[str]:
        try:
            yield from filter(ids.is_valid, os.listdir(directory))
        except FileNotFoundError:
            pass

    def _claimed_ids(self) -> Iterator[str]:
        """The ids of containers here that some conmon or runtime names as its bundle."""
        named = re.compile(rb"\0(?:-b\0|--bundle[\0=]|--pid-file\0)" + re.escape(os.fsencode(self.store.containers)) + rb"/([^/\0]+)(?:/pidfile)?\0")
        for name in os.listdir("/proc"):
            if name.isdecimal() and (match := named.search(command_line(int(name)))) is not None and ids.is_valid(id := os.fsdecode(match[1])):
                yield id

    def _stray(self, id: str) -> Operation[None]:
        if self.dry_run:
            self.found += yield from self._remove_stray(id)
            return
        # Nobody makes a container of this id meanwhile.
        try:
            directory = self.store.claim(id)
        except ContainerExists:
            return
        with Lock(directory, wait=True):
            try:
                self.found += yield from self._remove_stray(id)
            finally:
                remove_tree(directory)

    def _remove_stray(self, id: str) -> Operation[list[Pruned]]:
        directory = self.store.path(id)
        why = f"there is no {directory}"
        found: list[Pruned] = []
        # Looked for now: what was ending when its directory went has ended.
        processes = lifecycle.claimed_by(directory)
        places = list(_cgroups_of(processes, id))
        if processes:
            found.append(Pruned("conmon", id, f"process {processes[0]}", why, parts=[*(f"process {pid}" for pid in processes[1:]), *places]))
            if not self.dry_run:
                yield from self._end_claimed(id)
        for root in sorted(self.roots):
            if os.path.lexists(f"{root}/{id}"):
                yield from self._runtime_state(root, id, why, found)
        exit = read_small(f"{self.store.exits}/{id}")
        if exit is not None:
            found.append(Pruned("exit file", id, f"{self.store.exits}/{id}", why, status=ExitStatus(parse_exit_file(exit[0]), finished_ns=exit[1])))
            if not self.dry_run:
                unlink(f"{self.store.exits}/{id}")
        if found:
            for path in self._cgroups_named(id):
                found.append(Pruned("cgroup", id, path, why))
                if not self.dry_run:
                    yield from cgroups.clear([path])
        return found

    def _runtime_state(self, root: str, id: str, why: str, found: list[Pruned]) -> Operation[None]:
        """What the runtime knows of a container whose directory is gone. One that lives, and has no conmon, nobody can have meant to leave: but it
        lives."""
        pruned = Pruned("runtime state", id, f"{root}/{id}", why)
        try:
            runtime = runtimes.Runtime(runtimes.find_executable(os.path.basename(root)), root)
            block = environment_block(conmon.environment(os.environ))
            try:
                step = f"asking for the state of {id!r}"
                output = yield from invoke(step, runtime.path, runtime.argv("state", id), block, lifecycle.CALL_TIMEOUT, stdout=True)
                status, pid = runtimes.parse_state(output.stdout, id)
            except Error:
                status, pid = "stopped", 0  # half a state, of which no call makes anything
            if status != "stopped" and not (found and self.dry_run):
                _keep(id, f"process {pid} lives, though {why}; `{runtime.path} --root {root} delete --force {id}` ends it")
                return
            if not self.dry_run:
                try:
                    argv = runtime.argv("delete", "--force", id)
                    yield from invoke(f"deleting {id!r}", runtime.path, argv, block, lifecycle.FORCE_DELETE_TIMEOUT)
                except Error:
                    pass  # what is to go is removed now, whether or not the runtime knew of it
        except ExecutableError:
            pass  # no such runtime (any more): then nobody else can remove it
        try:
            if not self.dry_run:
                remove_tree(f"{root}/{id}")
        except Error as error:
            pruned.error = error
        found.append(pruned)

    def _end_claimed(self, id: str) -> Operation[None]:
        """Kills the conmon and the runtime that name this container's directory, all below them, and what is in the cgroups they were in."""
        directory = self.store.path(id)
        processes = lifecycle.claimed_by(directory)
        if processes:
            places = list(_cgroups_of(processes, id))
            yield from kill_tree((), also=lambda: lifecycle.claimed_by(directory))
            directories = [path for place in places for path in self.hierarchies.directories(place)]
            cgroups.kill_all(directories)
            yield from cgroups.clear(directories)

    def _remove_files(self, id: str) -> None:
        for root in self.roots:
            remove_tree(f"{root}/{id}")
        self.store.remove(id)

    # --- cgroups and scopes -----------------------------------------------------------------------------------------------------------

    def _cgroups_named(self, id: str) -> list[str]:
        """Our cgroups of a container, where nothing lives in them."""
        paths = [path for parent in sorted(self.parents) for path in self.hierarchies.directories(f"{parent}/{cgroups.PREFIX}-{id}")]
        return [path for path in paths if os.path.isdir(path) and not cgroups.is_populated(path)]

    def _stray_cgroups(self) -> set[str]:
        """The ids of cgroups that are empty, old, and named by an id that was made by us: it is nobody's choice."""
        found = set()
        for parent in self.parents:
            for point in self.hierarchies.points:
                try:
                    names = os.listdir(f"{point}{parent}")
                except OSError:
                    continue
                found |= {match[1] for name in names if (match := _OWN_CGROUP.fullmatch(name)) is not None}
        return {id for id in found if not os.path.lexists(self.store.path(id)) and self._is_deserted(id)}

    def _is_deserted(self, id: str) -> bool:
        paths = [path for parent in self.parents for path in self.hierarchies.directories(f"{parent}/{cgroups.PREFIX}-{id}") if os.path.isdir(path)]
        return not any(map(cgroups.is_populated, paths)) and all(_is_old(path, STRAY) for path in paths)

    def _stray_cgroup(self, id: str) -> Operation[None]:
        for path in self._cgroups_named(id):
            self.found.append(Pruned("cgroup", id, path, f"it is empty, {STRAY / 3600:g} h old or older, and its container is not here"))
            if not self.dry_run:
                yield from cgroups.clear([path])

    def scopes(self) -> Operation[None]:
        """A scope ends with its last process; but systemd keeps one in mind that has failed."""
        if not os.path.isdir(cgroups.systemd_directory()):
            return
        from pyoci.cgroups.systemd import SCOPE_TIMEOUT, Systemd

        def is_ours(unit: str) -> bool:
            match = _SCOPE.fullmatch(unit)
            return match is not None and not os.path.lexists(self.store.path(match[1]))

        try:
            patterns = [f"{cgroups.PREFIX}-*.scope"]
            units = yield from Systemd().forget_failed(patterns, is_ours, deadline_in(SCOPE_TIMEOUT), dry_run=self.dry_run)
        except (Error, OSError) as error:
            _keep("scopes", f"systemd cannot be asked: {error}")
            return
        for unit in units:
            match = _SCOPE.fullmatch(unit)
            self.found.append(Pruned("scope", match[1] if match is not None else "", unit, "it has failed, and its container is not here"))

    # --- what belongs to no state directory -------------------------------------------------------------------------------------------

    def networks(self) -> None:
        """What tells by its name that a process has made it that is gone, and is used by nobody."""
        from pyoci import networks

        try:
            for namespace in networks.stale():
                why = "the process that made it is gone; who uses it keeps it, without the name"
                self._shared(Pruned("network namespace", namespace.name, namespace.path, why), namespace.remove)
            if any(map(networks.is_ownerless, _link_aliases())):  # only then is netlink worth its import
                from pyoci import bridges

                for name in bridges.stale():
                    pruned = Pruned("bridge", name, f"link {name}", "the process that made it is gone, and nothing is connected to it")
                    self._shared(pruned, lambda name=name: bridges.remove(name))  # type: ignore[misc]
        except (Error, OSError) as error:
            _keep("networks", str(error))

    def root_file_systems(self) -> None:
        """Those of ours that have come out of use (``rootfs``)."""
        from pyoci import rootfs

        try:
            for path in rootfs.stale():
                why = f"not used for {rootfs.UNUSED / 86400:g} days, nor by any process now"
                self._shared(Pruned("root file system", "", path, why), lambda path=path: rootfs.remove(path))  # type: ignore[misc]
        except (Error, OSError) as error:
            _keep("root file systems", str(error))

    def _shared(self, pruned: Pruned, remove: Callable[[], None]) -> None:
        if not self.dry_run:
            try:
                remove()
            except (Error, OSError) as error:
                pruned.error = error
        self.found.append(pruned)


_OWN_CGROUP = re.compile(cgroups.PREFIX + r"-([0-9a-f]{32})")
_WRITTEN = re.compile(r"(.+)\.[A-Z0-9]{6}")
"""The name of an exit file while its conmon writes it (g_file_set_contents)."""
_SCOPE = re.compile(cgroups.PREFIX + r"-(?:conmon-)?([0-9a-f]{32})\.scope")


def _keep(id: str, why: str) -> None:
    """What stays is no part of the result; who wants to know why sees it in the log."""
    import logging

    logging.getLogger("pyoci").debug("prune keeps %s: %s", id, why)


def _is_old(path: str, age: float) -> bool:
    """A time in the future is of a clock that was set back."""
    try:
        return not 0 <= time() - os.lstat(path).st_ctime < age
    except OSError:
        return False


def _monitor_lives(directory: str) -> bool:
    """Who gets to know how it ends, and is to delete it then: with ``monitor="caller"`` that is not its creator. Process 1 takes any orphan, and
    deletes none."""
    try:
        pids = read_pids(directory)
    except DamagedRecord:
        return False  # it is looked for among all processes, then
    monitor = pids[1].find() if pids is not None and pids[1].pid != 1 else None
    return monitor is not None and not monitor.has_ended()


def _lives(directory: str) -> bool:
    """Its processes, where only they are known of it."""
    try:
        pids = read_pids(directory)
    except DamagedRecord:
        return bool(lifecycle.claimed_by(directory))
    return pids is not None and any(process is not None and not process.has_ended() for process in (pids[0].find(), pids[1].find()))


def _link_aliases() -> Iterator[str]:
    """What was written to the links of our network namespace (sysfs-class-net)."""
    try:
        names = os.listdir("/sys/class/net")
    except FileNotFoundError:
        return
    for name in names:
        yield os.fsdecode(cgroups.read_control(f"/sys/class/net/{name}/ifalias")).strip()


def _lock(id: str, directory: str) -> Operation[Lock]:
    """The lock on a container. Nobody tells when it is free, so it is tried again, in growing steps. Raises ContainerNotFound,
    ContainerStateError."""
    deadline, pause = deadline_in(BUSY_TIMEOUT), 0.001
    while True:
        try:
            return Lock(directory)
        except FileNotFoundError:
            raise ContainerNotFound(f"no container {id!r}: it was deleted") from None
        except BlockingIOError:
            if passed(deadline):
                raise ContainerStateError(f"{id!r} is being created or deleted by somebody else", "unknown") from None
        yield Wait((), (), sooner(deadline, deadline_in(pause)))
        pause *= 2


def _cgroups_of(processes: list[int], id: str) -> Iterator[str]:
    """The cgroups that these processes, and those below them, are in, and that are named as those of this container."""
    own = {f"{cgroups.PREFIX}-{id}", f"{cgroups.PREFIX}-{id}.scope", f"{cgroups.PREFIX}-conmon-{id}.scope"}
    found = set()
    for pid in {*processes, *descendants(set(processes))}:
        for line in os.fsdecode(cgroups.read_control(f"/proc/{pid}/cgroup", 65536)).splitlines():
            parts = line.split(":", 2)[2].split("/")
            for depth, part in enumerate(parts):
                if part in own:
                    found.add("/".join(parts[: depth + 1]))
    yield from sorted(found)


def mounts_below(directory: str) -> list[str]:
    """The mount points in a directory, the last mounted first (proc_pid_mountinfo(5))."""
    found = []
    prefix = os.fsencode(directory) + b"/"
    with open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            point = re.sub(rb"\\([0-7]{3})", lambda match: bytes((int(match[1], 8),)), line.split()[4])
            if point.startswith(prefix):
                found.append(os.fsdecode(point))
    return found[::-1]


def _detach(point: str) -> None:
    """umount2(2). What cannot be detached keeps its directory from being removed, which is then the error."""
    import ctypes

    ctypes.CDLL(None).umount2(os.fsencode(point), MNT_DETACH)
