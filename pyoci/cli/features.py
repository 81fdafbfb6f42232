"""``pyoci features``."""

from __future__ import annotations

from pyoci.cli.output import print_json, print_table
from pyoci.cli.shared import json_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "What `RUNTIME features` says (runtime-spec, features.md); crun has that from 1.8.5 on, before that what its --version says.\n"
        "With --json the runtime's own answer is in `features`, null where it gives none.\n\nExample: pyoci features --json runc"
    )
    json_lines(parser, "one object for each runtime: runtime, path, version, works_here, why_not, specification, what it can do, features")
    parser.add_argument("runtimes", nargs="*", metavar="RUNTIME", help="names or paths (default: crun and runc, where they are)")


def main(options: argparse.Namespace) -> int:
    from pyoci import runtimes
    from pyoci.errors import ExecutableError, NoRuntime

    rows = []
    for name in options.runtimes or runtimes.CANDIDATES:
        try:
            rows.append(row_of(runtimes.find_executable(name)))
        except ExecutableError:
            if options.runtimes:
                raise
    if not rows:
        raise NoRuntime("no OCI runtime was found: install one (Debian: apt install runc, or crun)", {})
    if options.json:
        for row in rows:
            print_json(row)
        return 0
    names = [name for name in rows[0] if name not in ("features", "runtime", "path", "why_not")]
    table = [{"what": name.replace("_", " "), **{row["runtime"]: word(row[name]) for row in rows}} for name in names]
    print_table({"what": "", **{row["runtime"]: str(row["runtime"]).upper() for row in rows}}, table)
    for row in rows:
        if row["why_not"] is not None:
            print(f"{row['runtime']}: {row['why_not']}")
    return 0


def word(value: Any) -> Any:
    return {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value


def row_of(path: str) -> dict[str, Any]:
    import os

    from pyoci import conmon, runtimes
    from pyoci.errors import ProtocolError, RuntimeFailed
    from pyoci.waiting import drive

    env = conmon.environment(os.environ)
    why = runtimes.unfit(path, env)
    version, words = runtimes.version_of(path, env), runtimes.build_words(path, env)
    features: dict[str, Any] | None
    try:
        features = drive(runtimes.features(path, env))
    except (RuntimeFailed, ProtocolError):
        features = None  # it does not know the question
    linux = (features or {}).get("linux") or {}

    def enabled(name: str) -> bool | None:
        if features is not None:
            value = (linux.get(name) or {}).get("enabled")
            return None if value is None else bool(value)
        return f"+{name.upper()}" in words if words else None

    cgroup = linux.get("cgroup") or {}
    return {
        "runtime": os.path.basename(path),
        "path": path,
        "version": ".".join(map(str, version)) if version else None,
        "works_here": why is None,
        "why_not": why,
        "specification": (features or {}).get("ociVersionMax"),
        "cgroup_v1": cgroup.get("v1"),
        "cgroup_v2": cgroup.get("v2"),
        "systemd": cgroup.get("systemd") if features is not None else enabled("systemd"),
        "seccomp": enabled("seccomp"),
        "apparmor": enabled("apparmor"),
        "selinux": enabled("selinux"),
        "features": features,
    }
