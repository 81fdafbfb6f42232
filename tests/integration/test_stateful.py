"""A model of the lifecycle against real containers: any operation in any order, through the creator's handle or one of another process."""

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

import pyoci
from pyoci import spec
from tests.containers import ready

BODY = "trap 'exit 42' TERM; echo ready; while :; do sleep 0.02; done"

OTHER_PROCESS = """
import json, sys, pyoci
for line in sys.stdin:
    verb, arguments, id = json.loads(line)
    try:
        container = pyoci.Container.load(id, state_dir=sys.argv[1])
        result = getattr(container, verb)(**arguments)
        answer = ["ok", result.code if isinstance(result, pyoci.ExitStatus) else result]
    except pyoci.Error as error:
        answer = [type(error).__name__, getattr(error, "state", None)]
    print(json.dumps(answer), flush=True)
"""


class Lifecycle(RuleBasedStateMachine):
    """``expected`` is the state the container must be in: None, created, running, paused or stopped."""

    runtime: pyoci.OCIRuntime
    config: dict[str, Any]
    other: subprocess.Popen[str]

    def __init__(self) -> None:
        super().__init__()
        self.expected: str | None = None
        self.code: int | None = None
        self.container: pyoci.Container | None = None
        self.count = 0

    @initialize(started=st.booleans())
    def begin(self, started: bool) -> None:
        self.create()
        if started:
            self.start(elsewhere=False)

    @precondition(lambda self: self.expected is None)
    @rule()
    def create(self) -> None:
        self.count += 1
        self.container = self.runtime.create(self.config, f"job-{self.count}")
        self.expected, self.code = "created", None

    @precondition(lambda self: self.expected is not None)
    @rule()
    def create_again_under_the_same_id(self) -> None:
        with pytest.raises(pyoci.ContainerExists):
            self.runtime.create(self.config, f"job-{self.count}")

    def act(self, elsewhere: bool, verb: str, **arguments: Any) -> list[Any]:
        """["ok", result] or [exception, its state]."""
        assert self.container is not None
        if elsewhere:
            assert self.other.stdin is not None
            assert self.other.stdout is not None
            self.other.stdin.write(json.dumps([verb, arguments, self.container.id]) + "\n")
            self.other.stdin.flush()
            return list(json.loads(self.other.stdout.readline()))
        try:
            result = getattr(self.container, verb)(**arguments)
        except pyoci.Error as error:
            return [type(error).__name__, getattr(error, "state", None)]
        return ["ok", result.code if isinstance(result, pyoci.ExitStatus) else result]

    def expect(self, answer: list[Any], right: bool) -> bool:
        if right:
            assert answer[0] == "ok", (self.expected, answer)
        elif self.expected is None:
            assert answer[0] == "ContainerNotFound", answer
        else:
            assert answer == ["ContainerStateError", self.expected], (self.expected, answer)
        return right

    @rule(elsewhere=st.booleans())
    def state(self, elsewhere: bool) -> None:
        answer = self.act(elsewhere, "state")
        assert answer == (["ContainerNotFound", None] if self.expected is None else ["ok", self.expected])

    @rule(elsewhere=st.booleans())
    def start(self, elsewhere: bool) -> None:
        if self.expect(self.act(elsewhere, "start"), self.expected == "created"):
            self.expected = "running"
            assert self.container is not None
            ready(self.container)

    @rule(elsewhere=st.booleans())
    def pause(self, elsewhere: bool) -> None:
        if self.expect(self.act(elsewhere, "pause"), self.expected == "running"):
            self.expected = "paused"

    @rule(elsewhere=st.booleans())
    def resume(self, elsewhere: bool) -> None:
        if self.expect(self.act(elsewhere, "resume"), self.expected == "paused"):
            self.expected = "running"

    @precondition(lambda self: self.expected in ("running", "stopped"))
    @rule(elsewhere=st.booleans())
    def kill(self, elsewhere: bool) -> None:
        if self.expect(self.act(elsewhere, "kill", signal="KILL"), self.expected == "running"):
            assert self.act(False, "wait", timeout=20) == ["ok", 137]
            self.expected, self.code = "stopped", 137

    @precondition(lambda self: self.expected == "running")
    @rule(elsewhere=st.booleans())
    def pause_while_running(self, elsewhere: bool) -> None:
        self.pause(elsewhere)

    @precondition(lambda self: self.expected is not None)
    @rule(elsewhere=st.booleans())
    def stop(self, elsewhere: bool) -> None:
        answer = self.act(elsewhere, "stop", timeout=20)
        assert answer[0] == "ok", answer
        if self.expected in ("running", "paused"):
            assert answer[1] == 42
        elif self.expected == "stopped":
            assert answer[1] == self.code
        self.expected, self.code = "stopped", answer[1]

    @precondition(lambda self: self.expected is not None)
    @rule(elsewhere=st.booleans())
    def wait(self, elsewhere: bool) -> None:
        answer = self.act(elsewhere, "wait", timeout=0)
        assert answer == (["ok", self.code] if self.expected == "stopped" else ["Timeout", None])

    @rule(elsewhere=st.booleans(), force=st.booleans())
    def delete(self, elsewhere: bool, force: bool) -> None:
        answer = self.act(elsewhere, "delete", force=force)
        if self.expected is None:
            assert answer[0] == "ContainerNotFound"
        elif self.expected == "stopped" or force:
            assert answer[0] == "ok", answer
            self.expected = None
        else:
            assert answer[0] == "ContainerStateError", answer

    @rule()
    def listed(self) -> None:
        assert [found.id for found in self.runtime.list()] == ([] if self.expected is None else [f"job-{self.count}"])

    def teardown(self) -> None:
        if self.expected is not None and self.container is not None:
            self.container.delete(force=True)


@pytest.mark.root
@pytest.mark.once
def test_any_order(runtime: pyoci.OCIRuntime, rootfs: str) -> None:
    program = [sys.executable, "-c", OTHER_PROCESS, runtime.state_dir]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:

        class Here(Lifecycle):
            pass

        Here.runtime, Here.config, Here.other = runtime, spec.build(["sh", "-c", BODY], rootfs=rootfs), other
        limits = settings(max_examples=50, stateful_step_count=20, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        run_state_machine_as_test(Here, settings=limits)
        assert other.stdin is not None
        other.stdin.close()
        other.wait(20)
