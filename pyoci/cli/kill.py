"""``pyoci kill``."""

from __future__ import annotations

from pyoci.cli.shared import each, is_alive, several_ids, state_dir

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "The signal goes to the container's first process, which, as process 1 of its namespace, only gets those that it has a handler for,\n"
        "KILL excepted. The ids of those that were sent it are printed.\n\nExample: pyoci kill -s HUP job-7"
    )
    state_dir(parser)
    parser.add_argument("-s", "--signal", default="KILL", metavar="SIGNAL", help="a name or a number (default: KILL)")
    several_ids(parser)


def main(options: argparse.Namespace) -> int:
    from pyoci import lifecycle, spec

    number = spec.signal_number(options.signal)
    return each(options, "killing", lambda life: lifecycle.kill(life, number), fit=is_alive)
