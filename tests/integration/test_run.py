"""pyoci.run: subprocess.run for containers."""

import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import pyoci
from pyoci import DEVNULL, STDOUT, OutputTooLong, templates
from tests import audit
from tests.containers import status_fields

pytestmark = pytest.mark.everywhere


def test_output_input_and_code(runtime: pyoci.OCIRuntime) -> None:
    done = pyoci.run(["sh", "-c", "cat; echo err >&2; exit 3"], input=b"\x00\xffdata", runtime=runtime)
    assert isinstance(done, subprocess.CompletedProcess)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"\x00\xffdata", b"err\n")
    assert done.args == ["sh", "-c", "cat; echo err >&2; exit 3"]
    assert set(done.timings) == {"create", "start", "wait", "delete", "total"}
    assert sum(done.timings[phase] for phase in ("create", "start", "wait", "delete")) == pytest.approx(done.timings["total"], rel=0.05)
    assert not done.oom_killed


def test_text(runtime: pyoci.OCIRuntime) -> None:
    assert pyoci.run(["cat"], input="grüße\r\n", text=True, runtime=runtime).stdout == "grüße\n"
    assert pyoci.run(["cat"], input="é", encoding="latin-1", runtime=runtime).stdout == "é"
    with pytest.raises(UnicodeDecodeError):
        pyoci.run(["printf", r"\377"], text=True, runtime=runtime)
    assert pyoci.run(["printf", r"\377"], errors="replace", runtime=runtime).stdout == "\N{REPLACEMENT CHARACTER}"
    with pytest.raises(pyoci.InvalidOption, match="text"):
        pyoci.run(["cat"], input="x", runtime=runtime)


def test_stdin_is_empty_and_never_ours(runtime: pyoci.OCIRuntime) -> None:
    assert pyoci.run(["cat"], runtime=runtime, timeout=20).stdout == b""


def test_megabytes_both_ways_at_once(runtime: pyoci.OCIRuntime) -> None:
    data = os.urandom(1 << 20) * 3
    assert pyoci.run(["cat"], input=data, runtime=runtime, timeout=60).stdout == data


def test_a_program_that_reads_nothing_of_its_input(runtime: pyoci.OCIRuntime) -> None:
    assert pyoci.run(["true"], input=b"x" * 1_000_000, runtime=runtime, timeout=20).returncode == 0


def test_signals_are_negative(runtime: pyoci.OCIRuntime) -> None:
    # Only what comes from outside its namespace kills a PID 1: a limit does.
    done = pyoci.run(["sh", "-c", "sh -c 'kill -SEGV $$'; exit $?"], runtime=runtime)
    assert done.returncode == 128 + signal.SIGSEGV


@pytest.mark.parametrize(("command", "code"), [("nope", 127), ("/nope", 127), ("/etc", 126), ("/etc/passwd", 126), ("/bin/busybox/x", 127)])
def test_a_program_that_is_not_there_is_a_result(runtime: pyoci.OCIRuntime, command: str, code: int) -> None:
    done = pyoci.run([command], runtime=runtime)
    assert done.returncode == code
    assert done.stdout == b""
    assert done.stderr
    assert "create" in done.timings


def test_timeout_kills_all_and_keeps_the_partial_output(runtime: pyoci.OCIRuntime) -> None:
    began = time.monotonic()
    with pytest.raises(pyoci.RunTimeout) as caught:
        pyoci.run(["sh", "-c", "trap '' TERM; echo part; sleep 100 & sleep 100"], timeout=0.5, text=True, runtime=runtime)
    assert time.monotonic() - began < 10
    error: Any = caught.value
    assert (error.stdout, error.stderr, error.timeout) == ("part\n", "", 0.5)
    assert isinstance(caught.value, subprocess.TimeoutExpired)
    assert isinstance(caught.value, TimeoutError)
    assert "0.5 s" in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert (again.stdout, again.timeout, str(again)) == (error.stdout, error.timeout, str(error))


