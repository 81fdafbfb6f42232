"""Figures as tables: Markdown, padded so that they can be read as they stand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pyoci.bench.ways import PHASES


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines; the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = (cell.rjust(width) if column else cell.ljust(width) for column, (cell, width) in enumerate(zip(cells, widths, strict=True)))
        return f"| {' | '.join(padded)} |"

    yield line(head)
    yield f"|{'|'.join('-' * (width + 1) + (':' if column else '-') for column, width in enumerate(widths))}|"
    for row in rows:
        yield line(row)


def ms(seconds: float | None, digits: int = 1) -> str:
    return "" if seconds is None else f"{seconds * 1e3:.{digits}f}"


def times(value: float, to: float | None) -> str:
    return "" if not to else f"{value / to:.2f} ×"


def alone(figures: Mapping[str, Any], to: str) -> Iterator[str]:
    """Of lives one at a time (``measure.alone``), in milliseconds; the ratios are to the way ``to``."""
    ways = figures["ways"]
    base = ways[to]["phases"]["total"]["p50"] if to in ways else None
    with_all = any(found["all"] is not None for found in ways.values())
    head = ["one at a time, ms", *PHASES, "p50", "p90", "p99", f"to {to}", "own cpu", *(["all cpu"] if with_all else [])]
    rows = []
    for name, found in ways.items():
        phases, total = found["phases"], found["phases"]["total"]
        row = [name, *(ms(phases[phase]["p50"]) if phase in phases else "" for phase in PHASES)]
        row += [ms(total["p50"]), ms(total["p90"]), ms(total["p99"]), times(total["p50"], base), ms(found["own"], 2)]
        rows.append([*row, *([ms(found["all"])] if with_all else [])])
    yield from table(head, rows)
    yield from failures(figures["failed"])


def together(by_count: Mapping[str, Mapping[str, Any]], cell: str = "per second") -> Iterator[str]:
    """Of many at once: ``by_count`` is how many are in flight → ``measure.together``. ``cell``: ``per second``, or in milliseconds ``own``, ``all``,
    or ``p50``, ``p90``, ``p99`` of one life."""
    names = list(dict.fromkeys(name for figures in by_count.values() for name in figures["ways"]))
    what = {"per second": "per second", "own": "own cpu for each, ms", "all": "all cpu for each, ms"}.get(cell, f"{cell} of a life, ms")

    def shown(found: Mapping[str, Any] | None) -> str:
        if found is None:
            return ""
        if cell == "per second":
            return f"{found[cell]:.0f}"
        return ms(found[cell] if cell in found else found["total"][cell], 2 if cell == "own" else 1)

    rows = [[name, *(shown(figures["ways"].get(name)) for figures in by_count.values())] for name in names]
    yield from table([f"{what}, in flight", *by_count], [row for row in rows if any(row[1:])])


def failed_together(by_count: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    yield from failures({name: why for figures in by_count.values() for name, why in figures["failed"].items()})


def failures(failed: Mapping[str, str]) -> Iterator[str]:
    if failed:
        yield ""
    for name, why in failed.items():
        yield f"{name} was given up: {why}"


def host(facts: Mapping[str, Any]) -> str:
    """In one line."""
    tools = [f"{name} {facts[name]}" for name in ("conmon", "crun", "runc", "podman") if name in facts]
    words = [f"Linux {facts['kernel']} {facts['machine']}", f"{facts['processors']} processors ({facts['processor']})", f"cgroup {facts['cgroups']}"]
    return ", ".join([*words, *tools, f"Python {facts['python']}"])
