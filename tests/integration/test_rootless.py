"""Containers of an ordinary user: the same life, in a user namespace (docs/rootless.md)."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyoci import cgroups
from tests import ordinary

Ordinary = Callable[..., dict[str, Any]]
FIXED = {"containers", "exits", "runc", "crun"}

PRELUDE = """
import asyncio, json, os, sys
from pathlib import Path
import pyoci

told = {}
runtime = pyoci.OCIRuntime(sys.argv[1])
FOREVER = ["sh", "-c", "trap 'exit 4' TERM; echo ready; while :; do sleep 0.05; done"]

def spec(*args, **options):
    return pyoci.spec.build(args, rootfs=pyoci.rootfs.builtin(), read_only=True, **options)

def is_refused(call, kind):
    try:
        call()
    except kind as error:
        return str(error)
    return None
"""


@pytest.fixture
def as_user() -> Iterator[Ordinary]:
    """Runs a program after the prelude, as an ordinary user; gives what it has put into ``told``. Nothing of it may be left."""
    base = tempfile.mkdtemp(prefix="pyoci-user-")  # not below /run, which may be noexec: the root file system lies here too
    os.chmod(base, 0o711)

    def run(runtime_name: str, program: str, **environment: str) -> dict[str, Any]:
        done = ordinary.run(f"{PRELUDE}{program}\nprint(json.dumps(told))", runtime_name, base=base, **environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)  # type: ignore[no-any-return]

    yield run
    state = Path(base, "runtime", "pyoci")
    left = [str(path) for path in state.rglob("*") if path.parent != state or path.name not in FIXED]
    left += [line for pid in os.listdir("/proc") if pid.isdecimal() and base in (line := _command_line(pid))]
    shutil.rmtree(base)
    assert not left


def _command_line(pid: str) -> str:
    try:
        return Path("/proc", pid, "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return ""


def test_a_whole_life(as_user: Ordinary, runtime_name: str) -> None:
    told = as_user(
        runtime_name,
        """
container = runtime.create(spec("sh", "-c", "id -u; cat /proc/self/uid_map; exit 7"))
told["user"] = os.geteuid()
told["created"] = container.state()
told["directory"] = container.directory
told["owner"] = os.stat(f"/proc/{container.pid}").st_uid
container.start()
told["code"] = container.wait(30).code
told["stopped"] = container.state()
told["log"] = [line.split(" ", 3)[3].split() for line in Path(container.log_path).read_text().splitlines()]
told["loaded"] = pyoci.Container.load(container.id).wait(30).code
container.delete()
""",
    )
    assert told["user"] != 0
    assert told["owner"] == told["user"]
    assert (told["created"], told["stopped"]) == ("created", "stopped")
    assert told["code"] == told["loaded"] == 7
    assert told["log"][0] == ["0"]
    assert told["log"][1] == ["0", str(told["user"]), "1"]
    assert "/runtime/pyoci/containers/" in told["directory"]


def test_stop_kill_and_the_end_of_a_block(as_user: Ordinary, runtime_name: str) -> None:
    told = as_user(
        runtime_name,
        """
def running():
    container = runtime.create(spec(*FOREVER))
    container.start()
    while "ready" not in Path(container.log_path).read_text():
        pass
    return container

with running() as container:
    told["stop"] = container.stop(30).code
with running() as container:
    container.kill()
    told["kill"] = container.wait(30).signal
with running() as container:
    told["stop at once"] = container.stop(0).signal
with running() as container:
    container.delete(force=True)
""",
    )
    assert told == {"stop": 4, "kill": 9, "stop at once": 9}


@pytest.mark.parametrize("network", ["private", "host"])
def test_run(as_user: Ordinary, runtime_name: str, network: str) -> None:
    told = as_user(
        runtime_name,
        f"""
done = pyoci.run(["sh", "-c", "id -u; cat; exit 3"], input=b"in", runtime=runtime, network={network!r})
told["done"] = [done.returncode, done.stdout.decode(), done.stderr.decode()]
told["missing"] = pyoci.run(["/nope"], runtime=runtime, network={network!r}).returncode
told["timeout"] = is_refused(lambda: pyoci.run(["sleep", "100"], runtime=runtime, timeout=0.5, network={network!r}), pyoci.RunTimeout)
done = asyncio.run(pyoci.aio.run(["sh", "-c", "exit 5"], runtime=runtime, network={network!r}))
told["awaited"] = done.returncode
""",
    )
    assert told["done"] == [3, "0\nin", ""]
    assert told["missing"] == 127
    assert "took longer" in told["timeout"]
    assert told["awaited"] == 5


def test_without_a_cgroup_there_is_no_limit_and_no_pause(as_user: Ordinary, runtime_name: str) -> None:
    told = as_user(
        runtime_name,
        """
