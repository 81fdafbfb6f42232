"""``pyoci version``."""

from __future__ import annotations

from pyoci.cli.output import print_json
from pyoci.cli.shared import json_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Example: pyoci version --json | jq -r .conmon"
    json_lines(parser, "one object: pyoci, python, kernel, machine, cgroups, conmon, crun, runc")


def main(options: argparse.Namespace) -> int:
    import os
    import platform

    from pyoci import __version__, cgroups, conmon, runtimes
    from pyoci.errors import Error

    env = conmon.environment(os.environ)
    found: dict[str, str] = {
        "pyoci": __version__,
        "python": platform.python_version(),
        "kernel": os.uname().release,
        "machine": os.uname().machine,
        "cgroups": cgroups.read().layout,
    }
    for name in ("conmon", *runtimes.CANDIDATES):
        try:
            path = runtimes.find_executable(name)
            version = runtimes.version_of(path, env)
            found[name] = f"{'.'.join(map(str, version)) if version else 'unknown'} ({path})"
        except (Error, OSError) as error:
            found[name] = f"- ({error})"
    if options.json:
        print_json(found)
    else:
        for name, value in found.items():
            print(f"{name:<8} {value}")
    return 0
