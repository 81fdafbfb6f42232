"""pytest, and once more, in a new run, for the tests that failed: a machine under load can fail a good one. ``python3 -m tests.twice ARGUMENTS…``"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from tests import hosts

AGAIN = "PYOCI_TESTS_AGAIN"
"""The cache directory of the first run."""


def main(arguments: list[str]) -> int:
    if os.geteuid() == 0 and "PYOCI_TESTS_HOST" not in os.environ:
        code = hosts.enter(hosts.native())
        if code is not None:
            return code
    again = os.environ.get(AGAIN)
    cache = again or tempfile.mkdtemp(prefix="pyoci-tests-cache-")
    ours = ["-o", f"cache_dir={cache}"]
    before = _failed(cache)
    code = pytest.main([*ours, *(["--last-failed"] if again else []), *arguments])
    after = _failed(cache)
    if code == pytest.ExitCode.TESTS_FAILED and after and not again:
        _tell("failed, and get a second try", after)
        os.environ[AGAIN] = cache
        os.execv(sys.executable, [sys.executable, "-m", "tests.twice", *arguments])
    shutil.rmtree(cache)
    if again:
        _tell("passed at the second try", [name for name in before if name not in after])
        _tell("failed twice", after)
    return int(code)


def _tell(what: str, names: list[str]) -> None:
    if names:
        print(f"\n{len(names)} {what}:", *names, sep="\n  ", flush=True)


def _failed(cache: str) -> list[str]:
    try:
        return sorted(json.loads(Path(cache, "v", "cache", "lastfailed").read_text()))
    except OSError:
        return []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
