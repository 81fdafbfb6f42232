"""The documentation is true: its blocks of code run, on real containers, and its site builds without a warning.

The blocks of a page run in order, in a directory of the page's: ``python`` in one namespace, and ``sh`` where every command is pyoci's own. What
``print(…)  # → text`` says is what it prints; a block ``text`` right after one of ``sh`` is what that prints; "…" stands for anything.
``<!-- not run: reason -->`` leaves the next block out; ``<!-- run: code -->`` is Python that readers need not see.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

import pyoci

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PIECE = re.compile(
    r"^ *<!-- (?P<word>run|not run): (?P<hidden>.*?) -->$|^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
TELLS = re.compile(r"print\(.*\)  # → (.*)$", re.MULTILINE)
SECONDS = 60
pytestmark = [pytest.mark.once, pytest.mark.root]


@dataclass
class Block:
    language: str
    code: str
    line: int
    """Of its first line of code."""
    output: str | None = None
    """What it prints, where the page tells all of it."""


def blocks(page: str) -> Iterator[Block]:
    """Those that are to be run."""
    is_left_out, previous = False, None
    for piece in PIECE.finditer(page):
        name = "hidden" if piece["word"] else "code"
        block = Block(piece["language"] or "python", dedent(piece[name]), page.count("\n", 0, piece.start(name)) + 1)
        if previous is not None and block.language == "text":
            previous.output = block.code
        if previous is not None:
            yield previous
        is_wanted = piece["word"] == "run" or (piece["language"] and not is_left_out)
        runs = block.language == "python" or (block.language == "sh" and is_ours(block.code))
        previous = block if is_wanted and runs else None
        is_left_out = piece["word"] == "not run"
    if previous is not None:
        yield previous


def is_ours(script: str) -> bool:
    lines = [line.removeprefix("sudo ") for line in script.splitlines() if line.strip() and not line.startswith(("#", " "))]
    return all(line.startswith("pyoci ") for line in lines)


def run_python(block: Block, page: str, namespace: dict[str, Any]) -> None:
    code = compile("\n" * (block.line - 1) + block.code, page, "exec")  # errors name the page's own lines
    printed = StringIO()
    with redirect_stdout(printed):
        exec(code, namespace)
    told = "\n".join(TELLS.findall(block.code))
    assert prints(told, printed.getvalue()), f"{page}:{block.line}: told is\n{told}\nprinted is\n{printed.getvalue()}"


def run_shell(block: Block, page: str) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = ["sh", "-ec", re.sub(r"^sudo ", "", block.code, flags=re.MULTILINE)]
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, f"{page}:{block.line}: {done}"
    assert prints(block.output or "", done.stdout), f"{page}:{block.line}: told is\n{block.output}\nprinted is\n{done.stdout}"


def prints(told: str, printed: str) -> bool:
    """Each line that is told is printed, in this order; "…" in it stands for anything."""
    lines = iter(printed.splitlines())
    patterns = (".*".join(map(re.escape, line.rstrip().split("…"))) for line in told.splitlines() if line.strip())
    return all(any(re.fullmatch(pattern, line.rstrip()) for line in lines) for pattern in patterns)


@pytest.mark.parametrize("path", [path for path in PAGES if any(blocks(path.read_text()))], ids=lambda path: str(path.relative_to(ROOT)))
def test_code_blocks_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rootfs: str, sealed_copies: None, network_names: None) -> None:
    tmp_path.chmod(0o755)  # for users in containers
    monkeypatch.chdir(tmp_path)
    name, namespace = str(path.relative_to(ROOT)), {"__name__": "__main__"}
    for block in blocks(path.read_text()):
        if block.language == "sh":
            run_shell(block, name)
        else:
            run_python(block, name, namespace)
    assert pyoci.OCIRuntime().list() == []


def test_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "-d", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "site" / "index.html").exists()
    assert "subprocess.run" in (tmp_path / "site" / "reference" / "run" / "index.html").read_text()


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2]
    pages = [str(path.relative_to(ROOT / "docs")) for path in PAGES[1:]]
    assert [page for page in pages if page not in re.findall(r"[\w./-]+\.md", navigation)] == []
