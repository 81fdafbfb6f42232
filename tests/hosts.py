"""Hosts to run the tests on, made of this machine (docs/hosts.md): ``tests/host KIND [COMMAND…]``."""

from __future__ import annotations

import argparse
import os
import pwd
import select
import shutil
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pyoci import cgroups
from tests import guest, machine, trees

ROOT = Path(__file__).parents[1]
CHECKOUT = "/srv/pyoci"
"""Where it is found on a host with another root: its own place may be below one that such a host has for itself, as /tmp is."""
V2_LACKS = frozenset({"no memory controller", "no pids controller", "no cpu controller", "no cgroup v1 hierarchy"})
"""The controllers belong to the v1 hierarchies of a hybrid machine."""
NEEDS = "needs the host"
USER, USER_ID = "pyoci-tester", 64321
SUBORDINATE_IDS = (1 << 20, 1 << 16)
BOOT_SECONDS = 120


@dataclass(frozen=True)
class Host:
    about: str
    run: Callable[[Host, Sequence[str]], int]
    layout: str = ""
    """Of cgroups (``machine.show_cgroups``); empty: the machine's own."""
    suite: str = ""
    lacks: frozenset[str] = frozenset()


def is_lacking(reason: str) -> bool:
    """A skip's reason names what this host cannot have by its nature."""
    host = KINDS.get(os.environ.get("PYOCI_TESTS_HOST", ""))
    return reason.startswith(NEEDS) or (host is not None and any(what in reason for what in host.lacks))


def native() -> str:
    """The kind of host that this machine is at once, but for its cgroup2 where that is mounted beside v1."""
    return "v1" if cgroups.read().layout in ("v1", "hybrid") else "v2"


def become_v1_host() -> None:
    """On a hybrid host crun refuses to work: this process and its children then live where no cgroup2 is mounted. Elsewhere nothing is done.
    Must be called before there are threads."""
    found = cgroups.read()
    if found.layout != "hybrid" or os.geteuid() != 0:
        return
    machine.unshare(machine.CLONE_NEWNS)
    machine.hide(found.mounts[cgroups.V2])


def mount_tmpfs(path: str) -> None:
    """A tmpfs that only this process and its children see: state lies in memory on most machines' /run, but not on all."""
    machine.unshare(machine.CLONE_NEWNS)
    machine.mount("tmpfs", path, "mode=0755")


def enter(kind: str) -> int | None:
    """``machine.enter`` as a host of this kind, and with no containers but its own."""
    code = machine.enter(_name(), KINDS[kind].layout or native())
    if code is None:
        os.environ["PYOCI_TESTS_HOST"] = kind
        os.makedirs("/run/pyoci", 0o700, exist_ok=True)
        machine.mount("tmpfs", "/run/pyoci", "mode=0700")  # what an interrupted run leaves goes with it
    return code


def _name() -> str:
    return f"pyoci-tests-{os.getpid()}"


def _as_it_stands(host: Host, command: Sequence[str]) -> int:
    code = enter(_kind_of(host))
    return _execute(command, {**os.environ, "PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}:/usr/sbin:/sbin"}) if code is None else code


def _as_user(host: Host, command: Sequence[str]) -> int:
    code = enter(_kind_of(host))
    if code is None:
        with machine.end_at_errors():
            environment = _become_user()
        code = _execute(command, environment)
    return code


def add_lines(lines: dict[str, str], place: str) -> None:
    """To files in /etc that are there, as only this mount namespace sees them; ``place``: a directory for the changed ones."""
    for name, line in lines.items():
        if os.path.exists(f"/etc/{name}"):
            Path(place, name).write_text(f"{Path('/etc', name).read_text()}{line}\n")
            machine.bind(f"{place}/{name}", f"/etc/{name}")


def _become_user() -> dict[str, str]:
    """An account that only this machine knows, with subordinate ids; what it must read is shown where root's home hides it."""
    show(str(ROOT), sys.base_prefix, replaced={"/run": "mode=0755", "/tmp": "mode=1777"})
    home, runtime = f"/run/home/{USER}", f"/run/user/{USER_ID}"
    for directory in (home, runtime):
        os.makedirs(directory)
        os.chown(directory, USER_ID, USER_ID)
        os.chmod(directory, 0o700)
    first, count = SUBORDINATE_IDS
    subordinate = f"{USER}:{first}:{count}"
    lines = {"passwd": f"{USER}:x:{USER_ID}:{USER_ID}::{home}:/bin/sh", "group": f"{USER}:x:{USER_ID}:", "subuid": subordinate, "subgid": subordinate}
    add_lines(lines, "/run")
    os.setgroups([])
    os.setgid(USER_ID)
    os.setuid(USER_ID)
    assert pwd.getpwuid(USER_ID).pw_name == USER
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PYOCI_", "LANG", "LC_", "TERM")) or name == "CI"}
    path = f"{ROOT}/.venv/bin:/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
    mine = {"HOME": home, "USER": USER, "LOGNAME": USER, "XDG_RUNTIME_DIR": runtime, "PATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    # The checkout is not the user's to write to.
    return kept | mine | {"HYPOTHESIS_STORAGE_DIRECTORY": f"{home}/hypothesis", "PYTEST_ADDOPTS": f"-o cache_dir={home}/pytest"}


def show(*paths: str, replaced: Mapping[str, str] | None = None) -> None:
    """Makes these reachable for everybody, at their places: of a directory above them that others may not enter, only they are shown.
    ``replaced``: directories that get a tmpfs with these options in any case."""
    options = replaced or {}
    closed: dict[str, list[tuple[str, int]]] = {top: [] for top in options}
    for path in paths:
        above = [str(parent) for parent in reversed(Path(path).parents)]
        top = next((parent for parent in above if parent in options or not os.stat(parent).st_mode & 0o001), None)
        if top is not None:
            closed.setdefault(top, []).append((path, os.open(path, os.O_PATH)))
    for top, shown in closed.items():
        machine.mount("tmpfs", top, options.get(top, "mode=0755"))
        for path, fd in shown:
            os.makedirs(path, exist_ok=True)
            machine.bind(f"/proc/self/fd/{fd}", path)
            os.close(fd)


def _change_root(host: Host, tree: Path, extension: Path) -> None:
    compiled = extension.read_bytes()
    machine.change_root(str(tree), {str(ROOT): CHECKOUT}, host.layout)
    native = Path(CHECKOUT, "pyoci", "_native.abi3.so")
    native.unlink(missing_ok=True)
    native.write_bytes(compiled)


def _tree_environment(host: Host) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name.startswith("PYOCI_") or name in ("CI", "TERM")}
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return kept | {"PYOCI_TESTS_HOST": _kind_of(host), "HOME": "/root", "LANG": "C.UTF-8", "PATH": path}


