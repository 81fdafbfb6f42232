"""What is told of containers: to an observer, as OpenTelemetry's spans, as Prometheus' metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

import pyoci
import pyoci.aio
from pyoci import observing
from pyoci.observing import Step
from tests.containers import Build

if TYPE_CHECKING:  # the other hosts, which only collect these tests, have neither
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import Tracer
    from prometheus_client import CollectorRegistry

pytestmark = pytest.mark.once


class Seen(list[tuple[str, str, str]]):
    """(what, step, id) in their order."""

    def __call__(self, step: Step) -> Any:
        self.append(("begins", step.name, step.id))
        return lambda _, error: self.append(("ends" if error is None else type(error).__name__, step.name, step.id))


@pytest.fixture
def seen() -> Iterator[Seen]:
    seen = Seen()
    end = observing.observe(seen)
    yield seen
    end()


def test_run_holds_the_other_steps(runtime: pyoci.OCIRuntime, seen: Seen) -> None:
    pyoci.run(["true"], runtime=runtime, id="a")
    steps = [("begins", "run")]
    for step in ("create", "start", "wait", "delete"):
        steps += [("begins", step), ("ends", step)]
    assert [(what, step) for what, step, _ in seen] == [*steps, ("ends", "run")]
    assert {id for _, _, id in seen} == {"a"}


def test_steps_of_a_container(runtime: pyoci.OCIRuntime, build: Build, seen: Seen) -> None:
    with runtime.create(build("sleep", "100"), id="b") as container:
        container.start()
        with pytest.raises(pyoci.Timeout):
            container.wait(0.01)
        container.stop(0)
        container.wait()  # tells it once more, and is no step
    ends = [(what, step) for what, step, _ in seen if what != "begins"]
    assert ends == [("ends", "create"), ("ends", "start"), ("Timeout", "wait"), ("ends", "wait"), ("ends", "delete")]


def test_a_failed_step_is_told(runtime: pyoci.OCIRuntime, build: Build, seen: Seen) -> None:
    with pytest.raises(pyoci.CreateError):
        runtime.create(build("/nonexistent"), id="c")
    with pytest.raises(pyoci.RunTimeout):
        asyncio.run(pyoci.aio.run(["sleep", "100"], runtime=pyoci.aio.OCIRuntime(runtime.name, state_dir=runtime.state_dir), timeout=0.2, id="d"))
    assert ("CreateError", "create", "c") in seen
    assert seen[-1] == ("RunTimeout", "run", "d")


def test_an_observer_that_fails_disturbs_nothing(runtime: pyoci.OCIRuntime, seen: Seen, caplog: pytest.LogCaptureFixture) -> None:
    def fail(step: Step) -> Any:
        raise ValueError("of the observer")

    end = observing.observe(fail)
    try:
        assert pyoci.run(["true"], runtime=runtime).returncode == 0
    finally:
        end()
    assert len([record for record in caplog.records if record.name == "pyoci"]) == 5
    assert len(seen) == 10
    assert pyoci.run(["true"], runtime=runtime).returncode == 0
    assert len(caplog.records) == 5


class Spans:
    """What OpenTelemetry's own exporter, in memory, has got."""

    def __init__(self) -> None:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        from pyoci import otel

        self.exporter, self.provider = InMemorySpanExporter(), TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.end = otel.instrument(self.provider)

    def tracer(self) -> Tracer:
        return self.provider.get_tracer("tests")

    def by_name(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.exporter.get_finished_spans()}


@pytest.fixture
def spans() -> Iterator[Spans]:
    spans = Spans()
    yield spans
    spans.end()
    spans.provider.shutdown()


@pytest.fixture
def registry() -> CollectorRegistry:
    from prometheus_client import CollectorRegistry

    return CollectorRegistry()


