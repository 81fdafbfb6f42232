"""Networks for containers: named network namespaces, and a pool of unnamed ones that short containers use one after another
(network_namespaces(7), ip-netns(8)). The third kind, a bridge, is in ``bridges``.

``network=`` takes a ``Network``. A container's create connects to it, which gives the path of a namespace for its spec; the connection is closed
when the container has been deleted.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from time import monotonic

from pyoci import _ffi, forks, ids, owners
from pyoci.errors import InvalidOption, NetworkError
from pyoci.spec import is_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from ipaddress import IPv4Interface
    from typing import Any, Self

NAMES = "/run/netns"
"""Where iproute2 has the names of network namespaces."""
IDLE_PER_PROCESSOR = 8
SETTLING = 1.0
"""Seconds in which what a container's end has left to the kernel (closing sockets) must be gone from a pooled namespace."""
CHANGING = frozenset(("CAP_NET_ADMIN", "CAP_SYS_ADMIN"))
"""With one of these a container may change what the kernel does not tell of."""


class Connection:
    """A container's part of a network. ``path``: of its network namespace, as it stands in the spec. ``address``: the container's, where the network
    gives one. ``is_kept``: nothing that it is allowed could change its namespace for the next one."""

    __slots__ = ("address", "is_kept", "path")

    def __init__(self, path: str, address: IPv4Interface | None = None) -> None:
        self.path: str = path
        self.address: IPv4Interface | None = address
        self.is_kept: bool = False

    def close(self) -> None:
        """The container is gone, and with it all its processes."""


class Network:
    """What ``network=`` takes, besides words and paths."""

    __slots__ = ()

    def connect(self) -> Connection:
        """For one more container. Raises NetworkError."""
        raise NotImplementedError


def leaves_as_found(config: Mapping[str, Any]) -> bool:
    """A container of this spec cannot change the settings of its network namespace, nor outlive its init: it has none of the capabilities for that,
    not even in its bounding set, no hooks (which run as ourselves), no sysctls that the runtime sets there, a /proc/sys that it cannot write to (its
    files belong to root, whatever root's capabilities), and a pid namespace of its own."""
    process, linux = config.get("process") or {}, config.get("linux") or {}
    capabilities = process.get("capabilities")
    if not isinstance(capabilities, dict) or any((config.get("hooks") or {}).values()):
        return False
    if any(not CHANGING.isdisjoint(names or ()) for names in capabilities.values()):
        return False
    if any(name.startswith("net") for name in linux.get("sysctl") or ()):
        return False
    if "/proc/sys" not in (*(linux.get("readonlyPaths") or ()), *(linux.get("maskedPaths") or ())):
        return False
    return any(n.get("type") == "pid" and not n.get("path") for n in linux.get("namespaces") or ())


# --- named ------------------------------------------------------------------------------------------------------------------------


