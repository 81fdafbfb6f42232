"""The native tests once more: where newer system calls do not exist, and with a module built for the sanitizers."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = ["tests/native/test_spawn.py", "tests/native/test_io.py"]


def pytest_run(before: list[str], directory: Path, env: dict[str, str], *options: str) -> None:
    argv = [*before, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, *TESTS]
    done = subprocess.run(argv, cwd=directory, env={**os.environ, **env}, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "passed" in done.stdout


@pytest.mark.parametrize("missing", ["clone3", "close_range", "clone3,close_range"])
def test_the_fallbacks(missing: str) -> None:
    pytest_run([sys.executable, "-m", "tests.native.seccomp", missing], ROOT, {})


def test_the_filter_filters() -> None:
    program = "import ctypes; l = ctypes.CDLL(None, use_errno=True); print(l.syscall(436, 900, 901, 0), ctypes.get_errno())"
    argv = [sys.executable, "-m", "tests.native.seccomp", "close_range", sys.executable, "-c", program]
    assert subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout == "-1 38\n"


def test_clean_under_the_sanitizers(tmp_path: Path) -> None:
    """AddressSanitizer and UndefinedBehaviorSanitizer; leaks are not looked for, because CPython itself leaves memory at its exit."""
    for name in ("csrc", "pyoci", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.so", "*.o", "_native.c", "__pycache__"))
    for name in ("build_ext.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    flags = "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g"
    env = {**os.environ, "PYOCI_CFLAGS": flags, "PYOCI_LDFLAGS": "-fsanitize=address,undefined"}
    built = subprocess.run([sys.executable, "build_ext.py"], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert built.returncode == 0, built.stderr
    assert "__asan" in subprocess.run(["nm", "-D", tmp_path / "pyoci" / "_native.abi3.so"], capture_output=True, text=True, check=True).stdout
    libraries = [
        subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    sanitized = {"LD_PRELOAD": " ".join(libraries), "ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}
    # A thousand spawns grow a quarantine; what they leak is measured without it. The path: this copy, not the installed one.
    pytest_run([], tmp_path, {**sanitized, "PYTHONPATH": str(tmp_path)}, "-k", "not thousand", "tests/native/test_mounts.py")
