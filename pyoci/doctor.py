"""What this host has and lacks for pyoci, each with the way to mend it; proven by launching a container with each runtime."""

from __future__ import annotations

import os
import sys

from pyoci import cgroups, conmon, process, rootfs, rootless, runtimes
from pyoci.errors import Error, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

OK = "ok"
NOTE = "note"
MISSING = "missing"
CAP_SYS_ADMIN = 21


class Check:
    """One line: what was looked at, ``ok``, ``note`` (works, but) or ``missing``, what was found, and the fix."""

    __slots__ = ("fix", "found", "name", "result")

    def __init__(self, name: str, result: str, found: str, fix: str = "") -> None:
        self.name = name
        self.result = result
        self.found = found
        self.fix = fix


def examine(state_dir: str | os.PathLike[str] | None = None) -> Iterator[Check]:
    """Every check, one after another as they are made."""
    yield _system()
    yield _privileges()
    yield from _conmon()
    yield _cgroups()
    yield _rootfs()
    yield _state(state_dir)
    works = 0
    for name in runtimes.CANDIDATES:
        check = _runtime(name, state_dir)
        works += check.result == OK
        yield check
    if works:
        yield Check("a runtime that works", OK, f"pyoci takes {runtimes.choose(conmon.environment(os.environ))} unless told otherwise")
    else:
        yield Check("a runtime that works", MISSING, "none", "see the lines above")


def _system() -> Check:
    release = os.uname()
    found = f"Linux {release.release} {release.machine}, Python {sys.version.split()[0]}"
    numbers = tuple(int(part) for part in release.release.split("-")[0].split(".")[:2] if part.isdigit())
    if numbers < (5, 4):
        return Check("kernel", MISSING, found, "Linux 5.4 or newer is needed: it has pidfds that can be waited for")
    if numbers < (6, 15):
        return Check("kernel", NOTE, found, "from Linux 6.15 on the exit code is known even when conmon was killed")
    return Check("kernel", OK, found)


def _privileges() -> Check:
    if os.geteuid() == 0:
        if not process.has_capability(CAP_SYS_ADMIN):
            fix = "run outside of the container that this probably is, or give it the capability (docker run --privileged)"
            return Check("privileges", MISSING, "root, without CAP_SYS_ADMIN", fix)
        return Check("privileges", OK, "root")
    found = f"user id {os.geteuid()}: containers get a user namespace"
    hindrance = rootless.hindrance()
    if hindrance is not None:
        return Check("privileges", MISSING, f"{found}, which is forbidden: {hindrance}", "allow it with sysctl, or run as root (sudo)")
    ids = sum(mapping["size"] for mapping in rootless.mappings()[0])
    more = "for other users than root in it: ranges in /etc/subuid and /etc/subgid, and newuidmap (Debian: apt install uidmap)"
    return Check("privileges", OK if ids > 1 else NOTE, f"{found} with {ids} user {'id' if ids == 1 else 'ids'}", more if ids == 1 else "")


def _conmon() -> Iterator[Check]:
    try:
        path = runtimes.find_executable("conmon")
        version = runtimes.version_of(path, conmon.environment(os.environ))
    except (Error, OSError) as error:
        yield Check("conmon", MISSING, text(error), "install conmon (Debian: apt install conmon)")
        return
    shown = f"{path}, version {_dotted(version)}"
    if version is not None and version < conmon.LEAST_VERSION:
        yield Check("conmon", MISSING, shown, f"conmon {_dotted(conmon.LEAST_VERSION)} or newer is needed")
    else:
        yield Check("conmon", OK, shown)


def _dotted(version: tuple[int, ...] | None) -> str:
    return ".".join(map(str, version)) if version else "unknown"


def _cgroups() -> Check:
    found = cgroups.read()
    shown = f"{found.layout}, {len(found.mounts)} hierarchies"
    if found.layout == "none":
        return Check(
            "cgroups", MISSING, "no cgroup file system is mounted", "mount one (mount -t cgroup2 none /sys/fs/cgroup), or give specs without limits"
        )
    if found.layout == "hybrid":
        return Check("cgroups", NOTE, shown, "crun does not work on a hybrid layout; boot with systemd.unified_cgroup_hierarchy=1 to use it")
    if found.layout == "v2":
        try:
            with open(f"{found.mounts[cgroups.V2]}/cgroup.controllers") as file:
                controllers = set(file.read().split())
        except OSError:
            controllers = set()
        lacking = sorted({"memory", "pids", "cpu"} - controllers)
        if lacking:
            return Check("cgroups", NOTE, shown, f"limits need these controllers, which are not here: {', '.join(lacking)}")
    return Check("cgroups", OK, shown)


def _rootfs() -> Check:
    try:
        return Check("built-in root file system", OK, rootfs.builtin())
    except (Error, OSError) as error:
        return Check("built-in root file system", NOTE, text(error), "install busybox-static (Debian: apt install busybox-static), or give rootfs=")


def _state(state_dir: str | os.PathLike[str] | None) -> Check:
    from pyoci.store import store_at

    try:
        store = store_at(state_dir)
        store.prepare()
    except (Error, OSError) as error:
        return Check("state directory", MISSING, text(error), "give a directory of your own with --state-dir")
    return Check("state directory", OK, f"{store.directory}, {len(store.ids())} containers")


def _runtime(name: str, state_dir: str | os.PathLike[str] | None) -> Check:
    install = f"install {name} (Debian: apt install {name})"
    try:
        path = runtimes.find_executable(name)
    except (Error, OSError) as error:
        return Check(name, NOTE, text(error), install)
    env = conmon.environment(os.environ)
    why = runtimes.unfit(path, env)
    if why is not None:
        return Check(name, NOTE, f"{path}: {why}", "nothing to mend if another runtime works here; else see the line about cgroups")
    from pyoci.oneshot import run

    try:
        shown = f"{path}, version {_dotted(runtimes.version_of(path, env))}"
        done = run(["true"], runtime=path, state_dir=state_dir, timeout=30)
    except (Error, OSError) as error:
        fix = "the words above are the runtime's own" if getattr(error, "stderr", b"") else "see the lines above"
        return Check(name, NOTE, f"{path} could not launch a container: {text(error)}", fix)
    if done.returncode != 0:
        return Check(name, NOTE, f"{shown}: a container with `true` gave {done.returncode}: {done.stderr!r}", "the words above are the runtime's own")
    return Check(name, OK, f"{shown}: launched a container in {done.timings['total'] * 1000:.0f} ms")
