"""``pyoci logs``."""

from __future__ import annotations

from pyoci.cli.output import print_json
from pyoci.cli.shared import container_of, duration, json_lines, one_id, state_dir
from pyoci.errors import InvalidOption

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "What it wrote to stdout comes on ours, what it wrote to stderr on stderr.\n\nExamples:\n"
        "  pyoci logs -f -n 10 job-7\n  pyoci logs --since 10m -t job-7\n  pyoci logs --since 2026-11-23T15:00:00Z --stream stderr job-7"
    )
    state_dir(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the container has ended")
    parser.add_argument("-n", "--tail", type=int, metavar="N", help="only the last N lines of what is there")
    parser.add_argument("--since", metavar="TIME", help="only what was written since: 90, 10m, 1h30m ago, or a time such as 2026-11-23T15:00:00Z")
    parser.add_argument("--stream", choices=("stdout", "stderr"), help="only this one")
    parser.add_argument("-t", "--timestamps", action="store_true", help="the time before each line")
    json_lines(parser, "one object per line: time, stream, text, whole")
    one_id(parser)


def main(options: argparse.Namespace) -> int:
    import os

    since = None if options.since is None else moment(options.since)
    for entry in container_of(options).logs(follow=options.follow, tail=options.tail, since=since, stream=options.stream):
        if options.json:
            print_json({"time": stamp(entry.time_ns), "stream": entry.stream, "text": entry.text, "whole": entry.is_whole})
            continue
        line = entry.data + b"\n" if entry.is_whole else entry.data
        if options.timestamps:
            line = f"{stamp(entry.time_ns)} ".encode() + line
        left = memoryview(line)
        while left:
            left = left[os.write(2 if entry.stream == "stderr" else 1, left) :]
    return 0


def stamp(time_ns: int) -> str:
    """RFC 3339, in UTC, to the nanosecond."""
    from datetime import UTC, datetime

    seconds, rest = divmod(time_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09}Z"


def moment(text: str) -> float:
    """Seconds since the epoch of "10m" (ago) or of a time; one without a zone is local."""
    import time
    from datetime import datetime

    age = duration(text)
    if age is not None:
        return max(time.time() - age, 0)
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise InvalidOption(f"--since must be a time such as 2026-11-23T15:00:00Z, or how long ago, such as 90, 10m or 1h30m, not {text!r}") from None
