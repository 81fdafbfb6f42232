"""network.c: what a new network namespace holds, what tells that it was changed, and what is left when a step fails."""

from __future__ import annotations

import errno
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from ipaddress import IPv4Interface
from pathlib import Path

import pytest

import pyoci
from pyoci import _ffi
from pyoci.netlink import RTM_GETLINK, Netlink
from pyoci.networks import Space
from pyoci.process import Descriptor
from tests import machine

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: namespaces are made")

ROOT = Path(__file__).parents[2]
IFF_UP = 1


def socket_in(space: Space, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM, protocol: int = 0) -> socket.socket:
    return socket.socket(family, kind, protocol, _ffi.network_socket(space.fd, family, kind, protocol))


def test_a_new_one_holds_a_loopback_that_is_up() -> None:
    ours, threads = os.readlink("/proc/self/ns/net"), os.listdir("/proc/self/task")
    space = Space()
    assert os.readlink("/proc/thread-self/ns/net") == os.readlink("/proc/self/ns/net") == ours != os.readlink(space.path)
    assert os.listdir("/proc/self/task") == threads
    assert space.is_quiet()
    with Netlink(space.fd) as inside:
        links = inside.links()
    assert [(link.get_attr("IFLA_IFNAME"), link["flags"] & IFF_UP) for link in links] == [("lo", IFF_UP)]
    assert not space.is_changed()
    for fd in (space._descriptors.struct.namespace, space._descriptors.struct.sockstat):
        assert not os.get_inheritable(fd)


def add_address(space: Space) -> None:
    with Netlink(space.fd) as inside:
        inside.add_address(1, IPv4Interface("10.1.2.3/32"))


def add_link(space: Space) -> None:
    with Netlink(space.fd) as inside:
        inside.add_link("making", [("IFLA_IFNAME", "b"), ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "bridge")]})])


def add_and_remove_link(space: Space) -> None:
    add_link(space)
    with Netlink(space.fd) as inside:
        inside.remove_link("b")


def add_route(space: Space) -> None:
    with Netlink(space.fd) as inside:
        inside.add_default_route(1, "127.0.0.2")


def set_down(space: Space) -> None:
    with Netlink(space.fd) as inside:
        inside.ask("setting lo down", 16, {"index": 1, "flags": 0, "change": IFF_UP}, [])


def add_rule(space: Space) -> None:
    # struct fib_rule_hdr: family, prefix lengths, tos, table, two reserved, action (to table), flags
    send(space, socket.NETLINK_ROUTE, (32, struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 99, 0, 0, 1, 0)))


def add_filter(space: Space) -> None:
    batch = struct.pack(">BBH", 0, 0, 10)  # struct nfgenmsg: NFNL_SUBSYS_NFTABLES
    table = struct.pack(">BBH", 2, 0, 0) + struct.pack("=HH", 7, 1) + b"t1\0\0"
    send(space, 12, (16, batch), (10 << 8, table), (17, batch))


