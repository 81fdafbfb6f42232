"""The Python side of the seam: the only importer of the compiled module. Structs in, plain values and exceptions out (see csrc/pyoci.h)."""

from __future__ import annotations

import errno
import os
import sys

from pyoci._native import ffi, lib
from pyoci.errors import InvalidOption, NetworkError, SpawnError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any, TypeAlias

    from pyoci.mounts import Mounts

    Block: TypeAlias = tuple[bytes, int]

SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Want of descriptors or memory: such an error tells nothing of what was looked at."""
POLLIN = 0x001
POLLOUT = 0x004

_STAGES: dict[int, str] = {
    lib.PO_STAGE_PREPARE: "allocating the child's stack",
    lib.PO_STAGE_CLONE: "clone",
    lib.PO_STAGE_PGROUP: "making a process group",
    lib.PO_STAGE_CGROUP: "joining the cgroup",
    lib.PO_STAGE_LABEL: "setting the SELinux context",
    lib.PO_STAGE_CWD: "changing to the working directory",
    lib.PO_STAGE_DESCRIPTORS: "placing the descriptors",
    lib.PO_STAGE_CLOSE: "closing the other descriptors",
    lib.PO_STAGE_SIGNALS: "resetting the signals",
    lib.PO_STAGE_EXEC: "executing",
    lib.PO_STAGE_CGROUP_MAKE: "making the cgroup",
    lib.PO_STAGE_CGROUP_CPUSET: "copying the cpuset of the parent",
    lib.PO_STAGE_THREAD: "making a thread",
    lib.PO_STAGE_UNSHARE: "making a mount namespace",
    lib.PO_STAGE_PLACE: "making the place of the run directory",
    lib.PO_STAGE_PROPAGATION: "stopping the propagation of mounts",
    lib.PO_STAGE_RUN_DIRECTORY: "mounting the run directory",
    lib.PO_STAGE_TARGET: "making the mount point",
    lib.PO_STAGE_BIND: "binding",
    lib.PO_STAGE_NETWORK: "making a network namespace",
    lib.PO_STAGE_LOOPBACK: "setting the loopback of a network namespace up",
    lib.PO_STAGE_WATCH: "watching a network namespace",
    lib.PO_STAGE_NAMES: "making the directory of network namespaces",
    lib.PO_STAGE_NAME: "naming a network namespace",
    lib.PO_STAGE_UNNAME: "removing the network namespace",
    lib.PO_STAGE_ENTER: "entering a network namespace",
    lib.PO_STAGE_SOCKET: "opening a socket in a network namespace",
}
_HINTS: dict[tuple[int, int], str] = {
    (lib.PO_STAGE_UNSHARE, errno.EPERM): "this needs CAP_SYS_ADMIN",
    (lib.PO_STAGE_UNSHARE, errno.ENOSPC): "the limit in /proc/sys/user/max_mnt_namespaces is reached",
    (lib.PO_STAGE_UNSHARE, errno.EINVAL): "this kernel has no mount namespaces",
    (lib.PO_STAGE_UNSHARE, errno.ENOSYS): "this kernel, or a seccomp filter, has no unshare",
    (lib.PO_STAGE_NETWORK, errno.EPERM): "this needs CAP_SYS_ADMIN",
    (lib.PO_STAGE_NETWORK, errno.ENOSPC): "the limit in /proc/sys/user/max_net_namespaces is reached",
    (lib.PO_STAGE_NETWORK, errno.EINVAL): "this kernel has no network namespaces",
    (lib.PO_STAGE_NETWORK, errno.ENOSYS): "this kernel, or a seccomp filter, has no unshare",
    (lib.PO_STAGE_NAMES, errno.EPERM): "this needs CAP_SYS_ADMIN",
}


def failure(result: int, what: str) -> OSError:
    """The OSError of a negative result; Python picks the subclass by the errno."""
    return OSError(-result, f"{what}: {os.strerror(-result)}")


_ENCODING = sys.getfilesystemencoding()
_new_uncleared = ffi.new_allocator(should_clear_after_alloc=False)


def _encode(path: str) -> bytes:
    return path.encode(_ENCODING, "surrogateescape")


def _refused(result: int, path: str) -> OSError:
    return OSError(-result, os.strerror(-result), path)


def block(strings: Iterable[str | bytes], what: str) -> Block:
    """Strings as one block of NUL-closed bytes, and their number. A NUL inside one would cut it in two: refused."""
    parts = [os.fsencode(s) for s in strings]
    joined = b"\0".join(parts) + b"\0"
    if joined.count(b"\0") != max(len(parts), 1):
        raise InvalidOption(f"{what} holds a NUL byte: {next(part for part in parts if 0 in part)!r}")
    return joined, len(parts)


def environment_block(env: Mapping[str, str]) -> tuple[bytes, int]:
    return block([f"{name}={value}" for name, value in env.items()], "environment")


def spawn(
    path: str,
    argv: list[str] | Block,
    env: tuple[bytes, int],
    ret_process: Any,
    *,
    fds: Sequence[int] = (-1, -1, -1),
    cwd: str | None = None,
    process_group: bool = False,
    cgroup: int = -1,
    cgroup_procs: Sequence[int] = (),
    label: str | None = None,
    mounts: Mounts | None = None,
) -> None:
    """Starts a program (no PATH search) and writes pid and pidfd into ``ret_process`` (``new_process()``), which the caller owns already: an
    exception between the C call and the caller's next line then loses nothing. ``fds[i]`` becomes descriptor i (-1: /dev/null), all others
    are closed. ``label``: its SELinux context. ``mounts``: the mount namespace that is made for it. Raises SpawnError."""
    args, argc = argv if isinstance(argv, tuple) else block(argv, "argv")
    what = ffi.new("struct po_spawn *")
    error = ffi.new("struct po_error *")
    # from_buffer and new give objects that must outlive the call: they are named for that.
    path_bytes = ffi.from_buffer(block((path,), "path")[0])
    args_bytes, env_bytes = ffi.from_buffer(args), ffi.from_buffer(env[0])
    fd_array, procs_array = ffi.new("int32_t[]", fds), ffi.new("int32_t[]", cgroup_procs)
    cwd_bytes = ffi.NULL if cwd is None else ffi.from_buffer(block((cwd,), "cwd")[0])
    what.path, what.argv, what.envp, what.cwd = path_bytes, args_bytes, env_bytes, cwd_bytes
    what.fds, what.cgroups = fd_array, procs_array
    what.argc, what.envc, what.nfds, what.ncgroups = argc, env[1], len(fds), len(cgroup_procs)
    what.cgroup, what.pgroup = cgroup, process_group
    if label is not None:
        label_bytes = ffi.from_buffer(block((label,), "label")[0])
        what.label = label_bytes
    if mounts is None:
        result = lib.po_spawn(what, ret_process, error)
    else:
        paths = [ffi.from_buffer(block((each,), "path")[0]) for each in (mounts.place, mounts.source, mounts.target)]
        result = lib.po_spawn_in_mounts(ffi.new("struct po_mounts *", (*paths, mounts.uid, mounts.gid)), what, ret_process, error)
    if result < 0:
        stage, why, about = _explained(error)
        raise SpawnError(error.err, f"starting {path}: {stage}: {why}", about, stage)


def _explained(error: Any) -> tuple[str, str, str | None]:
    """The step, why it failed, and the path it was about, if any."""
    hint = _HINTS.get((error.stage, error.err))
    why = f"{os.strerror(error.err)}{f' ({hint})' if hint else ''}"
    return _STAGES.get(error.stage, f"stage {error.stage}"), why, os.fsdecode(ffi.string(error.path)) or None


def new_process() -> Any:
    """A struct po_process that says "none": pid 0, pidfd -1."""
    return ffi.new("struct po_process *", (0, -1))


def pidfd_open(pid: int) -> int:
    """pidfd_open(2). Raises ProcessLookupError when there is no such process."""
    ret = ffi.new("int32_t *")
    result = lib.po_pidfd_open(pid, ret)
    if result < 0:
        raise failure(result, f"pidfd_open of {pid}")
    return int(ret[0])


def identify(pid: int, ret_process: Any) -> tuple[int, int, int]:
    """Opens a pidfd of a process into ``ret_process`` (``new_process()``), and tells who it is: (ppid, start time, inode), see
    ``process.Identity``. Raises OSError, ProcessLookupError when there is none."""
    found = ffi.new("struct po_identity *")
    result = lib.po_identify(pid, found)
    if result < 0:
        raise failure(result, f"looking at process {pid}")
    ret_process.pid, ret_process.pidfd = pid, found.pidfd
    return found.ppid, found.start_time, found.inode


def pidfd_signal(pidfd: int, signal: int) -> bool:
    """Sends a signal; False when the process has ended and been reaped (ESRCH)."""
    result = lib.po_pidfd_signal(pidfd, signal)
    if result == -errno.ESRCH:
        return False
    if result < 0:
        raise failure(result, f"sending signal {signal}")
    return True


def pidfd_reap(pidfd: int) -> tuple[int, int] | None:
    """(code, signal) of a child that has ended, or None while it runs. Raises ChildProcessError when it is not ours or somebody took it."""
    ret = ffi.new("struct po_exit *")
    result = lib.po_pidfd_reap(pidfd, ret)
    if result < 0:
        raise failure(result, "waitid")
    return (ret.code, ret.signal) if result else None


def pidfd_reap_if_ours(pidfd: int) -> None:
    """Reaps a child of ours that has ended; anybody else's is left alone, without a word."""
    lib.po_pidfd_reap(pidfd, ffi.new("struct po_exit *"))