def test_spans_of_a_run(runtime: pyoci.OCIRuntime, spans: Spans) -> None:
    with pyoci.Launcher(runtime=runtime) as pool:
        assert pool.submit(["sh", "-c", "exit 3"], id="a").result().returncode == 3
    found = spans.by_name()
    assert set(found) == {f"pyoci.{step}" for step in ("run", "create", "start", "wait", "delete")}
    whole = found.pop("pyoci.run")
    assert {span.parent.span_id if span.parent else None for span in found.values()} == {whole.context.span_id}
    assert whole.parent is None
    assert whole.attributes is not None
    expected = {"container.id": "a", "container.runtime.name": runtime.name, "pyoci.exit_code": 3, "pyoci.oom_killed": False}
    assert dict(whole.attributes) == expected
    assert whole.status.is_unset


def test_spans_hold_the_error(runtime: pyoci.OCIRuntime, spans: Spans) -> None:
    with pytest.raises(pyoci.RunTimeout):
        pyoci.run(["sleep", "100"], runtime=runtime, timeout=0.2)
    whole = spans.by_name()["pyoci.run"]
    assert (whole.status.status_code.name, whole.status.is_ok) == ("ERROR", False)
    assert whole.events[0].attributes is not None
    assert whole.events[0].attributes["exception.type"] == "pyoci.oneshot.RunTimeout"


def test_spans_are_below_the_callers(runtime: pyoci.OCIRuntime, build: Build, spans: Spans) -> None:
    with spans.tracer().start_as_current_span("caller") as caller, runtime.create(build("true")):
        pass
    found = spans.by_name()
    for step in ("create", "delete"):
        parent = found[f"pyoci.{step}"].parent
        assert parent is not None
        assert parent.span_id == caller.get_span_context().span_id


def test_spans_of_a_launcher_are_below_who_handed_in(runtime: pyoci.OCIRuntime, spans: Spans) -> None:
    with pyoci.Launcher(runtime=runtime, max_running=1) as pool:
        for name in ("first", "second"):
            with spans.tracer().start_as_current_span(name):
                pool.submit(["true"], id=name)
        with spans.tracer().start_as_current_span("all"):
            assert [done.returncode for done in pool.map([["true"]] * 2)] == [0, 0]
    found = spans.exporter.get_finished_spans()
    names = {span.context.span_id: span.name for span in found if span.context is not None}
    parents = [names[span.parent.span_id] for span in found if span.name == "pyoci.run" and span.parent is not None]
    assert sorted(parents) == ["all", "all", "first", "second"]
    assert {names[span.parent.span_id] for span in found if span.name == "pyoci.create" and span.parent is not None} == {"pyoci.run"}


def test_metrics(runtime: pyoci.OCIRuntime, registry: CollectorRegistry) -> None:
    from pyoci import prometheus

    metrics = prometheus.instrument(registry)
    try:
        with pyoci.Launcher(runtime=runtime, progress=metrics.progress("pool")) as pool:
            jobs: list[Any] = [["true"], ["false"], pyoci.Job(["sleep", "100"], timeout=2), pyoci.Job(["true"], rootfs="/nonexistent")]
            list(pool.map(jobs, return_exceptions=True))
    finally:
        metrics.close()
    pyoci.run(["true"], runtime=runtime)  # is counted no more

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, {"runtime": runtime.name, **labels})

    assert value("pyoci_containers_started_total") == 3
    assert value("pyoci_failures_total", step="run", error="RunTimeout") == 1
    assert value("pyoci_step_seconds_count", step="create") == 3
    assert value("pyoci_steps_in_progress", step="run") == 0
    assert registry.get_sample_value("pyoci_launcher_containers", {"launcher": "pool", "state": "running"}) == 0
    with pytest.raises(ValueError, match="pyoci"):
        prometheus.instrument(registry)


@pytest.mark.root
def test_metrics_of_memory(runtime: pyoci.OCIRuntime, has_controller: Any, registry: CollectorRegistry) -> None:
    from pyoci import prometheus

    has_controller("memory")
    metrics = prometheus.instrument(registry)
    try:
        assert pyoci.run(["sh", "-c", "x=x; while :; do x=$x$x; done"], runtime=runtime, memory="16M").oom_killed
    finally:
        metrics.close()
    assert registry.get_sample_value("pyoci_containers_oom_killed_total", {"runtime": runtime.name}) == 1
