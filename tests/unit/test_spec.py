"""Building, checking and resolving specs."""

import copy
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyoci import spec
from pyoci.errors import InvalidOption, InvalidSpec


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").write_text("root:x:0:0::/root:/bin/sh\nbuild:x:1000:100::/:/bin/sh\nbroken\n:x:5:5::/:\nodd:x:abc:1::/:\n")
    (tmp_path / "etc" / "group").write_text("root:x:0:\nusers:x:100:\n")
    return tmp_path


def test_the_defaults_are_sound(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    built = spec.build(["true"], rootfs=tree)
    spec.check(built, "spec")
    assert {n["type"] for n in built["linux"]["namespaces"]} == {"pid", "mount", "ipc", "uts", "network"}
    assert built["process"]["noNewPrivileges"] is True
    assert "CAP_SYS_ADMIN" not in built["process"]["capabilities"]["bounding"]
    assert "/proc/kcore" in built["linux"]["maskedPaths"]
    assert "/proc/sys" in built["linux"]["readonlyPaths"]
    assert built["linux"]["resources"]["devices"] == [{"allow": False, "access": "rwm"}]
    assert built["process"]["env"] == [f"PATH={spec.PATH}", "TERM=xterm"]
    assert built["root"] == {"path": str(tree), "readonly": False}


def test_limits_network_and_mounts(tree: Path) -> None:
    built = spec.build(["true"], rootfs=tree, memory="64M", pids=9, cpus=1.5, network="host", mounts=[f"{tree}:/data:ro"], read_only=True)
    resources = built["linux"]["resources"]
    assert resources["memory"] == {"limit": 64 << 20, "swap": 64 << 20}
    assert resources["pids"] == {"limit": 9}
    assert resources["cpu"] == {"period": 100_000, "quota": 150_000}
    assert "network" not in {n["type"] for n in built["linux"]["namespaces"]}
    (bound,) = [m for m in built["mounts"] if m["destination"] == "/data"]
    assert bound["source"] == str(tree)
    assert "ro" in bound["options"]
    assert "/tmp" in {m["destination"] for m in built["mounts"]}
    spec.check(built, "spec")


@pytest.mark.parametrize(
    ("user", "ids"),
    [(None, (0, 0)), (7, (7, 0)), ("7", (7, 0)), ("7:8", (7, 8)), ("build", (1000, 100)), ("build:0", (1000, 0)), ("7:users", (7, 100))],
)
def test_users(tree: Path, user: str | int | None, ids: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    found = spec.build(["true"], rootfs=tree, user=user)["process"]["user"]
    assert (found["uid"], found["gid"]) == ids


@pytest.mark.parametrize("user", ["nobody", "", "odd", "broken", "7:", "7:nobody", -1, "-1", 1 << 32, "4294967295", True, 1.5, "a:b:c"])
def test_users_that_are_none(tree: Path, user: Any) -> None:
    with pytest.raises(InvalidOption):
        spec.build(["true"], rootfs=tree, user=user)


def test_a_lookup_follows_no_link_and_blocks_on_no_fifo(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "passwd").write_text("trap:x:0:0::/:\n")
    for kind in ("linked directory", "linked file", "fifo"):
        root = tmp_path / kind
        root.mkdir()
        if kind == "linked directory":
            (root / "etc").symlink_to(outside)
        else:
            (root / "etc").mkdir()
            if kind == "fifo":
                os.mkfifo(root / "etc" / "passwd")
            else:
                (root / "etc" / "passwd").symlink_to(outside / "passwd")
        with pytest.raises(InvalidOption, match="passwd"):
            spec.build(["true"], rootfs=root, user="trap")


@pytest.mark.parametrize(
    ("text", "size"), [(1, 1), ("1", 1), ("64M", 64 << 20), ("2g", 2 << 30), ("3KiB", 3 << 10), ("5kb", 5 << 10), ("7b", 7), ("1T", 1 << 40)]
)
def test_sizes(text: int | str, size: int) -> None:
    assert spec.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "-1", -1, 0, "0", "1.5G", "64 M", "64X", "9" * 30, "9223372036854775808", True, None, "٣M", "64M\n"])
def test_sizes_that_are_none(text: Any) -> None:
    with pytest.raises(InvalidOption, match="size"):
        spec.parse_size(text)


@given(st.text(max_size=25) | st.integers())
def test_arbitrary_sizes(text: str | int) -> None:
    try:
        size = spec.parse_size(text)
    except InvalidOption:
        return
    assert 0 < size < 1 << 63