def _under_systemd(host: Host, command: Sequence[str]) -> int:
    """systemd is process 1; the command runs in a scope of its own, with our stdin, stdout and stderr."""
    tree, extension, name = trees.tree(host.suite), trees.extension(host.suite), _name()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready, machine.signals_held():
        ready.bind(f"\0{name}")
        made = machine.start(name)
        if made is None:
            with machine.end_at_errors():
                _change_root(host, tree, extension)
                machine.forget_signals()
                # The container interface of systemd: it says when it is up, and leaves the machine outside alone.
                environment = {"container": "pyoci-tests", "NOTIFY_SOCKET": f"@{name}", "LANG": "C.UTF-8"}
                argv = ["systemd", "--system", "--unit=basic.target", "--log-target=journal", "--show-status=no"]
                os.execve("/lib/systemd/systemd", argv, environment)
        assert made is not None
        try:
            _wait_for_systemd(ready, made.first)
            variables = [f"{name}={value}" for name, value in _tree_environment(host).items()]
            enter = ["nsenter", f"--target={made.first}", "--mount", "--uts", "--ipc", "--pid", "--cgroup", "env", "-i", "-C", CHECKOUT, *variables]
            scope = ["sh", "-c", 'systemctl start dbus.socket && exec systemd-run --scope --quiet --collect -- "$@"', "sh"]
            return made.run([*enter, *scope, *command])
        finally:
            made.kill()


def _booted(host: Host, command: Sequence[str]) -> int:
    return guest.run(command, _tree_environment(host))


def _wait_for_systemd(ready: socket.socket, first: int) -> None:
    pidfd = os.pidfd_open(first)
    deadline = time.monotonic() + BOOT_SECONDS
    try:
        while True:
            readable, _, _ = select.select([ready.fileno(), pidfd], [], [], max(deadline - time.monotonic(), 0))
            if ready.fileno() in readable and b"READY=1" in ready.recv(4096).split(b"\n"):
                return
            if pidfd in readable or not readable:
                raise SystemExit(f"hosts: systemd {'ended' if readable else f'was not up within {BOOT_SECONDS} s'}")
    finally:
        os.close(pidfd)


def _execute(command: Sequence[str], environment: dict[str, str], directory: str | Path = ROOT) -> int:
    """In the machine: never returns."""
    with machine.end_at_errors():
        machine.forget_signals()
        os.chdir(directory)
        program = shutil.which(command[0], path=environment["PATH"])
        if program is None:
            print(f"hosts: no {command[0]} on this host", file=sys.stderr)
            machine.leave(127)
        os.execve(program, list(command), environment)
    raise AssertionError


KINDS = {
    "v1": Host("this machine with the cgroup v1 hierarchies alone", _as_it_stands, "v1"),
    "user": Host("this machine, as an ordinary user", _as_user, lacks=frozenset({"needs root"})),
    "v2": Host("this machine with cgroup2 alone", _as_it_stands, "v2", lacks=V2_LACKS | {"crun"}),
    "systemd": Host("Debian 12 on cgroup2 with systemd as process 1, D-Bus and journald", _under_systemd, "systemd", "bookworm", V2_LACKS | {"crun"}),
    "debian13": Host("the same of Debian 13", _under_systemd, "systemd", "trixie", V2_LACKS),
    "guest": Host("a whole Debian 12 machine under emulation, with SELinux and every v2 controller", _booted, "v2", "guest"),
}


def _kind_of(host: Host) -> str:
    return next(kind for kind, other in KINDS.items() if other is host)


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/host", description="Runs a command on such a host; without one, the integration tests.")
    parser.add_argument("kind", choices=KINDS, help="; ".join(f"{kind}: {host.about}" for kind, host in KINDS.items()))
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND…")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("hosts are made of namespaces and need root: sudo tests/host", file=sys.stderr)
        return 1
    if "PYOCI_TESTS_HOST" in os.environ:
        print("this is a host already", file=sys.stderr)
        return 1
    host = KINDS[options.kind]
    marks = "host or guest" if options.kind == "guest" else "not once"  # it is slow
    return host.run(host, options.command or ["python3", "-m", "tests.twice", "tests/integration", "-m", marks])


if __name__ == "__main__":
    sys.exit(main())
