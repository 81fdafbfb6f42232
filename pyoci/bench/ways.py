"""Ways to lead the life of a container of ``true``, from nothing to nothing: one at a time (``Way``), or many at once (``Crowd``)."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import count
from signal import SIG_BLOCK, SIG_SETMASK, SIGHUP, SIGINT, SIGTERM, pthread_sigmask
from threading import Event
from typing import Any, Protocol, Unpack

from pyoci import _ffi, conmon, rootfs, runtimes, spec
from pyoci.bench.place import bare_root, podman_command
from pyoci.launcher import Launcher
from pyoci.oneshot import run
from pyoci.process import invoke
from pyoci.runtime import OCIRuntime
from pyoci.waiting import drive
from pyoci.warm import WarmPool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyoci.options import CreateOptions

PHASES = ("create", "start", "wait", "delete")
PATIENCE = 60.0
"""Seconds, after which a life counts as failed."""
INTERRUPTS = (SIGHUP, SIGINT, SIGTERM)

PYOCI, PLAIN, DIRECT, WARM, RUN, PODMAN = "pyoci", "pyoci plain", "pyoci direct", "pyoci warm", "pyoci.run", "podman run"


class Way(Protocol):
    """One life after the other."""

    name: str

    def live(self) -> Mapping[str, float]:
        """The seconds of each phase, where it can tell them apart, and their ``total``. Raises pyoci.Error, OSError, RuntimeError."""

    def spent(self) -> float | None:
        """The seconds of processor time that the program which leads these lives has used itself, without its children; None where each life has
        a program of its own."""

    def close(self) -> None: ...


class Crowd(Protocol):
    """As many lives at once as it was made for."""

    name: str

    def live(self, until: float) -> list[float]:
        """Begins one life when another has ended, until this time (``perf_counter``), but one at least; then the seconds of each that it has led.
        Raises as ``Way.live``."""

    def spent(self) -> float | None: ...

    def close(self) -> None: ...


TRUE = ("true",)


def config_of(args: Sequence[str] = TRUE) -> dict[str, Any]:
    """The spec that all ways share."""
    return spec.build(args, rootfs=rootfs.builtin(), read_only=True)


def checked(name: str, code: int | None) -> None:
    if code != 0:
        raise RuntimeError(f"{name}: true gave {code}")


class Ours:
    """What this process does itself."""

    def spent(self) -> float:
        return time.process_time()

    def close(self) -> None:
        pass


class Life(Ours):
    """create, start, wait, delete through the library."""

    def __init__(self, runtime: OCIRuntime, name: str = PYOCI, **options: Unpack[CreateOptions]) -> None:
        self.name = name
        self.runtime = runtime
        self.spec: dict[str, Any] = config_of()
        self.options = options

    def live(self) -> Mapping[str, float]:
        at = [time.perf_counter()]
        container = self.runtime.create(self.spec, **self.options)
        at.append(time.perf_counter())
        container.start()
        at.append(time.perf_counter())
        status = container.wait(PATIENCE)
        at.append(time.perf_counter())
        container.delete()
        at.append(time.perf_counter())
        checked(self.name, status.code)
        return {**{phase: at[i + 1] - at[i] for i, phase in enumerate(PHASES)}, "total": at[-1] - at[0]}


class Run(Ours):
    """``pyoci.run``, with its output captured."""

    name = RUN

    def __init__(self, runtime: OCIRuntime) -> None:
        self.runtime = runtime

    def live(self) -> Mapping[str, float]:
        began = time.perf_counter()
        done = run(TRUE, runtime=self.runtime, timeout=PATIENCE)
        checked(self.name, done.returncode)
        return {**done.timings, "total": time.perf_counter() - began}


class Warm(Ours):
    """``pyoci.run`` with a warm pool that is full at the begin; what it takes to fill it again is not in the time, but in the account of what was
    spent."""

    name = WARM

    def __init__(self, runtime: OCIRuntime) -> None:
        self.runtime = runtime

    @cached_property
    def _pool(self) -> WarmPool:
        return filled(self.runtime, 1)

    def live(self) -> Mapping[str, float]:
        pool = self._pool
        began = time.perf_counter()
        done = run(TRUE, pool=pool, timeout=PATIENCE)
        took = time.perf_counter() - began
        checked(self.name, done.returncode)
        pool.fill(PATIENCE)
        return {**done.timings, "total": took}

    def close(self) -> None:
        if "_pool" in self.__dict__:
            self._pool.close()


def filled(runtime: OCIRuntime, size: int) -> WarmPool:
    pool = WarmPool(size=size, runtime=runtime)
    try:
        pool.fill(PATIENCE)
    except BaseException:
        pool.close()
        raise
    return pool


class Command:
    """A command that leads a whole life: ``podman run``, ``crun run``, ``runc run``. Started as pyoci starts its own tools, which is cheaper than
    subprocess, so that what starts it is not what is measured."""

    _ids = count()

    def __init__(self, name: str, argv: Sequence[str]) -> None:
        self.name = name
        self.argv = argv
        self.path: str = runtimes.find_executable(argv[0])
        self._env = _ffi.environment_block(conmon.environment(os.environ))

    def words(self) -> list[str]:
        """For one more container."""
        return [self.path, *(word.replace("@ID@", f"command-{os.getpid()}-{next(Command._ids)}") for word in self.argv[1:])]

    def live(self) -> Mapping[str, float]:
        argv = self.words()
        # An interrupt waits for its end: one that is killed half-way leaves what neither it nor anybody else knows of.
        blocked = pthread_sigmask(SIG_BLOCK, INTERRUPTS)
        try:
            began = time.perf_counter()
            drive(invoke(self.name, self.path, argv, self._env, PATIENCE))
            return {"total": time.perf_counter() - began}
        finally:
            pthread_sigmask(SIG_SETMASK, blocked)

    def spent(self) -> None:
        return None

    def close(self) -> None:
        pass


def plain(runtime: OCIRuntime, conmon_cgroup: str | None = None) -> OCIRuntime:
    """The same without shortcuts: conmon and the runtime are called for each step."""
    return OCIRuntime(runtime.runtime_path, state_dir=runtime.state_dir, shortcuts=False, conmon_cgroup=conmon_cgroup)


def bare_runtime(runtime: OCIRuntime, args: Sequence[str] = TRUE) -> Command:
    """``crun run`` or ``runc run`` of the same spec, in a state root of its own."""
    bundle = f"{bare_root(runtime.state_dir)}-{args[0]}"
    os.makedirs(bundle, exist_ok=True)
    with open(f"{bundle}/config.json", "wb") as file:
        file.write(spec.encode(config_of(args)))
    argv = [runtime.runtime_path, "--root", bare_root(runtime.state_dir), "run", "--bundle", bundle, "@ID@"]
    return Command(f"{runtime.name} run", argv)


def podman(runtime: OCIRuntime, args: Sequence[str] = TRUE) -> Command | None:
    """``podman run`` with the same runtime and root file system; None where there is no podman."""
    if shutil.which("podman") is None:
        return None
    # podman's own wishes are above the hard limits of hosts without CAP_SYS_RESOURCE, and more than those without a pids controller have; these
    # are below everybody's.
    limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--pids-limit", "0"]
    command = podman_command(runtime.state_dir, runtime.runtime_path)
    return Command(PODMAN, [*command, "run", "--rm", "--network", "none", "--read-only", *limits, "--rootfs", rootfs.builtin(), *args])


class Launched(Ours):
    """A ``Launcher``'s containers."""

    def __init__(self, name: str, at_once: int, runtime: OCIRuntime, monitor: str = "conmon") -> None:
        self.name = name
        self._launcher = Launcher(max_running=at_once, max_starting=at_once, runtime=runtime, monitor=monitor, timeout=PATIENCE)

    def live(self, until: float) -> list[float]:
        return _results(self.name, self._launcher, until)

    def close(self) -> None:
        self._launcher.close()


