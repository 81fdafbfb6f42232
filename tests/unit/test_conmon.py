"""conmon's argv, environment and messages."""

import json
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pyoci import conmon
from pyoci.errors import CreateError, InvalidOption, ProtocolError


def test_arguments_hold_what_the_protocol_needs() -> None:
    argv = conmon.arguments(id="job-7", directory="/s/job-7", exit_dir="/s/exits", runtime="/usr/bin/crun", runtime_args=["--root", "/s/crun"])
    pairs = list(pairwise(argv))
    for pair in [("-c", "job-7"), ("-u", "job-7"), ("-b", "/s/job-7"), ("-p", "/s/job-7/pidfile"), ("--conmon-pidfile", "/s/job-7/conmon.pid")]:
        assert pair in pairs
    assert ("--exit-dir", "/s/exits") in pairs
    assert ("--persist-dir", "/s/job-7") in pairs
    assert ("-l", "k8s-file:/s/job-7/log") in pairs
    assert [b for a, b in pairs if a == "--runtime-arg"] == ["--root", "/s/crun"]
    assert "--full-attach" in argv
    assert "-t" not in argv
    assert "-i" not in argv


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"terminal": True}, "-t"),
        ({"stdin": True}, "-i"),
        ({"no_pivot": True}, "--no-pivot"),
        ({"no_new_keyring": True}, "--no-new-keyring"),
        ({"systemd_cgroup": True}, "-s"),
        ({"log_size_max": 10}, "--log-size-max"),
        ({"log_level": "debug"}, "--log-level"),
        ({"log_level": "debug"}, "--syslog"),
        ({"log_path": "/l"}, "k8s-file:/l"),
        ({"preserve_fds": 2}, "--preserve-fds=2"),
        ({"log_driver": "passthrough"}, "passthrough"),
    ],
)
def test_each_option_has_its_argument(options: dict[str, object], wanted: str) -> None:
    common = {"id": "a", "directory": "/d", "exit_dir": "/e", "runtime": "/r", "runtime_args": []}
    assert wanted not in conmon.arguments(**common)  # type: ignore[arg-type]
    assert wanted in conmon.arguments(**common, **options)  # type: ignore[arg-type]


def test_sync_log_is_on_request() -> None:
    common = {"id": "a", "directory": "/d", "exit_dir": "/e", "runtime": "/r", "runtime_args": []}
    assert "--no-sync-log" in conmon.arguments(**common)  # type: ignore[arg-type]
    assert "--no-sync-log" not in conmon.arguments(**common, sync_log=True)  # type: ignore[arg-type]


def test_only_what_is_on_the_list_passes_into_the_environment() -> None:
    source = {"PATH": "/bin", "XDG_RUNTIME_DIR": "/run/user/1", "NOTIFY_SOCKET": "/n", "LISTEN_FDS": "3", "LISTEN_PID": "1", "AWS_SECRET": "x"}
    assert conmon.environment(source) == {"PATH": "/bin", "XDG_RUNTIME_DIR": "/run/user/1"}
    assert conmon.environment({}, {"A": "b"})["A"] == "b"
    assert conmon.environment({})["PATH"].startswith("/usr/local/sbin:")


def test_the_pipes_come_after_what_is_passed_on() -> None:
    assert conmon.pipes(0) == {"_OCI_SYNCPIPE": "3", "_OCI_STARTPIPE": "4"}
    assert conmon.pipes(5) == {"_OCI_SYNCPIPE": "8", "_OCI_STARTPIPE": "9"}


@pytest.mark.parametrize(
    "env", [{"": "x"}, {"A=B": "x"}, {"A": "\0"}, {"A": 1}, {1: "A"}, {"_OCI_X": ""}, {"LISTEN_PID": "1"}, {"NOTIFY_SOCKET": "/n"}]
)
def test_what_cannot_be_added_to_the_environment(env: dict[str, str]) -> None:
    conmon.check_environment({"A": "", "HTTP_PROXY": "http://proxy"})
    with pytest.raises(InvalidOption, match="env"):
        conmon.check_environment(env)


