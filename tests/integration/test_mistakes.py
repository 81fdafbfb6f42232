"""What a newcomer types wrong first: each mistake is answered by one clear message that says what to do, and leaves nothing."""

import io
import math
import os
import pickle
import threading
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
    ({"args": (word for word in ("echo", "hi"))}, pyoci.InvalidOption, "list of strings, not <generator"),
    ({"args": {"echo"}}, pyoci.InvalidOption, "list of strings, not {'echo'}"),
    ({"args": Path("/bin/true")}, pyoci.InvalidOption, "list of strings, not PosixPath"),
    ({"args": ["echo", Path("/x")]}, pyoci.InvalidOption, r"args\[1\] is PosixPath"),
    ({"args": ["echo", "\udc80"]}, pyoci.InvalidSpec, "is not valid text"),
    ({"env": ["A=1"]}, pyoci.InvalidOption, "env must map names to strings"),
    ({"env": {"A": None}}, pyoci.InvalidOption, "env must map names to strings, .* not 'A' to None"),
    ({"env": {"A=B": "x"}}, pyoci.InvalidOption, "without '=' in a name"),
    ({"cwd": Path("/tmp")}, pyoci.InvalidOption, "cwd must be an absolute path in the container, as str"),
    ({"mounts": "/etc:/mnt"}, pyoci.InvalidOption, "mounts must be a list, .* not '/etc:/mnt'"),
    ({"mounts": [("/etc", "/mnt")]}, pyoci.InvalidOption, "or a mapping as in config.json"),
    ({"rootfs": ""}, pyoci.InvalidOption, "rootfs must be a path, not ''"),
    ({"read_only": False}, pyoci.InvalidOption, "the built-in root file system is shared by all: make a copy"),
    ({"user": -1}, pyoci.InvalidOption, r"user must be USER\[:GROUP\].*not -1"),
    ({"user": "1000:"}, pyoci.InvalidOption, r"user must be USER\[:GROUP\]"),
    ({"hostname": ""}, pyoci.InvalidOption, "1 to at most 64 bytes"),
    ({"network": Path("/x")}, pyoci.InvalidOption, "give a path as str"),
    ({"max_output": "5"}, pyoci.InvalidOption, "max_output must be a whole number of bytes"),
    ({"encoding": "nosuch"}, pyoci.InvalidOption, "encoding='nosuch'"),
    ({"errors": "nosuch"}, pyoci.InvalidOption, "errors='nosuch'"),
    ({"input": "\udc80", "text": True}, pyoci.InvalidOption, "input cannot be encoded"),
    ({"on_start": 5}, pyoci.InvalidOption, "on_start must be something that can be called"),
    ({"stdin": pyoci.PIPE}, pyoci.InvalidOption, "nobody could write to it"),
    ({"stdin": io.BytesIO(b"x")}, pyoci.InvalidOption, "stdin=.*it has no descriptor"),
    ({"stdout": 987654}, pyoci.InvalidOption, "descriptor 987654 is not open"),
    ({"memroy": "1M"}, TypeError, r"^run\(\) got an unexpected keyword argument 'memroy'"),
    ({"memory": "lots"}, pyoci.InvalidOption, 'memory must be .* such as "64M"'),
    ({"pids": 0}, pyoci.InvalidOption, "pids must be a whole number from 1 on"),
    ({"cpus": 0}, pyoci.InvalidOption, r"from 0\.01 on"),
    ({"cwd": "tmp"}, pyoci.InvalidSpec, "must be an absolute path, not 'tmp'"),
    ({"user": "nobody2"}, pyoci.InvalidOption, "there is no 'nobody2' in .*/etc/passwd; give a number"),
    ({"hostname": "a" * 100}, pyoci.InvalidOption, "at most 64 bytes"),
    ({"network": "bridge"}, pyoci.InvalidOption, '"private", "host" or the absolute path'),
    ({"network": "/run/netns/nosuch"}, pyoci.InvalidSpec, "/run/netns/nosuch does not exist"),
    ({"timeout": "5"}, pyoci.InvalidOption, "timeout must be a number of seconds, not '5'"),
    ({"timeout": float("nan")}, pyoci.InvalidOption, "timeout must be a number of seconds, not nan"),
    ({"input": "x"}, pyoci.InvalidOption, "give bytes, or text=True"),
    ({"id": "a/b"}, pyoci.InvalidID, "letters, digits"),
]


def test_files_that_are_open_for_the_other_direction(runtime: pyoci.OCIRuntime, tmp_path: Path) -> None:
    with open(tmp_path / "file", "wb") as written, open(tmp_path / "file", "rb") as read:
        for given, words in (({"stdin": written}, "writing"), ({"stdout": read}, "reading"), ({"stderr": read}, "reading")):
            with pytest.raises(pyoci.InvalidOption, match=f"open for {words} only"):
                pyoci.run(["true"], runtime=runtime, **given)


