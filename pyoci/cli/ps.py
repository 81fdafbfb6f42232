"""``pyoci ps``."""

from __future__ import annotations

from pyoci.cli.output import print_json, print_table
from pyoci.cli.shared import each, is_alive, json_lines, several_ids, state_dir

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from pyoci.lifecycle import Life
    from pyoci.processes import ContainerProcess
    from pyoci.waiting import Operation


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Pids as we see them; INSIDE is the pid in the container. USER is its name on this host, or its number. STATE as in ps(1);\n"
        "TIME is processor time.\n\n"
        "Example: pyoci ps --all"
    )
    state_dir(parser)
    json_lines(parser, "one object per line: id, pid, ppid, pid_inside, uid, state, seconds, args")
    parser.add_argument("-q", "--quiet", action="store_true", help="only the pids")
    several_ids(parser)


def main(options: argparse.Namespace) -> int:
    from pyoci import processes

    rows: list[dict[str, Any]] = []

    def look(life: Life) -> Operation[list[ContainerProcess]]:
        yield from ()
        return processes.of(life)

    def tell(life: Life, seen: list[ContainerProcess]) -> None:
        rows.extend({"id": life.id, **{name: getattr(one, name) for name in one.__slots__}} for one in seen)

    code = each(options, "looking", look, tell, fit=is_alive)
    if options.json:
        for row in rows:
            print_json(row)
    elif options.quiet:
        for row in rows:
            print(row["pid"])
    elif rows or not code:
        shown = [{**row, "user": user_name(row["uid"]), "time": clock(row["seconds"]), "command": " ".join(row["args"])} for row in rows]
        columns = {"pid": "PID", "ppid": "PPID", "pid_inside": "INSIDE", "user": "USER", "state": "STATE", "time": "TIME", "command": "COMMAND"}
        print_table({"id": "ID", **columns} if len(options.ids) != 1 else columns, shown)
    return code


def user_name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def clock(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
