"""What must survive: an interrupt wherever an operation waits. Row 31 of docs/faults.md; the driver throws it in there, see pyoci/waiting.py."""

from __future__ import annotations

import pytest

import pyoci
from pyoci import execs, lifecycle, oneshot
from pyoci.waiting import drive
from tests.containers import FOREVER, Build, ready
from tests.stepping import interrupt_each_step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyoci.waiting import Operation


@pytest.fixture(params=["conmon", "direct"])
def monitor(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_row_31_run(runtime: pyoci.OCIRuntime, monitor: str) -> None:
    def run() -> Operation[pyoci.CompletedProcess]:
        return oneshot.plan(["sh", "-c", "cat; exit 3"], input=b"words", runtime=runtime, monitor=monitor)

    def check(done: pyoci.CompletedProcess) -> None:
        assert (done.returncode, done.stdout) == (3, b"words")

    interrupt_each_step(run, check, least=3)
    assert runtime.list() == []


def test_row_31_create_without_shortcuts(runtime: pyoci.OCIRuntime, monitor: str, build: Build) -> None:
    """Every call of the runtime that a life can need."""
    plain = pyoci.OCIRuntime(runtime.runtime_path, state_dir=runtime.state_dir, shortcuts=False)
    spec = build("true")

    def life() -> Operation[pyoci.ExitStatus]:
        made = yield from plain._create(spec, None, {"monitor": monitor})
        try:
            yield from lifecycle.start(made)
            status = yield from lifecycle.wait(made, 20)
            yield from lifecycle.delete(made, force=False)
        except BaseException:
            yield from lifecycle.leave(made, failed=True)
            raise
        return status

    interrupt_each_step(life, lambda status: None, least=4)
    assert runtime.list() == []


def test_row_31_stop_and_exec(runtime: pyoci.OCIRuntime, build: Build) -> None:
    """An interrupted stop, pause or exec leaves a container that can be stopped."""
    with runtime.create(build(*FOREVER)) as container:
        container.start()
        ready(container)
        life = container._life

        def execute() -> Operation[pyoci.ExitStatus]:
            started = yield from execs.plan(life, ["sh", "-c", "exit 4"], stdout=pyoci.DEVNULL, stderr=pyoci.DEVNULL)
            try:
                return (yield from execs.wait(started.session, None))
            except BaseException:
                yield from execs.leave(started.session, failed=True)
                raise

        interrupt_each_step(execute, lambda status: None, least=1)
        assert drive(execute()).code == 4
        with pytest.raises(KeyboardInterrupt):
            stopping = lifecycle.stop(life, 20, None)
            next(stopping)
            stopping.throw(KeyboardInterrupt())
        assert container.stop(20).code == 0
    assert runtime.list() == []
