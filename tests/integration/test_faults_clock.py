"""What must survive: a clock that steps. Row 29 of docs/faults.md."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import pyoci

pytestmark = pytest.mark.once

STEPPING = """
/* Each look at the wall clock is an hour or a day away from the last one; the other clocks are what they are. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long step(void) {
    static const long steps[] = {0, 86400, -86400, 3600, -3600, 1000000000};
    static unsigned looks;
    return steps[__atomic_fetch_add(&looks, 1, __ATOMIC_RELAXED) % (sizeof steps / sizeof *steps)];
}

int clock_gettime(clockid_t clock, struct timespec *t) {
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, t);
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)
        t->tv_sec += step();
    return result;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone) {
    int (*real)(struct timeval *, void *) = dlsym(RTLD_NEXT, "gettimeofday");
    int result = real(t, zone);
    t->tv_sec += step();
    return result;
}

time_t time(time_t *ret) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    if (ret)
        *ret = t.tv_sec;
    return t.tv_sec;
}
"""

PROGRAM = """
import asyncio, sys, time
before = [time.time() for _ in range(6)]
assert max(before) - min(before) > 80000, before
import pyoci

rt = pyoci.OCIRuntime(sys.argv[1], state_dir=sys.argv[2], create_timeout=60)
config = pyoci.spec.build(["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.02; done"], rootfs=sys.argv[3], read_only=True)


def took(least, call, *expected):
    began = time.monotonic()
    try:
        result = call()
    except expected as error:
        result = error
    passed = time.monotonic() - began
    assert least <= passed < least + 30, (least, passed)
    return result


async def over_there():
    ours = await pyoci.aio.Container.load("job", state_dir=sys.argv[2])
    try:
        await ours.wait(0.2)
    except pyoci.Timeout:
        return "timeout"


with rt.create(config, "job") as container:
    container.start()
    while "ready" not in open(container.log_path).read():
        pass
    assert isinstance(took(0.2, lambda: container.wait(0.2), pyoci.Timeout), pyoci.Timeout)
    assert took(0.2, lambda: pyoci.wait([container], 0.2)) == (set(), {container})
    assert took(0.2, lambda: asyncio.run(over_there())) == "timeout"
    assert took(0.3, lambda: container.stop(0.3)).code == 137
assert isinstance(took(0.3, lambda: pyoci.run(["sleep", "100"], runtime=rt, timeout=0.3), pyoci.RunTimeout), pyoci.RunTimeout)
print("right")
"""


@pytest.fixture(scope="module")
def stepping(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("stepping")
    source, library = directory / "stepping.c", directory / "stepping.so"
    source.write_text(STEPPING)
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True, timeout=100)
    return library


def test_row_29_deadlines_do_not_look_at_the_wall_clock(runtime: pyoci.OCIRuntime, rootfs: str, stepping: Path) -> None:
    """The wall clock of the machine stays as it is: a library in front of the C library makes that of one process jump at every look."""
    argv = [sys.executable, "-c", PROGRAM, runtime.runtime_path, runtime.state_dir, rootfs]
    env = {**os.environ, "LD_PRELOAD": str(stepping)}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=200, check=False)
    assert (done.returncode, done.stdout) == (0, "right\n"), done.stderr
