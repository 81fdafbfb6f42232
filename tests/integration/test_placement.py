"""Where conmon and the container live, on whatever layout the host has; rows 27 and 28 of docs/faults.md."""

import asyncio
import logging
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import pyoci
from pyoci import aio, cgroups
from pyoci.cgroups import detection, systemd
from pyoci.errors import CgroupError, ContainerExists, ContainerStateError, CreateError, Timeout
from tests.containers import FOREVER, Build, ready, scopes

pytestmark = [pytest.mark.everywhere, pytest.mark.root]
on_systemd = pytest.mark.host("systemd", "debian13", "guest")


HANGS_IN_CREATE = 'case " $* " in *" create "*) sleep 100;; esac'


def paths_of(pid: int | None) -> dict[str, str]:
    """controllers → path of a process, as /proc/PID/cgroup has it; without the hierarchies that nobody can see here."""
    mounts = cgroups.read().mounts
    lines = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    return {controllers: path for _, controllers, path in lines if all(part in mounts for part in controllers.split(","))}


def made(runtime: pyoci.OCIRuntime, **options: object) -> pyoci.OCIRuntime:
    return pyoci.OCIRuntime(runtime.runtime_path, state_dir=runtime.state_dir, **options)  # type: ignore[arg-type]


def script(path: Path, body: str) -> str:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def parent() -> Iterator[str]:
    path = f"/pyoci-parent-{os.getpid()}"
    yield path
    directories = cgroups.read().directories(path)
    below = [entry.name for directory in directories if os.path.isdir(directory) for entry in os.scandir(directory) if entry.is_dir()]
    assert below == []
    assert cgroups.remove(directories) == {}


# --- cgroupfs ---------------------------------------------------------------------------------------------------------------------


def test_separate_places(runtime: pyoci.OCIRuntime, build: Build, parent: str) -> None:
    strict = made(runtime, cgroup_parent=parent, conmon_cgroup="separate", strict_cgroups=True)
    with strict.create(build(*FOREVER), id="placed") as container:
        conmon, init = paths_of(container.conmon_pid), paths_of(container.pid)
        assert len(conmon) == len(set(cgroups.read().mounts.values()))
        assert set(conmon.values()) == {f"{parent}/pyoci-placed/conmon"}
        assert set(init.values()) == {f"{parent}/pyoci-placed/container"}
        container.start()
        ready(container)
        container.pause()
        assert container.state() == "paused"
        assert container.conmon_pid is not None  # it is not frozen with the container
        assert container.stop(timeout=20).signal is None
    assert not any(map(os.path.lexists, cgroups.read().directories(f"{parent}/pyoci-placed")))


def test_a_shared_place(runtime: pyoci.OCIRuntime, build: Build, parent: str) -> None:
    with made(runtime, cgroup_parent=parent, conmon_cgroup="shared").create(build("sleep", "100"), id="placed") as container:
        assert paths_of(container.conmon_pid) == paths_of(os.getpid())
        assert set(paths_of(container.pid).values()) == {f"{parent}/pyoci-placed"}


def test_another_process_deletes_it(runtime: pyoci.OCIRuntime, build: Build, parent: str) -> None:
    made(runtime, cgroup_parent=parent, conmon_cgroup="separate").create(build("sleep", "100"), id="placed")
    pyoci.Container.load("placed", state_dir=runtime.state_dir).delete(force=True)
    assert not any(map(os.path.lexists, cgroups.read().directories(f"{parent}/pyoci-placed")))


def test_what_the_spec_names_is_kept(runtime: pyoci.OCIRuntime, build: Build, parent: str) -> None:
    config = build("sleep", "100")
    config["linux"]["cgroupsPath"] = f"{parent}/mine"
    with made(runtime, cgroup_parent=parent, conmon_cgroup="separate").create(config, id="placed") as container:
        assert set(paths_of(container.pid).values()) == {f"{parent}/mine"}
        assert set(paths_of(container.conmon_pid).values()) == {f"{parent}/pyoci-placed/conmon"}


def test_a_failed_create_leaves_no_cgroup(runtime: pyoci.OCIRuntime, build: Build, parent: str, tmp_path: Path) -> None:
    failing = made(runtime, cgroup_parent=parent, conmon_cgroup="separate")
    with pytest.raises(CreateError):
        failing.create(build("/no/such/program", mounts=[{"destination": "/x", "type": "nonsense", "source": "nonsense"}]))
    hanging = pyoci.OCIRuntime(
        script(tmp_path / "runtime", HANGS_IN_CREATE),
        state_dir=runtime.state_dir,
        cgroup_parent=parent,
        conmon_cgroup="separate",
        create_timeout=0.5,
    )
    with pytest.raises(Timeout):
        hanging.create(build("true"))
    # The fixture looks below the parent.


