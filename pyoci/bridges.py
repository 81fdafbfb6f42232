"""A network that containers share: a bridge on the host's side, and for each container a veth pair whose far end, ``eth0`` in a namespace of the
container's own, has an address of the bridge's subnet (veth(4), bridge(8)).

The containers reach each other and the host. What lies beyond is the host's business: forwarding (net.ipv4.ip_forward), masquerading and
filtering are its administrator's to set up.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from ipaddress import IPv4Interface, IPv4Network
from threading import Lock

from pyoci import ids
from pyoci.errors import InvalidOption, NetworkError
from pyoci.netlink import Netlink
from pyoci.networks import Connection, Network, NetworkNamespace, Space, is_ownerless, owner
from pyoci.process import Descriptor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from ipaddress import IPv4Address
    from typing import Self

LONGEST_NAME = 15
"""IFNAMSIZ without the closing NUL."""


class Addresses:
    """The addresses of a subnet, each given out once: in order, and then those that were given back first. The first is ``gateway``."""

    def __init__(self, subnet: str | IPv4Network) -> None:
        """Raises InvalidOption."""
        try:
            self.network: IPv4Network = IPv4Network(subnet)
        except ValueError as error:
            raise InvalidOption(f"subnet must be an IPv4 network such as 10.88.0.0/24, not {subnet!r:.200}: {error}") from None
        if not 8 <= self.network.prefixlen <= 30:
            raise InvalidOption(f"subnet must have a prefix from /8 to /30, with room for the bridge and a container, not {subnet}")
        self._fresh: Iterator[IPv4Address] = self.network.hosts()
        self._free: deque[IPv4Address] = deque()
        self.gateway: IPv4Address = next(self._fresh)
        self._lock = Lock()

    def take(self) -> IPv4Address:
        """Raises NetworkError when all are in use."""
        with self._lock:
            address = next(self._fresh, None)
            if address is None and self._free:
                address = self._free.popleft()
        if address is None:
            raise NetworkError(errno.EADDRNOTAVAIL, f"all addresses of {self.network} are in use; take a larger subnet")
        return address

    def give_back(self, address: IPv4Address) -> None:
        self._free.append(address)

    def interface(self, address: IPv4Address) -> IPv4Interface:
        return IPv4Interface((address, self.network.prefixlen))


class Bridge(Network):
    """``name``: of the bridge's link, at most 15 characters; None makes one. ``subnet``: IPv4; the bridge gets its first address, which is the
    containers' default route, and each container another one (``Container.address``). ``namespace``: where the bridge is made, in place of
    our own network namespace: the containers' host is then there.

    The bridge is there until ``close``; as a context manager it is closed at the end. When this process has been killed, ``stale`` finds it.
    Threads may share one; it belongs to the process that made it. Needs root (CAP_NET_ADMIN) and pyroute2, the extra ``network``. Raises
    InvalidOption, InvalidID, NetworkError (EEXIST: there is such a link already)."""

    def __init__(self, name: str | None = None, *, subnet: str | IPv4Network = "10.88.0.0/24", namespace: NetworkNamespace | None = None) -> None:
        self.name: str = f"pyoci-{os.urandom(4).hex()}" if name is None else _link_name(name)
        self._addresses = Addresses(subnet)
        self._namespace = None if namespace is None else _open(namespace)
        self._owner = os.getpid()
        self._lock = Lock()  # of the socket, and of what follows
        self._closed = False
        try:
            self._host = Netlink(None if self._namespace is None else self._namespace.fd)
        except BaseException:
            self._close_namespace()
            raise
        try:
            self._make()
        except BaseException:
            self._close_sockets()
            raise

    @property
    def subnet(self) -> IPv4Network:
        """The addresses that its containers and the host have."""
        return self._addresses.network

    @property
    def address(self) -> IPv4Address:
        """The bridge's own."""
        return self._addresses.gateway

    def _make(self) -> None:
        # With an address of its own: else a bridge takes that of some container's link, and another one when that goes.
        attributes = [("IFLA_IFNAME", self.name), ("IFLA_ADDRESS", _mac(self.address))]
        self._host.add_link(f"making the bridge {self.name}", [*attributes, ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "bridge")]})])
        try:
            self._index = self._host.index(self.name)
            self._host.set_alias(self._index, owner())  # which a link does not take at birth
            self._host.add_address(self._index, self._addresses.interface(self.address))
        except BaseException:
            self._host.remove_link(self.name)
            raise

    def close(self) -> None:
        """Removes the bridge; containers that still live are then without a network. Twice is fine. Raises NetworkError."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            try:
                if self._owner == os.getpid():
                    _remove(self.name, self._host)
            finally:
                self._close_sockets()

    def _close_sockets(self) -> None:
        self._host.close()
        self._close_namespace()

    def _close_namespace(self) -> None:
        if self._namespace is not None:
            self._namespace.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<pyoci.Bridge {self.name} {self.subnet}>"

    def connect(self) -> Connection:
        if self._owner != os.getpid():
            raise InvalidOption(f"the bridge {self.name} belongs to the process that made it, not to its fork")
        interface = self._addresses.interface(self._addresses.take())
        space: Space | None = None
        try:
            space = Space()
            return _Plugged(self, space, self._plug(space, interface), interface)
        except BaseException:
            if space is not None:
                space.close()
            self._addresses.give_back(interface.ip)
            raise

    def _plug(self, space: Space, interface: IPv4Interface) -> int:
        """Gives the number of the pair's far end."""
        peer = {"attrs": [("IFLA_IFNAME", "eth0"), ("IFLA_ADDRESS", _mac(interface.ip)), ("IFLA_NET_NS_FD", space.fd)]}
        pair = {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", {"attrs": [("VETH_INFO_PEER", peer)]})]}
        with self._lock:
            if self._closed:
                raise InvalidOption(f"the bridge {self.name} is closed")
            about = f"making a veth pair on the bridge {self.name}"
            self._host.add_link(about, [("IFLA_IFNAME", f"veth{os.urandom(4).hex()}"), ("IFLA_MASTER", self._index), ("IFLA_LINKINFO", pair)])
        with Netlink(space.fd) as inside:
            index = inside.index("eth0")
            inside.add_address(index, interface)
            inside.set_up(index)
            inside.add_default_route(index, str(self.address))
        return index


class _Plugged(Connection):
    """The veth pair goes with the namespace, when the container has ended."""

    __slots__ = ("_bridge", "_index", "_interface", "_space")

    def __init__(self, bridge: Bridge, space: Space, index: int, interface: IPv4Interface) -> None:
        super().__init__(space.path, interface)
        self._bridge = bridge
        self._space: Space | None = space
        self._index = index
        self._interface = interface

    def close(self) -> None:
        # Only here is the address free again: a container that nobody deletes may live on and keep it.
        space, self._space = self._space, None
        if space is None:
            return
        # The kernel takes its time with a namespace that nobody uses any more, and would answer for the address until then.
        try:
            with Netlink(space.fd) as inside:
                _unless_gone(lambda: inside.remove_address(self._index, self._interface))
        finally:
            space.close()
            self._bridge._addresses.give_back(self._interface.ip)


def _mac(address: IPv4Address) -> str:
    """A link's address, made of its IPv4 address as docker does: who has learnt it finds the next container under it as well."""
    return "02:42:" + ":".join(f"{byte:02x}" for byte in address.packed)


def _link_name(name: str) -> str:
    """As the kernel takes it (dev_valid_name), without what would mean something to a shell."""
    ids.check(name, "bridge's name")
    if len(name) > LONGEST_NAME:
        raise InvalidOption(f"a bridge's name has at most {LONGEST_NAME} characters, not {len(name)}: {name!r}")
    return name


def _open(namespace: NetworkNamespace) -> Descriptor:
    return Descriptor(os.open(namespace.connect().path, os.O_RDONLY | os.O_CLOEXEC))


# --- what a killed process has left -----------------------------------------------------------------------------------------------


def stale(namespace: NetworkNamespace | None = None) -> list[str]:
    """The bridges in our network namespace, or in another one, whose makers have ended and to which nothing is connected, by name; ``remove``
    removes one. Raises NetworkError."""
    with _host(namespace) as host:
        links = host.links()
    used = {link.get_attr("IFLA_MASTER") for link in links}
    ownerless = (link for link in links if is_ownerless(link.get_attr("IFLA_IFALIAS") or ""))
    return [link.get_attr("IFLA_IFNAME") for link in ownerless if link["index"] not in used]


def remove(name: str, namespace: NetworkNamespace | None = None) -> None:
    """Removes one; gone already is fine. Raises NetworkError."""
    with _host(namespace) as host:
        _remove(name, host)


def _remove(name: str, host: Netlink) -> None:
    _unless_gone(lambda: host.remove_link(name))


def _unless_gone(remove: Callable[[], None]) -> None:
    try:
        remove()
    except NetworkError as error:
        if error.errno not in (errno.ENODEV, errno.EADDRNOTAVAIL):
            raise


def _host(namespace: NetworkNamespace | None) -> Netlink:
    if namespace is None:
        return Netlink()
    with _open(namespace) as descriptor:
        return Netlink(descriptor.fd)
