"""Arguments that verbs have in common, and doing one thing to several containers."""

from __future__ import annotations

import argparse

from pyoci.cli import UsageError, complain
from pyoci.errors import Error, InvalidOption, NetworkError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pyoci.container import Container
    from pyoci.exits import ExitStatus
    from pyoci.lifecycle import Life
    from pyoci.waiting import Operation


DESCRIPTORS = 1 << 16


def state_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--state-dir", metavar="DIR", help="where containers are kept (root: /run/pyoci; else $XDG_RUNTIME_DIR/pyoci)")


def json_lines(parser: argparse.ArgumentParser, help: str) -> None:
    """``help`` names the fields, which are stable."""
    parser.add_argument("--json", action="store_true", help=help)


def one_id(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="the container's id")


def several_ids(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ids", nargs="*", metavar="ID", help="ids of containers")
    parser.add_argument("-a", "--all", action="store_true", help="all containers that this can be done to")


def lives(options: argparse.Namespace, fit: Callable[[Life], bool]) -> list[Life | Error]:
    """The containers of ``several_ids``; those that cannot be loaded are told by their error. ``fit``: which of them ``--all`` means."""
    from pyoci import lifecycle
    from pyoci.runtime import on_disk
    from pyoci.store import store_at

    if options.all == bool(options.ids):
        raise UsageError("give the ids of containers, or --all")
    store = store_at(options.state_dir)
    if options.all:
        return [life for life in on_disk(store) if isinstance(life, Error) or fit(life)]
    found: list[Life | Error] = []
    for id in dict.fromkeys(options.ids):
        try:
            found.append(lifecycle.load(store, id))
        except Error as error:
            found.append(error)
    return found


def each(
    options: argparse.Namespace,
    doing: str,
    act: Callable[[Life], Operation[Any]],
    said: Callable[[Life, Any], None] = lambda life, _: print(life.id),
    fit: Callable[[Life], bool] = lambda life: True,
) -> int:
    """Does one thing to each container, side by side; ``said`` is told the results, and prints the id if not given. What goes wrong with one is
    a line on stderr, and the others go on; the exit code is that of the first failure."""
    from pyoci.cli.output import Progress
    from pyoci.waiting import drive_all

    found = lives(options, fit)
    wanted = [life for life in found if not isinstance(life, Error)]
    done = 0

    def counted(life: Life) -> Operation[Any]:
        nonlocal done
        progress.tell(f"{doing}: {done} of {len(wanted)}")
        result = yield from act(life)
        done += 1
        progress.tell(f"{doing}: {done} of {len(wanted)}")
        return result

    with Progress() as progress:
        results = iter(drive_all(map(counted, wanted)))
    code = 0
    for life in found:
        outcome = life if isinstance(life, Error) else next(results)
        if isinstance(outcome, Error | OSError):
            failed = complain(outcome)
            code = code or failed
        elif isinstance(outcome, BaseException):
            raise outcome
        elif not isinstance(life, Error):
            said(life, outcome)
    return code


def container_of(options: argparse.Namespace) -> Container:
    """The container of ``one_id``."""
    from pyoci.container import Container

    return Container.load(options.id, state_dir=options.state_dir)


def is_alive(life: Life) -> bool:
    return not life.has_ended()


def preserved(options: argparse.Namespace) -> tuple[int, ...]:
    """The descriptors of ``--preserve-fds N``: whether they are open is looked at later."""
    if not 0 <= options.preserve_fds <= DESCRIPTORS:
        raise InvalidOption(f"--preserve-fds must be a number of descriptors from 0 to {DESCRIPTORS}, not {options.preserve_fds}")
    return tuple(range(3, 3 + options.preserve_fds))


def command_of(words: list[str]) -> list[str]:
    """A command after the options, with ``--`` before it or without."""
    return words[1:] if words[:1] == ["--"] else words


def duration(text: str) -> float | None:
    """Seconds of "90", "15m", "1h30m" or "2d"; None for what is none."""
    import re

    match = re.fullmatch(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?", text, re.ASCII)
    if not text or match is None:
        return None
    days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


# --- how a container is made ------------------------------------------------------------------------------------------------------


def spec_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``spec.build``."""
    group = parser.add_argument_group("what the command finds")
    group.add_argument("--rootfs", metavar="DIR", help="the root file system; without one a small built-in one of busybox is used, read-only")
    group.add_argument("-w", "--cwd", default="/", metavar="DIR", help="working directory in the container (default: /)")
    group.add_argument("-e", "--env", action="append", default=[], metavar="NAME[=VALUE]", help="environment; NAME alone takes ours (repeatable)")
    group.add_argument("-u", "--user", metavar="USER[:GROUP]", help="names or numbers (default: root)")
    group.add_argument("-v", "--mount", action="append", default=[], metavar="SRC:DST[:ro]", help="bind a directory or file (repeatable)")
    group.add_argument("--hostname", metavar="NAME", help='its host name (default: "container")')
    group.add_argument("-m", "--memory", metavar="SIZE", help="limit, such as 64M")
    group.add_argument("--pids", type=int, metavar="N", help="limit of processes and threads")
    group.add_argument("--cpus", type=float, metavar="N", help="limit of processor time, in processors, such as 0.5")
    write = group.add_mutually_exclusive_group()
    write.add_argument("--read-only", action="store_true", default=None, help="the root file system cannot be written to")
    write.add_argument("--read-write", action="store_false", dest="read_only", help="it can (default, but for the built-in one, which cannot)")
    group.add_argument(
        "--network",
        default="private",
        metavar="private|host|NAME|PATH",
        help="the network namespace; NAME: as ip netns has it (default: private, empty)",
    )


def spec_options(options: argparse.Namespace) -> dict[str, Any]:
    """Of ``spec_arguments``, as ``pyoci.run`` takes them."""
    names = ("rootfs", "cwd", "user", "hostname", "memory", "pids", "cpus", "read_only", "network")
    found = {name: getattr(options, name) for name in names}
    return {**found, "network": network_of(options.network), "env": environment(options.env), "mounts": options.mount}


def network_of(word: str) -> str:
    """What ``spec.build`` takes, and a name of a network namespace as its path. A pool or a bridge belongs to a process that stays."""
    if word in ("private", "host") or word.startswith("/"):
        return word
    from pyoci.networks import NetworkNamespace

    try:
        return NetworkNamespace.load(word).path
    except NetworkError as error:
        raise InvalidOption(f"--network: {error}; private and host are known, and ip netns add makes one with a name") from None


def spec_of(options: argparse.Namespace, command: list[str]) -> dict[str, Any]:
    """The config.json of these arguments and a command."""
    from pyoci import rootfs, spec

    given = spec_options(options)
    if given["rootfs"] is None:
        given["rootfs"] = rootfs.builtin()
    return spec.build(command, **given)


def environment(given: list[str]) -> dict[str, str]:
    """``NAME=VALUE`` as it is, ``NAME`` with our own value if we have one."""
    import os

    env = {}
    for entry in given:
        name, equals, value = entry.partition("=")
        if not name:
            raise InvalidOption(f"--env {entry!r} has no name: give NAME=VALUE")
        if equals:
            env[name] = value
        elif name in os.environ:
            env[name] = os.environ[name]
    return env


def create_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``OCIRuntime`` and of its ``create``."""
    state_dir(parser)
    parser.add_argument("--id", "--name", metavar="ID", help="the container's id; else a new one")
    parser.add_argument("--pid-file", metavar="FILE", help="write the pid of its first process there")
    tools = parser.add_argument_group("who runs it")
    tools.add_argument("--runtime", metavar="NAME|PATH", help="crun, runc or a path; else the fastest that works on this host")
    tools.add_argument(
        "--runtime-arg", action="append", default=[], metavar="ARG", help="one more argument of each call of the runtime: --runtime-arg=--debug"
    )
    tools.add_argument("--conmon", default="conmon", metavar="NAME|PATH", help="conmon, or a path")
    tools.add_argument("--create-timeout", type=float, metavar="SECONDS", help="a create that takes longer has failed")
    tools.add_argument("--no-shortcuts", action="store_true", help="always use the runtime's own commands, if they take longer")
    tools.add_argument("--no-pivot", action="store_true", help="MS_MOVE and chroot in place of pivot_root, as on a ramdisk")
    tools.add_argument("--no-new-keyring", action="store_true", help="keep our session keyring")
    tools.add_argument("--mount-namespace", action="store_true", default=None, help="start conmon in a mount namespace of its own in any case")
    tools.add_argument("--preserve-fds", type=int, default=0, metavar="N", help="pass on N descriptors of ours, from 3 on")
    tools.add_argument("--listen-fds", action="store_true", help="pass on the descriptors of our socket activation")
    tools.add_argument("--notify-socket", metavar="PATH", help="where its READY=1 goes (sd_notify); starting waits for that")
    places = parser.add_argument_group("cgroups")
    places.add_argument("--cgroup-manager", choices=("cgroupfs", "systemd"), default="cgroupfs", help="who makes them (default: cgroupfs)")
    places.add_argument("--cgroup-parent", metavar="PATH|SLICE", help="where its cgroups go")
    places.add_argument("--conmon-cgroup", choices=("separate", "shared"), help="a cgroup of its own for conmon, or ours")
    places.add_argument("--strict-cgroups", action="store_true", help="fail where conmon cannot have its cgroup")
    logs = parser.add_argument_group("its log")
    logs.add_argument("--log-driver", choices=("k8s-file", "journald", "none"), help="where its output goes (default: k8s-file)")
    logs.add_argument("--log-path", metavar="FILE", help="the file of k8s-file; it stays when the container is deleted")
    logs.add_argument("--log-size-max", default=None, metavar="SIZE", help="the file begins anew when it would grow beyond")
    logs.add_argument("--sync-log", action="store_true", help="fsync the log at the end")
    logs.add_argument("--log-level", choices=("error", "warning", "info", "debug", "trace"), help="how much conmon itself says, to syslog")


def runtime_options(options: argparse.Namespace) -> dict[str, Any]:
    """Of ``create_arguments``, what ``OCIRuntime`` takes."""
    defaults: dict[str, Any] = {
        "no_pivot": options.no_pivot,
        "no_new_keyring": options.no_new_keyring,
        "mount_namespace": options.mount_namespace,
        "preserve_fds": preserved(options),
        "listen_fds": options.listen_fds,
        "notify_socket": options.notify_socket or False,
        "log_driver": options.log_driver,
        "log_path": options.log_path,
        "sync_log": options.sync_log,
        "log_level": options.log_level,
    }
    if options.log_size_max is not None:
        defaults["log_size_max"] = options.log_size_max
    if options.create_timeout is not None:
        defaults["create_timeout"] = options.create_timeout
    return {
        **defaults,
        "runtime": options.runtime,
        "runtime_args": options.runtime_arg,
        "conmon_path": options.conmon,
        "state_dir": options.state_dir,
        "shortcuts": not options.no_shortcuts,
        "cgroup_manager": options.cgroup_manager,
        "cgroup_parent": options.cgroup_parent,
        "conmon_cgroup": options.conmon_cgroup,
        "strict_cgroups": options.strict_cgroups,
    }


def created(options: argparse.Namespace, bundle: str | dict[str, Any], *, tty: bool, stdin: bool) -> Container:
    """A container as ``create_arguments`` say; with its pid file, if one is wanted."""
    from pyoci import OCIRuntime
    from pyoci.store import check_pid_file, write_pid

    if options.pid_file is not None:
        check_pid_file(options.pid_file)
    container = OCIRuntime(**runtime_options(options)).create(bundle, options.id, tty=tty or None, stdin=stdin)
    if options.pid_file is not None and container.pid is not None:
        try:
            write_pid(options.pid_file, container.pid)
        except BaseException:
            container.delete(force=True)
            raise
    return container


def exit_code(id: str, code: int | None) -> int:
    """A program's code as ours."""
    if code is None:
        raise Error(f"{id!r} has ended, and nobody knows how")
    return code


def told(status: ExitStatus) -> dict[str, Any]:
    """How something ended, for programs."""
    finished = status.finished_at
    return {
        "code": status.code,
        "signal": status.signal,
        "oom_killed": status.oom_killed,
        "finished_at": None if finished is None else finished.isoformat(),
    }
