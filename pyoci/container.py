"""``Container``: what the caller holds of one container."""

from __future__ import annotations

from pyoci import lifecycle, spec
from pyoci.store import store_at
from pyoci.waiting import drive

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from types import TracebackType
    from typing import Self

    from pyoci.exits import ExitStatus
    from pyoci.runtimes import State


class ContainerBase:
    """What the blocking and the asyncio Container share: everything that does not wait."""

    __slots__ = ("_life",)

    _life: lifecycle.Life

    @classmethod
    def _of(cls, life: lifecycle.Life) -> Self:
        self = cls.__new__(cls)
        self._life = life
        return self

    @property
    def id(self) -> str:
        return self._life.id

    @property
    def directory(self) -> str:
        """The container's own directory: config.json, log, exit file and what else docs/architecture.md names."""
        return self._life.directory

    @property
    def log_path(self) -> str:
        """The log in Kubernetes' format, one line per line of output: time, stream, F or P (partial), text. Written when ``log_driver`` is
        ``k8s-file``."""
        return self._life.log_path

    @property
    def log_driver(self) -> str:
        """Where its output goes; see ``options.Options``."""
        return self._life.log_driver

    @property
    def pid(self) -> int | None:
        """The pid of the container's init as this pid namespace sees it; None once it has ended."""
        init = self._life.init
        return None if init is None or self._life.has_ended() else init.pid

    @property
    def conmon_pid(self) -> int | None:
        """The pid of its conmon; None when that has ended."""
        monitor = self._life.conmon
        return None if monitor is None or monitor.has_ended() else monitor.pid

    @property
    def exit_status(self) -> ExitStatus | None:
        """How it ended, if ``wait`` or ``stop`` has told so here; waits for nothing."""
        return self._life.status

    def fileno(self) -> int:
        """A pidfd of init that becomes readable when the container ends, for event loops; -1 if it had ended before it was loaded. It stays
        this object's: do not close it."""
        return self._life.init.pidfd if self._life.init is not None else -1

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__name__} {self.id}>"


class Container(ContainerBase):
    """One container. ``OCIRuntime.create`` makes it, ``Container.load`` finds it again. As a context manager it is stopped and deleted at the
    end; when an exception leaves the block it is killed at once."""

    __slots__ = ()

    @classmethod
    def load(cls, id: str, *, state_dir: str | os.PathLike[str] | None = None) -> Self:
        """The container with this id, whichever process created it. Raises ContainerNotFound."""
        return cls._of(lifecycle.load(store_at(state_dir), id))

    def state(self) -> State:
        """``created``, ``running``, ``paused`` or ``stopped``. Raises ContainerNotFound after delete."""
        return drive(lifecycle.state(self._life))

    def start(self) -> None:
        """Starts it. Raises ContainerStateError unless it is "created"."""
        drive(lifecycle.start(self._life))

    def wait(self, timeout: float | None = None) -> ExitStatus:
        """Waits for its end, for at most ``timeout`` seconds; Timeout then, and it goes on. Returns the same again later."""
        return drive(lifecycle.wait(self._life, timeout))

    def kill(self, signal: int | str = "KILL") -> None:
        """Sends a signal to its init. Raises ContainerStateError when it has ended."""
        drive(lifecycle.kill(self._life, spec.signal_number(signal)))

    def stop(self, timeout: float = lifecycle.STOP_TIMEOUT, *, signal: int | str | None = None) -> ExitStatus:
        """Ends it: the stop signal (given, or that of the image, or TERM), then KILL to everything in it after ``timeout`` seconds. A paused
        container is thawed first; one that has ended already is fine."""
        return drive(lifecycle.stop(self._life, timeout, None if signal is None else spec.signal_number(signal)))

    def pause(self) -> None:
        """Freezes it (cgroup freezer). Raises ContainerStateError unless it is running, NoCgroup when it has no cgroup (docs/rootless.md)."""
        drive(lifecycle.pause(self._life))

    def resume(self) -> None:
        """Thaws it. Raises ContainerStateError unless it is paused."""
        drive(lifecycle.resume(self._life))

    def delete(self, *, force: bool = False) -> None:
        """Removes it with everything of it. Raises ContainerStateError while it lives, unless ``force``, which kills it first;
        ContainerNotFound when it was deleted before."""
        drive(lifecycle.delete(self._life, force))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        drive(lifecycle.leave(self._life, failed=kind is not None))
