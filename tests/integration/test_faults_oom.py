"""What must survive: the end of memory. Row 21 of docs/faults.md."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import pyoci

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
