"""``pyoci pause``."""

from __future__ import annotations

from pyoci.cli.shared import each, is_alive, several_ids, state_dir

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "By the freezer of its cgroup: nothing in it runs until pyoci resume. The ids are printed.\n\nExample: pyoci pause job-7"
    state_dir(parser)
    several_ids(parser)


def main(options: argparse.Namespace) -> int:
    from pyoci import lifecycle

    return each(options, "pausing", lifecycle.pause, fit=lambda life: is_alive(life) and not lifecycle.is_created(life))
