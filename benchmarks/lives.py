"""Ways to lead one container's life. Each gives the seconds of each phase, or of the whole."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, Unpack

import pyoci
from benchmarks.place import bare_root, podman_command
from pyoci import rootfs, spec, templates
from pyoci.options import Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyoci.options import CreateOptions

PHASES = ("create", "start", "wait", "delete")
FLOOR = Path(__file__).parent / "floor"
PATIENCE = 60


class Way(Protocol):
    name: str

    def live(self) -> Mapping[str, float]:
        """One container, from nothing to nothing."""

    def close(self) -> None: ...


def true_spec() -> dict[str, Any]:
    return spec.build(["true"], rootfs=rootfs.builtin(), read_only=True)


class Pyoci:
    """create, start, wait, delete through the library."""

    name = "pyoci"

    def __init__(self, runtime: pyoci.OCIRuntime, **options: Unpack[CreateOptions]) -> None:
        self.runtime = runtime
        self.spec = true_spec()
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
        assert status.code == 0, status
        return {**{phase: at[i + 1] - at[i] for i, phase in enumerate(PHASES)}, "total": at[-1] - at[0]}

    def close(self) -> None:
        pass


class Plain(Pyoci):
    """The same without shortcuts: conmon and the runtime are called as the floor calls them."""

    name = "plain"

    def __init__(self, runtime: pyoci.OCIRuntime) -> None:
        super().__init__(pyoci.OCIRuntime(runtime.runtime_path, state_dir=runtime.state_dir, shortcuts=False))


class Direct(Pyoci):
    """The same without conmon."""

    name = "direct"

    def __init__(self, runtime: pyoci.OCIRuntime) -> None:
        super().__init__(runtime, monitor="direct")


class PyociRun:
    """``pyoci.run``, with its output captured."""

    name = "pyoci.run"

    def __init__(self, runtime: pyoci.OCIRuntime) -> None:
        self.runtime = runtime

    def live(self) -> Mapping[str, float]:
        began = time.perf_counter()
        done = pyoci.run(["true"], runtime=self.runtime, timeout=PATIENCE)
        assert done.returncode == 0, done
        return {"total": time.perf_counter() - began}

    def close(self) -> None:
        pass


class Floor:
    """benchmarks/floor.c with pyoci's own argument lists."""

    name = "floor"
    _count = 0

    def __init__(self, runtime: pyoci.OCIRuntime) -> None:
        host = pyoci.OCIRuntime(runtime.runtime_path, state_dir=runtime.state_dir, shortcuts=False)._host
        Floor._count += 1
        self._prefix = f"floor-{os.getpid()}-{Floor._count}"
        self._lives = 0
        mark = "FLOORID"
        template = Path(host.store.directory) / f"{self._prefix}.json"
        prepared = templates.prepare(true_spec())
        template.write_bytes(prepared.config_json(host.placement.place(mark, None).spec).replace(mark.encode(), b"@ID@"))

        def filled(path: str, argv: list[str]) -> list[str]:
            return [path, *(word.replace(mark, "@ID@") for word in argv[1:])]

        argv = [f"{host.store.containers}/@ID@", f"{host.store.exits}/@ID@", str(template)]
        argv += [
            "--",
            *filled(host.conmon_path, host.conmon_argv(mark, Options())),
        ]
        for verb in ("start", "delete"):
            argv += ["--", *filled(host.runtime.path, host.runtime.argv(verb, mark))]
        # In a process group of its own: Ctrl-C reaches us alone, and at the end of its input the floor finishes the life it is at.
        self._process = subprocess.Popen([FLOOR, *argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=host.env, process_group=0)

    def live(self) -> Mapping[str, float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._lives += 1
        self._process.stdin.write(f"{self._prefix}-{self._lives}\n".encode())
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{FLOOR} ended with {self._process.wait()}")
        return {phase: nanoseconds / 1e9 for phase, nanoseconds in json.loads(answer).items()}

    def cpu(self) -> float:
        """The seconds of processor time that it has used itself so far."""
        fields = Path(f"/proc/{self._process.pid}/schedstat").read_text().split()
        return int(fields[0]) / 1e9

    def close(self) -> None:
        self._process.communicate(timeout=PATIENCE)


class Command:
    """A command that does it all: ``podman run``, ``crun run``, ``runc run``."""

    _count = 0

    def __init__(self, name: str, argv: list[str]) -> None:
        self.name = name
        self.argv = argv

    def live(self) -> Mapping[str, float]:
        Command._count += 1
        argv = [word.replace("@ID@", f"command-{os.getpid()}-{Command._count}") for word in self.argv]
        began = time.perf_counter()
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False, process_group=0)
        if done.returncode != 0:
            raise RuntimeError(f"{self.name} gave {done.returncode}: {(done.stderr.strip().splitlines() or ['nothing said'])[-1]}")
        return {"total": time.perf_counter() - began}

    def close(self) -> None:
        pass


def bare_runtime(runtime: pyoci.OCIRuntime) -> Command:
    """``crun run`` or ``runc run`` of the same spec, in a state root of its own."""
    bundle = Path(runtime.state_dir) / f"bundle-{runtime.name}"
    bundle.mkdir(exist_ok=True)
    (bundle / "config.json").write_bytes(spec.encode(true_spec()))
    argv = [runtime.runtime_path, "--root", bare_root(runtime.state_dir), "run", "--bundle", str(bundle), "@ID@"]
    return Command(f"{runtime.name} run", argv)


def podman(runtime: pyoci.OCIRuntime) -> Command | None:
    """``podman run`` with the same runtime and root file system; None where there is no podman."""
    if shutil.which("podman") is None:
        return None
    # podman's own wish is above the hard limits of hosts without CAP_SYS_RESOURCE; these are below everybody's.
    limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
    command = podman_command(runtime.state_dir, runtime.runtime_path)
    return Command("podman run", [*command, "run", "--rm", "--network", "none", "--read-only", *limits, "--rootfs", rootfs.builtin(), "true"])