def test_check(runtime: pyoci.OCIRuntime) -> None:
    with pytest.raises(pyoci.RunFailed) as caught:
        pyoci.run(["sh", "-c", "echo why >&2; exit 9"], check=True, runtime=runtime)
    assert isinstance(caught.value, subprocess.CalledProcessError)
    assert (caught.value.returncode, caught.value.stderr) == (9, b"why\n")
    assert "9" in str(caught.value)
    assert pickle.loads(pickle.dumps(caught.value)).returncode == 9
    assert pyoci.run(["true"], check=True, runtime=runtime).returncode == 0


def test_output_can_be_bounded(runtime: pyoci.OCIRuntime) -> None:
    with pytest.raises(OutputTooLong) as caught:
        pyoci.run(["sh", "-c", "yes"], max_output=1000, runtime=runtime)
    assert len(caught.value.stdout) == 1000
    assert pyoci.run(["echo", "hi"], max_output=3, runtime=runtime).stdout == b"hi\n"
    with pytest.raises(OutputTooLong):
        pyoci.run(["echo", "hi"], max_output=2, runtime=runtime)


def test_exceptions_hold_no_descriptors(runtime: pyoci.OCIRuntime) -> None:
    """Who keeps those of a thousand containers would have no more left."""
    pyoci.run(["true"], runtime=runtime)
    before = audit.descriptors()
    kept: list[Exception] = []
    too_much: list[dict[str, Any]] = [{"timeout": 0.1, "stdout": DEVNULL}, {"max_output": 10}]
    for options in too_much:
        with pytest.raises((pyoci.RunTimeout, OutputTooLong)) as caught:
            pyoci.run(["yes"], runtime=runtime, **options)
        kept.append(caught.value)
    assert audit.descriptors() <= before


def test_streams_to_files_and_together(runtime: pyoci.OCIRuntime, tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out:
        done = pyoci.run(["sh", "-c", "echo to-file; echo err >&2"], stdout=out, runtime=runtime)
    assert done.stdout is None
    assert done.stderr == b"err\n"
    assert (tmp_path / "out").read_bytes() == b"to-file\n"
    assert pyoci.run(["sh", "-c", "echo a; echo b >&2"], stderr=STDOUT, runtime=runtime).stdout == b"a\nb\n"
    assert pyoci.run(["echo", "x"], stdout=DEVNULL, stderr=DEVNULL, runtime=runtime).stdout is None
    with (tmp_path / "out").open("rb") as source:
        assert pyoci.run(["cat"], stdin=source, runtime=runtime).stdout == b"to-file\n"


@pytest.mark.root
def test_the_container_is_as_it_was_asked_for(runtime: pyoci.OCIRuntime, tmp_path: Path) -> None:
    (tmp_path / "word").write_text("mounted\n")
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)  # the container's user is another one
    script = "id -u; id -g; pwd; hostname; echo $WORD; cat /tmp/m/word; touch /tmp/m/new; touch /x; echo $$; ls /proc | grep -c '^[0-9]'"
    done = pyoci.run(
        ["sh", "-c", script],
        user="65534:5",
        cwd="/var",
        hostname="box",
        env={"WORD": "said"},
        mounts=[f"{tmp_path}:/tmp/m:ro"],
        text=True,
        runtime=runtime,
    )
    lines = done.stdout.splitlines()
    assert lines[:5] == ["65534", "5", "/var", "box", "said"]
    assert lines[5:7] == ["mounted", "1"]
    assert done.stderr.count("Read-only file system") == 2
    assert not (tmp_path / "new").exists()


def test_privileges_are_dropped(runtime: pyoci.OCIRuntime) -> None:
    status = pyoci.run(["cat", "/proc/self/status"], text=True, runtime=runtime).stdout
    fields = status_fields(status)
    assert fields["NoNewPrivs"] == "1"
    bounding = int(fields["CapBnd"], 16)
    for number in (12, 21, 23, 24, 25):  # NET_ADMIN, SYS_ADMIN, SYS_NICE, SYS_RESOURCE, SYS_TIME
        assert not bounding >> number & 1
    done = pyoci.run(
        ["sh", "-c", "echo x > /proc/sysrq-trigger; cat /proc/kcore | head -c 1 | wc -c; mount -t tmpfs t /tmp"], text=True, runtime=runtime
    )
    assert "Read-only file system" in done.stderr or "ermission denied" in done.stderr
    assert done.stdout.split()[0] == "0"
    assert done.returncode != 0


