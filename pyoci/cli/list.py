"""``pyoci list``."""

from __future__ import annotations

from pyoci.cli import complain
from pyoci.cli.output import columns_of, print_json, print_table
from pyoci.cli.shared import json_lines, state_dir
from pyoci.errors import ContainerNotFound, Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from pyoci.container import Container


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Examples:\n  pyoci list\n  pyoci list --json | jq -r 'select(.state == \"stopped\") | .id'"
    state_dir(parser)
    json_lines(parser, "one object per line: id, state, pid, code, runtime, created, args, directory")
    parser.add_argument("-q", "--quiet", action="store_true", help="only the ids")


def main(options: argparse.Namespace) -> int:
    from pyoci.container import Container
    from pyoci.runtime import on_disk
    from pyoci.store import store_at

    rows: list[dict[str, Any]] = []
    failed = 0
    for life in on_disk(store_at(options.state_dir)):
        if isinstance(life, Error):
            failed = complain(life)
            continue
        container = Container._of(life)
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
        runtime, created, args = _about(container)
        rows.append(
            {
                "id": container.id,
                "state": state,
                "pid": container.pid,
                "code": code,
                "runtime": runtime,
                "created": created,
                "args": args,
                "directory": container.directory,
            }
        )
    if options.json:
        for row in rows:
            print_json(row)
    elif not options.quiet:
        shown = [{**row, "created": row["created"] and row["created"][:19].replace("T", " "), "command": " ".join(row["args"])} for row in rows]
        print_table(columns_of("id", "state", "pid", "code", "runtime", "created", "command"), shown)
    return failed


def _about(container: Container) -> tuple[str, str | None, list[str]]:
    """Its runtime's name, when it was created (local time, ISO 8601), and its command. As far as its config.json tells: it may be going."""
    import os
    from datetime import datetime

    from pyoci import spec

    try:
        born = os.stat(f"{container.directory}/config.json").st_mtime
        args = spec.load(container.directory)["process"]["args"]
        return container._life.host.runtime.name, datetime.fromtimestamp(born).astimezone().isoformat(timespec="seconds"), list(map(str, args))
    except (Error, OSError, KeyError, TypeError):
        return container._life.host.runtime.name, None, []
