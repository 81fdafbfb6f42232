"""What this host has and lacks for pyoci, each with the way to mend it; proven by launching a container with each runtime.

Every check is a small function and takes a bounded time, whatever the host's state: what is asked of others has a deadline.
"""

from __future__ import annotations

import os
import resource
import sys

from pyoci import advisories, cgroups, conmon, process, rootfs, rootless, runtimes
from pyoci.errors import Error
from pyoci.exits import read_small
from pyoci.process import invoke
from pyoci.waiting import deadline_in, drive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OK = "ok"
NOTE = "note"
MISSING = "missing"
CAP_SYS_ADMIN = 21
BUS_TIMEOUT = 2.0
MOUNT_TIMEOUT = 5.0
LAUNCH_TIMEOUT = 30.0
ENOUGH_FILES = 1024
"""Descriptors for a hundred containers at once: this process keeps four or five for each, pipes included."""
ENOUGH_PIDS = 256
"""A conmon, a runtime's process or two (runc has a dozen threads) and a container, for a few at once."""
ENOUGH_INOTIFY = 128
"""The kernel's own default; conmon takes one for each container on cgroup v2."""
ENOUGH_ROOM = 16 << 20


class Check:
    """One line: what was looked at, ``ok``, ``note`` (works, but) or ``missing``, what was found, and the fix."""

    __slots__ = ("fix", "found", "name", "result")

    def __init__(self, name: str, result: str, found: str, fix: str = "") -> None:
        self.name: str = name
        self.result: str = result
        self.found: str = found
        self.fix: str = fix


def examine(state_dir: str | os.PathLike[str] | None = None) -> Iterator[Check]:
    """Every check, one after another as they are made."""
    simple: tuple[Callable[[], Check], ...] = (
        _system,
        _privileges,
        _user_namespaces,
        _subordinate_ids,
        _conmon,
        _cgroups,
        _delegation,
        _systemd,
        _pids,
        _files,
        _inotify,
        _overlay,
        _rootfs,
    )
    for look in simple:
        yield look()
    yield _state(state_dir)
    yield _leftovers(state_dir)
    works = 0
    for name in runtimes.CANDIDATES:
        check = _runtime(name, state_dir)
        works += check.result == OK
        yield check
        yield from _known_holes(name)
    if works:
        yield Check("a runtime that works", OK, f"pyoci takes {runtimes.choose(conmon.environment(os.environ))} unless told otherwise")
    else:
        yield Check("a runtime that works", MISSING, "none", "see the lines above")


# --- the kernel, and who we are ---------------------------------------------------------------------------------------------------


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
    return Check("privileges", OK, f"user id {os.geteuid()}: containers get a user namespace (docs/rootless.md)")


def _user_namespaces() -> Check:
    name = "user namespaces"
    most = _number("/proc/sys/user/max_user_namespaces")
    if most is None:
        wrong = "this kernel has none"
    else:
        wrong = "user.max_user_namespaces is 0" if most == 0 else (rootless.hindrance() or "") if os.geteuid() != 0 else ""
    if not wrong:
        return Check(name, OK, f"allowed, {most} at most")
    fix = "allow them with sysctl (user.max_user_namespaces, kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns)"
    if os.geteuid() == 0:
        return Check(name, NOTE, f"{wrong}: no container can have one", fix)
    return Check(name, MISSING, f"{wrong}: an ordinary user can have no container", f"{fix}, or run as root (sudo)")


def _subordinate_ids() -> Check:
    name = "subordinate ids"
    if os.geteuid() == 0:
        return Check(name, OK, "root needs none: it maps any")
    ids = sum(mapping["size"] for mapping in rootless.mappings()[0])
    if ids > 1:
        return Check(name, OK, f"{ids} user ids in a container")
    lacking = [path for path in (rootless.SUBUID, rootless.SUBGID) if not _grants(path)] or [" and ".join(rootless.HELPERS)]
    fix = "have ranges granted (usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER), and Debian: apt install uidmap"
    return Check(name, NOTE, f"only root exists in a container, for lack of {', '.join(lacking)}", fix)


