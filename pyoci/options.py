"""How one container is created, besides its spec: plain, fixed values, checked when they are made; nothing is started."""

from __future__ import annotations

import os
import stat

from pyoci.errors import InvalidOption

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, TypedDict

    from pyoci.networks import Network

    class CreateOptions(TypedDict, total=False):
        """The options of ``OCIRuntime.create``, and, for all of its containers, of ``OCIRuntime``; ``Options`` says what each means."""

        stdin: Any
        stdout: Any
        stderr: Any
        tty: bool | None
        monitor: str
        bound: bool
        mount_namespace: bool | None
        log_driver: str | None
        log_path: str | os.PathLike[str] | None
        log_size_max: int | str
        sync_log: bool
        log_level: str | None
        no_pivot: bool
        no_new_keyring: bool
        listen_fds: bool | Sequence[int] | Mapping[str, int]
        preserve_fds: Sequence[int]
        notify_socket: bool | str
        network: Network | None
        console_socket: str | os.PathLike[str] | None


NULL_STDIO = (-1, -1, -1)
NO_LIMIT = -1
DIRECT = "direct"
CALLER = "caller"
MONITORS = ("conmon", DIRECT, CALLER)
LOG_DRIVERS = ("k8s-file", "journald", "none", "passthrough")
LOG_LEVELS = ("error", "warning", "info", "debug", "trace")
"""conmon's."""
JOURNAL = "/run/systemd/journal/socket"
SHORTEST_JOURNALD_ID = 13
"""conmon cuts a short id of 12 characters from it, and ends when there are no more."""


