"""The pytest plugin: containers that are gone at the test's end. It is there wherever pyoci and pytest are installed.

``container``: a factory of them; ``pyoci_runtime``: the ``OCIRuntime`` they come from, with a state directory of this process's own, so that workers
of pytest-xdist do not meet. ``@pytest.mark.container(…)`` gives the options of a test's containers. Where containers cannot be had, tests that want
one are skipped, with the reason; with ``--pyoci-required`` they fail.

Everything of pyoci is imported by the first test that wants a container.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    import pyoci

SHOWN = 64 * 1024
"""Bytes of each container's log in the report of a failed test; the last ones."""


class ContainerFactory:
    """What the fixture ``container`` is. ``options`` are the marker's."""

    def __init__(self, runtime: pyoci.OCIRuntime, options: dict[str, Any]) -> None:
        self.runtime = runtime
        self.options = options
        self.made: list[pyoci.Container] = []

    def __call__(self, args: Sequence[str], *, start: bool = True, **options: Any) -> pyoci.Container:
        """A container that runs ``args``; only created without ``start``. The options are those of ``pyoci.spec.build`` and of
        ``OCIRuntime.create``; ``rootfs`` is the built-in one unless given, and read-only then. Raises what these two raise."""
        from inspect import signature

        from pyoci import rootfs, spec

        given = {**self.options, **options}
        if given.get("rootfs") is None:
            given = {**given, "rootfs": rootfs.builtin()}
        names = signature(spec.build).parameters
        config = spec.build(args, **{name: value for name, value in given.items() if name in names})
        made = self.runtime.create(config, **{name: value for name, value in given.items() if name not in names})
        self.made.append(made)
        if start:
            made.start()
        return made

    def run(self, args: Sequence[str], **options: Any) -> pyoci.CompletedProcess:
        """``pyoci.run`` with this runtime and the marker's options."""
        import pyoci

        return pyoci.run(args, **{"runtime": self.runtime, **self.options, **options})

    def close(self) -> None:
        """Stops and deletes what was made."""
        from pyoci.errors import ContainerNotFound

        for each in reversed(self.made):
            with each:  # closes its streams
                try:
                    each.delete(force=True)
                except ContainerNotFound:
                    pass  # by the test itself

    def logs(self) -> Iterator[tuple[str, str]]:
        """(id, the end of its log) of each that has one."""
        import os

        for each in self.made:
            try:
                with open(each.log_path, "rb") as file:
                    file.seek(-min(SHOWN, os.path.getsize(each.log_path)), os.SEEK_END)
                    text = file.read().decode(errors="backslashreplace")
            except OSError:
                continue  # it has none, or was deleted
            if text:
                yield each.id, text


_FACTORY = pytest.StashKey[ContainerFactory]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("pyoci")
    group.addoption("--pyoci-runtime", metavar="NAME", help="the OCI runtime for the fixture container: a name or a path (default: what works here)")
    group.addoption("--pyoci-required", action="store_true", help="fail, rather than skip, tests that want a container where there can be none")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "container(**options): options of this test's containers: of pyoci.spec.build and OCIRuntime.create")


@pytest.fixture(scope="session")
def pyoci_runtime(request: pytest.FixtureRequest) -> Iterator[pyoci.OCIRuntime]:
    """The runtime whose containers this session uses; it has launched one, which has proven that it can."""
    import shutil

    import pyoci

    directory = _state_directory()
    try:
        try:
            runtime = pyoci.OCIRuntime(request.config.getoption("--pyoci-runtime"), state_dir=directory)
            pyoci.run(["true"], runtime=runtime, timeout=60, check=True)
        except pyoci.Error as error:
            why = f"no containers here: {error} (pyoci doctor says more)"
            if request.config.getoption("--pyoci-required"):
                pytest.fail(why, pytrace=False)
            pytest.skip(why)
        yield runtime
        for left in runtime.list():
            left.delete(force=True)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _state_directory() -> str:
    """A new one with a short path, as sockets need it, where state does not outlive the machine."""
    import os
    import tempfile

    bases = ("/run", os.environ.get("XDG_RUNTIME_DIR", ""))
    return tempfile.mkdtemp(prefix="pyoci-pytest-", dir=next((base for base in bases if base and os.access(base, os.W_OK)), None))


@pytest.fixture
def container(request: pytest.FixtureRequest, pyoci_runtime: pyoci.OCIRuntime) -> Iterator[ContainerFactory]:
    """Makes containers: ``container(["sleep", "100"], memory="64M")``; at the test's end they are killed and deleted, and their logs are in the
    report of a test that failed."""
    options: dict[str, Any] = {}
    for marker in reversed(list(request.node.iter_markers("container"))):  # the closest one last
        if marker.args:
            pytest.fail(f"@pytest.mark.container takes options by name, as memory='64M', not {marker.args!r}", pytrace=False)
        options |= marker.kwargs
    factory = ContainerFactory(pyoci_runtime, options)
    request.node.stash[_FACTORY] = factory
    try:
        yield factory
    finally:
        factory.close()


@pytest.hookimpl(hookwrapper=True)  # the newer kind of wrapper is not in pytest 7
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    outcome = yield
    factory = item.stash.get(_FACTORY, None)
    if factory is not None and (report := outcome.get_result()).when == "call" and report.failed:
        report.sections += [(f"log of container {id}", text) for id, text in factory.logs()]
