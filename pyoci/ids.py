"""Container ids: what one may be, and making a new one. conmon and the runtimes build file names of the id and check nothing (faults 10)."""

from __future__ import annotations

import os

from pyoci.errors import InvalidID

LONGEST = 255
"""NAME_MAX: the id is the name of a directory."""

_ALLOWED = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-+")


def check(id: str, what: str = "container id") -> str:
    """Returns the id, or raises InvalidID that names it as ``what``: 1 to 255 of ``a-z A-Z 0-9 _ . - +``, the first a letter or a digit. runc
    accepts a little more; crun and conmon accept everything and then write outside of their directories."""
    if not isinstance(id, str):
        raise InvalidID(f"a {what} must be a str, not {type(id).__name__}")
    if not id:
        raise InvalidID(f"the {what} is empty")
    if len(id) > LONGEST:
        raise InvalidID(f"the {what} has {len(id)} characters; at most {LONGEST} are possible: {id[:40]!r}…")
    if not _ALLOWED.issuperset(id) or not id[0].isalnum():
        raise InvalidID(f"the {what} {id!r} must consist of letters, digits and _ . - + and begin with a letter or a digit (ASCII)")
    return id


def is_valid(name: str) -> bool:
    """It could be an id."""
    try:
        check(name)
    except InvalidID:
        return False
    return True


def new() -> str:
    """An id nobody has: 32 hexadecimal digits from the kernel's random numbers."""
    return os.urandom(16).hex()
