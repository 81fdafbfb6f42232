"""OpenTelemetry spans: one for each step of a container's life (``pip install pyoci-runtime[otel]``).

The span of a ``pyoci.run``, or of a Launcher's container, is ``pyoci.run``; the spans of its steps are below it. A container of an ``OCIRuntime``
outlives calls and processes: each of its steps is a span below the caller's, and they meet in the attribute ``container.id``.
"""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from pyoci import __version__
from pyoci.observing import Step, observe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from opentelemetry.trace import Span, Tracer, TracerProvider

    from pyoci.observing import End


def instrument(tracer_provider: TracerProvider | None = None) -> Callable[[], None]:
    """From now on steps give spans, to this provider or to the global one. Returns what ends that.

    Attributes: ``container.id`` and ``container.runtime.name`` (OpenTelemetry's semantic conventions); when it has ended, ``pyoci.exit_code`` (of
    ``run`` its returncode, of ``wait`` the status's code; absent when nobody knows) and ``pyoci.oom_killed``. An exception is recorded and makes
    the span's status ERROR; an exit code is no error."""
    return observe(_Spans(trace.get_tracer("pyoci", __version__, tracer_provider)))


class _Spans:
    def __init__(self, tracer: Tracer) -> None:
        self.tracer = tracer
        self.runs: dict[str, Span] = {}

    def __call__(self, step: Step) -> End:
        run = self.runs.get(step.id)
        context = None if run is None else trace.set_span_in_context(run)
        attributes = {"container.id": step.id, "container.runtime.name": step.runtime}
        span = self.tracer.start_span(f"pyoci.{step.name}", context, SpanKind.INTERNAL, attributes)
        if step.name == "run":
            self.runs[step.id] = span

        def end(result: Any, error: BaseException | None) -> None:
            if step.name == "run":
                self.runs.pop(step.id, None)
            if error is not None:
                span.record_exception(error)
                span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))
            elif step.name in ("run", "wait"):
                code = result.returncode if step.name == "run" else result.code
                if code is not None:
                    span.set_attribute("pyoci.exit_code", code)
                span.set_attribute("pyoci.oom_killed", result.oom_killed)
            span.end()

        return end
