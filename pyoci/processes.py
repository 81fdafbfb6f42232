"""The processes in a container, from /proc."""

from __future__ import annotations

import os

from pyoci.cgroups import members_below
from pyoci.process import command_line, descendants

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyoci.lifecycle import Life


class ContainerProcess:
    """A process in a container: ``pid`` and ``ppid`` as we see them, ``pid_inside`` in its own namespace, ``uid`` on the host, ``state`` (R, S, D, T,
    Z …), ``seconds`` of processor time, ``args``: its command line; the name in brackets where it has none (proc_pid_stat(5))."""

    __slots__ = ("args", "pid", "pid_inside", "ppid", "seconds", "state", "uid")

    def __init__(self, pid: int, ppid: int, pid_inside: int, uid: int, state: str, seconds: float, args: list[str]) -> None:
        self.pid: int = pid
        self.ppid: int = ppid
        self.pid_inside: int = pid_inside
        self.uid: int = uid
        self.state: str = state
        self.seconds: float = seconds
        self.args: list[str] = args


def of(life: Life) -> list[ContainerProcess]:
    """Those in the container's cgroups, those below its init, and those in its pid namespace if it has one of its own; by pid. Empty when it has
    ended."""
    if life.init is None or life.has_ended():
        return []
    in_cgroups = next((found for directory in life.own_cgroups() if (found := members_below(directory))), [])
    pids = {life.init.pid, *descendants({life.init.pid}), *in_cgroups}
    if life.own_pid_namespace:
        namespace = _namespace(life.init.pid)
        if namespace is not None:
            pids.update(int(name) for name in os.listdir("/proc") if name.isdecimal() and _namespace(int(name)) == namespace)
    return [seen for pid in sorted(pids) if (seen := look(pid)) is not None]


def _namespace(pid: int) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return None


def look(pid: int) -> ContainerProcess | None:
    """What /proc tells of a process; None when it has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            name, _, rest = file.read().partition(b"(")[2].rpartition(b")")
        with open(f"/proc/{pid}/status", "rb") as file:
            status = dict(line.split(b":", 1) for line in file.read().splitlines() if b":" in line)
        fields = rest.split()
        args = [part.decode("utf-8", "replace") for part in command_line(pid).split(b"\0")[:-1]]
        seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        inside = int(status[b"NSpid"].split()[-1]) if b"NSpid" in status else pid
        return ContainerProcess(
            pid, int(fields[1]), inside, int(status[b"Uid"].split()[1]), fields[0].decode(), seconds, args or [f"[{name.decode('utf-8', 'replace')}]"]
        )
    except (OSError, IndexError, ValueError, KeyError):
        return None
