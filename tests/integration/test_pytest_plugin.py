"""The pytest plugin, in runs of pytest of its own."""

from __future__ import annotations

import os

import pytest

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.once


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    for name in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS"):
        monkeypatch.delenv(name, raising=False)
    return pytester


def left_behind() -> list[str]:
    return [name for base in ("/run", os.environ.get("XDG_RUNTIME_DIR") or "/run") for name in os.listdir(base) if name.startswith("pyoci-pytest-")]


def test_containers_are_gone_at_the_tests_end(run: pytest.Pytester, runtime_name: str) -> None:
    run.makepyfile("""
        import pyoci, pytest

        def test_makes(container, pyoci_runtime):
            made = container(["sleep", "100"], id="a")
            assert made.state() == "running"
            assert container(["sleep", "100"], start=False).state() == "created"
            deleted = container(["true"])
            deleted.wait()
            deleted.delete()
            assert len(pyoci_runtime.list()) == 2

        def test_there_are_none_now(pyoci_runtime):
            assert pyoci_runtime.list() == []

        def test_streams(container):
            made = container(["cat"], stdin=pyoci.PIPE, stdout=pyoci.PIPE)
            made.stdin.write(b"x\\n")
            assert made.stdout.readline() == b"x\\n"

        @pytest.mark.container(hostname="outer", env={"A": "1"})
        class TestMarks:
            @pytest.mark.container(hostname="inner")
            def test_mark(self, container):
                done = container.run(["sh", "-c", "hostname; echo $A"], text=True)
                assert done.stdout == "inner\\n1\\n"
        """)
    result = run.runpytest_subprocess("-W", "error", "--strict-markers", "--pyoci-runtime", runtime_name)
    result.assert_outcomes(passed=4)
    assert left_behind() == []


def test_a_failed_test_shows_the_logs(run: pytest.Pytester) -> None:
    run.makepyfile("""
        def test_fails(container):
            made = container(["echo", "what it said"], id="failing")
            assert made.wait().code == 1
        """)
    result = run.runpytest_subprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*log of container failing*", "*stdout F what it said"])
    assert left_behind() == []


def test_a_marker_has_names(run: pytest.Pytester) -> None:
    run.makepyfile("""
        import pytest

        @pytest.mark.container("64M")
        def test_it(container): pass
        """)
    result = run.runpytest_subprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*takes options by name*64M*"])


def test_workers_do_not_meet(run: pytest.Pytester) -> None:
    run.makepyfile("""
        from pathlib import Path

        def test_alone(container, pyoci_runtime):
            made = container(["sleep", "0.2"])
            assert len(pyoci_runtime.list()) == 1
            assert made.wait().code == 0
            with Path(__file__).with_name("directories").open("a") as file:
                print(pyoci_runtime.state_dir, file=file)
        """)
    result = run.runpytest_subprocess("-n2", "--dist=each")
    result.assert_outcomes(passed=2)
    assert len(set((run.path / "directories").read_text().split())) == 2
    assert left_behind() == []


@pytest.mark.parametrize(("options", "outcome"), [((), "skipped"), (("--pyoci-required",), "errors")])
def test_without_a_runtime(run: pytest.Pytester, options: tuple[str, ...], outcome: str) -> None:
    run.makepyfile("def test_wants(container): pass")
    result = run.runpytest_subprocess("-rs", "--pyoci-runtime", "/nonexistent", *options)
    result.assert_outcomes(**{outcome: 1})
    result.stdout.fnmatch_lines(["*no containers here: */nonexistent*pyoci doctor*"])
    assert left_behind() == []


def test_it_costs_nothing_until_it_is_used(run: pytest.Pytester) -> None:
    run.makepyfile("""
        import sys

        def test_modules():
            assert "pyoci.pytest_plugin" in sys.modules
            assert [name for name in sys.modules if name.startswith("pyoci.")] == ["pyoci.pytest_plugin"]
        """)
    run.runpytest_subprocess().assert_outcomes(passed=1)
