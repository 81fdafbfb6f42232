"""``pyoci create``."""

from __future__ import annotations

from pyoci.cli import UsageError
from pyoci.cli.output import print_json
from pyoci.cli.shared import create_arguments, created, json_lines, spec_arguments, spec_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    from argparse import REMAINDER

    parser.usage = "pyoci create [options] BUNDLE\n       pyoci create [options] -- CMD [ARG …]"
    parser.epilog = (
        "Of a bundle directory with its config.json, or of a command with the options that tell what it finds. Prints the id.\n\n"
        "Examples:\n  pyoci create --id job-7 /srv/bundle && pyoci start job-7\n  pyoci create --memory 64M -- sh -c 'echo hello'"
    )
    parser.add_argument("-t", "--tty", action="store_true", help="a terminal for it; pyoci start --attach uses it")
    parser.add_argument("-i", "--interactive", action="store_true", help="keep its stdin open, for pyoci start --attach --interactive")
    json_lines(parser, "print an object: id, pid, conmon_pid, bundle")
    create_arguments(parser)
    spec_arguments(parser)
    parser.add_argument("words", nargs=REMAINDER, metavar="BUNDLE | -- CMD …", help="a bundle directory, or a command")


def main(options: argparse.Namespace) -> int:
    words = options.words
    if words[:1] == ["--"] and len(words) > 1:
        container = created(options, spec_of(options, words[1:]), tty=options.tty, stdin=options.interactive)
    elif len(words) == 1 and words[0] != "--":
        container = created(options, words[0], tty=options.tty, stdin=options.interactive)
    else:
        raise UsageError("create needs a bundle directory, after all options, or a command after --: pyoci create [options] BUNDLE | -- CMD [ARG …]")
    try:
        if options.json:
            print_json({"id": container.id, "pid": container.pid, "conmon_pid": container.conmon_pid, "bundle": container.directory})
        else:
            print(container.id, flush=True)
    except OSError:
        container.delete(force=True)  # nobody knows of it
        raise
    return 0