def pidfd_exit_info(pidfd: int) -> tuple[int, int] | None:
    """(code, signal) of any process that has been reaped, by whomever; None when it has not, or when this kernel cannot tell (< 6.15)."""
    ret = ffi.new("struct po_exit *")
    return (ret.code, ret.signal) if lib.po_pidfd_exit_info(pidfd, ret) == 0 else None


def _cgroup_call(result: int, error: Any) -> None:
    if result < 0:
        path = os.fsdecode(ffi.string(error.path))
        raise OSError(error.err, f"{_STAGES[error.stage]} {path}: {os.strerror(error.err)}", path)


def cgroups_make(directories: Sequence[str], cpusets: int = 0) -> None:
    """Makes cgroups in the order given; one that is there is fine. Bit i of ``cpusets``: the i-th is one of cgroup v1's cpuset. Raises OSError;
    what was made by then stays."""
    error = ffi.new("struct po_error *")
    joined, count = block(directories, "cgroups")
    _cgroup_call(lib.po_cgroups_make(joined, count, cpusets, error), error)


def cgroups_join(directories: Sequence[str], pid: int) -> None:
    """Moves a process to these cgroups. Raises OSError."""
    error = ffi.new("struct po_error *")
    joined, count = block(directories, "cgroups")
    _cgroup_call(lib.po_cgroups_join(joined, count, pid, error), error)


