"""``pyoci doctor``."""

from __future__ import annotations

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def main(options: argparse.Namespace) -> int:
    from pyoci.doctor import examine

    failed = False
    for check in examine(options.state_dir):
        failed = failed or check.result == "missing"
        if options.json:
            print(json.dumps({"name": check.name, "result": check.result, "found": check.found, "fix": check.fix}), flush=True)
        else:
            print(f"{check.result:<8} {check.name}: {check.found}", flush=True)
            if check.fix:
                print(f"{'':<8} → {check.fix}", flush=True)
    return 1 if failed else 0
