"""A small CI runner: the steps of a job file, one after another, each in a fresh container that shares the job's workspace.

    # job.toml
    memory = "512M"            # of each step; also pids, cpus, network, env, timeout, rootfs
    [[steps]]
    name = "build"
    run = "cc -o hello hello.c"
    [[steps]]
    name = "test"
    run = "./hello | grep hello"
    timeout = 30

The output is shown as it comes. The first step that fails ends the job, and its exit code is the runner's.
"""

import argparse
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyoci

OPTIONS = ("memory", "pids", "cpus", "network", "env", "timeout", "rootfs", "user")
TIMED_OUT = 124
WRONG_JOB = 2


def steps(job: Mapping[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """(name, shell commands, options of run) of each. Raises ValueError."""
    found = []
    for number, step in enumerate(job.get("steps", []), 1):
        name = step.get("name", f"step {number}")
        unknown = set(step) - {"name", "run", *OPTIONS}
        if not isinstance(step.get("run"), str) or unknown:
            raise ValueError(f"{name}: {f'unknown: {min(unknown)}' if unknown else 'run must hold shell commands'}")
        given = {option: source[option] for source in (job, step) for option in OPTIONS if option in source}
        found.append((name, step["run"], {**given, "env": {**job.get("env", {}), **step.get("env", {})}}))
    if not found:
        raise ValueError("there are no steps")
    return found


def run(name: str, commands: str, options: dict[str, Any], workspace: Path) -> int:
    print(f"=== {name}", flush=True)
    try:
        done = pyoci.run(
            ["sh", "-ec", commands], stdout=None, stderr=None, cwd="/workspace", mounts=[f"{workspace}:/workspace"], **{"read_only": True, **options}
        )
    except pyoci.RunTimeout as error:
        print(f"=== {name}: no end within {error.timeout:g} s", flush=True)
        return TIMED_OUT
    code = 1 if done.returncode is None else 128 - done.returncode if done.returncode < 0 else done.returncode
    why = ", out of memory" if done.oom_killed else ""
    print(f"=== {name}: {'done' if code == 0 else f'failed with exit code {code}{why}'} in {done.timings['total']:.2f} s", flush=True)
    return code


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="ci", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", type=Path, metavar="JOB.toml")
    parser.add_argument("--workspace", type=Path, default=Path(), metavar="DIR", help="what the steps see at /workspace (default: this directory)")
    options = parser.parse_args(argv)
    try:
        wanted = steps(tomllib.loads(options.job.read_text()))
        for step in wanted:
            if code := run(*step, options.workspace.absolute()):
                return code
    except (ValueError, OSError, pyoci.Error) as error:  # a job that cannot be read is a ValueError, too
        print(f"ci: {options.job}: {error}", file=sys.stderr)
        return WRONG_JOB
    return 0


if __name__ == "__main__":
    sys.exit(main())
