"""What doctor tells of a host: each check where something is wrong, and in a bounded time."""

import os
import resource
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pyoci
from pyoci import advisories, doctor, rootless, runtimes
from pyoci.cgroups import systemd


def test_every_check_says_how_to_mend_what_it_finds(runtime: pyoci.OCIRuntime) -> None:
    checks = list(doctor.examine(runtime.state_dir))
    assert {check.result for check in checks} <= {doctor.OK, doctor.NOTE}
    assert [check.name for check in checks if check.result != doctor.OK and not check.fix] == []
    names = [check.name for check in checks]
    for name in ("user namespaces", "cgroup delegation", "systemd, D-Bus", "processes", "open files", "inotify", "overlay", "after crashes"):
        assert name in names
    assert any(check.found.endswith(" ms") for check in checks if check.name == os.path.basename(runtime.runtime_path))


def number(values: dict[str, int | None]) -> Callable[[str], int | None]:
    return values.get


def test_user_namespaces_that_are_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_number", number({"/proc/sys/user/max_user_namespaces": 0}))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert doctor._user_namespaces().result == doctor.NOTE
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    check = doctor._user_namespaces()
    assert check.result == doctor.MISSING
    assert "sysctl" in check.fix
    monkeypatch.setattr(doctor, "_number", number({"/proc/sys/user/max_user_namespaces": 1000}))
    monkeypatch.setattr(rootless, "hindrance", lambda: "/proc/sys/kernel/unprivileged_userns_clone is 0")
    assert "unprivileged_userns_clone is 0" in doctor._user_namespaces().found


def test_limits_that_are_low(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_pids_of_cgroups", lambda: iter([("/sys/fs/cgroup/a/pids.max", 20)]))
    assert doctor._pids().found == "at most 20 (/sys/fs/cgroup/a/pids.max)"
    assert doctor._pids().result == doctor.NOTE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))
    try:
        assert doctor._files().result == doctor.NOTE
        assert "ulimit -n" in doctor._files().fix
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    monkeypatch.setattr(doctor, "_number", number({"/proc/sys/fs/inotify/max_user_instances": 8}))
    assert "fs.inotify.max_user_instances" in doctor._inotify().fix


def test_a_bus_that_never_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"{tmp_path}/bus"
    with socket.socket(socket.AF_UNIX) as bus:
        bus.bind(path)
        bus.listen()
        monkeypatch.setattr(systemd, "addresses", lambda: [(path, False)])
        monkeypatch.setattr(os.path, "isdir", lambda _path: True)
        monkeypatch.setattr(doctor, "BUS_TIMEOUT", 0.2)
        began = time.monotonic()
        check = doctor._systemd()
        assert time.monotonic() - began < 5
        assert (check.result, "cannot be asked" in check.found) == (doctor.NOTE, True)


@pytest.mark.host("systemd", "debian13", "guest")
def test_systemd_answers() -> None:
    check = doctor._systemd()
    assert check.result == doctor.OK
    assert check.found.startswith("systemd 2")


def test_an_overlay_that_cannot_be_mounted(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise pyoci.ExecutableError(2, f"{name!r} was not found", name)

    monkeypatch.setattr(runtimes, "find_executable", missing)
    check = doctor._overlay()
    assert check.result == doctor.NOTE
    assert "'unshare' was not found" in check.found


def test_known_holes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "version_line", lambda _path, _env: "runc version 1.1.11")
    monkeypatch.setattr(advisories, "mended_by_debian", lambda _path: frozenset({"CVE-2024-21626"}))
    (check,) = doctor._known_holes("runc")
    assert check.result == doctor.NOTE
    assert "CVE-2025-31133" in check.found
    assert "CVE-2024-21626" not in check.found
    every = frozenset(id for advisory in advisories.KNOWN["runc"] for id in advisory.ids)
    monkeypatch.setattr(advisories, "mended_by_debian", lambda _path: every)
    (check,) = doctor._known_holes("runc")
    assert check.result == doctor.OK
    assert "that Debian has mended" in check.found
    monkeypatch.setattr(runtimes, "version_line", lambda _path, _env: "runc version 9.0.0")
    assert [check.result for check in doctor._known_holes("runc")] == [doctor.OK]


def test_what_a_crash_has_left(state_dir: str) -> None:
    assert doctor._leftovers(state_dir).result == doctor.OK
    left: Any = Path(state_dir, "exits", "job")
    left.parent.mkdir()
    left.write_text("3")
    check = doctor._leftovers(state_dir)
    assert check.result == doctor.NOTE
    assert "pyoci prune" in check.fix
    assert left.exists()
    pyoci.prune(state_dir)
