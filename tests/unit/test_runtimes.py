"""Finding executables, argv, and what the runtimes say."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyoci import cgroups, runtimes
from pyoci.errors import ExecutableError, NoRuntime, ProtocolError


def executable(path: Path, content: bytes, mode: int = 0o755) -> str:
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


def test_a_script_and_a_binary_of_this_machine_are_executables(tmp_path: Path) -> None:
    assert runtimes.find_executable(executable(tmp_path / "script", b"#!/bin/sh\n")) == str(tmp_path / "script")
    assert runtimes.find_executable("/proc/self/exe")


def test_each_way_of_being_none_is_told_apart(tmp_path: Path) -> None:
    ours = Path("/proc/self/exe").read_bytes()[:64]
    other = ours[:18] + b"\xff\xff" + ours[20:]
    wrong = {
        "missing": (str(tmp_path / "missing"), FileNotFoundError, "No such file"),
        "directory": (str(tmp_path), IsADirectoryError, "directory"),
        "mode": (executable(tmp_path / "mode", b"#!/bin/sh\n", 0o644), PermissionError, "not executable"),
        "text": (executable(tmp_path / "text", b"hello"), OSError, "neither a script nor an ELF"),
        "empty": (executable(tmp_path / "empty", b""), OSError, "neither a script nor an ELF"),
        "machine": (executable(tmp_path / "machine", other), OSError, "another machine"),
    }
    os.mkfifo(tmp_path / "fifo", 0o755)
    wrong["fifo"] = (str(tmp_path / "fifo"), PermissionError, "not a regular file")
    for path, kind, text in wrong.values():
        with pytest.raises(ExecutableError, match=text) as caught:
            runtimes.find_executable(path)
        assert caught.value.filename == path
        assert path in str(caught.value)
        assert caught.value.errno == (kind().errno or caught.value.errno)


def test_a_name_is_searched_and_the_message_says_where(tmp_path: Path) -> None:
    executable(tmp_path / "crux", b"#!/bin/sh\n")
    assert runtimes.find_executable("crux", str(tmp_path)) == str(tmp_path / "crux")
    with pytest.raises(ExecutableError, match=r"'nosuch' was not found in [^;]*$") as caught:
        runtimes.find_executable("nosuch", str(tmp_path))
    assert str(tmp_path) in str(caught.value)


def test_every_call_has_our_own_root() -> None:
    runtime = runtimes.Runtime("/usr/bin/crun", "/run/pyoci/crun", ["--debug"])
    assert runtime.argv("kill", "a", "KILL") == ["crun", "--root", "/run/pyoci/crun", "--debug", "kill", "a", "KILL"]


@pytest.mark.parametrize(
    ("output", "version"),
    [
        (b"crun version 1.8.1\ncommit: f8a0\n", (1, 8, 1)),
        (b"runc version 1.1.5+ds1\n", (1, 1, 5)),
        (b"conmon version 2.1.6\n", (2, 1, 6)),
        (b"?", None),
    ],
)
def test_versions(output: bytes, version: tuple[int, ...] | None) -> None:
    assert runtimes.parse_version(output) == version


@given(st.binary(max_size=200))
def test_arbitrary_version_output(output: bytes) -> None:
    version = runtimes.parse_version(output)
    assert version is None or all(isinstance(part, int) for part in version)


def test_states() -> None:
    for status in runtimes.STATUSES:
        assert runtimes.parse_state(json.dumps({"id": "a", "status": status, "pid": 7}).encode(), "a") == (status, 7)


@pytest.mark.parametrize(
    "output",
    [
        b"",
        b"garbage",
        b"[]",
        b"{}",
        b'{"id": "b", "status": "running"}',
        b'{"id": "a", "status": "gone"}',
        b'{"id": "a", "status": ["running"]}',
        b'{"id": "a", "status": "running", "pid": -1}',
        b'{"id": "a", "status": "running", "pid": true}',
        b'{"id": "a", "status": "running", "pid": "7"}',
        b'{"id": "a", "status": "does not exist"}',
    ],
)
def test_garbage_is_a_protocol_error_and_never_a_state(output: bytes) -> None:
    with pytest.raises(ProtocolError, match="'a'"):
        runtimes.parse_state(output, "a")


leaves = st.none() | st.booleans() | st.integers() | st.text()
states = st.recursive(leaves, lambda inner: st.dictionaries(st.sampled_from(["id", "status", "pid"]), inner))


@given(st.binary(max_size=200) | states.map(lambda value: json.dumps(value).encode()))
def test_arbitrary_state_output(output: bytes) -> None:
    try:
        status, pid = runtimes.parse_state(output, "a")
    except ProtocolError:
        return
    assert status in runtimes.STATUSES
    assert pid >= 0


def test_only_the_runtimes_own_words_mean_missing() -> None:
    assert runtimes.says_missing(b'time="now" level=error msg="container does not exist"')
    assert runtimes.says_missing(b"error opening file `/run/crun/a/status`: No such file or directory")
    assert not runtimes.says_missing(b"")
    assert not runtimes.says_missing(b"open /etc/x: No such file or directory")
    assert not runtimes.says_missing(b"permission denied")


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (b"executable file `nope` not found in $PATH: No such file or directory", 127),
        (b'msg="runc create failed: unable to start container process: exec: \\"nope\\": executable file not found in $PATH"', 127),
        (b'msg="runc create failed: unable to start container process: exec: \\"/nope\\": stat /nope: no such file or directory"', 127),
        (b'msg="runc create failed: unable to start container process: exec: \\"/etc\\": permission denied"', 126),
        (b'exec: \\"/bin/busybox/x\\": stat /bin/busybox/x: not a directory"', 126),
        (b"open executable: Permission denied", 126),
        (b"the path `/etc` is not a regular file: Operation not permitted", 126),
        (b"the path `/etc` exists but it is not executable: Operation not permitted", 126),
        (b"cannot open `/etc`: Not a directory", 126),
        (b"cannot open `/other`: Not a directory", None),
        (b"cannot open rootfs", None),
        (b"", None),
    ],
)
def test_a_program_that_cannot_be_run_is_told_from_other_failures(said: bytes, code: int | None) -> None:
    assert runtimes.says_program(said, "/etc") == code


def test_crun_is_refused_where_it_is_known_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    hybrid = cgroups.Cgroups({"memory": "/sys/fs/cgroup/memory", cgroups.V2: "/sys/fs/cgroup/unified"})
    monkeypatch.setattr(cgroups, "read", lambda: hybrid)
    assert "hybrid" in (runtimes.unfit("/usr/bin/crun", {}) or "")
    assert runtimes.unfit("/usr/sbin/runc", {}) is None
    v2 = cgroups.Cgroups({cgroups.V2: "/sys/fs/cgroup"})
    monkeypatch.setattr(cgroups, "read", lambda: v2)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(runtimes, "has_capability", lambda capability: False)
    monkeypatch.setattr(runtimes, "version_of", lambda path, env: (1, 8, 1))
    assert "1.14.1" in (runtimes.unfit("/usr/bin/crun", {}) or "")
    monkeypatch.setattr(runtimes, "version_of", lambda path, env: (1, 21))
    assert runtimes.unfit("/usr/bin/crun", {}) is None


def test_when_nothing_works_one_error_says_why_for_each(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    executable(tmp_path / "crun", b"no program")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(runtimes, "SEARCH_PATH", str(tmp_path))
    with pytest.raises(NoRuntime) as caught:
        runtimes.choose({})
    assert "neither a script nor an ELF" in caught.value.tried["crun"]
    assert "not found" in caught.value.tried["runc"]
    assert "apt install" in str(caught.value)
    assert "Errno" not in str(caught.value)
