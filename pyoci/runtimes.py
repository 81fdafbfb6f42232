"""The OCI runtimes: calls to argv, the meaning of their words, and which one works on this host."""

from __future__ import annotations

import json
import os
import re
import stat
import sys

from pyoci import cgroups
from pyoci.errors import ExecutableError, NoRuntime, ProtocolError
from pyoci.exits import read_small
from pyoci.process import STDERR_KEPT, has_capability, invoke
from pyoci.waiting import drive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Literal, TypeAlias

    from pyoci.waiting import Operation

    State: TypeAlias = Literal["configured", "creating", "created", "running", "paused", "stopped"]

CANDIDATES = ("crun", "runc")
"""The fastest first."""
PACKAGES = (*CANDIDATES, "conmon")
"""What Debian has a package of the same name for."""
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/libexec/podman:/usr/lib/podman"
PROBE_TIMEOUT = 10.0
CAP_SYS_RESOURCE = 24


# --- executables ------------------------------------------------------------------------------------------------------------------


def find_executable(name: str, search: str | None = None) -> str:
    """The absolute path of a program by name (searched in PATH, then where distributions put it) or by path; checked. Raises
    ExecutableError that says what is wrong with it."""
    if "/" in name:
        path = os.path.abspath(name)
        check_executable(path)
        return path
    looked = [d for d in f"{os.environ.get('PATH', '') if search is None else search}:{SEARCH_PATH}".split(":") if d.startswith("/")]
    wrong: ExecutableError | None = None
    for directory in dict.fromkeys(looked):
        path = f"{directory}/{name}"
        if os.path.lexists(path):
            try:
                check_executable(path)
            except ExecutableError as error:
                wrong = wrong or error
            else:
                return path
    install = f"; install it (Debian: apt install {name})" if name in PACKAGES else ""
    raise wrong or ExecutableError(2, f"{name!r} was not found in {':'.join(dict.fromkeys(looked))}{install}", name)


def check_executable(path: str) -> None:
    """Raises ExecutableError unless execve(2) of this file can work: a regular file, executable for us, a script or an ELF file of the
    machine that we run on ourselves."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise ExecutableError(error.errno, f"cannot execute {path}: {error.strerror}", path) from None
    if stat.S_ISDIR(mode):
        raise ExecutableError(21, f"cannot execute {path}: it is a directory", path)
    if not stat.S_ISREG(mode):
        raise ExecutableError(13, f"cannot execute {path}: it is not a regular file", path)
    if not os.access(path, os.X_OK):
        raise ExecutableError(13, f"cannot execute {path}: it is not executable (mode {stat.S_IMODE(mode):04o})", path)
    try:
        head = _head(path)
    except OSError:
        return  # executable but not readable: execve will tell
    if head[:2] == b"#!":
        return
    ours = _head("/proc/self/exe")
    # e_ident: magic, class, byte order; e_machine at 18 (elf(5)).
    if head[:6] != ours[:6] or head[18:20] != ours[18:20]:
        kind = "an ELF file for another machine" if head[:4] == b"\x7fELF" else "neither a script nor an ELF file"
        raise ExecutableError(8, f"cannot execute {path}: it is {kind}", path)


def _head(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return os.read(fd, 20)
    finally:
        os.close(fd)


# --- calls ------------------------------------------------------------------------------------------------------------------------


class Runtime:
    """A runtime's binary with the global arguments of every call; all of them are pure."""

    __slots__ = ("extra_args", "global_args", "name", "path", "root")

    def __init__(self, path: str, root: str, extra_args: Sequence[str] = ()) -> None:
        self.path: str = path
        self.name: str = os.path.basename(path)
        self.root: str = root
        self.extra_args: list[str] = list(extra_args)
        # A state root of our own: no id of another tool is in the way of ours, and nothing that we delete can be theirs.
        self.global_args: list[str] = ["--root", root, *extra_args]

    def argv(self, verb: str, *args: str) -> list[str]:
        return [self.name, *self.global_args, verb, *args]

    def bundle_args(self, directory: str, bundle: str | None) -> list[str]:
        """The container's config.json lies in its own directory; hooks and ``state`` are told of the caller's bundle where the runtime can tell
        the two apart."""
        if bundle is None or self.name != "crun":
            return ["--bundle", directory]
        return ["--bundle", bundle, "--config", f"{directory}/config.json"]

    def exec_argv(self, id: str, base: str, preserve_fds: int = 0, console_socket: str | None = None, switches: Sequence[str] = ()) -> list[str]:
        """Runs ``base``.json in a container: without ``--detach`` among the ``switches`` the runtime ends with the program, and with its code. Its
        own words go to a log as well: where stderr goes is the caller's choice."""
        argv = [self.name, *self.global_args, "--log", f"{base}.log", "--log-format", "json"]
        argv += ["exec", "--process", f"{base}.json", "--pid-file", f"{base}.pid"]
        if preserve_fds:
            argv += ["--preserve-fds", str(preserve_fds)]
        if console_socket is not None:
            argv += ["--console-socket", console_socket]
        argv += [*switches, id]
        return argv

    @property
    def sends_console(self) -> bool:
        """An exec in the foreground sends the master of its terminal to ``--console-socket``. runc refuses that without ``--detach``, with
        which nobody would learn the exit code; it relays between the terminal that it makes and the one that it is given as its stdio."""
        return self.name == "crun"


