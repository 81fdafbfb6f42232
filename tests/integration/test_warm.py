"""Warm pools: what a claimed container is, what the pool does when something fails, and that nothing is left."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import pyoci
import pyoci.aio
from pyoci import lifecycle, warm
from pyoci.waiting import drive
from tests.containers import status_fields
from tests.stepping import interrupt_each_step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyoci.waiting import Operation

Make = Callable[..., pyoci.WarmPool]
PATIENCE = 30


@pytest.fixture
def make(runtime: pyoci.OCIRuntime) -> Iterator[Make]:
    made: list[pyoci.WarmPool] = []

    def pool(**options: Any) -> pyoci.WarmPool:
        made.append(pyoci.WarmPool(**{"size": 2, "runtime": runtime, **options}))
        return made[-1]

    yield pool
    for each in made:
        each.close()


@pytest.fixture(params=["conmon", "direct"])
def pool(request: pytest.FixtureRequest, make: Make) -> pyoci.WarmPool:
    return make(monitor=request.param)


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def sh(program: str, *args: str) -> list[str]:
    return ["sh", "-c", program, "sh", *args]


# --- what a claim gives -----------------------------------------------------------------------------------------------------------


@pytest.mark.everywhere
def test_a_command_gets_its_arguments_environment_directory_and_input(pool: pyoci.WarmPool) -> None:
    done = pyoci.run(sh("cat; echo $# $A $HOME; pwd; echo err >&2; exit 3", "x", "y"), pool=pool, input="in\n", env={"A": "1"}, cwd="/tmp", text=True)
    assert (done.returncode, done.stdout, done.stderr) == (3, "in\n2 1 /root\n/tmp\n", "err\n")
    assert set(done.timings) == {"create", "start", "wait", "delete", "total"}
    assert pyoci.run(["cat"], pool=pool).stdout == b""


def test_the_template_says_what_the_claim_leaves_out(make: Make) -> None:
    pool = make(env={"A": "template", "B": "template"}, cwd="/tmp", user="1000:1000" if os.geteuid() == 0 else None)
    done = pyoci.run(sh("echo $A $B; pwd; id -u; echo err >/dev/stderr"), pool=pool, env={"A": "claim"}, text=True)
    assert done.stdout == f"claim template\n/tmp\n{1000 if os.geteuid() == 0 else 0}\n"
    assert done.stderr == "err\n"


def test_streams_go_where_run_sends_them(pool: pyoci.WarmPool, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("in\n")
    with (tmp_path / "in").open() as stdin, (tmp_path / "out").open("w") as stdout:
        done = pyoci.run(sh("cat; echo err >&2"), pool=pool, stdin=stdin, stdout=stdout, stderr=pyoci.STDOUT)
    assert (done.stdout, done.stderr, (tmp_path / "out").read_text()) == (None, None, "in\nerr\n")
    assert pyoci.run(sh("echo out; echo err >&2"), pool=pool, stdout=pyoci.DEVNULL, stderr=pyoci.DEVNULL).stdout is None
    assert pyoci.run(sh("echo out; echo err >&2"), pool=pool, stderr=pyoci.STDOUT).stdout == b"out\nerr\n"


def test_ends_are_told_as_run_tells_them(pool: pyoci.WarmPool) -> None:
    missing = pyoci.run(["nonexistent"], pool=pool, text=True)
    assert (missing.returncode, missing.stderr) == (127, "pyoci: cannot execute 'nonexistent': No such file or directory\n")
    assert pyoci.run(["/etc/passwd"], pool=pool).returncode == 126
    assert pyoci.run(["true"], pool=pool, cwd="/nonexistent").returncode == 126
    with pytest.raises(pyoci.RunTimeout) as timeout:
        pyoci.run(sh("echo begun; sleep 100"), pool=pool, timeout=0.5)
    assert timeout.value.stdout == b"begun\n"
    with pytest.raises(pyoci.OutputTooLong):
        pyoci.run(sh("while :; do echo x; done"), pool=pool, max_output=1000)
    with pytest.raises(pyoci.RunFailed):
        pyoci.run(["false"], pool=pool, check=True)


def test_a_container_of_its_own(pool: pyoci.WarmPool) -> None:
    with pool.claim(sh("read line; echo got $line; sleep 100"), stdin=pyoci.PIPE, stdout=pyoci.PIPE) as container:
        assert container.stdin is not None
        assert container.stdout is not None
        container.stdin.write(b"it\n")
        assert container.stdout.readline() == b"got it\n"
        pool.close()  # what was claimed goes on
        assert container.state() == "running"
        container.kill()
        assert container.wait(PATIENCE).signal == signal.SIGKILL


def test_large_commands(pool: pyoci.WarmPool) -> None:
    words = ["x" * 100_000] * 15
    assert pyoci.run(sh("echo $#", *words), pool=pool).stdout == b"15\n"
    with pytest.raises(pyoci.InvalidOption, match="use input"):
        pyoci.run(["echo", *words * 2], pool=pool)


# --- what it keeps ----------------------------------------------------------------------------------------------------------------

# The status first, and by the shell alone: while it forks, libc has all its signals blocked.
LOOK = """
cd /proc/1; while read -r line; do echo "$line"; done <status
cat mountinfo limits cgroup; ls -l fd; readlink exe cwd root ns/user; stat -c %U:%a . environ mem
tr '\\0' '\\n' <environ; wc -c <auxv; cat comm oom_score_adj /proc/sys/kernel/hostname; ls /proc | grep -c '^[0-9]'
"""
DIFFERS = (
    "Name",
    "SigQ",
    "State",
    "Pid",
    "Tgid",
    "NStgid",
    "NSpid",
    "NSpgid",
    "NSsid",
    "Vm",
    "Rss",
    "Threads",
    "Cpus",
    "Mems",
    "voluntary",
    "nonvoluntary",
    "Speculation",
)


def view(text: str) -> list[str]:
    """What does not differ from one container to the next."""
    lines = [line for line in text.splitlines() if not line.startswith(DIFFERS) and "pyoci-" not in line]
    lines = [re.sub(r"^l.*:\d\d (?=\d+ -> )|(?<=pipe|cket):\[\d+\]", "", line) for line in lines]
    # mountinfo: without the ids of mounts, file systems and devices.
    fields = [line.split() for line in lines]
    return [
        " ".join(words[3:]) if len(words) > 6 and words[0].isdigit() and words[1].isdigit() else line
        for words, line in zip(fields, lines, strict=True)
    ]


def test_a_claimed_container_is_as_one_that_was_created_for_its_command(make: Make, runtime: pyoci.OCIRuntime) -> None:
    options: dict[str, Any] = {"hostname": "box", "env": {"A": "1"}}
    pool = make(**options)
    command = ["sh", "-c", LOOK]
    claimed = pyoci.run(command, pool=pool, text=True)
    created = pyoci.run(command, runtime=runtime, text=True, **options)
    assert (claimed.returncode, claimed.stderr) == (0, created.stderr)
    assert sorted(view(claimed.stdout)) == sorted(view(created.stdout))
    assert "_warm" not in claimed.stdout
    assert "memfd" not in claimed.stdout
    fields = status_fields(claimed.stdout)
    assert fields["NoNewPrivs"] == "1"
    descriptors = pyoci.run(["sh", "-c", "ls /proc/1/fd; :"], pool=pool, text=True).stdout.split()
    assert descriptors == ["0", "1", "2"]


def test_the_limits_are_the_templates(make: Make, has_controller: Callable[[str], None]) -> None:
    has_controller("memory")
    pool = make(memory="16M", size=1)
    done = pyoci.run(["sh", "-c", "head -c 200000000 /dev/zero | tail >/dev/null; exit 1"], pool=pool, timeout=PATIENCE)
    assert done.oom_killed


test_the_limits_are_the_templates = pytest.mark.root(test_the_limits_are_the_templates)


def test_a_secret_is_seen_by_its_own_container_alone(pool: pyoci.WarmPool, runtime: pyoci.OCIRuntime) -> None:
    pool.fill(PATIENCE)
    others = [container.id for container in runtime.list()]
    secret = "s3cr3t-of-this-claim"
    with pool.claim(sh("echo $SECRET; sleep 100"), env={"SECRET": secret}, stdout=pyoci.PIPE, stderr=pyoci.DEVNULL) as container:
        assert container.stdout is not None
        assert container.stdout.readline().decode() == f"{secret}\n"
        assert container.id in others
        found = subprocess.run(["grep", "-rl", secret, runtime.state_dir], capture_output=True, text=True, check=False, timeout=PATIENCE)
        assert found.stdout == ""
        for _ in range(3):
            other = pyoci.run(["sh", "-c", "env; tr '\\0' '\\n' </proc/1/environ; ls /proc/1/fd"], pool=pool, text=True)
            assert secret not in other.stdout
            assert other.id != container.id
        container.kill()


def test_each_is_used_once(pool: pyoci.WarmPool) -> None:
    commands = sh("touch /tmp/was-here || exit 2; ls /tmp | wc -l")
    done = [pyoci.run(commands, pool=pool) for _ in range(5)]
    assert [each.stdout for each in done] == [b"1\n"] * 5
    assert len({each.id for each in done}) == 5


# --- the pool ---------------------------------------------------------------------------------------------------------------------


def test_it_fills_and_fills_again(pool: pyoci.WarmPool, runtime: pyoci.OCIRuntime) -> None:
    pool.fill(PATIENCE)
    assert pool.ready == 2
    assert {container.state() for container in runtime.list()} == {"created"}
    assert "2 of 2 ready" in repr(pool)
    pyoci.run(["true"], pool=pool)
    until(lambda: pool.ready == 2)
    pool.close()
    assert runtime.list() == []
    pool.close()
    for call in (lambda: pool.claim(["true"]), lambda: pyoci.run(["true"], pool=pool), pool.fill):
        with pytest.raises(RuntimeError, match="closed"):
            call()


def test_an_empty_pool_creates_or_waits(make: Make) -> None:
    for how in ("create", "wait"):
        pool = make(size=1, max_starting=1, when_empty=how)
        with ThreadPoolExecutor(6) as threads:
            outcomes = list(threads.map(lambda i, pool=pool: pyoci.run(["echo", str(i)], pool=pool, text=True).stdout, range(12)))
        assert outcomes == [f"{i}\n" for i in range(12)]
        pool.close()


def test_claims_from_many_threads(pool: pyoci.WarmPool) -> None:
    with ThreadPoolExecutor(8) as threads:
        done = list(threads.map(lambda i: pyoci.run(sh("cat; echo $A"), pool=pool, input=f"{i} ", env={"A": str(i)}, text=True), range(24)))
    assert [each.stdout for each in done] == [f"{i} {i}\n" for i in range(24)]
    assert len({each.id for each in done}) == 24


def test_launcher_and_job_draw_from_it(pool: pyoci.WarmPool) -> None:
    with pyoci.Launcher(pool=pool, text=True) as launcher:
        assert [done.stdout for done in launcher.map(["echo", str(i)] for i in range(8))] == [f"{i}\n" for i in range(8)]
        with pytest.raises(pyoci.InvalidOption, match="memory"):
            launcher.submit(["true"], memory="1G").result(PATIENCE)
    assert pyoci.Job(["echo", "job"], pool=pool)().stdout == b"job\n"


def test_asyncio(runtime: pyoci.OCIRuntime) -> None:
    async def main() -> None:
        async with pyoci.aio.WarmPool(size=2, runtime=runtime, when_empty="wait") as pool:
            await pool.fill(PATIENCE)
            assert (await pyoci.aio.run(["echo", "x"], pool=pool)).stdout == b"x\n"
            async with await pool.claim(["cat"], stdin=pyoci.PIPE, stdout=pyoci.PIPE) as container:
                assert container.stdin is not None
                assert container.stdout is not None
                await container.stdin.write(b"y\n")
                assert await container.stdout.readline() == b"y\n"
                await container.kill()
            async with pyoci.aio.Launcher(pool=pool) as launcher:
                assert [done.stdout async for done in launcher.map(["echo", str(i)] for i in range(6))] == [b"%d\n" % i for i in range(6)]
            running = asyncio.create_task(pyoci.aio.run(["sleep", "100"], pool=pool))
            await asyncio.sleep(0.1)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
        assert runtime.list() == []

    asyncio.run(main())


@pytest.mark.once
def test_what_the_template_fixes_is_refused(make: Make, runtime: pyoci.OCIRuntime, tmp_path: Path) -> None:
    pool = make()
    fixed: dict[str, Any] = {"rootfs": "/", "user": 0, "mounts": ["/tmp:/mnt"], "hostname": "x", "memory": "1M", "pids": 1, "cpus": 1}
    fixed |= {"read_only": False, "network": "private", "runtime": runtime, "state_dir": "/run/x", "monitor": "direct", "id": "x"}
    for name, value in fixed.items():
        with pytest.raises(pyoci.InvalidOption, match=f"{name}: .* give it to WarmPool"):
            pyoci.run(["true"], **{"pool": pool, name: value})
    for options, words in (({"size": 0}, "size"), ({"max_starting": 0}, "max_starting"), ({"when_empty": "fail"}, "when_empty")):
        with pytest.raises(pyoci.InvalidOption, match=words):
            make(**options)
    for args in ("true", [], [""]):
        with pytest.raises(pyoci.InvalidOption):
            pyoci.run(args, pool=pool)
    other = tmp_path / "youki"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    with pytest.raises(pyoci.InvalidOption, match="needs crun or runc"):
        make(runtime=str(other), state_dir=runtime.state_dir)
    with pytest.raises(pyoci.InvalidOption, match="preserve_fds"):
        make(runtime=pyoci.OCIRuntime(runtime.runtime_path, state_dir=runtime.state_dir, preserve_fds=[0]))


# --- faults -----------------------------------------------------------------------------------------------------------------------


def test_one_that_dies_while_it_waits_is_replaced(pool: pyoci.WarmPool, runtime: pyoci.OCIRuntime) -> None:
    pool.fill(PATIENCE)
    first = {container.id for container in runtime.list()}
    for container in runtime.list():
        container.kill()
    until(lambda: pool.ready == 2 and not first & {container.id for container in runtime.list()})
    assert pyoci.run(["echo", "x"], pool=pool).stdout == b"x\n"


def test_dead_ones_are_never_given_out(pool: pyoci.WarmPool, runtime: pyoci.OCIRuntime) -> None:
    for _ in range(5):
        pool.fill(PATIENCE)
        for container in runtime.list():
            pid = container.pid
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
                container.wait(PATIENCE)
        assert pyoci.run(["echo", "x"], pool=pool).stdout == b"x\n"


def test_one_killed_in_the_moment_of_its_claim_is_replaced(pool: pyoci.WarmPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """After it was taken as a living one, and before its FIFO is opened."""
    start, killed = lifecycle.start, list[str]()

    def late(life: lifecycle.Life) -> Operation[None]:
        if len(killed) % 3 < 2:  # two after one another
            assert life.init is not None
            os.kill(life.init.pid, signal.SIGKILL)
            until(life.has_ended)
        killed.append(life.id)
        return start(life)

    monkeypatch.setattr(lifecycle, "start", late)
    pool.fill(PATIENCE)
    done = pyoci.run(["echo", "x"], pool=pool)
    assert (done.returncode, done.stdout, done.id) == (0, b"x\n", killed[2])
    with pool.claim(["sleep", "100"], stdout=pyoci.DEVNULL) as container:
        assert container.state() == "running"
        container.kill()
    assert len(killed) == 6


def test_one_that_somebody_else_has_started_is_an_error(pool: pyoci.WarmPool, runtime: pyoci.OCIRuntime) -> None:
    pool.fill(PATIENCE)
    for container in runtime.list():
        container.start()
    with pytest.raises(pyoci.ContainerStateError, match="cannot start"):
        pool.claim(["true"])


@pytest.fixture
def moody(runtime: pyoci.OCIRuntime, tmp_path: Path) -> tuple[str, Path, Path]:
    """A runtime that fails to create while a file is there, that file, and the log of its creates."""
    script, fails, tries = tmp_path / runtime.name, tmp_path / "fails", tmp_path / "tries"
    script.write_text(
        f"""#!/bin/sh
