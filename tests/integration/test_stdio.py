"""A container's own stdio: pipes, descriptors, a terminal; and attaching through conmon."""

import asyncio
import os
import termios
import time
from pathlib import Path
from typing import Any

import pytest

import pyoci
from pyoci import DEVNULL, PIPE, STDOUT
from pyoci.attach import Attachment
from tests.containers import Build

PATIENCE = 60.0


def all_output(attachment: Attachment) -> tuple[bytes, bytes]:
    streams = {1: b"", 2: b""}
    for number, data in attachment:
        streams[number] += data
    return streams[1], streams[2]


def test_pipes(runtime: pyoci.OCIRuntime, build: Build) -> None:
    with runtime.create(build("sh", "-c", "read a; echo got $a; cat; echo err >&2; exit 3"), stdin=PIPE, stdout=PIPE, stderr=PIPE) as container:
        assert container.stdin is not None
        assert container.stdout is not None
        assert container.stderr is not None
        container.start()
        container.stdin.write(b"one\n")
        assert container.stdout.readline() == b"got one\n"
        container.stdin.write(b"\x00\xff")
        container.stdin.close()
        assert container.stdout.read() == b"\x00\xff"
        assert container.stderr.read() == b"err\n"
        assert container.wait(PATIENCE).code == 3
        with pytest.raises(pyoci.InvalidOption):
            container.attach()
    assert container.stdout.closed


