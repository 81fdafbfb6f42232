"""Where the benchmark's containers lie, and how all of it goes away again, also when it is interrupted."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from glob import glob

import pyoci
from pyoci import cgroups
from pyoci.runtime import stored
from tests import hosts, machine

PODMAN_MARKS = ("/run/containers", "/run/libpod", "/sys/fs/cgroup/*/libpod_parent", "/sys/fs/cgroup/libpod_parent")
"""What podman makes outside of its own roots."""


@contextmanager
def state_directory() -> Iterator[str]:
    """A directory in memory that only this process and its children see. What still lives in it at the end is killed and removed."""
    before = {path for mark in PODMAN_MARKS for path in glob(mark)}
    base = tempfile.mkdtemp(prefix="pyoci-bench-", dir="/run" if os.access("/run", os.W_OK) else None)
    hosts.mount_tmpfs(base)
    try:
        yield base
    finally:
        for runtime in os.listdir(base):
            _end_all(f"{base}/{runtime}", runtime)
        machine.umount(base)
        shutil.rmtree(base)
        for path in {path for mark in PODMAN_MARKS for path in glob(mark)} - before:
            if path.startswith("/sys/"):
                cgroups.remove([path])
            else:
                shutil.rmtree(path, ignore_errors=True)


def podman_command(state_dir: str, runtime: str) -> list[str]:
    """podman with storage of its own, so that nobody's is touched, and with pyoci's way of managing cgroups."""
    root = f"{state_dir}/podman"
    places = ["--root", f"{root}/root", "--runroot", f"{root}/run", "--tmpdir", f"{root}/tmp"]
    return ["podman", *places, "--cgroup-manager", "cgroupfs", "--storage-driver", "vfs", "--events-backend", "none", "--runtime", runtime]


def bare_root(state_dir: str) -> str:
    """The state root of the runtime that is called without conmon."""
    return f"{state_dir}/bare"


def _end_all(state_dir: str, runtime: str) -> None:
    """pyoci knows its own containers; the floor's and the bare ones are known only to the runtime, podman's only to podman."""
    if os.path.isdir(f"{state_dir}/podman"):
        _quietly([*podman_command(state_dir, runtime), "rm", "--all", "--force", "--time", "0"])
    for container in stored(state_dir):
        try:
            container.delete(force=True)
        except (pyoci.Error, OSError):
            pass  # what follows is asked about it too
    for root in (f"{state_dir}/{runtime}", bare_root(state_dir)):
        for id in os.listdir(root) if os.path.isdir(root) else ():
            _quietly([runtime, "--root", root, "delete", "--force", id])
            left = cgroups.read().directories(f"/pyoci-{id}")
            cgroups.kill_all(left)
            cgroups.remove(left)


def _quietly(argv: list[str]) -> None:
    subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60)
