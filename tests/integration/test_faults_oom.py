"""What must survive: the end of memory. Row 21 of docs/faults.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import pyoci
from pyoci import cgroups, lifecycle
from pyoci.process import Process
from pyoci.process import ended as process_ended
from tests.containers import Build

GREEDY = ["sh", "-c", "x=$(head -c 100000000 /dev/zero | tr '\\0' x)"]


@pytest.mark.root
@pytest.mark.everywhere
@pytest.mark.guest
def test_row_21_every_end_for_lack_of_memory_is_told(runtime: pyoci.OCIRuntime, has_controller: Callable[[str], None]) -> None:
    has_controller("memory")
    with pyoci.Launcher(runtime=runtime, memory="16M") as launcher:
        done = list(launcher.map(GREEDY for _ in range(100)))
    assert [each.oom_killed for each in done] == [True] * 100
    assert {each.returncode for each in done} <= {-9, 137}  # init itself, or what it waited for


@pytest.mark.host("systemd", "debian13", "guest")
@pytest.mark.usefixtures("no_scope_is_left")
def test_row_21_a_scope_is_asked_at_once(runtime: pyoci.OCIRuntime, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before conmon is waited for: meanwhile systemd removes it."""
    waited_for = []

    def ended(process: Process, deadline: int) -> Any:
        waited_for.append(process.pid)
        return process_ended(process, deadline)

    scoped = pyoci.OCIRuntime(runtime.runtime_path, state_dir=runtime.state_dir, cgroup_manager="systemd")
    with scoped.create(build("sh", "-c", "exit 137")) as container:
        container.start()
        pid = container.pid
        monkeypatch.setattr(lifecycle, "ended", ended)
        monkeypatch.setattr(cgroups.Cgroups, "has_oom_kill", lambda _self, _path: waited_for == [pid])
        assert container.wait(20).oom_killed
