"""State on disk: one directory per container, ``<state dir>/containers/ID``, from which any process can take the container up again.

    config.json   the spec as the runtime gets it          exit, oom     conmon's word on how it ended
    record.json   which runtime, which arguments, …        log           the container's output (k8s-file)
    pids          init and conmon with their start times   ctl, attach   conmon's control FIFO and socket
    pidfile, conmon.pid   written by the runtime and by conmon

mkdir of that directory is the lock on the id; a flock on it is held while the container is created and while it is deleted.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat

from pyoci import _ffi, advice, forks, ids
from pyoci.conmon import check_directory
from pyoci.errors import ContainerExists, ContainerNotFound, DamagedRecord, Error, InvalidOption, StateDirError
from pyoci.process import Identity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Self

RECORD_VERSION = 1
MODE = 0o750


def default_directory(env: Mapping[str, str]) -> str:
    """Root: /run/pyoci. Others: $XDG_RUNTIME_DIR/pyoci."""
    if os.geteuid() == 0:
        return "/run/pyoci"
    runtime_dir = env.get("XDG_RUNTIME_DIR", "")
    if not runtime_dir.startswith("/"):
        raise InvalidOption("XDG_RUNTIME_DIR is not set, so there is no place for state: log in with a session, set it, or give state_dir=")
    return f"{runtime_dir}/pyoci"


def store_at(state_dir: str | os.PathLike[str] | None) -> Store:
    """The state directory as given, or the default one; nothing is made."""
    return Store(os.path.abspath(os.fspath(state_dir)) if state_dir is not None else default_directory(os.environ))


class Store:
    """The state directory."""

    __slots__ = ("containers", "directory", "exits")

    def __init__(self, directory: str) -> None:
        check_directory(directory)
        self.directory: str = directory
        self.containers: str = f"{directory}/containers"
        self.exits: str = f"{directory}/exits"

    def prepare(self) -> None:
        """Makes the directories, closed to others. Raises StateDirError when that fails or when they belong to somebody else."""
        for path in (self.directory, self.exits, self.containers):  # the last: what another thread finds there, it takes for whole
            own_directory(path, MODE, "state directory")

    def path(self, id: str) -> str:
        return f"{self.containers}/{ids.check(id)}"

    def claim(self, id: str) -> str:
        """Makes the container's directory: of any number of claims of one id exactly one succeeds. Raises ContainerExists."""
        path = self.path(id)
        for attempt in (1, 2):
            try:
                _ffi.mkdir(path, MODE)
                return path
            except FileExistsError:
                raise ContainerExists(
                    f"the id {id!r} is taken: {path} exists; delete that container (`pyoci prune`, if its creator has crashed), or use another id"
                ) from None
            except FileNotFoundError:
                if attempt == 2:
                    raise
                self.prepare()
            except OSError as error:
                raise StateDirError(error.errno, f"making {path}: {error.strerror}{advice.on(str(error.strerror))}", path) from None
        raise AssertionError

    def ids(self) -> list[str]:
        """The ids of all containers here, sorted. Raises StateDirError."""
        try:
            names = os.listdir(self.containers)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StateDirError(error.errno, f"listing {self.containers}: {error.strerror}", self.containers) from None
        return sorted(names)

    def remove(self, id: str) -> None:
        """Removes what is on disk of a container; nothing there is fine."""
        unlink(f"{self.exits}/{id}")
        for last in (False,) * 100 + (True,):
            try:
                remove_tree(self.path(id))
                break
            except StateDirError as error:
                # Who waits in another thread or process may be keeping the exit code there, each once. Nor may a want that passes leave a half.
                if last or error.errno not in (errno.ENOTEMPTY, *_ffi.SHORTAGES):
                    raise


def own_directory(path: str, mode: int, what: str) -> None:
    """Makes a directory if it is not there. Raises StateDirError when that fails, or when it is not ours alone to write to."""
    try:
        os.makedirs(path, mode, exist_ok=True)
        status = os.lstat(path)
    except OSError as error:
        there = "there is a file of that name" if error.errno == errno.EEXIST else error.strerror
        raise StateDirError(error.errno, f"making the {what} {path}: {there}; give another place", path) from None
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise StateDirError(1, f"the {what} {path} must be a directory of our own that nobody else can write to; give another one", path)


def write_file(path: str, content: bytes) -> None:
    """A new file, or StateDirError that names it."""
    try:
        _ffi.file_write(path, content)
    except OSError as error:
        raise StateDirError(error.errno, f"{error.args[1]}{advice.on(str(error.args[1]))}", path) from None


