"""The specs of ordinary users."""

from typing import Any

import pytest

from pyoci import rootless
from pyoci.errors import InvalidOption, NoCgroup


@pytest.mark.parametrize(
    ("content", "ranges"),
    [
        (b"", []),
        (b"me:100000:65536\n", [(100000, 65536)]),
        (b"you:1:2\nme:100000:10\n1000:200000:20\n", [(100000, 10), (200000, 20)]),
        (b"# me:1:2\nme:1\nme:1:2:3\nme:x:2\nme:-1:2\nme:1:\nme:5:0\nme:4294967295:2\nme:99999999999:2\n\xff:1:2\nme", []),
    ],
)
def test_subordinate_ids(content: bytes, ranges: list[tuple[int, int]]) -> None:
    assert rootless.subordinate(content, {"me", "1000"}) == ranges


def test_the_caller_is_root_and_what_is_granted_comes_after() -> None:
    assert rootless.mapping(1000, []) == [{"containerID": 0, "hostID": 1000, "size": 1}]
    assert rootless.mapping(1000, [(100000, 10), (200000, 20)])[1:] == [
        {"containerID": 1, "hostID": 100000, "size": 10},
        {"containerID": 11, "hostID": 200000, "size": 20},
    ]


@pytest.fixture
def granted(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    count: int = getattr(request, "param", 0)
    ranges = [(100000, count)] if count else []
    monkeypatch.setattr(rootless, "mappings", lambda: (rootless.mapping(1000, ranges), rootless.mapping(1001, ranges)))


def config(**user: int) -> dict[str, Any]:
    pts = {"destination": "/dev/pts", "type": "devpts", "options": ["newinstance", "gid=5"]}
    return {"process": {"user": user}, "mounts": [pts, {"destination": "/proc"}], "linux": {"namespaces": [{"type": "pid"}]}}


@pytest.mark.usefixtures("granted")
def test_a_user_namespace_is_added() -> None:
    given = config(uid=0, gid=0)
    adapted = rootless.adapt(given)
    assert adapted["linux"]["namespaces"] == [{"type": "pid"}, {"type": "user"}]
    assert adapted["linux"]["uidMappings"] == [{"containerID": 0, "hostID": 1000, "size": 1}]
    assert adapted["linux"]["gidMappings"] == [{"containerID": 0, "hostID": 1001, "size": 1}]
    assert adapted["mounts"][0]["options"] == ["newinstance"]
    assert given == config(uid=0, gid=0)


@pytest.mark.usefixtures("granted")
def test_a_spec_with_a_user_namespace_stays_as_it_is() -> None:
    given = config(uid=7)
    given["linux"]["namespaces"].append({"type": "user"})
    assert rootless.adapt(given) is given


@pytest.mark.usefixtures("granted")
@pytest.mark.parametrize("user", [{"uid": 1}, {"uid": 0, "gid": 1}])
def test_only_root_is_mapped(user: dict[str, int]) -> None:
    with pytest.raises(InvalidOption, match="newuidmap"):
        rootless.adapt(config(**user))


@pytest.mark.usefixtures("granted")
@pytest.mark.parametrize("granted", [65536], indirect=True)
def test_with_subordinate_ids_others_are_mapped(granted: None) -> None:
    adapted = rootless.adapt(config(uid=65536, gid=100))
    assert adapted["mounts"][0]["options"] == ["newinstance", "gid=5"]
    with pytest.raises(InvalidOption, match="65537 from 0 on"):
        rootless.adapt(config(uid=65537))


@pytest.mark.parametrize(
    ("resources", "named"),
    [
        ({"memory": {"limit": 1}}, "memory"),
        ({"pids": {"limit": 1}, "cpu": {"quota": 1}}, "pids, cpu"),
        ({"hugepageLimits": [{"pageSize": "2MB", "limit": 1}]}, "hugepageLimits"),
        ({"unified": {"memory.high": "1"}}, "unified"),
    ],
)
def test_limits_need_a_cgroup(resources: dict[str, Any], named: str) -> None:
    with pytest.raises(NoCgroup, match=f"'job' cannot have limits \\({named}\\)"):
        rootless.check_limits({"linux": {"resources": resources}}, "job")


@pytest.mark.parametrize("resources", [None, {}, {"devices": [{"allow": False}]}, {"memory": {}, "pids": None, "cpu": {"shares": None}}])
def test_what_is_no_limit_needs_none(resources: dict[str, Any] | None) -> None:
    rootless.check_limits({"linux": {"resources": resources}}, "job")
    rootless.check_limits({}, "job")
