"""What must survive: pids that are used again. Row 16 of docs/faults.md."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import pyoci
from tests.long import LONG

pytestmark = pytest.mark.once

BYSTANDERS = """
/*
 * Ever new processes, twenty families of two at a time, so that every number is soon somebody else's. Each ends by itself, with 0; the first
 * one that does not has been sent a signal, and is told of. With an argument: nothing but a process that ends.
 */
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int went_well(int status) {
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void family(void) {
    int status;
    pid_t child = fork();
    if (child == 0) {
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        _exit(0);
    }
    _exit(child < 0 || (waitpid(child, &status, WUNTRACED) == child && went_well(status)) ? 0 : 1);
}

int main(int argc, char **argv) {
    (void)argv;
    if (argc > 1)
        return 0;
    int status, alive = 0;
    for (;;) {
        while (alive < 20) {
            pid_t child = fork();
            if (child == 0)
                family();
            if (child < 0)
                break;
            alive++;
        }
        pid_t ended = waitpid(-1, &status, WUNTRACED);
        if (ended > 0 && !went_well(status)) {
            printf("%d was not to be signalled\\n", ended);
            return 1;
        }
        alive--;
    }
}
"""

PROGRAM = """
import os, random, signal, subprocess, sys

tries, bystanders, runtime, state_dir, rootfs = int(sys.argv[1]), *sys.argv[2:]
with open("/proc/sys/kernel/pid_max", "w") as file:
    file.write("400")  # of this pid namespace alone (Linux 6.14)

import pyoci
from pyoci import _ffi
from pyoci.process import Identity, Process, ended, kill_tree
from pyoci.waiting import NEVER, drive

environment = _ffi.environment_block({})
crowd = subprocess.Popen([bystanders], stdout=subprocess.PIPE)
dead: list[tuple[Process, Identity]] = []
done = reused = 0


def life():
    rt = pyoci.OCIRuntime(runtime, state_dir=state_dir)
    with rt.create(pyoci.spec.build(["sleep", "100"], rootfs=rootfs, read_only=True)) as container:
        container.start()
        container.stop(timeout=0)
        try:
            container.kill()
            raise AssertionError("killed")
        except pyoci.ContainerStateError:
            pass


while done < tries:
    if done % (tries // 5) == 0:
        life()
    victim = Process().spawn(bystanders, ["bystanders", "ends"], environment)
    identity = Identity.of(victim)
    drive(ended(victim, NEVER))
    victim.reap()
    dead = [*dead[-300:], (victim, identity)]
    for victim, identity in random.choices(dead, k=20):
        assert not victim.signal(signal.SIGKILL)
        found = identity.find()
        if found is not None:
            found.signal(signal.SIGKILL)
        reused += os.path.exists(f"/proc/{victim.pid}")
        done += 1
    # The processes below a number that was its: not below it.
    drive(kill_tree([random.choice(dead)[0]]))
    if crowd.poll() is not None:
        break
crowd.kill()
crowd.wait()
print(crowd.stdout.read().decode() or "none", "reused" if reused > tries // 100 else f"only {reused} of {done} were used again")
"""


@pytest.mark.root
def test_row_16_no_signal_for_who_has_the_number_now(runtime: pyoci.OCIRuntime, rootfs: str, tmp_path: Path) -> None:
    release = os.uname().release.split("-")[0].split(".")
    if (int(release[0]), int(release[1])) < (6, 14):
        pytest.skip("before Linux 6.14 pid_max is the whole machine's")
    source, program = tmp_path / "bystanders.c", tmp_path / "bystanders"
    source.write_text(BYSTANDERS)
    subprocess.run(["gcc", "-O1", "-static", "-o", program, source], check=True, timeout=100)
    argv = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, "-c", PROGRAM]
    options = [str(100_000 if LONG else 10_000), str(program), runtime.runtime_path, runtime.state_dir, rootfs]
    done = subprocess.run([*argv, *options], capture_output=True, text=True, timeout=3000 if LONG else 300, check=False)
    assert (done.returncode, done.stdout) == (0, "none reused\n"), done.stdout + done.stderr