class WarmLaunched(Ours):
    """A ``Launcher``'s containers from a warm pool of as many. It is full at the begin and, within the time, at the end again."""

    name = WARM

    def __init__(self, at_once: int, runtime: OCIRuntime) -> None:
        self.at_once = at_once
        self.runtime = runtime

    @cached_property
    def _pool(self) -> WarmPool:
        return filled(self.runtime, self.at_once)

    @cached_property
    def _launcher(self) -> Launcher:
        return Launcher(max_running=self.at_once, max_starting=self.at_once, pool=self._pool, timeout=PATIENCE)

    def live(self, until: float) -> list[float]:
        totals = _results(self.name, self._launcher, until)
        self._pool.fill(PATIENCE)
        return totals

    def close(self) -> None:
        if "_launcher" in self.__dict__:
            self._launcher.close()
        if "_pool" in self.__dict__:
            self._pool.close()


def _results(name: str, launcher: Launcher, until: float) -> list[float]:
    totals = []
    for done in launcher.map(_commands(until)):
        checked(name, done.returncode)
        totals.append(done.timings["total"])
    return totals


def _commands(until: float) -> Iterator[Sequence[str]]:
    yield TRUE
    while time.perf_counter() < until:
        yield TRUE


class Threads:
    """As many ways as there are, each in a thread that only waits for it."""

    def __init__(self, ways: Sequence[Way]) -> None:
        self.name: str = ways[0].name
        self._ways = ways

    def live(self, until: float) -> list[float]:
        over = Event()

        def work(way: Way) -> list[float]:
            try:
                totals = [way.live()["total"]]
                while time.perf_counter() < until and not over.is_set():
                    totals.append(way.live()["total"])
            except BaseException:
                over.set()
                raise
            return totals

        # Not Thread.join: interrupted, that of Python 3.11 takes a thread for ended.
        with ThreadPoolExecutor(len(self._ways)) as pool:
            futures = [pool.submit(work, way) for way in self._ways]
            try:
                return [total for future in futures for total in future.result()]
            finally:
                over.set()  # interrupted, or one has failed: each ends with the life it is at

    def spent(self) -> float | None:
        each = [spent for way in self._ways if (spent := way.spent()) is not None]
        return sum(each) if each else None

    def close(self) -> None:
        for way in self._ways:
            way.close()
