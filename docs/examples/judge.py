"""An online judge: runs untrusted programs on a problem's test cases, each run in a container of its own, and prints their verdicts.

A problem is a directory with inputs and the outputs wanted: 1.in, 1.out, 2.in, 2.out and so on. A submission is a file: a shell script (.sh), an awk
program (.awk), or anything that can be executed in the root file system, such as a static binary or a script with a #! line.

Verdicts: AC accepted, WA wrong answer, TLE time limit, MLE memory limit, OLE output limit, RE runtime error (another exit code than 0, a signal),
CE no program at all, IE the judge's own failure.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyoci

INTERPRETERS = {".sh": ["sh"], ".awk": ["awk", "-f"]}
COMPILERS = {".sh": ["sh", "-n"]}
"""What only looks whether the program is one."""
EXECUTABLE = (b"\x7fELF", b"#!")
NOBODY = "65534:65534"


class Case(NamedTuple):
    name: str
    given: bytes
    wanted: bytes


class Verdict(NamedTuple):
    word: str
    case: str
    seconds: float
    why: str = ""


def cases(problem: Path) -> list[Case]:
    found = [Case(path.stem, path.read_bytes(), path.with_suffix(".out").read_bytes()) for path in problem.glob("*.in")]
    if not found:
        raise SystemExit(f"judge: {problem}: no test cases: files such as 1.in and 1.out are wanted")
    return sorted(found, key=lambda case: (len(case.name), case.name))


def job(tool: Sequence[str], program: Path, given: bytes, options: argparse.Namespace) -> pyoci.Job:
    """What is not trusted gets: no network, nothing to write to but a small /tmp, no privileges, and bounds for all it can use up."""
    return pyoci.Job(
        [*tool, f"/judged/{program.name}"],
        input=given,
        mounts=[
            f"{program.parent}:/judged:ro",
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "size=4m"]},
        ],
        user=NOBODY,
        cwd="/tmp",
        network="private",
        read_only=True,
        memory=options.memory,
        pids=options.processes,
        timeout=options.time,
        max_output=options.output,
    )


def judge(future: pyoci.LaunchFuture, case: Case, limit: float) -> Verdict:
    try:
        done = future.result()
    except pyoci.RunTimeout:
        return Verdict("TLE", case.name, limit)
    except pyoci.OutputTooLong:
        return Verdict("OLE", case.name, 0)
    except (pyoci.Error, OSError) as error:
        return Verdict("IE", case.name, 0, str(error))
    word, why = verdict(done, case)
    return Verdict(word, case.name, done.timings["total"], why)


def verdict(done: pyoci.CompletedProcess, case: Case) -> tuple[str, str]:
    said = "".join(done.stderr.decode(errors="replace").strip().splitlines()[-1:])
    if done.oom_killed:
        return "MLE", ""
    if done.returncode != 0:
        return "RE", f"exit code {done.returncode}: {said}".removesuffix(": ")
    return ("AC" if same(done.stdout, case.wanted) else "WA"), ""


def refused(program: Path, compiling: pyoci.LaunchFuture | None) -> Verdict | None:
    """Why it is not run at all."""
    if program.suffix not in INTERPRETERS and not program.read_bytes()[:4].startswith(EXECUTABLE):
        return Verdict("CE", "-", 0, "neither a program of this machine nor a script")
    found = None if compiling is None else judge(compiling, Case("-", b"", b""), 0)
    return None if found is None or found.word == "AC" else found if found.word == "IE" else found._replace(word="CE")


def same(output: bytes, wanted: bytes) -> bool:
    """But for white space at the ends of lines and of the whole."""
    return [line.rstrip() for line in output.rstrip().splitlines()] == [line.rstrip() for line in wanted.rstrip().splitlines()]


def verdicts(programs: Sequence[Path], problem: Sequence[Case], options: argparse.Namespace) -> Iterator[Verdict]:
    """One for each program: that of the first case that was not accepted, else the slowest one's. The cases of all programs run at once, as many as
    there are processors, so that none is slow because of another; what need not be known any more is cancelled."""
    with pyoci.Launcher(max_running=options.jobs, max_starting=options.jobs, rootfs=options.rootfs, runtime=options.runtime) as pool:
        compiled = [pool.submit(job(tool, each, b"", options)) if (tool := COMPILERS.get(each.suffix)) else None for each in programs]
        begun = [[pool.submit(job(INTERPRETERS.get(program.suffix, []), program, case.given, options)) for case in problem] for program in programs]
        for program, compiling, futures in zip(programs, compiled, begun, strict=True):
            if wrong := refused(program, compiling):
                for future in futures:
                    future.cancel()
                yield wrong
                continue
            worst = Verdict("AC", "", 0)
            for future, case in zip(futures, problem, strict=True):
                found = judge(future, case, options.time)
                worst = max(worst, found, key=lambda each: (each.word != "AC", each.seconds))
                if found.word != "AC":
                    break
            for future in futures:
                future.cancel()
            yield worst


def received(submissions: Sequence[Path], directory: str) -> list[Path]:
    """Copies that everybody may read and execute, whatever the modes were; each alone in a directory, which is all that its container sees."""
    copies = []
    for number, path in enumerate(submissions):
        place = Path(directory, str(number))
        place.mkdir()
        copies.append(Path(shutil.copyfile(path, place / f"program{path.suffix}")))
        copies[-1].chmod(0o755)
    return copies


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="judge", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problem", type=Path, metavar="PROBLEM", help="a directory with 1.in, 1.out and so on")
    parser.add_argument("submissions", type=Path, nargs="+", metavar="SUBMISSION")
    parser.add_argument("--time", type=float, default=2.0, metavar="SECONDS", help="of wall clock for each case (default: 2)")
    parser.add_argument("--memory", default="64M", metavar="SIZE", help="for each case (default: 64M)")
    parser.add_argument("--output", type=int, default=1 << 16, metavar="BYTES", help="at most (default: 65536)")
    parser.add_argument("--processes", type=int, default=16, metavar="N", help="and threads (default: 16)")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), metavar="N", help="cases at a time (default: one per processor)")
    parser.add_argument("--rootfs", metavar="DIR", help="what the programs find around them (default: a busybox)")
    parser.add_argument("--runtime", metavar="NAME", help="crun or runc, or a path")
    parser.add_argument("--json", action="store_true", help="one object per line")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments(argv)
    try:
        problem = cases(options.problem)
        with tempfile.TemporaryDirectory(prefix="judge-") as directory:
            Path(directory).chmod(0o755)
            failed = False
            for path, verdict in zip(options.submissions, verdicts(received(options.submissions, directory), problem, options), strict=True):
                failed = failed or verdict.word == "IE"
                if options.json:
                    print(json.dumps({"submission": str(path), **verdict._asdict()}), flush=True)
                else:
                    where = f"case {verdict.case}" if verdict.word != "AC" else f"{len(problem)} cases"
                    print(f"{path.name:24} {verdict.word:4} {where:10} {verdict.seconds:6.3f} s  {verdict.why}".rstrip(), flush=True)
    except (pyoci.Error, OSError) as error:
        print(f"judge: {error}", file=sys.stderr)
        return 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
