"""config.json (OCI runtime-spec): sound defaults, checking before anything starts, and resolving relative paths. Nothing here runs anything.

A spec is a plain ``dict``, as JSON has it. The defaults are podman's and docker's, but for seccomp: no filter is set, because a sound one
is libseccomp's work; give ``linux.seccomp`` in a spec of your own.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Mapping, Sequence

from pyoci.errors import InvalidOption, InvalidSpec
from pyoci.options import path as a_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, NoReturn

VERSION = "1.0.2"
CONFIG = "config.json"
CONFIG_LIMIT = 16 * 1024 * 1024
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)
"""podman's default set."""

MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

# No /sys/fs/cgroup and no /dev/mqueue: few programs look for them, and each mount costs every container time.
_MOUNTS: tuple[dict[str, Any], ...] = (
    {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "noexec", "strictatime", "mode=755", "size=65536k"]},
    {
        "destination": "/dev/pts",
        "type": "devpts",
        "source": "devpts",
        "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    },
    {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
)
_SYSFS = {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]}
# sysfs can only be mounted by the owner of the network namespace; the host's is the host's own, so it is bound.
_SYS_OF_THE_HOST = {"destination": "/sys", "type": "bind", "source": "/sys", "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]}

NAMESPACES = frozenset(("pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time"))


# --- making one -------------------------------------------------------------------------------------------------------------------


def build(
    args: Sequence[str],
    *,
    rootfs: str | os.PathLike[str],
    cwd: str = "/",
    env: Mapping[str, str] | None = None,
    user: str | int | None = None,
    mounts: Sequence[str | Mapping[str, Any]] = (),
    hostname: str | None = None,
    memory: int | str | None = None,
    pids: int | None = None,
    cpus: float | None = None,
    read_only: bool | None = None,
    network: str = "private",
) -> dict[str, Any]:
    """A spec for running ``args`` in the root file system ``rootfs``.

    ``cwd``: an absolute path in the container. ``env``: added to PATH and TERM, nothing of ours. ``user``: ``UID``, ``UID:GID`` or names,
    which are looked up in the root file system's /etc/passwd and /etc/group. ``mounts``: ``SOURCE:DESTINATION[:ro]`` (bound; a relative
    source counts from our working directory) or mappings as in config.json. ``hostname``: "container" if None. ``memory``: bytes, or
    "64M"; swap included. ``pids``: processes and threads. ``cpus``: processors' worth of time, such as 0.5. ``read_only``: of the root file
    system; /tmp is then a tmpfs; None: of the built-in one (``rootfs.builtin()``), which is everybody's and never written to: where it lacks a mount
    point or the working directory, the spec names a copy that has them. ``network``: "private" (a new namespace, empty but for a loopback), "host",
    or the absolute path of a network namespace.

    Raises InvalidOption. All namespaces but the user's are the container's own, and for an ordinary user that one, too (``rootless.adapt``); the
    capabilities are podman's default set, without new privileges."""
    command = arguments(args)
    if not isinstance(cwd, str):
        raise InvalidOption(f"cwd must be an absolute path in the container, as str, not {cwd!r:.200}")
    root = os.path.abspath(a_path("rootfs", rootfs))
    is_builtin = _is_builtin(root)
    if read_only is None:
        read_only = is_builtin
    elif is_builtin and read_only is False:
        raise InvalidOption("read_only=False: the built-in root file system is shared by all: make a copy (shutil.copytree(…, symlinks=True))")
    process_env = {"PATH": PATH, "TERM": "xterm", **environment(env)}
    capabilities = list(CAPABILITIES)
    all_mounts: list[Any] = [*_MOUNTS, _SYS_OF_THE_HOST if network == "host" else _SYSFS]
    if read_only:
        all_mounts.append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"]})
    all_mounts += _mounts(mounts)
    if is_builtin and (mounts or cwd != "/"):
        root = _with_points(cwd, all_mounts)
    config = {
        "ociVersion": VERSION,
        "root": {"path": root, "readonly": read_only},
        "hostname": "container" if hostname is None else _hostname(hostname),
        "process": {
            "terminal": False,
            "user": user_ids(user, root),
            "args": command,
            "env": [f"{name}={value}" for name, value in process_env.items()],
            "cwd": cwd,
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
            "noNewPrivileges": True,
        },
        "mounts": all_mounts,
        "linux": {
            "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, *_network(network)],
            "resources": _resources(memory, pids, cpus),
            "maskedPaths": list(MASKED),
            "readonlyPaths": list(READ_ONLY),
        },
    }
    if os.geteuid() != 0:
        from pyoci.rootless import adapt

        return adapt(config)
    return config


def _is_builtin(root: str) -> bool:
    from pyoci.rootfs import is_builtin

    return is_builtin(root)


def _with_points(cwd: str, mounts: Sequence[Mapping[str, Any]]) -> str:
    """The built-in root file system in which the runtime need not make anything: neither a mount point nor the working directory."""
    from pyoci.rootfs import builtin, with_points

    root = builtin()
    mounted: dict[str, bool] = {}
    for mount in mounts:
        destination = mount.get("destination")
        if isinstance(destination, str):
            mounted[os.path.normpath(destination)] = not _binds_file(mount)
    # What lies below another mount is made in what is mounted there; what is no path at all is refused when the spec is checked.
    points = {
        point: is_directory
        for point, is_directory in {os.path.normpath(cwd): True, **mounted}.items()
        if point.startswith("/")
        and "\0" not in point
        and not os.path.lexists(root + point)
        and not any(point.startswith(f"{place}/") for place in mounted if place != "/")
    }
    return with_points(points) if points else root


def _binds_file(mount: Mapping[str, Any]) -> bool:
    """What it binds is no directory: a file, a socket, a device."""
    source = mount.get("source")
    return _is_bind(mount) and isinstance(source, str) and not os.path.isdir(source)


def _is_bind(mount: Mapping[str, Any]) -> bool:
    options = mount.get("options")
    return mount.get("type") == "bind" or (isinstance(options, list) and ("bind" in options or "rbind" in options))


def arguments(args: Sequence[str]) -> list[str]:
    """A command, as a list. Raises InvalidOption."""
    if isinstance(args, str | bytes):
        raise InvalidOption(f"args must be a list of strings, not {args!r:.200}; for a shell: ['sh', '-c', {args!r:.200}]")
    if not isinstance(args, list | tuple) and not isinstance(args, Sequence):
        raise InvalidOption(f"args must be a list of strings, not {args!r:.200}")
    if not args:
        raise InvalidOption(f"args must be a non-empty list of strings, not {args!r}")
    for i, argument in enumerate(args):
        if not isinstance(argument, str):
            raise InvalidOption(f"args must be a list of strings, and args[{i}] is {argument!r:.200}")
    return list(args)


def environment(env: Mapping[str, str] | None) -> Mapping[str, str]:
    """What is added to a process's environment. Raises InvalidOption."""
    if env is None:
        return {}
    if not isinstance(env, Mapping):
        raise InvalidOption(f"env must map names to strings, not be {env!r:.200}")
    for name, value in env.items():
        if not isinstance(name, str) or not isinstance(value, str) or not name or "=" in name or "\0" in name + value:
            raise InvalidOption(f"env must map names to strings, without '=' in a name and without NULs, not {name!r:.200} to {value!r:.200}")
    return env


def _hostname(given: str) -> str:
    if not isinstance(given, str) or not 0 < len(given.encode("utf-8", "surrogateescape")) <= 64:
        raise InvalidOption(f"hostname must be a name of 1 to at most 64 bytes (sethostname(2)), not {given!r:.200}")
    return given


def _network(network: str) -> list[dict[str, str]]:
    if network == "host":
        return []
    if network == "private":
        return [{"type": "network"}]
    if isinstance(network, str) and network.startswith("/"):
        return [{"type": "network", "path": network}]
    raise InvalidOption(f'network must be "private", "host" or the absolute path of a network namespace, not {network!r}')


def _resources(memory: int | str | None, pids: int | None, cpus: float | None) -> dict[str, Any]:
    resources: dict[str, Any] = {"devices": [{"allow": False, "access": "rwm"}]}
    if memory is not None:
        limit = parse_size(memory, "memory")
        resources["memory"] = {"limit": limit, "swap": limit}
    if pids is not None:
        if type(pids) is not int or pids < 1:
            raise InvalidOption(f"pids must be a whole number from 1 on, not {pids!r}")
        resources["pids"] = {"limit": pids}
    if cpus is not None:
        # The kernel takes quotas from 1 ms on (cfs_quota_us).
        if isinstance(cpus, bool) or not isinstance(cpus, int | float) or not 0.01 <= cpus <= 1e6:
            raise InvalidOption(f"cpus must be a number of processors from 0.01 on, not {cpus!r}")
        resources["cpu"] = {"period": 100_000, "quota": round(cpus * 100_000)}
    return resources


def parse_size(size: int | str, name: str = "a size") -> int:
    """Bytes of 67108864, "67108864", "64M", "64MiB": K, M, G and T are powers of 1024. Raises InvalidOption."""
    match = re.fullmatch(r"(\d{1,19})(?:([kmgt])(?:i?b)?|b)?", str(size), re.ASCII | re.IGNORECASE) if type(size) in (int, str) else None
    number = int(match[1]) << {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}[(match[2] or "").lower()] if match else 0
    if not 0 < number < 1 << 63:
        raise InvalidOption(f'{name} must be a positive number of bytes, or one such as "64M" or "2G", not {size!r:.200}')
    return number


def _mounts(mounts: Sequence[str | Mapping[str, Any]]) -> list[dict[str, Any]]:
    if isinstance(mounts, str | bytes) or not isinstance(mounts, Sequence):
        raise InvalidOption(f"mounts must be a list, of SOURCE:DESTINATION[:ro] or mappings, not {mounts!r:.200}")
    made = []
    for mount in mounts:
        if isinstance(mount, str):
            made.append(_bind(mount))
        elif isinstance(mount, Mapping):
            made.append(dict(mount))
        else:
            raise InvalidOption(f"a mount must be SOURCE:DESTINATION[:ro], or a mapping as in config.json, not {mount!r:.200}")
    return made


def _bind(text: str) -> dict[str, Any]:
    source, _, rest = text.partition(":")
    destination, _, mode = rest.partition(":")
    if not source or not destination.startswith("/") or mode not in ("", "ro", "rw"):
        raise InvalidOption(f"a mount must be SOURCE:DESTINATION[:ro] with an absolute destination, not {text!r}")
    source = os.path.abspath(source)
    if not os.path.exists(source):
        raise InvalidOption(f"the source of the mount {text!r} does not exist: {source}")
    return {"destination": destination, "type": "bind", "source": source, "options": ["rbind", "nosuid", "nodev", mode or "rw"]}


def user_ids(user: str | int | None, root: str) -> dict[str, Any]:
    """``process.user`` of ``UID``, ``UID:GID`` or names; those are looked up in the root file system's /etc. Raises InvalidOption."""
    if user is None:
        return {"uid": 0, "gid": 0}
    if isinstance(user, bool) or not isinstance(user, int | str):
        raise InvalidOption(f"user must be USER[:GROUP], by number or by name, not {user!r}")
    name, colon, group = str(user).partition(":")
    if not name or name.startswith("-") or (colon and not group) or ":" in group:
        raise InvalidOption(f"user must be USER[:GROUP], by number or by name, not {user!r:.200}")
    entry = _entry(root, "passwd", name) if not name.isdecimal() else None
    uid = int(entry[2]) if entry else _id(name, user)
    if colon:
        gid = _id(group, user) if group.isdecimal() else int(_entry(root, "group", group)[2])
    else:
        gid = int(entry[3]) if entry and len(entry) > 3 and entry[3].isdecimal() else 0
    return {"uid": uid, "gid": gid}


def _id(text: str, user: object) -> int:
    if not text.isdecimal() or int(text) >= (1 << 32) - 1:
        raise InvalidOption(f"user must be USER[:GROUP], by number or by name, not {user!r}")
    return int(text)


def _entry(root: str, file: str, name: str) -> list[str]:
    """The line of a name in the container's passwd(5) or group(5). The root file system is not trusted: no link is followed out of it, and
    nothing else than a regular file of moderate size is read."""
    path = f"{root}/etc/{file}"
    content = b""
    try:
        etc = os.open(f"{root}/etc", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=etc)
        finally:
            os.close(etc)
        try:
            if stat.S_ISREG(os.fstat(fd).st_mode):
                content = os.read(fd, 1 << 20)
        finally:
            os.close(fd)
    except OSError as error:
        raise InvalidOption(f"the user or group {name!r} cannot be looked up: {path}: {error.strerror}") from None
    for line in content.decode("utf-8", "surrogateescape").splitlines():
        fields = line.split(":")
        if name and fields[0] == name and len(fields) > 2 and fields[2].isdecimal():
            return fields
    raise InvalidOption(f"there is no {name!r} in {path}; give a number")


# --- reading and checking one -----------------------------------------------------------------------------------------------------


def load(bundle: str | os.PathLike[str], name: str = CONFIG) -> dict[str, Any]:
    """The config.json of a bundle directory. Raises InvalidSpec that names the path and what is wrong with it."""
    path = os.path.join(bundle, name)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        what = "there is no such bundle directory" if not os.path.exists(bundle) else f"the bundle has no {name}"
        raise InvalidSpec(f"{path}: {what}") from None
    except OSError as error:
        raise InvalidSpec(f"{path}: {error.strerror}") from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise InvalidSpec(f"{path}: not a regular file")
        if status.st_size > CONFIG_LIMIT:
            raise InvalidSpec(f"{path}: {status.st_size} bytes; at most {CONFIG_LIMIT} are read")
        with open(fd, "rb", closefd=False) as file:
            content = file.read(CONFIG_LIMIT)
    finally:
        os.close(fd)
    try:
        config = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidSpec(f"{path}: not JSON: {error}") from None
    if not isinstance(config, dict):
        raise InvalidSpec(f"{path}: must be a JSON object, not {_kind(config)}")
    return config


def _kind(value: object) -> str:
    return {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}.get(type(value), "a number")


class _Checker:
    """Looks into a spec field by field; what it meets first that cannot work is raised."""

    __slots__ = ("where",)

    def __init__(self, where: str) -> None:
        self.where = where

    def refuse(self, field: str, what: str) -> NoReturn:
        raise InvalidSpec(f"{self.where}: {field}: {what}")

    def mapping(self, parent: Mapping[str, Any], field: str, *, required: bool = False) -> Mapping[str, Any]:
        value = parent.get(field.rpartition(".")[2])
        if value is None and not required:
            return {}
        if value is None:
            self.refuse(field, "is missing")
        if not isinstance(value, dict):
            self.refuse(field, f"must be an object, not {_kind(value)}")
        return value

    def text(self, parent: Mapping[str, Any], field: str, *, required: bool = False, absolute: bool = False, empty: bool = False) -> str | None:
        value = parent.get(field.rpartition(".")[2])
        if value is None and not required:
            return None
        if value is None:
            self.refuse(field, "is missing")
        if not isinstance(value, str):
            self.refuse(field, f"must be a string, not {_kind(value)}")
        if not value and not empty:
            self.refuse(field, "must not be empty")
        self.clean(field, value)
        if absolute and not value.startswith("/"):
            self.refuse(field, f"must be an absolute path, not {value!r}")
        return value

    def clean(self, field: str, value: str) -> None:
        if "\0" in value:
            self.refuse(field, f"holds a NUL: {value!r}")
        if not value.isascii() and not value.isprintable():
            try:
                value.encode()
                return
            except UnicodeEncodeError:
                pass  # told below, where it is not in the way
            self.refuse(field, f"is not valid text, as config.json is JSON, which holds UTF-8 alone: {value!r:.200}")

    def texts(self, parent: Mapping[str, Any], field: str, *, required: bool = False) -> Sequence[str]:
        value = parent.get(field.rpartition(".")[2])
        if value is None and not required:
            return ()
        if not isinstance(value, list) or (required and not value) or not all(isinstance(item, str) for item in value):
            self.refuse(field, f"must be a {'non-empty ' if required else ''}list of strings, not {value!r:.200}")
        for item in value:
            self.clean(field, item)
        return value

    def whole(self, parent: Mapping[str, Any], field: str, least: int, most: int) -> None:
        value = parent.get(field.rpartition(".")[2])
        if value is not None and (type(value) is not int or not least <= value <= most):
            self.refuse(field, f"must be a whole number from {least} to {most}, not {value!r:.200}")

    def boolean(self, parent: Mapping[str, Any], field: str) -> None:
        value = parent.get(field.rpartition(".")[2])
        if value is not None and type(value) is not bool:
            self.refuse(field, f"must be true or false, not {value!r:.200}")

    def objects(self, parent: Mapping[str, Any], field: str) -> Iterable[tuple[str, Mapping[str, Any]]]:
        value = parent.get(field.rpartition(".")[2])
        if value is None:
            return
        if not isinstance(value, list):
            self.refuse(field, f"must be a list, not {_kind(value)}")
        for i, item in enumerate(value):
            if not isinstance(item, dict):
                self.refuse(f"{field}[{i}]", f"must be an object, not {_kind(item)}")
            yield f"{field}[{i}]", item


UINT32 = (1 << 32) - 1
INT64 = (1 << 63) - 1


def check(config: Mapping[str, Any], where: str) -> None:
    """Checks a resolved spec for what conmon, the runtime and pyoci itself rely on (runtime-spec, config.md and config-linux.md), so that a
    mistake is told before anything starts. Fields that are not known here pass. ``where`` names the spec in messages. Raises InvalidSpec."""
    checker = _Checker(where)
    version = checker.text(config, "ociVersion", required=True)
    if not re.fullmatch(r"1\.\d+\.\d+([-+].*)?", version or "", re.ASCII):
        checker.refuse("ociVersion", f"must be 1.x.y, not {version!r}")
    root = checker.mapping(config, "root", required=True)
    path = checker.text(root, "root.path", required=True)
    checker.boolean(root, "root.readonly")
    if path is not None and not os.path.isdir(path):
        checker.refuse("root.path", f"{path} {'is not a directory' if os.path.lexists(path) else 'does not exist'}")
    checker.text(config, "hostname", empty=True)
    _check_process(checker, checker.mapping(config, "process", required=True))
    for field, mount in checker.objects(config, "mounts"):
        checker.text(mount, f"{field}.destination", required=True, absolute=True)
        checker.text(mount, f"{field}.type", empty=True)
        checker.text(mount, f"{field}.source", empty=True)
        checker.texts(mount, f"{field}.options")
    for name, value in checker.mapping(config, "annotations").items():
        if not isinstance(value, str):
            checker.refuse(f"annotations.{name}", f"must be a string, not {_kind(value)}")
    _check_stop_signal(checker, config)
    _check_hooks(checker, checker.mapping(config, "hooks"))
    _check_linux(checker, checker.mapping(config, "linux"))


def check_process(process: Mapping[str, Any], where: str) -> None:
    """As ``check``, for the process object of an exec."""
    _check_process(_Checker(where), process)


def _check_process(checker: _Checker, process: Mapping[str, Any]) -> None:
    args = checker.texts(process, "process.args", required=True)
    if not args[0]:
        checker.refuse("process.args", "the first must name a program, and is empty")
    checker.text(process, "process.cwd", required=True, absolute=True)
    for entry in checker.texts(process, "process.env"):
        if "=" not in entry or entry.startswith("="):
            checker.refuse("process.env", f"must hold NAME=VALUE, not {entry!r}")
    checker.boolean(process, "process.terminal")
    checker.boolean(process, "process.noNewPrivileges")
    user = checker.mapping(process, "process.user")
    checker.whole(user, "process.user.uid", 0, UINT32 - 1)
    checker.whole(user, "process.user.gid", 0, UINT32 - 1)
    groups = user.get("additionalGids")
    if groups is not None and not (isinstance(groups, list) and all(type(gid) is int and 0 <= gid < UINT32 for gid in groups)):
        checker.refuse("process.user.additionalGids", f"must be a list of group ids, not {groups!r:.200}")
    capabilities = checker.mapping(process, "process.capabilities")
    for name in capabilities:
        checker.texts(capabilities, f"process.capabilities.{name}")
    for field, limit in checker.objects(process, "process.rlimits"):
        checker.text(limit, f"{field}.type", required=True)
        checker.whole(limit, f"{field}.soft", 0, (1 << 64) - 1)
        checker.whole(limit, f"{field}.hard", 0, (1 << 64) - 1)


def _check_stop_signal(checker: _Checker, config: Mapping[str, Any]) -> None:
    name = checker.mapping(config, "annotations").get(STOP_SIGNAL)
    if name is not None:
        try:
            signal_number(name)
        except InvalidOption as error:
            checker.refuse(f"annotations.{STOP_SIGNAL}", str(error))


def _check_hooks(checker: _Checker, hooks: Mapping[str, Any]) -> None:
    for stage in hooks:
        for field, hook in checker.objects(hooks, f"hooks.{stage}"):
            checker.text(hook, f"{field}.path", required=True, absolute=True)
            checker.texts(hook, f"{field}.args")
            checker.texts(hook, f"{field}.env")
            checker.whole(hook, f"{field}.timeout", 1, INT64)


def is_namespace(path: str) -> bool:
    """A namespace (nsfs), and not only the file that one was mounted on."""
    try:
        return os.stat(path).st_dev == os.stat("/proc/self/ns/net").st_dev
    except OSError:
        return False


def _check_linux(checker: _Checker, linux: Mapping[str, Any]) -> None:
    for field, namespace in checker.objects(linux, "linux.namespaces"):
        kind = checker.text(namespace, f"{field}.type", required=True)
        if kind not in NAMESPACES:
            checker.refuse(f"{field}.type", f"{kind!r} is none of {', '.join(sorted(NAMESPACES))}")
        path = checker.text(namespace, f"{field}.path", absolute=True, empty=True)
        if path and not is_namespace(path):
            checker.refuse(f"{field}.path", f"{path} {'is no namespace' if os.path.exists(path) else 'does not exist'}")
    cgroups_path = checker.text(linux, "linux.cgroupsPath", empty=True)
    if cgroups_path and ".." in cgroups_path.split("/"):
        checker.refuse("linux.cgroupsPath", f"must not hold '..': {cgroups_path!r}")
    resources = checker.mapping(linux, "linux.resources")
    memory = checker.mapping(resources, "linux.resources.memory")
    for name in ("limit", "reservation", "swap"):
        checker.whole(memory, f"linux.resources.memory.{name}", -1, INT64)
    checker.whole(checker.mapping(resources, "linux.resources.pids"), "linux.resources.pids.limit", -1, INT64)
    cpu = checker.mapping(resources, "linux.resources.cpu")
    checker.whole(cpu, "linux.resources.cpu.shares", 0, (1 << 64) - 1)
    checker.whole(cpu, "linux.resources.cpu.quota", -1, INT64)
    checker.whole(cpu, "linux.resources.cpu.period", 0, (1 << 64) - 1)
    checker.texts(linux, "linux.maskedPaths")
    checker.texts(linux, "linux.readonlyPaths")
    for field in ("uidMappings", "gidMappings"):
        for item, mapping in checker.objects(linux, f"linux.{field}"):
            for name in ("containerID", "hostID", "size"):
                checker.whole(mapping, f"{item}.{name}", 0, UINT32)


def working_directory() -> str:
    """Ours. Raises InvalidOption when it was deleted."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        raise InvalidOption("the working directory was deleted, and relative paths count from it: change to one that exists") from None


def resolve(config: Mapping[str, Any], bundle: str | None) -> dict[str, Any]:
    """A copy in which ``root.path`` (without symbolic links) and the sources of bind mounts are absolute, counted from the bundle (or from
    our working directory): the container's own directory is another one. The caller's mapping is not changed, and what does not change is
    shared with it."""
    resolved = dict(config)
    base = working_directory() if bundle is None else bundle
    root = config.get("root")
    if isinstance(root, dict) and isinstance(root.get("path"), str) and root["path"] and "\0" not in root["path"]:
        # runc refuses a path with a symbolic link in it.
        resolved["root"] = {**root, "path": os.path.realpath(os.path.join(base, root["path"]))}
    mounts = config.get("mounts")
    if isinstance(mounts, list):
        resolved["mounts"] = [_resolve_mount(mount, base) for mount in mounts]
    return resolved


def _resolve_mount(mount: Any, base: str) -> Any:
    if not isinstance(mount, dict):
        return mount
    source = mount.get("source")
    if not isinstance(source, str) or not source or source.startswith("/"):
        return mount
    if not _is_bind(mount):
        return mount
    return {**mount, "source": os.path.normpath(f"{base}/{source}")}


_ENCODER = json.JSONEncoder(separators=(",", ":"))


def encode(config: Mapping[str, Any]) -> bytes:
    """The spec as config.json holds it."""
    return _ENCODER.encode(config).encode()


# --- signals ----------------------------------------------------------------------------------------------------------------------

STOP_SIGNAL = "org.opencontainers.image.stopSignal"
"""The annotation (image-spec, annotations.md) that names the stop signal."""


def signal_number(signal: int | str) -> int:
    """15, "TERM", "SIGTERM" or "15" → 15. Raises InvalidOption."""
    from signal import Signals

    number = 0
    if isinstance(signal, int) and not isinstance(signal, bool):  # signal.SIGTERM is an int, too
        number = signal
    elif isinstance(signal, str) and signal.isdecimal() and len(signal) < 4:
        number = int(signal)
    elif isinstance(signal, str):
        name = signal.upper()
        number = getattr(Signals.__members__.get(name if name.startswith("SIG") else f"SIG{name}"), "value", 0)
    if not 1 <= number <= 64:
        raise InvalidOption(f"{signal!r} is no signal: give a number from 1 to 64 or a name such as TERM")
    return int(number)