@settings(max_examples=100)
@given(content=st.binary(max_size=200))
def test_arbitrary_bytes_as_config(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    bundle = tmp_path_factory.mktemp("bundle")
    (bundle / "config.json").write_bytes(content)
    try:
        config = spec.load(bundle)
    except InvalidSpec as error:
        assert "config.json" in str(error)
        return
    assert isinstance(config, dict)


@pytest.mark.parametrize("content", [b"", b"[]", b"7", b"{", b"\xff\xfe", b'{"a": 1,}', b"[" * 100_000])
def test_what_is_no_config(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(InvalidSpec, match=r"config\.json"):
        spec.load(tmp_path)


def test_a_config_that_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match="no such bundle"):
        spec.load(tmp_path / "nowhere")
    with pytest.raises(InvalidSpec, match=r"no config\.json"):
        spec.load(tmp_path)
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(InvalidSpec, match="not a regular file"):
        spec.load(tmp_path)
    (tmp_path / "config.json").unlink()
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(spec.CONFIG_LIMIT + 1)
    with pytest.raises(InvalidSpec, match="at most"):
        spec.load(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidSpec, match="config"):
        spec.load(tmp_path / "file")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def paths_of(value: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [prefix] if prefix else []
    if isinstance(value, dict):
        for key, item in value.items():
            found += paths_of(item, (*prefix, key))
    elif isinstance(value, list):
        for i, item in enumerate(value[:3]):
            found += paths_of(item, (*prefix, i))
    return found


WHOLE = spec.build(["true"], rootfs="/", memory=1 << 20, pids=5, cpus=1)
WHOLE["hooks"] = {"poststart": [{"path": "/bin/true", "args": ["true"], "timeout": 5}]}
WHOLE["annotations"] = {spec.STOP_SIGNAL: "SIGTERM", "a": "b"}
WHOLE["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 10}]
WHOLE["linux"]["cgroupsPath"] = "/a/b"
WHOLE["linux"]["uidMappings"] = [{"containerID": 0, "hostID": 1000, "size": 1}]


@settings(max_examples=400)
@given(where=st.sampled_from(paths_of(WHOLE)), value=json_values)
def test_any_field_with_any_value_is_accepted_or_refused_by_name(where: tuple[Any, ...], value: Any) -> None:
    config = copy.deepcopy(WHOLE)
    at: Any = config
    for key in where[:-1]:
        at = at[key]
    at[where[-1]] = value
    before = json.dumps(config)
    try:
        resolved = spec.resolve(config, "/bundle")
        spec.check(resolved, "/bundle/config.json")
    except InvalidSpec as error:
        assert str(error).startswith("/bundle/config.json: ")
        assert str(where[0]) in str(error)
    else:
        json.loads(spec.encode(resolved))
    assert json.dumps(config) == before


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("ociVersion",), None),
        (("ociVersion",), "2.0.0"),
        (("root",), None),
        (("root", "path"), ""),
        (("root", "path"), "/nonexistent"),
        (("root", "path"), "/etc/passwd"),
        (("process",), None),
        (("process", "args"), []),
        (("process", "args"), [""]),
        (("process", "args"), ["a\0b"]),
        (("process", "args"), "true"),
        (("process", "cwd"), "relative"),
        (("process", "env"), ["NOVALUE"]),
        (("process", "terminal"), "yes"),
        (("process", "user", "uid"), -1),
        (("mounts",), {}),
        (("mounts", 0, "destination"), "relative"),
        (("linux", "namespaces", 0, "type"), "nonsense"),
        (("linux", "namespaces", 0, "path"), "/nonexistent"),
        (("linux", "cgroupsPath"), "/a/../../b"),
        (("linux", "resources", "pids", "limit"), "many"),
        (("annotations", spec.STOP_SIGNAL), "SIGNOPE"),
        (("hooks", "poststart", 0, "path"), "relative"),
    ],
)
def test_what_cannot_work_is_refused(where: tuple[Any, ...], value: Any) -> None:
    config = copy.deepcopy(WHOLE)
    at: Any = config
    for key in where[:-1]:
        at = at[key]
    at[where[-1]] = value
    with pytest.raises(InvalidSpec, match=str(where[0])):
        spec.check(spec.resolve(config, "/"), "spec")


def test_relative_paths_count_from_the_bundle(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "rootfs").symlink_to("real")
    config = {
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/a", "type": "bind", "source": "data"},
            {"destination": "/b", "source": "../x", "options": ["rbind"]},
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/c", "type": "bind", "source": "/abs"},
        ],
    }
    before = copy.deepcopy(config)
    resolved = spec.resolve(config, str(tmp_path))
    assert resolved["root"]["path"] == str(tmp_path / "real")
    assert [m["source"] for m in resolved["mounts"]] == [f"{tmp_path}/data", f"{tmp_path.parent}/x", "proc", "/abs"]
    assert config == before


def test_signals() -> None:
    for right in (15, signal.SIGTERM, "TERM", "SIGTERM", "term", "15"):
        assert spec.signal_number(right) == 15
        assert type(spec.signal_number(right)) is int
    for wrong in (0, 65, True, "", "NONSENSE", "-1"):
        with pytest.raises(InvalidOption, match="no signal"):
            spec.signal_number(wrong)


def test_a_working_directory_that_was_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(InvalidOption, match="working directory was deleted"):
        spec.resolve(spec.build(["true"], rootfs="/"), None)
