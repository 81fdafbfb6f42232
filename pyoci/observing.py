"""What happens to containers, told to who asked: the one hook below ``pyoci.otel``, ``pyoci.prometheus`` and what others build.

While nobody has asked, an operation costs one look at an empty tuple more.
"""

from __future__ import annotations

from functools import wraps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ParamSpec, TypeAlias, TypeVar

    from pyoci.waiting import Operation

    P = ParamSpec("P")
    T = TypeVar("T")
    End: TypeAlias = Callable[[Any, BaseException | None], object]
    Observer: TypeAlias = Callable[["Step"], End | None]


class Step:
    """One operation on a container: ``name`` is ``create``, ``start``, ``wait`` (the one that learns how it ended), ``delete``, or ``run``, which
    holds the others of a ``pyoci.run`` or of a Launcher. ``id`` is the container's, ``runtime`` the name of its runtime."""

    __slots__ = ("id", "name", "runtime")

    def __init__(self, name: str, id: str, runtime: str) -> None:
        self.name: str = name
        self.id: str = id
        self.runtime: str = runtime

    def __repr__(self) -> str:
        return f"Step({self.name!r}, {self.id!r}, {self.runtime!r})"


_observers: tuple[Observer, ...] = ()


def observe(observer: Observer) -> Callable[[], None]:
    """Has ``observer(step)`` called when a step begins, on the thread that drives it: it must be quick. What it returns, if anything, is called at
    the step's end with its result and None, or with None and its exception. Returns what ends the observing. What an observer raises is logged
    and disturbs nothing."""
    global _observers
    _observers = (*_observers, observer)

    def end() -> None:
        global _observers
        _observers = tuple(each for each in _observers if each is not observer)

    return end


def observed(name: str, of: Callable[..., tuple[str, str] | None]) -> Callable[[Callable[P, Operation[T]]], Callable[P, Operation[T]]]:
    """Makes a step of an operation. ``of``: from its arguments the container's id and its runtime's name; None: this one is no step."""

    def decorate(function: Callable[P, Operation[T]]) -> Callable[P, Operation[T]]:
        @wraps(function)
        def operation(*args: P.args, **kwargs: P.kwargs) -> Operation[T]:
            if not _observers or (about := of(*args, **kwargs)) is None:
                return function(*args, **kwargs)
            return _told(Step(name, *about), function(*args, **kwargs))

        return operation

    return decorate


def _told(step: Step, operation: Operation[T]) -> Operation[T]:
    ends = [_call(observer, step) for observer in _observers]
    try:
        result = yield from operation
    except BaseException as error:
        for end in ends:
            _call(end, None, error)
        raise
    for end in ends:
        _call(end, result, None)
    return result


def _call(what: Callable[..., Any] | None, *args: object) -> Any:
    if what is None:
        return None
    try:
        return what(*args)
    except Exception:
        import logging
        from traceback import format_exc

        # As text: a record that is kept would keep the frames, and with them pidfds.
        logging.getLogger("pyoci").error("an observer failed: %s", format_exc())
        return None
