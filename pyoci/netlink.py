"""Talking with the kernel about links, addresses and routes (rtnetlink(7)). pyroute2 (the extra ``network``) turns messages into bytes and back;
the socket is ours: pyroute2's own runs an event loop, which fails below one that runs already, and forks to reach another namespace.

The kernel does what a message asks while it is being sent, and has answered by the time that the call returns: nothing here waits.
"""

from __future__ import annotations

import os
import socket
import struct
from itertools import count

from pyoci import _ffi
from pyoci.errors import InvalidOption, NetworkError

try:
    from pyroute2.netlink import NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST
    from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
    from pyroute2.netlink.rtnl.rtmsg import rtmsg
except ImportError as _error:
    _lacking: ImportError | None = _error
else:
    _lacking = None

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from ipaddress import IPv4Interface
    from typing import Any, TypeAlias

    Attributes: TypeAlias = list[tuple[str, Any]]

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR = 20, 21
RTM_NEWROUTE = 24
NLM_F_EXCL, NLM_F_CREATE = 0x200, 0x400
NLM_F_ACK_TLVS, NLM_F_CAPPED = 0x200, 0x100
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLMSGERR_ATTR_MSG = 1
NETLINK_CAP_ACK, NETLINK_EXT_ACK = 10, 11
SOL_NETLINK = 270
IFF_UP = 1
LARGEST = 1 << 16
"""Bytes of one datagram of answers; the kernel makes them at most 32 KiB."""

MESSAGES: dict[int, Any] = (
    {
        RTM_NEWLINK: ifinfmsg,
        RTM_DELLINK: ifinfmsg,
        RTM_GETLINK: ifinfmsg,
        RTM_NEWADDR: ifaddrmsg,
        RTM_DELADDR: ifaddrmsg,
        RTM_NEWROUTE: rtmsg,
    }
    if _lacking is None
    else {}
)


class Netlink:
    """An rtnetlink socket in a network namespace: in the one that a descriptor holds, or in ours. As a context manager it is closed at the end."""

    def __init__(self, namespace: int | None = None) -> None:
        """Raises NetworkError, and InvalidOption without pyroute2."""
        if _lacking is not None:
            raise InvalidOption("a bridge needs pyroute2: pip install 'pyoci-runtime[network]'") from _lacking
        family, kind = socket.AF_NETLINK, socket.SOCK_RAW
        if namespace is None:
            self._socket = socket.socket(family, kind, socket.NETLINK_ROUTE)
        else:
            self._socket = socket.socket(family, kind, socket.NETLINK_ROUTE, _ffi.network_socket(namespace, family, kind, socket.NETLINK_ROUTE))
        self._numbers = count(1)
        for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK):
            self._socket.setsockopt(SOL_NETLINK, option, 1)

    def ask(self, step: str, kind: int, fields: Mapping[str, Any], attributes: Attributes, flags: int = 0) -> list[Any]:
        """Sends one message and gives what the kernel answers, decoded. Raises NetworkError with ``step`` and the kernel's own words, if it has
        any."""
        message, number = MESSAGES[kind](), next(self._numbers)
        for name, value in fields.items():
            message[name] = value
        message["attrs"] = attributes
        message["header"] = {"type": kind, "flags": NLM_F_REQUEST | NLM_F_ACK | flags, "sequence_number": number, "pid": 0}
        message.encode()
        self._socket.sendto(bytes(message.data), (0, 0))
        answers: list[Any] = []
        while True:
            data = self._socket.recv(LARGEST)
            while data:
                length, what, how, of, _ = struct.unpack_from("=IHHII", data)
                one, data = data[:length], data[(length + 3) & ~3 :]
                if of != number:
                    continue  # the end of an earlier answer
                if what == NLMSG_ERROR:
                    _raise_for(step, one, how)
                    return answers
                if what == NLMSG_DONE:
                    return answers
                answer = MESSAGES[kind](one)
                answer.decode()
                answers.append(answer)

    def index(self, name: str) -> int:
        """The number of a link. Raises NetworkError when there is none of this name."""
        return int(self.ask(f"looking for the link {name}", RTM_GETLINK, {}, [("IFLA_IFNAME", name)])[0]["index"])

    def links(self) -> list[Any]:
        return self.ask("listing the links", RTM_GETLINK, {}, [], NLM_F_DUMP)

    def add_link(self, step: str, attributes: Attributes) -> None:
        self.ask(step, RTM_NEWLINK, {"flags": IFF_UP, "change": IFF_UP}, attributes, NLM_F_CREATE | NLM_F_EXCL)

    def set_alias(self, index: int, alias: str) -> None:
        self.ask(f"describing the link {index}", RTM_NEWLINK, {"index": index}, [("IFLA_IFALIAS", alias)])

    def set_up(self, index: int) -> None:
        self.ask(f"setting the link {index} up", RTM_NEWLINK, {"index": index, "flags": IFF_UP, "change": IFF_UP}, [])

    def add_address(self, index: int, interface: IPv4Interface) -> None:
        self._address("adding", RTM_NEWADDR, index, interface, NLM_F_CREATE | NLM_F_EXCL)

    def remove_address(self, index: int, interface: IPv4Interface) -> None:
        self._address("removing", RTM_DELADDR, index, interface, 0)

    def _address(self, what: str, kind: int, index: int, interface: IPv4Interface, flags: int) -> None:
        address, broadcast = str(interface.ip), str(interface.network.broadcast_address)
        attributes = [("IFA_LOCAL", address), ("IFA_ADDRESS", address), ("IFA_BROADCAST", broadcast)]
        fields = {"family": socket.AF_INET, "prefixlen": interface.network.prefixlen, "index": index}
        self.ask(f"{what} the address {interface}", kind, fields, attributes, flags)

    def add_default_route(self, index: int, gateway: str) -> None:
        fields = {"family": socket.AF_INET, "dst_len": 0, "table": 254, "proto": 4, "scope": 0, "type": 1}  # main, static, universe, unicast
        attributes = [("RTA_GATEWAY", gateway), ("RTA_OIF", index)]
        self.ask(f"adding the default route by {gateway}", RTM_NEWROUTE, fields, attributes, NLM_F_CREATE | NLM_F_EXCL)

    def remove_link(self, name: str) -> None:
        self.ask(f"removing the link {name}", RTM_DELLINK, {}, [("IFLA_IFNAME", name)])

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _raise_for(step: str, message: bytes, flags: int) -> None:
    """struct nlmsgerr (linux/netlink.h): the errno, the header of what was asked, and then the kernel's words."""
    code = -int(struct.unpack_from("=i", message, 16)[0])
    if code == 0:
        return
    words, at = "", 36 if flags & NLM_F_CAPPED else len(message)
    while flags & NLM_F_ACK_TLVS and at + 4 <= len(message):
        length, kind = struct.unpack_from("=HH", message, at)
        if kind & 0x3FFF == NLMSGERR_ATTR_MSG:
            words = f" ({message[at + 4 : at + length].rstrip(bytes(1)).decode('utf-8', 'replace')})"
        at += max((length + 3) & ~3, 4)
    hint = " (this needs CAP_NET_ADMIN)" if code == 1 and not words else ""
    raise NetworkError(code, f"{step}: {os.strerror(code)}{words}{hint}")