class Options:
    """``stdin``, ``stdout``, ``stderr``: PIPE (then ``Container.stdin`` …), DEVNULL, a descriptor or a file, and stderr=STDOUT joins the two.
    Where one is given, the container's stdio are these descriptors, without a log and without attach; what is left out is then our own stdout or
    stderr, and an empty stdin. Where none is, the output goes to the log, and stdin=True keeps stdin open for ``attach``. ``tty``: a
    terminal, to be used by ``attach``; None: as the spec says.

    ``monitor``: ``conmon``, or ``direct``: this process itself, for callers that stay as long as the container, or ``caller``: whoever is the nearest
    subreaper above this process, which may end (see ``pyoci.direct``).
    ``bound``: it is not to outlive this process: once that is gone, ``prune`` ends and removes it. So is every one of ``direct``, and those of
    ``pyoci.run``.

    ``log_driver``: where its output goes: ``k8s-file`` (a file in Kubernetes' format), ``journald``, ``none``, or ``passthrough`` (conmon hands
    its own stdio on). ``log_path``: the file of ``k8s-file``, in place of ``log`` in the container's directory; it stays when the container is
    deleted. ``log_size_max``: bytes, or "10M"; the file begins anew, over the old one, when it would grow beyond; -1: no limit. ``sync_log``:
    fsync the log at the end. ``log_level``: how much conmon itself says, to syslog: one of ``LOG_LEVELS``; with ``passthrough``, and so with
    ``pyoci.run``, its first words come on the container's stderr, too.

    ``mount_namespace``: start conmon in a mount namespace where the root file system is within reach of the container's mapped root; None: where
    that is needed (``mounts.plan``). ``no_pivot``: the runtime uses MS_MOVE and chroot in place of pivot_root, as on a ramdisk.
    ``no_new_keyring``: the container keeps our session keyring.

    ``listen_fds``: socket activation: True passes on the descriptors that this process was activated with (sd_listen_fds(3)), if any; a sequence
    or a mapping from names passes these. The container finds them from 3 on, with LISTEN_FDS, LISTEN_PID=1 and LISTEN_FDNAMES.
    ``preserve_fds``: more descriptors, numbered on from there. All stay the caller's, and must be open until ``create`` returns; conmon keeps
    them until it ends. ``notify_socket``: True, or the path of a socket: the runtime serves the container a socket of its own, and ``start``
    returns when READY=1 came and was passed on (sd_notify(3)); True takes this process's NOTIFY_SOCKET.

    ``network``: a ``NetworkNamespace``, a ``NetworkPool`` or a ``Bridge``, into which the container goes: its spec must ask for a network namespace,
    without a path. None: as the spec says.

    ``console_socket``: the path of a listening socket that the runtime sends the master of the container's terminal to (runc's
    docs/terminals.md); for a container with a terminal and without conmon.

    Not for callers of ``create``: ``stdio``, the descriptors that become conmon's own 0, 1 and 2 (-1: /dev/null).

    Raises InvalidOption."""

    __slots__ = (
        "bound",
        "console_socket",
        "listen_names",
        "log_driver",
        "log_level",
        "log_path",
        "log_size_max",
        "monitor",
        "mount_namespace",
        "network",
        "no_new_keyring",
        "no_pivot",
        "notify_socket",
        "passed_fds",
        "stdin",
        "stdio",
        "streams",
        "sync_log",
        "tty",
    )

    def __init__(
        self,
        *,
        stdin: Any = False,
        stdout: Any = None,
        stderr: Any = None,
        tty: bool | None = None,
        monitor: str = "conmon",
        bound: bool = False,
        log_driver: str | None = None,
        log_path: str | os.PathLike[str] | None = None,
        log_size_max: int | str = NO_LIMIT,
        sync_log: bool = False,
        log_level: str | None = None,
        no_pivot: bool = False,
        no_new_keyring: bool = False,
        listen_fds: bool | Sequence[int] | Mapping[str, int] = False,
        preserve_fds: Sequence[int] = (),
        notify_socket: bool | str = False,
        mount_namespace: bool | None = None,
        network: Network | None = None,
        console_socket: str | os.PathLike[str] | None = None,
        stdio: Sequence[int] = NULL_STDIO,
    ) -> None:
        self.stdin: bool = stdin is True
        self.stdio: Sequence[int] = stdio
        self.tty: bool | None = tty if tty is None else boolean("tty", tty)
        self.monitor: str = monitor if monitor == "conmon" else one_of("monitor", monitor, MONITORS)
        self.bound: bool = boolean("bound", bound) or self.monitor == DIRECT
        plain = stdin is None or type(stdin) is bool
        is_plain = plain and stdout is None and stderr is None
        self.streams: tuple[Any, Any, Any] | None = None if is_plain else _streams(stdin, stdout, stderr, tty, log_driver)
        """What the container's stdio are to be, if they are ours; see ``streams.Stdio``."""
        self.log_driver: str = _log_driver(log_driver if self.streams is None or monitor != "conmon" else "passthrough", monitor)
        self.log_path: str | None = None if log_path is None else _log_path(log_path, self.log_driver)
        self.log_size_max: int = _size(log_size_max)
        self.sync_log: bool = boolean("sync_log", sync_log)
        self.log_level: str | None = log_level if log_level is None else one_of("log_level", log_level, LOG_LEVELS)
        self.mount_namespace: bool | None = None if mount_namespace is None else boolean("mount_namespace", mount_namespace)
        self.no_pivot: bool = boolean("no_pivot", no_pivot)
        self.no_new_keyring: bool = boolean("no_new_keyring", no_new_keyring)
        listening = [] if listen_fds is False else _listen_fds(listen_fds)
        self.listen_names: list[str] = [name for _, name in listening]
        """Of the first of ``passed_fds``, those for socket activation."""
        self.passed_fds: list[int] = open_fds("listen_fds", [fd for fd, _ in listening]) + open_fds("preserve_fds", preserve_fds)
        """What the container gets, from 3 on."""
        self.notify_socket: str | None = None if notify_socket is False else _notify_socket(notify_socket)
        self.network: Network | None = None if network is None else _network(network)
        self.console_socket: str | None = None if console_socket is None else _console_socket(console_socket, monitor)

    def __setattr__(self, name: str, value: object) -> None:
        if hasattr(self, name):
            raise AttributeError(f"{name} cannot be changed: options are fixed once they are made")
        object.__setattr__(self, name, value)

    @property
    def words_logged(self) -> bool:
        """The runtime's own words go to a file, too: the container's stderr is the caller's."""
        return self.streams is not None

    def replaced(self, **changes: object) -> Options:
        """A copy with other values."""
        copy = object.__new__(Options)
        for name in self.__slots__:
            object.__setattr__(copy, name, changes.get(name, getattr(self, name)))
        return copy

    @property
    def argv(self) -> dict[str, Any]:
        """What of it conmon's arguments tell; see ``conmon.arguments``."""
        return {
            "log_driver": self.log_driver,
            "log_path": self.log_path,
            "log_size_max": self.log_size_max,
            "sync_log": self.sync_log,
            "log_level": self.log_level,
            "stdin": self.stdin,
            "terminal": self.tty is True,
            "words_logged": self.words_logged,
            "no_pivot": self.no_pivot,
            "no_new_keyring": self.no_new_keyring,
            "preserve_fds": len(self.passed_fds),
        }

    def check_id(self, id: str) -> None:
        """Raises InvalidOption when a container with this id cannot be logged as asked for."""
        if self.log_driver == "journald" and len(id) < SHORTEST_JOURNALD_ID:
            raise InvalidOption(f"log_driver='journald' needs an id of at least {SHORTEST_JOURNALD_ID} characters, as conmon wants it, not {id!r}")


Options.__init__.__qualname__ = "OCIRuntime.create"  # which is what somebody called who reads of an unexpected argument


def boolean(name: str, value: bool) -> bool:
    if type(value) is not bool:
        raise InvalidOption(f"{name} must be True or False, not {value!r:.200}")
    return value


def _streams(stdin: Any, stdout: Any, stderr: Any, tty: bool | None, log_driver: str | None) -> tuple[Any, Any, Any]:
    from pyoci.streams import DEVNULL, check

    if stdin is True:
        raise InvalidOption("stdin=True keeps it open for attach, which there is not where stdout or stderr is given; for a pipe: stdin=PIPE")
    if tty:
        raise InvalidOption("with tty=True the container's stdio are its terminal: leave stdin, stdout and stderr out, and use attach")
    if log_driver not in (None, "passthrough"):
        raise InvalidOption(f"log_driver={log_driver!r}: where stdin, stdout or stderr is given there is no log")
    wanted = (DEVNULL if stdin is None or stdin is False else stdin), stdout, stderr
    check(*wanted)
    return wanted