@pytest.mark.parametrize("network", ["private", "host"])
def test_networks(runtime: pyoci.OCIRuntime, network: str) -> None:
    done = pyoci.run(["readlink", "/proc/self/ns/net"], network=network, text=True, runtime=runtime)
    assert (done.stdout.strip() == os.readlink("/proc/self/ns/net")) == (network == "host")


@pytest.mark.root
def test_a_network_namespace_by_path(runtime: pyoci.OCIRuntime) -> None:
    with subprocess.Popen(["unshare", "--net", "sleep", "100"]) as other:
        try:
            path = f"/proc/{other.pid}/ns/net"
            while os.readlink(path) == os.readlink("/proc/self/ns/net"):
                time.sleep(0.01)
            done = pyoci.run(["readlink", "/proc/self/ns/net"], network=path, text=True, runtime=runtime)
            assert done.stdout.strip() == os.readlink(path)
        finally:
            other.kill()


@pytest.mark.root
@pytest.mark.guest
def test_memory_limit(runtime: pyoci.OCIRuntime, has_controller: Any) -> None:
    has_controller("memory")
    hog = "x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo survived"
    done = pyoci.run(["sh", "-c", hog], memory="32M", runtime=runtime, timeout=60)
    assert done.stdout == b""
    assert done.returncode in (-9, 137, 2)
    assert done.oom_killed


@pytest.mark.root
@pytest.mark.guest
def test_pids_limit(runtime: pyoci.OCIRuntime, has_controller: Any) -> None:
    has_controller("pids")
    done = pyoci.run(["sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do sleep 1 & done; wait"], pids=4, runtime=runtime, timeout=60)
    assert b"an't fork" in done.stderr


@pytest.mark.root
@pytest.mark.guest
def test_cpu_limit(runtime: pyoci.OCIRuntime, has_controller: Any) -> None:
    has_controller("cpu")
    done = pyoci.run(["sh", "-c", "cat /proc/self/cgroup; i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done"], cpus=0.2, runtime=runtime, timeout=100)
    assert done.returncode == 0


def test_bad_options_are_refused_before_anything_is_made(runtime: pyoci.OCIRuntime, tmp_path: Path) -> None:
    bad: list[tuple[Any, dict[str, Any], str]] = [
        ("true", {}, "list"),
        ([], {}, "args"),
        (["true"], {"memory": "lots"}, "memory"),
        (["true"], {"memory": -1}, "memory"),
        (["true"], {"pids": 0}, "pids"),
        (["true"], {"cpus": 0}, "cpus"),
        (["true"], {"user": "nobody-here"}, "nobody-here"),
        (["true"], {"cwd": "relative"}, "cwd"),
        (["true"], {"network": "bridge"}, "network"),
        (["true"], {"network": "/nonexistent"}, "nonexistent"),
        (["true"], {"mounts": ["nonsense"]}, "mount"),
        (["true"], {"mounts": ["/nonexistent:/x"]}, "nonexistent"),
        (["true"], {"rootfs": tmp_path / "nowhere"}, "nowhere"),
        (["true"], {"timeout": -1}, "timeout"),
        (["true"], {"input": b"", "stdin": 0}, "stdin"),
        (["true"], {"stdout": -7}, "stdout"),
        (["true"], {"id": "../x"}, "id"),
        (["true"], {"env": {"": "c"}}, "env"),
        (["true"], {"input": 7}, "input"),
        (["a\0b"], {}, "NUL"),
        (["true"], {"state_dir": "/run/x"}, "state_dir"),
    ]
    for args, options, named in bad:
        with pytest.raises((ValueError, TypeError), match=named):
            pyoci.run(args, runtime=runtime, **options)
    assert not list(Path(runtime.state_dir, "containers").iterdir())


