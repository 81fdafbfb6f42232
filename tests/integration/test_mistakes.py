"""What a newcomer types wrong first: each mistake is answered by one clear message that says what to do, and leaves nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pyoci
from tests.containers import Build

RUN: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"args": "echo hi"}, pyoci.InvalidOption, r"list of strings, not 'echo hi'; for a shell: \['sh', '-c', 'echo hi'\]"),
    ({"args": []}, pyoci.InvalidOption, "non-empty list"),
    ({"rootfs": "/nonexistent"}, pyoci.InvalidSpec, r"root\.path: /nonexistent does not exist"),
    ({"rootfs": "/etc/passwd"}, pyoci.InvalidSpec, "/etc/passwd is not a directory"),
    ({"mounts": ["/nonexistent:/mnt"]}, pyoci.InvalidOption, "source of the mount .* does not exist: /nonexistent"),
    ({"mounts": ["/etc"]}, pyoci.InvalidOption, r"SOURCE:DESTINATION\[:ro\]"),
    ({"mounts": ["/etc/passwd:/tmp"]}, pyoci.CreateError, "(?i)not a directory.*what to try: one of source and destination"),
    ({"memory": "lots"}, pyoci.InvalidOption, 'such as "64M"'),
    ({"pids": 0}, pyoci.InvalidOption, "pids must be a whole number from 1 on"),
    ({"cpus": 0}, pyoci.InvalidOption, r"from 0\.01 on"),
    ({"cwd": "tmp"}, pyoci.InvalidSpec, "must be an absolute path, not 'tmp'"),
    ({"user": "nobody2"}, pyoci.InvalidOption, "there is no 'nobody2' in .*/etc/passwd; give a number"),
    ({"hostname": "a" * 100}, pyoci.InvalidOption, "at most 64 bytes"),
    ({"network": "bridge"}, pyoci.InvalidOption, '"private", "host" or the absolute path'),
    ({"network": "/run/netns/nosuch"}, pyoci.InvalidSpec, "/run/netns/nosuch does not exist"),
    ({"timeout": "5"}, pyoci.InvalidOption, "timeout must be a number of seconds, not '5'"),
    ({"input": "x"}, pyoci.InvalidOption, "give bytes, or text=True"),
    ({"id": "a/b"}, pyoci.InvalidID, "letters, digits"),
]


@pytest.mark.root
@pytest.mark.parametrize(("options", "error", "words"), RUN, ids=[next(iter(options)) + str(i) for i, (options, _, _) in enumerate(RUN)])
def test_run(runtime: pyoci.OCIRuntime, options: dict[str, Any], error: type[Exception], words: str) -> None:
    given = {"args": ["true"], **options}
    with pytest.raises(error, match=words):
        pyoci.run(given.pop("args"), runtime=runtime, **given)
    assert runtime.list() == []


def test_a_program_that_is_not_there(runtime: pyoci.OCIRuntime, build: Build) -> None:
    assert pyoci.run(["nosuch"], runtime=runtime).returncode == 127
    with pytest.raises(pyoci.CreateError, match=r"(?s)creating 'job': the runtime failed: .*nosuch.*not found"):
        runtime.create(build("nosuch"), "job")


@pytest.mark.root
def test_a_memory_limit_that_is_too_low(runtime: pyoci.OCIRuntime, has_controller: Callable[[str], None]) -> None:
    has_controller("memory")
    try:
        done = pyoci.run(["true"], runtime=runtime, memory="100K")
    except pyoci.CreateError as error:
        assert "what to try: give a larger memory limit" in str(error)
    else:
        assert done.oom_killed or done.returncode == -9


SPECS: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda c: c["linux"].update(sysctl={"kernel.foo": "1"}), r"what to try: a container has sysctls of its own namespaces"),
    (lambda c: c["process"].update(apparmorProfile="nosuch"), r"what to try: is AppArmor on"),
    (lambda c: c["linux"].update(seccomp={"defaultAction": "SCMP_ACT_NOPE"}), r"SCMP_ACT_NOPE.*what to try: look at linux\.seccomp"),
    (lambda c: c.update(hooks={"createRuntime": [{"path": "/nonexistent/hook"}]}), r"hook.*"),
]


@pytest.mark.root
@pytest.mark.parametrize(("change", "words"), SPECS)
def test_specs(runtime: pyoci.OCIRuntime, build: Build, change: Callable[[dict[str, Any]], object], words: str) -> None:
    config = build("true")
    change(config)
    with pytest.raises(pyoci.CreateError, match=f"(?s)^creating 'job': the runtime failed: .*{words}") as caught:
        runtime.create(config, "job")
    assert "level=error" not in str(caught.value)


def test_bundles(runtime: pyoci.OCIRuntime, tmp_path: Path) -> None:
    for content, words in (
        (None, "has no config.json"),
        ("{", "not JSON"),
        ("[]", "must be a JSON object, not a list"),
        ("{}", "ociVersion: is missing"),
    ):
        if content is not None:
            (tmp_path / "config.json").write_text(content)
        with pytest.raises(pyoci.InvalidSpec, match=words):
            runtime.create(tmp_path)
    with pytest.raises(pyoci.InvalidSpec, match="no such bundle directory"):
        runtime.create("/nonexistent")


def test_places_and_programs(state_dir: str) -> None:
    with pytest.raises(pyoci.ExecutableError, match=r"'youki' was not found in .*; install it"):
        pyoci.run(["true"], runtime="youki", state_dir=state_dir)
    with pytest.raises(pyoci.ExecutableError, match="/usr/bin: it is a directory"):
        pyoci.OCIRuntime("/usr/bin", state_dir=state_dir)
    with pytest.raises(pyoci.StateDirError, match="/etc/passwd: there is a file of that name; give another place"):
        pyoci.OCIRuntime(state_dir="/etc/passwd")
    with pytest.raises(pyoci.StateDirError, match="of our own that nobody else can write to"):
        pyoci.OCIRuntime(state_dir="/tmp")
