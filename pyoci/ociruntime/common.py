"""What the verbs share: the state directory, the runtime below, descriptors and pid files."""

from __future__ import annotations

import os

from pyoci import lifecycle
from pyoci.errors import InvalidOption
from pyoci.process import host_user
from pyoci.store import Store, check_pid_file, default_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pyoci.lifecycle import Life
    from pyoci.ociruntime.words import Given

NOT_FORWARDED = ("SIGKILL", "SIGSTOP", "SIGCHLD", "SIGWINCH", "SIGPIPE", "SIGURG", "SIGCONT", "SIGTSTP", "SIGTTIN", "SIGTTOU")


def store(given: Given) -> Store:
    """``--root``; else /run/pyoci-runtime, for others than the host's root $XDG_RUNTIME_DIR/pyoci-runtime."""
    root = given.text("root")
    if root is not None:
        if not root or "\0" in root:
            raise InvalidOption(f"--root must be a directory, not {root!r}")
        return Store(os.path.abspath(root))
    runtime_dir = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.geteuid() == 0 and runtime_dir.startswith("/") and host_user() != 0:
        return Store(f"{runtime_dir}/pyoci-runtime")
    return Store(f"{default_directory(os.environ)}-runtime")


def runtime_path(given: Given, env: dict[str, str]) -> str:
    """The runtime below: ``--runtime`` (ours; runc has none), $PYOCI_RUNTIME, or the fastest that works here."""
    from pyoci import runtimes

    wanted = given.text("runtime") or os.environ.get("PYOCI_RUNTIME")
    return runtimes.find_executable(wanted) if wanted else runtimes.choose(env)


def environment() -> dict[str, str]:
    from pyoci import conmon

    return conmon.environment(os.environ, {})


def host(given: Given) -> lifecycle.Host:
    """For a new container."""
    from pyoci import cgroups, runtimes

    place = store(given)
    place.prepare()
    env = environment()
    path = runtime_path(given, env)
    # --systemd-cgroup is runc's word for it, --cgroup-manager crun's.
    manager = cgroups.SYSTEMD if given.flag("systemd-cgroup") else given.text("cgroup-manager") or cgroups.CGROUPFS
    runtime = runtimes.Runtime(path, f"{place.directory}/{os.path.basename(path)}")
    return lifecycle.Host("", runtime, place, env, placement=cgroups.Manager(manager))


def load(given: Given, id: str) -> Life:
    return lifecycle.load(store(given), id)


def stdio() -> list[int]:
    """Ours, handed on; /dev/null for what is closed."""
    found = []
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            found.append(-1)
        else:
            found.append(fd)
    return found


def preserved(given: Given, listening: int) -> list[int]:
    """The descriptors of ``--preserve-fds``: they come after those of socket activation."""
    first = 3 + listening
    return list(range(first, first + given.number("preserve-fds")))


def pid_file(given: Given) -> str | None:
    """``--pid-file``, which can be written to. Raises InvalidOption."""
    path = given.text("pid-file")
    if path is not None:
        check_pid_file(path)
    return path


def forward_signals(to: Callable[[int], Any]) -> None:
    """From here on what is sent to us goes to the container's program."""
    from signal import Signals, signal

    for number in Signals:
        if number.name not in NOT_FORWARDED:
            signal(number, lambda received, frame: to(received))
