"""SELinux: the context in which conmon is started. As libpod does it: the caller's own, at level s0, so that the containers' processes, which
run at categories of their own, can use the FIFOs and files that conmon makes. It is set in the child only (csrc/spawn_child.c)."""

from __future__ import annotations

import os

ENFORCE = "/sys/fs/selinux/enforce"
"""There when selinuxfs is mounted, which the kernel offers only where SELinux is enabled."""
CURRENT = "/proc/thread-self/attr/current"
LEVEL = "s0"

_enabled: bool | None = None


def at_level(context: str, level: str = LEVEL) -> str:
    """A context with another level: ``user:role:type[:level]`` (selinux(8)), where the level is a sensitivity or a range of two, each with
    categories or not: ``s0``, ``s0:c1,c5``, ``s0-s15:c0.c1023``. One without a level (a policy without MLS) stays as it is. Raises ValueError
    for what is no context."""
    parts = context.split(":", 3)
    if len(parts) < 3 or not all(parts):
        raise ValueError(f"not an SELinux context: {context!r}")
    return ":".join([*parts[:3], level]) if len(parts) == 4 else context


def enabled() -> bool:
    """Whether this host has SELinux, in whatever mode; looked up once."""
    global _enabled
    if _enabled is None:
        _enabled = os.path.exists(ENFORCE)
    return _enabled


def current() -> str:
    """The calling thread's context."""
    with open(CURRENT, "rb", buffering=0) as file:
        return os.fsdecode((file.read(4096) or b"").rstrip(b"\0\n"))


def conmon_label() -> str | None:
    """The context to start conmon in; None where nothing is to be set: no SELinux, no policy loaded, or at level s0 already."""
    if not enabled():
        return None
    context = current()
    if context.count(":") < 2:
        return None  # "kernel": no policy has been loaded
    label = at_level(context)
    return None if label == context else label
