"""What a pool sends to a container that waits."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from socket import SOCK_STREAM
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pyoci
from pyoci import _ffi, warm
from pyoci.process import Descriptor

SOURCE = Path(__file__).parents[2] / "csrc" / "warm.c"
WORD = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
NAME = WORD.filter(lambda name: name and "=" not in name)


@given(st.lists(WORD, min_size=1).filter(lambda args: args[0]), st.dictionaries(NAME, WORD), st.none() | WORD.map(lambda path: f"/{path}"))
def test_a_request_says_all_and_no_more(args: list[str], env: dict[str, str], cwd: str | None) -> None:
    strings, argc, envc = warm.request(args, env, cwd)
    assert strings.endswith(b"\0")
    directory, *rest = (part.decode() for part in strings[:-1].split(b"\0"))
    assert directory == (cwd or "")
    assert rest[:argc] == args
    assert rest[argc:] == [f"{name}={value}" for name, value in env.items()]
    assert envc == len(env)


@pytest.mark.parametrize(
    ("args", "options", "words"),
    [
        ("true", {}, "list of strings"),
        ([], {}, "non-empty list"),
        ([b"true"], {}, "list of strings"),
        ([""], {}, "must name a program"),
        (["a\0b"], {}, "NUL"),
        (["true"], {"env": {"A": "b\0"}}, "NUL"),
        (["true"], {"env": {"A=": "b"}}, "'=' in a name"),
        (["true"], {"env": {"": "b"}}, "env must map"),
        (["true"], {"env": {"A": 1}}, "env must map"),
        (["true"], {"cwd": "tmp"}, "absolute path"),
        (["true"], {"cwd": ""}, "absolute path"),
        (["true", "x" * warm.REQUEST_LIMIT], {}, "use input for data"),
        (["true"] * (warm.STRINGS_LIMIT + 1), {}, "use input for data"),
    ],
)
def test_what_cannot_be_sent_is_refused(args: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(pyoci.InvalidOption, match=words):
        warm.request(args, **options)


def test_the_header_names_the_streams_that_come_with_it() -> None:
    assert struct.unpack("=IIII", warm.header(7, 2, 1, (-1, 5, 5))) == (7, 2, 1, 0b110)
    assert warm.header(7, 2, 1, (-1, -1, -1))[12:] == bytes(4)


def test_both_sides_have_the_same_numbers() -> None:
    defined = dict(re.findall(r"#define (\w+) +\(?([\dU< ]+)\)?", SOURCE.read_text()))
    numbers = {name: eval(text.replace("U", "")) for name, text in defined.items()}
    assert numbers == {
        "PROGRAM_FD": warm.PROGRAM_FD,
        "REQUEST_FD": warm.PROGRAM_FD + 1,
        "REQUEST_LIMIT": warm.REQUEST_LIMIT,
        "STRINGS_LIMIT": warm.STRINGS_LIMIT,
    }


def test_a_command_that_nobody_reads_any_more() -> None:
    ours, theirs = map(Descriptor, _ffi.socketpair(SOCK_STREAM))
    with ours:
        data = memoryview(b"x" * (1 << 20))
        left = warm._sent(ours, data)
        assert 0 < len(left) < len(data)
        theirs.close()
        assert not warm._sent(ours, left)
