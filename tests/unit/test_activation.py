"""Socket activation: whose descriptors they are, and what the variables may hold."""

import sys
from types import ModuleType

import pytest

from pyoci import activation
from pyoci.errors import InvalidOption


@pytest.mark.parametrize(
    ("env", "found"),
    [
        ({}, []),
        ({"LISTEN_FDS": "2"}, []),
        ({"LISTEN_PID": "7"}, []),
        ({"LISTEN_FDS": "2", "LISTEN_PID": "8"}, []),
        ({"LISTEN_FDS": "nonsense", "LISTEN_PID": "8"}, []),
        ({"LISTEN_FDS": "0", "LISTEN_PID": "7"}, []),
        ({"LISTEN_FDS": "2", "LISTEN_PID": "7"}, [(3, "unknown"), (4, "unknown")]),
        ({"LISTEN_FDS": "2", "LISTEN_PID": "7", "LISTEN_FDNAMES": "web:api"}, [(3, "web"), (4, "api")]),
    ],
)
def test_the_descriptors_are_those_for_this_process(env: dict[str, str], found: list[tuple[int, str]]) -> None:
    assert activation.read(env, 7) == found


@pytest.mark.parametrize(
    "env", [{"LISTEN_FDS": "-1"}, {"LISTEN_FDS": ""}, {"LISTEN_FDS": "٣"}, {"LISTEN_FDS": "99999"}, {"LISTEN_FDS": "2", "LISTEN_FDNAMES": "web"}]
)
def test_variables_that_make_no_sense_are_refused(env: dict[str, str]) -> None:
    with pytest.raises(InvalidOption, match="LISTEN_"):
        activation.read({"LISTEN_PID": "7", **env}, 7)


def test_systemd_python_is_asked_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = ModuleType("systemd.daemon")
    asked = []

    def listen_fds_with_names(*, unset_environment: bool) -> dict[int, str]:
        asked.append(unset_environment)
        return {3: "web", 4: ""}

    daemon.listen_fds_with_names = listen_fds_with_names  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "systemd", ModuleType("systemd"))
    monkeypatch.setitem(sys.modules, "systemd.daemon", daemon)
    assert activation.inherited() == [(3, "web"), (4, "unknown")]
    assert asked == [False]


def test_what_systemd_python_refuses_is_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    def listen_fds_with_names(*, unset_environment: bool) -> dict[int, str]:
        raise OSError(22, "Invalid argument")

    daemon = ModuleType("systemd.daemon")
    daemon.listen_fds_with_names = listen_fds_with_names  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "systemd", ModuleType("systemd"))
    monkeypatch.setitem(sys.modules, "systemd.daemon", daemon)
    with pytest.raises(InvalidOption, match="Invalid argument"):
        activation.inherited()


def test_what_the_containers_init_is_told() -> None:
    config = {"process": {"args": ["true"], "env": ["A=b", "LISTEN_FDS=7"]}}
    told = activation.tell(config, ["web", "unknown"])
    assert told["process"]["env"] == ["A=b", "LISTEN_FDS=2", "LISTEN_PID=1", "LISTEN_FDNAMES=web:unknown"]
    assert config["process"]["env"] == ["A=b", "LISTEN_FDS=7"]
    assert activation.tell({"process": {}}, ["web"])["process"]["env"][0] == "LISTEN_FDS=1"
