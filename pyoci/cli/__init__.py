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
from pyoci.errors import ContainerNotFound, Error, InvalidOption, Timeout
from pyoci.terminal import Interrupted, end_by_signal, open_streams, unheard, words_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn, Protocol

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
    "attach": "join our terminal, or our stdio, to a container that runs",
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

PROGRAMS = ("run", "exec", "attach")
"""The verbs that end as a program in the container does."""
USAGE = 2
NO_CONTAINER = 123
TIMED_OUT = 124
"""As timeout(1)."""
OWN_FAILURE = 125
EXIT_CODES = """\
exit codes:
  run, exec, attach, start --attach: those of the program; 128 + N when signal N killed it
  0    done              1    doctor: something is missing
  2    the command line makes no sense
  123  no such container
  124  a --timeout has passed
  125  pyoci, conmon or the runtime failed; what went wrong is one line on stderr
  126  the program cannot be executed
  127  there is no such program in the container
  129, 130, 143  interrupted by HUP, INT (Ctrl-C) or TERM
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

    def _print_message(self, message: str, file: Any = None) -> None:
        """argparse's own hides that the help could not be written."""
        if message:
            print(message, end="", file=file or sys.stderr, flush=True)

    def error(self, message: str) -> NoReturn:
        tell(f"{self.prog}: {message:.500}; see {self.prog} --help")
        raise SystemExit(USAGE)


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
    parser.epilog = f"{parser.epilog}\n\nExit codes: {ends_of(verb, parser)}."
    return parser


def ends_of(verb: str, parser: Parser) -> str:
    """The exit codes of a verb, in a line; ``EXIT_CODES`` has them all."""
    words = {action.dest for action in parser._actions}
    known = {
        "the program's, 128 + N when signal N killed it": verb in PROGRAMS,
        "0 done": verb not in PROGRAMS,
        "1 something is missing": verb == "doctor",
        "2 senseless": True,
        "123 no such container": any(action.metavar == "ID" and not action.option_strings for action in parser._actions),
        "124 timed out": "timeout" in words and verb != "stop",
        "125 it failed": True,
        "126, 127 no such program": verb in ("run", "exec"),
        "129, 130, 143 interrupted": True,
    }
    return "; ".join(what for what, is_so in known.items() if is_so)


def main(argv: Sequence[str] | None = None) -> int:
    open_streams()
    debug = False
    try:
        options, module = parse(sys.argv[1:] if argv is None else [*argv])  # "list" is a module of ours, once it is imported
        debug = options.debug
        if debug:
            import logging

            logging.basicConfig(level=logging.DEBUG, format="%(name)s: %(message)s")
        end_by_signal()
        code = module.main(options)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        unheard()
        return OWN_FAILURE
    except KeyboardInterrupt:
        return 130
    except Interrupted as interrupt:
        return 128 + interrupt.signal
    except (Error, OSError) as error:
        if debug:
            raise
        return complain(error)


def parse(given: list[str]) -> tuple[argparse.Namespace, Verb]:
    # No option of pyoci's own takes a value, so the verb is the first word that is none.
    at = next((i for i, word in enumerate(given) if not word.startswith("-")), len(given))
    above = top()
    options = above.parse_args(given[: at + 1])
    if options.verb not in VERBS:
        above.error(f"there is no verb {options.verb!r:.200}")
    module = module_of(options.verb)
    parser_of(options.verb, module).parse_args(given[at + 1 :], options)
    return options, module


def tell(words: str) -> None:
    """On stderr. Where that cannot be written, the exit code must do."""
    try:
        print(words, file=sys.stderr, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def complain(error: BaseException) -> int:
    """One line on stderr; the exit code that it means."""
    said = " | ".join(line.strip() for line in words_for(error).splitlines() if line.strip())
    tell(f"pyoci: {said}")
    for kind, code in (UsageError, USAGE), (ContainerNotFound, NO_CONTAINER), (Timeout, TIMED_OUT):
        if isinstance(error, kind):
            return code
    return OWN_FAILURE
