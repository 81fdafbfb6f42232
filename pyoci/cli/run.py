"""``pyoci run``."""

from __future__ import annotations

import os
import sys

from pyoci.cli import OWN_FAILURE
from pyoci.cli.shared import command_of, state_dir
from pyoci.errors import InvalidOption

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def arguments(run: argparse.ArgumentParser) -> None:
    from argparse import REMAINDER

    run.usage = "pyoci run [options] [--] CMD [ARG …]"
    run.epilog = "Example: pyoci run --memory 64M --timeout 5 -- sh -c 'echo hello'"
    state_dir(run)
    run.add_argument("--rootfs", metavar="DIR", help="the root file system; without one a small built-in one of busybox is used, read-only")
    run.add_argument("--runtime", metavar="NAME|PATH", help="crun, runc or a path; else the fastest that works on this host")
    run.add_argument("--id", help="the container's id; else a new one")
    run.add_argument("-w", "--cwd", default="/", metavar="DIR", help="working directory in the container (default: /)")
    run.add_argument("-e", "--env", action="append", default=[], metavar="NAME[=VALUE]", help="environment; NAME alone takes ours (repeatable)")
    run.add_argument("-u", "--user", metavar="USER[:GROUP]", help="names or numbers (default: root)")
    run.add_argument("-v", "--mount", action="append", default=[], metavar="SRC:DST[:ro]", help="bind a directory or file (repeatable)")
    run.add_argument("--hostname")
    run.add_argument("-m", "--memory", metavar="SIZE", help="limit, such as 64M")
    run.add_argument("--pids", type=int, metavar="N", help="limit of processes and threads")
    run.add_argument("--cpus", type=float, metavar="N", help="limit of processor time, in processors, such as 0.5")
    write = run.add_mutually_exclusive_group()
    write.add_argument("--read-only", action="store_true", default=None, help="the root file system cannot be written to")
    write.add_argument("--read-write", action="store_false", dest="read_only", help="it can (default, but for the built-in one)")
    run.add_argument("--network", default="private", metavar="private|host|PATH", help="the network namespace (default: private, empty)")
    run.add_argument("-i", "--interactive", action="store_true", help="pass our stdin on; else the command reads nothing")
    run.add_argument("--timeout", type=float, metavar="SECONDS", help="kill the container after this time; the exit code is then 124")
    run.add_argument("command", nargs=REMAINDER, metavar="CMD …", help="the command and its arguments")


def main(options: argparse.Namespace) -> int:
    from pyoci.oneshot import run

    command = command_of(options.command)
    if not command:
        raise InvalidOption("run needs a command: pyoci run [options] [--] CMD [ARG …]")
    done = run(
        command,
        rootfs=options.rootfs,
        runtime=options.runtime,
        state_dir=options.state_dir,
        id=options.id,
        cwd=options.cwd,
        env=environment(options.env),
        user=options.user,
        mounts=options.mount,
        hostname=options.hostname,
        memory=options.memory,
        pids=options.pids,
        cpus=options.cpus,
        read_only=options.read_only,
        network=options.network,
        timeout=options.timeout,
        stdin=0 if options.interactive else None,
        stdout=None,
        stderr=None,
    )
    if done.returncode is None:
        print(f"pyoci: the container {done.id} ended, and nobody knows how", file=sys.stderr)
        return OWN_FAILURE
    return 128 - done.returncode if done.returncode < 0 else done.returncode


def environment(given: list[str]) -> dict[str, str]:
    """``NAME=VALUE`` as it is, ``NAME`` with our own value if we have one."""
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