for name, value in {"memory": "64M", "pids": 10, "cpus": 0.5}.items():
    told[name] = is_refused(lambda: runtime.create(spec("true", **{name: value})), pyoci.NoCgroup)
    told[f"run {name}"] = is_refused(lambda: pyoci.run(["true"], runtime=runtime, **{name: value}), pyoci.NoCgroup)
with runtime.create(spec(*FOREVER)) as container:
    container.start()
    told["pause"] = is_refused(container.pause, pyoci.NoCgroup)
    told["resume"] = is_refused(container.resume, pyoci.ContainerStateError)
    told["state"] = container.state()
""",
    )
    for name, resource in (("memory", "memory"), ("pids", "pids"), ("cpus", "cpu")):
        for call in (name, f"run {name}"):
            assert f"cannot have limits ({resource})" in told[call]
            assert "no cgroup is delegated" in told[call]
    assert "cannot pause" in told["pause"]
    assert "no cgroup is delegated" in told["pause"]
    assert "it is running" in told["resume"]
    assert told["state"] == "running"


@pytest.fixture
def delegated() -> Iterator[str]:
    """The directory of a cgroup for the user."""
    path = Path(cgroups.read().mounts[cgroups.V2], f"delegated-{os.getpid()}")
    path.mkdir()
    yield str(path)
    left = [str(below) for below in path.iterdir() if below.is_dir()]
    path.rmdir()
    assert not left


@pytest.mark.host("v2", "systemd", "debian13", "guest")
def test_in_a_delegated_cgroup(as_user: Ordinary, runtime_name: str, delegated: str) -> None:
    told = as_user(
        runtime_name,
        """
def cgroup(pid):
    return Path(f"/proc/{pid}/cgroup").read_text().splitlines()[-1].removeprefix("0::")

with runtime.create(spec(*FOREVER)) as container:
    told["cgroups"] = [cgroup("self"), cgroup(container.pid), cgroup(container.conmon_pid)]
    container.start()
    container.pause()
    told["paused"] = container.state()
    container.resume()
    told["resumed"] = container.state()
""",
        cgroup=delegated,
    )
    own, container, conmon = told["cgroups"]
    assert own.endswith(os.path.basename(delegated))
    assert container.startswith(f"{own}/pyoci-")
    assert conmon.startswith(f"{own}/pyoci-")
    assert container != conmon
    assert (told["paused"], told["resumed"]) == ("paused", "running")


def test_a_failed_create_leaves_nothing(as_user: Ordinary, runtime_name: str) -> None:
    told = as_user(
        runtime_name,
        """
config = spec("true")
config["mounts"].append({"destination": "/mnt", "type": "bind", "source": "/nowhere", "options": ["bind"]})
told["create"] = is_refused(lambda: runtime.create(config), pyoci.CreateError)
""",
    )
    assert "nowhere" in told["create"]


def test_a_user_that_is_not_mapped_is_refused(as_user: Ordinary, runtime_name: str) -> None:
    told = as_user(runtime_name, 'told["user"] = is_refused(lambda: spec("true", user=70000000), pyoci.InvalidOption)')
    assert "subuid(5)" in told["user"]


def test_no_systemd_of_its_own(as_user: Ordinary, runtime_name: str) -> None:
    told = as_user(
        runtime_name,
        """
managed = pyoci.OCIRuntime(sys.argv[1], cgroup_manager="systemd")
told["refused"] = is_refused(lambda: managed.create(spec("true")), pyoci.CgroupError)
""",
    )
    assert "this user's systemd was to manage the cgroups, and does not run" in told["refused"]


def test_no_runtime_directory(as_user: Ordinary, runtime_name: str) -> None:
    told = as_user(
        runtime_name,
        """
del os.environ["XDG_RUNTIME_DIR"]
told["refused"] = is_refused(lambda: pyoci.OCIRuntime(sys.argv[1]), pyoci.InvalidOption)
""",
    )
    assert "XDG_RUNTIME_DIR is not set" in told["refused"]
