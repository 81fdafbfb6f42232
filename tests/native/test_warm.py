"""csrc/warm.c by itself: a request in, the command out, and nothing that is sent to it makes it crash."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from socket import SOCK_STREAM

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyoci import _ffi, warm
from pyoci.process import Descriptor, Process, ended
from pyoci.waiting import deadline_in, drive

SHELL = ["/bin/sh", "-c"]
OWN = {"PATH": "/usr/bin:/bin", "HOME": "/root"}
WORD = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)


def answer(data: bytes, *, streams: Sequence[int] = (), own: Mapping[str, str] = OWN) -> tuple[int, bytes]:
    """The exit code of the program (-N for signal N) that was sent these bytes and then the end, and what came on its stdout and stderr."""
    ours, theirs = map(Descriptor, _ffi.socketpair(SOCK_STREAM))
    read, write = map(Descriptor, os.pipe())
    process = Process()
    program = Descriptor(os.open(warm.PROGRAM, os.O_RDONLY))
    with ours, theirs, read, write, program:
        process.spawn(warm.PROGRAM, ["warm"], _ffi.environment_block(own), fds=(-1, write.fd, write.fd, program.fd, theirs.fd))
        write.close()
        theirs.close()
        left = memoryview(data)
        while left:
            try:
                left = left[_ffi.send(ours.fd, left, streams) :]
            except BlockingIOError:
                _ffi.poll((), (ours.fd,), deadline_in(10))
            except BrokenPipeError:
                break
            streams = ()
        ours.close()
        said = b""
        while more := os.read(read.fd, 65536):
            said += more
        assert drive(ended(process, deadline_in(10)))
    code, signal = process.reap() or (-1, 0)
    process.close()
    return -signal if signal else code, said


def ask(args: Sequence[str], env: Mapping[str, str] | None = None, cwd: str | None = None, *, own: Mapping[str, str] = OWN) -> tuple[int, bytes]:
    strings, argc, envc = warm.request(args, env, cwd)
    return answer(warm.header(len(strings), argc, envc, (-1, -1, -1)) + strings, own=own)


@settings(max_examples=30, deadline=None)
@given(st.lists(WORD), st.dictionaries(WORD.filter(lambda name: name and "=" not in name), WORD))
def test_arguments_and_environment_arrive_as_they_were(args: list[str], env: dict[str, str]) -> None:
    command = [*SHELL, "cat /proc/$$/cmdline /proc/$$/environ; :", "sh", *args]
    code, said = ask(command, env)
    assert code == 0
    expected = [*command, *(f"{name}={value}" for name, value in env.items())]
    expected += [f"{name}={value}" for name, value in OWN.items() if name not in env]
    assert said.split(b"\0")[:-1] == [word.encode() for word in expected]


def test_the_largest_request_arrives(tmp_path: Path) -> None:
    many = ["x" * 100_000] * 15
    assert ask([*SHELL, "echo $#; pwd; ls /proc/$$/fd | wc -l", "sh", *many], cwd=str(tmp_path)) == (0, f"15\n{tmp_path}\n3\n".encode())


def test_what_is_left_out_of_the_environment_and_what_is_replaced() -> None:
    assert ask([*SHELL, "echo $A $B $HOME"], {"HOME": "/", "B": "2"}, own={"A": "1", "B": "0", "HOME": "/root"}) == (0, b"1 2 /\n")


def test_the_program_is_searched_as_execvp_does(tmp_path: Path) -> None:
    for name in ("first", "second", "closed"):
        (tmp_path / name).mkdir()
    shutil.copy("/bin/true", tmp_path / "second" / "it")
    (tmp_path / "closed" / "it").write_text("not executable")
    (tmp_path / "closed" / "only").write_text("not executable")
    (tmp_path / "first" / "text").write_text("no program")
    (tmp_path / "first" / "text").chmod(0o755)
    path = {"PATH": f"{tmp_path}/first:{tmp_path}/closed:/nonexistent:/etc/passwd:{tmp_path}/second"}
    assert ask(["it"], path) == (0, b"")
    assert ask(["only"], path) == (126, b"pyoci: cannot execute 'only': Permission denied\n")
    assert ask(["text"], path) == (126, b"pyoci: cannot execute 'text': Exec format error\n")
    assert ask(["none"], path) == (127, b"pyoci: cannot execute 'none': No such file or directory\n")
    assert ask(["./it"], path, cwd=f"{tmp_path}/second") == (0, b"")
    assert ask(["it"], {"PATH": ":/nonexistent"}, cwd=f"{tmp_path}/second") == (0, b"")
    assert ask(["true"], own={}) == (0, b"")
    assert ask(["/etc/passwd/x"])[0] == 127
    assert ask(["/etc"]) == (126, b"pyoci: cannot execute '/etc': Permission denied\n")
    assert ask(["x" * 5000], path)[0] == 127
    assert ask(["true"], cwd="/nonexistent") == (126, b"pyoci: cannot change to the working directory '/nonexistent': No such file or directory\n")


def test_the_streams_become_0_1_and_2(tmp_path: Path) -> None:
    strings, argc, envc = warm.request([*SHELL, "cat; echo err >&2; ls /proc/$$/fd"])
    out = tmp_path / "out"
    (tmp_path / "in").write_text("in\n")
    with (tmp_path / "in").open() as stdin, out.open("w") as both:
        fds = (stdin.fileno(), both.fileno(), both.fileno())
        assert answer(warm.header(len(strings), argc, envc, fds) + strings, streams=fds) == (0, b"")
    assert out.read_text() == "in\nerr\n0\n1\n2\n"


def test_what_is_damaged_is_told() -> None:
    strings, argc, envc = warm.request(["true"])
    whole = warm.header(len(strings), argc, envc, (-1, -1, -1)) + strings
    for end in (0, 5, 15):
        assert answer(whole[:end])[0] == 125
    for end in (16, len(whole) - 1):
        assert answer(whole[:end])[0] == 125
    assert answer(whole[:-1] + b"x")[0] == 126
    assert answer(struct.pack("=IIII", warm.REQUEST_LIMIT + 1, 1, 0, 0))[0] == 126
    assert answer(struct.pack("=IIII", 4, 0, 0, 0) + bytes(4))[0] == 126
    assert answer(struct.pack("=IIII", 4, 5, 0, 0) + bytes(4))[0] == 126
    assert answer(struct.pack("=IIII", 4, 1, warm.STRINGS_LIMIT + 1, 0) + bytes(4))[0] == 126
    assert answer(warm.header(len(strings), argc, envc, (-1, 1, -1)) + strings)[0] == 126  # and no descriptor came


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 40), st.integers(0, 5), st.integers(0, 5), st.integers(0, 7), st.binary(max_size=40))
def test_no_bytes_make_it_crash(size: int, argc: int, envc: int, streams: int, content: bytes) -> None:
    # Nothing that could be run by chance: every string begins as no path does.
    content = b"\0" + content.replace(b"/", b"-")
    assert answer(struct.pack("=IIII", size, argc, envc, streams) + content, own={"PATH": "/nonexistent"})[0] in (125, 126, 127)


def test_sending_says_what_is_wrong() -> None:
    ours, theirs = map(Descriptor, _ffi.socketpair(SOCK_STREAM))
    with ours, theirs:
        with pytest.raises(OSError, match="sending"):
            _ffi.send(ours.fd, memoryview(b"x"), (ours.fd,) * 4)
        with pytest.raises(BlockingIOError):
            while True:
                _ffi.send(ours.fd, memoryview(bytes(65536)))
        theirs.close()
        with pytest.raises(BrokenPipeError):
            _ffi.send(ours.fd, memoryview(b"x"))