def path(name: str, value: str | os.PathLike[str]) -> str:
    """A path as text, as it was given."""
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(text, str) or not text or "\0" in text:
        raise InvalidOption(f"{name} must be a path, not {value!r:.200}")
    return text


def one_of(name: str, value: str, accepted: Sequence[str]) -> str:
    if value not in accepted:
        raise InvalidOption(f"{name} must be one of {', '.join(accepted)}, not {value!r:.200}")
    return value


def seconds(name: str, value: float) -> float:
    """A positive, finite number of seconds."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise InvalidOption(f"{name} must be a positive number of seconds, less than a billion, not {value!r:.200}")
    return value


def _log_driver(value: str | None, monitor: str) -> str:
    if value is None:
        return "k8s-file" if monitor == "conmon" else "none"
    if monitor != "conmon" and value not in ("none", "passthrough"):
        raise InvalidOption(f"log_driver={value!r} is conmon's, and monitor={monitor!r} has none: 'none' or 'passthrough'")
    if value == "json-file":
        raise InvalidOption("log_driver='json-file': conmon writes no such format; k8s-file is its file, a line of text for a line of output")
    one_of("log_driver", value, LOG_DRIVERS)
    if value == "journald" and not os.path.exists(JOURNAL):
        raise InvalidOption(
            f"log_driver='journald': there is no journal here ({JOURNAL} does not exist), and conmon would drop the output without a word"
        )
    return value


def _log_path(value: str | os.PathLike[str], driver: str) -> str:
    path = os.fspath(value)
    if driver != "k8s-file":
        raise InvalidOption(f"log_path={path!r} goes with log_driver='k8s-file' only, not with {driver!r}")
    if not isinstance(path, str) or not path or any(character in path for character in ":\0\n"):
        raise InvalidOption(f"log_path={path!r}: a path without colons and newlines is needed, which conmon would misread")
    return os.path.abspath(path)


def _size(value: int | str) -> int:
    if type(value) is int and value == NO_LIMIT:
        return value
    from pyoci.spec import parse_size

    try:
        return parse_size(value, "log_size_max")
    except InvalidOption as error:
        raise InvalidOption(f"{error}; -1 means no limit") from None


def _listen_fds(value: bool | Sequence[int] | Mapping[str, int]) -> list[tuple[int, str]]:
    from collections.abc import Mapping, Sequence

    from pyoci import activation

    if value is True:
        return activation.inherited()
    if isinstance(value, Mapping):
        for name in value:
            activation.check_name(name)
        return [(fd, name) for name, fd in value.items()]
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise InvalidOption(f"listen_fds must be True, False, descriptors, or a mapping from names to descriptors, not {value!r:.200}")
    return [(fd, activation.UNNAMED) for fd in value]


def open_fds(name: str, fds: Sequence[int]) -> list[int]:
    """Descriptors of the caller's. Raises InvalidOption when one is not open."""
    if not isinstance(fds, tuple | list) or not all(type(fd) is int and fd >= 0 for fd in fds):
        raise InvalidOption(f"{name} must be a list of descriptors, not {fds!r:.200}")
    for fd in fds:
        try:
            os.fstat(fd)
        except OSError as error:
            raise InvalidOption(f"{name}: {fd} is not an open descriptor: {error.strerror}") from None
    return list(fds)


def _network(value: Network) -> Network:
    from pyoci.networks import Network

    if not isinstance(value, Network):
        raise InvalidOption(
            f"network must be a NetworkNamespace, a NetworkPool, a Bridge or None, not {value!r:.200}; words and paths go into the spec"
        )
    return value


def _notify_socket(value: bool | str) -> str:
    path = os.environ.get("NOTIFY_SOCKET", "") if value is True else value
    if not path and value is True:
        raise InvalidOption("notify_socket=True: this process has no NOTIFY_SOCKET")
    if not isinstance(path, str) or path[:1] not in ("/", "@") or "\0" in path:
        raise InvalidOption(f"notify_socket must be True, False, or the absolute path (or @name) of a socket, not {path!r:.200}")
    return path


def _console_socket(value: str | os.PathLike[str], monitor: str) -> str:
    path = os.fspath(value)
    if monitor == "conmon":
        raise InvalidOption(f"console_socket={path!r} is for containers without conmon, which has a terminal's master itself")
    if not isinstance(path, str) or not path or "\0" in path:
        raise InvalidOption(f"console_socket must be the path of a socket, not {path!r:.200}")
    try:
        is_socket = stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError as error:
        raise InvalidOption(f"console_socket={path!r}: {error.strerror}") from None
    if not is_socket:
        raise InvalidOption(f"console_socket={path!r} is no socket")
    return os.path.abspath(path)
