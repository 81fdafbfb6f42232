"""Where the benchmark's containers live, and how all of it goes away again."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from typing import Self

from pyoci import cgroups
from pyoci.errors import Error
from pyoci.runtime import stored

PODMAN_SHARES = "/run/containers"
"""podman makes this wherever its own state lies."""


class Place:
    """A state directory of its own, a tag that is in the name of every container and so of every cgroup, and their removal at the end."""

    def __init__(self) -> None:
        parent = "/run" if os.access("/run", os.W_OK) else "/tmp"
        self.directory = tempfile.mkdtemp(prefix="pyoci-bench-", dir=parent)
        self.tag = f"bench-{os.path.basename(self.directory).removeprefix('pyoci-bench-')}"
        self.runtimes: dict[str, str] = {}
        """State root → the runtime's binary, for the clean-up."""
        self._hierarchies = sorted(set(cgroups.read().mounts.values()))
        self._podman_left = [path for path in self._podman_marks() if not os.path.lexists(path)]
        self._count = 0

    def id(self) -> str:
        """A new id; all have one length."""
        self._count += 1
        return f"{self.tag}-{self._count:06d}"

    def path(self, name: str) -> str:
        path = f"{self.directory}/{name}"
        os.makedirs(path, 0o750, exist_ok=True)
        return path

    def podman(self) -> list[str]:
        """podman with all its state in here."""
        own = [f"--root={self.path('podman/root')}", f"--runroot={self.path('podman/run')}", f"--tmpdir={self.path('podman/tmp')}"]
        return ["podman", *own, "--cgroup-manager=cgroupfs", "--events-backend=none"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if os.path.isdir(f"{self.directory}/podman"):
            self._run([*self.podman(), "rm", "--all", "--force", "--time=0"])
        for container in stored(self.directory):
            try:
                container.delete(force=True)
            except (Error, OSError):
                pass  # what follows is thorough enough
        for root, runtime in self.runtimes.items():
            for id in os.listdir(root) if os.path.isdir(root) else ():
                self._run([runtime, "--root", root, "delete", "--force", id])
        mine = [f"{top}/{name}" for top in self._hierarchies for name in os.listdir(top) if self.tag in name]
        for process in cgroups.kill_all(mine):
            process.close()
        cgroups.remove(mine)
        for path in self._podman_left:
            if path == PODMAN_SHARES:
                shutil.rmtree(path, ignore_errors=True)
            else:
                cgroups.remove([path])
        shutil.rmtree(self.directory, ignore_errors=True)

    def _podman_marks(self) -> list[str]:
        return [PODMAN_SHARES, *(f"{top}/libpod_parent" for top in self._hierarchies)]

    def _run(self, argv: list[str]) -> None:
        subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60)
