"""The C code compiles without a warning, under more warnings than the build of the package asks for."""

import shutil
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[1] / "csrc"
FLAGS = [
    "-std=gnu17",
    "-O2",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wshadow",
    "-Wstrict-prototypes",
    "-Wmissing-prototypes",
    "-Wwrite-strings",
    "-Wpointer-arith",
    "-Wundef",
    "-Wformat=2",
    "-Wvla",
    "-Wnull-dereference",
]
COMPILERS = {"gcc": [*FLAGS, "-Wlogical-op"]}
if shutil.which("clang"):
    COMPILERS["clang"] = FLAGS


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("source", sorted(CSRC.glob("*.c")), ids=lambda source: source.name)
def test_compiles_without_warnings(compiler: str, source: Path, tmp_path: Path) -> None:
    command = [compiler, *COMPILERS[compiler], "-c", str(source), "-o", str(tmp_path / "object.o")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
