"""Socket activation: the descriptors that systemd, or whoever speaks its protocol, has given to this process (sd_listen_fds(3)), and
how a container is told of its own."""

from __future__ import annotations

import os

from pyoci.errors import InvalidOption

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

FIRST = 3
"""SD_LISTEN_FDS_START."""
MOST = 4096
"""Far more than anybody passes, and within what a process can hold: what is beyond is a mistake."""
UNNAMED = "unknown"
"""What sd_listen_fds_with_names(3) calls a descriptor without a name."""


def inherited() -> list[tuple[int, str]]:
    """(descriptor, name) of what this process was activated with; nothing when LISTEN_FDS is absent or meant for another process
    (LISTEN_PID). Through systemd-python where it is installed. Raises InvalidOption when the variables make no sense."""
    try:
        from systemd.daemon import listen_fds_with_names  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        return read(os.environ, os.getpid())
    try:
        return [(fd, name or UNNAMED) for fd, name in listen_fds_with_names(unset_environment=False).items()]
    except (OSError, ValueError) as error:
        raise InvalidOption(f"the variables of socket activation make no sense (sd_listen_fds_with_names): {error}") from None


def read(env: Mapping[str, str], pid: int) -> list[tuple[int, str]]:
    """The same from the variables alone, as sd_listen_fds(3) documents them."""
    if env.get("LISTEN_PID") != str(pid) or "LISTEN_FDS" not in env:
        return []
    number = env["LISTEN_FDS"]
    if not (number.isascii() and number.isdecimal() and len(number) < 6 and int(number) <= MOST):
        raise InvalidOption(f"LISTEN_FDS={number!r} is not a number of descriptors")
    fds = range(FIRST, FIRST + int(number))
    names = env["LISTEN_FDNAMES"].split(":") if env.get("LISTEN_FDNAMES") else [UNNAMED] * len(fds)
    if len(names) != len(fds):
        raise InvalidOption(f"LISTEN_FDNAMES={env['LISTEN_FDNAMES']!r} does not name {number} descriptors")
    return list(zip(fds, names, strict=True))


def check_name(name: str) -> None:
    """Raises InvalidOption for what cannot stand in LISTEN_FDNAMES: see FileDescriptorName= in systemd.socket(5)."""
    if not isinstance(name, str) or not name.isascii() or not name.isprintable() or not 0 < len(name) < 256 or ":" in name:
        raise InvalidOption(f"listen_fds: {name!r:.300} cannot be the name of a descriptor: up to 255 printable ASCII characters without ':'")


def tell(config: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The spec with what says that descriptors with these names, from 3 on, are for PID 1, in the environment of its process."""
    process = config["process"]
    env = [entry for entry in process.get("env") or () if not entry.startswith("LISTEN_")]
    env += [f"LISTEN_FDS={len(names)}", "LISTEN_PID=1", f"LISTEN_FDNAMES={':'.join(names)}"]
    return {**config, "process": {**process, "env": env}}
