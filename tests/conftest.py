"""Fixtures: the host, a state directory, each runtime that works here, and the audit around every test."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import pyoci
from pyoci import _ffi, cgroups, networks, rootfs, runtimes, shortcuts, spec
from pyoci.conmon import environment
from tests import audit, containers, hosts, machine
from tests.containers import Build


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main() -> int | None:
    """A run as root goes on in a machine of its own, so that several may run side by side. PYOCI_TESTS_HOST: it is in one already."""
    if os.geteuid() != 0 or "PYOCI_TESTS_HOST" in os.environ:
        return None
    return hosts.enter(hosts.native())


def pytest_configure() -> None:
    """The tests interrupt themselves and what they start; what a shell starts in its background, or nohup, is deaf to that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = os.environ.get("PYOCI_TESTS_HOST", "")
    for item in items:
        wanted = item.get_closest_marker("host")
        if wanted is not None and here not in wanted.args:
            item.add_marker(pytest.mark.skip(reason=f"{hosts.NEEDS} {' or '.join(wanted.args)}"))
        elif wanted is None and os.geteuid() != 0 and item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason="needs root"))


def pytest_collection_finish() -> None:
    """The audit collects twice for each test: not through what is there for all of them."""
    gc.freeze()


LACKING = pytest.StashKey[dict[str, list[str]]]()


@pytest.hookimpl(hookwrapper=True)  # the newer kind of wrapper is not in Debian 12's
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """What this host cannot have is listed at the end. With PYOCI_TESTS_NO_SKIP any other skip is a failure: where CI has set up, nothing may be
    missing."""
    report = (yield).get_result()
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr[2]).removeprefix("Skipped: ")
        if hosts.is_lacking(reason):
            item.config.stash.setdefault(LACKING, {}).setdefault(reason, []).append(item.nodeid.rpartition("::")[2])
        elif os.environ.get("PYOCI_TESTS_NO_SKIP"):
            report.outcome = "failed"


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    lacking = config.stash.get(LACKING, {})
    looked = _runtimes() if _runtimes.cache_info().currsize else {}
    unfit = {f"{name} does not work: {why}": ["every test with it"] for name, why in looked.items() if why is not None}
    if lacking or unfit:
        terminalreporter.section(f"what this host ({os.environ.get('PYOCI_TESTS_HOST', 'as it stands')}) cannot have")
        for reason, names in (unfit | lacking).items():
            terminalreporter.line(f"{reason}: {', '.join(names) if len(names) <= 50 else f'{len(names)} tests'}")


@cache
def _runtimes() -> dict[str, str | None]:
    """Each runtime, and why it does not work here."""
    found: dict[str, str | None] = {}
    for name in runtimes.CANDIDATES:
        try:
            found[name] = runtimes.unfit(runtimes.find_executable(name), environment(os.environ))
        except pyoci.ExecutableError as error:
            found[name] = str(error.strerror)
    return found


def _working_runtimes() -> list[str]:
    return [name for name, why in _runtimes().items() if why is None]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "runtime_name" in metafunc.fixturenames:
        for name, why in _runtimes().items():
            if why is not None and os.environ.get("PYOCI_TESTS_NO_SKIP") and not hosts.is_lacking(name):
                raise pytest.UsageError(f"{name} does not work here: {why}")
        metafunc.parametrize("runtime_name", _working_runtimes(), scope="session")


@pytest.fixture(autouse=True)
def _nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    directory = request.getfixturevalue("state_dir") if "state_dir" in request.fixturenames else None
    if "rootfs" in request.fixturenames:
        request.getfixturevalue("rootfs")
    if directory is not None:
        request.getfixturevalue("sealed_copies")
    gc.collect()
    before = audit.everything(directory)
    yield
    adopted = audit.end_adopting()
    gc.collect()
    left = audit.left_over(before, directory)
    if request.node.get_closest_marker("interrupted"):
        # An interrupt can fall between the system call that opens a descriptor and the line that takes hold of it.
        left = {what for what in left if not what.startswith("descriptor ")}
    assert not left, f"left behind{' by a subreaper' if adopted else ''}:\n" + "\n".join(sorted(left))


@pytest.fixture(scope="session")
def sealed_copies() -> None:
    """The one descriptor that a process keeps for each runtime: there before the audit looks."""
    for name in _working_runtimes():
        path = runtimes.find_executable(name)
        if "memfd" in shortcuts.chosen(True, path, plain=True):
            shortcuts.executable(path)


@pytest.fixture
def state_dir() -> Iterator[str]:
    """A state directory of the test's own, with a short path as sockets need it."""
    base = next((path for path in ("/run/pyoci", "/run") if os.access(path, os.W_OK)), None)
    path = tempfile.mkdtemp(prefix="tests-", dir=base)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session", name="rootfs")
def _rootfs() -> str:
    return rootfs.builtin()


@pytest.fixture
def runtime(runtime_name: str, state_dir: str) -> pyoci.OCIRuntime:
    return pyoci.OCIRuntime(runtime_name, state_dir=state_dir)


@pytest.fixture
def build(rootfs: str) -> Build:
    def made(*args: str, **options: Any) -> dict[str, Any]:
        return spec.build(args, rootfs=rootfs, read_only=True, **options)

    return made


@pytest.fixture
def deaf_to_signals() -> Iterator[None]:
    """Every signal blocked and ignored in this process."""
    every = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
    handlers = {}
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, every)
    try:
        for number in every:
            if signal.getsignal(number) is not None:  # None: a sanitizer's own, which could not be put back
                handlers[number] = signal.signal(number, signal.SIG_IGN)
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


@pytest.fixture
def has_controller() -> Callable[[str], None]:
    """Skips a test where the host has no such cgroup controller."""

    def check(controller: str) -> None:
        found = cgroups.read()
        here = set(found.mounts)
        if cgroups.V2 in found.mounts:
            here |= set(Path(found.mounts[cgroups.V2], "cgroup.controllers").read_text().split())
        if controller not in here:
            pytest.skip(f"this host has no {controller} controller")

    return check


@pytest.fixture
def no_scope_is_left() -> Iterator[None]:
    yield
    deadline = time.monotonic() + 5
    while (left := containers.scopes()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == set()


@pytest.fixture(scope="session")
def network_names() -> Iterator[None]:
    """The directory of network namespaces' names, as no other run sees it: there before the audit looks."""
    if os.geteuid() != 0:
        yield
        return
    os.makedirs(networks.NAMES, exist_ok=True)
    machine.mount("tmpfs", networks.NAMES, "mode=0755")
    _ffi.network_names(networks.NAMES)
    yield
    machine.umount(networks.NAMES)
