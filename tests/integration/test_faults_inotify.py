"""What must survive: more containers than there are inotify instances. Row 22 of docs/faults.md."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

import pyoci
from pyoci import cgroups
from tests.long import LONG
from tests.native.seccomp import own_numbers

pytestmark = pytest.mark.once

PROGRAM = """
import ctypes, resource, sys, time

assert ctypes.CDLL(None).inotify_init1(0) == -1
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

import pyoci

count, has_memory, runtime, state_dir, rootfs = int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]
rt = pyoci.OCIRuntime(runtime, state_dir=state_dir)


def create(i):
    # Every tenth runs out of memory.
    greedy = has_memory and i % 10 == 0
    end = "x=x; while :; do x=$x$x; done" if greedy else f"exit {i % 200}"
    body = f"trap '{end}' TERM; echo ready; sleep 10000 & wait"
    container = rt.create(pyoci.spec.build(["sh", "-c", body], rootfs=rootfs, read_only=True, memory="16M" if greedy else None), f"c{i}")
    container.start()
    return container, (137, True) if greedy else (i % 200, False)


made = [create(i) for i in range(count)]
try:
    for container, _ in made:
        while "ready" not in open(container.log_path).read():
            time.sleep(0.01)
        container.kill("TERM")
    containers = [container for container, _ in made]
    assert pyoci.wait(containers, 1000) == (set(containers), set())
    for container, (code, oom_killed) in made:
        status = container.wait(0)
        assert (status.code, status.oom_killed) == (code, oom_killed), (container.id, status)
        # Another process finds the same on disk; but for the time, if conmon was later than we.
        found = rt.load(container.id).wait(60)
        assert (found.code, found.oom_killed) == (code, oom_killed), (container.id, found)
finally:
    for container, _ in made:
        container.delete(force=True)
print("right")
"""


@pytest.mark.root
def test_row_22_exits_and_oom_are_told_without_inotify(runtime: pyoci.OCIRuntime, rootfs: str) -> None:
    """The limit is the user's on the whole machine, so it is not used up here: a seccomp filter gives all of them the answer that the kernel
    gives beyond it. (On cgroup v1 conmon uses none; on v2 it watches memory.events.)"""
    found = cgroups.read()
    has_memory = "memory" in found.mounts or (
        cgroups.V2 in found.mounts and "memory" in Path(found.mounts[cgroups.V2], "cgroup.controllers").read_text().split()
    )
    rules = ",".join(f"{name}={errno.EMFILE}" for name in own_numbers() if name.startswith("inotify_"))
    program = [sys.executable, "-m", "tests.native.seccomp", rules, sys.executable, "-c", PROGRAM]
    options = [str(500 if LONG else 30), str(int(has_memory)), runtime.runtime_path, runtime.state_dir, rootfs]
    done = subprocess.run([*program, *options], cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=2000, check=False)
    assert (done.returncode, done.stdout) == (0, "right\n"), done.stderr
