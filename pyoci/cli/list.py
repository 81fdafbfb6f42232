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
        try:
            state = container.state()
        except ContainerNotFound:
            continue
        except Error:
            state = "unknown"
        code = container.wait(0).code if state == "stopped" else None
        rows.append({"id": container.id, "state": state, "pid": container.pid, "code": code, "directory": container.directory})
    if options.json:
        for row in rows:
            print(json.dumps(row))
    elif not options.quiet:
        width = max([len("ID"), *(len(str(row["id"])) for row in rows)])
        print(f"{'ID':<{width}}  {'STATE':<8}  {'PID':>7}  CODE")
        for row in rows:
            pid, code = ("-" if row[key] is None else row[key] for key in ("pid", "code"))
            print(f"{row['id']:<{width}}  {row['state']:<8}  {pid:>7}  {code}")
    return 0
