"""``pyoci-runtime``: the command line of an OCI runtime, as runc has it (runc(8); the OCI runtime command-line interface), for tools that drive one:
conmon, podman, containerd's shim. Every verb goes through the library; whoever calls ``create`` is the container's monitor.

Errors are one line on stderr, as runc's, and in the ``--log``. Exit codes: 0; 1 for a failure or a command line that makes no sense; 255 when
``exec`` could not start its program; ``run`` and ``exec`` else end with the program's own, 128 + N for signal N. Each verb's room is imported when
it is called."""

from __future__ import annotations

import os
import sys

from pyoci.errors import ContainerExists, ContainerNotFound, CreateError, Error, ExecError, InvalidOption
from pyoci.ociruntime import words
from pyoci.terminal import Interrupted, end_by_signal, open_streams, unheard, words_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    from collections.abc import Sequence

    from pyoci.ociruntime.words import Given

FAILURE = 1
EXEC_FAILURE = 255
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    open_streams()
    log = Log()
    verb = ""
    try:
        given, rest = words.parse(sys.argv[1:] if argv is None else argv, words.GLOBAL, mixed=False)
        log.configure(given)
        if given.flag("version") or not rest or given.flag("help") or rest[0] == "help":
            print(words.version() if given.flag("version") else words.overview(), flush=True)
            return 0
        verb = rest[0]
        end_by_signal()
        code = _call(verb, given, rest[1:])
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        unheard()
        return FAILURE
    except KeyboardInterrupt:
        return INTERRUPTED
    except Interrupted as interrupt:
        return 128 + interrupt.signal
    except (Error, OSError) as error:
        if log.debug:
            import traceback

            traceback.print_exception(error)
        # The runtime's own words are on our stderr already: it is the container's, too.
        log.error(_message(error), spoken=isinstance(error, CreateError | ExecError) and bool(error.stderr))
        return EXEC_FAILURE if verb == "exec" else FAILURE


def _call(name: str, given: Given, rest: Sequence[str]) -> int:
    verb = words.VERBS.get(name)
    if verb is None:
        why = ", which runc has" if name in words.LACKING else ""
        raise InvalidOption(f"there is no command {name!r}{why}; there are {', '.join(words.VERBS)}")
    options, arguments = words.parse(rest, verb.options, mixed=verb.mixed, lacking=verb.lacking, verb=name)
    if options.flag("help"):
        print(words.usage(name))
        return 0
    if not verb.least <= len(arguments) <= verb.most:
        wanted = f"at least {verb.least}" if verb.most > verb.least else f"exactly {verb.least}"
        raise InvalidOption(f'"{name}" requires {wanted} argument(s): pyoci-runtime {name} {verb.shape}')
    options.update(given)
    if name in ("create", "run"):
        from pyoci.ociruntime import create as room
    elif name == "exec":
        from pyoci.ociruntime import execute as room  # type: ignore[no-redef]
    elif name in ("spec", "features"):
        from pyoci.ociruntime import about as room  # type: ignore[no-redef]
    else:
        from pyoci.ociruntime import existing as room  # type: ignore[no-redef]
    call = getattr(room, name)
    return int(call(options, *arguments) if verb.spread else call(options, arguments))


def _message(error: Exception) -> str:
    """In the words that callers look for."""
    message = words_for(error)
    if isinstance(error, ContainerExists):
        message = f"container with given ID already exists (container already exists): {message}"
    elif isinstance(error, ContainerNotFound):
        message = f"container does not exist: {message}"
    return " ".join(message.split())


class Log:
    """Where errors go: to stderr in logrus' form, or, with ``--log``, there, and plain to stderr."""

    def __init__(self) -> None:
        self.path: str | None = None
        self.json: bool = False
        self.debug: bool = False

    def configure(self, given: Given) -> None:
        format = given.text("log-format") or "text"
        if format not in ("text", "json"):
            raise InvalidOption(f"unknown log-format {format!r}: text and json are known")
        self.json = format == "json"
        path = given.text("log")
        if path is not None:
            try:
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644))
            except OSError as error:
                raise InvalidOption(f"--log {path}: {error.strerror}") from None
            self.path = os.path.abspath(path)
        self.debug = given.flag("debug")
        if self.debug:
            import logging

            handler = logging.Handler()
            handler.emit = self._emit  # type: ignore[method-assign]
            logging.getLogger("pyoci").addHandler(handler)
            logging.getLogger("pyoci").setLevel(logging.DEBUG)
            self.write("debug", f"pyoci-runtime: {' '.join(sys.argv[1:])}")

    def _emit(self, record: logging.LogRecord) -> None:
        self.write(record.levelname.lower(), record.getMessage())

    def error(self, message: str, *, spoken: bool) -> None:
        """``spoken``: stderr has it already."""
        if self.path is not None or not spoken:
            message += self.write("error", message)
        if self.path is not None and not spoken:
            try:
                print(message, file=sys.stderr)
            except OSError:
                pass  # the exit code must do

    def write(self, level: str, message: str) -> str:
        """What hinders it, to be told where that can be; a log that is full is no reason to do less."""
        try:
            self._write(level, message)
        except OSError as error:
            return f" (writing the log: {error.strerror})"
        return ""

    def _write(self, level: str, message: str) -> None:
        import json
        from time import gmtime, strftime

        time = strftime("%Y-%m-%dT%H:%M:%SZ", gmtime())
        if self.json:
            line = json.dumps({"level": level, "msg": message, "time": time})
        else:
            line = f'time="{time}" level={level} msg={json.dumps(message, ensure_ascii=False)}'
        if self.path is None:
            print(line, file=sys.stderr)
            return
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            os.write(fd, f"{line}\n".encode("utf-8", "surrogateescape"))
        finally:
            os.close(fd)
