"""conmon's SELinux context, on a machine that has SELinux."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import pyoci
from pyoci import selinux, spec
from tests.containers import FOREVER, Build

pytestmark = pytest.mark.host("guest")

ROOT = Path(__file__).parents[2]

PROGRAM = """
import json, os, sys, threading
import pyoci
from pyoci import selinux

def attributes(task):
    def read(name):
        with open(f"{task}/attr/{name}", "rb", buffering=0) as file:
            return (file.read(4096) or b"").rstrip(b"\\0\\n").decode()
    return [read(name) for name in ("current", "exec", "fscreate", "keycreate", "sockcreate")]

def threads():
    found = {}
    for name in os.listdir("/proc/self/task"):
        try:
            found[name] = attributes(f"/proc/self/task/{name}")
        except FileNotFoundError:
            pass  # the one of the mount namespace, which has ended
    return found

over = threading.Event()
idle = threading.Thread(target=over.wait)
idle.start()
before = threads()
runtime = pyoci.OCIRuntime(sys.argv[1], state_dir=sys.argv[2])
with runtime.create(json.loads(sys.argv[3]), mount_namespace=json.loads(sys.argv[4])) as container:
    container.start()
    told = {"caller": selinux.current(), "label": selinux.conmon_label(), "conmon": attributes(f"/proc/{container.conmon_pid}")}
    told["init"] = attributes(f"/proc/{container.pid}")
after = threads()
over.set()
idle.join()
print(json.dumps({**told, "changed": {name: found for name, found in after.items() if before.get(name) != found}, "threads": len(before)}))
"""


def told(level: str, runtime: pyoci.OCIRuntime, config: dict[str, Any], mount_namespace: bool | None = None) -> dict[str, Any]:
    """What a process of ours at this level tells of itself and of the conmon that it starts."""
    program = [sys.executable, "-c", PROGRAM, runtime.runtime_path, runtime.state_dir, spec.encode(config).decode(), json.dumps(mount_namespace)]
    done = subprocess.run(["runcon", "-l", level, *program], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("level", ["s0-s0:c0.c1023", "s0:c1,c5"])
def test_conmon_runs_in_the_callers_context_at_level_s0(runtime: pyoci.OCIRuntime, build: Build, level: str) -> None:
    found = told(level, runtime, build(*FOREVER))
    assert found["caller"].split(":", 3)[3] == level
    assert found["conmon"] == [selinux.at_level(found["caller"]), "", "", "", ""]
    assert found["init"][0].split(":", 3)[3] == "s0"
    assert found["changed"] == {}
    assert found["threads"] == 2


def test_at_level_s0_the_policy_decides(runtime: pyoci.OCIRuntime, build: Build) -> None:
    found = told("s0", runtime, build(*FOREVER))
    assert found["label"] is None
    assert found["conmon"][0].split(":", 3)[3] == "s0"
    assert found["changed"] == {}


def test_also_from_the_thread_of_the_mount_namespace(runtime: pyoci.OCIRuntime, build: Build) -> None:
    found = told("s0:c7", runtime, build(*FOREVER), True)
    assert found["conmon"] == [selinux.at_level(found["caller"]), "", "", "", ""]
    assert found["changed"] == {}


def test_a_context_that_the_policy_does_not_know_is_an_error(runtime: pyoci.OCIRuntime, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selinux, "conmon_label", lambda: "nobody_u:nobody_r:nobody_t:s0")
    with pytest.raises(pyoci.SpawnError) as caught:
        runtime.create(build("true"))
    assert (caught.value.stage, caught.value.filename) == ("setting the SELinux context", "/proc/self/attr/exec")
    assert os.listdir(f"{runtime.state_dir}/containers") == []
