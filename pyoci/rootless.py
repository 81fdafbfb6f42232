"""Containers of an ordinary user: a user namespace in which the user is root, and no limits where there is no cgroup (user_namespaces(7),
subuid(5)); see rootless.md in docs/."""

from __future__ import annotations

import os

from pyoci.errors import InvalidOption, NoCgroup
from pyoci.waiting import Wait, deadline_in, passed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, TypeAlias

    from pyoci.process import Process
    from pyoci.waiting import Operation

    Mappings: TypeAlias = list[dict[str, int]]

SUBUID, SUBGID = "/etc/subuid", "/etc/subgid"
HELPERS = ("newuidmap", "newgidmap")
SWITCHES = {
    "/proc/sys/kernel/unprivileged_userns_clone": b"0",  # Debian's kernels
    "/proc/sys/user/max_user_namespaces": b"0",
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": b"1",  # Ubuntu's
}
"""What forbids user namespaces to ordinary users when it has this value."""

NO_CGROUP = "it belongs to an ordinary user, to whom no cgroup is delegated here; on cgroup v2 `systemd-run --user --scope -p Delegate=yes` gives one"


# --- user ids ---------------------------------------------------------------------------------------------------------------------


def adapt(config: dict[str, Any]) -> dict[str, Any]:
    """The spec as an ordinary user can have it: with a user namespace, if it has none. The caller is its root; more ids there are only where
    subuid(5) grants some. Raises InvalidOption for a user who is not among them; the caller's mapping is not changed."""
    linux = config.get("linux") or {}
    namespaces = linux.get("namespaces") or ()
    if any(namespace.get("type") == "user" for namespace in namespaces):
        return config
    uids, gids = mappings()
    user = (config.get("process") or {}).get("user") or {}
    for what, id, mapped in (("user", user.get("uid", 0), uids), ("group", user.get("gid", 0), gids)):
        if not is_mapped(id, mapped):
            raise InvalidOption(
                f"{what} id {id} does not exist in a container of an ordinary user, which has {sum(m['size'] for m in mapped)} from 0 on; "
                f"for more see subuid(5) and install newuidmap (Debian: apt install uidmap)"
            )
    mounts = config.get("mounts")
    if mounts is not None and not is_mapped(5, gids):
        # The group of terminals, which devpts takes only if it exists.
        mounts = [{**mount, "options": [option for option in mount.get("options") or () if option != "gid=5"]} for mount in mounts]
    linux = {**linux, "namespaces": [*namespaces, {"type": "user"}], "uidMappings": uids, "gidMappings": gids}
    return {**config, "linux": linux} if mounts is None else {**config, "mounts": mounts, "linux": linux}


def is_mapped(id: int, mapped: Mappings) -> bool:
    return any(0 <= id - mapping["containerID"] < mapping["size"] for mapping in mapped)


_mappings: dict[tuple[int, int], tuple[Mappings, Mappings]] = {}


def mappings() -> tuple[Mappings, Mappings]:
    """``linux.uidMappings`` and ``linux.gidMappings``: ourselves as root, and from 1 on what subuid(5) and subgid(5) grant us, where the programs
    that write such a mapping are installed. Looked up once per process."""
    key = (os.geteuid(), os.getegid())
    if key not in _mappings:
        uids, gids = _granted() if _has_helpers() else ([], [])
        if not uids or not gids:
            uids = gids = []
        _mappings[key] = (mapping(key[0], uids), mapping(key[1], gids))
    return _mappings[key]


def mapping(own: int, ranges: Sequence[tuple[int, int]]) -> Mappings:
    result = [{"containerID": 0, "hostID": own, "size": 1}]
    for first, count in ranges:
        result.append({"containerID": result[-1]["containerID"] + result[-1]["size"], "hostID": first, "size": count})
    return result


def _has_helpers() -> bool:
    from pyoci.runtimes import find_executable

    try:
        for helper in HELPERS:
            find_executable(helper)
    except OSError:
        return False
    return True


def _granted() -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    import pwd

    names = {str(os.geteuid())}
    try:
        names.add(pwd.getpwuid(os.geteuid()).pw_name)
    except KeyError:
        pass
    return subordinate(_read(SUBUID), names), subordinate(_read(SUBGID), names)


def subordinate(content: bytes, names: set[str]) -> list[tuple[int, int]]:
    """(first, count) of the lines NAME:FIRST:COUNT for one of these names (subuid(5))."""
    ranges = []
    for line in content.decode("utf-8", "replace").splitlines():
        name, *numbers = line.strip().split(":")
        if name in names and len(numbers) == 2 and all(number.isascii() and number.isdecimal() and len(number) <= 10 for number in numbers):
            first, count = map(int, numbers)
            if count and first + count <= 1 << 32:
                ranges.append((first, count))
    return ranges


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(1 << 20) or b""
    except OSError:
        return b""


def hindrance() -> str | None:
    """The switch that forbids user namespaces to us, or None."""
    return next((f"{path} is {value.decode()}" for path, value in SWITCHES.items() if _read(path).strip() == value), None)


# --- cgroups ----------------------------------------------------------------------------------------------------------------------


LIMITS = ("memory", "pids", "cpu", "blockIO", "hugepageLimits", "network", "rdma", "unified")
"""The members of ``linux.resources`` that only a cgroup can do; rules for devices are left out where a user could not make any device."""


def check_limits(config: Mapping[str, Any], id: str) -> None:
    """Raises NoCgroup when a spec for a container without a cgroup asks for limits. crun would leave them out without a word."""
    linux = config.get("linux") or {}
    limits = [name for name in LIMITS if _asks((linux.get("resources") or {}).get(name))]
    if limits:
        raise NoCgroup(f"{id!r} cannot have limits ({', '.join(limits)}): {NO_CGROUP}")


def _asks(value: object) -> bool:
    return any(item is not None for item in value.values()) if isinstance(value, dict) else bool(value)


# --- entering ---------------------------------------------------------------------------------------------------------------------

OPEN_TIMEOUT = 1.0
"""Seconds. A program that makes itself undumpable stays closed; then the runtime says so."""


def until_open(init: Process) -> Operation[None]:
    """Waits until an ordinary user may enter a container's namespaces, which the kernel keeps from him until its program is executed: crun has made
    itself undumpable (prctl(2), PR_SET_DUMPABLE; ptrace(2)). Nobody tells when that is over."""
    deadline = deadline_in(OPEN_TIMEOUT)
    while not passed(deadline):
        try:
            os.readlink(f"/proc/{init.pid}/ns/user")
            return
        except PermissionError:
            ready = yield Wait((init.pidfd,), (), deadline_in(0.001))
            if ready:
                return
        except OSError:
            return  # it has ended
