"""``pyoci list``."""

from __future__ import annotations

import json

from pyoci.errors import ContainerNotFound, Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


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
            print(json.dumps(row))
    elif not options.quiet:
        width = max([len("ID"), *(len(str(row["id"])) for row in rows)])
        print(f"{'ID':<{width}}  {'STATE':<10}  {'PID':>7}  CODE")
        for row in rows:
            shown = {key: "-" if value is None else value for key, value in row.items()}
            print(f"{shown['id']:<{width}}  {shown['state']:<10}  {shown['pid']:>7}  {shown['code']}")
    return 0
