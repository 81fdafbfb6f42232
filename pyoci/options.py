"""How one container is created, besides its spec: plain, fixed values, checked when they are made; nothing else is looked at or started."""

from __future__ import annotations

from pyoci.errors import InvalidOption

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypedDict

    class CreateOptions(TypedDict, total=False):
        """The options of ``OCIRuntime.create``; ``Options`` says what each means."""

        mount_namespace: bool | None
        stdin: bool
        sync_log: bool


NULL_STDIO = (-1, -1, -1)


class Options:
    """``stdin``: keep the container's stdin open for attach. ``sync_log``: fsync the log at the end. ``mount_namespace``: start conmon in a
    mount namespace where the root file system is within reach of the container's mapped root; None: where that is needed (``mounts.plan``).

    Not for callers of ``create``: ``log_driver``, and ``stdio``, the descriptors that become conmon's own 0, 1 and 2 (-1: /dev/null)."""

    __slots__ = ("log_driver", "mount_namespace", "stdin", "stdio", "sync_log")

    def __init__(
        self,
        *,
        log_driver: str = "k8s-file",
        mount_namespace: bool | None = None,
        stdio: Sequence[int] = NULL_STDIO,
        stdin: bool = False,
        sync_log: bool = False,
    ) -> None:
        self.log_driver = log_driver
        self.mount_namespace = None if mount_namespace is None else boolean("mount_namespace", mount_namespace)
        self.stdio = stdio
        self.stdin = boolean("stdin", stdin)
        self.sync_log = boolean("sync_log", sync_log)

    def __setattr__(self, name: str, value: object) -> None:
        if hasattr(self, name):
            raise AttributeError(f"{name} cannot be changed: options are fixed once they are made")
        object.__setattr__(self, name, value)


def boolean(name: str, value: bool) -> bool:
    if type(value) is not bool:
        raise InvalidOption(f"{name} must be True or False, not {value!r:.200}")
    return value
