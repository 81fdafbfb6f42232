"""Programs that an ordinary user runs: with a user id that nobody else has, and a home and an XDG_RUNTIME_DIR of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests import machine
from tests.hosts import add_lines, show

USER_ID = 64322
ROOT = Path(__file__).parents[1]


def run(program: str, *arguments: str, base: str, cgroup: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a Python program as an ordinary user: as ourselves, where we are one. ``base``: a directory that others may enter; home and runtime
    directory are made there. ``cgroup``: the directory of a cgroup that is delegated to the user (cgroups(7)), and in which the program starts."""
    argv = [sys.executable, "-m", "tests.ordinary", base, cgroup, program, *arguments]
    return subprocess.run(argv, env={**os.environ, **environment}, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def _become(base: str, cgroup: str) -> None:
    if cgroup:
        for path in (cgroup, *(f"{cgroup}/cgroup.{name}" for name in ("procs", "subtree_control", "threads"))):
            os.chown(path, USER_ID, USER_ID)
        Path(cgroup, "cgroup.procs").write_text("0")
    machine.unshare(machine.CLONE_NEWNS)
    show(str(ROOT), sys.base_prefix)
    # newuidmap(1), which crun calls where it is, asks for the name.
    add_lines({"passwd": f"pyoci-ordinary:x:{USER_ID}:{USER_ID}::{base}/home:/bin/sh", "group": f"pyoci-ordinary:x:{USER_ID}:"}, base)
    for name in ("home", "runtime"):
        os.chown(f"{base}/{name}", USER_ID, USER_ID)
    os.setgroups([])
    os.setgid(USER_ID)
    os.setuid(USER_ID)


def _main(base: str, cgroup: str, program: str, *arguments: str) -> None:
    for name in ("home", "runtime"):
        os.mkdir(f"{base}/{name}", 0o700)
    if os.geteuid() == 0:
        _become(base, cgroup)
    environment = {**os.environ, "HOME": f"{base}/home", "XDG_RUNTIME_DIR": f"{base}/runtime", "PYTHONDONTWRITEBYTECODE": "1"}
    # Executed anew: after the change of user the kernel keeps /proc/self of this program from it.
    os.execve(sys.executable, [sys.executable, "-c", program, *arguments], environment)


if __name__ == "__main__":
    _main(*sys.argv[1:])
