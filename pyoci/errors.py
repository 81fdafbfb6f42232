"""Everything that pyoci raises. Each message names the step, the object, the path and what the tool said.

Errors that have an errno are also ``OSError`` (``errno``, ``strerror`` and ``filename`` are set); bad input is also ``ValueError``; a
deadline that passed is also ``TimeoutError``.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

SHOWN = 4096
"""How many characters of what a tool said go into a message; the exception's attribute keeps all that was captured."""


def said(text: bytes | str) -> str:
    """What a tool wrote, as the end of a message: stripped, cut in the middle when long, and introduced by a colon if there is any."""
    shown = text.decode("utf-8", "backslashreplace") if isinstance(text, bytes) else text
    shown = _plain(shown).strip()
    if len(shown) > SHOWN:
        shown = f"{shown[: SHOWN // 2]} […] {shown[-SHOWN // 2 :]}"
    return f": {shown}" if shown else ""


def _plain(words: str) -> str:
    """runc says ``time="…" level=error msg="…"`` where it has no log file: the time is now, and the level is clear."""
    if "level=" not in words:
        return words
    import re

    return re.sub(r'time="[^"\n]*" level=\w+ msg="((?:[^"\\\n]|\\.)*)"', lambda match: re.sub(r"\\(.)", r"\1", match[1]), words)


def _try(words: bytes | str) -> str:
    """What to try, where that is known; looked up at a failure only."""
    from pyoci import advice

    return advice.on(words)


class Error(Exception):
    """The base of all of pyoci's exceptions. They can be pickled."""

    def __str__(self) -> str:
        # Not as OSError has it, with the errno before and the path behind: ours name the path where it belongs.
        words = self.strerror if isinstance(self, OSError) else None
        return str(words or super().__str__())

    def __reduce__(self) -> tuple[Any, ...]:
        # What __init__ makes a message of is not kept: the message and the attributes are.
        reduced: Any = super().__reduce__()
        return _again, (type(self), reduced[1]), *reduced[2:]


def _again(kind: type[Error], args: tuple[Any, ...]) -> Error:
    """An exception with this message, as it was before pickling, without its own ``__init__``."""
    error = kind.__new__(kind, *args)
    if isinstance(error, OSError):
        OSError.__init__(error, *args)
    return error


# --- before anything is started ---------------------------------------------------------------------------------------------------


class InvalidID(Error, ValueError):
    """The container id cannot be used; conmon and the runtimes make file names of it and check nothing."""


class InvalidSpec(Error, ValueError):
    """The bundle or its config.json cannot be used; the message names the path and the field."""


class InvalidOption(Error, ValueError):
    """An argument of a call makes no sense; the message names it and says what is accepted."""


class ExecutableError(Error, OSError):
    """conmon or the runtime cannot be executed: missing, a directory, not executable, not a program of this machine."""


class NoRuntime(Error):
    """No runtime on this host works. ``tried`` tells why for each candidate."""

    def __init__(self, message: str, tried: Mapping[str, str]) -> None:
        super().__init__(message)
        self.tried: dict[str, str] = dict(tried)


# --- while starting and talking ---------------------------------------------------------------------------------------------------


class SpawnError(Error, OSError):
    """A process, or a thread of ours, could not be started. ``stage`` is the step that failed, ``filename`` the path it was about, if any."""

    def __init__(self, err: int, message: str, path: str | None = None, stage: str = "") -> None:
        super().__init__(err, message, path)
        self.stage = stage


class NetworkError(Error, OSError):
    """A network namespace, link or address cannot be made, found, changed or removed. ``filename`` is the path it was about, if any."""


class StateDirError(Error, OSError):
    """The state directory or a file below it cannot be made, written or read."""


class ConmonError(Error):
    """conmon ended or misbehaved. ``returncode`` is its exit code (``-N``: killed by signal N; None: not known), ``stderr`` what it said."""

    def __init__(self, message: str, returncode: int | None = None, stderr: bytes = b"") -> None:
        super().__init__(message + said(stderr))
        self.returncode = returncode
        self.stderr = stderr


