"""A container without conmon: init's stdio are the caller's own descriptors, and it becomes, when the runtime has created it and ended, the child of
the nearest subreaper (PR_SET_CHILD_SUBREAPER, prctl(2)).

``direct``, for callers that stay: this process is made that subreaper, and is the monitor itself. What is given up: the container's end is only seen
while this process lives, its pipes break when it ends, there is no log and no attach socket; and what other children of this process leave behind
becomes its own to reap.

``caller``, for callers that end at once, as an OCI runtime's command line does: the subreaper is somebody above this process (conmon, containerd's
shim, process 1), who gets to know the exit code. Here it is only known as far as the kernel tells it to others.
"""

from __future__ import annotations

import os

from pyoci import conmon, runtimes
from pyoci.errors import CreateError, SpawnError
from pyoci.exits import read_small
from pyoci.process import KILL_GRACE, Process, descendants, ended, namespace_pids, read_stat, returncode_of
from pyoci.waiting import Wait, deadline_in, passed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyoci.lifecycle import Life
    from pyoci.mounts import Mounts
    from pyoci.options import Options
    from pyoci.store import Store
    from pyoci.waiting import Operation

PR_SET_CHILD_SUBREAPER = 36
ORPHAN_GRACE = 0.04
"""Seconds in which an init whose runtime has failed must be dead."""
TICKS = os.sysconf("SC_CLK_TCK")

_subreaper = 0  # the process that has been made one


def is_subreaper() -> bool:
    """This process has been made one here."""
    return _subreaper == os.getpid()


def become_subreaper() -> None:
    """Once for each process: a forked child is none. Raises SpawnError."""
    global _subreaper
    if is_subreaper():
        return
    import ctypes

    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise SpawnError(ctypes.get_errno(), f"becoming a subreaper: {os.strerror(ctypes.get_errno())}")
    _subreaper = os.getpid()


def reap_group(leader: int) -> Operation[None]:
    """What a runtime that has failed has forked, and left to us as zombies: crun does, for a user namespace. All are in its process group, and
    dead or dying."""
    deadline = deadline_in(KILL_GRACE)
    while not passed(deadline):
        try:
            while os.waitid(os.P_PGID, leader, os.WEXITED | os.WNOHANG) is not None:
                pass
        except ChildProcessError:
            pass  # none of ours: none at all, or one whose parent is still dying
        try:
            os.killpg(leader, 0)
        except OSError:
            return
        yield Wait((), (), deadline_in(0.001))


def adopter(init: int) -> int:
    """Who is the parent of a container's init now; 0 if that is neither this process nor one above it, nor process 1."""
    stat = read_stat(init)
    parent, above = stat.ppid if stat is not None else 0, os.getpid()
    while above not in (parent, 0):
        stat = read_stat(above)
        above = stat.ppid if stat is not None else 0
    # Who came into this pid namespace from outside (setns(2), as docker exec does) has nobody above here: process 1 takes the orphans.
    return above or int(parent == 1)


def reap_init(store: Store, id: str, began: float) -> Operation[None]:
    """The init of the container ``id``, whose runtime has failed, when it has called setsid(2), so that it is in no group of the runtime's.
    Nothing says whose a zombie is; but this one is our child, the first process of a pid namespace, born since ``began`` (CLOCK_BOOTTIME), and no
    other container's pidfile names it, which a runtime that succeeds writes before it ends and leaves its init to us."""
    orphans = [init for pid in descendants({os.getpid()}) if (init := _adopted_init(pid, began)) is not None]
    # Read after they were seen: what another thread's runtime leaves to us now is not among them.
    pidfiles = [read_small(f"{store.path(other)}/pidfile", 32) for other in store.ids() if other != id] if orphans else []
    named = {found[0].strip() for found in pidfiles if found is not None}
    deadline = deadline_in(ORPHAN_GRACE)
    for init in orphans:
        if str(init.pid).encode() not in named and (yield from ended(init, deadline)):
            init.reap_adopted()
        init.close()


def _adopted_init(pid: int, began: float) -> Process | None:
    try:
        process = Process.open(pid)
    except OSError:
        return None
    stat = read_stat(pid)
    if stat is not None and stat.ppid == os.getpid() and stat.start_time >= int(began * TICKS) and namespace_pids(pid)[1:][-1:] == [1]:
        return process
    process.close()
    return None


def launch(life: Life, first: Process, options: Options, namespace: Mounts | None, deadline: int) -> Operation[int]:
    """Creates the container of ``life``, whose directory is ready; gives the pid of its init. Raises as ``lifecycle.create`` does."""
    host, directory = life.host, life.directory
    if life.is_direct:
        become_subreaper()
    passthrough = options.log_driver == "passthrough"
    log, pidfile = f"{directory}/runtime.log", f"{directory}/pidfile"
    # With passthrough the runtime says what it has to say on the container's stderr.
    words = [] if passthrough and not options.words_logged else ["--log", log, "--log-format", "json"]
    systemd = ["--systemd-cgroup"] if host.placement.is_systemd else []
    switches = [name for name, wanted in (("--no-pivot", options.no_pivot), ("--no-new-keyring", options.no_new_keyring)) if wanted]
    if options.passed_fds:
        switches += ["--preserve-fds", str(len(options.passed_fds))]
    argv = [host.runtime.name, *host.runtime.global_args, *words, *systemd, "create"]
    if options.console_socket is not None:
        switches += ["--console-socket", options.console_socket]
    argv += [*host.runtime.bundle_args(directory, life.bundle), "--pid-file", pidfile, *switches, life.id]
    fds = (*options.stdio, *options.passed_fds)
    first.spawn(host.executable, argv, host.runtime_env(options.notify_socket), fds=fds, cwd=directory, process_group=True, mounts=namespace)
    if not (yield from ended(first, deadline)):
        raise host.too_slow(life.id)
    exit = first.reap() or (-1, 0)
    first.close()
    if exit != (0, 0):
        how = f"was killed by signal {exit[1]}" if exit[1] else f"exited {returncode_of(exit)}"
        raise CreateError(f"creating {life.id!r}: the runtime {how}", runtimes.read_log(log))
    found = read_small(pidfile)
    if found is None:
        raise CreateError(f"creating {life.id!r}: the runtime succeeded without a pidfile, and said nothing")
    return conmon.parse_pidfile(found[0], pidfile)