def test_descriptors_files_and_nothing(runtime: pyoci.OCIRuntime, build: Build, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("from a file\n")
    with (
        (tmp_path / "in").open("rb") as source,
        (tmp_path / "out").open("wb") as sink,
        runtime.create(build("sh", "-c", "cat; echo err >&2"), stdin=source, stdout=sink.fileno(), stderr=STDOUT) as container,
    ):
        assert (container.stdin, container.stdout, container.stderr) == (None, None, None)
        container.start()
        assert container.wait(PATIENCE).code == 0
    assert sorted((tmp_path / "out").read_text().splitlines()) == ["err", "from a file"]
    with runtime.create(build("sh", "-c", "cat; echo out"), stdout=PIPE, stderr=DEVNULL) as container:
        container.start()
        assert container.stdout is not None
        assert container.stdout.read() == b"out\n"


def test_our_own_stdout(runtime: pyoci.OCIRuntime, build: Build, capfd: pytest.CaptureFixture[str]) -> None:
    with runtime.create(build("sh", "-c", "cat; echo out; echo err >&2"), stdout=1, stderr=2) as container:
        container.start()
        container.wait(PATIENCE)
    assert capfd.readouterr() == ("out\n", "err\n")


def test_a_create_that_fails_tells_the_runtimes_words_wherever_stderr_goes(runtime: pyoci.OCIRuntime, build: Build, tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    for stderr in (PIPE, DEVNULL):
        with pytest.raises(pyoci.CreateError, match=r"no-such-program|executable"):
            runtime.create(build("no-such-program"), stdout=PIPE, stderr=stderr)
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize(
    "options",
    [
        {"stdin": True, "stdout": PIPE},
        {"stdin": "x"},
        {"stdout": "file"},
        {"stdout": PIPE, "tty": True},
        {"stdout": PIPE, "log_driver": "k8s-file"},
        {"tty": 1},
        {"tty": True, "log_driver": "passthrough"},
        {"stdout": -5},
    ],
)
def test_what_makes_no_sense_is_refused(runtime: pyoci.OCIRuntime, build: Build, options: dict[str, Any]) -> None:
    with pytest.raises(pyoci.InvalidOption):
        runtime.create(build("true"), **options)


def test_a_terminal_of_ours_is_refused(runtime: pyoci.OCIRuntime, build: Build) -> None:
    master, slave = os.openpty()
    try:
        with pytest.raises(pyoci.InvalidOption, match="terminal"):
            runtime.create(build("true"), stdout=slave)
    finally:
        os.close(master)
        os.close(slave)


# --- attach -----------------------------------------------------------------------------------------------------------------------


def test_attach(runtime: pyoci.OCIRuntime, build: Build) -> None:
    with runtime.create(build("sh", "-c", "cat; echo err >&2; exit 5"), stdin=True) as container, container.attach() as attachment:
        container.start()
        assert attachment.write(b"one\n") == 4
        assert attachment.read() == (1, b"one\n")
        attachment.write(b"two")
        attachment.close_stdin()
        assert all_output(attachment) == (b"two", b"err\n")
        assert attachment.read() is None
        assert container.wait(PATIENCE).code == 5
        assert "two" in Path(container.log_path).read_text()
    with pytest.raises(ValueError, match="closed"):
        attachment.read()


def test_megabytes_both_ways(runtime: pyoci.OCIRuntime, build: Build) -> None:
    data = os.urandom(1 << 18)
    with runtime.create(build("cat"), stdin=True) as container, container.attach() as attachment:
        container.start()
        attachment.write(data)
        attachment.close_stdin()
        assert all_output(attachment) == (data, b"")


def test_attach_when_it_has_ended(runtime: pyoci.OCIRuntime, build: Build) -> None:
    with runtime.create(build("true")) as container:
        container.start()
        container.wait(PATIENCE)
        with pytest.raises(pyoci.ContainerStateError):
            container.attach()
    with pytest.raises(pyoci.ContainerNotFound):
        container.attach()


def test_a_terminal(runtime: pyoci.OCIRuntime, build: Build) -> None:
    script = "read go; stty size; tty; echo err >&2; exit 3"
    with runtime.create(build("sh", "-c", script), tty=True) as container, container.attach() as attachment:
        container.start()
        attachment.resize(33, 77)
        # The size is set by conmon in its own time; the program looks at it when it is told to.
        wait_for_size(container, (33, 77))
        attachment.write(b"go\n")
        out, err = all_output(attachment)
        assert err == b""
        assert b"33 77\r\n/dev/" in out
        assert out.endswith(b"err\r\n")
        assert container.wait(PATIENCE).code == 3
        with pytest.raises(pyoci.InvalidOption):
            attachment.resize(0, 1)
    with pytest.raises(pyoci.ContainerNotFound):
        attachment.resize(1, 1)


def wait_for_size(container: pyoci.Container, size: tuple[int, int]) -> None:
    """As the container's terminal itself tells it."""

    deadline = time.monotonic() + PATIENCE
    terminal = os.open(f"/proc/{container.pid}/fd/0", os.O_RDWR | os.O_NOCTTY)
    try:
        while termios.tcgetwinsize(terminal) != size:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        os.close(terminal)


def test_a_terminal_as_the_spec_says(runtime: pyoci.OCIRuntime, build: Build) -> None:
    config = build("tty")
    config["process"]["terminal"] = True
    with runtime.create(config) as container, container.attach() as attachment:
        container.start()
        assert all_output(attachment)[0].startswith(b"/dev/")
    with runtime.create(config, tty=False) as container, container.attach() as attachment:
        container.start()
        assert all_output(attachment)[0] == b"not a tty\n"


def test_below_a_long_path(runtime: pyoci.OCIRuntime, build: Build) -> None:
    with runtime.create(build("cat"), "x" * 200, stdin=True) as container, container.attach() as attachment:
        container.start()
        attachment.write(b"far")
        attachment.close_stdin()
        assert all_output(attachment) == (b"far", b"")


def test_asyncio(runtime_name: str, state_dir: str, build: Build) -> None:
    async def main() -> None:
        runtime = pyoci.aio.OCIRuntime(runtime_name, state_dir=state_dir)
        async with await runtime.create(build("cat"), stdin=PIPE, stdout=PIPE) as container:
            assert container.stdin is not None
            assert container.stdout is not None
            await container.start()
            await container.stdin.write(b"one\n")
            assert await container.stdout.readline() == b"one\n"
            await container.stdin.close()
            assert await container.stdout.read() == b""
        async with await runtime.create(build("cat"), stdin=True) as container, await container.attach() as attachment:
            await container.start()
            await attachment.write(b"two")
            await attachment.close_stdin()
            assert [packet async for packet in attachment] == [(1, b"two")]

    asyncio.run(main())


def test_both_faces_have_the_same_names() -> None:
    def names(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    assert names(Attachment) == names(pyoci.aio.Attachment)
