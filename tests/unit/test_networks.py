"""Networks, as far as nothing has to be made: who may leave a namespace to the next, whose a name is, addresses, what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pyoci
from pyoci import networks, spec, templates
from pyoci.bridges import Addresses
from pyoci.options import Options

Change = Callable[[dict[str, Any]], object]


def built(**options: Any) -> dict[str, Any]:
    return spec.build(["true"], rootfs="/", **options)


pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: else a spec has a user namespace")


def test_the_default_container_leaves_its_network_as_it_found_it() -> None:
    assert networks.leaves_as_found(built())
    assert networks.leaves_as_found({**built(), "hooks": {"prestart": []}})


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["process"]["capabilities"]["bounding"].append("CAP_NET_ADMIN"),
        lambda c: c["process"]["capabilities"].update(ambient=["CAP_SYS_ADMIN"]),
        lambda c: c["process"].pop("capabilities"),
        lambda c: c["linux"]["readonlyPaths"].remove("/proc/sys"),
        lambda c: c["linux"].update(sysctl={"net.ipv4.ip_forward": "1"}),
        lambda c: c["linux"]["namespaces"].remove({"type": "pid"}),
        lambda c: c.update(hooks={"createRuntime": [{"path": "/bin/true"}]}),
    ],
)
def test_one_that_could_change_more_than_the_kernel_tells_does_not(change: Change) -> None:
    config = json.loads(json.dumps(built()))
    change(config)
    assert not networks.leaves_as_found(config)


def test_a_name_tells_whose_it_is() -> None:
    assert not networks.is_ownerless(networks.owner())
    assert not networks.is_ownerless(f"{networks.owner()}_0123")
    _, boot, namespace, pid, start, inode = networks.owner().split("_")
    assert networks.is_ownerless(f"pyoci_{boot}_{namespace}_{pid}_{int(start) + 1}_{inode}_0123")  # another process had this pid
    assert not networks.is_ownerless(f"{boot}_{namespace}_{pid}_{int(start) + 1}_{inode}_0123")
    for name in ("mine", "pyoci_1_2", "pyoci", "pyoci_mine", f"x{networks.owner()}"):
        assert not networks.is_ownerless(name)


def test_the_name_of_an_ended_process_is_ownerless() -> None:
    done = subprocess.run([sys.executable, "-c", "from pyoci import networks; print(networks.owner())"], capture_output=True, text=True, check=True)
    assert networks.is_ownerless(done.stdout.strip())


def test_addresses_are_given_out_once_each_and_the_longest_free_first() -> None:
    addresses = Addresses("10.1.2.0/29")
    assert str(addresses.gateway) == "10.1.2.1"
    taken = [addresses.take() for _ in range(5)]
    assert [str(address) for address in taken] == [f"10.1.2.{i}" for i in range(2, 7)]
    with pytest.raises(pyoci.NetworkError, match=r"10\.1\.2\.0/29.*larger"):
        addresses.take()
    addresses.give_back(taken[3])
    addresses.give_back(taken[1])
    assert [addresses.take(), addresses.take()] == [taken[3], taken[1]]


@pytest.mark.parametrize("subnet", ["10.88.0.0/31", "10.88.0.1/24", "fd00::/64", "x", "0.0.0.0/0", ""])
def test_a_subnet_that_cannot_be_is_refused(subnet: str) -> None:
    with pytest.raises(pyoci.InvalidOption, match="subnet"):
        Addresses(subnet)


@pytest.mark.parametrize("name", ["", "../x", "a/b", "-x", ".", "a" * 256, "a\0b"])
def test_names_are_checked(name: str) -> None:
    for refused in (pyoci.NetworkNamespace, pyoci.NetworkNamespace.make, pyoci.NetworkNamespace.load, pyoci.Bridge):
        with pytest.raises(pyoci.InvalidID, match="name"):
            refused(name)


def test_a_bridge_has_a_short_name() -> None:
    with pytest.raises(pyoci.InvalidOption, match="15 characters"):
        pyoci.Bridge("a" * 16)


@pytest.mark.parametrize("size", [0, -1, True, 1.5, "2"])
def test_the_size_of_a_pool(size: Any) -> None:
    with pytest.raises(pyoci.InvalidOption, match="size"):
        pyoci.NetworkPool(size)


@pytest.mark.parametrize("network", ["host", "/run/netns/x", 3, pyoci.NetworkPool])
def test_options_take_networks_only(network: Any) -> None:
    with pytest.raises(pyoci.InvalidOption, match="network must be"):
        Options(network=network)
    pool = pyoci.NetworkPool()
    assert Options(network=pool).network is pool


def test_a_path_is_put_in_as_if_the_spec_had_it() -> None:
    path = '/proc/1/fd/2"\\ü'
    template, written = templates.prepare(built()), built()
    for namespace in written["linux"]["namespaces"]:
        if namespace["type"] == "network":
            namespace["path"] = path
    written["linux"]["cgroupsPath"] = "/a/b"
    template.check_network()
    assert json.loads(template.config_json("/a/b", path)) == written
    assert json.loads(template.config_json("/a/b", "/other"))["linux"]["namespaces"][-1] == {"type": "network", "path": "/other"}
    assert templates.prepare(built()) is template  # one for private and pooled alike
    assert json.loads(template.config_json("/a/b")) == json.loads(templates.Template(built(), "/", None).config_json("/a/b"))


def test_a_spec_with_a_cgroup_of_its_own_takes_a_path_as_well() -> None:
    config = built()
    config["linux"]["cgroupsPath"] = "/mine"
    written = json.loads(templates.prepare(config).config_json(None, "/x"))
    assert written["linux"]["cgroupsPath"] == "/mine"
    assert {"type": "network", "path": "/x"} in written["linux"]["namespaces"]


@pytest.mark.parametrize("network", ["host", "/proc/self/ns/net"])
def test_a_spec_that_names_its_network_takes_no_other(network: str) -> None:
    with pytest.raises(pyoci.InvalidOption, match="network="):
        templates.prepare(built(network=network)).check_network()


def test_only_a_bridge_needs_pyroute2() -> None:
    program = "import sys; sys.modules['pyroute2'] = None; from pyoci import *; NetworkPool; NetworkNamespace; Bridge; print('imported'); Bridge()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.stdout == "imported\n"
    assert "InvalidOption: a bridge needs pyroute2: pip install 'pyoci-runtime[network]'" in done.stderr
    program = "import pyoci, sys; pyoci.NetworkPool; pyoci.NetworkNamespace.list(); print(*{'pyroute2', 'socket', 'ipaddress'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert done.stdout == "\n"
