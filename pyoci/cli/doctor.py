"""``pyoci doctor``."""

from __future__ import annotations

from pyoci.cli.output import print_json
from pyoci.cli.shared import json_lines, state_dir

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Launches one container with each runtime. The exit code is 1 when something is missing.\n\n"
        "Example: pyoci doctor --json | jq 'select(.result != \"ok\")'"
    )
    state_dir(parser)
    json_lines(parser, "one object per line: name, result (ok, note, missing), found, fix")


def main(options: argparse.Namespace) -> int:
    from pyoci.doctor import examine

    failed = False
    for check in examine(options.state_dir):
        failed = failed or check.result == "missing"
        if options.json:
            print_json({"name": check.name, "result": check.result, "found": check.found, "fix": check.fix})
        else:
            print(f"{check.result:<8} {check.name}: {check.found}", flush=True)
            if check.fix:
                print(f"{'':<8} → {check.fix}", flush=True)
    return 1 if failed else 0
