"""Where the containers that are measured lie, and how all of them go away again, also when the measuring is interrupted."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from glob import glob

from pyoci import cgroups
from pyoci.errors import Error
from pyoci.recovery import mounts_below
from pyoci.runtime import stored
from pyoci.store import default_directory

PODMAN_MARKS = ("/dev/shm/libpod_lock", "/run/containers", "/run/libpod", "/sys/fs/cgroup/*/libpod_parent", "/sys/fs/cgroup/libpod_parent")
"""What podman, as root, makes outside of its own roots."""


@contextmanager
def temporary(parent: str | None = None) -> Iterator[str]:
    """A new directory in this one, by default the one that holds the state directory. Each directory in it is a state directory, named as its
    runtime; what still lives in one at the end is killed and removed. Its path must be short, as the runtimes' sockets lie below."""
    marks = _podman_marks()
    base = tempfile.mkdtemp(prefix="pyoci-bench-", dir=parent or os.path.dirname(default_directory(os.environ)))
    try:
        yield base
    finally:
        clear(base)
        os.rmdir(base)
        for path in _podman_marks() - marks if os.geteuid() == 0 else ():
            if path.startswith("/sys/"):
                cgroups.remove([path])
            elif os.path.isdir(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                os.unlink(path)


def clear(base: str) -> None:
    """Kills and removes what lives in the state directories of ``base``, then these."""
    for runtime in os.listdir(base):
        _end_all(f"{base}/{runtime}", runtime)
        for point in mounts_below(f"{base}/{runtime}"):  # where podman was interrupted
            _quietly(["umount", "--lazy", point])
        shutil.rmtree(f"{base}/{runtime}")


def _podman_marks() -> set[str]:
    return {path for mark in PODMAN_MARKS for path in glob(mark)}


def podman_command(state_dir: str, runtime: str) -> list[str]:
    """podman with storage of its own, so that nobody's is touched, and with pyoci's way of managing cgroups."""
    base = f"{state_dir}/podman"  # podman takes no runroot of more than 50 characters
    places = ["--root", f"{base}-root", "--runroot", base, "--tmpdir", f"{base}-tmp"]
    return ["podman", *places, "--cgroup-manager", "cgroupfs", "--storage-driver", "vfs", "--events-backend", "none", "--runtime", runtime]


def bare_root(state_dir: str) -> str:
    """The state root of the runtime where it is called without pyoci."""
    return f"{state_dir}/bare"


def _end_all(state_dir: str, runtime: str) -> None:
    """pyoci knows its own containers; the bare ones are known only to the runtime, podman's only to podman."""
    if os.path.isdir(f"{state_dir}/podman"):
        _quietly([*podman_command(state_dir, runtime), "rm", "--all", "--force", "--time", "0"])
    for container in stored(state_dir):
        try:
            container.delete(force=True)
        except (Error, OSError):
            pass  # what follows is asked about it too
    for root in (f"{state_dir}/{runtime}", bare_root(state_dir)):
        for id in os.listdir(root) if os.path.isdir(root) else ():
            _quietly([runtime, "--root", root, "delete", "--force", id])
            left = cgroups.read().directories(f"/pyoci-{id}")
            cgroups.kill_all(left)
            cgroups.remove(left)


def _quietly(argv: list[str]) -> None:
    subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60)
