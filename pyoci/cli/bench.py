"""``pyoci bench``."""

from __future__ import annotations

from pyoci.cli.output import Progress, print_json
from pyoci.cli.shared import json_lines
from pyoci.errors import InvalidOption

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

SECONDS = 20.0


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = """\
Measures lives of short containers on this machine, one at a time and many at once: pyoci's as it is, without shortcuts, without conmon and from a
warm pool, beside those of the bare runtime and, where it is installed, of podman. All take turns, so that what else the machine does concerns all
alike. "own cpu" is the processor time of pyoci itself for each container."""
    parser.epilog = "Examples:\n  pyoci bench\n  pyoci bench --runtime crun --seconds 60 --json"
    parser.add_argument("--seconds", type=float, default=SECONDS, metavar="N", help=f"about how long to measure (default: {SECONDS:g})")
    parser.add_argument("--runtime", action="append", choices=("crun", "runc"), help="only this one (repeatable; default: those that work here)")
    parser.add_argument("--place", metavar="DIR", help="where to make the directory of the containers, whose path must be short (default: /run)")
    json_lines(parser, "one object: host, load, runtimes, with all figures")


def main(options: argparse.Namespace) -> int:
    from pyoci.bench import short
    from pyoci.runtimes import CANDIDATES

    if not 0 < options.seconds <= 86400:
        raise InvalidOption(f"--seconds must be a positive number, a day's at most, not {options.seconds:g}")
    with Progress() as progress:
        figures = short.run(options.seconds, tuple(options.runtime or CANDIDATES), options.place, lambda what: progress.tell(f"measuring {what} …"))
    if options.json:
        print_json(figures)
    else:
        print(*short.report(figures), sep="\n")
    return 0
