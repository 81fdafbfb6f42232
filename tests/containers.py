"""What the tests say about containers in more than one place."""

from collections.abc import Callable
from typing import Any

Build = Callable[..., dict[str, Any]]
"""The fixture ``build``: a spec of these arguments in the built-in root file system."""

FOREVER = ("sh", "-c", "trap 'exit 0' TERM; sleep 100 & wait")
"""Ends at the stop signal, as PID 1 of a namespace only does when it has a handler."""


def status_fields(status: str) -> dict[str, str]:
    """name → value of /proc/PID/status."""
    return dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
