"""``pyoci run``."""

from __future__ import annotations

import os
import sys

from pyoci.errors import InvalidOption

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

TIMED_OUT = 124
"""As timeout(1)."""


def main(options: argparse.Namespace) -> int:
    from pyoci.oneshot import RunTimeout, run

    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        raise InvalidOption("run needs a command: pyoci run [options] [--] CMD [ARG …]")
    try:
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
    except RunTimeout as error:
        print(f"pyoci: {error}", file=sys.stderr)
        return TIMED_OUT
    if done.returncode is None:
        print(f"pyoci: the container {done.id} ended, and nobody knows how", file=sys.stderr)
        return 125
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
