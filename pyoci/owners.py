"""Whose a container is: the process that created it, written so that any other can tell later whether that one still lives.

A pid means something in one pid namespace and until the machine boots again, so both stand beside it (pid_namespaces(7), random(4)).
"""

from __future__ import annotations

import os

from pyoci import forks
from pyoci.process import Identity, Process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, TypeAlias

    Fate: TypeAlias = Literal["alive", "gone", "unknown"]

INITIAL_NAMESPACE = 0xEFFFFFFC
"""The number of the pid namespace in which all processes of the machine are seen (PROC_PID_INIT_INO, include/linux/proc_ns.h)."""

_ours: tuple[int, str] = (-1, "")


def ours() -> str:
    """This process, for a record: ``BOOT NAMESPACE PID START INODE``. Found once, and again after a fork."""
    global _ours
    if _ours[0] != forks.generation:
        process = Process.open(os.getpid())
        _ours = forks.generation, f"{_boot()} {_namespace()} {Identity.of(process)}"
        process.close()
    return _ours[1]


def fate(recorded: object) -> Fate:
    """What has become of a process that ``ours`` has described. ``unknown``: it is not one of those that we could see, or no description."""
    words = recorded.split() if isinstance(recorded, str) else []
    identity = Identity.parse([word.encode() for word in words[2:]])
    if identity is None:
        return "unknown"
    if words[0] != _boot():
        return "gone"
    if words[1] != str(_namespace()):
        # From the outermost one we see every namespace in which anything lives.
        return "gone" if _namespace() == INITIAL_NAMESPACE and not _is_inhabited(words[1]) else "unknown"
    found = identity.find()
    return "gone" if found is None or found.has_ended() else "alive"


def pid(recorded: object) -> str:
    """The pid, to be shown."""
    words = recorded.split() if isinstance(recorded, str) else []
    return words[2] if len(words) == 5 else "?"


def is_of_this_boot(recorded: object) -> bool:
    """Processes that were recorded then can still live; also when nobody knows."""
    return not isinstance(recorded, str) or recorded.split()[:1] in ([], [_boot()])


def _boot() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def _namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino


def _is_inhabited(namespace: str) -> bool:
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                if str(os.stat(f"/proc/{name}/ns/pid").st_ino) == namespace:
                    return True
            except FileNotFoundError:
                pass  # it has ended
            except OSError:
                return True  # hidden from us: who knows
    return False
