"""Specs prepared once: what is kept, and when it is looked at anew."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

import pyoci
from pyoci import spec, templates


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    root = tmp_path / "root"
    root.mkdir()
    return spec.build(["true"], rootfs=root)


def settle(path: Path) -> None:
    os.utime(path, (1, 1))


def test_each_container_has_its_own_cgroup_in_the_same_spec(config: dict[str, Any]) -> None:
    template = templates.prepare(config)
    for path in ("/pyoci-a", '/odd "name"\\'):
        written = json.loads(template.config_json(path))
        assert written["linux"].pop("cgroupsPath") == path
        assert written == config
    config["linux"]["cgroupsPath"] = "/mine"
    assert json.loads(templates.prepare(config).config_json("/other")) == config


def test_the_record_says_what_later_operations_must_know(config: dict[str, Any]) -> None:
    config["annotations"] = {spec.STOP_SIGNAL: "USR1"}
    config["hooks"] = {"poststop": [{"path": "/bin/true"}], "prestart": []}
    assert templates.prepare(config).record == {"bundle": None, "own_pid_namespace": True, "stop_signal": 10, "hooks": ["poststop"]}


def test_equal_specs_share_a_template_and_a_changed_one_does_not(config: dict[str, Any]) -> None:
    template = templates.prepare(config)
    assert templates.prepare(json.loads(json.dumps(config))) is template
    config["process"]["args"].append("more")
    other = templates.prepare(config)
    assert json.loads(other.config_json("/a"))["process"]["args"] == ["true", "more"]
    # What the caller does to his mapping afterwards changes nothing that is kept.
    config["process"]["args"].append("later")
    assert other.config["process"]["args"] == ["true", "more"]


def test_a_root_that_has_become_another_is_looked_at_anew(config: dict[str, Any], tmp_path: Path) -> None:
    template = templates.prepare(config)
    (tmp_path / "root").rename(tmp_path / "old")
    with pytest.raises(pyoci.InvalidSpec, match="does not exist"):
        templates.prepare(config)
    (tmp_path / "root").symlink_to("old")
    assert templates.prepare(config).config["root"]["path"] == str(tmp_path / "old")
    assert template.config["root"]["path"] == str(tmp_path / "root")


def test_a_relative_root_counts_from_where_we_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: dict[str, Any]) -> None:
    config["root"]["path"] = "root"
    for name in ("a", "b"):
        (tmp_path / name / "root").mkdir(parents=True)
        monkeypatch.chdir(tmp_path / name)
        assert templates.prepare(config).config["root"]["path"] == str(tmp_path / name / "root")


def test_a_bundle_is_read_again_when_its_file_changes(tmp_path: Path, config: dict[str, Any]) -> None:
    file = tmp_path / "config.json"
    for args in (["a"], ["b"], ["c"]):
        config["process"]["args"] = args
        file.write_text(json.dumps(config))  # the same size each time, within one tick of the clock
        assert templates.prepare(tmp_path).config["process"]["args"] == args


def test_a_namespace_that_is_named_is_looked_for_each_time(tmp_path: Path, config: dict[str, Any]) -> None:
    place = tmp_path / "namespace"
    place.symlink_to("/proc/self/ns/net")
    config["linux"]["namespaces"].append({"type": "network", "path": str(place)})
    templates.prepare(config)
    place.unlink()
    with pytest.raises(pyoci.InvalidSpec, match="does not exist"):
        templates.prepare(config)


def test_what_cannot_be_a_key_is_checked_all_the_same(config: dict[str, Any]) -> None:
    config["root"]["path"] = Path(config["root"]["path"])
    with pytest.raises(pyoci.InvalidSpec, match=r"root\.path"):
        templates.prepare(config)


def test_only_so_many_are_kept(tmp_path: Path) -> None:
    for i in range(templates.KEPT + 10):
        templates.prepare(spec.build([f"program-{i}"], rootfs=tmp_path))
    assert len(templates._known) == templates.KEPT


def test_with_another_root_it_is_another_template(config: dict[str, Any]) -> None:
    template = templates.prepare(config)
    moved = template.with_root("/run/elsewhere")
    assert json.loads(moved.config_json("/a"))["root"]["path"] == "/run/elsewhere"
    assert template.with_root("/run/elsewhere") is moved
    assert json.loads(template.config_json("/a"))["root"] == config["root"]
