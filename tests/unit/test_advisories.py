"""Known holes by version, and what Debian's changelog says that it has mended. Pure, but for two small files."""

import gzip
from pathlib import Path

import pytest

from pyoci import advisories
from pyoci.advisories import RELEASE


def ids(tool: str, version: str) -> set[str]:
    return {id for advisory in advisories.of(tool, version) for id in advisory.ids}


def test_versions_are_ordered_with_candidates_before_releases() -> None:
    assert advisories.version_of("runc version 1.1.5+ds1") == (1, 1, 5, RELEASE)
    assert advisories.version_of("crun version 1.20") == (1, 20, 0, RELEASE)
    assert advisories.version_of("1.2.0-rc.3") == (1, 2, 0, 3)
    assert advisories.version_of("1.0.0-rc95") == (1, 0, 0, 95)
    assert advisories.version_of("1.2.0-rc.3") < advisories.version_of("1.2.0")
    assert advisories.version_of("UNKNOWN") == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("tool", "version", "id", "has"),
    [
        ("runc", "1.1.11", "CVE-2024-21626", True),
        ("runc", "1.1.12", "CVE-2024-21626", False),
        ("runc", "1.0.3", "CVE-2024-21626", True),  # a branch that got no fix
        ("runc", "1.2.0", "CVE-2024-21626", False),
        ("runc", "1.2.7", "CVE-2025-31133", True),
        ("runc", "1.2.8", "CVE-2025-31133", False),
        ("runc", "1.3.2", "CVE-2025-52881", True),
        ("runc", "1.3.3", "CVE-2025-52881", False),
        ("runc", "1.4.0-rc.2", "CVE-2025-52565", True),
        ("runc", "1.4.0-rc.3", "CVE-2025-52565", False),
        ("runc", "1.1.15", "CVE-2025-52565", True),
        ("runc", "1.0.0-rc6", "CVE-2019-5736", True),
        ("crun", "1.4.3", "CVE-2022-27650", True),
        ("crun", "1.4.4", "CVE-2022-27650", False),
        ("crun", "1.8.1", "CVE-2022-27650", False),
        ("crun", "1.19.1", "CVE-2025-24965", True),
        ("crun", "1.20", "CVE-2025-24965", False),
    ],
)
def test_a_version_has_what_was_mended_after_it(tool: str, version: str, id: str, has: bool) -> None:
    assert (id in ids(tool, version)) is has


def test_nothing_is_said_of_what_is_not_known() -> None:
    assert ids("runc", "2.0.0") == ids("crun", "9.1") == ids("youki", "0.1.0") == ids("runc", "from a branch") == set()


def test_each_number_stands_once() -> None:
    for table in advisories.KNOWN.values():
        numbers = [id for advisory in table for id in advisory.ids]
        assert len(numbers) == len(set(numbers))
        assert all(any(version) for advisory in table for version in advisory.fixed)


def test_what_debian_has_mended(tmp_path: Path) -> None:
    info, doc = tmp_path / "var/lib/dpkg/info", tmp_path / "usr/share/doc/runc"
    info.mkdir(parents=True)
    doc.mkdir(parents=True)
    root = f"{tmp_path}/"
    assert advisories.mended_by_debian("/usr/sbin/runc", root) is None
    (info / "runc.list").write_text("/.\n/usr/sbin\n/usr/sbin/runc\n")
    assert advisories.mended_by_debian("/usr/sbin/runc", root) is None
    with gzip.open(doc / "changelog.Debian.gz", "wt") as file:
        file.write("runc (1.1.5+ds1-1+deb12u1)\n  * CVE-2024-21626: leaked fds\n + CVE-2023-25809, CVE-2023-27561\n")
    assert advisories.mended_by_debian("/usr/sbin/runc", root) == frozenset({"CVE-2024-21626", "CVE-2023-25809", "CVE-2023-27561"})
    assert advisories.mended_by_debian("/usr/local/sbin/runc", root) is None  # not the package's
