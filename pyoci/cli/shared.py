"""Arguments that verbs have in common, and doing one thing to several containers."""

from __future__ import annotations

import argparse

from pyoci.cli import complain
from pyoci.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pyoci.lifecycle import Life
    from pyoci.waiting import Operation


def state_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--state-dir", metavar="DIR", help="where containers are kept (root: /run/pyoci; else $XDG_RUNTIME_DIR/pyoci)")


def json_lines(parser: argparse.ArgumentParser, help: str = "one object per line, for programs") -> None:
    parser.add_argument("--json", action="store_true", help=help)


def one_id(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="the container's id")


def several_ids(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ids", nargs="*", metavar="ID", help="ids of containers")
    parser.add_argument("-a", "--all", action="store_true", help="all containers that this can be done to")


def lives(options: argparse.Namespace) -> list[Life | Error]:
    """The containers of ``several_ids``; those that cannot be loaded are told by their error."""
    from pyoci import lifecycle
    from pyoci.errors import InvalidOption
    from pyoci.runtime import loaded
    from pyoci.store import store_at

    if options.all == bool(options.ids):
        raise InvalidOption("give the ids of containers, or --all")
    store = store_at(options.state_dir)
    if options.all:
        return list(loaded(store))
    found: list[Life | Error] = []
    for id in dict.fromkeys(options.ids):
        try:
            found.append(lifecycle.load(store, id))
        except Error as error:
            found.append(error)
    return found


def each(options: argparse.Namespace, doing: str, act: Callable[[Life], Operation[Any]], said: Callable[[Life, Any], None]) -> int:
    """Does one thing to each container, side by side; ``said`` is told the results. What goes wrong with one is a line on stderr, and the others
    go on; the exit code is that of the first failure."""
    from pyoci.cli.output import Progress
    from pyoci.waiting import drive_all

    found = lives(options)
    wanted = [life for life in found if not isinstance(life, Error)]
    done = 0

    def counted(life: Life) -> Operation[Any]:
        nonlocal done
        progress.tell(f"{doing}: {done} of {len(wanted)}")
        result = yield from act(life)
        done += 1
        progress.tell(f"{doing}: {done} of {len(wanted)}")
        return result

    with Progress() as progress:
        results = iter(drive_all(map(counted, wanted)))
    code = 0
    for life in found:
        outcome = life if isinstance(life, Error) else next(results)
        if isinstance(outcome, Error | OSError):
            failed = complain(outcome)
            code = code or failed
        elif isinstance(outcome, BaseException):
            raise outcome
        elif not isinstance(life, Error):
            said(life, outcome)
    return code


def command_of(words: list[str]) -> list[str]:
    """A command after the options, with ``--`` before it or without."""
    return words[1:] if words[:1] == ["--"] else words
