"""``pyoci resume``."""

from __future__ import annotations

from pyoci.cli.shared import each, is_alive, several_ids, state_dir

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from pyoci.lifecycle import Life


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "By the freezer of its cgroup. The ids are printed.\n\nExample: pyoci resume --all"
    state_dir(parser)
    several_ids(parser)


def main(options: argparse.Namespace) -> int:
    from pyoci import lifecycle
    from pyoci.waiting import drive

    def is_paused(life: Life) -> bool:
        return is_alive(life) and drive(lifecycle.state(life)) == "paused"

    return each(options, "resuming", lifecycle.resume, fit=is_paused)
