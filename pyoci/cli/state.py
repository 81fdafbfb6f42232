"""``pyoci state``."""

from __future__ import annotations

from pyoci.cli.output import print_json, print_table
from pyoci.cli.shared import each, json_lines, several_ids, state_dir, told

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from pyoci.lifecycle import Life
    from pyoci.waiting import Operation


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        'States: created, running, paused, stopped; "configured" is one that the runtime does not know any more.\n\nExample: pyoci state --json job-7'
    )
    state_dir(parser)
    json_lines(
        parser, "one object per line: id, state, pid, conmon_pid, code, signal, oom_killed, finished_at, runtime, log_driver, log_path, bundle"
    )
    several_ids(parser)


def main(options: argparse.Namespace) -> int:
    rows: list[dict[str, Any]] = []
    code = each(options, "looking", row_of, lambda _, row: rows.append(row))
    if options.json:
        for row in rows:
            print_json(row)
    elif rows:
        print_table(
            {"id": "ID", "state": "STATE", "pid": "PID", "code": "CODE", "signal": "SIGNAL", "finished_at": "FINISHED", "bundle": "BUNDLE"}, rows
        )
    return code


def row_of(life: Life) -> Operation[dict[str, Any]]:
    """What there is to say of a container."""
    from pyoci import lifecycle
    from pyoci.exits import ExitStatus

    status = yield from lifecycle.state(life)
    is_over = status in ("stopped", "configured")
    ended = (yield from lifecycle.wait(life, 0)) if is_over else ExitStatus(None)
    pid = None if is_over or life.init is None else life.init.pid
    conmon = None if life.conmon is None or life.conmon.has_ended() else life.conmon.pid
    return {
        "id": life.id,
        "state": status,
        "pid": pid,
        "conmon_pid": conmon,
        **told(ended),
        "runtime": life.host.runtime.path,
        "log_driver": life.log_driver,
        "log_path": life.log_path if life.log_driver == "k8s-file" else None,
        "bundle": life.directory,
    }
