"""``pyoci spec``."""

from __future__ import annotations

from pyoci.cli.shared import command_of, spec_arguments, spec_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    from argparse import REMAINDER

    parser.usage = "pyoci spec [options] [--] [CMD [ARG …]]"
    parser.epilog = (
        "Writes what pyoci run would use, for a bundle of your own; the command is sh if none is given.\n\nExamples:\n"
        "  pyoci spec -b /srv/bundle --rootfs /srv/rootfs -m 64M -- /bin/server\n  pyoci spec --print | jq .process"
    )
    parser.add_argument("-b", "--bundle", default=".", metavar="DIR", help="the directory that gets the config.json (default: this one)")
    parser.add_argument("-f", "--force", action="store_true", help="replace one that is there")
    parser.add_argument("--print", action="store_true", help="print it; write nothing")
    parser.add_argument("-t", "--tty", action="store_true", help="with a terminal")
    spec_arguments(parser)
    parser.add_argument("command", nargs=REMAINDER, metavar="CMD …", help="the command and its arguments")


def main(options: argparse.Namespace) -> int:
    import json
    import os

    from pyoci import templates
    from pyoci.errors import InvalidOption
    from pyoci.store import write_whole

    config = spec_of(options, command_of(options.command) or ["sh"])
    config["process"]["terminal"] = options.tty
    templates.prepare(config)  # for what it refuses
    text = json.dumps(config, indent=2) + "\n"
    if options.print:
        print(text, end="")
        return 0
    path = os.path.join(options.bundle, "config.json")
    if os.path.lexists(path) and not options.force:
        raise InvalidOption(f"{path} exists: --force replaces it")
    try:
        write_whole(path, text)
    except (FileNotFoundError, NotADirectoryError) as error:
        if os.path.isdir(options.bundle):  # as /proc: nobody makes files there
            raise InvalidOption(f"{path} cannot be made: {error.strerror}; give another directory with --bundle") from None
        raise InvalidOption(f"--bundle {options.bundle}: there is no such directory") from None
    return 0
