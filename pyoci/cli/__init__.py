"""The command line: ``pyoci run``, ``list``, ``doctor``. Each verb's room is imported when it is called.

Exit codes: ``run`` gives the container's own; 125 when pyoci, conmon or the runtime failed, 126 when the program cannot be executed, 127
when it does not exist, as shells, podman and docker have it; 2 for a command line that makes no sense.
"""

from __future__ import annotations

import argparse
import os
import sys

from pyoci import __version__
from pyoci.errors import Error, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

OWN_FAILURE = 125


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="pyoci",
        description="Launches and supervises OCI containers through conmon and runc or crun: no daemon.",
        epilog="Exit codes: the container's own; 125: pyoci, conmon or the runtime failed; 126: the program cannot be executed; "
        "127: there is no such program.",
    )
    top.add_argument("--version", action="version", version=f"pyoci {__version__}")
    top.add_argument("--debug", action="store_true", help="log what is decided, and show tracebacks")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--state-dir", metavar="DIR", help="where containers are kept (root: /run/pyoci; else $XDG_RUNTIME_DIR/pyoci)")

    run = verbs.add_parser(
        "run",
        parents=[common],
        help="run a command in a new container and give its exit code",
        usage="pyoci run [options] [--] CMD [ARG …]",
        epilog="Example: pyoci run --memory 64M --timeout 5 -- sh -c 'echo hello'",
    )
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
    run.add_argument("command", nargs=argparse.REMAINDER, metavar="CMD …", help="the command and its arguments")

    listing = verbs.add_parser("list", parents=[common], help="list the containers")
    listing.add_argument("--json", action="store_true", help="one object per line")
    listing.add_argument("-q", "--quiet", action="store_true", help="only the ids")

    doctor = verbs.add_parser("doctor", parents=[common], help="say what this host has and lacks, and how to mend it")
    doctor.add_argument("--json", action="store_true", help="one object per line")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    options = parser().parse_args(argv)
    if options.debug:
        import logging

        logging.basicConfig(level=logging.DEBUG, format="%(name)s: %(message)s")
    try:
        if options.verb == "run":
            from pyoci.cli import run as verb
        elif options.verb == "list":
            from pyoci.cli import list as verb  # type: ignore[no-redef]
        else:
            from pyoci.cli import doctor as verb  # type: ignore[no-redef]
        return verb.main(options)
    except BrokenPipeError:
        # Who reads our output has gone; what Python still holds for it must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return OWN_FAILURE
    except KeyboardInterrupt:
        return 130
    except (Error, OSError) as error:
        if options.debug:
            raise
        print(f"pyoci: {text(error)}", file=sys.stderr)
        return OWN_FAILURE
