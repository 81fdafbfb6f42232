"""The suite, from end to end and small: that figures, tables and plots come out, not what they say."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import plots
from benchmarks.sections import EXTRA, SECTIONS
from pyoci.bench.ways import DIRECT, PLAIN, PODMAN, PYOCI, WARM
from tests import audit

ROOT = Path(__file__).parents[2]
SMALL = ["--runtime", "crun", "--lives", "4", "--seconds", "0.05", "--concurrency", "2"]
pytestmark = [pytest.mark.root, pytest.mark.once]


def command(*argv: str | Path) -> list[str]:
    return [sys.executable, "-m", "benchmarks.main", *map(str, argv)]


def suite(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*argv), cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory for the containers', with a short path, as podman wants it."""
    path = Path(tempfile.mkdtemp(dir="/run"))
    yield path
    path.rmdir()


@pytest.fixture(scope="module")
def measured(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the figures of a small run lie."""
    out = tmp_path_factory.mktemp("measured")
    sections = ",".join(set(SECTIONS) - {"spawn", "scale"})  # 2 GiB, and minutes
    done = suite(*SMALL, "--section", sections, "--out", out, "--place", place)
    assert done.returncode == 0, done.stderr
    assert list(place.iterdir()) == []
    assert done.stdout == (out / "report.md").read_text()
    return out


@pytest.fixture(scope="module")
def figures(measured: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((measured / "figures.json").read_text())
    return found


def test_every_way_has_led_its_lives(figures: dict[str, Any]) -> None:
    (found,) = figures["hosts"].values()
    assert found["failed"] == {}
    assert found["runtimes"]
    for name, sections in found["runtimes"].items():
        wanted = {PYOCI, PLAIN, DIRECT, WARM, "floor", "conmon by hand", f"{name} run"}
        for seen in (sections["life"], *sections["throughput"]["in flight"].values()):
            assert wanted <= seen["ways"].keys()
            assert seen["failed"].keys() <= {PODMAN}  # another version's needs may be others
        assert list(sections["throughput"]["in flight"]) == ["2"]
        for way in wanted:
            life = sections["life"]["ways"][way]
            assert len(life["totals"]) == life["lives"] == 4
            assert 0 < life["phases"]["total"]["p50"] <= life["phases"]["total"]["p99"] < 60
            assert life["all"] > (life["own"] or 0)
        assert sections["life"]["ways"]["floor"]["phases"].keys() >= {"create", "start", "wait", "delete"}
        assert sections["memory"]["failed"].keys() <= {PODMAN}
        assert sections["memory"]["alive"][DIRECT] < sections["memory"]["alive"][PYOCI] < 8e6
        assert 1e6 < sections["memory"]["peaks"][f"{name} run"] < sections["memory"]["peaks"]["a bare python"] * 10


def test_report_and_plots_are_there(measured: Path) -> None:
    report = (measured / "report.md").read_text()
    for section in set(SECTIONS) - {"spawn", "scale"}:
        assert SECTIONS[section].about in report
    assert EXTRA
    assert "was given up" not in report.replace(f"{PODMAN} was given up", "")
    for picture in plots.PICTURES:
        for kind in plots.KINDS:
            (drawn,) = measured.glob(f"{picture}-*.{kind}")
            assert 1000 < drawn.stat().st_size < (60_000 if kind == "svg" else 200_000)


def test_report_and_plots_are_made_anew_without_measuring(measured: Path) -> None:
    def made() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in measured.iterdir() if path.suffix != ".png"}

    before = made()
    for name in before.keys() - {"figures.json"}:
        (measured / name).unlink()
    assert suite("--report", "--out", measured).returncode == 0
    assert made() == before  # to the byte: they can be committed


def test_the_readme_shows_every_way(measured: Path, tmp_path: Path) -> None:
    done = suite("--readme", "--images", tmp_path, "--out", measured)
    assert done.returncode == 0, done.stderr
    assert "| pyoci direct" in done.stdout
    assert "conmon by hand" in done.stdout
    assert {path.suffix for path in tmp_path.iterdir()} == {".svg"}


@pytest.mark.parametrize("after", [0.3, 1.0, 2.0])
def test_an_interrupt_leaves_nothing(place: Path, tmp_path: Path, after: float) -> None:
    before = audit.everything(str(place))
    argv = command("--section", "throughput", "--seconds", "0.2", "--out", tmp_path, "--place", place)
    with subprocess.Popen(argv, cwd=ROOT, process_group=0) as process:
        deadline = time.monotonic() + 60
        while not list(place.iterdir()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(after)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 130
    assert list(tmp_path.iterdir()) == []
    assert audit.left_over(before, str(place)) == set()


@pytest.mark.parametrize("argv", [("--lives", "0"), ("--seconds", "-1"), ("--concurrency", "0,1"), ("--section", "nothing"), ("--host", "v3")])
def test_what_makes_no_sense_is_refused(argv: tuple[str, ...], tmp_path: Path) -> None:
    done = suite(*argv, "--out", tmp_path)
    assert done.returncode != 0
    assert argv[0] in done.stderr or argv[1] in done.stderr
    assert list(tmp_path.iterdir()) == []
