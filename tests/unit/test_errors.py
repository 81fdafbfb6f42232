"""What every exception keeps: its words without decoration, and all of it through a pickle (a ProcessPoolExecutor breaks at one that cannot)."""

import pickle

import pytest

import pyoci
from pyoci import errors

RUN = pyoci.CompletedProcess(["false"], 1, b"out", b"err", id="c", oom_killed=False, timings={"total": 0.1})


@pytest.mark.parametrize(
    "error",
    [
        errors.InvalidOption("no"),
        errors.ExecutableError(2, "cannot execute /x: No such file or directory", "/x"),
        errors.NoRuntime("none works", {"crun": "not there"}),
        errors.SpawnError(9, "starting /x: Bad file descriptor", "/x", "placing"),
        errors.SpawnError(9, "starting /x: Bad file descriptor"),
        errors.NetworkError(1, "no", "/x"),
        errors.StateDirError(1, "no", "/x"),
        errors.ConmonError("conmon ended", 1, b"words"),
        errors.ConmonTooOld("conmon 1", 0, b"words", (1, 0), (2, 0)),
        errors.ProtocolError("not JSON", b"x"),
        errors.CreateError("creating 'c'", b"sethostname: Invalid argument"),
        errors.ExecError("exec in 'c'", "words"),
        errors.RuntimeFailed("starting 'c'", ["crun", "start"], -9, b"words"),
        errors.Timeout("too late", 0.5),
        errors.ExecTimeout("too late", 0.5, b"out", None),
        errors.OutputTooLong("too long", "out", "err"),
        errors.ContainerStateError("it is running", "running"),
        pyoci.RunFailed(RUN),
        pyoci.RunTimeout(["sleep", "9"], 0.5, b"out", b"err", id="c"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_pickle_keeps_all_of_it(error: errors.Error) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert repr(again.args) == repr(error.args)
    assert {name: str(value) for name, value in vars(again).items()} == {name: str(value) for name, value in vars(error).items()}
    if isinstance(error, OSError) and isinstance(again, OSError):
        assert (again.errno, again.strerror, again.filename) == (error.errno, error.strerror, error.filename)


def test_a_message_is_told_once() -> None:
    assert str(errors.ExecutableError(2, "cannot execute /x: No such file or directory", "/x")) == "cannot execute /x: No such file or directory"
    assert str(errors.Timeout("too late", 1)) == "too late"
