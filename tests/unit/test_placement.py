"""Where things go in the cgroup tree: paths, checked before anything is made. Row 27 of docs/faults.md."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pyoci
from pyoci.cgroups import Cgroups, Manager, Place, placement
from pyoci.errors import InvalidID, InvalidOption, InvalidSpec


@pytest.mark.parametrize(("given", "checked"), [("/", ""), ("/jobs", "/jobs"), ("//jobs//night/", "/jobs/night"), ("/a..b", "/a..b")])
def test_row_27_a_parent_in_its_one_spelling(given: str, checked: str) -> None:
    assert placement.check_parent("cgroupfs", given) == checked


def test_what_crun_takes_for_cgroups() -> None:
    place = placement.of_cgroupfs("/jobs", "job", None, separate=True)
    assert place.untrue(Cgroups({"memory": "/m"})) == [f"/sys/fs/cgroup/unified/jobs/pyoci-job{end}" for end in ("/container", "")]
    assert place.untrue(Cgroups({"": "/sys/fs/cgroup"})) == []


@pytest.mark.parametrize(
    "parent", ["", "jobs", "../..", "/..", "/a/../../b", "/a/..", "/.", "./a", "/a\0b", "/a\nb", "/" + "x" * 256, "/a" * 2000, 7, b"/a", "/\ud800"]
)
def test_row_27_parents_that_are_refused(parent: object) -> None:
    with pytest.raises(InvalidOption, match="cgroup_parent"):
        placement.check_parent("cgroupfs", parent)


@pytest.mark.parametrize(
    ("name", "path"),
    [("-.slice", ""), ("system.slice", "/system.slice"), ("a-b-c.slice", "/a.slice/a-b.slice/a-b-c.slice"), ("a_b@1.slice", "/a_b@1.slice")],
)
def test_slices(name: str, path: str) -> None:
    assert placement.expand_slice(name) == path


@pytest.mark.parametrize(
    "name", ["", ".slice", "jobs", "/jobs.slice", "a/b.slice", "-a.slice", "a-.slice", "a--b.slice", "a b.slice", "..slice/", "x" * 255 + ".slice"]
)
def test_row_27_what_is_no_slice(name: str) -> None:
    with pytest.raises(InvalidOption, match="cgroup_parent"):
        placement.check_parent("systemd", name)


@given(st.text(max_size=40).map(lambda text: f"/{text}"), st.text("abc-._+", min_size=1, max_size=5))
def test_row_27_nothing_is_outside_of_the_parent(parent: str, id: str) -> None:
    try:
        checked = placement.check_parent("cgroupfs", parent)
    except InvalidOption:
        return
    place = placement.of_cgroupfs(checked, id, None, separate=True)
    for directory in place.directories(Cgroups({"pids": "/sys/fs/cgroup/pids"})):
        assert os.path.normpath(directory) == directory
        assert directory.startswith(f"/sys/fs/cgroup/pids{checked}/pyoci-")


@given(st.text(max_size=60).map(lambda text: f"{text}.slice"))
def test_row_27_a_slice_is_below_the_root(name: str) -> None:
    try:
        path = placement.expand_slice(name)
    except InvalidOption:
        return
    assert os.path.normpath(f"/sys{path}") == f"/sys{path}"


def test_side_by_side_in_a_place_of_their_own() -> None:
    place = placement.of_cgroupfs("/jobs", "a", None, separate=True)
    assert (place.spec, place.container) == ("/jobs/pyoci-a/container",) * 2
    assert place.directories(Cgroups({"": "/c"})) == ["/c/jobs/pyoci-a/container", "/c/jobs/pyoci-a/conmon", "/c/jobs/pyoci-a"]


def test_shared_with_the_caller() -> None:
    place = placement.of_cgroupfs("", "a", None, separate=False)
    assert (place.container, place.conmon, place.is_entered) == ("/pyoci-a", None, False)
    assert place.directories(Cgroups({"": "/c"})) == ["/c/pyoci-a"]


def test_what_the_spec_names_is_the_container_s() -> None:
    place = placement.of_cgroupfs("", "a", "/theirs/b", separate=True)
    assert (place.spec, place.container, place.conmon) == ("/theirs/b", "/theirs/b", "/pyoci-a/conmon")
    assert placement.of_cgroupfs("", "a", "relative", separate=False).container is None  # who knows where


def test_scopes() -> None:
    place = placement.of_systemd("jobs-night.slice", "a", None, separate=True)
    assert place.spec == "jobs-night.slice:pyoci:a"
    assert place.container == "/jobs.slice/jobs-night.slice/pyoci-a.scope"
    assert (place.scope, place.unit) == ("pyoci-a.scope", "pyoci-conmon-a.scope")
    assert not place.is_cgroupfs
    assert placement.of_systemd("user.slice", "a", None, separate=True, user=5).container == (
        "/user.slice/user-5.slice/user@5.service/user.slice/pyoci-a.scope"
    )


def test_what_the_spec_names_is_the_scope() -> None:
    place = placement.of_systemd("system.slice", "a+b", "a-b.slice:libpod:c", separate=False)
    assert (place.container, place.scope, place.unit) == ("/a.slice/a-b.slice/libpod-c.scope", "libpod-c.scope", None)
    place = placement.of_systemd("jobs.slice", "a", "::c", separate=True)
    assert (place.container, place.scope, place.unit) == ("/system.slice/-c.scope", "-c.scope", "pyoci-conmon-a.scope")


@pytest.mark.parametrize(
    "path", ["/a", "a:b", "a:b:c:d", "a.slice:b:", "nonsense:b:c", "../a.slice:b:c", "a.slice:b/../..:c", "a.slice:b:c d", "a.slice:b:c.slice"]
)
def test_a_path_that_is_none_for_systemd(path: str) -> None:
    with pytest.raises(InvalidSpec, match="cgroupsPath"):
        placement.of_systemd("system.slice", "a", path, separate=True)


@pytest.mark.parametrize("id", ["a+b", "x" * 250, "a.slice"])
def test_an_id_that_cannot_be_part_of_a_unit(id: str) -> None:
    with pytest.raises(InvalidID, match="scope"):
        placement.of_systemd("system.slice", id, None, separate=True)


@pytest.mark.parametrize("separate", [True, False])
def test_a_place_is_found_again_in_the_record(separate: bool) -> None:
    for place in (placement.of_cgroupfs("/jobs", "a", None, separate), placement.of_systemd("jobs.slice", "a", None, separate)):
        again = Place.recorded(place.record())
        assert again.record() == place.record()
        assert again.directories(Cgroups({"": "/c"})) == place.directories(Cgroups({"": "/c"}))


@pytest.mark.parametrize(
    "options",
    [
        {"cgroup_manager": "none"},
        {"cgroup_manager": None},
        {"cgroup_manager": "systemd", "cgroup_parent": "/jobs"},
        {"cgroup_parent": "../.."},
        {"conmon_cgroup": "elsewhere"},
        {"strict_cgroups": 1},
    ],
)
def test_options_are_refused_before_anything_is_made(tmp_path: Path, options: dict[str, object]) -> None:
    with pytest.raises(InvalidOption):
        pyoci.OCIRuntime("/bin/true", conmon_path="/bin/true", state_dir=tmp_path / "state", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "state").exists()


def test_the_default_depends_on_the_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for mounts, manager, separate in [({"pids": "/p"}, "cgroupfs", False), ({"": "/c"}, "cgroupfs", True), ({"pids": "/p"}, "systemd", True)]:
        made = Manager(manager)
        made._hierarchies = Cgroups(mounts)
        assert made.separate is separate


def test_root_of_a_user_namespace_has_no_more_than_who_made_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(placement, "delegated", lambda hierarchies: "/mine")
    for user, parent, slice in [(0, "", "system.slice"), (1000, "/mine", "user.slice")]:
        monkeypatch.setattr(placement, "host_user", lambda user=user: user)
        assert (Manager().parent, Manager("systemd").parent) == (parent, slice)


def test_a_user_without_a_cgroup_is_told_so_only_after_asking_for_one(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for path, conmon, separate, told in [(None, None, False, 0), ("/mine", None, True, 0), (None, "separate", True, 1)]:
        monkeypatch.setattr(placement, "delegated", lambda hierarchies, path=path: path)
        made = Manager(conmon=conmon)
        made._hierarchies = Cgroups({"": "/c"})
        made.place("job", None)
        assert made.separate is separate
        assert len(caplog.records) == told
    strict = Manager(strict=True)
    strict._hierarchies = Cgroups({"": "/c"})
    monkeypatch.setattr(placement, "delegated", lambda hierarchies: None)
    with pytest.raises(pyoci.CgroupError, match="none is delegated"):
        strict.place("job", None)
