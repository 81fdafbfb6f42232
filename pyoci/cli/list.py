"""``pyoci list``."""

from __future__ import annotations

from pyoci.cli.output import print_json, print_table
from pyoci.cli.shared import json_lines, state_dir
from pyoci.errors import ContainerNotFound, Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Examples:\n  pyoci list\n  pyoci list --json | jq -r 'select(.state == \"stopped\") | .id'"
    state_dir(parser)
    json_lines(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="only the ids")


def main(options: argparse.Namespace) -> int:
    from pyoci.runtime import stored

    rows = []
    for container in stored(options.state_dir):
        if options.quiet:
            print(container.id)
            continue
        state: str
        try:
            state = container.state()
        except ContainerNotFound:
            continue
        except Error:
            state = "unknown"
        code = container.wait(0).code if state in ("stopped", "configured") else None
        rows.append({"id": container.id, "state": state, "pid": container.pid, "code": code, "directory": container.directory})
    if options.json:
        for row in rows:
            print_json(row)
    elif not options.quiet:
        print_table({"id": "ID", "state": "STATE", "pid": "PID", "code": "CODE"}, rows)
    return 0
