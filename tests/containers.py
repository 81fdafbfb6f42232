"""What the tests say about containers in more than one place."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyoci

Build = Callable[..., dict[str, Any]]
"""The fixture ``build``: a spec of these arguments in the built-in root file system."""

FOREVER = ("sh", "-c", "trap 'exit 0' TERM; echo ready; sleep 100 & wait")
"""Ends at the stop signal, as PID 1 of a namespace only does when it has a handler: from its word "ready" on."""


def status_fields(status: str) -> dict[str, str]:
    """name → value of /proc/PID/status."""
    return dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)


def ready(container: pyoci.Container, word: str = "ready") -> None:
    """Waits for a word in the container's log: before it, a signal can meet the runtime's own init, which is still on its way to the program
    (runc's then exits 2)."""
    deadline = time.monotonic() + 20
    while word not in Path(container.log_path).read_text():
        assert time.monotonic() < deadline, f"{container!r} did not say {word!r}"
        time.sleep(0.005)


def kernel_tells() -> bool:
    """How a process ended, by its pidfd, to whoever asks."""
    release = os.uname().release.split("-")[0].split(".")
    return (int(release[0]), int(release[1])) >= (6, 15)


def asking(runtime: pyoci.OCIRuntime) -> pyoci.OCIRuntime:
    """The same, but for that the state of its containers is asked of the runtime."""
    return pyoci.OCIRuntime(runtime.runtime_path, state_dir=runtime.state_dir, shortcuts=["start", "delete"])


def scopes() -> set[str]:
    """systemd's scopes, but for its own and those of who logged in or called systemd-run."""
    argv = ["systemctl", "list-units", "--all", "--type=scope", "--plain", "--no-legend"]
    said = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30).stdout
    return {line.split()[0] for line in said.splitlines() if not line.startswith(("init.", "session-", "run-"))}
