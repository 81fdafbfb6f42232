"""What verbs say: tables for people, JSON lines for programs, progress for who looks on."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any


def print_json(value: Mapping[str, Any]) -> None:
    """One object on a line of its own, told at once."""
    import json

    print(json.dumps(value), flush=True)


def print_table(columns: Mapping[str, str], rows: Iterable[Mapping[str, Any]]) -> None:
    """``columns``: the heading of each key that is shown. Numbers stand to the right; None is "-". A line that is too long for our terminal is cut
    there, so that it stays one; anywhere else nothing is cut."""
    from os import get_terminal_size

    try:
        room = get_terminal_size(1).columns
    except OSError:
        room = 0
    known = list(rows)
    shown = [["-" if row.get(key) is None else printable(str(row[key])) for key in columns] for row in known]
    right = [any(isinstance(row.get(key), int | float) for row in known) for key in columns]
    widths = [max(map(width, column)) for column in zip(columns.values(), *shown, strict=True)]
    for cells in (list(columns.values()), *shown):
        line = "  ".join(_aligned(*each) for each in zip(cells, widths, right, strict=True)).rstrip()
        print(_cut(line, room) if room else line)


def _aligned(cell: str, columns: int, right: bool) -> str:
    space = " " * (columns - width(cell))
    return space + cell if right else cell + space


def width(text: str) -> int:
    """Columns of a terminal: East Asian characters take two, combining ones none (Unicode, UAX 11)."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def _cut(line: str, room: int) -> str:
    if width(line) <= room:
        return line
    while width(line) >= room:
        line = line[:-1]
    return line + "…"


def printable(text: str) -> str:
    """Names and commands of containers are theirs to choose: what would move the cursor is shown escaped."""
    return text if text.isprintable() else "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


class Progress:
    """One line on stderr that is written over, and is gone at the end; nothing at all where stderr is no terminal."""

    def __init__(self) -> None:
        self._shows = sys.stderr.isatty()
        self._written = False

    def tell(self, words: str) -> None:
        if self._shows:
            self._written = True
            print(f"\r{words}\x1b[K", end="", file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        if self._written:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def columns_of(*names: str) -> dict[str, str]:
    """Keys that are their own headings."""
    return {name: name.upper() for name in names}
