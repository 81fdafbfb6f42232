"""Tables of the command line."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import sys
import termios
from typing import Any

import pytest

from pyoci.cli import output

ROWS: list[dict[str, Any]] = [
    {"id": "job-1", "pid": 7, "what": "sh -c exit"},
    {"id": "\u30b8\u30e7\u30d6", "pid": None, "what": "cafe\u0301 \x1b[2J"},
    {"id": "x", "pid": 12345, "what": "l" * 100},
]


def test_columns_stand_below_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    """Wide characters take two columns, combining ones none, and nothing moves the cursor."""
    output.print_table(output.columns_of("id", "pid", "what"), ROWS)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "ID        PID  WHAT",
        "job-1       7  sh -c exit",
        "\u30b8\u30e7\u30d6      -  cafe\u0301 \\x1b[2J",
        f"x       12345  {'l' * 100}",
    ]


@pytest.mark.parametrize(("text", "columns"), [("abc", 3), ("\u30b8\u30e7\u30d6", 6), ("e\u0301", 1), ("\uff21", 2), ("", 0)])
def test_width(text: str, columns: int) -> None:
    assert output.width(text) == columns


def test_a_line_is_one_on_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "get_terminal_size", lambda _fd: os.terminal_size((20, 24)))
    output.print_table(output.columns_of("id", "pid", "what"), ROWS)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert max(map(output.width, lines)) <= 20
    assert lines[3] == "x       12345  llll\u2026"


def test_a_real_terminal_is_asked() -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 20, 0, 0))
    pid = os.fork()
    if pid == 0:
        os.dup2(theirs, 1)
        sys.stdout = os.fdopen(1, "w")
        output.print_table(output.columns_of("id", "pid", "what"), ROWS)
        sys.stdout.flush()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert "x       12345  llll\u2026" in os.read(ours, 4096).decode()
    os.close(ours)
    os.close(theirs)