@pytest.mark.parametrize("directory", ["/a:b", "/a\nb", "/a\0b"])
def test_a_directory_that_conmon_would_misread_is_refused(directory: str) -> None:
    with pytest.raises(InvalidOption, match="state directory"):
        conmon.check_directory(directory)


@pytest.mark.parametrize("line", [b'{"data": 4711}\n', b'{"pid": 4711}\n', b'{"data": 4711, "message": ""}\n', b' {"data":4711 } '])
def test_the_pid_is_read(line: bytes) -> None:
    assert conmon.parse_sync(line, "x") == 4711


def test_a_negative_number_is_the_runtimes_failure_with_its_words() -> None:
    raw = b'{"data": -1, "message": "runc: \x1f caf\xe9 not found\\n"}\n'
    with pytest.raises(CreateError) as caught:
        conmon.parse_sync(raw, "job")
    assert b"caf\xe9 not found" in caught.value.stderr
    assert "not found" in str(caught.value)
    assert "'job'" in str(caught.value)
    with pytest.raises(CreateError, match="without a word"):
        conmon.parse_sync(b'{"data": -75}', "job")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"{",
        b"[]",
        b"null",
        b'"data"',
        b"{}",
        b'{"data": true}',
        b'{"data": null}',
        b'{"data": 1.5}',
        b'{"data": "7"}',
        b'{"data": 1000000000000000000000000000000}',
        b'{"data": 7, "data": 8}',
        b'{"data": 7, "pid": 7}',
        b'{"data": 7, "message": 7}',
        b'{"data": NaN}',
        b'{"data": 4711',
        b'{"data": 7} {"data": 8}',
        b"\xff\xfe\n",
        b'{"data": 7e99}',
        b"[" * 60000,
    ],
)
def test_what_is_not_the_message_is_a_protocol_error(line: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        conmon.parse_sync(line, "job")
    assert "'job'" in str(caught.value)


def test_at_most_64_kib_are_kept() -> None:
    with pytest.raises(ProtocolError) as caught:
        conmon.parse_sync(b"x" * (1 << 20), "job")
    assert len(caught.value.received) == conmon.LINE_LIMIT
    assert len(str(caught.value)) < 2000


@given(st.binary(max_size=300))
def test_arbitrary_bytes_give_a_pid_or_a_typed_error(line: bytes) -> None:
    try:
        pid = conmon.parse_sync(line, "job")
    except (ProtocolError, CreateError):
        return
    assert 0 <= pid < 1 << 31


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["data", "pid", "message", "x"]), inner, max_size=3),
    max_leaves=6,
)


@given(json_values)
@example({"data": 0})
@example({"data": -(1 << 31)})
def test_arbitrary_json_gives_a_pid_or_a_typed_error(value: object) -> None:
    try:
        pid = conmon.parse_sync(json.dumps(value).encode(), "job")
    except (ProtocolError, CreateError):
        return
    assert isinstance(value, dict)
    assert value.get("data", value.get("pid")) == pid
    assert type(pid) is int


@pytest.mark.parametrize(("content", "pid"), [(b"4711", 4711), (b"2\n", 2), (b"4194304", 1 << 22)])
def test_a_pidfile_holds_a_pid(content: bytes, pid: int) -> None:
    assert conmon.parse_pidfile(content, "pidfile") == pid


@pytest.mark.parametrize(
    "content", [b"", b"0", b"1", b"-5", b"+5", b"abc", b"4194305", b"9" * 40, b"12 13", b"1_000", "٣٤".encode(), b"0x10", b"5\0"]
)
def test_what_is_no_usable_pid_is_refused(content: bytes) -> None:
    with pytest.raises(ProtocolError, match="pidfile"):
        conmon.parse_pidfile(content, "pidfile")


@given(st.binary(max_size=50))
def test_arbitrary_pidfiles(content: bytes) -> None:
    try:
        pid = conmon.parse_pidfile(content, "pidfile")
    except ProtocolError:
        return
    assert 1 < pid <= 1 << 22
    assert int(content) == pid
