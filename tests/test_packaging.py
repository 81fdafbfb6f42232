"""What is built from the sources: the sdist, the wheel, and the package as it is installed from them."""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

import pyoci
from tests import hosts, trees

ROOT = Path(__file__).parents[1]
HEAVY = ("argparse", "asyncio", "dataclasses", "json", "logging", "pathlib", "pyoci._native", "subprocess", "typing")


def output(*command: str | Path, cwd: Path) -> str:
    """What the command prints; an error holds all it said."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, cwd=cwd, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}"
    return done.stdout


def copy_sources(destination: Path) -> None:
    """The files that git does not ignore. A new repository does the asking, so that an unpacked sdist can be tested as well."""
    git = destination.with_name("git")
    output("git", "init", "--quiet", "--bare", git, cwd=ROOT)
    names = output("git", f"--git-dir={git}", f"--work-tree={ROOT}", "ls-files", "-z", "--others", "--exclude-standard", cwd=ROOT)
    for name in names.split("\0")[:-1]:
        (destination / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, destination / name)


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@dataclass(frozen=True)
class Built:
    sdist: Path
    wheel: Path  # from the tree
    wheel_of_sdist: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    top = tmp_path_factory.mktemp("build")
    copy_sources(top / "sources")
    # The set-up has built with isolation already; here the build requirements of the test environment do, without a download.
    build = (sys.executable, "-m", "build", "--no-isolation")
    output(*build, "--wheel", "--outdir", top / "direct", top / "sources", cwd=top)
    # Without --wheel: the sdist, then the wheel from the unpacked sdist.
    output(*build, "--outdir", top / "dist", top / "sources", cwd=top)
    (sdist,) = (top / "dist").glob("*.tar.gz")
    (wheel,) = (top / "direct").glob("*.whl")
    (wheel_of_sdist,) = (top / "dist").glob("*.whl")
    return Built(sdist, wheel, wheel_of_sdist)


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin directory of an environment with nothing but the wheel and what it requires."""
    environment = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(environment, symlinks=True)
    pip = (sys.executable, "-m", "pip", "--python", environment / "bin/python", "--disable-pip-version-check")
    output(*pip, "install", built.wheel_of_sdist, cwd=environment)
    return environment / "bin"


def install_for(target: str, python: str, wheel: Path, *, cwd: Path) -> None:
    """The wheel and what it requires, from nothing but wheels for that Python."""
    kinds = [f"--platform={kind}_{os.uname().machine}" for kind in ("linux", "manylinux_2_17", "manylinux2014", "manylinux_2_28")]
    abis = [f"--abi={abi}" for abi in (f"cp{python.replace('.', '')}", "abi3", "none")]
    only = ("--only-binary=:all:", "--implementation=cp", f"--python-version={python}", *abis, *kinds)
    output(sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--target", target, *only, wheel, cwd=cwd)


def test_wheel_holds_the_package_and_nothing_else(built: Built) -> None:
    name, version, python, abi, platform = built.wheel.stem.split("-")
    assert (name, python, abi) == ("pyoci_runtime", "cp311", "abi3")
    assert platform.startswith("linux_")
    files = set(contents(built.wheel))
    assert {name.split("/")[0] for name in files} == {"pyoci", f"{name}-{version}.dist-info"}
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "pyoci").rglob("*.py")}
    package = {name for name in files if name.startswith("pyoci/")}
    assert package == modules | {"pyoci/_native.abi3.so", "pyoci/_native.pyi", "pyoci/_warm", "pyoci/py.typed"}
    assert f"{name}-{version}.dist-info/licenses/LICENSE" in files


def test_sdist_holds_all_sources(built: Built, tmp_path: Path) -> None:
    copy_sources(tmp_path / "sources")
    tree = {path.relative_to(tmp_path / "sources").as_posix() for path in (tmp_path / "sources").rglob("*") if path.is_file()}
    with tarfile.open(built.sdist) as archive:
        files = {member.name.split("/", 1)[1] for member in archive if member.isfile()}
    generated = {"PKG-INFO", "setup.cfg"}
    assert {name for name in files - generated if not name.startswith("pyoci_runtime.egg-info/")} == tree


def test_sdist_gives_the_same_wheel(built: Built) -> None:
    assert built.wheel_of_sdist.name == built.wheel.name
    direct, again = contents(built.wheel), contents(built.wheel_of_sdist)
    assert set(direct) == set(again)
    # The compiler may note the directory it ran in, and RECORD holds the module's checksum.
    assert [name for name in direct if direct[name] != again[name] and not name.endswith((".so", "/RECORD"))] == []


