"""Launches and supervises OCI containers through conmon and runc or crun.

``pyoci.run`` is ``subprocess.run`` for containers; ``pyoci.OCIRuntime`` holds containers one by one; ``pyoci.aio`` is the same for asyncio.
Everything is imported at its first use: ``import pyoci`` costs next to nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyoci import aio as aio
    from pyoci import bridges as bridges
    from pyoci import errors as errors
    from pyoci import networks as networks
    from pyoci import rootfs as rootfs
    from pyoci import spec as spec
    from pyoci.bridges import Bridge as Bridge
    from pyoci.container import Container as Container
    from pyoci.container import ExecSession as ExecSession
    from pyoci.errors import (
        CgroupError as CgroupError,
    )
    from pyoci.errors import (
        ConmonError as ConmonError,
    )
    from pyoci.errors import (
        ConmonTooOld as ConmonTooOld,
    )
    from pyoci.errors import (
        ContainerExists as ContainerExists,
    )
    from pyoci.errors import (
        ContainerInherited as ContainerInherited,
    )
    from pyoci.errors import (
        ContainerNotFound as ContainerNotFound,
    )
    from pyoci.errors import (
        ContainerStateError as ContainerStateError,
    )
    from pyoci.errors import (
        CreateError as CreateError,
    )
    from pyoci.errors import (
        DamagedRecord as DamagedRecord,
    )
    from pyoci.errors import (
        Error as Error,
    )
    from pyoci.errors import (
        ExecError as ExecError,
    )
    from pyoci.errors import (
        ExecTimeout as ExecTimeout,
    )
    from pyoci.errors import (
        ExecutableError as ExecutableError,
    )
    from pyoci.errors import (
        InvalidID as InvalidID,
    )
    from pyoci.errors import (
        InvalidOption as InvalidOption,
    )
    from pyoci.errors import (
        InvalidSpec as InvalidSpec,
    )
    from pyoci.errors import (
        NetworkError as NetworkError,
    )
    from pyoci.errors import (
        NoCgroup as NoCgroup,
    )
    from pyoci.errors import (
        NoRuntime as NoRuntime,
    )
    from pyoci.errors import (
        OutputTooLong as OutputTooLong,
    )
    from pyoci.errors import (
        ProtocolError as ProtocolError,
    )
    from pyoci.errors import (
        RuntimeFailed as RuntimeFailed,
    )
    from pyoci.errors import (
        SessionExists as SessionExists,
    )
    from pyoci.errors import (
        SpawnError as SpawnError,
    )
    from pyoci.errors import (
        StateDirError as StateDirError,
    )
    from pyoci.errors import (
        Timeout as Timeout,
    )
    from pyoci.exits import ExitStatus as ExitStatus
    from pyoci.launcher import Job as Job
    from pyoci.launcher import Launcher as Launcher
    from pyoci.launcher import LaunchFuture as LaunchFuture
    from pyoci.launcher import Progress as Progress
    from pyoci.logs import LogEntry as LogEntry
    from pyoci.networks import NetworkNamespace as NetworkNamespace
    from pyoci.networks import NetworkPool as NetworkPool
    from pyoci.oneshot import CompletedProcess as CompletedProcess
    from pyoci.oneshot import RunFailed as RunFailed
    from pyoci.oneshot import RunTimeout as RunTimeout
    from pyoci.oneshot import run as run
    from pyoci.processes import ContainerProcess as ContainerProcess
    from pyoci.recovery import Pruned as Pruned
    from pyoci.runtime import OCIRuntime as OCIRuntime
    from pyoci.runtime import prune as prune
    from pyoci.runtimes import State as State
    from pyoci.several import ALL_COMPLETED as ALL_COMPLETED
    from pyoci.several import FIRST_COMPLETED as FIRST_COMPLETED
    from pyoci.several import wait as wait
    from pyoci.streams import DEVNULL as DEVNULL
    from pyoci.streams import PIPE as PIPE
    from pyoci.streams import STDOUT as STDOUT
    from pyoci.warm import WarmPool as WarmPool

__version__ = "0.1.0"

_HOMES = {
    "bridges": ("Bridge",),
    "container": ("Container", "ExecSession"),
    "errors": (
        "CgroupError",
        "ConmonError",
        "ConmonTooOld",
        "ContainerExists",
        "ContainerInherited",
        "ContainerNotFound",
        "ContainerStateError",
        "CreateError",
        "DamagedRecord",
        "Error",
        "ExecError",
        "ExecTimeout",
        "ExecutableError",
        "InvalidID",
        "InvalidOption",
        "InvalidSpec",
        "NetworkError",
        "NoCgroup",
        "NoRuntime",
        "OutputTooLong",
        "ProtocolError",
        "RuntimeFailed",
        "SessionExists",
        "SpawnError",
        "StateDirError",
        "Timeout",
    ),
    "exits": ("ExitStatus",),
    "launcher": ("Job", "LaunchFuture", "Launcher", "Progress"),
    "networks": ("NetworkNamespace", "NetworkPool"),
    "logs": ("LogEntry",),
    "oneshot": ("CompletedProcess", "RunFailed", "RunTimeout", "run"),
    "processes": ("ContainerProcess",),
    "recovery": ("Pruned",),
    "runtime": ("OCIRuntime", "prune"),
    "several": ("ALL_COMPLETED", "FIRST_COMPLETED", "wait"),
    "streams": ("DEVNULL", "PIPE", "STDOUT"),
    "warm": ("WarmPool",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
_MODULES = ("aio", "bridges", "errors", "networks", "rootfs", "spec")

__all__ = [*_HOME, *_MODULES, "__version__"]  # noqa: PLE0604 — both are tuples of str


def __getattr__(name: str) -> Any:
    """The lazy import of PEP 562."""
    from importlib import import_module

    if name in _MODULES:
        return import_module(f"pyoci.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'pyoci' has no attribute {name!r}")
    value = getattr(import_module(f"pyoci.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
