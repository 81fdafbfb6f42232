"""What is made of measured lives: percentiles, tables, and what happens when a way fails."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from functools import partial

import pytest

from benchmarks import pairs
from pyoci.bench import measure, tables


class Way:
    """Takes what it is told to take; fails at its Nth life."""

    def __init__(self, name: str, total: float = 1.0, fails_at: int = -1) -> None:
        self.name = name
        self.total = total
        self.led = 0
        self.fails_at = fails_at

    def live(self) -> Mapping[str, float]:
        self.led += 1
        if self.led == self.fails_at:
            raise RuntimeError("first line\nlast line")
        return {"create": self.total / 2, "total": self.total}

    def spent(self) -> float:
        return self.led * 0.25

    def close(self) -> None:
        pass


class Crowd(Way):
    def live(self, until: float) -> list[float]:  # type: ignore[override]
        assert until > time.perf_counter()
        return [super(Crowd, self).live()["total"] for _ in range(4)]


def test_percentiles() -> None:
    assert measure.percentiles([float(i) for i in range(101)]) == {"p50": 50, "p90": 90, "p99": 99}
    assert measure.percentiles([3.0]) == {"p50": 3, "p90": 3, "p99": 3}


def test_every_way_leads_its_lives_in_random_order() -> None:
    order = measure.shuffled({"a": 50, "b": 50})
    assert Counter(order) == {"a": 50, "b": 50}
    assert order != sorted(order)
    assert sorted(measure.rounds(["a", "b"], 0)) == ["a", "b"]


def test_rare_ways_have_their_turn_in_one_round_of_some() -> None:
    seen = Counter(measure.rounds(["a", "rare"], 0.02, rare=["rare"], every=4))
    assert 0 < seen["rare"] <= seen["a"] / 4 + 1


def test_lives_one_at_a_time() -> None:
    ways = [Way("a", 0.5), Way("b", 0.1)]
    found = measure.alone(ways, ["a", "b", "a"], everything=lambda: sum(way.led for way in ways))
    assert found["failed"] == {}
    assert found["ways"]["a"] == {
        "lives": 2,
        "phases": {"create": measure.percentiles([0.25]), "total": measure.percentiles([0.5])},
        "own": 0.25,
        "all": 1,
        "totals": [500_000, 500_000],
    }
    assert found["ways"]["b"]["lives"] == 1


@pytest.mark.parametrize("fails_at", [1, measure.WARM_UP + 2])
def test_a_way_that_fails_is_told_and_the_others_go_on(fails_at: int) -> None:
    broken, other = Way("broken", fails_at=fails_at), Way("other")
    found = measure.alone([broken, other], ["broken", "other"] * 5)
    assert found["failed"] == {"broken": "last line"}
    assert broken.led == fails_at
    assert found["ways"]["other"]["lives"] == 5
    assert "broken was given up: last line" in list(tables.alone(found, "other"))


def test_many_at_once() -> None:
    found = measure.together([Crowd("a"), Crowd("broken", fails_at=6)], 3, 10)
    assert found["failed"] == {"broken": "last line"}
    assert found["ways"]["a"]["lives"] == 12
    assert len(found["ways"]["a"]["rounds"]) == 3
    assert found["ways"]["a"]["own"] == 0.25
    assert found["ways"]["broken"]["lives"] == 4
    lines = list(tables.together({"8": found}, "p50"))
    assert lines[2].split() == ["|", "a", "|", "1000.0", "|"]
    assert list(tables.failed_together({"8": found, "9": found})) == ["", "broken was given up: last line"]


def test_a_table_can_be_read_as_it_stands() -> None:
    assert list(tables.table(["what", "ms"], [["a long name", "1"], ["b", "1000"]])) == [
        "| what        |   ms |",
        "|-------------|-----:|",
        "| a long name |    1 |",
        "| b           | 1000 |",
    ]


def test_differences_are_those_of_pairs() -> None:
    with_it, without = [{"total": 2.0}, {"total": 12.0}, {"total": 5.0}], [{"total": 1.0}, {"total": 10.0}, {"total": 1.0}]
    seen = pairs.differences(with_it, without)["total"]
    assert seen["median"] == 2
    assert seen["mean"] == pytest.approx(7 / 3)


def test_turns_hold_every_action_as_often() -> None:
    steps: list[int] = []
    led: list[str] = []

    def lead(name: str) -> int:
        led.append(name)
        return len(led)

    actions = {name: partial(lead, name) for name in "ab"}
    seen = pairs.interleaved(actions, 5, lambda: steps.append(1), batch=2)
    assert {name: len(values) for name, values in seen.items()} == {"a": 5, "b": 5}
    assert len(steps) == 5
    assert led[:2] in (["a", "a"], ["b", "b"])