def parse_version(output: bytes) -> tuple[int, ...] | None:
    """The version in the first line of ``--version``: ``crun version 1.8.1``, ``runc version 1.1.5+ds1``."""
    match = re.search(rb"version (\d{1,9}(?:\.\d{1,9})*)", output[:4096])
    return tuple(int(part) for part in match.group(1).split(b".")) if match else None


STATUSES = frozenset(("creating", "created", "running", "paused", "stopped"))


def parse_state(output: bytes, id: str) -> tuple[State, int]:
    """(status, pid) of ``RUNTIME state`` (runtime-spec, "Query State"). Raises ProtocolError for anything else: garbage is not "gone"."""
    try:
        state = json.loads(output)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"the runtime's state of {id!r} is not JSON ({error}): {output[:200]!r}", output[:65536]) from None
    if not isinstance(state, dict) or state.get("id") != id or str(state.get("status")) not in STATUSES:
        raise ProtocolError(f"the runtime's state of {id!r} is not a state: {output[:200]!r}", output[:65536])
    pid = state.get("pid", 0)
    if type(pid) is not int or pid < 0:
        raise ProtocolError(f"the runtime's state of {id!r} has no usable pid: {output[:200]!r}", output[:65536])
    return state["status"], pid


def says_missing(stderr: bytes) -> bool:
    """A failed call said that the container is not there: runc "container does not exist", crun "error opening file `…/ID/status`: No such
    file or directory"."""
    return b"does not exist" in stderr or (b"/status" in stderr and b"No such file or directory" in stderr)


def says_program(stderr: bytes, program: str) -> int | None:
    """127 when a failed create means that the container's program is not there, 126 when it cannot be executed, as shells say; else None.

    runc says ``exec: \\"PROGRAM\\": REASON``; crun "executable file `PROGRAM` not found", and "open executable: REASON" (1.8) or "the path
    `PROGRAM` is not a regular file", "… exists but it is not executable", "cannot open `PROGRAM`: REASON" (1.21). The reason that crun 1.8
    gives for a missing absolute path is a stray EPERM: the caller looks at the root file system."""
    text = stderr.decode("utf-8", "replace")
    name = re.escape(program)
    match = re.search(
        rf'exec: \\?".*\\?": (?P<runc>[^"]*)|(?P<missing>executable file .* not found)|open executable: (?P<crun>.*)'
        rf"|the path `{name}` (?P<kind>is not|exists but)|cannot open `{name}`: (?P<open>.*)",
        text,
        re.DOTALL,
    )
    if match is None:
        return None
    reason = (match["runc"] or match["crun"] or match["open"] or "").lower()
    return 127 if match["missing"] or "not found" in reason or "no such file" in reason else 126


def read_log(path: str) -> bytes:
    """What a runtime has said to a ``--log`` in JSON, at most 64 KiB; empty when there is none, or no room for looking."""
    try:
        found = read_small(path, STDERR_KEPT)
    except OSError:
        found = None
    return parse_log(found[0]) if found is not None else b""


def parse_log(content: bytes) -> bytes:
    """The messages of a ``--log`` in JSON, one a line; what is not JSON is kept as it is."""
    found = []
    for line in content.splitlines():
        try:
            message = json.loads(line)["msg"]
        except (ValueError, RecursionError, KeyError, TypeError):
            message = None
        found.append(message.encode("utf-8", "surrogateescape") if isinstance(message, str) else line)
    return b"\n".join(found)


