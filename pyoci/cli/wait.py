"""``pyoci wait``."""

from __future__ import annotations

from pyoci.cli.output import print_json
from pyoci.cli.shared import each, json_lines, several_ids, state_dir, told

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from pyoci.exits import ExitStatus
    from pyoci.lifecycle import Life


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        'Prints an exit code for each, in the order given; "-" when nobody knows it. Its own exit code is 0 then, 124 after --timeout.\n\n'
        "Example: pyoci wait job-7 job-8"
    )
    state_dir(parser)
    json_lines(parser, "one object per line: id, code, signal, oom_killed, finished_at")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="wait no longer; they go on")
    several_ids(parser)


def main(options: argparse.Namespace) -> int:
    from pyoci import lifecycle
    from pyoci.options import seconds

    if options.timeout is not None:
        seconds("--timeout", options.timeout)

    def tell(life: Life, status: ExitStatus) -> None:
        if options.json:
            print_json({"id": life.id, **told(status)})
        else:
            print("-" if status.code is None else status.code)

    return each(options, "waiting", lambda life: lifecycle.wait(life, options.timeout), tell)