def cgroups_remove(directories: Sequence[str]) -> list[int]:
    """rmdir of each in the order given: empty when all are gone, else the errno for each, 0 for those that are."""
    joined, count = block(directories, "cgroups")
    errors = ffi.new("int32_t[]", count)
    return list(errors) if lib.po_cgroups_remove(joined, count, errors) else []


def _network_call(result: int, error: Any) -> None:
    if result < 0:
        step, why, path = _explained(error)
        raise NetworkError(error.err, f"{step}{f' {path}' if path else ''}: {why}", path)


def new_network() -> Any:
    """A struct po_network that says "none": all -1."""
    return ffi.new("struct po_network *", (-1, -1, -1, -1))


def network_make(ret_network: Any, name: str | None = None) -> None:
    """Makes a network namespace and writes its descriptors into ``ret_network`` (``new_network()``), which the caller owns already. ``name``: the
    path of the file that it is bound to. Raises NetworkError."""
    error = ffi.new("struct po_error *")
    _network_call(lib.po_network_make(ffi.NULL if name is None else os.fsencode(name), ret_network, error), error)


def network_names(directory: str) -> None:
    """Makes the directory of network namespaces' names, a shared mount. Raises NetworkError."""
    error = ffi.new("struct po_error *")
    _network_call(lib.po_network_names(os.fsencode(directory), error), error)


def network_unname(path: str) -> None:
    """Takes a network namespace's name away. Raises NetworkError."""
    error = ffi.new("struct po_error *")
    _network_call(lib.po_network_unname(os.fsencode(path), error), error)