def send(space: Space, protocol: int, *messages: tuple[int, bytes]) -> None:
    """Each is its type and its content; NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL, and NLM_F_ACK for the one in the middle or the only one."""
    data = b""
    for number, (kind, content) in enumerate(messages):
        flags = 0x601 | (4 if number == len(messages) // 2 else 0)
        data += struct.pack("=IHHII", 16 + len(content), kind, flags, number, 0) + content
    with socket_in(space, socket.AF_NETLINK, socket.SOCK_RAW, protocol) as netlink:
        netlink.send(data)
        assert struct.unpack_from("=i", netlink.recv(4096), 16) == (0,)


@pytest.mark.parametrize("change", [add_address, add_link, add_and_remove_link, add_route, set_down, add_rule, add_filter])
def test_every_change_is_told(change: Callable[[Space], None]) -> None:
    space, other = Space(), Space()
    change(space)
    assert space.is_changed()
    assert space.is_changed()  # looking takes nothing away
    assert not other.is_changed()


def test_looking_changes_nothing() -> None:
    space = Space()
    with Netlink(space.fd) as inside:
        inside.links()
        assert not space.is_quiet()  # there is a socket
    with socket_in(space, kind=socket.SOCK_DGRAM) as datagrams:
        datagrams.sendto(b"x", ("127.0.0.1", 9))
    quiet_by = time.monotonic() + 2
    while not space.is_quiet():  # the kernel takes a netlink socket down a moment after it is closed
        assert time.monotonic() < quiet_by
        time.sleep(0.005)
    assert not space.is_changed()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
def test_an_open_socket_is_counted(family: int) -> None:
    space = Space()
    with socket_in(space, family):
        assert not space.is_quiet()
    assert space.is_quiet()


def test_a_connection_that_has_ended_is_counted_for_as_long_as_the_kernel_keeps_it() -> None:
    space = Space()
    with socket_in(space) as server, socket_in(space) as client:
        server.bind(("127.0.0.1", 0))
        server.listen()
        client.connect(server.getsockname())
        accepted, _ = server.accept()
        client.close()
        accepted.close()
    assert not space.is_quiet()  # TIME_WAIT
    assert not space.is_changed()


def test_a_socket_that_cannot_be_had_says_so() -> None:
    space = Space()
    with pytest.raises(pyoci.NetworkError, match="opening a socket in a network namespace") as caught:
        _ffi.network_socket(space.fd, 12345, 1, 0)
    assert caught.value.errno == errno.EAFNOSUPPORT
    with Descriptor(os.open("/proc/self/ns/uts", os.O_RDONLY)) as wrong, pytest.raises(pyoci.NetworkError, match="entering a network namespace"):
        _ffi.network_socket(wrong.fd, socket.AF_INET, 1, 0)


def test_what_the_kernel_refuses_is_told_in_its_words() -> None:
    space = Space()
    with Netlink(space.fd) as inside:
        with pytest.raises(pyoci.NetworkError, match="looking for the link nope: No such device") as caught:
            inside.index("nope")
        assert caught.value.errno == errno.ENODEV
        with pytest.raises(pyoci.NetworkError, match=r"adding the default route by 10\.9\.9\.9: .*\(Nexthop has invalid gateway\)"):
            inside.add_default_route(1, "10.9.9.9")
        assert inside.ask("asking again", RTM_GETLINK, {"index": 1}, [])  # the socket is as good as before


def test_names_lie_in_a_shared_mount_of_their_own(tmp_path: Path) -> None:
    names = str(tmp_path / "names")
    _ffi.network_names(names)
    _ffi.network_names(names)  # there already: fine
    mounted = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {names} " in line]
    try:
        assert len(mounted) == 1
        assert mounted[0][6].startswith("shared:")
        space = _ffi.new_network()
        _ffi.network_make(space, f"{names}/a")
        os.close(space.namespace)
        assert os.stat(f"{names}/a").st_dev == os.stat("/proc/self/ns/net").st_dev
        with pytest.raises(pyoci.NetworkError, match=f"naming a network namespace {names}/a: File exists"):
            _ffi.network_make(_ffi.new_network(), f"{names}/a")
        _ffi.network_unname(f"{names}/a")
        (tmp_path / "names" / "b").touch()
        _ffi.network_unname(f"{names}/b")  # a file without a namespace
        assert os.listdir(names) == []
        with pytest.raises(pyoci.NetworkError, match=f"removing the network namespace {names}/b: No such file"):
            _ffi.network_unname(f"{names}/b")
    finally:
        machine.umount(names)


@pytest.mark.parametrize(
    ("refused", "expected"),
    [
        ("clone3=11,clone=11", "making a thread: Resource temporarily unavailable"),
        ("unshare=1", "making a network namespace: Operation not permitted (this needs CAP_SYS_ADMIN)"),
        ("unshare=28", "making a network namespace: No space left on device (the limit in /proc/sys/user/max_net_namespaces is reached)"),
        ("mount=12", "naming a network namespace {path}: Cannot allocate memory"),
    ],
)
def test_a_step_that_the_kernel_refuses_leaves_nothing(tmp_path: Path, refused: str, expected: str) -> None:
    program = """
import os, sys
from pyoci import _ffi, errors
before = os.listdir("/proc/self/fd")
try:
    _ffi.network_make(_ffi.new_network(), sys.argv[1])
except errors.NetworkError as error:
    print(error.strerror, os.listdir("/proc/self/fd") == before, os.path.exists(sys.argv[1]))
"""
    path = tmp_path / "name"
    argv = [sys.executable, "-m", "tests.native.seccomp", refused, sys.executable, "-c", program, str(path)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == (f"{expected.format(path=path)} True False\n", "")
