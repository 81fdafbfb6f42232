"""The figures of a run as Markdown: everything (report.md), and what the README shows of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks import throughput
from benchmarks.sections import EXTRA, SECTIONS
from benchmarks.ways import FLOOR
from pyoci.bench import tables


def whole(figures: Mapping[str, Any], images: Mapping[str, str]) -> Iterator[str]:
    """All that was measured; ``images``: title → path."""
    yield "# Measured"
    yield ""
    yield f"{figures['date']}, pyoci {figures['pyoci']}. What each figure means: docs/benchmarks.md."
    for kind, found in figures["hosts"].items():
        yield ""
        yield f"## {kind}"
        yield ""
        yield circumstances(found)
        for name, sections in found["runtimes"].items():
            for section, seen in sections.items():
                yield from _section(f"{name}: {SECTIONS[section].about}", SECTIONS[section].report(seen))
        for section, seen in found["sections"].items():
            yield from _section(SECTIONS[section].about, SECTIONS[section].report(seen))
    if images:
        yield from _section("Plots", (f"![{title}]({path})\n" for title, path in images.items()))


def circumstances(found: Mapping[str, Any]) -> str:
    load, words = found["load"], [tables.host(found["host"]) + "."]
    words.append(f"Load average {load['before'][0]:.2f} before, {load['after'][0]:.2f} after {found['seconds']:.0f} s.")
    words += [f"{name} was not measured: {why}." for name, why in found["skipped"].items()]
    words += [f"Failed: {where}: {why}." for where, why in found["failed"].items()]
    return " ".join(words)


def _section(title: str, lines: Iterator[str]) -> Iterator[str]:
    yield ""
    yield f"### {title}"
    yield ""
    yield from lines


def readme(figures: Mapping[str, Any], images: Mapping[str, str]) -> Iterator[str]:
    """The README's section on what was measured, as Markdown."""
    for kind, found in figures["hosts"].items():
        yield ""
        yield f"**cgroup {kind}.** {circumstances(found)}"
        yield ""
        yield from _alone(found["runtimes"])
        yield ""
        yield from _together(found["runtimes"])
        yield from _memory(found["runtimes"])
        for name, sections in found["runtimes"].items():
            for section in ("exec", "warm", *EXTRA):
                if section in sections:
                    yield f"{name}: {SECTIONS[section].about}"
                    yield ""
                    yield from SECTIONS[section].report(sections[section])
                    yield ""
        for section, seen in found["sections"].items():
            yield from SECTIONS[section].report(seen)
            yield ""
    for title, path in images.items():
        yield ""
        yield f"![{title}]({path})"


def _alone(runtimes: Mapping[str, Any]) -> Iterator[str]:
    """Each way's life by both runtimes, in one table."""
    seen = {name: sections["life"] for name, sections in runtimes.items() if "life" in sections}
    rows = []
    for way in dict.fromkeys(_general(way, name) for name, found in seen.items() for way in found["ways"]):
        row = [way]
        for name, found in seen.items():
            figures = found["ways"].get(way.replace("bare runtime", f"{name} run"))
            floor = found["ways"].get(FLOOR)
            total = figures["phases"]["total"] if figures is not None else None
            target = found["targets"].get(way)
            ratio = tables.times(total["p50"], floor["phases"]["total"]["p50"]) if total is not None and floor is not None else ""
            row += [tables.ms(total["p50"]), tables.ms(total["p99"])] if total is not None else ["", ""]
            row += [f"{ratio} ({target:g})" if target is not None and ratio else ratio]
            row += [tables.ms(figures["own"], 2) if figures is not None else ""]
        rows.append(row)
    head = [f"{name}{what}" for name in seen for what in (", ms", " p99", f" to the {FLOOR}", " own cpu")]
    if rows:
        yield from tables.table(["one at a time", *head], rows)
    told = [
        [what, *(tables.ms(sections["latency"][what]["p50"], 2) if "latency" in sections else "" for sections in runtimes.values())]
        for what in next((sections["latency"] for sections in runtimes.values() if "latency" in sections), {})
    ]
    if told:
        yield ""
        yield from tables.table(["how soon an end is told, ms", *runtimes], told)


def _general(way: str, runtime: str) -> str:
    return "bare runtime" if way == f"{runtime} run" else way


def _together(runtimes: Mapping[str, Any]) -> Iterator[str]:
    for name, sections in runtimes.items():
        if "throughput" in sections:
            by_count = sections["throughput"]["in flight"]
            yield from tables.table(*_rates(name, by_count))
            yield ""


def _memory(runtimes: Mapping[str, Any]) -> Iterator[str]:
    seen = {name: sections["memory"] for name, sections in runtimes.items() if "memory" in sections}
    for what, title in (
        ("alive", "memory of a living container, without its own processes, MB"),
        ("peaks", "peak of the program that leads a life, MB"),
    ):
        rows: dict[str, dict[str, str]] = {}
        for name, found in seen.items():
            for way, size in found[what].items():
                rows.setdefault(_general(way, name), {})[name] = f"{size / 1e6:.1f}"
        if rows:
            yield from tables.table([title, *seen], [[way, *(row.get(name, "") for name in seen)] for way, row in rows.items()])
            yield ""


def _rates(name: str, by_count: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    ways = list(dict.fromkeys(way for found in by_count.values() for way in found["ways"]))
    rows = [[way, *(f"{found['ways'][way]['per second']:.0f}" if way in found["ways"] else "" for found in by_count.values())] for way in ways]
    for way, targets in throughput.TARGETS.items():
        for other, target in targets.items():
            ratios = [
                f"{found['ways'][way]['per second'] / found['ways'][other]['per second']:.1f} ×" if {way, other} <= set(found["ways"]) else ""
                for found in by_count.values()
            ]
            rows.append([f"{way} to {other} ({target:g} × at 4 and 8)", *ratios])
    return [f"{name}, per second, in flight", *by_count], rows
