"""A small root file system of the machine's own static busybox, made once and shared, read-only, by all containers that bring none.

Nothing is ever written to it. The runtimes make mount points and working directories that are not there, even where the container cannot write;
so who needs such gets a copy that has them (``with_points``).
"""

from __future__ import annotations

import os
from time import time

from pyoci._ffi import SHORTAGES
from pyoci.errors import ExecutableError, InvalidOption, StateDirError
from pyoci.store import own_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LAYOUT = 2
"""Raise it when what ``_fill`` makes changes: the tree then gets another name."""
MAKING = ".making-"
"""How the name of one begins that is half made, or half removed."""
UNUSED = 7 * 86400.0
"""Seconds since its last use after which it may go."""
CANDIDATES = ("/bin/busybox", "/usr/bin/busybox", "/usr/local/bin/busybox", "/bin/busybox.static")
DIRECTORIES = ("bin", "dev", "etc", "home", "proc", "root", "run", "sbin", "sys", "tmp", "usr/bin", "usr/sbin", "var/tmp")
FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
}

_made: str | None = None


def cache_directory() -> str:
    """$PYOCI_CACHE_DIR; else /var/cache/pyoci for root (/run is often noexec), else $XDG_CACHE_HOME/pyoci or ~/.cache/pyoci."""
    given = os.environ.get("PYOCI_CACHE_DIR")
    if given:
        if not given.startswith("/"):
            raise InvalidOption(f"PYOCI_CACHE_DIR must be an absolute path, not {given!r}")
        return os.path.normpath(given)  # as every root file system's path is told from ours by how it begins
    if os.geteuid() == 0:
        return "/var/cache/pyoci"
    return os.path.abspath(os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "pyoci"))


def builtin() -> str:
    """The path of the built-in root file system; made if it is not there, at once whole or not at all. Raises ExecutableError when there is
    no static busybox, StateDirError when there is no place for it."""
    global _made
    if _made is not None and os.path.isdir(_made):
        return _made
    busybox = find_busybox()
    own_directory(cache_directory(), 0o755, "cache directory")
    path = _path_for(busybox)
    if not os.path.isdir(path):
        _make(path, lambda root: _fill(root, busybox))
    _made = path
    return path


def _path_for(busybox: str) -> str:
    status = os.stat(busybox)
    return f"{cache_directory()}/rootfs-{LAYOUT}-{status.st_size:x}-{status.st_mtime_ns:x}"


def is_builtin(path: str) -> bool:
    """Whether this is the path of ``builtin()``, or of a copy ``with_points``."""
    return path.startswith(f"{cache_directory()}/rootfs-")


def with_points(points: Mapping[str, bool]) -> str:
    """The path of a copy of the built-in root file system that has these directories (True) and empty files (False) as well; its programs are
    linked, not copied. Made once for all who want the same. Raises as ``builtin``."""
    from hashlib import sha256

    base = builtin()
    names = "\0".join(f"{'d' if points[point] else 'f'}{point}" for point in sorted(points))
    path = f"{base}-{sha256(names.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}"
    if not os.path.isdir(path):
        _make(path, lambda root: _copy(base, root, points))
    return path


def note_use(path: str) -> None:
    """For ``stale``: a container is made of it, if it is ours."""
    if is_builtin(path):
        try:
            os.utime(path)
        except OSError:
            pass  # it is gone, which is told elsewhere, or cannot be written to, and so not be removed


def stale() -> list[str]:
    """The paths of those of this machine's busybox of old, and of copies ``with_points``, that nobody has used for a week, and in which no
    process lives (proc_pid_mountinfo(5))."""
    directory = cache_directory()
    try:
        kept = os.path.basename(_path_for(find_busybox()))
    except ExecutableError:
        kept = None  # none is today's
    found = {}
    for name in os.listdir(directory) if os.path.isdir(directory) else ():
        path = f"{directory}/{name}"
        if name.startswith(("rootfs-", MAKING)) and name != kept and time() - os.lstat(path).st_mtime > UNUSED:
            found[name] = path
    for pid in filter(str.isdecimal, os.listdir("/proc") if found else ()):
        try:
            with open(f"/proc/{pid}/mountinfo", "rb") as file:
                mounted = os.fsdecode(file.read())
        except OSError as error:
            if error.errno in SHORTAGES:
                raise
            continue  # it has ended, or is another user's, whose root file systems are others
        for name in [name for name in found if f"/{name} " in mounted]:
            del found[name]
    return sorted(found.values())