def _grants(path: str) -> bool:
    import pwd

    try:
        names = {str(os.geteuid()), pwd.getpwuid(os.geteuid()).pw_name}
        with open(path, "rb") as file:
            return bool(rootless.subordinate(file.read(1 << 20), names))
    except (OSError, KeyError):
        return False


# --- conmon -----------------------------------------------------------------------------------------------------------------------


def _conmon() -> Check:
    try:
        path = runtimes.find_executable("conmon")
        version = runtimes.version_of(path, conmon.environment(os.environ))
    except (Error, OSError) as error:
        return Check("conmon", MISSING, str(error), "install conmon (Debian: apt install conmon)")
    shown = f"{path}, version {_dotted(version)}"
    if version is not None and version < conmon.LEAST_VERSION:
        return Check("conmon", MISSING, shown, f"conmon {_dotted(conmon.LEAST_VERSION)} or newer is needed")
    return Check("conmon", OK, shown)


def _dotted(version: tuple[int, ...] | None) -> str:
    return ".".join(map(str, version)) if version else "unknown"


# --- cgroups and systemd ----------------------------------------------------------------------------------------------------------


def _cgroups() -> Check:
    found = cgroups.read()
    shown = f"{found.layout}, {len(found.mounts)} hierarchies"
    if found.layout == "none":
        fix = "mount one (mount -t cgroup2 none /sys/fs/cgroup), or give specs without limits"
        return Check("cgroups", MISSING, "no cgroup file system is mounted", fix)
    if found.layout == "hybrid":
        return Check("cgroups", NOTE, shown, "crun does not work on a hybrid layout; boot with systemd.unified_cgroup_hierarchy=1 to use it")
    if found.layout == "v2":
        lacking = sorted({"memory", "pids", "cpu"} - _controllers(found.mounts[cgroups.V2]))
        if lacking:
            return Check("cgroups", NOTE, shown, f"limits need these controllers, which are not here: {', '.join(lacking)}")
    return Check("cgroups", OK, shown)


def _controllers(directory: str) -> set[str]:
    return set(cgroups.read_control(f"{directory}/cgroup.controllers").decode().split())


def _delegation() -> Check:
    """Where containers' cgroups go, and whether we may make them there."""
    name = "cgroup delegation"
    found = cgroups.read()
    if found.layout == "none":
        return Check(name, NOTE, "there are no cgroups", "see the line above")
    parent = cgroups.Manager().parent
    if parent is None:
        fix = "on cgroup v2 `systemd-run --user --scope -p Delegate=yes pyoci …` gives one; containers without limits need none"
        return Check(name, NOTE, f"none is delegated to user {os.geteuid()}: no limits, no pausing", fix)
    directories = [f"{point}{parent}" for point in found.points]
    closed = [path for path in directories if not os.access(path, os.W_OK) or _is_read_only(path)]
    if closed:
        fix = "mount it read-write; in a container, have its cgroups delegated (docker run --privileged, podman run --cgroups=split)"
        return Check(name, MISSING, f"no cgroup can be made in {', '.join(closed)}", fix)
    if found.layout == "v2" and (lacking := sorted({"memory", "pids", "cpu"} & _controllers(directories[0]) - _handed_on(directories[0]))):
        shown = f"{directories[0]} can hand {', '.join(lacking)} on; the runtime switches that on"
        return Check(name, OK, shown)
    return Check(name, OK, f"containers' cgroups go below {parent or '/'}")


def _handed_on(directory: str) -> set[str]:
    return set(cgroups.read_control(f"{directory}/cgroup.subtree_control").decode().split())


def _is_read_only(path: str) -> bool:
    try:
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except OSError:
        return True


