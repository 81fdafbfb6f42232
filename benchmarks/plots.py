"""The figures as pictures, by matplotlib (the extra ``bench``); the same figures give the same files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import quantiles
from typing import TYPE_CHECKING, Any

from benchmarks.ways import BY_HAND, FLOOR
from pyoci.bench.ways import DIRECT, PHASES, PLAIN, PODMAN, PYOCI, RUN, WARM

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BARE = "bare runtime"
WAYS = (PYOCI, DIRECT, WARM, PLAIN, RUN, FLOOR, BY_HAND, BARE, PODMAN)
# Okabe and Ito's colours, which most people can tell apart.
COLOURS = dict(zip(WAYS, ("#0072B2", "#009E73", "#882255", "#56B4E9", "#CC79A7", "#000000", "#E69F00", "#999999", "#D55E00"), strict=True))
PHASE_COLOURS = dict(zip((*PHASES, "total"), ("#0072B2", "#56B4E9", "#F0E442", "#E69F00", "#BBBBBB"), strict=True))
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "pyoci",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}
WIDTH, HEIGHT = 4.6, 3.4
"""Inches, of the picture for one runtime."""
KINDS = ("svg", "png")


def draw(figures: Mapping[str, Any], directory: Path, kinds: Sequence[str] = KINDS) -> dict[str, str]:
    """Every picture for which there are figures, in each of these formats. Gives title → the file's name in the first of them."""
    import matplotlib as mpl

    made = {}
    with mpl.rc_context(STYLE):
        for host, found in figures["hosts"].items():
            for name, (title, section, picture) in PICTURES.items():
                seen = {runtime: sections[section] for runtime, sections in found["runtimes"].items() if section in sections}
                if seen:
                    figure = picture(seen)
                    for kind in kinds:
                        metadata = {"Date": None, "Creator": None} if kind == "svg" else None
                        figure.savefig(directory / f"{name}-{host}.{kind}", dpi=110, metadata=metadata, facecolor="white")
                    made[f"{title}, cgroup {found['host']['cgroups']}"] = f"{name}-{host}.{kinds[0]}"
    return made


def _side_by_side(seen: Mapping[str, Any], paint: Callable[[Axes, str, Any], None], *, height: float = HEIGHT, share_y: bool = False) -> Figure:
    """A picture with one part for each runtime, and one legend below."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH * len(seen), height), layout="constrained")
    parts = figure.subplots(1, len(seen), squeeze=False, sharey=share_y)[0]
    entries: dict[str, Any] = {}
    for axes, (runtime, found) in zip(parts, seen.items(), strict=True):
        axes.set_title(runtime)
        paint(axes, runtime, found)
        handles, labels = axes.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    figure.legend(
        entries.values(), entries.keys(), loc="outside lower center", ncols=min(len(entries), 4 * len(seen) if len(seen) > 1 else 3), fontsize=8
    )
    return figure


def _general(way: str, runtime: str) -> str:
    return BARE if way == f"{runtime} run" else way


def _style(way: str, runtime: str) -> dict[str, Any]:
    name = _general(way, runtime)
    return {"label": name, "color": COLOURS.get(name, "#666666"), "linestyle": "--" if name in (FLOOR, BY_HAND, BARE, PODMAN) else "-"}


def throughput(seen: Mapping[str, Any]) -> Figure:
    """Containers per second against how many are in flight."""

    def paint(axes: Axes, runtime: str, found: Any) -> None:
        by_count = found["in flight"]
        for way in dict.fromkeys(way for row in by_count.values() for way in row["ways"]):
            points = [(int(count), row["ways"][way]["per second"]) for count, row in by_count.items() if way in row["ways"]]
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, **_style(way, runtime))
        axes.set_xscale("log", base=2)
        axes.set_xticks([int(count) for count in by_count], labels=list(by_count))
        axes.set_ylim(bottom=0)
        axes.set_xlabel("in flight")
        axes.set_ylabel("containers per second")
        axes.grid(axis="y", alpha=0.3)

    return _side_by_side(seen, paint)


def distributions(seen: Mapping[str, Any]) -> Figure:
    """Which share of the lives took at most so long."""

    def paint(axes: Axes, runtime: str, found: Any) -> None:
        for way, row in found["ways"].items():
            totals = sorted(row["totals"])
            # Every fiftieth part: each life would make a large file.
            cuts = [totals[0], *quantiles(totals, n=50, method="inclusive"), totals[-1]] if len(totals) > 1 else totals * 51
            axes.plot([cut / 1e3 for cut in cuts], [i / 50 for i in range(51)], **_style(way, runtime))
        axes.set_xscale("log")
        ticks = (2, 5, 10, 20, 50, 100, 200, 500)
        low, high = axes.get_xlim()
        axes.set_xticks([tick for tick in ticks if low <= tick <= high], labels=[str(tick) for tick in ticks if low <= tick <= high])
        axes.minorticks_off()
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("a whole life, ms")
        axes.set_ylabel("share of lives")
        axes.grid(alpha=0.3)

    return _side_by_side(seen, paint)


def phases(seen: Mapping[str, Any]) -> Figure:
    """The median of each phase, one upon the other; what has no phases to be seen is one bar."""

    def paint(axes: Axes, runtime: str, found: Any) -> None:
        # podman's bar would leave no room for the others'.
        ways = [(way, row["phases"]) for way, row in found["ways"].items() if way != PODMAN]
        names = [_general(way, runtime) for way, _ in ways]
        left = [0.0] * len(ways)
        for phase in (*PHASES, "total"):
            widths = [1e3 * (row.get(phase, {}).get("p50", 0) if (phase == "total") != ("create" in row) else 0) for _, row in ways]
            axes.barh(names, widths, left=left, color=PHASE_COLOURS[phase], label=phase if phase != "total" else "in one command", height=0.7)
            left = [a + b for a, b in zip(left, widths, strict=True)]
        for y, end in enumerate(left):
            axes.annotate(f"{end:.1f}", (end, y), xytext=(3, 0), textcoords="offset points", va="center", fontsize=8)
        axes.set_xlim(right=max(left) * 1.12)
        axes.invert_yaxis()
        axes.set_xlabel("ms, medians")

    return _side_by_side(seen, paint, height=2.9)


PICTURES: dict[str, tuple[str, str, Callable[[Mapping[str, Any]], Figure]]] = {
    "throughput": ("Containers per second against how many are in flight", "throughput", throughput),
    "lives": ("How long lives took, one at a time", "life", distributions),
    "phases": ("Where the time goes", "life", phases),
}
"""The file's name → title, section, how it is drawn."""
