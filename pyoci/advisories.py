"""Known holes of runc and crun, by the release that mended each: from runc's CHANGELOG.md, crun's NEWS and release notes, and their security
advisories. conmon has none. Distributions mend them without raising the version: Debian's changelog of a package names what it did.
"""

from __future__ import annotations

import os
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class Advisory:
    """``ids``: CVE numbers. ``fixed``: the first good release of each branch that got one; branches below have the hole, those above do not."""

    __slots__ = ("fixed", "ids", "what")

    def __init__(self, ids: str, fixed: str, what: str) -> None:
        self.ids: list[str] = ids.split()
        self.fixed: list[Version] = [version_of(word) for word in fixed.split()]
        self.what: str = what


Version = tuple[int, int, int, int]
RELEASE = 1 << 16
"""In place of the number of a release candidate: a release comes after all of them."""


def version_of(text: str) -> Version:
    """``1.2.0-rc.3``, ``1.0.0-rc95``, ``1.20`` → numbers that can be compared; zeros for what is no version."""
    match = re.search(r"(\d{1,9})\.(\d{1,9})(?:\.(\d{1,9}))?(?:-rc\.?(\d{1,4}))?", text)
    if match is None:
        return (0, 0, 0, 0)
    return int(match[1]), int(match[2]), int(match[3] or 0), int(match[4]) if match[4] else RELEASE


KNOWN = {
    "runc": (
        Advisory("CVE-2019-5736", "1.0.0-rc7", "a container could overwrite the runc binary of the host"),
        Advisory("CVE-2021-30465", "1.0.0-rc95", "a symbolic link in a volume could lead a mount out of the container"),
        Advisory("CVE-2022-29162", "1.1.2", "exec gave programs inheritable capabilities"),
        Advisory(
            "CVE-2023-25809 CVE-2023-27561 CVE-2023-28642", "1.1.5", "/proc behind a symbolic link bypassed AppArmor; rootless cgroups were writable"
        ),
        Advisory("CVE-2024-21626", "1.1.12 1.2.0-rc.1", "a leaked descriptor let a container's working directory be one of the host's"),
        Advisory("CVE-2024-45310", "1.1.14 1.2.0-rc.3", "a race could make empty files and directories on the host"),
        Advisory(
            "CVE-2025-31133 CVE-2025-52565 CVE-2025-52881", "1.2.8 1.3.3 1.4.0-rc.3", "races of masked paths and /dev/console let a container escape"
        ),
        Advisory("CVE-2026-41579", "1.3.6 1.4.3 1.5.0-rc.3", "an image whose /dev is a symbolic link could write a little to the host"),
    ),
    "crun": (
        Advisory("CVE-2019-16884", "0.10", "a /proc of the image bypassed SELinux"),
        Advisory("CVE-2019-18837", "0.10.5", "an image whose root holds symbolic links could reach the host"),
        Advisory("CVE-2022-27650", "1.4.4", "exec gave programs inheritable capabilities"),
        Advisory("CVE-2025-24965", "1.20", "with krun, an image could write files of the host"),
        Advisory("CVE-2026-30892", "1.27", "crun exec --user could run a program as another user than was asked for"),
        Advisory("CVE-2026-47766", "1.28", "an image whose /dev is a symbolic link could write to the host"),
        Advisory(
            "CVE-2026-84042 CVE-2026-88264 CVE-2026-88265", "1.30", "an image's /dev/console or /dev/null could make or change files of the host"
        ),
    ),
}


def of(tool: str, version: str) -> list[Advisory]:
    """What this version is known to have, by its number alone; nothing for what is no version."""
    found = version_of(version)
    return [advisory for advisory in KNOWN.get(tool, ()) if any(found) and _has(found, advisory.fixed)]


def _has(version: Version, fixed: list[Version]) -> bool:
    if version[:2] > max(fixed)[:2]:
        return False
    return not any(version[:2] == mended[:2] and version >= mended for mended in fixed)


def mended_by_debian(path: str, root: str = "/") -> frozenset[str] | None:
    """The CVE numbers in the changelog of the Debian package that has installed this program; None if none has, or it has no changelog."""
    package = os.path.basename(path)
    merged = {path, path.removeprefix("/usr")}  # the package's list may be older than /usr's merging
    try:
        with open(f"{root}var/lib/dpkg/info/{package}.list") as file:
            if merged.isdisjoint(line.rstrip("\n") for line in file):
                return None
        import gzip

        with gzip.open(f"{root}usr/share/doc/{package}/changelog.Debian.gz") as changelog:
            return frozenset(_numbers(changelog.read(1 << 24).decode("utf-8", "replace")))
    except OSError:
        return None


def _numbers(text: str) -> Iterator[str]:
    yield from re.findall(r"CVE-\d{4}-\d{4,7}", text)