def test_launchers_refuse_at_once(runtime: pyoci.OCIRuntime) -> None:
    wrong: Any = {"memroy": "1M"}
    for make in (pyoci.Launcher, pyoci.aio.Launcher, lambda **options: pyoci.Job(["true"], **options)):
        with pytest.raises(TypeError, match=r"run\(\) has no option 'memroy'; did you mean 'memory'\?"):
            make(**wrong)
    with pytest.raises(pyoci.InvalidOption, match="progress must be something"):
        pyoci.Launcher(progress=5)  # type: ignore[arg-type]
    with pyoci.Launcher(runtime=runtime) as pool:
        with pytest.raises(pyoci.InvalidOption, match=r"has no fileno\(\).*concurrent\.futures\.wait"):
            pyoci.wait([pool.submit(["true"])])  # type: ignore[type-var]
        with pytest.raises(pyoci.InvalidOption, match="not None"):  # and is not taken for the end of the commands
            list(pool.map([["true"], None, ["true"]]))  # type: ignore[list-item]


def test_a_container_is_no_value(runtime: pyoci.OCIRuntime, build: Build) -> None:
    with runtime.create(build("sleep", "100"), "job") as container:
        container.start()
        with pytest.raises(TypeError, match=r"Container job> cannot be pickled .* Container\.load"):
            pickle.dumps(container)
        with pytest.raises(TypeError, match=r"^exec\(\) got an unexpected keyword argument 'timeout'"):
            container.exec(["true"], timeout=1)  # type: ignore[call-arg]
        container.kill()


def test_timeouts_that_are_none(runtime: pyoci.OCIRuntime, build: Build) -> None:
    with runtime.create(build("sleep", "100"), "job") as container:
        container.start()
        for wrong in ("1", float("nan")):
            for call in (container.wait, container.stop):
                with pytest.raises(pyoci.InvalidOption, match="timeout must be a number of seconds"):
                    call(wrong)  # type: ignore[arg-type]
        with pytest.raises(pyoci.InvalidOption, match=r"math\.inf"):
            container.stop(None)  # type: ignore[arg-type]
        container.kill()
    assert pyoci.run(["true"], runtime=runtime, timeout=math.inf).returncode == 0


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


def test_what_is_no_bundle_and_no_runtime(runtime: pyoci.OCIRuntime, build: Build) -> None:
    bundles: list[Any] = [None, 5, [], b"/x", ""]
    for wrong in bundles:
        with pytest.raises(pyoci.InvalidOption, match="bundle must be a"):
            runtime.create(wrong)
    with pytest.raises(TypeError, match=r"^OCIRuntime\.create\(\) got an unexpected keyword argument 'memory'"):
        runtime.create(build("true"), memory="1M")  # type: ignore[call-arg]
    for program, words in (("/bin/true", "without a word: is /bin/true an OCI runtime"), ("/bin/sleep", "what to try: this is no OCI runtime")):
        with pytest.raises(pyoci.CreateError, match=f"(?s){words}"):
            pyoci.run(["true"], runtime=program, state_dir=runtime.state_dir)


def test_an_stderr_that_cannot_be_written_to(runtime: pyoci.OCIRuntime) -> None:
    said = ["sh", "-c", "echo error >&2; echo out"]
    read, write = os.pipe()
    os.close(read)
    with open("/dev/full", "wb") as full, open(write, "wb") as broken:
        for file in (full, broken):
            assert pyoci.run(said, stderr=file, runtime=runtime, timeout=20).stdout in (b"out\n", b"")


def test_an_stderr_that_does_not_block(runtime: pyoci.OCIRuntime) -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    received: list[int] = []

    def reader() -> None:
        with open(read, "rb", buffering=0) as file:
            received.append(sum(len(data) for data in iter(lambda: file.read(4096), b"")))

    thread = threading.Thread(target=reader)
    thread.start()
    with open(write, "wb", buffering=0) as file:
        pyoci.run(["sh", "-c", "head -c 500000 /dev/zero >&2"], stderr=file, runtime=runtime, timeout=20)
    thread.join()
    assert received == [500_000]


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
    with pytest.raises(pyoci.ExecutableError, match=r"'youki' was not found in [^;]*$"):
        pyoci.run(["true"], runtime="youki", state_dir=state_dir)
    with pytest.raises(pyoci.ExecutableError, match="/usr/bin: it is a directory"):
        pyoci.OCIRuntime("/usr/bin", state_dir=state_dir)
    with pytest.raises(pyoci.StateDirError, match="/etc/passwd: there is a file of that name; give another place"):
        pyoci.OCIRuntime(state_dir="/etc/passwd")
    with pytest.raises(pyoci.StateDirError, match="of our own that nobody else can write to"):
        pyoci.OCIRuntime(state_dir="/tmp")
