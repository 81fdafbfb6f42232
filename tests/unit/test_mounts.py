"""When a container needs a mount namespace of its own, and what its spec says then."""

from __future__ import annotations

import os
import stat
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyoci import mounts
from pyoci.mounts import Mounts, host_id, may_enter

ONE_RANGE = [{"containerID": 0, "hostID": 100_000, "size": 65536}]


def linux(uids: list[dict[str, int]] = ONE_RANGE, gids: list[dict[str, int]] = ONE_RANGE, path: str | None = None) -> dict[str, Any]:
    namespace = {"type": "user"} if path is None else {"type": "user", "path": path}
    return {"namespaces": [{"type": "mount"}, namespace], "uidMappings": uids, "gidMappings": gids}


def spec(root: str = "/srv/closed/rootfs", **parts: Any) -> dict[str, Any]:
    return {"ociVersion": "1.0.2", "root": {"path": root, "readonly": True}, "linux": linux(), **parts}


def plan(config: dict[str, Any], wanted: bool | None, status: Any = os.stat, privileged: bool = True) -> Mounts | None:
    return mounts.plan(config, wanted, privileged=privileged, status=status)


def directory(mode: int, uid: int = 0, gid: int = 0) -> os.stat_result:
    return os.stat_result((stat.S_IFDIR | mode, 1, 1, 2, uid, gid, 0, 0, 0, 0))


def tree(**modes: tuple[int, int, int]) -> Any:
    """A stat that knows /, /srv, /srv/closed … by their last names; all else is open."""
    return lambda path: directory(*modes.get(os.path.basename(path) or "root", (0o755, 0, 0)))


@pytest.mark.parametrize(
    ("id", "mappings", "expected"),
    [
        (0, [], None),
        (0, ONE_RANGE, 100_000),
        (65535, ONE_RANGE, 165_535),
        (65536, ONE_RANGE, None),
        (0, [{"containerID": 1, "hostID": 5, "size": 9}], None),
        (0, [{"containerID": 1, "hostID": 5, "size": 9}, {"containerID": 0, "hostID": 1000, "size": 1}], 1000),
        (3, [{"containerID": 0, "hostID": 7, "size": 0}], None),
    ],
)
def test_ids_of_the_host(id: int, mappings: list[dict[str, int]], expected: int | None) -> None:
    assert host_id(id, mappings) == expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ((0o755, 0, 0), True),
        ((0o711, 0, 0), True),
        ((0o750, 0, 0), False),
        ((0o700, 0, 0), False),
        ((0o010, 0, 100_000), True),
        ((0o701, 0, 100_000), False),  # the group's bits are the group's, and they are none
        ((0o100, 100_000, 0), True),
        ((0o011, 100_000, 0), False),
        ((0o000, 100_005, 100_005), True),  # root's privilege: owner and group are mapped
        ((0o700, 100_005, 0), False),
        ((0o700, 0, 100_005), False),
    ],
)
def test_who_may_enter(status: tuple[int, int, int], expected: bool) -> None:
    assert may_enter(directory(*status), linux()) is expected


def test_the_hosts_root_may_enter_everything() -> None:
    identity = [{"containerID": 0, "hostID": 0, "size": 1 << 32}]
    assert may_enter(directory(0o000), linux(identity, identity))


def test_the_namespace_is_made_where_a_directory_above_keeps_the_mapped_root_out() -> None:
    found = plan(spec(), None, tree(closed=(0o700, 0, 0)))
    assert found is not None
    assert (found.source, found.uid, found.gid) == ("/srv/closed/rootfs", 100_000, 100_000)
    assert (found.place, found.target) == (mounts.PLACE, mounts.ROOTFS)
    assert plan(spec(), None, tree(root=(0o700, 0, 0))) is not None
    assert plan(spec(), None, tree(closed=(0o700, 0, 0)), privileged=False) is None


def test_the_root_file_system_itself_is_not_asked() -> None:
    """Binding would not help: that directory's own mode comes along."""
    assert plan(spec(), None, tree(rootfs=(0o700, 0, 0))) is None


@pytest.mark.parametrize(
    "config",
    [
        spec(linux={}),
        spec(linux=None),
        spec(linux={"namespaces": [{"type": "mount"}]}),
        spec(linux={**linux(), "namespaces": None}),
        spec(linux=linux([], [])),
        spec(linux=linux([{"containerID": 1, "hostID": 1, "size": 1}])),
        spec(root="/"),
    ],
)
def test_it_is_not_made_where_nothing_calls_for_it(config: dict[str, Any]) -> None:
    assert plan(config, None, tree(closed=(0o700, 0, 0), srv=(0o700, 0, 0))) is None


def test_it_is_made_or_not_made_as_asked() -> None:
    def never(path: str) -> os.stat_result:
        raise AssertionError(path)

    assert plan(spec(), False, never) is None
    wanted = plan(spec(), True, never)
    assert wanted is not None
    assert wanted.uid == 100_000
    without = plan(spec(linux={}), True, never)
    assert without is not None
    assert (without.uid, without.gid) == (os.geteuid(), os.getegid())


@given(st.integers(0, 0o777), st.sampled_from([0, 100_000, 100_001, 7]), st.sampled_from([0, 100_000, 100_001, 7]))
def test_a_wider_mode_never_closes_a_directory_to_its_owner_or_to_others(mode: int, uid: int, gid: int) -> None:
    if may_enter(directory(mode, uid, gid), linux()):
        assert may_enter(directory(mode | 0o111, uid, gid), linux())
    assert may_enter(directory(mode | 0o111, uid, gid), linux())
