"""The ways that only the suite has, beside those of pyoci.bench.ways: the floor, and conmon driven by hand."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

import pyoci
from pyoci import templates
from pyoci.bench.place import bare_root
from pyoci.bench.ways import PATIENCE, PHASES, Ours, checked, config_of, plain
from pyoci.options import Options

FLOOR, BY_HAND = "floor", "conmon by hand"


def compiled(name: str) -> Path:
    """The program of benchmarks/NAME.c."""
    source = Path(__file__).with_name(f"{name}.c")
    program = source.with_suffix("")
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        # By a name of its own first: another run may be executing, or making, the same.
        part = program.with_suffix(f".{os.getpid()}")
        subprocess.run(["cc", "-O2", "-o", part, source], check=True)
        part.rename(program)
    return program


class Floor:
    """floor.c, with pyoci's own argument lists: the least C program that leads the same life by the same tools."""

    name = FLOOR
    _count = count()

    def __init__(self, runtime: pyoci.OCIRuntime) -> None:
        host = plain(runtime, conmon_cgroup="shared")._host  # who makes another must remove it
        self._prefix = f"floor-{os.getpid()}-{next(Floor._count)}"
        self._lives = 0
        mark = "FLOORID"
        template = Path(host.store.directory) / f"{self._prefix}.json"
        prepared = templates.prepare(config_of())
        template.write_bytes(prepared.config_json(host.placement.place(mark, None).spec).replace(mark.encode(), b"@ID@"))

        def filled(path: str, argv: list[str]) -> list[str]:
            return [path, *(word.replace(mark, "@ID@") for word in argv[1:])]

        argv = [f"{host.store.containers}/@ID@", f"{host.store.exits}/@ID@", str(template)]
        argv += ["--", *filled(host.conmon_path, host.conmon_argv(mark, Options()))]
        for verb in ("start", "delete"):
            argv += ["--", *filled(host.runtime.path, host.runtime.argv(verb, mark))]
        # In a process group of its own: Ctrl-C reaches us alone, and at the end of its input the floor finishes the life it is at.
        command = [str(compiled("floor")), *argv]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=host.env, process_group=0
        )

    def live(self) -> Mapping[str, float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._lives += 1
        try:
            self._process.stdin.write(f"{self._prefix}-{self._lives}\n".encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # why it has ended is told below
        answer = self._process.stdout.readline()
        if not answer:
            _, said = self._process.communicate(timeout=PATIENCE)
            raise RuntimeError(f"the floor ended with {self._process.returncode}: {said.decode(errors='replace').strip()}")
        return {phase: nanoseconds / 1e9 for phase, nanoseconds in json.loads(answer).items()}

    def spent(self) -> float:
        try:
            return int(Path(f"/proc/{self._process.pid}/schedstat").read_text().split()[0]) / 1e9
        except OSError:
            return 0.0  # it has ended; what that means is told by live()

    def close(self) -> None:
        if self._process.returncode is None:
            self._process.communicate(timeout=PATIENCE)


class ByHand(Ours):
    """What one writes without pyoci: Python's subprocess for conmon and for each call of the runtime, pipes for the handshake, and, when the
    container's pidfd has told its end, a look every millisecond whether conmon has written its exit file."""

    name = BY_HAND
    _ids = count()

    def __init__(self, runtime: pyoci.OCIRuntime) -> None:
        self._host = plain(runtime, conmon_cgroup="shared")._host
        self._root = ["--root", bare_root(runtime.state_dir)]
        self._base = f"{runtime.state_dir}/by-hand"
        self._config: dict[str, Any] = config_of()

    def live(self) -> Mapping[str, float]:
        id = f"by-hand-{os.getpid()}-{next(ByHand._ids)}"
        at = [time.perf_counter()]
        directory, sync, pid = self._create(id)
        try:
            at.append(time.perf_counter())
            self._call("start", id)
            at.append(time.perf_counter())
            code = self._wait(f"{directory}/exits/{id}", pid)
            at.append(time.perf_counter())
            self._call("delete", id)
            shutil.rmtree(directory)
            at.append(time.perf_counter())
        finally:
            os.close(sync)
        checked(self.name, code)
        return {**{phase: at[i + 1] - at[i] for i, phase in enumerate(PHASES)}, "total": at[-1] - at[0]}

    def _create(self, id: str) -> tuple[str, int, int]:
        """Its directory, our end of the sync pipe, which conmon needs until it ends, and the pid of its init."""
        directory = f"{self._base}/{id}"
        os.makedirs(f"{directory}/exits")
        place = self._host.placement.place(id, None).spec
        config = {**self._config, "linux": {**self._config["linux"], **({"cgroupsPath": place} if place else {})}}
        Path(directory, "config.json").write_text(json.dumps(config))
        argv = [self._host.conmon_path, "--api-version", "1", "-c", id, "-u", id, "-n", id, "-r", self._host.runtime.path, "-b", directory]
        argv += ["-p", f"{directory}/pidfile", "-P", f"{directory}/conmon.pid", "--exit-dir", f"{directory}/exits", "--persist-dir", directory]
        argv += ["--full-attach", "-l", f"k8s-file:{directory}/log", "--no-sync-log"]
        for argument in self._root:
            argv += ["--runtime-arg", argument]
        sync, conmons_sync = os.pipe()
        conmons_start, start = os.pipe()
        env = {**self._host.env, "_OCI_SYNCPIPE": str(conmons_sync), "_OCI_STARTPIPE": str(conmons_start)}
        try:
            passed, null = (conmons_sync, conmons_start), subprocess.DEVNULL
            with subprocess.Popen(argv, stdin=null, stdout=null, stderr=null, pass_fds=passed, env=env, cwd=directory, process_group=0):
                os.close(conmons_sync)
                os.close(conmons_start)
                os.write(start, b"\0")
                os.close(start)
            with open(sync, closefd=False) as messages:
                message = json.loads(messages.readline() or "{}")
            if message.get("data", -1) <= 0:
                raise RuntimeError(f"{self.name}: conmon said {message}")
        except BaseException:
            os.close(sync)
            raise
        return directory, sync, message["data"]

    def _wait(self, exit_file: str, pid: int) -> int:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            pass  # conmon has reaped it already
        else:
            select.select([pidfd], [], [], PATIENCE)
            os.close(pidfd)
        deadline = time.monotonic() + PATIENCE
        while not os.path.exists(exit_file):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.name}: conmon wrote no exit file")
            time.sleep(0.001)
        return int(Path(exit_file).read_text())

    def _call(self, verb: str, id: str) -> None:
        argv = [self._host.runtime.path, *self._root, verb, id]
        done = subprocess.run(argv, env=self._host.env, stdin=subprocess.DEVNULL, capture_output=True, check=False, process_group=0)
        if done.returncode != 0:
            raise RuntimeError(f"{self.name}: {verb} gave {done.returncode}: {done.stderr.decode(errors='replace').strip()}")
