"""conmon: options to argv and environment, and its messages. All pure. See conmon.md in docs/ and conmon(8)."""

from __future__ import annotations

import json

from pyoci.errors import CreateError, InvalidOption, ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LINE_LIMIT = 64 * 1024
"""conmon's longest message holds 8191 bytes of the runtime's stderr, each up to six characters in JSON."""

PASSED_ENVIRONMENT = ("PATH", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "HOME", "LANG", "LC_ALL", "TMPDIR", "_CONTAINERS_USERNS_CONFIGURED")
"""What conmon and the runtime get of the caller's environment. NOTIFY_SOCKET, LISTEN_FDS and all else stay here."""

RESERVED_ENVIRONMENT = ("_OCI_", "LISTEN_", "NOTIFY_SOCKET")
"""How names begin that steer conmon and the runtimes, and that options of their own set."""

LEAST_VERSION = (2, 0, 31)
"""The first with the passthrough log driver; --full-attach, --persist-dir and the rest are older."""

FIRST_FD = 3
"""Where what is passed on to the container begins; conmon's pipes come after that."""


def arguments(
    *,
    id: str,
    directory: str,
    exit_dir: str,
    runtime: str,
    runtime_args: Sequence[str],
    log_driver: str = "k8s-file",
    log_path: str | None = None,
    log_size_max: int = -1,
    sync_log: bool = False,
    stdin: bool = False,
    terminal: bool = False,
    no_pivot: bool = False,
    no_new_keyring: bool = False,
    systemd_cgroup: bool = False,
    log_level: str | None = None,
    preserve_fds: int = 0,
    words_logged: bool = False,
) -> list[str]:
    """conmon's argv for a create. ``directory`` is the container's own: bundle and persist dir in one; the log lies there, too, unless
    ``log_path`` names a file. ``preserve_fds``: how many descriptors, from 3 on, are the container's.
    ``words_logged``: the runtime writes what it has to say to ``runtime.log``, too."""
    argv = ["conmon", "--api-version", "1", "-c", id, "-u", id, "-n", id, "-r", runtime, "-b", directory]
    argv += ["-p", f"{directory}/pidfile", "--conmon-pidfile", f"{directory}/conmon.pid", "--exit-dir", exit_dir, "--persist-dir", directory]
    argv += ["--full-attach"]  # the attach socket stays in the directory; else conmon links it from a place that nobody cleans
    logged = ("--log", f"{directory}/runtime.log", "--log-format", "json") if words_logged else ()
    for argument in (*runtime_args, *logged):
        argv += ["--runtime-arg", argument]
    if systemd_cgroup:
        argv.append("-s")
    argv += ["-l", log_driver if log_driver != "k8s-file" else f"k8s-file:{log_path or f'{directory}/log'}"]
    if log_size_max > 0:
        argv += ["--log-size-max", str(log_size_max)]
    if not sync_log:
        argv.append("--no-sync-log")
    if log_level is not None:
        argv += ["--log-level", log_level, "--syslog"]  # its stderr is /dev/null once it is in the background
    if terminal:
        argv.append("-t")
    elif stdin:
        argv.append("-i")
    if no_pivot:
        argv.append("--no-pivot")
    if no_new_keyring:
        argv.append("--no-new-keyring")
    if preserve_fds:
        argv += ["--runtime-opt", f"--preserve-fds={preserve_fds}"]
    return argv


def environment(source: Mapping[str, str], extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a runtime call gets; with ``extra`` added."""
    env = {name: source[name] for name in PASSED_ENVIRONMENT if name in source}
    env.setdefault("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    if extra:
        env.update(extra)
    return env


def check_environment(extra: Mapping[str, str]) -> None:
    """What callers may add to the environment. Raises InvalidOption."""
    for name, value in extra.items():
        if not isinstance(name, str) or not isinstance(value, str) or not name or "=" in name or "\0" in name + value:
            raise InvalidOption(f"env must map names to strings, without '=' in a name and without NULs, not {name!r} to {value!r:.200}")
        if name.startswith(RESERVED_ENVIRONMENT):
            raise InvalidOption(f"env: {name} is not passed on like this; see listen_fds and notify_socket")


def pipes(passed: int) -> dict[str, str]:
    """Where conmon finds its pipes when so many descriptors are passed on before them. The second is a duplicate of the first: one socket pair
    carries the start byte there and the message back. conmon closes its start descriptor after the byte and keeps the other."""
    return {"_OCI_SYNCPIPE": str(FIRST_FD + passed), "_OCI_STARTPIPE": str(FIRST_FD + passed + 1)}


def check_directory(directory: str) -> None:
    """conmon cuts its log option at colons and, as the runtimes, wants no newline or NUL: said here rather than found out later."""
    for character in ":\0\n":
        if character in directory:
            raise InvalidOption(f"the state directory {directory!r} must not hold {character!r}: conmon would misread the path of its log")


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("duplicate keys")
    return result


# The runtime's stderr is passed on raw: control characters are possible, and do no harm in the text.
_DECODER = json.JSONDecoder(strict=False, object_pairs_hook=_no_duplicates)


def parse_sync(line: bytes, id: str) -> int:
    """The pid in conmon's create message. Raises CreateError with the runtime's words for a negative one, ProtocolError for anything that
    is not the message: ``{"data": N}`` (or ``"pid"``, from api-version 0), optionally with ``"message"``."""
    kept = line[:LINE_LIMIT]
    try:
        message = _DECODER.decode(line.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"conmon's message about {id!r} is not JSON ({error}): {kept[:200]!r}", kept) from None
    if not isinstance(message, dict):
        raise ProtocolError(f"conmon's message about {id!r} is not an object: {kept[:200]!r}", kept)
    numbers = [message[key] for key in ("data", "pid") if key in message]
    if len(numbers) != 1 or type(numbers[0]) is not int or abs(numbers[0]) >= 1 << 31:
        raise ProtocolError(f"conmon's message about {id!r} has no pid: {kept[:200]!r}", kept)
    text = message.get("message", "")
    if not isinstance(text, str):
        raise ProtocolError(f"conmon's message about {id!r} has a message that is not text: {kept[:200]!r}", kept)
    if numbers[0] < 0:
        raise CreateError(f"creating {id!r}: the runtime failed", text.encode("utf-8", "surrogateescape") or b"without a word")
    return int(numbers[0])


def parse_pidfile(content: bytes, what: str) -> int:
    """The number in a pidfile: decimal, greater than 1, below 2^22 (PID_MAX_LIMIT); white space at the end is accepted."""
    text = content[:32].rstrip()
    if not text.isdigit() or not 1 < int(text) <= 1 << 22:
        raise ProtocolError(f"{what} holds no usable pid: {content[:40]!r}", content[:LINE_LIMIT])
    return int(text)