class ConmonTooOld(ConmonError):
    """This conmon lacks what is needed. ``version`` is what was found, ``needed`` the least that will do."""

    def __init__(self, message: str, returncode: int, stderr: bytes, version: tuple[int, ...], needed: tuple[int, ...]) -> None:
        super().__init__(message, returncode, stderr)
        self.version = version
        self.needed = needed


class ProtocolError(ConmonError):
    """conmon's message was not what the protocol says; ``received`` keeps at most 64 KiB of it."""

    def __init__(self, message: str, received: bytes = b"") -> None:
        super().__init__(message)
        self.received = received


class CreateError(Error):
    """The runtime did not create the container. The message carries what it said; so does ``stderr``."""

    def __init__(self, message: str, stderr: bytes | str = b"") -> None:
        super().__init__(message + said(stderr) + _try(stderr))
        self.stderr: bytes = stderr if isinstance(stderr, bytes) else stderr.encode("utf-8", "surrogateescape")


class ExecError(Error):
    """The runtime did not start the program of an exec session, and not because there is no such program. The message carries what it said;
    so does ``stderr``."""

    def __init__(self, message: str, stderr: bytes | str = b"") -> None:
        super().__init__(message + said(stderr) + _try(stderr))
        self.stderr: bytes = stderr if isinstance(stderr, bytes) else stderr.encode("utf-8", "surrogateescape")


class RuntimeFailed(Error):
    """A call of the runtime failed: ``argv``, ``returncode`` (``-N``: killed by signal N) and ``stderr`` are kept."""

    def __init__(self, step: str, argv: Sequence[str], returncode: int, stderr: bytes) -> None:
        how = f"exited {returncode}" if returncode >= 0 else f"was killed by signal {-returncode}"
        super().__init__(f"{step}: {argv[0]} {how}{said(stderr)}{_try(stderr)}")
        self.argv: list[str] = list(argv)
        self.returncode = returncode
        self.stderr = stderr


class CgroupError(Error):
    """conmon or the container cannot be placed in the cgroup that was asked for."""


class Timeout(Error, TimeoutError):
    """The deadline passed. ``timeout`` is in seconds; what was waited for goes on unless the message says otherwise."""

    def __init__(self, message: str, timeout: float | None = None) -> None:
        super().__init__(message)
        self.timeout = timeout


class ExecTimeout(Timeout):
    """The exec session was killed at the timeout. ``stdout`` and ``stderr`` hold what it had written by then."""

    def __init__(self, message: str, timeout: float | None, stdout: bytes | None, stderr: bytes | None) -> None:
        super().__init__(message, timeout)
        self.stdout = stdout
        self.stderr = stderr


class OutputTooLong(Error):
    """More output than ``max_output``; what wrote it was killed. ``stdout`` and ``stderr`` hold what was kept."""

    def __init__(self, message: str, stdout: Any, stderr: Any) -> None:
        super().__init__(message)
        self.stdout = stdout
        self.stderr = stderr


# --- about containers -------------------------------------------------------------------------------------------------------------


class ContainerExists(Error):
    """The id is taken; the container that has it was not touched."""


class SessionExists(Error):
    """The id of an exec session is taken in this container; the session that has it was not touched."""


class ContainerNotFound(Error):
    """No container with this id is known here (any more)."""


class DamagedRecord(Error):
    """What is written of a container on disk cannot be read: it was cut off, or changed by somebody else."""


class NoCgroup(Error):
    """The container has no cgroup of its own, and this needs one: a limit, or pausing it."""


class ContainerInherited(Error):
    """This object came through a fork(): what it would do, it would do to the parent's container. ``Container.load`` makes one of our own."""


class ContainerStateError(Error):
    """The container is in a state in which this cannot be done. ``state`` is that state."""

    def __init__(self, message: str, state: str) -> None:
        super().__init__(message)
        self.state = state