def test_a_used_id(runtime: pyoci.OCIRuntime) -> None:
    Path(runtime.state_dir, "containers", "used").mkdir()
    with pytest.raises(pyoci.ContainerExists):
        pyoci.run(["true"], id="used", runtime=runtime)
    Path(runtime.state_dir, "containers", "used").rmdir()


def test_from_many_threads_at_once(runtime: pyoci.OCIRuntime) -> None:
    codes: dict[int, Any] = {}

    def work(i: int) -> None:
        codes[i] = pyoci.run(["sh", "-c", f"echo {i}; exit {i}"], runtime=runtime, text=True, timeout=60)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {i: (done.returncode, done.stdout) for i, done in codes.items()} == {i: (i, f"{i}\n") for i in range(16)}


def test_keyboard_interrupt_removes_the_container(runtime: pyoci.OCIRuntime) -> None:
    timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        pyoci.run(["sleep", "100"], runtime=runtime)
    timer.join()


def test_it_is_found_at_first_use_and_documented() -> None:
    import inspect

    assert "timeout" in inspect.signature(pyoci.run).parameters
    assert "RunTimeout" in (pyoci.run.__doc__ or "")


def test_the_default_runtime_and_state_directory(state_dir: str) -> None:
    program = "import sys, pyoci; print(pyoci.run(['echo', 'hi'], state_dir=sys.argv[1], text=True).stdout, end='')"
    done = subprocess.run([sys.executable, "-c", program, state_dir], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("hi\n", "")


def test_nothing_stays_in_the_built_in_root_file_system(runtime: pyoci.OCIRuntime, tmp_path: Path) -> None:
    def tree() -> list[str]:
        return sorted(str(path) for path in Path(pyoci.rootfs.builtin()).rglob("*"))

    before = tree()
    (tmp_path / "file").write_text("a file")
    (tmp_path / "directory").mkdir()
    look = ["sh", "-c", "cat /stranger/data; ls -d /stranger/*; pwd"]
    for name, said in (("directory", ["/stranger/data", "/stranger/work"]), ("file", ["a", "file/stranger/data", "/stranger/work"])):
        done = pyoci.run(look, mounts=[f"{tmp_path / name}:/stranger/data:ro"], cwd="/stranger/work", runtime=runtime, text=True)
        assert done.stdout.split() == [*said, "/stranger/work"]
    with socket.socket(socket.AF_UNIX) as service:
        service.bind(str(tmp_path / "socket"))
        file: dict[str, Any] = {"destination": "/stranger/file", "source": str(tmp_path / "file"), "type": "none", "options": ["rbind", "ro"]}
        what = ["sh", "-c", "test -S /stranger/socket && cat /stranger/file"]
        bound = pyoci.run(what, mounts=[f"{tmp_path / 'socket'}:/stranger/socket", file], runtime=runtime, text=True)
        assert bound.stdout == "a file"
    below = pyoci.run(["ls", "/tmp"], mounts=[f"{tmp_path}:/tmp/job-7"], runtime=runtime, text=True)
    assert below.stdout == "job-7\n"
    assert pyoci.run(["ls", "/stranger"], runtime=runtime).returncode == 1
    assert tree() == before


def test_the_cache_directory_may_be_spelled_in_any_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.setenv("PYOCI_CACHE_DIR", f"{tmp_path}/link//cache/")
    monkeypatch.setattr(pyoci.rootfs, "_made", None)
    root = pyoci.rootfs.builtin()
    config = pyoci.spec.build(["true"], rootfs=root)
    assert config["root"]["readonly"] is True
    for _ in range(2):  # the second time it is known
        os.utime(root, (0, 0))
        templates.prepare(config)
        assert os.stat(root).st_mtime > 0


def test_the_built_in_root_file_system_is_not_written_to(runtime: pyoci.OCIRuntime) -> None:
    config = pyoci.spec.build(["touch", "/bin/new"], rootfs=pyoci.rootfs.builtin())
    with runtime.create(config) as container:
        container.start()
        assert container.wait(20).code == 1