class NetworkNamespace(Network):
    """A network namespace with a name, as ``ip netns`` has it: ``make``, ``load`` and ``list`` give one. Any number of containers may share it,
    one after another or at once, and it stays until ``remove``. As a context manager it is removed at the end."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name: str = ids.check(name, "network namespace's name")

    @classmethod
    def make(cls, name: str | None = None) -> Self:
        """A new one, empty but for a loopback that is up. ``name``: see ``ids.check``; None makes one that tells whose it is, so that ``stale``
        finds it when this process has been killed. Raises InvalidID, and NetworkError (FileExistsError's errno when the name is taken)."""
        self = cls(f"{owner()}_{os.urandom(4).hex()}" if name is None else name)
        _ffi.network_names(NAMES)
        made = _Descriptors()
        try:
            _ffi.network_make(made.struct, self.path)
        except NetworkError as error:
            if error.errno == errno.EEXIST:
                message = f"the network namespace {self.name!r} exists: {self.path}; load or remove it, or use another name"
                raise NetworkError(errno.EEXIST, message, self.path) from None
            raise
        made.close()
        return self

    @classmethod
    def load(cls, name: str) -> Self:
        """The one with this name, whoever made it. Raises NetworkError when there is none."""
        self = cls(name)
        self._check()
        return self

    @classmethod
    def list(cls) -> list[Self]:
        """All that are there, by name."""
        try:
            names = sorted(os.listdir(NAMES))
        except FileNotFoundError:
            return []
        return [cls(name) for name in names if ids.is_valid(name) and is_namespace(f"{NAMES}/{name}")]

    @property
    def path(self) -> str:
        """Where it is bound: a path for ``network=``."""
        return f"{NAMES}/{self.name}"

    def connect(self) -> Connection:
        self._check()
        return Connection(self.path)

    def remove(self) -> None:
        """Takes the name away. The namespace itself goes with the last process and the last link that uses it. Raises NetworkError, also when it
        is gone already."""
        _ffi.network_unname(self.path)

    def _check(self) -> None:
        if not is_namespace(self.path):
            what = "is no network namespace" if os.path.lexists(self.path) else "does not exist"
            raise NetworkError(errno.ENOENT, f"no network namespace {self.name!r}: {self.path} {what}", self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self.remove()
        except NetworkError as e:
            if e.errno != errno.ENOENT:  # removed in the block: fine
                raise

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NetworkNamespace) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"pyoci.NetworkNamespace({self.name!r})"


# --- whose they are ---------------------------------------------------------------------------------------------------------------


def owner() -> str:
    """Who we are (``owners.ours``), as a name or the beginning of one."""
    return f"pyoci_{owners.ours().replace(' ', '_')}"


def is_ownerless(name: str) -> bool:
    """The name begins with what ``owner`` gave in a process that has ended."""
    prefix, *words = name.split("_")
    return prefix == "pyoci" and owners.fate(" ".join(words[:5])) == "gone"


def stale() -> list[NetworkNamespace]:
    """The namespaces that ``make`` has named itself, in processes that have ended. A container that still uses one keeps it when the name is
    removed."""
    return [namespace for namespace in NetworkNamespace.list() if is_ownerless(namespace.name)]


# --- unnamed --------------------------------------------------------------------------------------------------------------------------


class _Descriptors:
    """struct po_network, whose descriptors are closed when nobody holds it any more."""

    __slots__ = ("struct",)

    def __init__(self) -> None:
        self.struct = _ffi.new_network()  # what C fills in, so that a KeyboardInterrupt just after the call finds it here

    def close(self) -> None:
        struct = self.struct
        for name in ("namespace", "route", "filter", "sockstat"):
            fd = getattr(struct, name)
            setattr(struct, name, -1)
            if fd >= 0:
                os.close(fd)

    def __del__(self) -> None:
        self.close()


class Space:
    """A namespace without a name, that lives as long as this object or a process in it. So nothing can be left of it, even when we are killed."""

    __slots__ = ("_descriptors", "_sockets", "released")

    def __init__(self) -> None:
        """Raises NetworkError."""
        self._descriptors = _Descriptors()
        _ffi.network_make(self._descriptors.struct)
        self._sockets, _ = self._count()
        self.released: float = 0.0

    @property
    def fd(self) -> int:
        return int(self._descriptors.struct.namespace)

    @property
    def path(self) -> str:
        """Good for as long as this object lives."""
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def is_changed(self) -> bool:
        """The kernel has told of some change of links, addresses, routes, rules, queues or nftables since it was made."""
        return _ffi.network_is_changed(self._descriptors.struct)

    def is_quiet(self) -> bool:
        """No socket is left in it: open, still closing, or waiting for a peer's late packets (TIME_WAIT)."""
        return self._count() == (self._sockets, 0)

    def _count(self) -> tuple[int, int]:
        """(sockets, those in TIME_WAIT), of this namespace (net/ipv4/proc.c): "sockets: used 2\\nTCP: inuse 0 orphan 0 tw 0 …"."""
        words = os.pread(self._descriptors.struct.sockstat, 256, 0).split()
        return int(words[2]), int(words[words.index(b"tw") + 1])

    def close(self) -> None:
        self._descriptors.close()


class NetworkPool(Network):
    """Network namespaces for short containers, each empty but for a loopback that is up, and used by one container at a time. Making one, and its
    end, take the kernel longer than all else in a network namespace's life, under locks that all containers share: so they are used again.

    A container gets one that is as new: the kernel has told of no change in it, and no socket is left. One that is not, or whose container could
    have changed what nobody tells of (``leaves_as_found``; an exec with capabilities of its own), is closed and never used again. What passes
    from one container to the next all the same is counters, the numbers that the kernel gives out, and caches (docs/guide/networks.md).

    ``size``: how many may lie idle; by default 8 for each processor that we may use. Any number may be in use; who finds none idle gets a new one.
    The namespaces have no name, and go with this process or with the last container in them. Threads may share a pool; a forked child
    begins with an empty one. As a context manager it is closed at the end. Raises InvalidOption; NetworkError comes from the first create that needs
    a namespace."""

    __slots__ = ("_closed", "_generation", "_idle", "made", "reused", "size")

    def __init__(self, size: int | None = None) -> None:
        if size is not None and (type(size) is not int or size < 1):
            raise InvalidOption(f"size must be a whole number from 1 on, not {size!r:.200}")
        self.size: int = IDLE_PER_PROCESSOR * len(os.sched_getaffinity(0)) if size is None else size
        self.made: int = 0
        """How many namespaces were made so far …"""
        self.reused: int = 0
        """… and how often one was used again."""
        self._idle: deque[Space] = deque()  # the one that was given back first is on the left; its methods are atomic
        self._closed = False
        self._generation = forks.generation

    def connect(self) -> Connection:
        if self._closed:
            raise InvalidOption("this network pool is closed")
        if self._generation != forks.generation:
            self._generation = forks.generation
            self._idle.clear()  # those are our parent's
        space = self._take()
        if space is None:
            space = Space()
            self.made += 1
        else:
            self.reused += 1
        return _Pooled(self, space)

    def _take(self) -> Space | None:
        """One that is as new. What is still settling stays, for a while."""
        settled_by = monotonic() - SETTLING
        for _ in range(len(self._idle)):
            try:
                space = self._idle.popleft()
            except IndexError:
                break  # other threads took them
            if not space.is_changed():
                if space.is_quiet():
                    return space
                if space.released > settled_by:
                    self._idle.append(space)
                    continue
            space.close()
        return None

    def _give_back(self, space: Space) -> None:
        if self._closed or self._generation != forks.generation or space.is_changed():
            space.close()
            return
        space.released = monotonic()
        self._idle.append(space)
        if self._closed or len(self._idle) > self.size:
            try:
                self._idle.popleft().close()
            except IndexError:
                pass  # another thread took it

    def close(self) -> None:
        """Gives up what lies idle; what is in use goes with its containers. Twice is fine."""
        self._closed = True
        while self._idle:
            try:
                self._idle.popleft().close()
            except IndexError:
                pass  # another thread took it

    def __len__(self) -> int:
        """How many lie idle."""
        return len(self._idle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<pyoci.NetworkPool: {len(self._idle)} of at most {self.size} idle, {self.made} made, {self.reused} times reused>"


class _Pooled(Connection):
    __slots__ = ("_pool", "_space")

    def __init__(self, pool: NetworkPool, space: Space) -> None:
        super().__init__(space.path)
        self._pool = pool
        self._space: Space | None = space

    def close(self) -> None:
        space, self._space = self._space, None
        if space is None:
            return
        if self.is_kept:
            self._pool._give_back(space)
        else:
            space.close()
