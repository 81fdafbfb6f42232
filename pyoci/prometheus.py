"""Prometheus metrics of containers (``pip install pyoci-runtime[prometheus]``).

| metric | labels | counts |
|---|---|---|
| ``pyoci_containers_started_total`` | runtime | containers that were started |
| ``pyoci_failures_total`` | runtime, step, error | steps that ended with an exception, by its class: ``RunTimeout``, ``CreateError`` … |
| ``pyoci_containers_oom_killed_total`` | runtime | containers in which the kernel killed something for lack of memory |
| ``pyoci_step_seconds`` | runtime, step | a histogram of how long steps took: ``create``, ``start``, ``wait``, ``delete``, ``run`` |
| ``pyoci_steps_in_progress`` | runtime, step | steps that go on now; ``run`` are the containers of ``pyoci.run`` and of Launchers |
| ``pyoci_launcher_containers`` | launcher, state | a Launcher's, ``queued``, ``starting`` or ``running`` (``Metrics.progress``) |
"""

from __future__ import annotations

from time import perf_counter

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from pyoci.observing import Step, observe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pyoci.launcher import Progress
    from pyoci.observing import End

BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300)
"""Seconds; a start takes less than one of the usual first buckets."""


class Metrics:
    """The metrics, in one registry; from now on they count. Raises ValueError when the registry has them already."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.started: Counter = Counter("pyoci_containers_started", "Containers that were started", ["runtime"], registry=registry)
        self.failures: Counter = Counter("pyoci_failures", "Steps that ended with an exception", ["runtime", "step", "error"], registry=registry)
        self.oom_killed: Counter = Counter("pyoci_containers_oom_killed", "Containers that ran out of memory", ["runtime"], registry=registry)
        self.seconds: Histogram = Histogram("pyoci_step_seconds", "How long steps took", ["runtime", "step"], buckets=BUCKETS, registry=registry)
        self.in_progress: Gauge = Gauge("pyoci_steps_in_progress", "Steps that go on now", ["runtime", "step"], registry=registry)
        self.launchers: Gauge = Gauge("pyoci_launcher_containers", "Containers of launchers", ["launcher", "state"], registry=registry)
        self._end = observe(self._begin)

    def close(self) -> None:
        """They count no more."""
        self._end()

    def progress(self, name: str) -> Callable[[Progress], None]:
        """What a Launcher takes as ``progress``: shows its containers under this name."""
        queued, starting, running = (self.launchers.labels(name, state) for state in ("queued", "starting", "running"))

        def show(progress: Progress) -> None:
            queued.set(progress.queued)
            starting.set(progress.starting)
            running.set(progress.running)

        return show

    def _begin(self, step: Step) -> End:
        began = perf_counter()
        in_progress = self.in_progress.labels(step.runtime, step.name)
        in_progress.inc()

        def end(result: Any, error: BaseException | None) -> None:
            in_progress.dec()
            self.seconds.labels(step.runtime, step.name).observe(perf_counter() - began)
            if isinstance(error, Exception):
                self.failures.labels(step.runtime, step.name, type(error).__name__).inc()
            elif error is None and step.name == "start":
                self.started.labels(step.runtime).inc()
            elif error is None and step.name == "wait" and result.oom_killed:
                self.oom_killed.labels(step.runtime).inc()

        return end


def instrument(registry: CollectorRegistry = REGISTRY) -> Metrics:
    """The metrics, registered here, counting from now on."""
    return Metrics(registry)
