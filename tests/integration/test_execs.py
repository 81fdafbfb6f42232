"""exec sessions: more programs in a running container, through each real runtime (faults, row 30)."""

import asyncio
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pyoci
from pyoci import DEVNULL, PIPE, STDOUT, spec
from tests.containers import FOREVER, Build, status_fields

PATIENCE = 60.0


@pytest.fixture
def container(runtime: pyoci.OCIRuntime, build: Build) -> Iterator[pyoci.Container]:
    with runtime.create(build(*FOREVER, env={"OF": "container"})) as container:
        container.start()
        yield container
        if container.exit_status is None:
            container.stop(0)  # it may not have its handler yet
    del container._life  # pytest holds what a fixture gave until after the audit


def output(container: pyoci.Container, *args: str, **options: Any) -> str:
    session = container.exec(args, stdout=PIPE, **options)
    out, _ = session.communicate(timeout=PATIENCE)
    assert session.returncode == 0
    assert out is not None
    return out.decode()


def shell(container: pyoci.Container, script: str, **options: Any) -> pyoci.ExecSession:
    return container.exec(["sh", "-c", script], **options)


def on_disk(container: pyoci.Container) -> list[str]:
    directory = Path(container.directory, "execs")
    return os.listdir(directory) if directory.exists() else []


def test_streams_and_code(container: pyoci.Container) -> None:
    session = shell(container, "cat; echo err >&2; exit 7", stdin=PIPE, stdout=PIPE, stderr=PIPE)
    assert session.communicate(b"\x00\xffdata", PATIENCE) == (b"\x00\xffdata", b"err\n")
    assert session.returncode == 7
    assert session.exit_status == session.wait() == session.poll()
    assert session.pid is None
    assert on_disk(container) == []
    assert container.state() == "running"


@pytest.mark.parametrize("code", [0, 1, 126, 127, 200, 255])
def test_codes_come_through(container: pyoci.Container, code: int) -> None:
    assert shell(container, f"exit {code}").wait(PATIENCE).code == code


def test_signals(container: pyoci.Container) -> None:
    session = container.exec(["sleep", "100"])
    session.kill("TERM")
    status = session.wait(PATIENCE)
    assert (status.code, status.signal, session.returncode) == (128 + signal.SIGTERM, signal.SIGTERM, -signal.SIGTERM)
    with pytest.raises(pyoci.ContainerStateError):
        session.kill()
    assert shell(container, "kill -KILL $$").wait(PATIENCE).code == 128 + signal.SIGKILL


@pytest.mark.root
def test_the_program_is_as_the_container_unless_told_otherwise(container: pyoci.Container) -> None:
    assert output(container, "sh", "-c", "id -u; id -g; pwd; echo $OF") == "0\n0\n/\ncontainer\n"
    script = "id -u; id -g; pwd; echo $OF $MORE"
    assert output(container, "sh", "-c", script, user="65534:5", cwd="/tmp", env={"MORE": "more", "OF": "exec"}) == "65534\n5\n/tmp\nexec more\n"
    assert output(container, "hostname") == "container\n"


def effective(container: pyoci.Container, **options: Any) -> tuple[int, str]:
    fields = status_fields(output(container, "cat", "/proc/self/status", **options))
    return int(fields["CapEff"], 16), fields["NoNewPrivs"].strip()


@pytest.mark.root
def test_capabilities_and_privileges(container: pyoci.Container) -> None:
    bare, no_new_privs = effective(container)
    assert no_new_privs == "1"
    more, _ = effective(container, capabilities=["NET_RAW", "CAP_CHOWN"])
    assert more == bare | 1 << 13
    for_user, _ = effective(container, capabilities=["NET_RAW"], user=5)
    assert for_user == 1 << 13
    assert effective(container, user=5)[0] == 0
    assert effective(container, no_new_privs=False)[1] == "0"


@pytest.mark.parametrize(("command", "code"), [("nope", 127), ("/nope", 127), ("/etc", 126), ("/etc/passwd", 126)])
def test_a_program_that_is_not_there_is_a_result(container: pyoci.Container, command: str, code: int) -> None:
    session = container.exec([command], stderr=DEVNULL)
    assert session.wait(PATIENCE).code == code
    assert 0 < len(session.runtime_words) < 1000
    assert on_disk(container) == []


def test_what_else_keeps_a_program_from_starting_is_an_error_with_the_runtimes_words(container: pyoci.Container) -> None:
    session = container.exec(["true"], cwd="/no/such/place", stderr=DEVNULL)
    for _ in range(2):
        with pytest.raises(pyoci.ExecError, match="/no/such/place"):
            session.wait(PATIENCE)
    assert session.returncode is None
    assert on_disk(container) == []


