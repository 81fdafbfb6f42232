"""docs/architecture.md's table says where to find what: each module stands there once, and imports only from lines above its own."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEAVY = {"argparse", "asyncio", "datetime", "inspect", "logging", "random", "shutil", "socket", "tempfile", "typing"}
BESIDE = {"pyoci/__init__.py", "pyoci/__main__.py"}
"""The package's face, which names what it gives from everywhere, and what runs it."""


def rooms() -> list[tuple[int, str]]:
    """The packages and modules of the table, and the line of each."""
    cells = re.findall(r"^\|[^|]*\|([^|]*)\|", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE)
    return [(line, room) for line, cell in enumerate(cells) for room in re.findall(r"`(pyoci/[\w/.]+)`", cell)]


ROOMS = rooms()


def line_of(module: str) -> int | None:
    path = module.replace(".", "/")
    return next((line for line, room in ROOMS if room == f"{path}.py" or (room.endswith("/") and f"{path}/".startswith(room))), None)


def imports(path: Path) -> Iterator[str]:
    """What a module imports when it is imported itself. What a function imports when it is called, and what types alone need, is no part of it."""
    for node in ast.parse(path.read_text()).body:
        for each in ast.walk(node) if isinstance(node, ast.Try) else [node]:
            if isinstance(each, ast.Import):
                yield from (name.name for name in each.names)
            elif isinstance(each, ast.ImportFrom) and each.module is not None:
                assert each.level == 0
                yield from (f"{each.module}.{name.name}" for name in each.names) if each.module == "pyoci" else [each.module]


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted((ROOT / "pyoci").rglob("*.py")):
        name = str(path.relative_to(ROOT))
        if name not in BESIDE:
            yield name.removesuffix("/__init__.py").removesuffix(".py").replace("/", "."), path


def test_each_module_has_one_line() -> None:
    names = [room for _, room in ROOMS]
    assert [room for room in names if names.count(room) > 1] == []
    assert [room for room in names if not (ROOT / room).exists()] == []
    assert [module for module, _ in modules() if line_of(module) is None] == []


def test_imports_come_from_above() -> None:
    upward = []
    for module, path in modules():
        for name in imports(path):
            own, other = line_of(module), line_of(name)
            if own is not None and other is not None and other > own:
                upward.append(f"{module} imports {name}")
    assert upward == []


def loaded(code: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_what_is_heavy_is_imported_when_it_is_needed() -> None:
    bare = loaded("")
    assert (loaded("import pyoci.oneshot") - bare) & HEAVY == set()
    assert {name for name in loaded("import pyoci") - bare if not name.startswith("pyoci")} <= {"__future__"}