def test_what_crun_takes_for_a_cgroup_goes_too(runtime: pyoci.OCIRuntime) -> None:
    """On cgroup v1 it writes to the place of the unified hierarchy as well, where none is mounted."""

    def there() -> set[Path]:
        return set(Path(detection.UNIFIED).iterdir()) if cgroups.read().layout == "v1" and os.path.isdir(detection.UNIFIED) else set()

    before = there()
    pyoci.run(["true"], runtime=runtime)
    pyoci.run(["no-such-program"], runtime=runtime)
    pyoci.run(["true"], runtime=runtime, monitor="direct")
    pyoci.run(["true"], runtime=made(runtime, conmon_cgroup="separate"))
    assert there() == before


def test_conmon_that_ends_at_once_is_the_explanation(runtime: pyoci.OCIRuntime, build: Build, parent: str, tmp_path: Path) -> None:
    conmon = script(tmp_path / "conmon", "echo out of order >&2; exit 3")
    strict = made(runtime, conmon_path=conmon, cgroup_parent=parent, conmon_cgroup="separate", strict_cgroups=True)
    with pytest.raises(pyoci.ConmonError, match="out of order"):
        strict.create(build("true"))


def test_row_27_an_id_that_lives_elsewhere_is_left_alone(runtime: pyoci.OCIRuntime, build: Build, parent: str, tmp_path: Path) -> None:
    options = {"cgroup_parent": parent, "conmon_cgroup": "separate"}
    with made(runtime, **options).create(build(*FOREVER), id="placed") as container:
        container.start()
        other = Path(runtime.state_dir, "other")
        with pytest.raises(ContainerExists, match="another state directory"):
            pyoci.OCIRuntime(runtime.runtime_path, state_dir=other, **options).create(build("true"), id="placed")  # type: ignore[arg-type]
        assert container.state() == "running"
        container.kill()
        shutil.rmtree(other)


def test_row_27_a_given_cgroup_in_which_others_live_is_left_alone(runtime: pyoci.OCIRuntime, build: Build, parent: str) -> None:
    config = build("/no/such/program")
    config["linux"]["cgroupsPath"] = f"{parent}/theirs"
    directory = cgroups.read().directories(f"{parent}/theirs")[0]
    os.makedirs(directory)
    if "cpuset" in directory:
        pytest.skip("the first hierarchy would have to be set up")
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as living:
        Path(directory, "cgroup.procs").write_text(str(living.pid))
        with pytest.raises(CgroupError, match="must be this container's alone"):
            runtime.create(config)
        assert living.poll() is None
    assert cgroups.remove([directory]) == {}


def test_row_27_what_an_earlier_process_left_is_taken_over(runtime: pyoci.OCIRuntime, build: Build, parent: str) -> None:
    for directory in cgroups.read().directories(f"{parent}/pyoci-placed/conmon")[:1]:
        os.makedirs(directory)
    with made(runtime, cgroup_parent=parent, conmon_cgroup="separate", strict_cgroups=True).create(build("true"), id="placed"):
        pass


def test_row_27_a_busy_cgroup_is_waited_for_and_a_missing_one_is_fine(runtime: pyoci.OCIRuntime, build: Build, parent: str) -> None:
    container = made(runtime, cgroup_parent=parent, conmon_cgroup="separate").create(build("true"), id="placed")
    container.start()
    container.wait(20)
    directories = cgroups.read().directories(f"{parent}/pyoci-placed/conmon")
    with subprocess.Popen(["sleep", "0.3"]) as busy:
        Path(directories[0], "cgroup.procs").write_text(str(busy.pid))
        if len(directories) > 1:
            assert container.conmon_pid is None or container.exit_status is not None
            while container.conmon_pid is not None:
                time.sleep(0.01)
            os.rmdir(directories[1])
        container.delete()
    assert not any(map(os.path.lexists, cgroups.read().directories(f"{parent}/pyoci-placed")))


