"""``pyoci stop``."""

from __future__ import annotations

from pyoci.cli.shared import each, is_alive, several_ids, state_dir

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Several are stopped side by side. One that has ended already is fine. The ids are printed.\n\nExamples:\n"
        "  pyoci stop -t 3 job-7\n  pyoci stop --all"
    )
    state_dir(parser)
    parser.add_argument("-t", "--timeout", type=float, default=10.0, metavar="SECONDS", help="time until KILL (default: 10)")
    parser.add_argument("-s", "--signal", metavar="SIGNAL", help="the first signal (default: the container's own, or TERM)")
    several_ids(parser)


def main(options: argparse.Namespace) -> int:
    from pyoci import lifecycle, spec
    from pyoci.options import seconds

    seconds("--timeout", options.timeout)
    number = None if options.signal is None else spec.signal_number(options.signal)
    return each(options, "stopping", lambda life: lifecycle.stop(life, options.timeout, number), fit=is_alive)