# --- which one --------------------------------------------------------------------------------------------------------------------


def unfit(path: str, env: Mapping[str, str]) -> str | None:
    """Why a runtime that is installed cannot work on this host, or None. Known rules, not a trial: a container costs more than a look."""
    if os.path.basename(path) != "crun":
        return None
    layout = cgroups.read().layout
    if layout == "hybrid":
        return "crun refuses hybrid cgroups (v1 controllers with a cgroup2 mount beside them); runc works there"
    if layout == "v2" and os.geteuid() == 0 and not has_capability(CAP_SYS_RESOURCE):
        version = version_of(path, env)
        if version is not None and version < (1, 14, 1):
            return "crun before 1.14.1 needs CAP_SYS_RESOURCE on cgroup v2 (setrlimit RLIMIT_MEMLOCK); runc or a newer crun works there"
    return None


def version_of(path: str, env: Mapping[str, str]) -> tuple[int, ...] | None:
    from pyoci._ffi import environment_block

    return drive(ask_version(path, environment_block(env)))


def version_line(path: str, env: Mapping[str, str]) -> str:
    """The first line of what ``--version`` says."""
    from pyoci._ffi import environment_block

    output = drive(invoke(f"asking {path} for its version", path, [path, "--version"], environment_block(env), PROBE_TIMEOUT, stdout=True))
    return output.stdout[:4096].decode("utf-8", "replace").partition("\n")[0].strip()


def ask_version(path: str, env: tuple[bytes, int]) -> Operation[tuple[int, ...] | None]:
    """What ``--version`` of a runtime or of conmon says; None when that is no version."""
    output = yield from invoke(f"asking {path} for its version", path, [path, "--version"], env, PROBE_TIMEOUT, stdout=True)
    return parse_version(output.stdout)


def features(path: str, env: Mapping[str, str]) -> Operation[dict[str, Any]]:
    """What a runtime says that it can do (runtime-spec, features.md): runc does from 1.1 on, crun from 1.8.6 on. Raises RuntimeFailed with the
    words of one that does not know the question, ProtocolError."""
    from pyoci._ffi import environment_block

    name = os.path.basename(path)
    output = yield from invoke(f"asking {path} for its features", path, [name, "features"], environment_block(env), PROBE_TIMEOUT, stdout=True)
    try:
        found = json.loads(output.stdout)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"{path} features: not JSON: {error}", output.stdout[:65536]) from None
    if not isinstance(found, dict):
        raise ProtocolError(f"{path} features: not an object", output.stdout[:65536])
    return found


def build_words(path: str, env: Mapping[str, str]) -> list[str]:
    """What a runtime's ``--version`` says that it was built with: crun's words such as ``+SECCOMP``."""
    from pyoci._ffi import environment_block

    asked = invoke(f"asking {path} for its version", path, [path, "--version"], environment_block(env), PROBE_TIMEOUT, stdout=True)
    return [word for word in drive(asked).stdout.decode("utf-8", "replace").split() if word.startswith("+") and word[1:].isalnum()]


_chosen: dict[tuple[str, tuple[str, ...]], str] = {}


def choose(env: Mapping[str, str], candidates: Sequence[str] = CANDIDATES) -> str:
    """The path of the first of these runtimes that works on this host; found once per process. Raises NoRuntime."""
    key = (os.environ.get("PATH", ""), tuple(candidates))
    if key in _chosen:
        return _chosen[key]
    tried: dict[str, str] = {}
    for name in candidates:
        try:
            path = find_executable(name)
            why = unfit(path, env)
        except Exception as error:
            why = str(error)
        if why is None:
            _chosen[key] = path
            if "logging" in sys.modules:  # else nobody listens, and it is the most expensive import of a short program's
                import logging

                without = "".join(f"; not {other}: {reason}" for other, reason in tried.items())
                logging.getLogger("pyoci").debug("chose %s at %s%s", name, path, without)
            return path
        tried[name] = why
    reasons = "; ".join(f"{name}: {why}" for name, why in tried.items())
    raise NoRuntime(f"no OCI runtime works on this host: {reasons}. Install one (Debian: apt install runc, or crun), or name one by its path", tried)