def network_is_changed(network: Any) -> bool:
    """The kernel has told of a change since the namespace was made."""
    return bool(lib.po_network_is_changed(network))


def network_socket(network: int, family: int, kind: int, protocol: int) -> int:
    """A socket in a network namespace, which is given by a descriptor. Raises NetworkError."""
    error, ret = ffi.new("struct po_error *"), ffi.new("int32_t *")
    _network_call(lib.po_network_socket(network, family, kind, protocol, ret, error), error)
    return int(ret[0])


def socketpair(kind: int) -> tuple[int, int]:
    """Two connected AF_UNIX sockets, close-on-exec."""
    ret = ffi.new("int32_t[2]")
    result = lib.po_socketpair(kind, ret)
    if result < 0:
        raise failure(result, "socketpair")
    return ret[0], ret[1]


def capture(size: int) -> int:
    """A memory file that holds at most ``size`` bytes: what is written beyond is refused to the writer."""
    ret = ffi.new("int32_t *")
    result = lib.po_capture(size, ret)
    if result < 0:
        raise failure(result, "memfd_create")
    return int(ret[0])


def watch_file(fd: int) -> int:
    """An inotify descriptor that becomes readable when this open file is written to, or its name goes. Raises OSError: EMFILE where the user's
    instances are all taken."""
    ret = ffi.new("int32_t *")
    result = lib.po_watch_file(fd, ret)
    if result < 0:
        raise failure(result, "inotify")
    return int(ret[0])


def send(fd: int, data: memoryview, fds: Sequence[int] = ()) -> int:
    """As much of this as a socket takes without waiting: the number of bytes. The descriptors, three at most, go with the first of them
    (SCM_RIGHTS). Raises OSError, BlockingIOError among them."""
    result = lib.po_send(fd, ffi.from_buffer(data), len(data), ffi.new("int32_t[]", fds), len(fds))
    if result < 0:
        raise failure(result, "sending")
    return int(result)


def file_write(path: str, content: bytes) -> None:
    """A new file with this content, mode 0640. Raises OSError, FileExistsError among them."""
    result = lib.po_file_write(_encode(path), content, len(content))
    if result < 0:
        raise failure(result, f"writing {path}")


def file_read(path: str, limit: int, flags: int = 0) -> tuple[bytes, int]:
    """The start of a regular file and its modification time in nanoseconds. ``flags``: O_NOFOLLOW, or 0. Never waits. Raises OSError."""
    buffer = _new_uncleared("char[]", limit)
    mtime = ffi.new("int64_t *")
    result = lib.po_file_read(_encode(path), flags, buffer, limit, mtime)
    if result < 0:
        raise _refused(result, path)
    return bytes(ffi.buffer(buffer, result)), mtime[0]


class Mark:
    """What tells a file from another one that had its name before; times in nanoseconds."""

    __slots__ = ("ctime", "device", "inode", "mtime", "size")

    def __init__(self, path: str, *, follow: bool = False) -> None:
        """Raises OSError."""
        found = ffi.new("struct po_mark *")
        result = lib.po_file_mark(_encode(path), follow, found)
        if result < 0:
            raise _refused(result, path)
        self.device: int = found.device
        self.inode: int = found.inode
        self.size: int = found.size
        self.mtime: int = found.mtime
        self.ctime: int = found.ctime


def exists(path: str) -> bool:
    """As os.path.lexists: a link counts, wherever it leads. Raises OSError when we have no room for looking."""
    result = lib.po_file_mark(_encode(path), False, ffi.new("struct po_mark *"))
    if -result in SHORTAGES:
        raise _refused(result, path)
    return bool(result == 0)


def open_file(path: str, flags: int) -> int:
    """As os.open, close-on-exec, for what opens at once. Raises OSError."""
    ret = ffi.new("int32_t *")
    result = lib.po_open(_encode(path), flags, ret)
    if result < 0:
        raise _refused(result, path)
    return int(ret[0])


def lock(fd: int, operation: int) -> None:
    """flock(2) that does not wait. Raises OSError, BlockingIOError among them."""
    result = lib.po_lock(fd, operation)
    if result < 0:
        raise failure(result, "flock")