def _systemd() -> Check:
    """Only for ``cgroup_manager="systemd"``."""
    name = "systemd, D-Bus"
    if not os.path.isdir("/run/systemd/system"):
        return Check(name, OK, "systemd does not run here: cgroup_manager='systemd' cannot be had; the default needs none")
    from pyoci.cgroups.systemd import Systemd

    try:
        return Check(name, OK, f"systemd {drive(Systemd().version(deadline_in(BUS_TIMEOUT)))} answers")
    except (Error, OSError) as error:
        fix = "for cgroup_manager='systemd': pip install 'pyoci-runtime[systemd]', and have D-Bus run (Debian: apt install dbus); as a user, log in"
        return Check(name, NOTE, f"systemd runs, but cannot be asked: {error}", fix)


# --- limits -----------------------------------------------------------------------------------------------------------------------


def _pids() -> Check:
    """The least of what limits processes: the kernel, the user, and the cgroups that we are in."""
    limits = {"kernel.pid_max": _number("/proc/sys/kernel/pid_max"), "kernel.threads-max": _number("/proc/sys/kernel/threads-max")}
    if os.geteuid() != 0:
        soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
        limits["ulimit -u"] = None if soft == resource.RLIM_INFINITY else soft
    limits |= dict(_pids_of_cgroups())
    least = min((value, name) for name, value in limits.items() if value is not None)
    found = f"at most {least[0]} ({least[1]})"
    if least[0] < ENOUGH_PIDS:
        return Check("processes", NOTE, found, f"raise it to {ENOUGH_PIDS} or more: a create needs some 20 for a moment with runc")
    return Check("processes", OK, found)


def _pids_of_cgroups() -> Iterator[tuple[str, int | None]]:
    found = cgroups.read()
    for line in os.fsdecode(cgroups.read_control("/proc/self/cgroup", 65536)).splitlines():
        _, names, path = line.split(":", 2)
        for controller in (name for name in names.split(",") if name in found.mounts and name in (cgroups.V2, "pids")):
            while path not in ("", "/"):
                file = f"{found.mounts[controller]}{path}/pids.max"
                yield file, _number(file)
                path = os.path.dirname(path)


def _files() -> Check:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _number("/proc/sys/fs/file-max")
    used = cgroups.read_control("/proc/sys/fs/file-nr").split()
    found = f"{soft} descriptors for each process (at most {hard}), {int(used[0]) if used else '?'} open on this machine"
    if 0 <= soft < ENOUGH_FILES:
        return Check("open files", NOTE, found, f"raise it with ulimit -n {ENOUGH_FILES} or LimitNOFILE=: each container at work takes four or five")
    if used and most is not None and most - int(used[0]) < ENOUGH_FILES:
        return Check("open files", NOTE, found, "raise fs.file-max with sysctl")
    return Check("open files", OK, found)


def _inotify() -> Check:
    most = _number("/proc/sys/fs/inotify/max_user_instances")
    if most is None:
        return Check("inotify", NOTE, "this kernel has none", "conmon sees an OOM kill by it on cgroup v2; pyoci asks the cgroup, too")
    if most < ENOUGH_INOTIFY:
        fix = f"raise fs.inotify.max_user_instances to {ENOUGH_INOTIFY} or more: conmon takes one for each container on cgroup v2"
        return Check("inotify", NOTE, f"{most} instances for each user", fix)
    return Check("inotify", OK, f"{most} instances for each user")


def _number(path: str) -> int | None:
    """None where there is none, or no limit."""
    found = read_small(path)
    return int(found[0]) if found is not None and found[0].strip().isdigit() else None


# --- file systems -----------------------------------------------------------------------------------------------------------------


def _overlay() -> Check:
    """pyoci itself needs none; who gives each container a root file system of its own over a shared one does."""
    name = "overlay"
    trial = "mount -t tmpfs none $0 && cd $0 && mkdir l u w m && mount -t overlay -o lowerdir=l,upperdir=u,workdir=w none m"
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    try:
        unshare = runtimes.find_executable("unshare")
        from pyoci._ffi import environment_block

        argv = [unshare, *user, "--mount", "sh", "-c", trial, "/tmp"]
        drive(invoke("mounting an overlay", unshare, argv, environment_block(conmon.environment(os.environ)), MOUNT_TIMEOUT))
    except (Error, OSError) as error:
        fix = "load the module (modprobe overlay); only root file systems that you mount yourself need it"
        return Check(name, NOTE, f"cannot be mounted: {error}", fix)
    return Check(name, OK, "can be mounted")


