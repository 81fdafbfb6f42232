"""``pyoci start``."""

from __future__ import annotations

from pyoci.cli import UsageError
from pyoci.cli.shared import each, several_ids, state_dir

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Prints the ids. With --attach the output is passed on, and the exit code is the container's.\n\nExamples:\n"
        "  pyoci start job-7 job-8\n  pyoci start -Ai job-7"
    )
    state_dir(parser)
    parser.add_argument("-A", "--attach", action="store_true", help="pass its output on, until it ends (one container)")
    parser.add_argument(
        "-i", "--interactive", action="store_true", help="with --attach: pass our stdin on, if it was created with --interactive or --tty"
    )
    several_ids(parser)


def main(options: argparse.Namespace) -> int:
    from pyoci import lifecycle

    if not options.attach:
        if options.interactive:
            raise UsageError("--interactive needs --attach")
        return each(options, "starting", lifecycle.start, fit=lambda life: not life.has_ended() and lifecycle.is_created(life))
    if options.all or len(options.ids) != 1:
        raise UsageError("--attach is for one container: give its id")
    from pyoci.cli.attaching import attended
    from pyoci.container import Container

    return attended(Container.load(options.ids[0], state_dir=options.state_dir), interactive=options.interactive)
