"""Measures containers on this machine: pyoci's beside those of the least C program, of conmon driven by hand, of the bare runtime and of podman.

All that is compared is interleaved in one run, in random order: the machine may be shared and noisy. What each figure means: docs/benchmarks.md."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import plots, report
from benchmarks.sections import EXTRA, SECTIONS
from pyoci import __version__, runtimes
from pyoci.bench.short import SCHEMA
from tests import hosts

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
IMAGES = ROOT / "docs" / "img"
COUNTS = "1,2,4,8,16,32"


def main() -> int:
    options = parser().parse_args()
    if options.readme or options.report:
        figures = json.loads((options.out / "figures.json").read_text())
    else:
        if os.geteuid() != 0:
            print("the benchmark creates containers and needs root: sudo benchmarks/run", file=sys.stderr)
            return 1
        figures = measure(options)
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    if options.readme:
        options.images.mkdir(parents=True, exist_ok=True)
        images = {title: f"docs/img/{name}" for title, name in plots.draw(figures, options.images, ["svg"]).items()}
        print(*report.readme(figures, images), sep="\n")
        return 0
    lines = list(report.whole(figures, plots.draw(figures, options.out)))
    (options.out / "report.md").write_text("\n".join(lines) + "\n")
    print(*lines, sep="\n")
    print(f"\nFigures, tables and plots are in {options.out}.", file=sys.stderr)
    return 1 if any(found["failed"] for found in figures["hosts"].values()) else 0


def parser() -> argparse.ArgumentParser:
    sections = "; ".join(f"{name}: {section.about}" for name, section in SECTIONS.items())
    top = argparse.ArgumentParser(prog="benchmarks/run", description=__doc__)
    top.add_argument(
        "--section", type=_names(SECTIONS), metavar="NAME,…", help=f"what to measure, or all (default: all but {', '.join(EXTRA)}). {sections}"
    )
    top.add_argument(
        "--host", type=_names(hosts.KINDS), metavar="KIND,…", help="on which hosts, as tests/host makes them (default: as this machine is)"
    )
    top.add_argument("--runtime", type=_names(runtimes.CANDIDATES), metavar="NAME,…", help="only these (default: crun,runc)")
    top.add_argument("--lives", type=int, help="of each way, one at a time; of podman fewer (default: 200; quick: 20)")
    top.add_argument("--seconds", type=float, help="of a block with many at once; each has three (default: 1; quick: 0.2)")
    top.add_argument("--concurrency", type=_counts, metavar="N,…", help=f"how many in flight, one after the other (default: {COUNTS}; quick: 1,4,8)")
    top.add_argument("--quick", action="store_true", help="a tenth of it, to see that all works")
    top.add_argument("--out", type=Path, default=RESULTS / "latest", metavar="DIR", help="where figures, tables and plots go, or lie already")
    top.add_argument("--place", metavar="DIR", help="where the containers get a directory for the time, of the host that they are on (default: /run)")
    top.add_argument("--images", type=Path, default=IMAGES, metavar="DIR", help="where --readme draws (default: docs/img)")
    redo = top.add_mutually_exclusive_group()
    redo.add_argument("--report", action="store_true", help="measure nothing: tables and plots anew, of the figures that lie there")
    redo.add_argument("--readme", action="store_true", help="measure nothing: print the README's tables, and draw its plots in docs/img")
    return top


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Runs ``benchmarks.on_host`` on each host."""
    wanted: dict[str, Any] = {
        "sections": [name for name in SECTIONS if name in (options.section or [name for name in SECTIONS if name not in EXTRA])],
        "runtimes": options.runtime or list(runtimes.CANDIDATES),
        "lives": options.lives if options.lives is not None else 20 if options.quick else 200,
        "seconds": options.seconds if options.seconds is not None else 0.2 if options.quick else 1,
        "place": options.place,
        "counts": options.concurrency or _counts("1,4,8" if options.quick else COUNTS),
    }
    if wanted["lives"] < 1 or wanted["seconds"] <= 0:
        raise SystemExit("benchmarks/run: --lives and --seconds take positive numbers")
    figures: dict[str, Any] = {"schema": SCHEMA, "pyoci": __version__, "date": datetime.now(UTC).isoformat(timespec="seconds")}
    figures |= {"options": wanted, "hosts": {}}
    here = os.environ.get("PYOCI_TESTS_HOST")
    if here is not None and options.host not in (None, [here]):
        raise SystemExit(f"benchmarks/run: this is the host {here} already, on which no other can be made")
    for kind in options.host or [here or hosts.native()]:
        print(f"on the host {kind}", file=sys.stderr)
        python = [sys.executable] if here is not None else [sys.executable, "-m", "tests.hosts", kind, "python3"]
        figures["hosts"][kind] = json.loads(_output([*python, "-m", "benchmarks.on_host", json.dumps(wanted)]))
    return figures


def _output(argv: Sequence[str]) -> bytes:
    """What a command prints. Interrupted, it is waited for: it cleans up."""
    with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=ROOT) as process:
        signal.signal(signal.SIGTERM, lambda *_: process.send_signal(signal.SIGINT))
        try:
            printed, _ = process.communicate()
        except KeyboardInterrupt:  # of a terminal, which has told the process as well
            process.communicate()
            raise
    if process.returncode == 130:
        raise KeyboardInterrupt
    if process.returncode != 0:
        raise SystemExit(f"benchmarks/run: measuring failed with {process.returncode}")
    return printed


def _names(known: Sequence[str] | dict[str, Any]) -> Any:
    def parse(words: str) -> list[str]:
        names = list(known) if words == "all" else words.split(",")
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: choose from all, {', '.join(known)}")
        return names

    return parse


def _counts(words: str) -> list[int]:
    counts = [int(word) if word.isdecimal() else 0 for word in words.split(",")]
    if min(counts) < 1:
        raise argparse.ArgumentTypeError("positive numbers, such as 1,4,8")
    return counts


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\ninterrupted; the containers were removed", file=sys.stderr)
        sys.exit(130)