def _rootfs() -> Check:
    try:
        return Check("built-in root file system", OK, rootfs.builtin())
    except (Error, OSError) as error:
        return Check("built-in root file system", NOTE, str(error), "install busybox-static (Debian: apt install busybox-static), or give rootfs=")


def _state(state_dir: str | os.PathLike[str] | None) -> Check:
    from pyoci.store import store_at

    try:
        store = store_at(state_dir)
        store.prepare()
        room = os.statvfs(store.directory)
    except (Error, OSError) as error:
        return Check("state directory", MISSING, str(error), "give a directory of your own with --state-dir")
    found = f"{store.directory}, {len(store.ids())} containers"
    if room.f_bavail * room.f_frsize < ENOUGH_ROOM:
        return Check("state directory", NOTE, f"{found}, {room.f_bavail * room.f_frsize >> 20} MiB of room", "make room: output goes there as well")
    return Check("state directory", OK, found)


def _leftovers(state_dir: str | os.PathLike[str] | None) -> Check:
    from pyoci.runtime import prune

    try:
        found = prune(state_dir, dry_run=True)
    except (Error, OSError) as error:
        return Check("after crashes", NOTE, f"cannot be looked for: {error}", "see the lines above")
    if found:
        return Check("after crashes", NOTE, f"{len(found)} things are dead or orphaned", "look at them with `pyoci prune --dry-run`, and remove them")
    return Check("after crashes", OK, "nothing is left")


# --- runtimes ---------------------------------------------------------------------------------------------------------------------


def _runtime(name: str, state_dir: str | os.PathLike[str] | None) -> Check:
    install = f"install {name} (Debian: apt install {name})"
    try:
        path = runtimes.find_executable(name)
    except (Error, OSError) as error:
        return Check(name, NOTE, str(error), install)
    env = conmon.environment(os.environ)
    why = runtimes.unfit(path, env)
    if why is not None:
        return Check(name, NOTE, f"{path}: {why}", "nothing to mend if another runtime works here; else see the line about cgroups")
    from pyoci.oneshot import run

    try:
        shown = f"{path}, version {_dotted(runtimes.version_of(path, env))}"
        done = run(["true"], runtime=path, state_dir=state_dir, timeout=LAUNCH_TIMEOUT)
    except (Error, OSError) as error:
        fix = "the words above are the runtime's own" if getattr(error, "stderr", b"") else "see the lines above"
        return Check(name, NOTE, f"{path} could not launch a container: {error}", fix)
    if done.returncode != 0:
        return Check(name, NOTE, f"{shown}: a container with `true` gave {done.returncode}: {done.stderr!r}", "the words above are the runtime's own")
    return Check(name, OK, f"{shown}: launched a container in {done.timings['total'] * 1000:.0f} ms")


def _known_holes(name: str) -> Iterator[Check]:
    """What is known of this version, but for what Debian's package says that it has mended."""
    try:
        path = runtimes.find_executable(name)
        line = runtimes.version_line(path, conmon.environment(os.environ))
    except (Error, OSError):
        return
    title = f"{name}'s known holes"
    mended = advisories.mended_by_debian(path)
    holes = [(advisory, [id for id in advisory.ids if id not in (mended or ())]) for advisory in advisories.of(name, line)]
    left = [f"{', '.join(ids)} ({advisory.what})" for advisory, ids in holes if ids]
    by_debian = sum(len(advisory.ids) - len(ids) for advisory, ids in holes)
    if not left:
        yield Check(title, OK, f"{line}: none" + (f" but {by_debian} that Debian has mended" if by_debian else ""))
        return
    told = (
        "Debian's changelog does not name them; see security-tracker.debian.org"
        if mended is not None
        else "a distribution may have mended it all the same"
    )
    yield Check(title, NOTE, f"{line}: {'; '.join(left)}", f"a newer {name}; {told}")