case "$*" in *create*)
    echo >>{tries}
    if [ -e {fails} ]; then echo 'in no mood' >&2; exit 1; fi ;;
esac
exec {runtime.runtime_path} "$@"
"""
    )
    script.chmod(0o755)
    tries.touch()
    return str(script), fails, tries


def test_a_create_that_fails_is_told_and_not_tried_at_once(
    make: Make, moody: tuple[str, Path, Path], runtime: pyoci.OCIRuntime, caplog: pytest.LogCaptureFixture
) -> None:
    script, fails, tries = moody
    fails.touch()
    pool = make(runtime=script, state_dir=runtime.state_dir, when_empty="wait", size=4)
    with caplog.at_level(logging.WARNING, "pyoci"):
        with pytest.raises(pyoci.CreateError):
            pool.fill(PATIENCE)
        with pytest.raises(pyoci.CreateError):
            pyoci.run(["true"], pool=pool)
        time.sleep(1)
    assert 2 <= len(tries.read_text()) <= 12
    assert sum("warm pool" in record.message for record in caplog.records) == 1
    impatient = make(runtime=script, state_dir=runtime.state_dir, size=1)
    with pytest.raises(pyoci.CreateError):
        impatient.claim(["true"])
    fails.unlink()
    assert pyoci.run(["echo", "x"], pool=pool, timeout=PATIENCE).stdout == b"x\n"
    pool.fill(PATIENCE)


def test_a_claim_that_waits_ends_at_its_timeout_at_an_interrupt_and_with_the_pool(
    make: Make, moody: tuple[str, Path, Path], runtime: pyoci.OCIRuntime
) -> None:
    script, _, _ = moody
    Path(script).write_text(Path(script).read_text().replace("    if [", "    sleep 100 & wait\n    if ["))
    pool = make(runtime=script, state_dir=runtime.state_dir, when_empty="wait", size=1)
    with pytest.raises(pyoci.RunTimeout):
        pyoci.run(["true"], pool=pool, timeout=0.2)
    previous = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            pool.claim(["true"])
    finally:
        signal.signal(signal.SIGALRM, previous)
    with ThreadPoolExecutor(1) as thread:
        claim = thread.submit(pool.claim, ["true"])
        until(lambda: pool._waiters)
        pool.close()
        with pytest.raises(RuntimeError, match="closed"):
            claim.result(PATIENCE)


def test_an_interrupt_at_each_step_of_a_claim(pool: pyoci.WarmPool) -> None:
    """Whether it takes a container that waits, or one is created for it: the pool is claimed from more often than it can be filled."""

    def claim() -> Operation[lifecycle.Life]:
        return pool._claim(["sleep", "100"], None, None, (pyoci.DEVNULL, pyoci.PIPE, pyoci.PIPE))

    def end(life: lifecycle.Life) -> None:
        with pyoci.Container._of(life) as container:
            container.kill()

    interrupt_each_step(claim, end, least=8)  # more than a create takes


@pytest.mark.parametrize("delay", [0, 0.005, 0.02, 0.05])
def test_closing_while_it_fills(make: Make, runtime: pyoci.OCIRuntime, delay: float) -> None:
    pool = make(size=8)
    time.sleep(delay)
    pool.close()
    assert runtime.list() == []


def test_closing_beside_claims(make: Make) -> None:
    pool = make(size=4)
    go = threading.Event()

    def claim(_: int) -> bytes | str:
        go.wait(PATIENCE)
        try:
            return bytes(pyoci.run(["echo", "x"], pool=pool).stdout)
        except RuntimeError as error:
            return str(error)

    with ThreadPoolExecutor(4) as threads:
        outcomes = [threads.submit(claim, i) for i in range(12)]
        pool.fill(PATIENCE)
        go.set()
        pool.close()
    assert {outcome.result(PATIENCE) for outcome in outcomes} <= {b"x\n", "this warm pool is closed", "this warm pool was closed"}


POOL = """
import os, pyoci, sys
runtime = pyoci.OCIRuntime(sys.argv[1], state_dir=sys.argv[2])
pool = pyoci.WarmPool(size=2, runtime=runtime)
pool.fill(60)
"""


def _program(runtime: pyoci.OCIRuntime, more: str) -> list[str]:
    return [sys.executable, "-c", POOL + more, runtime.runtime_path, runtime.state_dir]


def test_the_end_of_the_interpreter_ends_it(runtime: pyoci.OCIRuntime) -> None:
    subprocess.run(_program(runtime, ""), check=True, timeout=PATIENCE)
    assert runtime.list() == []


def test_what_a_killed_process_leaves_says_whose_it_was(runtime: pyoci.OCIRuntime) -> None:
    done = subprocess.run(_program(runtime, "os.kill(os.getpid(), 9)"), check=False, timeout=PATIENCE)
    assert done.returncode == -signal.SIGKILL
    assert [container.state() for container in runtime.list()] == ["created"] * 2
    assert len({found.id for found in runtime.prune()}) == 2
    assert runtime.list() == []


def test_a_fork_does_not_share_it(make: Make, runtime: pyoci.OCIRuntime) -> None:
    with make() as pool:
        pool.fill(PATIENCE)
        pid = os.fork()
        if pid == 0:
            try:
                pool.close()
                pool.claim(["true"])
            except RuntimeError:
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(pid, 0)[1] == 0
        assert len(runtime.list()) == 2
        assert pyoci.run(["echo", "x"], pool=pool).stdout == b"x\n"


def test_one_that_was_not_claimed_and_is_started_waits_for_a_command_until_the_pool_is_gone(make: Make, runtime: pyoci.OCIRuntime) -> None:
    pool = make(size=1)
    member = drive(pool._take(-1))
    drive(lifecycle.start(member.life))
    assert not member.life.has_ended()
    member.channel.close()
    assert drive(lifecycle.wait(member.life, None if member.life.conmon is None else PATIENCE)).code == 125 or member.life.conmon is not None
    drive(member.give_up())
    assert isinstance(member, warm.Member)
