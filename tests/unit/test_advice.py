"""What to try, by words that runc 1.1.5 and crun 1.8.1 have really said; and how their words are told."""

import pickle

import pytest

from pyoci import advice
from pyoci.errors import CreateError, said


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("error setting cgroup config for procHooks process: unable to set memory limit to 102400 (current usage: 2256896)", "larger memory limit"),
        ("OOM: the memory limit could be too low: read from sync socket: Connection reset by peer", "larger memory limit"),
        ("error setting rlimits for ready process: error setting rlimit type 7: operation not permitted", "ulimit -H"),
        ("setrlimit `RLIMIT_NOFILE`: Operation not permitted", "ulimit -H"),
        ("the sysctl `kernel.foo` is not namespaced", "net.*"),
        ('sysctl "kernel.foo" is not in a separate kernel namespace', "net.*"),
        ("sethostname: Invalid argument", "64 characters"),
        ("mount `/etc/passwd` to `tmp`: Not a directory", "the other is not"),
        ('error mounting "/etc/passwd" to rootfs at "/tmp": mount /etc/passwd:/tmp (via /proc/self/fd/6): not a directory', "the other is not"),
        ("cannot open sd-bus: No such file or directory", "'cgroupfs'"),
        ("cgroups in hybrid mode not supported, drop all controllers from cgroupv2", "take runc"),
        ("AppArmor is not initialized correctly", "aa-status"),
        ("invalid seccomp action `SCMP_ACT_NOPE`", "linux.seccomp"),
        ("write /run/x/state.json: no space left on device", "make room"),
        ("nsexec-1[7]: failed to unshare user namespace: No space left on device", "pyoci doctor"),
        ("mkdir /sys/fs/cgroup/pids/pyoci-x: permission denied", "delegated"),
        ("openat2 `proc/fs`: Too many open files", "ulimit -n"),
        ("pipe2: Too many open files in system", "fs.file-max"),
    ],
)
def test_what_to_try(words: str, wanted: str) -> None:
    assert wanted in advice.on(words)
    assert advice.on(words.encode()) == advice.on(words)


def test_nothing_where_nothing_is_known() -> None:
    assert advice.on("executable file `nosuch` not found in $PATH: No such file or directory") == ""
    assert advice.on(b"") == advice.on(b"\xff") == ""


def test_runc_s_frame_around_its_words_is_taken_off() -> None:
    words = b'time="2026-11-25T12:10:15Z" level=error msg="runc create failed: exec: \\"nosuch\\": not found"\n'
    assert said(words) == ': runc create failed: exec: "nosuch": not found'
    assert said("level=up is what it said") == ": level=up is what it said"
    both = b"first\n" + words
    assert said(both) == ': first\nrunc create failed: exec: "nosuch": not found'
    error = CreateError("creating 'x': the runtime failed", words)
    assert error.stderr == words  # as it came


def test_it_stands_at_the_end_and_once() -> None:
    error = CreateError("creating 'x': the runtime failed", b"sethostname: Invalid argument")
    assert str(error).startswith("creating 'x': the runtime failed: sethostname: Invalid argument (what to try: a host name ")
    assert str(pickle.loads(pickle.dumps(error))).count("what to try") == 1
