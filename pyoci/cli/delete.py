"""``pyoci delete``."""

from __future__ import annotations

from pyoci.cli.shared import each, several_ids, state_dir

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "The ids are printed. With --all those that have ended are removed, with --force as well all that live.\n\nExample: pyoci delete -f job-7"
    )
    state_dir(parser)
    parser.add_argument("-f", "--force", action="store_true", help="kill those that live")
    several_ids(parser)


def main(options: argparse.Namespace) -> int:
    from pyoci import lifecycle

    return each(options, "deleting", lambda life: lifecycle.delete(life, options.force), fit=lambda life: options.force or life.has_ended())
