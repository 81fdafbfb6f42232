"""The options of a create, without a container."""

import os
from pathlib import Path

import pytest

from pyoci import options as module
from pyoci.errors import InvalidOption
from pyoci.options import Options
from pyoci.streams import DEVNULL, PIPE, STDOUT


def test_options_are_fixed_once_made() -> None:
    options = Options(stdin=True)
    assert options.stdin
    with pytest.raises(AttributeError, match="stdin"):
        options.stdin = False
    with pytest.raises(AttributeError):
        options.colour = "red"


@pytest.mark.parametrize("name", ["sync_log", "no_pivot", "no_new_keyring"])
@pytest.mark.parametrize("value", [1, "yes", None])
def test_what_is_no_boolean_is_refused(name: str, value: object) -> None:
    with pytest.raises(InvalidOption, match=name):
        Options(**{name: value})  # type: ignore[arg-type]


def test_stdio_of_the_callers() -> None:
    assert Options().streams is None
    assert Options(stdin=True).streams is None
    options = Options(stdin=0, stderr=STDOUT)
    assert (options.streams, options.stdin, options.log_driver) == ((0, None, STDOUT), False, "passthrough")
    assert Options(stdout=PIPE).streams == (DEVNULL, PIPE, None)
    assert options.replaced(stdio=(1, 2, 3)).stdio == (1, 2, 3)
    assert options.stdio == (-1, -1, -1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("stdin", "yes"),
        ("stdout", STDOUT),
        ("tty", 1),
        ("log_driver", "json-file"),
        ("log_driver", "syslog"),
        ("log_driver", ""),
        ("monitor", None),
        ("log_path", ""),
        ("log_path", "/a:b"),
        ("log_path", "/a\nb"),
        ("log_path", "/a\0b"),
        ("log_path", b"/a"),
        ("log_size_max", 0),
        ("log_size_max", -2),
        ("log_size_max", True),
        ("log_size_max", 1.5),
        ("log_size_max", "big"),
        ("log_size_max", 1 << 63),
        ("log_level", "loud"),
        ("log_level", 3),
        ("listen_fds", "3"),
        ("listen_fds", 3),
        ("listen_fds", [-1]),
        ("listen_fds", [True]),
        ("listen_fds", ["3"]),
        ("listen_fds", {"": 0}),
        ("listen_fds", {"a:b": 0}),
        ("listen_fds", {"é": 0}),
        ("preserve_fds", [99999]),
        ("preserve_fds", [None]),
        ("preserve_fds", 3),
        ("notify_socket", ""),
        ("notify_socket", "relative"),
        ("notify_socket", "/a\0b"),
        ("notify_socket", 7),
    ],
)
def test_what_makes_no_sense_is_refused(name: str, value: object) -> None:
    with pytest.raises(InvalidOption, match=name):
        Options(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(("value", "size"), [(-1, -1), (1, 1), ("10M", 10 << 20), ("4096", 4096)])
def test_the_size_limit(value: int | str, size: int) -> None:
    assert Options(log_size_max=value).log_size_max == size


def test_a_log_of_ones_own_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Options(log_path=Path("log")).log_path == str(tmp_path / "log")
    with pytest.raises(InvalidOption, match="log_path"):
        Options(log_driver="none", log_path="/log")


def test_journald_wants_a_journal_and_a_long_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "JOURNAL", str(tmp_path / "socket"))
    with pytest.raises(InvalidOption, match="no journal here"):
        Options(log_driver="journald")
    (tmp_path / "socket").touch()
    options = Options(log_driver="journald")
    with pytest.raises(InvalidOption, match="13 characters"):
        options.check_id("x" * 12)
    options.check_id("x" * 13)
    Options().check_id("x")


def test_descriptors_for_activation_come_first(tmp_path: Path) -> None:
    with (tmp_path / "a").open("w") as a, (tmp_path / "b").open("w") as b:
        options = Options(preserve_fds=(0, a.fileno()), listen_fds={"web": b.fileno()})
        assert options.passed_fds == [b.fileno(), 0, a.fileno()]
        assert options.listen_names == ["web"]
        assert Options(listen_fds=[0, 1]).listen_names == ["unknown", "unknown"]
    assert Options().passed_fds == []
    with pytest.raises(InvalidOption, match="not an open descriptor"):
        Options(preserve_fds=[options.passed_fds[0]])


def test_activation_is_that_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_PID", "1")
    assert Options(listen_fds=True).passed_fds == []
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    assert Options().passed_fds == []


def test_the_notify_socket_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/notify")
    assert Options().notify_socket is None
    assert Options(notify_socket=True).notify_socket == "/run/notify"
    assert Options(notify_socket="@name").notify_socket == "@name"
    monkeypatch.delenv("NOTIFY_SOCKET")
    with pytest.raises(InvalidOption, match="no NOTIFY_SOCKET"):
        Options(notify_socket=True)
