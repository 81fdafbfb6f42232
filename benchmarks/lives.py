"""The drivers: who leads the containers' lives."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections import deque
from collections.abc import Mapping, Sequence
from time import perf_counter_ns, process_time_ns
from typing import Any

import pyoci
import pyoci.aio
from benchmarks.measure import Broken, Sample
from benchmarks.place import Place

FLOOR = f"{os.path.dirname(__file__)}/floor"
PLACEHOLDER = "@ID@"
TIMEOUT = 60.0
Spec = Mapping[str, Any]


class Pyoci:
    """The blocking face, in this process."""

    name = "pyoci"

    def __init__(self, runtime: pyoci.OCIRuntime, spec: Spec) -> None:
        self.runtime = runtime
        self.spec = spec

    def live(self, id: str) -> Sample:
        cpu = process_time_ns()
        began = perf_counter_ns()
        with self.runtime.create(self.spec, id=id) as container:
            created = perf_counter_ns()
            container.start()
            started = perf_counter_ns()
            status = container.wait(timeout=TIMEOUT)
            ended = perf_counter_ns()
            container.delete()
        deleted = perf_counter_ns()
        own = process_time_ns() - cpu
        if status.code != 0:
            raise Broken(f"the container ended with {status}")
        return {
            "create": created - began,
            "start": started - created,
            "wait": ended - started,
            "delete": deleted - ended,
            "total": deleted - began,
            "cpu": own,
        }


class PyociRun:
    """``pyoci.run``: spec, pipes, output and all."""

    name = "pyoci.run"

    def __init__(self, runtime: pyoci.OCIRuntime, rootfs: str) -> None:
        self.runtime = runtime
        self.rootfs = rootfs

    def live(self, id: str) -> Sample:
        cpu = process_time_ns()
        began = perf_counter_ns()
        done = pyoci.run(["true"], rootfs=self.rootfs, read_only=True, id=id, runtime=self.runtime)
        total = perf_counter_ns() - began
        own = process_time_ns() - cpu
        if done.returncode != 0:
            raise Broken(f"pyoci.run returned {done.returncode}: {done.stderr!r}")
        phases = {phase: int(seconds * 1e9) for phase, seconds in done.timings.items()}
        return {**phases, "total": total, "cpu": own}


def by_asyncio(runtime: pyoci.aio.OCIRuntime, spec: Spec, in_flight: int, ids: Sequence[str]) -> int:
    """All the lives through pyoci.aio, so many at once; nanoseconds."""
    left = deque(ids)

    async def work() -> None:
        while left:
            async with await runtime.create(spec, id=left.popleft()) as container:
                await container.start()
                await container.wait(timeout=TIMEOUT)
                await container.delete()

    async def work_all() -> int:
        began = perf_counter_ns()
        async with asyncio.TaskGroup() as group:
            for _ in range(in_flight):
                group.create_task(work())
        return perf_counter_ns() - began

    return asyncio.run(work_all())


class Calls:
    """What pyoci calls for one container, read off a living one: so whoever uses this does the same, whatever that is."""

    def __init__(self, place: Place, runtime: pyoci.OCIRuntime, spec: Spec) -> None:
        id = place.id()
        with runtime.create(spec, id=id) as container:

            def template(text: bytes) -> str:
                return os.fsdecode(text).replace(id, PLACEHOLDER)

            self.directory = template(os.fsencode(container.directory))
            with open(f"/proc/{container.conmon_pid}/cmdline", "rb") as file:
                words = template(file.read()).split("\0")[:-1]
            with open(f"/proc/{container.conmon_pid}/environ", "rb") as file:
                pairs = (os.fsdecode(line).partition("=") for line in file.read().split(b"\0") if line)
                self.env = {name: value for name, _, value in pairs if not name.startswith("_OCI_")}
            with open(f"{container.directory}/config.json", "rb") as file:
                self.config = template(file.read())
        self.conmon = [runtime.conmon_path, *words[1:]]
        self.runtime = _options(words, "-r")[0]
        self.exit_file = f"{_options(words, '--exit-dir')[0]}/{PLACEHOLDER}"
        own = _options(words, "--runtime-arg")
        self.start = [self.runtime, *own, "start", PLACEHOLDER]
        self.delete = [self.runtime, *own, "delete", PLACEHOLDER]
        place.runtimes[own[own.index("--root") + 1]] = self.runtime


def _options(words: Sequence[str], option: str) -> list[str]:
    return [value for name, value in zip(words, words[1:], strict=False) if name == option]


class Floor:
    """The C program, as a process that waits for ids."""

    name = "floor"

    def __init__(self, place: Place, calls: Calls) -> None:
        template = f"{place.path('floor')}/{os.path.basename(calls.runtime)}.json"
        with open(template, "w") as file:
            file.write(calls.config)
        argv = [FLOOR, calls.directory, calls.exit_file, template, "--", *calls.conmon, "--", *calls.start, "--", *calls.delete]
        # A process group of its own: Ctrl-C reaches us alone, and the floor ends after the life it is at.
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=calls.env, process_group=0)

    def live(self, id: str) -> Sample:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{id}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise Broken(f"floor exited {self.process.wait()}")
        sample: Sample = json.loads(answer)
        return sample

    def close(self) -> None:
        self.process.communicate()


class RuntimeRun:
    """``RUNTIME run`` without conmon: no log, no supervisor, nobody who keeps the exit code. What is left when all else is gone."""

    def __init__(self, place: Place, calls: Calls) -> None:
        self.name = f"{os.path.basename(calls.runtime)} run"
        self._calls = calls
        self._bundles = place.path("bundles")
        self._root = place.path(f"bare-{os.path.basename(calls.runtime)}")
        place.runtimes[self._root] = calls.runtime

    def live(self, id: str) -> Sample:
        began = perf_counter_ns()
        bundle = f"{self._bundles}/{id}"
        os.mkdir(bundle)
        with open(f"{bundle}/config.json", "w") as file:
            file.write(self._calls.config.replace(PLACEHOLDER, id))
        _call([self._calls.runtime, "--root", self._root, "run", "--bundle", bundle, id], self._calls.env)
        os.unlink(f"{bundle}/config.json")
        os.rmdir(bundle)
        return {"total": perf_counter_ns() - began}


class Podman:
    """``podman run``, as people call it from their programs."""

    name = "podman run"

    def __init__(self, place: Place, runtime: str, rootfs: str) -> None:
        from resource import RLIM_INFINITY, RLIMIT_NOFILE, RLIMIT_NPROC, getrlimit

        # podman's own wish, a million files, is beyond the hard limit of hosts without CAP_SYS_RESOURCE.
        limits = [(name, getrlimit(which)[1]) for name, which in (("nofile", RLIMIT_NOFILE), ("nproc", RLIMIT_NPROC))]
        ulimits = [f"--ulimit={name}={hard}:{hard}" for name, hard in limits if hard != RLIM_INFINITY]
        self._argv = [*place.podman(), f"--runtime={runtime}", "run", "--rm", "--network=none", "--read-only", *ulimits]
        self._rootfs = rootfs

    def live(self, id: str) -> Sample:
        began = perf_counter_ns()
        _call([*self._argv, f"--name={id}", "--rootfs", self._rootfs, "true"])
        return {"total": perf_counter_ns() - began}


def _call(argv: Sequence[str], env: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, env=env, check=False, process_group=0)
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise Broken(f"{os.path.basename(argv[0])} exited {done.returncode}: {said[-1] if said else 'without a word'}")
