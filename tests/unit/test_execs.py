"""exec without a container: the process object, the command, the runtime's words, ids."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pyoci import execs, sessions, spec
from pyoci.errors import ContainerNotFound, InvalidID, InvalidOption, InvalidSpec, SessionExists
from pyoci.process import Process, ended
from pyoci.runtimes import Runtime, parse_log
from pyoci.sessions import Session
from pyoci.waiting import deadline_in, drive


def process_of(life: Any, args: Any, **options: Any) -> Any:
    return json.loads(execs.process_of(life, args, **options))


class FakeLife:
    def __init__(self, directory: Path) -> None:
        self.id = "job"
        self.directory = str(directory)
        self.model: Any = None
        self.sessions: list[Any] = []

    def check_current(self) -> None:
        """It is always there."""


@pytest.fixture
def life(tmp_path: Path) -> Any:
    config = spec.build(["sleep", "1"], rootfs=tmp_path, env={"A": "1", "B": "2"}, cwd="/srv")
    config["process"]["consoleSize"] = {"height": 1, "width": 1}
    config["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 10}]
    (tmp_path / "config.json").write_bytes(spec.encode(config))
    return FakeLife(tmp_path)


def test_the_containers_own_process_is_the_model(life: Any) -> None:
    process = process_of(life, ["true"])
    assert process["args"] == ["true"]
    assert process["terminal"] is False
    assert process["cwd"] == "/srv"
    assert process["rlimits"][0]["soft"] == 10
    assert "consoleSize" not in process
    assert process["env"][-2:] == ["A=1", "B=2"]


def test_what_is_given_changes_it(life: Any) -> None:
    process = process_of(life, ["true"], cwd="/", env={"A": "x", "C": "3"}, user="5:6", no_new_privs=False)
    assert process["env"][-3:] == ["B=2", "A=x", "C=3"]
    assert (process["cwd"], process["user"], process["noNewPrivileges"]) == ("/", {"uid": 5, "gid": 6}, False)
    assert process_of(life, ["true"])["cwd"] == "/srv"


def test_capabilities_are_added(life: Any) -> None:
    own = process_of(life, ["true"])["capabilities"]
    more = process_of(life, ["true"], capabilities=["NET_RAW", "CAP_CHOWN"])["capabilities"]
    assert more["effective"] == [*own["effective"], "CAP_NET_RAW"]
    assert "ambient" not in more
    for_user = process_of(life, ["true"], capabilities=["NET_RAW"], user=7)["capabilities"]
    assert for_user["ambient"] == for_user["inheritable"] == ["CAP_NET_RAW"]


@pytest.mark.parametrize("bad", [{"args": [""]}, {"args": ["\0"]}, {"cwd": "x"}, {"no_new_privs": "yes"}])
def test_what_cannot_be_run(life: Any, bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidSpec, match="exec: process"):
        process_of(life, **{"args": ["true"], **bad})


@pytest.mark.parametrize(
    "bad",
    [
        {"args": "true"},
        {"args": []},
        {"args": [b"true"]},
        {"env": {"": "x"}},
        {"env": {"A": "\0"}},
        {"capabilities": "CHOWN"},
        {"capabilities": ["a b"]},
        {"user": "x y"},
    ],
)
def test_options_that_make_no_sense(life: Any, bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption):
        process_of(life, **{"args": ["true"], **bad})


def test_the_command() -> None:
    runtime = Runtime("/usr/bin/crun", "/state/crun", ["--debug"])
    assert runtime.exec_argv("job", "/d/s", 2, "/c") == [
        *("crun", "--root", "/state/crun", "--debug", "--log", "/d/s.log", "--log-format", "json"),
        *("exec", "--process", "/d/s.json", "--pid-file", "/d/s.pid", "--preserve-fds", "2", "--console-socket", "/c", "job"),
    ]
    assert runtime.exec_argv("job", "/d/s")[-3:] == ["--pid-file", "/d/s.pid", "job"]


def test_the_runtimes_log() -> None:
    lines = [json.dumps({"msg": "no such thing", "level": "error"}), "not JSON", '{"level": "error"}', json.dumps({"msg": 'a "b"\nc'})]
    assert parse_log("\n".join(lines).encode() + b"\n\xff") == b'no such thing\nnot JSON\n{"level": "error"}\na "b"\nc\n\xff'
    assert parse_log(b"") == b""


def test_session_ids() -> None:
    assert sessions.check_id("a-1") == "a-1"
    for bad in ("", "../x", "a/b", "x" * 241, "-a"):
        with pytest.raises(InvalidID, match="session id"):
            sessions.check_id(bad)


def test_an_id_is_claimed_once(life: Any) -> None:
    Session(life, "one", Process(), program="true").claim(b"{}")
    with pytest.raises(SessionExists, match="one"):
        Session(life, "one", Process(), program="true").claim(b"{}")
    life.directory += "/nowhere"
    with pytest.raises(ContainerNotFound):
        Session(life, "two", Process(), program="true").claim(b"{}")


def test_what_an_owner_left_behind_is_claimed_anew(life: Any) -> None:
    session = Session(life, "one", Process(), program="true")
    session.claim(b"{}")
    Path(f"{session.base}.pid").write_text("99999999\n")
    with pytest.raises(SessionExists):
        session.claim(b"{}", {"one"})
    session.claim(b"{}")
    assert not Path(f"{session.base}.pid").exists()


@pytest.mark.parametrize("content", [b"", b"abc", b"0", b"1", b"-5", b"99999999", b"4 4"])
def test_a_pid_that_is_none_is_not_believed(life: Any, content: bytes) -> None:
    session = Session(life, "one", Process(), program="true")
    session.claim(b"{}")
    Path(f"{session.base}.pid").write_bytes(content)
    assert session.find() is None


def test_only_the_runtimes_child_is_the_program(life: Any) -> None:
    with subprocess.Popen(["sleep", "100"]) as child:
        session = Session(life, "one", Process.open(os.getpid()), program="true")
        session.claim(b"{}")
        Path(f"{session.base}.pid").write_text(str(child.pid))
        assert session.find() is not None  # we stand for the runtime
        session = Session(life, "one", Process.open(child.pid), program="true")
        assert session.find() is None
        child.kill()


def test_what_lies_there_and_is_no_session_is_passed_over(life: Any) -> None:
    assert sessions.recorded(life) == []
    directory = Path(life.directory, "execs")
    directory.mkdir()
    (directory / "a.json").write_text("{}")
    (directory / "a.pid").write_text("x y")
    (directory / "b.json").write_text("{}")
    (directory / "b.pid").write_text(str(os.getpid()))
    (directory / "c.log").write_text("")
    (directory / "d.json").mkdir()
    assert sessions.recorded(life) == []


def test_a_runtime_is_known_by_its_command_line(life: Any) -> None:
    session = Session(life, "one", Process(), program="true")
    session.claim(b"{}")
    # A shell in place of the runtime, its child in place of the program.
    argv = ["sh", "-c", "sleep 100 & echo $!; wait", "sh", "--pid-file", f"{session.base}.pid", "job"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as runtime:
        assert runtime.stdout is not None
        program = int(runtime.stdout.readline())
        (starting,) = sessions.recorded(life)
        assert (starting.id, starting.runtime.pid, starting.find()) == ("one", runtime.pid, None)
        Path(f"{session.base}.pid").write_text(str(program))
        (found,) = sessions.recorded(life)
        running = found.find()
        assert running is not None
        assert (found.runtime.pid, running.pid) == (runtime.pid, program)
        assert [process.pid for process in found.members()] == [program]
        running.signal(9)
        runtime.kill()
        assert drive(ended(running, deadline_in(20)))
    assert sessions.recorded(life) == []
