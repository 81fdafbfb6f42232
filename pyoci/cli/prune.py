"""``pyoci prune``."""

from __future__ import annotations

from pyoci.cli import OWN_FAILURE, tell
from pyoci.cli.output import print_json, print_table
from pyoci.cli.shared import duration, json_lines, state_dir, told
from pyoci.errors import InvalidOption

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = """\
Removes what is dead or orphaned: containers that have ended, or were bound to their creator, once the process that created them is gone; what was
left half made; conmons, cgroups, scopes, exit files and networks without a container. What a process that lives has created is not touched, nor is a
container that runs and may outlive its creator. How a container ended is known nowhere else afterwards: it is in the output."""
    parser.epilog = "Examples:\n  pyoci prune --dry-run\n  pyoci prune --older-than 1h"
    state_dir(parser)
    parser.add_argument("-n", "--dry-run", action="store_true", help="only tell")
    parser.add_argument("--created", action="store_true", help="also containers that were never started, and whose creator is gone")
    parser.add_argument("--older-than", metavar="TIME", default="0", help="leave what has ended within this time (90, 15m, 1h30m, 2d)")
    json_lines(parser, "one object per line: kind, id, name, why, parts, status, removed, error")


def main(options: argparse.Namespace) -> int:
    from pyoci.runtime import prune

    age = duration(options.older_than)
    if age is None:
        raise InvalidOption(f"--older-than {options.older_than!r} is no time: give seconds, or a time such as 15m, 1h30m or 2d")
    found = prune(options.state_dir, dry_run=options.dry_run, created=options.created, older_than=age)
    if options.json:
        for item in found:
            status = None if item.status is None else told(item.status)
            what = {"kind": item.kind, "id": item.id, "name": item.name, "why": item.why, "parts": item.parts, "status": status}
            print_json({**what, "removed": not options.dry_run and item.error is None, "error": None if item.error is None else str(item.error)})
    elif found:
        rows = [{"kind": item.kind, "id": item.id, "code": None if item.status is None else item.status.code, "why": item.why} for item in found]
        print_table({"kind": "KIND", "id": "ID", "code": "CODE", "why": "WHY"}, rows)
    failed = [item for item in found if item.error is not None]
    for item in failed:
        tell(f"pyoci: removing the {item.kind} {item.name}: {str(item.error) if item.error is not None else ''}")
    return OWN_FAILURE if failed else 0
