"""The state directory."""

import os
import resource
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyoci.errors import ContainerExists, ContainerNotFound, DamagedRecord, Error, InvalidID, InvalidOption, StateDirError
from pyoci.store import Store, default_directory, parse_pids, read_pids, read_record, remove_tree, write_file


def test_directories_are_closed_to_others(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "state"))
    store.prepare()
    store.prepare()
    for path in (store.directory, store.containers, store.exits):
        assert os.stat(path).st_mode & 0o027 == 0


def test_a_directory_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o777)
    (tmp_path / "state").chmod(0o777)
    with pytest.raises(StateDirError, match="nobody else can write") as caught:
        Store(str(tmp_path / "state")).prepare()
    assert caught.value.filename == str(tmp_path / "state")


def test_a_file_in_its_place_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(StateDirError, match="state"):
        Store(str(tmp_path / "state")).prepare()


def test_of_32_claims_exactly_one_succeeds(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    outcomes: list[str] = []
    gate = threading.Barrier(32)

    def claim() -> None:
        gate.wait()
        try:
            store.claim("job")
            outcomes.append("claimed")
        except ContainerExists as error:
            outcomes.append("exists" if "'job'" in str(error) else "?")

    threads = [threading.Thread(target=claim) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["claimed"] + ["exists"] * 31


def test_a_bad_id_touches_nothing(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "state"))
    with pytest.raises(InvalidID):
        store.claim("../x")
    assert list(tmp_path.iterdir()) == []


def test_a_colon_in_the_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match=":"):
        Store(str(tmp_path / "a:b"))


def test_default_directories(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_directory({}) == "/run/pyoci"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert default_directory({"XDG_RUNTIME_DIR": "/run/user/1000"}) == "/run/user/1000/pyoci"
    with pytest.raises(InvalidOption, match="XDG_RUNTIME_DIR"):
        default_directory({})


def test_a_file_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("kept")
    (tmp_path / "link").symlink_to("target")
    for name in ("target", "link"):
        with pytest.raises(StateDirError, match=name):
            write_file(str(tmp_path / name), b"new")
    assert (tmp_path / "target").read_text() == "kept"


def test_removal_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept").write_text("")
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "file").write_text("")
    (tree / "link").symlink_to(tmp_path / "outside")
    remove_tree(str(tree))
    remove_tree(str(tree))
    assert not tree.exists()
    assert (tmp_path / "outside" / "kept").exists()


@given(st.binary(max_size=60))
def test_arbitrary_pids_files(content: bytes) -> None:
    found = parse_pids(content)
    assert found is None or (found[0].pid > 1 and found[1].pid > 1)


def test_pids() -> None:
    found = parse_pids(b"12 345 6789 13 346 6790\n")
    assert found is not None
    assert [str(identity) for identity in found] == ["12 345 6789", "13 346 6790"]
    for content in (b"", b"0 1 2 3 4 5", b"1 1 1 1 1 1", b"-5 1 1 7 1 1", b"a b c d e f", b"1 2 3 4", b"9" * 30 + b" 1 1 1 1 1"):
        assert parse_pids(content) is None


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"version": 99}', b"\xff", b"[" * 10000])
def test_a_damaged_record_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "record.json").write_bytes(content)
    with pytest.raises(Error, match=r"record\.json"):
        read_record(str(tmp_path), "job")


@pytest.mark.parametrize("content", [b"", b"12 345 6789 13", b"\xff"])
def test_damaged_pids_are_no_end(tmp_path: Path, content: bytes) -> None:
    assert read_pids(str(tmp_path)) is None
    (tmp_path / "pids").write_bytes(content)
    with pytest.raises(DamagedRecord, match=f"{tmp_path}/pids"):
        read_pids(str(tmp_path))


@pytest.mark.parametrize("kind", [os.mkdir, os.mkfifo, lambda path: os.symlink("/dev/null", path)])
def test_what_is_no_file_of_ours_is_damaged(tmp_path: Path, kind: Callable[[str], None]) -> None:
    for name in "pids", "record.json":
        kind(f"{tmp_path}/{name}")
    with pytest.raises(DamagedRecord, match=f"{tmp_path}/pids"):
        read_pids(str(tmp_path))
    with pytest.raises(DamagedRecord, match=f"{tmp_path}/record.json"):
        read_record(str(tmp_path), "job")


def test_no_room_for_looking_is_not_damage(tmp_path: Path) -> None:
    (tmp_path / "pids").write_text("12 345 6789 13 346 6790")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            read_pids(str(tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_no_record_is_no_container(tmp_path: Path) -> None:
    with pytest.raises(ContainerNotFound, match="'job'"):
        read_record(str(tmp_path), "job")


def test_a_state_directory_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(StateDirError, match=f"listing {tmp_path}/state/containers: Not a directory"):
        Store(f"{tmp_path}/state").ids()
