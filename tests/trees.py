"""Debian trees to run the tests in: made once from Debian's packages, kept under /var/cache/pyoci-tests."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

CACHE = Path("/var/cache/pyoci-tests")
ROOT = Path(__file__).parents[1]
PACKAGES = (
    *("systemd", "dbus", "conmon", "crun", "runc", "busybox-static", "procps", "gcc", "libc6-dev", "python3-dev", "python3-setuptools"),
    *("python3-cffi", "python3-pytest", "python3-hypothesis", "python3-jeepney", "python3-systemd"),
)
"""The test environment comes from Debian as well: nothing is built or downloaded in a tree."""
BOOTED = ("linux-image-cloud-amd64", "initramfs-tools", "systemd-sysv", "udev", "selinux-policy-default", "policycoreutils", "iproute2", "strace")
PODMAN = ("podman", "netavark", "gpg")
"""With the smaller one of what each of its alternatives asks for."""
TREES = {"bookworm": ("bookworm", PACKAGES + PODMAN), "trixie": ("trixie", PACKAGES), "guest": ("bookworm", PACKAGES + BOOTED)}
TRIES = 3


def tree(kind: str) -> Path:
    """The path of a minimal Debian with what the tests need (one of TREES); nothing must be written to it."""
    suite, packages = TREES[kind]
    path = CACHE / f"{kind}-{digest(suite, *packages)}"
    with alone(kind):
        if path.exists():
            return path
        require("mmdebstrap")
        print(f"hosts: making a tree of Debian's {suite} in {path}", file=sys.stderr, flush=True)
        part = Path(tempfile.mkdtemp(prefix=f".{kind}-", dir=CACHE))
        try:
            command = ["mmdebstrap", "--quiet", "--mode=root", "--variant=essential", f"--include={','.join(packages)}"]
            command += ["--aptopt=Acquire::Retries 3", "--dpkgopt=force-unsafe-io", suite, str(part), *mirror()]
            _try_again(command, lambda: _empty(part))
            part.chmod(0o755)
            part.rename(path)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return path


def unpacked(package: str) -> Path:
    """A directory with the files of one of this machine's own Debian packages, which is not installed: its services would be, too."""
    require("apt-get")
    path = CACHE / package
    with alone(package):
        if not path.exists():
            print(f"hosts: unpacking Debian's {package} in {path}", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory(prefix=f".{package}-", dir=CACHE) as part:
                os.chmod(part, 0o755)
                _try_again(["env", "-C", part, "apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3", package])
                [archive] = Path(part).glob("*.deb")
                run(["dpkg-deb", "--extract", str(archive), f"{part}/files"])
                Path(part, "files").rename(path)
    return path


def digest(*words: str) -> str:
    return hashlib.sha256(" ".join(words).encode()).hexdigest()[:12]


def extension(kind: str) -> Path:
    """The compiled module, built from this checkout's sources in a tree's own Python and compiler."""
    place = tree(kind)
    digest = hashlib.sha256(place.name.encode())
    for source in [*sorted((ROOT / "csrc").iterdir()), ROOT / "build_ext.py"]:
        digest.update(source.read_bytes())
    path = CACHE / "extensions" / f"{kind}-{digest.hexdigest()[:12]}.so"
    with alone(f"{kind}-extension"):
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            with tempfile.TemporaryDirectory(dir=place / "tmp") as build:
                shutil.copytree(ROOT / "csrc", f"{build}/csrc", ignore=shutil.ignore_patterns("*.o"))
                shutil.copy(ROOT / "build_ext.py", build)
                os.mkdir(f"{build}/pyoci")
                run(["chroot", str(place), "env", "-C", build.removeprefix(str(place)), "python3", "build_ext.py"])
                shutil.move(f"{build}/pyoci/_native.abi3.so", path)
    return path


def mirror() -> list[str]:
    """Where this machine gets Debian's packages from; empty where it is no Debian: then mmdebstrap knows."""
    asked = ["apt-get", "indextargets", "--format", "$(ORIGIN) $(COMPONENT) $(REPO_URI)", "Created-By: Packages"]
    listed = subprocess.run(asked, capture_output=True, text=True, check=False).stdout if shutil.which("apt-get") else ""
    for line in listed.splitlines():
        origin, component, uri = line.split(" ", 2)
        if (origin, component) == ("Debian", "main") and "security" not in uri:
            return [uri]
    return []


def require(program: str, package: str | None = None) -> None:
    """Installs it, if this machine does not have it."""
    if shutil.which(program) is None:
        _install(package or program)


def _install(*packages: str) -> None:
    if shutil.which("apt-get") is None:
        raise SystemExit(f"hosts: needs {' '.join(packages)} (Debian's packages)")
    print(f"hosts: installing from Debian: {' '.join(packages)}", file=sys.stderr, flush=True)
    subprocess.run(["apt-get", "update", "-qq", "-o", "Acquire::Retries=3"], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    options = ["-qq", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120", "-o", "Acquire::Retries=3"]
    _try_again(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", *options, *packages])


def _try_again(command: list[str], before: Callable[[], None] = lambda: None) -> None:
    """Mirrors have their moments; what the failed try left is mended before the next."""
    for left in range(TRIES - 1, -1, -1):
        try:
            return run(command)
        except SystemExit as error:
            if left == 0:
                raise
            print(f"{error}\nhosts: once more", file=sys.stderr, flush=True)
            before()
    return None


def _empty(directory: Path) -> None:
    shutil.rmtree(directory)
    directory.mkdir()


def run(command: list[str]) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"hosts: failed: {' '.join(command)}\n{done.stdout[-4000:]}")


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Of several runs one makes it and the others wait."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / f"{name}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    for name in sys.argv[1:]:
        extension(name)