def check_pid_file(path: str) -> None:
    """Before anything is started: ``write_pid`` can put it there. Raises InvalidOption."""
    if os.path.isdir(path):
        raise InvalidOption(f"--pid-file {path}: it is a directory")
    if not os.access(os.path.dirname(os.path.abspath(path)), os.W_OK | os.X_OK):
        raise InvalidOption(f"--pid-file {path}: its directory does not exist, or cannot be written to")


def write_pid(path: str, pid: int) -> None:
    """The file of a ``--pid-file``. Raises InvalidOption."""
    try:
        write_whole(path, str(pid))
    except OSError as error:
        raise InvalidOption(f"--pid-file {path}: {error.strerror}") from None


def write_whole(path: str, content: str) -> None:
    """A file for others, whole or not at all: who waits for it reads it at once. Raises OSError, which names it."""
    directory, name = os.path.split(os.path.abspath(path))
    partial = f"{directory}/.{name}"
    try:
        with open(partial, "w", encoding="utf-8") as file:
            file.write(content)
        os.rename(partial, path)
    except BaseException as error:
        if os.path.lexists(partial):
            os.unlink(partial)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, path) from None  # that of a write names no file
        raise


def read_record(directory: str, id: str) -> dict[str, Any]:
    """The record of a container. Raises ContainerNotFound when there is none, DamagedRecord, Error when it is not one of ours."""
    found = _read(f"{directory}/record.json", 1 << 20)
    if found is None:
        raise ContainerNotFound(f"no container {id!r}: there is no {directory}/record.json (is it in another state directory?)")
    try:
        record = json.loads(found)
    except (ValueError, RecursionError) as error:
        raise DamagedRecord(f"{directory}/record.json cannot be read: {error}") from None
    if not isinstance(record, dict) or record.get("version") != RECORD_VERSION:
        raise Error(f"{directory}/record.json was written by another version of pyoci")
    return record


def read_pids(directory: str) -> tuple[Identity, Identity] | None:
    """(init, its monitor) of a container; None while it has none. Raises DamagedRecord: what cannot be read does not tell that they have ended."""
    found = _read(f"{directory}/pids", 256)
    if found is None:
        return None
    pids = parse_pids(found)
    if pids is None:
        raise DamagedRecord(f"{directory}/pids cannot be read: {found[:80]!r} are no processes; `pyoci prune` removes it once all in it has ended")
    return pids


def _read(path: str, limit: int) -> bytes | None:
    """What we wrote; None if it is not there. Raises DamagedRecord for what is no file of ours, OSError when we have no room for looking."""
    try:
        return _ffi.file_read(path, limit, os.O_NOFOLLOW)[0]
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in _ffi.SHORTAGES:
            raise
        raise DamagedRecord(f"{path} cannot be read: {os.strerror(error.errno or 0)}") from None


def parse_pids(content: bytes) -> tuple[Identity, Identity] | None:
    """(init, its monitor) of the pids file; None if it is not one. The monitor can be process 1: ``monitor="caller"``."""
    words = content.split()
    init, monitor = Identity.parse(words[:3]), Identity.parse(words[3:], least=1)
    return (init, monitor) if init is not None and monitor is not None else None


class Lock:
    """The flock on a container's directory. Raises FileNotFoundError when there is none; with ``wait=False`` BlockingIOError while somebody
    holds it."""

    __slots__ = ("_file",)

    def __init__(self, directory: str, *, wait: bool = False) -> None:
        self._file = forks.Private(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            try:
                _ffi.lock(self._file.fd, fcntl.LOCK_EX)
            except BlockingIOError:
                if not wait:
                    raise
                fcntl.flock(self._file.fd, fcntl.LOCK_EX)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def release(self) -> None:
        if self._file.fd >= 0:
            # Told, not only closed: a process that another thread is just starting has a copy of the descriptor until its exec.
            _ffi.lock(self._file.fd, fcntl.LOCK_UN)
        self._file.close()


def is_locked(directory: str) -> bool:
    """A container is being created or deleted here at this moment."""
    try:
        with Lock(directory):
            return False
    except BlockingIOError:
        return True
    except OSError:
        return False


def mark(directory: str) -> tuple[int, int] | None:
    """What tells the container that is in a directory from one that had the same id before it; None while it has no processes. Raises OSError when
    we have no room for looking."""
    try:
        found = _ffi.Mark(f"{directory}/pids")
    except OSError as error:
        if error.errno in _ffi.SHORTAGES:
            raise
        return None
    return found.inode, found.mtime


def unlink(path: str) -> None:
    try:
        _ffi.unlink(path)
    except FileNotFoundError:
        pass


def remove_tree(path: str) -> None:
    """Removes a directory of ours with all in it; follows no link and crosses no mount that is not empty. Gone already is fine."""
    try:
        _ffi.tree_remove(path)
    except OSError as error:
        raise StateDirError(error.errno, str(error.args[1]), path) from None
