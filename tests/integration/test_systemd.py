"""Below systemd by the two command lines: containers in its scopes, readiness that a unit waits for, and where there is no systemd."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import pyoci
from tests.commands import pyoci_command
from tests.containers import Build, scopes
from tests.ociruntime import CHECKOUT, TIMEOUT, Command, eventually, make_bundle, podman_with

pytestmark = [pytest.mark.host("systemd", "debian13", "guest"), pytest.mark.usefixtures("no_scope_is_left")]

SLICE, SLICE_PATH = "pyoci-tests.slice", "/pyoci.slice/pyoci-tests.slice"
LATER = ("sh", "-c", "trap 'exit 4' TERM; sleep 100 & wait")


@pytest.fixture
def command(runtime_name: str, state_dir: str) -> Command:
    return Command(state_dir, runtime_name)


@pytest.fixture
def how(runtime: pyoci.OCIRuntime) -> list[str]:
    """Options of whatever makes a container."""
    return ["--state-dir", runtime.state_dir, "--runtime", runtime.runtime_path, "--cgroup-manager", "systemd", "--strict-cgroups"]


def cgroup_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cgroup").read_text().splitlines()[-1].removeprefix("0::")


# --- pyoci-runtime ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "scope", "place"), [(None, "pyoci-job.scope", "/system.slice"), (f"{SLICE}:given:one", "given-one.scope", SLICE_PATH)]
)
def test_pyoci_runtime_in_a_scope(command: Command, build: Build, tmp_path: Path, given: str | None, scope: str, place: str) -> None:
    config = build(*LATER)
    if given is not None:
        config["linux"]["cgroupsPath"] = given
    command.detached("--systemd-cgroup", "create", "--bundle", make_bundle(tmp_path / "bundle", config), "job")
    assert scopes() == {scope}
    pid = command.state("job")["pid"]
    own = cgroup_of(pid)
    assert f"{own}/".startswith(f"{place}/{scope}/")
    # The later verbs know it without being told.
    command.ok("start", "job")
    assert command.ok("exec", "job", "cat", "/proc/self/cgroup").splitlines()[-1] == f"0::{own}"
    command.ok("pause", "job")
    assert command.state("job")["status"] == "paused"
    assert "it is paused" in command.refused("exec", "job", "true", code=255)
    command.ok("resume", "job")
    eventually(lambda: len(json.loads(command.ok("ps", "--format", "json", "job"))) == 2, "its program works")
    command.ok("kill", "job")
    eventually(lambda: command.state("job")["status"] == "stopped", "it ends")
    command.ok("delete", "job")
    assert scopes() == set()


def test_pyoci_runtime_run_and_what_fails_leave_no_scope(command: Command, build: Build, tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    config = build("sh", "-c", "tail -n 1 /proc/self/cgroup; exit 7")
    config["linux"]["cgroupsPath"] = "system.slice::one"
    done = command("--systemd-cgroup", "run", "--bundle", make_bundle(path, config), "job")
    assert (done.returncode, b"0::/system.slice/-one.scope" in done.stdout, scopes()) == (7, True, set())
    make_bundle(path, build("nosuchprogram"))
    assert b"nosuchprogram" in command("--systemd-cgroup", "create", "--bundle", str(path), "job").stderr
    config = build(*LATER)
    config["linux"]["cgroupsPath"] = "/jobs/one"
    assert "SLICE:PREFIX:NAME" in command.refused("--systemd-cgroup", "create", "--bundle", make_bundle(path, config), "job")
    assert command.ok("list", "-q") == ""
    assert scopes() == set()


# --- pyoci ------------------------------------------------------------------------------------------------------------------------


def test_pyoci_in_scopes(how: list[str], rootfs: str) -> None:
    state_dir = how[:2]

    def said(verb: str, *argv: str) -> str:
        done = pyoci_command(verb, *state_dir, *argv)
        assert done.returncode == 0, (verb, argv, done.stderr)
        return done.stdout.decode()

    done = pyoci_command("run", *how, "--cgroup-parent", SLICE, "--", "sh", "-c", "cat /proc/self/cgroup; exit 3")
    assert done.returncode == 3, done.stderr
    eventually(lambda: scopes() == set(), "conmon's scope goes a moment after conmon")
    assert done.stdout.decode().splitlines()[-1].startswith(f"0::{SLICE_PATH}/pyoci-")

    created = json.loads(said("create", *how[2:], "--id", "job", "--json", "--", *LATER))
    assert scopes() == {"pyoci-job.scope", "pyoci-conmon-job.scope"}
    assert cgroup_of(created["conmon_pid"]) == "/system.slice/pyoci-conmon-job.scope"
    said("start", "job")
    eventually(lambda: len(said("ps", "-q", "job").split()) == 2, "its program works")
    assert {cgroup_of(int(pid)) for pid in said("ps", "-q", "job").split()} == {cgroup_of(created["pid"])}
    assert said("exec", "job", "cat", "/proc/self/cgroup").splitlines()[-1] == f"0::{cgroup_of(created['pid'])}"
    said("pause", "job")
    assert json.loads(said("list", "--json"))["state"] == "paused"
    refused = pyoci_command("exec", *state_dir, "job", "true")
    assert (refused.returncode, refused.stderr) == (125, b"pyoci: cannot exec in 'job': it is paused\n")
    assert said("prune") == ""  # it lives
    said("resume", "job")
    said("pause", "job")
    said("stop", "job")  # thaws it
    assert said("wait", "job") == "4\n"
    (pruned,) = map(json.loads, said("prune", "--json").splitlines())
    assert (pruned["kind"], pruned["id"], pruned["status"]["code"]) == ("container", "job", 4)
    assert said("list", "-q") == ""


# --- readiness --------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def usr(tmp_path: Path) -> list[str]:
    """The options that show a container this host's programs, systemd-notify among them."""
    for name in ("usr", "proc", "dev", "sys", "run", "tmp", "etc"):
        (tmp_path / "root" / name).mkdir(parents=True)
    for link in ("bin", "sbin", "lib", "lib64"):
        if os.path.islink(f"/{link}"):
            (tmp_path / "root" / link).symlink_to(f"usr/{link}")
    return ["--rootfs", f"{tmp_path}/root", "--read-only", "--mount", "/usr:/usr:ro"]


