"""``pyoci attach``."""

from __future__ import annotations

from pyoci.cli.shared import container_of, one_id, state_dir
from pyoci.errors import InvalidOption

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

KEYS = "ctrl-p,ctrl-q"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "What it writes from now on comes here, and our stdin goes to it, where it was created with --interactive or --tty; what it wrote\n"
        "before, pyoci logs tells. Signals are passed on; one that it has no handler for is the end of pyoci attach alone. Typed on its\n"
        "terminal, the keys of --detach-keys leave it running, and the exit code is 0. A container of pyoci run without --detach has nothing\n"
        "to attach to.\n\n"
        "Examples:\n  pyoci run -dit --id box sh && pyoci attach box\n  pyoci attach --no-stdin job-7 | tee log"
    )
    state_dir(parser)
    parser.add_argument("--no-stdin", action="store_true", help="do not pass our stdin on")
    parser.add_argument(
        "--detach-keys", default=KEYS, metavar="KEYS", help=f'a letter or ctrl-LETTER each, with commas; "" for none (default: {KEYS})'
    )
    one_id(parser)


def main(options: argparse.Namespace) -> int:
    from pyoci.cli.attaching import joined

    detach = keys_of(options.detach_keys)
    return joined(container_of(options), interactive=not options.no_stdin, detach=detach)


def keys_of(text: str) -> bytes:
    """As podman's and docker's: "ctrl-p,ctrl-q", "ctrl-\\\\", "a,b"."""
    found = b""
    for key in text.split(",") if text else ():
        letter = key.removeprefix("ctrl-")
        code = ord(letter.upper()) if len(letter) == 1 and letter.isascii() else 0
        if not code or (letter != key and not 0x40 <= code <= 0x5F):
            raise InvalidOption(f"--detach-keys must be such as {KEYS}, with a letter or ctrl-LETTER each, not {text!r:.200}")
        found += bytes([code & 0x1F if letter != key else ord(letter)])
    return found
