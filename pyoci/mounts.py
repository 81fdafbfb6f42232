"""The intermediate mount namespace of a container with a user namespace: when it is needed, and what lies where in it. Nothing here mounts.

Runtimes set a container up as its mapped root, the user that container id 0 is on the host. It must be able to come to the root file system by its
path, which fails below a directory that is closed to others, as container storage is. conmon and the runtime are then started in a mount
namespace of their own (csrc/mount_thread.c), where the root file system is bound to a place that the mapped root can reach, and ``root.path``
says so. All else, the container's directory and the sources of bind mounts among it, the runtimes open as our root and pass on.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

PLACE = "/run/pyoci-userns"
"""Every container's run directory is here, each in its namespace only: outside, this directory is closed and holds an empty ``rootfs``. No part
of it may be a symbolic link."""
ROOTFS = f"{PLACE}/rootfs"


class Mounts:
    """``source`` is to be found at ``target``, in a run directory on ``place`` (0700) that belongs to ``uid`` and ``gid``, numbers of the host."""

    __slots__ = ("gid", "place", "source", "target", "uid")

    def __init__(self, source: str, uid: int, gid: int, *, place: str = PLACE, target: str = ROOTFS) -> None:
        self.source: str = source
        self.uid: int = uid
        self.gid: int = gid
        self.place: str = place
        self.target: str = target


def host_id(id: int, mappings: Sequence[Mapping[str, int]]) -> int | None:
    """What a container's user or group id is on the host by ``linux.uidMappings`` or ``linux.gidMappings``; None if it is not mapped."""
    for mapping in mappings:
        offset = id - mapping.get("containerID", 0)
        if 0 <= offset < mapping.get("size", 0):
            return mapping.get("hostID", 0) + offset
    return None


def _is_mapped(host_id: int, mappings: Sequence[Mapping[str, int]]) -> bool:
    return any(0 <= host_id - mapping.get("hostID", 0) < mapping.get("size", 0) for mapping in mappings)


def may_enter(status: os.stat_result, linux: Mapping[str, Any]) -> bool:
    """Whether the mapped root may pass through a directory: by its mode, or because root's privilege in a user namespace holds for files whose
    owner and group are both mapped (user_namespaces(7)). Access control lists are not looked at."""
    uids, gids = linux.get("uidMappings") or (), linux.get("gidMappings") or ()
    if _is_mapped(status.st_uid, uids) and _is_mapped(status.st_gid, gids):
        return True
    if status.st_uid == host_id(0, uids):
        return bool(status.st_mode & 0o100)
    return bool(status.st_mode & (0o010 if status.st_gid == host_id(0, gids) else 0o001))


def _above(path: str) -> Iterator[str]:
    while path != "/":
        path = os.path.dirname(path)
        yield path


def plan(config: Mapping[str, Any], wanted: bool | None, *, privileged: bool, status: Callable[[str], os.stat_result] = os.stat) -> Mounts | None:
    """The namespace for a resolved spec, or None for a start without one. ``wanted`` True: in any case; False: never; None: where we are
    ``privileged``, root, and a directory above the root file system keeps out the mapped root of a user namespace. (An ordinary user can make
    no such namespace, and his container's root is himself or somebody with his groups and access lists.)"""
    linux = config.get("linux") or {}
    if wanted is False or (wanted is None and not (privileged and any(n.get("type") == "user" for n in linux.get("namespaces") or ()))):
        return None
    uid, gid = host_id(0, linux.get("uidMappings") or ()), host_id(0, linux.get("gidMappings") or ())
    root = config["root"]["path"]
    if wanted is None and (uid is None or gid is None or all(may_enter(status(path), linux) for path in _above(root))):
        return None
    return Mounts(root, os.geteuid() if uid is None else uid, os.getegid() if gid is None else gid)