def mkdir(path: str, mode: int) -> None:
    """Raises OSError."""
    result = lib.po_mkdir(_encode(path), mode)
    if result < 0:
        raise _refused(result, path)


def unlink(path: str) -> None:
    """Raises OSError."""
    result = lib.po_unlink(_encode(path))
    if result < 0:
        raise _refused(result, path)


def pipe(ours: int) -> tuple[int, int]:
    """(the end to read, the end to write), close-on-exec; that of number ``ours`` does not block. Raises OSError."""
    ret = ffi.new("int32_t[2]")
    result = lib.po_pipe(ret, ours)
    if result < 0:
        raise failure(result, "pipe2")
    return ret[0], ret[1]


def read(fd: int, size: int) -> bytes:
    """As os.read, of what does not block. Raises OSError."""
    buffer = _new_uncleared("char[]", size)
    result = lib.po_read(fd, buffer, size)
    if result < 0:
        raise failure(result, "read")
    return bytes(ffi.buffer(buffer, result))


def write(fd: int, content: bytes) -> int:
    """As os.write, to what does not block. Raises OSError."""
    result = lib.po_write(fd, content, len(content))
    if result < 0:
        raise failure(result, "write")
    return int(result)


def close(fd: int) -> None:
    """As os.close, but that it raises nothing."""
    lib.po_close(fd)


def tree_remove(path: str) -> None:
    """Removes a directory with all in it; gone already is fine. Follows no link, crosses no mount that is not empty. Raises OSError."""
    error = ffi.new("struct po_error *")
    result = lib.po_tree_remove(_encode(path), error)
    if result < 0:
        within = os.fsdecode(ffi.string(error.path))
        raise failure(result, f"removing {path}{f' ({within})' if within else ''}")


class LineReader:
    """Gathers one line of at most ``limit`` bytes from a stream socket, over any number of calls."""

    __slots__ = ("_buffer", "_length", "fd", "limit")

    def __init__(self, fd: int, limit: int) -> None:
        self.fd = fd
        self.limit = limit
        self._buffer = _new_uncleared("char[]", limit)
        self._length = ffi.new("uint32_t *")

    def read(self, deadline: int = 0) -> bool | None:
        """True: a line is whole. False: the stream ended. None: not yet, at the deadline. OSError with EMSGSIZE: longer than ``limit``."""
        result = lib.po_read_line(self.fd, self._buffer, self.limit, self._length, deadline)
        if result in (-errno.ETIMEDOUT, -errno.EINTR):
            return None
        if result < 0:
            raise failure(result, "reading a line")
        return bool(result)

    @property
    def received(self) -> bytes:
        """What has come so far, the newline included."""
        return bytes(ffi.buffer(self._buffer, self._length[0]))


def poll(read: Sequence[int], write: Sequence[int], deadline: int) -> set[int]:
    """The descriptors that are ready (readable, writable, hung up or in error); empty at the deadline or after a signal."""
    count = len(read) + len(write)
    events = ffi.new("struct po_event[]", [(fd, POLLIN, 0) for fd in read] + [(fd, POLLOUT, 0) for fd in write])
    result = lib.po_poll(events, count, deadline)
    if result in (-errno.EINTR, 0):
        return set()
    if result < 0:
        raise failure(result, "poll")
    return {events[i].fd for i in range(count) if events[i].revents}


class Epoll:
    """An epoll that takes all changes of a round and waits, in one call. For one thread at a time."""

    __slots__ = ("_fd", "_ready")

    SIZE = 64

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._ready = ffi.new("struct po_event[]", self.SIZE)

    def wait(self, changes: Sequence[tuple[int, int, int]], deadline: int) -> list[int]:
        """``changes`` of what is watched: (descriptor, events or 0, whether it is watched already). The descriptors that are ready, ``SIZE`` at most;
        none at the deadline or after a signal. Raises OSError."""
        changed = ffi.new("struct po_event[]", changes) if changes else ffi.NULL
        result = lib.po_epoll(self._fd, changed, len(changes), self._ready, self.SIZE, deadline)
        if result < 0:
            if result == -errno.EINTR:
                return []
            raise failure(result, "epoll")
        return [self._ready[i].fd for i in range(result)]
