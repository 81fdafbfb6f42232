"""What is public (docs/stability.md): listed in one place, documented, and typed whole."""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import pyoci

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.once
NAMES = [name for name in pyoci.__all__ if name != "__version__"]


def test_the_list_is_what_type_checkers_see() -> None:
    """``_HOMES`` and the imports for type checkers name the same, from the same modules."""
    tree = ast.parse((ROOT / "pyoci" / "__init__.py").read_text())
    (guarded,) = (node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in guarded.body if isinstance(node, ast.ImportFrom)]
    seen = {(node.module or "", alias.asname) for node in imports for alias in node.names if alias.asname is not None}
    modules = {name for module, name in seen if module == "pyoci"}
    names = {name: module.removeprefix("pyoci.") for module, name in seen if module != "pyoci"}
    assert modules == set(pyoci._MODULES)
    # A few types are only for annotations.
    assert {name: module for name, module in names.items() if name in pyoci._HOME} == pyoci._HOME
    assert set(names) - set(pyoci._HOME) <= {"State"}


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_documented(name: str) -> None:
    value = getattr(pyoci, name)
    assert name in dir(pyoci)
    if not callable(value) and not inspect.ismodule(value):
        return  # a constant
    assert inspect.getdoc(value)
    if inspect.isclass(value):
        bare = [each for each, member in inspect.getmembers(value) if is_ours(each, member) and not inspect.getdoc(member)]
        assert bare == []


def is_ours(name: str, member: object) -> bool:
    function = member.fget if isinstance(member, property) else inspect.unwrap(member) if callable(member) else None
    return not name.startswith("_") and getattr(function, "__module__", "").startswith("pyoci")


def test_every_public_name_is_in_the_reference() -> None:
    pages = "\n".join(path.read_text() for path in (ROOT / "docs" / "reference").glob("*.md"))
    shown = {word.strip("[],") for word in pages.split()}
    lacking = []
    for name in NAMES:
        value = getattr(pyoci, name)
        is_error = pyoci._HOME.get(name) == "errors"
        if callable(value) and not is_error and f"pyoci.{name}" not in shown:
            lacking.append(name)
    assert lacking == []


def test_modules_that_are_named_exist() -> None:
    for name in ("aio", "errors", "rootfs", "spec", "observing"):
        assert import_module(f"pyoci.{name}").__doc__


def test_types_are_complete(tmp_path: Path) -> None:
    """pyright looks at the package as it is installed, found by the Python that is first in PATH, and not from within the sources."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = [str(Path(sys.executable).with_name("basedpyright")), "--verifytypes", "pyoci", "--ignoreexternal"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False)
    lines = done.stdout.splitlines()
    assert "Type completeness score: 100%" in lines, "\n".join(line for line in lines if "error" in line or "Inferred" in line)
