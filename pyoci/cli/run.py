"""``pyoci run``."""

from __future__ import annotations

from pyoci.cli import UsageError
from pyoci.cli.output import print_json
from pyoci.cli.shared import command_of, create_arguments, created, exit_code, json_lines, runtime_options, spec_arguments, spec_of, spec_options
from pyoci.errors import CreateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any


def arguments(parser: argparse.ArgumentParser) -> None:
    from argparse import REMAINDER

    parser.usage = "pyoci run [options] [--] CMD [ARG …]"
    parser.epilog = (
        "The container is removed at the end. INT, TERM, HUP and QUIT are passed on to it, and end it where it has no handler for them,\n"
        "or when one comes a second time. With --detach it stays when it has ended, for pyoci logs, wait, state, exec, delete.\n\n"
        "Examples:\n  pyoci run --memory 64M --timeout 5 -- sh -c 'echo hello'\n  pyoci run -it sh\n"
        "  pyoci run -d --id web --network host -- httpd -f && pyoci logs -f web"
    )
    parser.add_argument("-d", "--detach", action="store_true", help="print its id and leave it running")
    parser.add_argument("-i", "--interactive", action="store_true", help="pass our stdin on; else the command reads nothing")
    parser.add_argument("-t", "--tty", action="store_true", help="a terminal for it")
    parser.add_argument("--rm", action="store_true", help="remove it at the end: what is done in any case, but with --detach")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="kill the container after this time; the exit code is then 124")
    json_lines(parser, "capture its output, and print one object at the end: id, code, signal, oom_killed, stdout, stderr, timings")
    create_arguments(parser)
    spec_arguments(parser)
    parser.add_argument("command", nargs=REMAINDER, metavar="CMD …", help="the command and its arguments")


def main(options: argparse.Namespace) -> int:
    from pyoci.options import seconds

    command = command_of(options.command)
    if not command:
        raise UsageError("run needs a command: pyoci run [options] [--] CMD [ARG …]")
    if options.detach and (options.rm or options.timeout is not None or options.json):
        raise UsageError("--detach leaves the container alone: --rm, --timeout and --json are not for it; see pyoci wait, stop, delete")
    if options.tty and options.json:
        raise UsageError("--json captures the output, which goes to the terminal with --tty: leave one of them out")
    if options.timeout is not None:
        seconds("--timeout", options.timeout)
    if options.detach or options.tty:
        return held(options, command)
    for name in ("log_driver", "log_path", "log_size_max", "pid_file"):
        if getattr(options, name) is not None:
            raise UsageError(f"--{name.replace('_', '-')} is for --detach and --tty: the output comes here, and goes to no log")
    return at_once(options, command)


def at_once(options: argparse.Namespace, command: list[str]) -> int:
    """As ``pyoci.run``."""
    from pyoci import ids, lifecycle
    from pyoci.cli.signals import Passing
    from pyoci.oneshot import run
    from pyoci.runtime import RuntimeBase
    from pyoci.terminal import Interrupted

    host = RuntimeBase(**{**runtime_options(options), "log_driver": None, "sync_log": False})
    shown: dict[str, Any] = {} if options.json else {"stdout": None, "stderr": None}
    id = ids.new() if options.id is None else options.id
    try:
        with Passing(find=lambda: lifecycle.load(host._host.store, id)) as passing:
            done = run(
                command,
                **spec_options(options),
                id=id,
                runtime=host,
                timeout=options.timeout,
                stdin=0 if options.interactive else None,
                on_start=passing.started,
                **shown,
            )
    except Interrupted as interrupt:
        return 128 + interrupt.signal
    code, signal = (done.returncode, None) if done.returncode is None or done.returncode >= 0 else (128 - done.returncode, -done.returncode)
    if options.json:
        words = {name: getattr(done, name).decode("utf-8", "replace") for name in ("stdout", "stderr")}
        print_json({"id": done.id, "code": code, "signal": signal, "oom_killed": done.oom_killed, **words, "timings": done.timings})
    return exit_code(done.id, code)


def held(options: argparse.Namespace, command: list[str]) -> int:
    """A container with a log, or with a terminal."""
    import os

    from pyoci import runtimes
    from pyoci.cli import complain
    from pyoci.cli.attaching import attended

    config = spec_of(options, command)
    try:
        container = created(options, config, tty=options.tty, stdin=options.interactive)
    except CreateError as error:
        code = runtimes.says_program(error.stderr, command[0])
        if code is None:
            raise
        complain(error)
        is_missing = command[0].startswith("/") and not os.path.lexists(config["root"]["path"] + command[0])
        return 127 if is_missing else code
    keep = False
    try:
        if options.detach:
            container.start()
            print(container.id, flush=True)
            keep = True  # somebody knows of it
            return 0
        return attended(container, interactive=options.interactive, timeout=options.timeout)
    finally:
        if not keep:
            container.delete(force=True)
