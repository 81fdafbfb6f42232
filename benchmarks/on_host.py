"""One host's part of the suite: ``python3 -m benchmarks.on_host OPTIONS``, which benchmarks/run calls; OPTIONS are JSON, and so are the figures, on
stdout."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from typing import Any

import pyoci
from benchmarks.context import Context
from benchmarks.place import everything, state_directory
from benchmarks.sections import SECTIONS
from pyoci import rootfs
from pyoci.bench import measure
from pyoci.bench.short import working
from tests import hosts


def figures(options: dict[str, Any]) -> dict[str, Any]:
    """``runtimes``: name → section → its figures. ``sections``: those of the host. ``failed``: what could not be measured, and why."""
    works, skipped = working(tuple(options["runtimes"]))
    began = time.monotonic()
    found: dict[str, Any] = {"host": measure.host(), "load": {"before": measure.load()}, "skipped": skipped}
    found |= {"runtimes": {name: {} for name in works}, "sections": {}, "failed": {}}
    rootfs.builtin()
    account = everything()
    with state_directory(options["place"]) as base:
        for name in works:
            runtime = pyoci.OCIRuntime(name, state_dir=f"{base}/{name}")
            context = Context(runtime, options["lives"], options["seconds"], options["counts"], account)
            for wanted in options["sections"]:
                section = SECTIONS[wanted]
                if section.once and name != works[0]:
                    continue
                results, where = (found["sections"], wanted) if section.once else (found["runtimes"][name], f"{name}, {wanted}")
                try:
                    results[wanted] = section.measure(context)
                except Exception as error:  # one section's failure is no reason to lose the others' figures
                    traceback.print_exc()
                    found["failed"][where] = f"{type(error).__name__}: {measure.why(error)}"
    found["load"]["after"] = measure.load()
    found["seconds"] = round(time.monotonic() - began, 1)
    return found


def main() -> int:
    # SIGTERM leaves the same way as Ctrl-C, through everything that cleans up; what a shell starts in its background is deaf to that.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    if "PYOCI_TESTS_HOST" not in os.environ:
        hosts.become_v1_host()
    try:
        json.dump(figures(json.loads(sys.argv[1])), sys.stdout)
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