def remove(path: str) -> None:
    """Removes one that is ``stale``: who comes meanwhile does not find half of it."""
    import shutil

    directory, name = os.path.split(path)
    going = f"{directory}/{MAKING}{name.removeprefix(MAKING)}"
    os.rename(path, going)
    shutil.rmtree(going)


def find_busybox() -> str:
    """The path of a static busybox. Raises ExecutableError that says where it was looked for and what to install, OSError
    when we have no room for looking."""
    dynamic = []
    for path in CANDIDATES:
        try:
            with open(path, "rb") as file:
                head = file.read(4096)
        except OSError as error:
            if error.errno in SHORTAGES:
                raise
            continue
        if is_static(head):
            return path
        dynamic.append(path)
    found = f"; {', '.join(dynamic)} needs shared libraries" if dynamic else ""
    raise ExecutableError(
        2,
        f"no static busybox for the built-in root file system in {', '.join(CANDIDATES)}{found}; "
        "install it (Debian: apt install busybox-static) or give rootfs=",
        CANDIDATES[0],
    )


def is_static(head: bytes) -> bool:
    """An ELF file without a program interpreter (PT_INTERP, elf(5)), told from its first bytes."""
    if len(head) < 64 or head[:4] != b"\x7fELF":
        return False
    order = "little" if head[5] == 1 else "big"
    wide = head[4] == 2
    offset = int.from_bytes(head[32:40] if wide else head[28:32], order)  # type: ignore[arg-type]
    size, count = (int.from_bytes(head[at : at + 2], order) for at in ((54, 56) if wide else (42, 44)))  # type: ignore[arg-type]
    if not size or offset + size * count > len(head):
        return False
    return all(int.from_bytes(head[offset + size * i : offset + size * i + 4], order) != 3 for i in range(count))  # type: ignore[arg-type]


def _make(path: str, fill: Callable[[str], None]) -> None:
    """Fills a directory beside and renames it: of two makers one wins, and the other's is removed."""
    import shutil
    import tempfile

    temporary = tempfile.mkdtemp(prefix=MAKING, dir=os.path.dirname(path))
    try:
        fill(temporary)
        os.chmod(temporary, 0o755)
        try:
            os.rename(temporary, path)
        except OSError:
            if not os.path.isdir(path):
                raise
    except OSError as error:
        raise StateDirError(error.errno, f"making the built-in root file system {path}: {error.strerror}", path) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _copy(base: str, root: str, points: Mapping[str, bool]) -> None:
    import shutil

    shutil.copytree(base, root, symlinks=True, copy_function=os.link, dirs_exist_ok=True)
    for point, is_directory in points.items():
        path = f"{root}/{point}"
        os.makedirs(path if is_directory else os.path.dirname(path), 0o755, exist_ok=True)
        if not is_directory:
            with open(path, "x"):
                pass


def _fill(root: str, busybox: str) -> None:
    import shutil
    import subprocess

    for name in DIRECTORIES:
        os.makedirs(f"{root}/{name}", 0o755, exist_ok=True)
    for name in ("tmp", "var/tmp"):
        os.chmod(f"{root}/{name}", 0o1777)
    os.chmod(f"{root}/root", 0o700)
    for name, content in FILES.items():
        with open(f"{root}/{name}", "w") as file:
            file.write(content)
    shutil.copyfile(busybox, f"{root}/bin/busybox")
    os.chmod(f"{root}/bin/busybox", 0o755)
    listed = subprocess.run([busybox, "--list-full"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, timeout=30)
    for applet in listed.stdout.split():
        link = f"{root}/{applet}"
        if os.path.isdir(os.path.dirname(link)) and not os.path.lexists(link):
            os.symlink("/bin/busybox", link)
