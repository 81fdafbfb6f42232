"""Running ``pyoci`` as people do: by its command line alone. What was run so is noted, for ``test_commands``: every option of every verb is used."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

RAN: list[tuple[str, ...]] = []
"""The words of each command line of ``pyoci`` that was not refused …"""
RUNTIME_RAN: list[tuple[str, ...]] = []
"""… and of ``pyoci-runtime``."""
REFUSED = (2, 123, 125)
"""Exit codes of what was not done (docs/cli.md): its options were not used."""


def command_line(*argv: str) -> list[str]:
    """For a test that starts the command itself, and looks at what comes of it."""
    RAN.append(argv)
    return [sys.executable, "-m", "pyoci", *argv]


def pyoci_command(*argv: str, stdin: bytes = b"", timeout: float = 60, **how: Any) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run([sys.executable, "-m", "pyoci", *argv], input=stdin, capture_output=True, timeout=timeout, check=False, **how)
    if done.returncode not in REFUSED:
        RAN.append(argv)
    return done