def test_installed_module_works(installed: Path, tmp_path: Path) -> None:
    program = """
from importlib.metadata import version
import pyoci, pyoci._native
pair = pyoci._native.ffi.new("int32_t[2]")
assert pyoci._native.lib.po_socketpair(1, pair) == 0 and pair[0] != pair[1]
assert version("pyoci-runtime") == pyoci.__version__
print(pyoci.__file__, pyoci._native.__file__)
"""
    for path in output(installed / "python", "-c", program, cwd=tmp_path).split():
        assert path.startswith(f"{installed.parent}/lib/")


def test_installed_command_works(installed: Path, tmp_path: Path) -> None:
    assert "pyoci" in output(installed / "pyoci", "--version", cwd=tmp_path)
    usage = output(installed / "pyoci", "--help", cwd=tmp_path)
    assert usage.startswith("usage: pyoci")
    for verb in ("run", "list", "doctor"):
        assert verb in usage


@pytest.mark.root
@pytest.mark.parametrize(("suite", "python"), [("bookworm", "3.11"), ("trixie", "3.13")])
def test_wheel_installs_in_debian_without_a_compiler(built: Built, tmp_path: Path, suite: str, python: str) -> None:
    """pip takes nothing but wheels, ours and cffi's, for that Python; the tree's own Python then uses them, with its own glibc."""
    tree = trees.tree(suite)
    with tempfile.TemporaryDirectory(prefix="wheel-", dir=tree / "tmp") as target:
        install_for(target, python, built.wheel, cwd=tmp_path)
        program = """
import sys
import cffi, pyoci, pyoci._native
assert pyoci._native.lib.po_socketpair(1, pyoci._native.ffi.new("int32_t[2]")) == 0
print("%d.%d" % sys.version_info[:2], cffi.__file__, pyoci.__version__)
"""
        inside = f"/{Path(target).relative_to(tree)}"
        found = output("chroot", tree, "env", f"PYTHONPATH={inside}", "PATH=/nonexistent", "/usr/bin/python3", "-c", program, cwd=tmp_path).split()
    assert found == [python, f"{inside}/cffi/__init__.py", pyoci.__version__]


@pytest.mark.root
def test_wheel_runs_a_container_in_debian(built: Built, tmp_path: Path) -> None:
    """With Debian 13's own Python, conmon and runtimes: the host of that name, which has the checkout, but imports the wheel from beside it."""
    (ROOT / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="wheel-", dir=ROOT / "build") as target:
        install_for(target, "3.13", built.wheel, cwd=tmp_path)
        inside = f"{hosts.CHECKOUT}/{Path(target).relative_to(ROOT)}"
        program = """
import pyoci
for runtime in "crun", "runc":
    for monitor in "conmon", "direct":
        done = pyoci.run(["sh", "-c", "echo hello; exit 3"], runtime=runtime, monitor=monitor, timeout=60)
        assert (done.returncode, done.stdout) == (3, b"hello\\n"), done
print(pyoci.__file__)
"""
        # This process may be on a host; the machine of another is made by a process that is told of none.
        host = ("env", "--unset=PYOCI_TESTS_HOST", ROOT / "tests/host", "debian13")
        found = output(*host, "env", "-C", "/", f"PYTHONPATH={inside}", "python3", "-c", program, cwd=ROOT)
    assert found.split()[-1] == f"{inside}/pyoci/__init__.py"


def test_only_the_journal_needs_libsystemd(built: Built) -> None:
    """Where its headers are missing, pip can build no systemd-python: neither the core nor what people install with it may ask for that."""
    (metadata,) = (text for name, text in contents(built.wheel).items() if name.endswith(".dist-info/METADATA"))
    lines = metadata.decode().split("\n\n")[0].splitlines()
    required = [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]
    assert [name for name in required if "extra ==" not in name] == ["cffi>=1.15"]
    assert [name for name in required if name.startswith("systemd")] == ['systemd-python>=235; extra == "journal"']
    assert [name for name in required if "journal" in name] == ['systemd-python>=235; extra == "journal"']  # no other extra asks for it


def test_directory_named_as_the_package_hides_nothing(tmp_path: Path) -> None:
    # Such as a checkout, beside the script.
    (tmp_path / "pyoci").mkdir()
    output(sys.executable, "-c", "import pyoci; pyoci.run", cwd=tmp_path)


def test_import_is_light(tmp_path: Path) -> None:
    # -S: what site imports for an editable install (pathlib among it) must not hide what pyoci imports.
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import pyoci; print(*sys.modules)"
    modules = output(sys.executable, "-I", "-S", "-c", program, cwd=tmp_path).split()
    assert "pyoci" in modules
    assert [name for name in HEAVY if name in modules] == []