def test_row_27_a_busy_cgroup_is_not_waited_for_without_end(parent: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    directories = cgroups.read().directories(f"{parent}/busy")
    os.makedirs(directories[0])
    from pyoci.waiting import drive

    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as busy:
        Path(directories[0], "cgroup.procs").write_text(str(busy.pid))
        drive(cgroups.clear(directories, 0.1))
        assert busy.poll() is None  # not ours to kill
    assert f"{directories[0]} (Device or resource busy)" in caplog.text
    assert cgroups.remove(directories) == {}


def test_where_it_cannot_be_that_is_said_once(runtime: pyoci.OCIRuntime, build: Build, caplog: pytest.LogCaptureFixture) -> None:
    config = build("sleep", "100")
    config["linux"]["cgroupsPath"] = f"/pyoci-{os.getpid()}"
    tried = made(runtime, cgroup_parent="/cgroup.procs", conmon_cgroup="separate")
    with caplog.at_level(logging.WARNING, "pyoci"):
        for _ in range(2):
            with tried.create(config) as container:
                assert paths_of(container.conmon_pid) == paths_of(os.getpid())
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["conmon cannot have a cgroup of its own"]
    with pytest.raises(CgroupError, match="making the cgroup"):
        made(runtime, cgroup_parent="/cgroup.procs", conmon_cgroup="separate", strict_cgroups=True).create(config)


def test_placed_for_asyncio(runtime: pyoci.OCIRuntime, build: Build, parent: str) -> None:
    async def main() -> None:
        options = {"cgroup_parent": parent, "conmon_cgroup": "separate", "strict_cgroups": True}
        other = aio.OCIRuntime(runtime.runtime_path, state_dir=runtime.state_dir, **options)  # type: ignore[arg-type]
        async with await other.create(build("sleep", "100"), "placed") as container:
            assert set(paths_of(container.conmon_pid).values()) == {f"{parent}/pyoci-placed/conmon"}

    asyncio.run(main())


DELEGATED = """
import os, sys, pyoci
from pyoci import rootfs, spec
cgroup = lambda pid: open(f"/proc/{pid}/cgroup").read().splitlines()[-1]
runtime = pyoci.OCIRuntime(sys.argv[1], state_dir=sys.argv[2], strict_cgroups=True)
with runtime.create(spec.build(["sleep", "100"], rootfs=rootfs.builtin(), read_only=True), "placed") as container:
    assert cgroup(container.conmon_pid) == f"{sys.argv[3]}/pyoci-placed/conmon", cgroup(container.conmon_pid)
    assert cgroup(container.pid) == f"{sys.argv[3]}/pyoci-placed/container", cgroup(container.pid)
    container.start()
    container.pause()
    assert container.state() == "paused"
    container.delete(force=True)  # it has no handler for TERM
"""


@pytest.mark.host("v2", "systemd", "debian13", "guest")
def test_an_ordinary_user_s_delegated_cgroup(runtime: pyoci.OCIRuntime) -> None:
    user = 64321
    own = paths_of(os.getpid())[""].rstrip("/")
    mount, path = cgroups.read().mounts[""], f"{own}/pyoci-delegated"
    home = Path(runtime.state_dir).parent.parent / f"pyoci-home-{os.getpid()}"
    home.mkdir(mode=0o700)
    os.chown(home, user, user)
    os.makedirs(f"{mount}{path}/session")
    for directory, _, files in os.walk(f"{mount}{path}"):
        for changed in (directory, *(f"{directory}/{name}" for name in files)):
            os.chown(changed, user, user)
    # The shell enters, and then becomes the user.
    environment = {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", "HOME": str(home), "XDG_RUNTIME_DIR": str(home), "PYTHONPATH": os.getcwd()}
    become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", sys.executable, "-c"]
    enter = ["sh", "-c", f'echo 0 > "{mount}{path}/session/cgroup.procs" && exec "$@"', "sh", *become]
    try:
        if subprocess.run([*enter, "import pyoci.runtime"], env=environment, capture_output=True, check=False).returncode != 0:
            pytest.skip("needs the host's Python and the checkout to be readable for other users")
        command = [*enter, DELEGATED, runtime.runtime_path, str(home / "state"), f"0::{path}/session"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
    finally:
        shutil.rmtree(home)
        assert cgroups.remove([f"{mount}{path}"]) == {}


# --- systemd ----------------------------------------------------------------------------------------------------------------------


@on_systemd
@pytest.mark.usefixtures("no_scope_is_left")
@pytest.mark.parametrize("slice", [None, "pyoci-tests.slice"])
def test_scopes(runtime: pyoci.OCIRuntime, build: Build, slice: str | None) -> None:
    where = "/system.slice" if slice is None else "/pyoci.slice/pyoci-tests.slice"
    placed = made(runtime, cgroup_manager="systemd", cgroup_parent=slice, strict_cgroups=True)
    for id in ("a", "b.c-d_e"):  # the second on the connection of the first
        with placed.create(build(*FOREVER), id=id) as container:
            assert paths_of(container.conmon_pid)[""] == f"{where}/pyoci-conmon-{id}.scope"
            assert paths_of(container.pid)[""].startswith(f"{where}/pyoci-{id}.scope")
            assert scopes() >= {f"pyoci-{id}.scope", f"pyoci-conmon-{id}.scope"}  # the first one's conmon may just be going
            container.start()
            container.pause()
            assert container.state() == "paused"
            with pytest.raises(ContainerStateError, match="it is paused"):
                container.exec(["true"])
            container.resume()
            assert container.stop(timeout=20).code == 0


@on_systemd
@pytest.mark.usefixtures("no_scope_is_left")
def test_row_27_a_scope_of_an_id_that_lives_elsewhere_is_left_alone(runtime: pyoci.OCIRuntime, build: Build) -> None:
    with made(runtime, cgroup_manager="systemd").create(build(*FOREVER), id="placed") as container:
        container.start()
        other = Path(runtime.state_dir, "other")
        with pytest.raises(ContainerExists, match="another state directory"):
            pyoci.OCIRuntime(runtime.runtime_path, state_dir=other, cgroup_manager="systemd").create(build("true"), id="placed")
        assert container.state() == "running"
        assert scopes() == {"pyoci-placed.scope", "pyoci-conmon-placed.scope"}
        shutil.rmtree(other)


@on_systemd
@pytest.mark.usefixtures("no_scope_is_left")
def test_scopes_awaited(runtime: pyoci.OCIRuntime, build: Build) -> None:
    async def main() -> None:
        other = aio.OCIRuntime(runtime.runtime_path, state_dir=runtime.state_dir, cgroup_manager="systemd", strict_cgroups=True)

        async def life(id: str) -> None:
            async with await other.create(build("sleep", "100"), id) as container:
                assert paths_of(container.conmon_pid)[""] == f"/system.slice/pyoci-conmon-{id}.scope"

        await asyncio.gather(*(life(f"n{i}") for i in range(4)))

    asyncio.run(main())


@on_systemd
@pytest.mark.usefixtures("no_scope_is_left")
def test_a_failed_create_leaves_no_scope(runtime: pyoci.OCIRuntime, build: Build, tmp_path: Path) -> None:
    placed = made(runtime, cgroup_manager="systemd", strict_cgroups=True)
    with pytest.raises(CreateError):
        placed.create(build("true", mounts=[{"destination": "/x", "type": "nonsense", "source": "nonsense"}]))
    hanging = pyoci.OCIRuntime(script(tmp_path / "runtime", HANGS_IN_CREATE), state_dir=runtime.state_dir, cgroup_manager="systemd", create_timeout=1)
    with pytest.raises(Timeout):
        hanging.create(build("true"))


@on_systemd
@pytest.mark.usefixtures("no_scope_is_left")
@pytest.mark.parametrize("fault", ["missing", "slow"])
def test_row_28_the_fallback(
    runtime: pyoci.OCIRuntime, build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    monkeypatch.setattr(systemd, "addresses", lambda: [(str(tmp_path / "bus"), False)])
    monkeypatch.setattr(systemd, "SCOPE_TIMEOUT", 0.3)
    with socket.socket(socket.AF_UNIX) as silent:
        if fault == "slow":
            silent.bind(str(tmp_path / "bus"))
            silent.listen()
        with made(runtime, cgroup_manager="systemd").create(build("sleep", "100")) as container:
            assert paths_of(container.conmon_pid) == paths_of(os.getpid())
            assert paths_of(container.pid)[""].startswith(f"/system.slice/pyoci-{container.id}.scope")
        assert "conmon cannot have a cgroup of its own, because systemd made no scope" in caplog.text
        with pytest.raises(CgroupError, match="systemd made no scope"):
            made(runtime, cgroup_manager="systemd", strict_cgroups=True).create(build("true"))


@on_systemd
@pytest.mark.usefixtures("no_scope_is_left")
def test_row_28_the_bus_is_restarted(runtime: pyoci.OCIRuntime, build: Build) -> None:
    placed = made(runtime, cgroup_manager="systemd", strict_cgroups=True)
    for _ in range(2):
        with placed.create(build("sleep", "100")) as container:
            assert paths_of(container.conmon_pid)[""] == f"/system.slice/pyoci-conmon-{container.id}.scope"
        subprocess.run(["systemctl", "restart", "dbus.service"], check=True, timeout=60, capture_output=True)


@on_systemd
@pytest.mark.usefixtures("no_scope_is_left")
def test_row_28_systemd_without_a_bus(runtime: pyoci.OCIRuntime, build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "addresses", lambda: [(str(tmp_path / "none"), False), ("/run/systemd/private", True)])
    placed = made(runtime, cgroup_manager="systemd", strict_cgroups=True)
    for _ in range(2):
        with placed.create(build("sleep", "100")) as container:
            assert paths_of(container.conmon_pid)[""] == f"/system.slice/pyoci-conmon-{container.id}.scope"
