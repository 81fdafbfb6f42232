"""The command line. A verb is one module here, named as the verb, and one line of ``VERBS``.

Such a module has two functions. ``arguments(parser)`` adds the verb's arguments, and tells in ``parser.description`` and ``parser.epilog`` what
its help is to teach; ``main(options)`` does the work and returns the exit code. Both import what is heavy when they are called: a verb's module is
imported for that verb alone, but the completion scripts and the documentation ask all of them for their arguments. What verbs have in common is
in ``shared`` (arguments, several containers at once, exit codes of errors) and ``output`` (tables, JSON lines, progress).

A verb raises the library's errors, which become one line on stderr and the exit code that ``EXIT_CODES`` tells.
"""

from __future__ import annotations

import argparse
import os
import sys

from pyoci import __version__
from pyoci.errors import ContainerNotFound, Error, InvalidOption, Timeout, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn, Protocol

    class Verb(Protocol):
        """What a verb's module is."""

        def arguments(self, parser: argparse.ArgumentParser) -> None: ...

        def main(self, options: argparse.Namespace) -> int: ...


VERBS = {
    "run": "run a command in a new container and give its exit code",
    "create": "create a container, ready to be started",
    "start": "start created containers",
    "state": "tell the state of containers",
    "list": "list the containers",
    "ps": "list the processes in containers",
    "exec": "run one more program in a running container",
    "kill": "send a signal to containers",
    "stop": "end containers: TERM, then KILL",
    "pause": "freeze containers",
    "resume": "thaw paused containers",
    "wait": "wait for containers to end and print their exit codes",
    "logs": "print what a container has written",
    "delete": "remove containers",
    "prune": "remove what is dead or orphaned, as after a crash",
    "bench": "measure containers on this machine, beside the bare runtime's and podman's",
    "spec": "write a config.json to start from",
    "doctor": "say what this host has and lacks, and how to mend it",
    "features": "tell what the runtimes can do",
    "version": "tell the versions of everything that takes part",
    "completion": "print the completion script of a shell",
}
"""Each verb, and what it does in one line of ``pyoci --help``."""

USAGE = 2
NO_CONTAINER = 123
TIMED_OUT = 124
"""As timeout(1)."""
OWN_FAILURE = 125
EXIT_CODES = """\
exit codes:
  run, exec, start --attach: those of the program; 128 + N when signal N killed it
  0    done              1    doctor: something is missing
  2    the command line makes no sense
  123  no such container
  124  a --timeout has passed
  125  pyoci, conmon or the runtime failed; what went wrong is one line on stderr
  126  the program cannot be executed
  127  there is no such program in the container
  130  interrupted (Ctrl-C)
"""


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of descriptions as they are. argparse's own asks shutil for the width, at every argument that is added, which costs more to
    import than all else here."""

    def __init__(self, prog: str) -> None:
        try:
            width = os.get_terminal_size(1).columns
        except OSError:
            width = 0
        super().__init__(prog, width=min(max(width or 80, 60), 120) - 2)


class UsageError(InvalidOption):
    """The command line makes no sense, which its parser could not tell: something is missing, or two things exclude each other."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that complains in one line, and keeps the lines of descriptions as they are."""

    def __init__(self, prog: str, summary: str) -> None:
        super().__init__(prog=prog, description=summary, formatter_class=Formatter, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {message}; see {self.prog} --help\n")


def top() -> Parser:
    parser = Parser("pyoci", "Launches and supervises OCI containers through conmon and runc or crun: no daemon.")
    parser.usage = "pyoci [--debug] VERB [options] …"
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:<{width}}  {summary}" for verb, summary in VERBS.items())
    parser.epilog = f"verbs:\n{verbs}\n\npyoci VERB --help tells all of a verb, with examples.\n\n{EXIT_CODES}"
    parser.add_argument("--version", action="version", version=f"pyoci {__version__}")
    parser.add_argument("--debug", action="store_true", help="log what is decided, and show tracebacks")
    parser.add_argument("verb", metavar="VERB", help=argparse.SUPPRESS)
    return parser


def module_of(verb: str) -> Verb:
    from importlib import import_module

    return import_module(f"pyoci.cli.{verb}")


def parser_of(verb: str, module: Verb | None = None) -> Parser:
    parser = Parser(f"pyoci {verb}", VERBS[verb][:1].upper() + VERBS[verb][1:] + ".")
    (module or module_of(verb)).arguments(parser)
    return parser


def open_streams() -> None:
    """A standard stream that our caller has closed becomes /dev/null, before another file of ours gets its number and the container that file."""
    for name, mode in ("stdin", "r"), ("stdout", "w"), ("stderr", "w"):
        if getattr(sys, name) is None:
            fd = os.open(os.devnull, os.O_RDWR)  # the lowest that is free: the stream's own
            os.set_inheritable(fd, True)
            setattr(sys, name, os.fdopen(fd, mode, closefd=False))


def main(argv: Sequence[str] | None = None) -> int:
    open_streams()
    given = sys.argv[1:] if argv is None else [*argv]  # "list" is a module of ours, once it is imported
    # No option of pyoci's own takes a value, so the verb is the first word that is none.
    at = next((i for i, word in enumerate(given) if not word.startswith("-")), len(given))
    above = top()
    options = above.parse_args(given[: at + 1])
    if options.verb not in VERBS:
        above.error(f"there is no verb {options.verb!r}")
    module = module_of(options.verb)
    parser_of(options.verb, module).parse_args(given[at + 1 :], options)
    if options.debug:
        import logging

        logging.basicConfig(level=logging.DEBUG, format="%(name)s: %(message)s")
    try:
        code = module.main(options)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Who reads our output has gone; what Python still holds for it must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return OWN_FAILURE
    except KeyboardInterrupt:
        return 130
    except (Error, OSError) as error:
        if options.debug:
            raise
        return complain(error)


def complain(error: BaseException) -> int:
    """One line on stderr; the exit code that it means."""
    said = " | ".join(line.strip() for line in text(error).splitlines() if line.strip())
    print(f"pyoci: {said}", file=sys.stderr)
    for kind, code in (UsageError, USAGE), (ContainerNotFound, NO_CONTAINER), (Timeout, TIMED_OUT):
        if isinstance(error, kind):
            return code
    return OWN_FAILURE
