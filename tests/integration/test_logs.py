"""Reading what a container has written."""

import asyncio
import errno
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import pyoci
from pyoci import _ffi, aio, logs
from tests.containers import Build


@contextmanager
def talked(runtime: pyoci.OCIRuntime, build: Build) -> Iterator[pyoci.Container]:
    """A container that has ended, and its log."""
    script = "for i in 1 2 3; do echo out $i; echo err $i >&2; done; printf '\\303\\244\\377'; exit 5"
    with runtime.create(build("sh", "-c", script)) as container:
        container.start()
        container.wait(20)
        yield container


def test_all_of_it_the_tail_and_since(runtime: pyoci.OCIRuntime, build: Build) -> None:
    with talked(runtime, build) as container:
        entries = list(container.logs(follow=True))
        assert [entry.text for entry in entries if entry.stream == "stdout"] == ["out 1", "out 2", "out 3", "ä\ufffd"]
        assert [entry.data for entry in container.logs(stream="stderr")] == [b"err 1", b"err 2", b"err 3"]
        assert [entry.is_whole for entry in entries].count(False) == 1
        assert all(abs(datetime.now(UTC) - entry.time) < timedelta(minutes=5) for entry in entries)
        assert list(container.logs()) == entries
        assert hash(entries[0]) != hash(entries[1])
        assert "b'out 1'" in repr(next(entry for entry in entries if entry.text == "out 1"))
        assert list(container.logs(tail=0)) == []
        assert list(container.logs(tail=100)) == entries
        assert [entry.text for entry in container.logs(tail=2, stream="stderr")] == ["err 2", "err 3"]
        assert [entry.text for entry in container.logs(tail=2, stream="stdout")] == ["out 3", "ä\ufffd"]
        since = entries[3].time_ns // 1000 * 1000
        assert list(container.logs(since=entries[3].time)) == [entry for entry in entries if entry.time_ns >= since]
        assert list(container.logs(since=time.time() + 60)) == []
        wrong: dict[str, Any]
        for wrong in ({"tail": -1}, {"tail": True}, {"since": "now"}, {"since": datetime(2026, 1, 1)}, {"stream": "stdin"}):
            with pytest.raises(pyoci.InvalidOption):
                container.logs(**wrong)
        Path(container.log_path).unlink()
        with pytest.raises(pyoci.StateDirError, match="No such file"):
            container.logs()


def test_a_container_without_a_log(runtime: pyoci.OCIRuntime, build: Build) -> None:
    with runtime.create(build("true"), log_driver="none") as container, pytest.raises(pyoci.InvalidOption, match="'none'"):
        container.logs()


def test_following_ends_with_the_container(runtime: pyoci.OCIRuntime, build: Build) -> None:
    with runtime.create(build("sh", "-c", "echo one; sleep 0.3; echo two; sleep 0.3; printf three")) as container:
        following = container.logs(follow=True, tail=0)
        container.start()
        arrived = [(entry.text, datetime.now(UTC) - entry.time) for entry in following]
        assert [text for text, _ in arrived] == ["one", "two", "three"]
        assert min(age for _, age in arrived) < timedelta(seconds=0.2)
        assert container.wait(0).code == 0


def test_following_without_inotify(runtime: pyoci.OCIRuntime, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(_ffi, "watch_file", refuse)
    with runtime.create(build("sh", "-c", "echo one; sleep 0.2; echo two")) as container:
        container.start()
        assert [entry.text for entry in container.logs(follow=True)] == ["one", "two"]


def test_following_when_conmon_was_killed(runtime: pyoci.OCIRuntime, build: Build) -> None:
    with runtime.create(build("sh", "-c", "echo one; exec sleep 100")) as container:
        container.start()
        following = container.logs(follow=True)
        assert next(following).text == "one"
        assert container.conmon_pid is not None
        os.kill(container.conmon_pid, 9)
        killer = threading.Timer(0.2, container.kill)
        killer.start()
        assert list(following) == []
        killer.join()


def test_following_into_a_log_that_begins_anew(runtime: pyoci.OCIRuntime, build: Build) -> None:
    """Slowly enough that no file is replaced twice between two looks."""
    script = "for i in $(seq 40); do echo line $i of the log; sleep 0.03; done"
    with runtime.create(build("sh", "-c", script), log_size_max=1000) as container:
        following = container.logs(follow=True)
        container.start()
        assert [entry.text for entry in following] == [f"line {i} of the log" for i in range(1, 41)]
        assert Path(container.log_path).stat().st_size <= 1000


def test_leaving_a_follower(runtime: pyoci.OCIRuntime, build: Build) -> None:
    with runtime.create(build("sh", "-c", "echo one; exec sleep 100")) as container:
        container.start()
        following = container.logs(follow=True)
        assert next(following).text == "one"
        following.close()  # type: ignore[attr-defined]
        container.kill()


def test_asyncio(runtime: pyoci.OCIRuntime, build: Build) -> None:
    async def follow(id: str) -> list[str]:
        container = await aio.Container.load(id, state_dir=runtime.state_dir)
        return [entry.text async for entry in container.logs(follow=True)]

    async def both() -> list[list[str]]:
        return list(await asyncio.gather(follow("talker"), follow("talker")))

    with runtime.create(build("sh", "-c", "echo one; sleep 0.2; echo two"), "talker") as container:
        container.start()
        assert asyncio.run(both()) == [["one", "two"]] * 2


def test_long_lines_come_in_one_piece_and_garbage_is_passed_over(runtime: pyoci.OCIRuntime, build: Build) -> None:
    with runtime.create(build("sh", "-c", "head -c 100000 /dev/zero | tr '\\0' x; echo; echo end")) as container:
        container.start()
        container.wait(20)
        with Path(container.log_path).open("ab") as log:
            log.write(b"\0\0\0\n2026-99-99T00:00:00Z stdout F bad time\nno log line\n\n")
        assert [len(entry.data) for entry in container.logs()] == [100000, 3]
        assert [len(entry.data) for entry in container.logs(tail=2)][-1] == 3
        assert len(next(container.logs(tail=3)).data) == 100000


def test_a_line_without_end_is_told_in_parts(runtime: pyoci.OCIRuntime, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "LONGEST", 10)
    time = b"2026-11-23T15:10:27.5+00:00"
    with talked(runtime, build) as container:
        Path(container.log_path).write_bytes(time + b" stdout P aaaaaa\n" + time + b" stdout P aaaaaa\n" + time + b" stdout F end\n")
        assert [(entry.data, entry.is_whole) for entry in container.logs()] == [(b"a" * 12, False), (b"end", True)]
