"""The shortcuts against the real runtimes: the same outcome with and without, and the command where a hook would be skipped."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import pyoci
from pyoci import lifecycle
from tests.containers import FOREVER, Build, ready


@pytest.mark.parametrize("wanted", [True, False, ("start",), ("delete",), ("state",), ("memfd",)], ids=str)
def test_a_life_is_the_same(runtime_name: str, state_dir: str, build: Build, wanted: bool) -> None:
    runtime = pyoci.OCIRuntime(runtime_name, state_dir=state_dir, shortcuts=wanted)
    with runtime.create(build("sh", "-c", "echo hello; exit 7")) as container:
        assert container.state() == "created"
        container.start()
        with pytest.raises(pyoci.ContainerStateError):
            container.start()
        assert container.wait(20).code == 7
        assert " hello" in Path(container.log_path).read_text()
        assert container.state() == "stopped"


def test_the_runtime_agrees_about_the_state(runtime: pyoci.OCIRuntime, build: Build) -> None:
    with runtime.create(build(*FOREVER)) as container:
        container.start()
        command = [runtime.runtime_path, "--root", f"{runtime.state_dir}/{runtime.name}", "state", container.id]
        assert b'"running"' in subprocess.run(command, capture_output=True, check=True).stdout
        assert container.state() == "running"
        ready(container)


@pytest.mark.root
def test_the_runtime_agrees_about_what_is_told_without_it(runtime: pyoci.OCIRuntime, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    def agree(state: str) -> None:
        command = [runtime.runtime_path, "--root", f"{runtime.state_dir}/{runtime.name}", "state", container.id]
        assert json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["status"] == state
        with monkeypatch.context() as alone:
            alone.delattr(lifecycle.Life, "call")
            assert container.state() == state

    with runtime.create(build(*FOREVER)) as container:
        agree("created")
        container.start()
        ready(container)
        agree("running")
        container.pause()
        agree("paused")
        container.resume()
        agree("running")


def test_one_of_many_starts_succeeds(runtime: pyoci.OCIRuntime, build: Build) -> None:
    def start(container: pyoci.Container) -> bool:
        try:
            container.start()
        except pyoci.ContainerStateError:
            return False
        return True

    for _ in range(3):
        with runtime.create(build(*FOREVER)) as container:
            others = [runtime.load(container.id) for _ in range(8)]
            with ThreadPoolExecutor(8) as pool:
                assert sum(pool.map(start, others)) == 1
            ready(container)


def test_hooks_that_the_commands_run_are_run(runtime: pyoci.OCIRuntime, build: Build, tmp_path: Path) -> None:
    config = build("true")
    config["hooks"] = {stage: [{"path": "/bin/touch", "args": ["touch", str(tmp_path / stage)]}] for stage in ("poststart", "poststop")}
    with runtime.create(config) as container:
        # runc 1.1 runs them at the end of create.
        assert runtime.name == "runc" or not (tmp_path / "poststart").exists()
        container.start()
        assert (tmp_path / "poststart").exists()
        container.wait(20)
        assert not (tmp_path / "poststop").exists()
    assert (tmp_path / "poststop").exists()


def test_hooks_that_read_nothing_do_not_matter(runtime: pyoci.OCIRuntime, build: Build) -> None:
    """crun 1.8.1 dies of SIGPIPE then, in one of ten."""
    config = build("true")
    config["hooks"] = {stage: [{"path": "/bin/true"}] for stage in ("poststart", "poststop")}
    for _ in range(30):
        with runtime.create(config) as container:
            container.start()
            assert container.wait(20).code == 0


def test_a_dead_init_is_not_started(runtime: pyoci.OCIRuntime, build: Build) -> None:
    with runtime.create(build("true")) as container:
        container.kill("KILL")
        container.wait(20)
        with pytest.raises(pyoci.ContainerStateError) as caught:
            container.start()
        assert caught.value.state == "stopped"


@pytest.mark.root
def test_a_loaded_container_takes_the_shortcuts_too(runtime: pyoci.OCIRuntime, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime.create(build("sh", "-c", "exit 3"), "job")
    container = pyoci.Container.load("job", state_dir=runtime.state_dir)
    monkeypatch.setattr("pyoci.lifecycle.invoke", None)  # no command is needed
    container.start()
    assert container.wait(20).code == 3
    container.delete()


def test_stopping_a_created_container_runs_nothing_of_it(runtime: pyoci.OCIRuntime, build: Build, tmp_path: Path) -> None:
    config = build("touch", "/out/ran", mounts=[f"{tmp_path}:/out"])
    container = runtime.create(config)
    container.stop(timeout=0)
    container.delete()
    assert list(tmp_path.iterdir()) == []