def test_our_own_streams_descriptors_and_files(container: pyoci.Container, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert shell(container, "echo out; echo err >&2").wait(PATIENCE).code == 0
    assert capfd.readouterr() == ("out\n", "err\n")
    (tmp_path / "in").write_text("from a file\n")
    with (tmp_path / "in").open("rb") as source, (tmp_path / "out").open("wb") as sink:
        assert shell(container, "cat; echo err >&2", stdin=source, stdout=sink, stderr=STDOUT).wait(PATIENCE).code == 0
    assert sorted((tmp_path / "out").read_text().splitlines()) == ["err", "from a file"]  # two streams, in either order
    read, write = os.pipe()
    with os.fdopen(read, "rb") as end:
        with os.fdopen(write, "wb") as far:
            assert shell(container, "echo three >&3; ls /proc/self/fd | wc -l", preserve_fds=[far.fileno()], stdout=DEVNULL).wait(PATIENCE).code == 0
        assert end.read() == b"three\n"


def test_the_callers_stdin_is_left_alone(container: pyoci.Container) -> None:
    assert output(container, "cat") == ""
    program = (
        "import sys, pyoci; c = pyoci.Container.load(sys.argv[1], state_dir=sys.argv[2]); "
        "s = c.exec(['cat'], stdout=pyoci.PIPE); print(s.communicate(), c.state(), sys.stdin.read())"
    )
    state_dir = str(Path(container.directory).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", program, container.id, state_dir], input="mine", capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert done.stdout == "(b'', None) running mine\n"


def test_megabytes_both_ways_at_once(container: pyoci.Container) -> None:
    data = os.urandom(1 << 20) * 3
    session = container.exec(["cat"], stdin=PIPE, stdout=PIPE)
    out, _ = session.communicate(data, PATIENCE)
    assert out == data


def test_streams_are_read_and_written_piece_by_piece(container: pyoci.Container) -> None:
    with shell(container, "read a; echo got $a; read b; printf 'got %s' $b", stdin=PIPE, stdout=PIPE) as session:
        assert session.stdin is not None
        assert session.stdout is not None
        session.stdin.write(b"one\n")
        assert session.stdout.readline() == b"got one\n"
        assert session.poll() is None
        session.kill("CONT")  # crun tells the pid a moment after the program runs
        assert session.pid is not None
        session.stdin.write(b"two\n")
        assert list(session.stdout) == [b"got two"]
        assert session.stdout.read() == b""
    assert session.returncode == 0
    with pytest.raises(ValueError, match="closed"):
        session.stdout.read()


def test_much_output_is_streamed_or_bounded(container: pyoci.Container) -> None:
    size = 128 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with container.exec(["head", "-c", str(size), "/dev/zero"], stdout=PIPE) as session:
        assert session.stdout is not None
        left = size
        while data := session.stdout.read(1 << 16):
            left -= len(data)
    assert left == 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10  # KiB
    session = container.exec(["cat", "/dev/zero"], stdout=PIPE)
    with pytest.raises(pyoci.OutputTooLong) as caught:
        session.communicate(timeout=PATIENCE, max_output=1000)
    assert caught.value.stdout == bytes(1000)
    assert session.wait(PATIENCE).signal == signal.SIGKILL


def test_a_timeout_kills_the_session_alone_and_keeps_its_output(container: pyoci.Container) -> None:
    other = container.exec(["sleep", "100"])
    script = "trap '' TERM; sleep 100 & (sleep 100 &); echo part; sleep 100"
    session = shell(container, script, stdout=PIPE)
    assert session.stdout is not None
    assert session.stdout.readline() == b"part\n"
    with pytest.raises(pyoci.Timeout):
        session.wait(0.01)
    with pytest.raises(pyoci.ExecTimeout) as caught:
        session.communicate(timeout=0.1)
    assert caught.value.stdout == b""
    assert session.wait(PATIENCE).signal == signal.SIGKILL
    assert other.poll() is None
    assert container.state() == "running"
    other.kill()
    other.wait(PATIENCE)
    # The container's own sleep is all that is left, besides what looks.
    assert output(container, "sh", "-c", "ps -o comm | grep -c sleep") == "1\n"


def test_what_is_left_in_the_background_is_not_waited_for(container: pyoci.Container) -> None:
    session = shell(container, "sleep 100 & echo started; read x; exit 3", stdin=PIPE, stdout=PIPE)
    session.kill("CONT")  # known from here on; runc itself waits for who holds its pipes
    assert session.communicate(b"\n", PATIENCE) == (b"started\n", None)
    assert session.returncode == 3
    assert output(container, "sh", "-c", "ps -o comm | grep -c sleep") == "2\n"


def test_a_container_that_dies_ends_its_sessions(container: pyoci.Container) -> None:
    session = shell(container, "echo running; sleep 100", stdout=PIPE)
    assert session.stdout is not None
    assert session.stdout.readline() == b"running\n"
    container.kill("KILL")
    status = session.wait(PATIENCE)
    assert (status.code, status.signal) == (137, signal.SIGKILL)
    assert session.stdout.read() == b""
    session.stdout.close()
    container.wait(PATIENCE)  # init outlives what is in its namespace by a moment
    with pytest.raises(pyoci.ContainerStateError) as caught:
        container.exec(["true"])
    assert caught.value.state == "stopped"


def test_a_session_that_is_left_alone_goes_with_its_container(runtime: pyoci.OCIRuntime, build: Build) -> None:
    with runtime.create(build(*FOREVER)) as container:
        container.start()
        session = container.exec(["sleep", "100"])
        session.kill("CONT")
        early = container.exec(["sleep", "100"], stderr=DEVNULL)
        container.stop(0)
    assert session.wait(0).code == 137
    try:
        assert early.wait(0).code == 137
    except pyoci.ContainerStateError as error:  # the runtime was not so far
        assert error.state == "stopped"
    with pytest.raises(pyoci.ContainerNotFound):
        container.exec(["true"])


@pytest.mark.root
def test_not_running(runtime: pyoci.OCIRuntime, build: Build) -> None:
    with runtime.create(build(*FOREVER)) as container:
        with pytest.raises(pyoci.ContainerStateError) as caught:
            container.exec(["true"])
        assert caught.value.state == "created"
        container.start()
        container.pause()
        with pytest.raises(pyoci.ContainerStateError) as caught:
            container.exec(["true"])
        assert caught.value.state == "paused"
        container.resume()
        assert container.exec(["true"]).wait(PATIENCE).code == 0


@pytest.mark.parametrize(
    "options",
    [
        {"args": "echo"},
        {"args": []},
        {"args": [1]},
        {"args": ["a\0b"]},
        {"cwd": "relative"},
        {"env": {"A\0": "x"}},
        {"user": "nobody-knows-her"},
        {"user": -1},
        {"capabilities": "CAP_CHOWN"},
        {"capabilities": ["no such"]},
        {"no_new_privs": 1},
        {"stdin": -7},
        {"stdout": "file"},
        {"stdout": STDOUT},
        {"tty": 1},
        {"tty": True, "stdout": DEVNULL},
        {"tty": True, "size": (0, 80)},
        {"tty": True, "size": 80},
        {"preserve_fds": [9999]},
        {"preserve_fds": ["x"]},
        {"session_id": ""},
        {"session_id": "../x"},
        {"session_id": "x" * 241},
    ],
)
def test_bad_input_is_refused_before_anything_starts(container: pyoci.Container, options: dict[str, Any]) -> None:
    given: Any = {"args": ["true"], **options}
    with pytest.raises(ValueError, match=r".") as caught:
        container.exec(**given)
    assert isinstance(caught.value, pyoci.Error)
    assert on_disk(container) == []


def test_a_used_session_id(container: pyoci.Container) -> None:
    first = container.exec(["sleep", "100"], session_id="mine")
    with pytest.raises(pyoci.SessionExists, match="mine"):
        container.exec(["true"], session_id="mine")
    assert [session.id for session in container.exec_sessions()] == ["mine"]
    first.kill()
    first.wait(PATIENCE)
    assert container.exec(["true"], session_id="mine").wait(PATIENCE).code == 0


OTHER = """
import sys, pyoci
container = pyoci.Container.load(sys.argv[1], state_dir=sys.argv[2])
found = container.exec_sessions()
print(*[session.id for session in found])
{}
"""


def in_another_process(container: pyoci.Container, body: str) -> list[str]:
    state_dir = str(Path(container.directory).parents[1])
    program = [sys.executable, "-c", OTHER.format(body), container.id, state_dir]
    done = subprocess.run(program, capture_output=True, text=True, timeout=PATIENCE, check=True)
    return done.stdout.splitlines()


def test_another_process_finds_and_stops_sessions(container: pyoci.Container) -> None:
    obedient = container.exec(["sleep", "100"], session_id="a")
    deaf = shell(container, "trap '' TERM; echo deaf; while :; do sleep 1; done", session_id="b", stdout=PIPE)
    assert deaf.stdout is not None
    assert deaf.stdout.readline() == b"deaf\n"
    pids = in_another_process(container, "for session in found: session.kill('CONT'); print(session.pid)")
    assert pids == ["a b", str(obedient.pid), str(deaf.pid)]
    assert in_another_process(container, "container.exec_stop(0.2); print(container.exec_sessions(), container.state())") == ["a b", "[] running"]
    assert obedient.wait(PATIENCE).signal == signal.SIGTERM
    assert deaf.wait(PATIENCE).signal == signal.SIGKILL
    deaf.stdout.close()
    assert on_disk(container) == []


@pytest.mark.root
def test_exec_stop_ends_sessions_and_nothing_else(container: pyoci.Container) -> None:
    container.exec_stop()  # none: fine
    init = container.pid
    sessions = [container.exec(["sleep", "100"]) for _ in range(3)]
    container.exec_stop(PATIENCE)
    assert [session.wait(0).signal for session in sessions] == [signal.SIGTERM] * 3
    assert container.exec_sessions() == []
    assert (container.pid, container.state()) == (init, "running")
    container.pause()
    container.exec_stop()
    container.resume()
    session = container.exec(["sleep", "100"])
    session.kill("CONT")
    container.pause()
    with pytest.raises(pyoci.ContainerStateError):
        container.exec_stop(0)
    container.resume()
    session.stop(0)
    assert session.wait(0).signal == signal.SIGKILL


def test_a_session_whose_owner_is_gone(container: pyoci.Container) -> None:
    in_another_process(container, "container.exec(['sleep', '100'], stdout=pyoci.DEVNULL, stderr=pyoci.DEVNULL, session_id='orphan').kill('CONT')")
    (orphan,) = container.exec_sessions()
    assert orphan.id == "orphan"
    assert orphan.pid is not None
    with pytest.raises(pyoci.Timeout):
        orphan.wait(0.01)
    with pytest.raises(pyoci.SessionExists):
        container.exec(["true"], session_id="orphan")
    container.exec_stop(PATIENCE)
    assert container.exec_sessions() == []


def test_a_killed_runtime_does_not_lose_the_program(container: pyoci.Container) -> None:
    session = shell(container, "sleep 0.3; exit 5")
    session.kill("CONT")
    os.kill(session._session.runtime.pid, signal.SIGKILL)
    # The kernel tells the code (Linux 6.15); before that nobody does.
    assert session.wait(PATIENCE).code in (5, None)


def test_a_forked_child_leaves_its_parents_sessions_alone(container: pyoci.Container) -> None:
    with container.exec(["cat"], stdin=PIPE, stdout=DEVNULL) as session:
        child = os.fork()
        if child == 0:
            refused = 0
            for call in (session.kill, session.stop, lambda: container.exec(["true"])):
                try:
                    call()
                except pyoci.ContainerInherited:
                    refused += 1
            session.__exit__(RuntimeError, None, None)
            os._exit(refused)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
        assert session.poll() is None
    assert session.returncode == 0


def test_leaving_the_block(container: pyoci.Container) -> None:
    with container.exec(["cat"], stdin=PIPE, stdout=DEVNULL) as session:
        pass
    assert session.returncode == 0
    with pytest.raises(RuntimeError, match="inside"), container.exec(["sleep", "100"]) as session:
        raise RuntimeError("inside")
    assert session.returncode == -signal.SIGKILL


def test_many_threads(container: pyoci.Container) -> None:
    codes: dict[int, int | None] = {}

    def one(code: int) -> None:
        codes[code] = shell(container, f"exit {code}").wait(PATIENCE).code

    threads = [threading.Thread(target=one, args=(code,)) for code in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == {code: code for code in range(8)}


# --- terminals --------------------------------------------------------------------------------------------------------------------


def test_a_terminal(container: pyoci.Container) -> None:
    # The program looks at the size when it is told to: crun can start it before the size is set.
    script = "read go; stty size; read go; stty size; tty; echo err >&2; exit 3"
    session = shell(container, script, tty=True, size=(33, 77))
    terminal = session.stdin
    assert terminal is not None
    assert terminal is session.stdout
    assert session.stderr is None
    session.kill("CONT")
    session.resize(33, 77)
    terminal.write(b"go\n")
    lines: list[bytes] = []
    while not lines or lines[-1] != b"33 77\r\n":
        lines.append(terminal.readline())
        assert lines[-1], lines
    session.resize(40, 100)
    time.sleep(0.1)  # runc passes the size on in its own time
    out, err = session.communicate(b"go\n", PATIENCE)
    assert err is None
    assert out is not None
    assert b"40 100\r\n/dev/pts/" in out
    assert out.endswith(b"err\r\n")
    assert session.returncode == 3
    session.resize(1, 1)  # over, and fine


def test_a_terminal_hung_up(container: pyoci.Container) -> None:
    with shell(container, "read x", tty=True) as session:
        session.kill("CONT")
    assert session.exit_status is not None


def test_a_missing_program_on_a_terminal(container: pyoci.Container) -> None:
    session = container.exec(["nope"], tty=True)
    assert session.communicate(timeout=PATIENCE)[1] is None
    assert session.returncode == 127


def test_a_session_without_a_terminal_has_no_size(container: pyoci.Container) -> None:
    session = container.exec(["true"])
    with pytest.raises(pyoci.InvalidOption):
        session.resize(1, 1)
    session.wait(PATIENCE)


def test_a_terminal_below_a_long_path(runtime: pyoci.OCIRuntime, build: Build) -> None:
    with runtime.create(build(*FOREVER), "y" * 200) as container:
        container.start()
        session = container.exec(["tty"], tty=True, session_id="z" * 240)
        out, _ = session.communicate(timeout=PATIENCE)
        assert out is not None
        assert b"/dev/pts/" in out


# --- asyncio ----------------------------------------------------------------------------------------------------------------------


def test_asyncio(runtime_name: str, state_dir: str, build: Build) -> None:
    async def main() -> None:
        runtime = pyoci.aio.OCIRuntime(runtime_name, state_dir=state_dir)
        async with await runtime.create(build(*FOREVER)) as container:
            await container.start()
            session = await container.exec(["sh", "-c", "cat; exit 7"], stdin=PIPE, stdout=PIPE)
            assert await session.communicate(b"hello", PATIENCE) == (b"hello", None)
            assert session.returncode == 7
            async with await container.exec(["cat"], stdin=PIPE, stdout=PIPE) as session:
                assert session.stdin is not None
                assert session.stdout is not None
                await session.stdin.write(b"one\ntwo\nrest")
                assert await session.stdout.readline() == b"one\n"
                await session.stdin.close()
                assert [line async for line in session.stdout] == [b"two\n", b"rest"]
                assert await session.stdout.read() == b""
            assert (await session.wait()).code == 0
            many = [await container.exec(["sh", "-c", f"exit {code}"]) for code in range(6)]
            assert [status.code for status in await asyncio.gather(*(one.wait(PATIENCE) for one in many))] == list(range(6))
            session = await container.exec(["sh", "-c", "echo part; sleep 100"], stdout=PIPE)
            assert session.stdout is not None
            assert await session.stdout.readline() == b"part\n"
            with pytest.raises(pyoci.ExecTimeout):
                await session.communicate(timeout=0.1)
            session = await container.exec(["tty"], tty=True)
            out, _ = await session.communicate(timeout=PATIENCE)
            assert out is not None
            assert out.startswith(b"/dev/pts/")
            session = await container.exec(["sleep", "100"])
            waiting = asyncio.create_task(session.wait())
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert [found.id for found in await container.exec_sessions()] == [session.id]
            await container.exec_stop(PATIENCE)
            assert (await session.wait(0)).signal == signal.SIGTERM

    asyncio.run(main())


def test_a_cancelled_exec_leaves_nothing(runtime_name: str, state_dir: str, build: Build) -> None:
    async def main() -> None:
        runtime = pyoci.aio.OCIRuntime(runtime_name, state_dir=state_dir)
        async with await runtime.create(build(*FOREVER)) as container:
            await container.start()
            for delay in (0.0, 0.002, 0.005, 0.01):
                task = asyncio.create_task(container.exec(["sleep", "100"], tty=True))
                await asyncio.sleep(delay)
                task.cancel()
                try:
                    session = await task
                except asyncio.CancelledError:
                    continue
                await session.stop(0)
                assert session.stdin is not None
                await session.stdin.close()

    asyncio.run(main())


def test_both_faces_have_the_same_names() -> None:
    def names(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    assert names(pyoci.ExecSession) == names(pyoci.aio.ExecSession)
    assert names(pyoci.streams.Stream) == names(pyoci.aio.Stream)


@pytest.mark.root
def test_spec_is_not_changed(container: pyoci.Container) -> None:
    before = spec.load(container.directory)
    output(container, "true", env={"A": "b"}, capabilities=["NET_RAW"], user=5)
    assert spec.load(container.directory) == before
    assert output(container, "sh", "-c", "echo $A; id -u") == "\n0\n"