NOTIFY = "sleep 0.3; systemd-notify --ready --no-block; sleep 100"


def test_run_waits_until_the_program_is_ready(how: list[str], usr: list[str], state_dir: str) -> None:
    path = f"{state_dir}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours:
        ours.bind(path)
        ours.settimeout(TIMEOUT)
        argv = [sys.executable, "-m", "pyoci", "run", *how, "--detach", "--id", "job", "--notify-socket", path, *usr, "--", "sh", "-c", NOTIFY]
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as run:
            data, fds, *_ = socket.recv_fds(ours, 4096, 4)
            assert data.startswith(b"READY=1")
            # What crun sends after it, as sd_notify_barrier(3) does, it waits for.
            while fds or run.poll() is None:
                for fd in fds:
                    os.close(fd)
                ours.settimeout(0.1)
                try:
                    data, fds, *_ = socket.recv_fds(ours, 4096, 4)
                except TimeoutError:
                    fds = []
            assert run.communicate(timeout=TIMEOUT)[0] == b"job\n"
        assert pyoci_command("delete", *how[:2], "-f", "job").returncode == 0
    os.unlink(path)


def test_a_unit_is_started_when_the_program_is_ready(how: list[str], usr: list[str]) -> None:
    """READY=1 of the runtime, which is not the unit's main process, does not count there."""
    unit = f"pyoci-tests-{os.getpid()}.service"
    argv = ["systemd-run", "--quiet", "--collect", f"--unit={unit}", "--property=Type=notify", f"--setenv=PYTHONPATH={CHECKOUT}"]
    argv += [sys.executable, "-m", "pyoci", "run", *how, "--id", "job", "--notify-socket", "${NOTIFY_SOCKET}", *usr, "--", "sh", "-c", NOTIFY]
    subprocess.run(argv, check=True, timeout=TIMEOUT)
    try:
        row = json.loads(pyoci_command("list", *how[:2], "--json").stdout)
        show = ["systemctl", "show", "--property=ActiveState,MainPID", "--value", unit]
        active, main = sorted(subprocess.run(show, check=True, capture_output=True, text=True, timeout=TIMEOUT).stdout.split(), reverse=True)
        assert (row["state"], active) == ("running", "active")
        assert b"pyoci" in Path(f"/proc/{main}/cmdline").read_bytes()
        assert scopes() == {"pyoci-job.scope", "pyoci-conmon-job.scope"}
    finally:
        subprocess.run(["systemctl", "stop", unit], check=True, timeout=TIMEOUT)
    assert pyoci_command("list", *how[:2], "-q").stdout == b""


