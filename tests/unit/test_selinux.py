"""The arithmetic of SELinux contexts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyoci import selinux


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        # Fedora, RHEL: a login, a service, container processes with their two categories.
        ("unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023", "unconfined_u:unconfined_r:unconfined_t:s0"),
        ("system_u:system_r:init_t:s0", "system_u:system_r:init_t:s0"),
        ("system_u:system_r:container_runtime_t:s0", "system_u:system_r:container_runtime_t:s0"),
        ("system_u:system_r:container_t:s0:c123,c456", "system_u:system_r:container_t:s0"),
        ("system_u:system_r:container_t:s0:c0.c3", "system_u:system_r:container_t:s0"),
        ("system_u:system_r:spc_t:s0:c0.c3,c7,c12.c20", "system_u:system_r:spc_t:s0"),
        # MLS: a range of sensitivities, each with categories.
        ("staff_u:sysadm_r:sysadm_t:s0-s15:c0.c1023", "staff_u:sysadm_r:sysadm_t:s0"),
        ("staff_u:staff_r:staff_t:s2:c1-s5:c0.c3", "staff_u:staff_r:staff_t:s0"),
        # The names of mcstrans(8) are no level of the kernel's, but would be replaced like one.
        ("system_u:system_r:sshd_t:SystemLow-SystemHigh", "system_u:system_r:sshd_t:s0"),
        # Policies without MLS, as Gentoo's strict one.
        ("system_u:system_r:kernel_t", "system_u:system_r:kernel_t"),
        ("root:sysadm_r:sysadm_t", "root:sysadm_r:sysadm_t"),
    ],
)
def test_real_contexts_at_level_s0(context: str, expected: str) -> None:
    assert selinux.at_level(context) == expected


@pytest.mark.parametrize("context", ["", "kernel", "a:b", "unconfined", "::", "a::c", "a:b:c:", ":b:c:s0", "docker-default (enforce)"])
def test_what_is_no_context(context: str) -> None:
    with pytest.raises(ValueError, match="not an SELinux context"):
        selinux.at_level(context)


names = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=12)
categories = st.lists(st.tuples(st.integers(0, 500), st.integers(0, 523)), max_size=3).map(
    lambda pairs: ",".join(f"c{low}.c{low + more}" if more else f"c{low}" for low, more in pairs)
)
levels = st.builds(lambda number, some: f"s{number}:{some}" if some else f"s{number}", st.integers(0, 15), categories)
ranges = levels | st.builds(lambda low, high: f"{low}-{high}", levels, levels)


@given(names, names, names, ranges, levels)
def test_only_the_level_changes(user: str, role: str, kind: str, old: str, new: str) -> None:
    context = f"{user}:{role}:{kind}:{old}"
    assert selinux.at_level(context, new) == f"{user}:{role}:{kind}:{new}"
    assert selinux.at_level(selinux.at_level(context, new), old) == context
    assert selinux.at_level(f"{user}:{role}:{kind}", new) == f"{user}:{role}:{kind}"


@pytest.mark.parametrize(
    ("enabled", "current", "expected"),
    [
        (False, "unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023", None),
        (True, "unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023", "unconfined_u:unconfined_r:unconfined_t:s0"),
        (True, "system_u:system_r:init_t:s0", None),
        (True, "system_u:system_r:kernel_t", None),
        (True, "kernel", None),
        (True, "", None),
    ],
)
def test_conmons_context(monkeypatch: pytest.MonkeyPatch, enabled: bool, current: str, expected: str | None) -> None:
    monkeypatch.setattr(selinux, "_enabled", enabled)
    monkeypatch.setattr(selinux, "current", lambda: current)
    assert selinux.conmon_label() == expected


def test_whether_it_is_enabled_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(selinux, "_enabled", None)

    def exists(path: str) -> bool:
        asked.append(path)
        return True

    monkeypatch.setattr("os.path.exists", exists)
    assert selinux.enabled()
    assert selinux.enabled()
    assert asked == [selinux.ENFORCE]
