"""A test harness: fans a directory of test scripts out over containers, with asyncio, and sums up as JUnit does.

Every script (*.sh) is a test of its own, run in a fresh container with the project under test at /project, read-only. It passes with exit code 0
and is skipped with 77, as automake has it. Ctrl-C kills and removes what runs, and sums up what was done.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import pyoci
import pyoci.aio

SKIPPED = 77


class Result(NamedTuple):
    name: str
    outcome: str
    """passed, failed, skipped, or error: it could not be run to its end."""
    seconds: float
    output: str


def job(script: Path, options: argparse.Namespace) -> pyoci.Job:
    return pyoci.Job(
        ["sh", "-e", "-"],
        input=script.read_bytes(),
        stderr=pyoci.STDOUT,
        cwd="/project",
        mounts=[f"{options.project}:/project:ro"],
        hostname=script.stem,
    )


def outcome(script: Path, task: "asyncio.Task[pyoci.CompletedProcess]") -> Result:
    error = task.exception()
    if isinstance(error, pyoci.RunTimeout):
        return Result(script.stem, "failed", error.timeout or 0, f"{error.stdout!s}\nno end within {error.timeout:g} s")
    if isinstance(error, pyoci.OutputTooLong):
        return Result(script.stem, "failed", 0, f"{error.stdout}\n{error}")
    if error is not None:
        return Result(script.stem, "error", 0, f"{type(error).__name__}: {error}")
    done = task.result()
    word = {0: "passed", SKIPPED: "skipped"}.get(-1 if done.returncode is None else done.returncode, "failed")
    why = "\nout of memory" if done.oom_killed else "" if word != "failed" else f"\nexit code {done.returncode}"
    return Result(script.stem, word, done.timings["total"], done.stdout + why)


async def run(scripts: Sequence[Path], options: argparse.Namespace, results: list[Result]) -> None:
    """Adds to the results as they come, and shows each."""
    defaults = {"memory": options.memory, "timeout": options.timeout, "pids": 64, "max_output": 1 << 20, "text": True, "errors": "replace"}
    async with pyoci.aio.Launcher(max_running=options.jobs, runtime=options.runtime, **defaults) as pool:
        tasks = {pool.submit(job(script, options)): script for script in scripts}
        going = set(tasks)
        while going:
            ended, going = await asyncio.wait(going, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                result = outcome(tasks[task], task)
                results.append(result)
                print(f"{len(results):>{len(str(len(tasks)))}}/{len(tasks)} {result.outcome:7} {result.name} ({result.seconds:.2f} s)", flush=True)


def junit(results: Sequence[Result], seconds: float) -> ElementTree.Element:
    """The XML that CI servers read."""
    counts = {
        name: str(sum(each.outcome == word for each in results))
        for name, word in (("failures", "failed"), ("errors", "error"), ("skipped", "skipped"))
    }
    suite = ElementTree.Element("testsuite", {"name": "harness", "tests": str(len(results)), "time": f"{seconds:.3f}", **counts})
    for result in sorted(results):
        case = ElementTree.SubElement(suite, "testcase", {"name": result.name, "classname": "harness", "time": f"{result.seconds:.3f}"})
        if result.outcome != "passed":
            kind = {"failed": "failure", "error": "error", "skipped": "skipped"}[result.outcome]
            ElementTree.SubElement(case, kind, {"message": result.output.strip().rpartition("\n")[2]})
        ElementTree.SubElement(case, "system-out").text = "".join(c for c in result.output if c.isprintable() or c in "\n\t")
    return suite


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="harness", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tests", type=Path, metavar="DIR", help="the directory with the test scripts")
    parser.add_argument("--project", type=Path, default=Path(), metavar="DIR", help="what is tested (default: this directory)")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write the results there, as XML")
    parser.add_argument("--timeout", type=float, default=60.0, metavar="SECONDS", help="for each test (default: 60)")
    parser.add_argument("--memory", default="256M", metavar="SIZE", help="for each test (default: 256M)")
    parser.add_argument("--jobs", type=int, metavar="N", help="tests at a time (default: 8 per processor)")
    parser.add_argument("--runtime", metavar="NAME", help="crun or runc, or a path")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments(argv)
    scripts = sorted(options.tests.glob("*.sh"))
    if not scripts:
        print(f"harness: {options.tests}: no test scripts (*.sh)", file=sys.stderr)
        return 2
    results: list[Result] = []
    began, interrupted = time.monotonic(), False
    try:
        asyncio.run(run(scripts, options, results))
    except KeyboardInterrupt:
        interrupted = True
    except (pyoci.Error, OSError) as error:
        print(f"harness: {error}", file=sys.stderr)
        return 2
    seconds = time.monotonic() - began
    for result in sorted(results):
        if result.outcome in ("failed", "error"):
            print(f"\n--- {result.outcome}: {result.name}\n{result.output.strip()}")
    words = [f"{count} {word}" for word in ("passed", "failed", "error", "skipped") if (count := sum(each.outcome == word for each in results))]
    print(f"\n{', '.join(words) or 'nothing was run'} in {seconds:.2f} s{', interrupted' if interrupted else ''}")
    if options.junit is not None:
        ElementTree.ElementTree(junit(results, seconds)).write(options.junit, encoding="utf-8", xml_declaration=True)
    return 130 if interrupted else int(any(each.outcome in ("failed", "error") for each in results))


if __name__ == "__main__":
    sys.exit(main())