# --- an ordinary user's -----------------------------------------------------------------------------------------------------------

USER = 64323
MANAGER = f"user@{USER}.service"
BUS_CONF = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>systemd:</listen><auth>EXTERNAL</auth><policy context="default">
<allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>
"""
BUS = "unix:path=/run/user/%i/bus"
UNITS = {
    # What libpam-systemd and dbus-user-session would bring.
    f"system/{MANAGER}.d/tests.conf": f"[Service]\nPAMName=\nEnvironment=XDG_RUNTIME_DIR=/run/user/%i DBUS_SESSION_BUS_ADDRESS={BUS}\n",
    "user/dbus.socket": "[Socket]\nListenStream=%t/bus\n",
    "user/dbus.service": "[Unit]\nRequires=dbus.socket\n[Service]\nType=notify\n"
    "ExecStart=/usr/bin/dbus-daemon --config-file=/run/systemd/user/bus.conf --address=systemd: --nofork --nopidfile --systemd-activation\n",
    "user/bus.conf": BUS_CONF,
}


@pytest.fixture(scope="module")
def as_user() -> Iterator[list[str]]:
    """What stands before a command that a user with a systemd and a bus of its own calls: it becomes a unit of that systemd's, whose cgroups are
    the user's."""
    for accounts, line in (("passwd", f"pyoci-tests:x:{USER}:{USER}::/nonexistent:/bin/sh\n"), ("group", f"pyoci-tests:x:{USER}:\n")):
        with open(f"/etc/{accounts}", "a") as file:
            file.write(line)
    for name, content in UNITS.items():
        path = Path("/run/systemd", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    runtime_dir = f"/run/user/{USER}"
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": CHECKOUT, "HOME": runtime_dir, "XDG_RUNTIME_DIR": runtime_dir}
    env["DBUS_SESSION_BUS_ADDRESS"] = BUS.replace("%i", str(USER))
    user = ["env", "-i", *(f"{name}={value}" for name, value in env.items()), "setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    try:
        for argv in (["systemctl", "daemon-reload"], ["systemctl", "start", MANAGER], [*user, "systemctl", "--user", "start", "dbus.service"]):
            subprocess.run(argv, check=True, timeout=TIMEOUT)
        unit = ["systemd-run", "--user", "--quiet", "--wait", "--pipe", "--collect", "--property=KillMode=process"]
        yield [*user, *unit, *(f"--setenv={name}" for name in env), f"--working-directory={CHECKOUT}"]
    finally:
        subprocess.run(["systemctl", "stop", MANAGER], check=True, timeout=TIMEOUT)


def test_scopes_of_a_user_s_own_systemd(as_user: list[str], runtime_name: str) -> None:
    def said(*argv: str, code: int = 0) -> str:
        # No input: what is piped is waited for.
        whole = [*as_user, sys.executable, "-m", "pyoci", *argv]
        done = subprocess.run(whole, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        assert done.returncode == code, (argv, done.stdout, done.stderr)
        return done.stdout

    how = ("--runtime", runtime_name, "--cgroup-manager", "systemd", "--strict-cgroups")
    place = f"0::/user.slice/user-{USER}.slice/{MANAGER}/user.slice/pyoci-"
    assert said("run", *how, "--", "sh", "-c", "cat /proc/self/cgroup; exit 3", code=3).splitlines()[-1].startswith(place)
    said("run", "--detach", "--id", "job", *how, "--", *LATER)
    said("pause", "job")
    assert json.loads(said("list", "--json"))["state"] == "paused"
    said("delete", "--force", "job")
    assert said("list", "-q") == ""


@pytest.mark.host("systemd")
def test_podman_of_a_user_with_a_systemd(as_user: list[str], command: Command, rootfs: str, tmp_path: Path) -> None:
    """pyoci-runtime is root of podman's user namespace then, and its scopes are made by the systemd of the user outside."""
    base = tempfile.mkdtemp(prefix="pyoci-podman-", dir=f"/run/user/{USER}")
    command.root = f"{base}/oci"
    command.argv[command.argv.index("--root") + 1] = command.root
    shutil.copytree(rootfs, f"{base}/rootfs", symlinks=True)
    os.makedirs(f"{base}/rootfs/etc", exist_ok=True)
    script = command.script(Path(base, "script"))
    subprocess.run(["chown", "-hR", f"{USER}:{USER}", base], check=True)
    podman = [*as_user, *podman_with(f"{base}/p", script, "systemd")]

    def call(*argv: str, code: int = 0) -> str:
        done = subprocess.run([*podman, *argv], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        assert done.returncode == code, (argv, done.stdout, done.stderr)
        return done.stdout

    # The host has no pids controller.
    how = ("--network", "none", "--cgroupns", "host", "--pids-limit", "-1", "--read-only", "--rootfs", f"{base}/rootfs")
    place = f"/user.slice/user-{USER}.slice/{MANAGER}/user.slice/libpod-"
    assert call("run", "--rm", *how, "sh", "-c", "cat /proc/self/cgroup; exit 7", code=7).splitlines()[-1].startswith(f"0::{place}")
    call("run", "--rm", *how, "nosuchprogram", code=127)
    call("run", "--detach", "--name", "job", *how, "sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.05; done")
    assert call("exec", "job", "sh", "-c", "echo in; exit 4", code=4) == "in\n"
    [record] = Path(command.root, "containers").glob("*/record.json")
    assert json.loads(record.read_text())["cgroups_path"].startswith(place)
    call("pause", "job")
    call("unpause", "job")
    call("stop", "job")
    assert call("inspect", "--format", "{{.State.ExitCode}}", "job") == "3\n"
    call("rm", "job")
    call("system", "migrate")
    shutil.rmtree(base)


# --- where there is none ----------------------------------------------------------------------------------------------------------

WITHOUT = 'mount -t tmpfs none /run/systemd && exec "$@"'


def test_without_systemd_that_is_one_clear_line(how: list[str], command: Command, build: Build, tmp_path: Path) -> None:
    said = "systemd was to manage the cgroups, and does not run (there is no /run/systemd/system); the default, cgroupfs, needs none"
    bundle = make_bundle(tmp_path / "bundle", build("true"))
    ours = [sys.executable, "-m", "pyoci"]
    for code, argv in (
        (125, [*ours, "run", *how, "true"]),
        (125, [*ours, "run", *how, "--detach", "true"]),
        (125, [*ours, "create", *how, bundle]),
        (1, [*command.argv, "--systemd-cgroup", "create", "--bundle", bundle, "job"]),
        (1, [*command.argv, "--systemd-cgroup", "run", "--bundle", bundle, "job"]),
    ):
        without = ["unshare", "--mount", "sh", "-c", WITHOUT, "sh", *argv]
        done = subprocess.run(without, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1), done.stderr
        assert said in done.stderr
