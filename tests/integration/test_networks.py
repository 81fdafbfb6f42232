"""Containers in named, pooled and bridged networks."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

import pytest

import pyoci
from pyoci import NetworkNamespace, NetworkPool, aio, networks
from tests.containers import FOREVER, Build, ready

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("network_names")]

ROOT = Path(__file__).parents[2]
WHERE = ["readlink", "/proc/self/ns/net"]
ONE_CONNECTION = "nc -l -p 99 127.0.0.1 -e true & sleep 0.2; nc 127.0.0.1 99 </dev/null; wait; netstat -nt 2>/dev/null; exit 0"


def in_a_process(program: str) -> str:
    """What it prints."""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# --- named ------------------------------------------------------------------------------------------------------------------------


def test_containers_share_a_named_namespace(runtime: pyoci.OCIRuntime, build: Build) -> None:
    with NetworkNamespace.make("shared") as namespace:
        assert NetworkNamespace.list() == [NetworkNamespace.load("shared")] == [namespace]
        inode = os.stat(namespace.path).st_ino
        with runtime.create(build(*FOREVER), network=namespace) as container:
            container.start()
            found = [pyoci.run(WHERE, runtime=runtime, network=namespace, text=True).stdout.strip() for _ in range(2)]
            assert found == [f"net:[{inode}]"] * 2
            assert os.readlink(f"/proc/{container.pid}/ns/net") == found[0]
            assert container.address is None
            namespace.remove()
            assert NetworkNamespace.list() == []
            with pytest.raises(pyoci.NetworkError, match="no network namespace 'shared': /run/netns/shared does not exist"):
                pyoci.run(WHERE, runtime=runtime, network=namespace)
            assert container.state() == "running"
            with container.exec(WHERE, stdout=pyoci.PIPE) as session:
                assert session.communicate()[0] == found[0].encode() + b"\n"


@pytest.mark.once
def test_iproute2_sees_the_same_names() -> None:
    subprocess.run(["ip", "netns", "add", "theirs"], check=True)
    with NetworkNamespace.load("theirs") as theirs, NetworkNamespace.make("ours") as ours:
        assert NetworkNamespace.list() == [ours, theirs]
        listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout.split("\n")
        assert {line.split()[0] for line in listed if line} == {"ours", "theirs"}
        shown = subprocess.run(["ip", "-n", "ours", "-br", "link"], capture_output=True, text=True, check=True).stdout
        assert shown.startswith("lo ")
        assert ",UP," in shown
        subprocess.run(["ip", "netns", "del", "ours"], check=True)
    assert NetworkNamespace.list() == []
    with pytest.raises(pyoci.NetworkError, match="removing the network namespace /run/netns/ours: No such file"):
        ours.remove()


def test_a_name_that_is_taken() -> None:
    with NetworkNamespace.make("taken"):
        with pytest.raises(pyoci.NetworkError, match="'taken' exists: /run/netns/taken; load or remove it") as caught:
            NetworkNamespace.make("taken")
        assert caught.value.errno == errno.EEXIST


def test_a_file_is_no_namespace(runtime: pyoci.OCIRuntime) -> None:
    file = Path(networks.NAMES, "file")
    file.touch()
    try:
        assert NetworkNamespace.list() == []
        with pytest.raises(pyoci.NetworkError, match="is no network namespace"):
            NetworkNamespace.load("file")
    finally:
        file.unlink()


def test_what_a_killed_process_leaves_is_found() -> None:
    program = "import os, pyoci; print(pyoci.NetworkNamespace.make().name, flush=True); os.kill(os.getpid(), 9)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    with NetworkNamespace.make() as mine, NetworkNamespace.make("somebody"):
        assert [namespace.name for namespace in networks.stale()] == [done.stdout.strip()]
        assert mine.name.startswith(networks.owner())
        networks.stale()[0].remove()
    assert networks.stale() == NetworkNamespace.list() == []


# --- pooled -----------------------------------------------------------------------------------------------------------------------


def where(pool: NetworkPool, runtime: pyoci.OCIRuntime, *command: str, **options: Any) -> str:
    done = pyoci.run(command or WHERE, runtime=runtime, network=pool, text=True, **options)
    assert done.returncode == 0, done
    return str(done.stdout).strip()


@pytest.mark.everywhere
@pytest.mark.parametrize("monitor", ["conmon", "direct"])
def test_short_containers_use_one_namespace_after_another(runtime: pyoci.OCIRuntime, monitor: str) -> None:
    with NetworkPool() as pool:
        found = {where(pool, runtime, monitor=monitor) for _ in range(4)}
        assert (len(found), pool.made, pool.reused, len(pool)) == (1, 1, 3, 1)
        assert os.readlink("/proc/self/ns/net") not in found
        shown = where(pool, runtime, "ip", "address", monitor=monitor)
        assert "LOOPBACK,UP" in shown
        assert "inet 127.0.0.1/8" in shown
        assert [line for line in shown.split("\n") if line.startswith("2:")] == []


def with_capabilities(config: dict[str, Any], *names: str) -> dict[str, Any]:
    process = config["process"]
    process["capabilities"] = {kind: [*held, *names] for kind, held in process["capabilities"].items()}
    return config


def live(runtime: pyoci.OCIRuntime, config: dict[str, Any], pool: NetworkPool) -> None:
    with runtime.create(config, network=pool) as container:
        container.start()
        status = container.wait(20)
        assert status.code == 0, Path(container.log_path).read_text()


def test_a_container_that_could_have_changed_it_is_its_last(runtime: pyoci.OCIRuntime, build: Build) -> None:
    with NetworkPool() as pool:
        live(runtime, with_capabilities(build("true"), "CAP_NET_ADMIN"), pool)
        assert (pool.made, len(pool)) == (1, 0)
        live(runtime, build("true"), pool)
        assert (pool.made, len(pool)) == (2, 1)
        config = build("true")
        config["linux"]["namespaces"] = [n for n in config["linux"]["namespaces"] if n["type"] != "pid"]
        live(runtime, config, pool)
        assert (pool.made, pool.reused, len(pool)) == (2, 1, 0)


def test_an_exec_with_more_capabilities_is_its_last(runtime: pyoci.OCIRuntime, build: Build) -> None:
    with NetworkPool() as pool:
        for capabilities, left in (([], 1), (["CAP_NET_ADMIN"], 0)):
            with runtime.create(build(*FOREVER), network=pool) as container:
                container.start()
                ready(container)
                with container.exec(["true"], capabilities=capabilities) as session:
                    assert session.wait(20).code == 0
            assert len(pool) == left


@pytest.mark.once
def test_what_was_changed_from_outside_is_seen(runtime: pyoci.OCIRuntime) -> None:
    from pyoci.netlink import Netlink

    with NetworkPool() as pool:
        first = where(pool, runtime)
        with Netlink(pool._idle[0].fd) as inside:
            inside.add_address(1, IPv4Interface("10.1.2.3/32"))
        assert where(pool, runtime) != first
        assert (pool.made, pool.reused, len(pool)) == (2, 0, 1)


def test_connections_that_the_kernel_still_keeps_are_met_by_nobody(runtime: pyoci.OCIRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    with NetworkPool() as pool:
        shown = where(pool, runtime, "sh", "-c", f"{WHERE[0]} {WHERE[1]}; {ONE_CONNECTION}").split("\n")
        assert "TIME_WAIT" in shown[-1]
        assert where(pool, runtime) != shown[0]
        assert (pool.made, pool.reused, len(pool)) == (2, 0, 2)  # it may settle yet …
        monkeypatch.setattr(networks, "SETTLING", 0)
        assert where(pool, runtime) != shown[0]
        assert (pool.made, pool.reused, len(pool)) == (2, 1, 1)  # … or not in time


def test_no_two_at_once_have_the_same(runtime: pyoci.OCIRuntime) -> None:
    with NetworkPool(2) as pool:
        with pyoci.Launcher(runtime=runtime, network=pool, timeout=60, max_running=6, max_starting=6) as launcher:
            done = list(launcher.map([["sh", "-c", f"{WHERE[0]} {WHERE[1]}; sleep 1"]] * 6))
        assert len({result.stdout for result in done}) == 6
        assert (pool.made, len(pool)) == (6, 2)


def test_threads_share_a_pool(runtime: pyoci.OCIRuntime) -> None:
    with NetworkPool(3) as pool:
        found: list[str] = []
        threads = [threading.Thread(target=lambda: found.extend(where(pool, runtime) for _ in range(3))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == pool.made + pool.reused == 12
        assert len(pool) <= 3


def test_asyncio_takes_from_a_pool(runtime: pyoci.OCIRuntime) -> None:
    async def both(pool: NetworkPool) -> list[Any]:
        runs = [aio.run(WHERE, runtime=runtime.runtime_path, state_dir=runtime.state_dir, network=pool) for _ in range(2)]
        return await asyncio.gather(*runs)

    with NetworkPool() as pool:
        assert len({done.stdout for done in asyncio.run(both(pool))}) == 2
        assert len(pool) == 2


def test_a_network_for_all_containers_of_a_runtime(runtime_name: str, state_dir: str, build: Build) -> None:
    with NetworkPool() as pool:
        runtime = pyoci.OCIRuntime(runtime_name, state_dir=state_dir, network=pool)
        assert pyoci.run(WHERE, runtime=runtime).returncode == 0
        assert pyoci.run(WHERE, runtime=runtime, network="host", text=True).stdout.strip() == os.readlink("/proc/self/ns/net")
        assert pyoci.run(WHERE, runtime=runtime, network="private").returncode == 0
        with runtime.create(build(*FOREVER)) as container:
            container.start()
            ready(container)
        assert (pool.made, pool.reused) == (1, 1)


def test_a_failed_create_keeps_none(runtime: pyoci.OCIRuntime) -> None:
    with NetworkPool() as pool:
        assert pyoci.run(["/nope"], runtime=runtime, network=pool).returncode == 127
        assert (pool.made, len(pool)) == (1, 0)


def test_what_takes_no_network_is_refused(runtime: pyoci.OCIRuntime, build: Build) -> None:
    with NetworkPool() as pool:
        with pytest.raises(pyoci.InvalidOption, match="network="):
            runtime.create(build("true", network="host"), network=pool)
        assert (pool.made, runtime.list()) == (0, [])
    with pytest.raises(pyoci.InvalidOption, match="closed"):
        pyoci.run(["true"], runtime=runtime, network=pool)
    assert runtime.list() == []


def test_a_container_that_outlives_the_pool_keeps_its_namespace(runtime: pyoci.OCIRuntime, build: Build) -> None:
    pool = NetworkPool()
    with runtime.create(build(*FOREVER), network=pool) as container:
        container.start()
        ready(container)
        pool.close()
        with container.exec(["ip", "link"], stdout=pyoci.PIPE) as session:
            assert b"LOOPBACK,UP" in (session.communicate()[0] or b"")
    assert len(pool) == 0


@pytest.mark.once
def test_a_forked_child_begins_with_an_empty_pool(state_dir: str) -> None:
    program = f"""
import os, pyoci
runtime = pyoci.OCIRuntime(state_dir={state_dir!r})
pool = pyoci.NetworkPool()
look = lambda: pyoci.run({WHERE!r}, runtime=runtime, network=pool, text=True).stdout.strip()
first = look()
child = os.fork()
if child == 0:
    os._exit(look() == first or pool.made != 2)
assert os.waitpid(child, 0)[1] == 0
assert look() == first
pool.close()
"""
    in_a_process(program)


@pytest.mark.once
def test_a_process_that_is_killed_leaves_no_namespace(state_dir: str) -> None:
    """Those of a pool have no name, and go with the last descriptor."""
    program = f"""
import os, pyoci
pool = pyoci.NetworkPool()
pyoci.run(["true"], runtime=pyoci.OCIRuntime(state_dir={state_dir!r}), network=pool)
assert len(pool) == 1
os.kill(os.getpid(), 9)
"""
    before = Path("/proc/self/mountinfo").read_text()
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False, timeout=60)
    assert done.returncode == -9
    assert NetworkNamespace.list() == []
    assert Path("/proc/self/mountinfo").read_text() == before


# --- bridged ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def host() -> Iterator[NetworkNamespace]:
    """In place of the machine's own network."""
    with NetworkNamespace.make() as namespace:
        yield namespace


Pinging = Callable[[str], dict[str, Any]]


@pytest.fixture
def pinging(build: Build) -> Pinging:
    return lambda address: with_capabilities(build("ping", "-c1", "-W2", address), "CAP_NET_RAW")


@pytest.mark.once
def test_containers_of_a_bridge_reach_each_other_and_the_host(
    runtime: pyoci.OCIRuntime, build: Build, pinging: Pinging, host: NetworkNamespace
) -> None:
    with pyoci.Bridge("cni0", subnet="10.9.8.0/28", namespace=host) as bridge:
        with runtime.create(build(*FOREVER), network=bridge) as one:
            one.start()
            ready(one)
            assert (str(bridge.address), str(one.address)) == ("10.9.8.1", "10.9.8.2")
            assert runtime.load(one.id).address == one.address
            for network in (bridge, host):  # from another container, and from the host
                with runtime.create(pinging(str(one.address)), network=network) as other:
                    other.start()
                    assert other.wait(20).code == 0, Path(other.log_path).read_text()
            with runtime.create(pinging(str(bridge.address)), network=bridge) as third:
                third.start()
                assert third.wait(20).code == 0, Path(third.log_path).read_text()
                assert third.address not in (one.address, bridge.address)
            shown = pyoci.run(["sh", "-c", "ip address; ip route"], runtime=runtime, network=bridge, text=True).stdout
            assert "LOOPBACK,UP" in shown
            assert "inet 10.9.8.5/28 brd 10.9.8.15 scope global eth0" in shown
            assert "default via 10.9.8.1 dev eth0" in shown
        with runtime.create(pinging(str(one.address)), network=bridge) as other:
            other.start()
            assert other.wait(20).code == 1  # it is gone
    bridge.close()
    with pytest.raises(pyoci.InvalidOption, match="the bridge cni0 is closed"):
        pyoci.run(["true"], runtime=runtime, network=bridge)


@pytest.mark.once
def test_an_address_is_free_again_when_its_container_was_deleted(runtime: pyoci.OCIRuntime, host: NetworkNamespace) -> None:
    show = ["sh", "-c", "ip -4 address show eth0 | grep -o 'inet [0-9.]*'"]
    with pyoci.Bridge(subnet="10.9.8.0/30", namespace=host) as bridge:
        for _ in range(2):
            assert pyoci.run(show, runtime=runtime, network=bridge, text=True).stdout == "inet 10.9.8.2\n"
        assert pyoci.run(["/nope"], runtime=runtime, network=bridge).returncode == 127
        connection = bridge.connect()
        with pytest.raises(pyoci.NetworkError, match=r"all addresses of 10\.9\.8\.0/30 are in use"):
            pyoci.run(["true"], runtime=runtime, network=bridge)
        for _ in range(2):
            connection.close()
        assert len(bridge._addresses._free) == 1


@pytest.mark.once
def test_many_containers_on_a_bridge_at_once(runtime: pyoci.OCIRuntime, host: NetworkNamespace) -> None:
    show = ["sh", "-c", "ip -4 address show eth0 | grep -o 'inet [0-9.]*'; sleep 0.5"]
    with pyoci.Bridge(namespace=host) as bridge, pyoci.Launcher(runtime=runtime, network=bridge, timeout=60, max_running=8) as launcher:
        done = list(launcher.map([show] * 8))
    assert len({result.stdout for result in done}) == 8


@pytest.mark.once
def test_a_bridge_is_made_once(host: NetworkNamespace) -> None:
    with pyoci.Bridge("br", namespace=host):
        with pytest.raises(pyoci.NetworkError, match="making the bridge br: File exists") as caught:
            pyoci.Bridge("br", namespace=host)
        assert caught.value.errno == errno.EEXIST
        with pyoci.Bridge(subnet="10.9.8.0/24", namespace=host) as other:
            assert other.name.startswith("pyoci-")
    with pyoci.Bridge("br", namespace=host) as again:
        pyoci.bridges.remove("br", host)
        again.close()  # gone already: fine
    gone = NetworkNamespace.make("gone")
    gone.remove()
    with pytest.raises(pyoci.NetworkError, match="gone"):
        pyoci.Bridge("br", namespace=gone)


@pytest.mark.once
def test_a_bridge_that_a_killed_process_leaves_is_found(host: NetworkNamespace) -> None:
    program = f"""
import os, pyoci
from pyoci import bridges
bridge = pyoci.Bridge("left", namespace=pyoci.NetworkNamespace({host.name!r}))
if os.fork() == 0:
    bridge.close()  # the parent's: it stays
    os._exit(0)
os.wait()
pyoci.bridges.stale(pyoci.NetworkNamespace({host.name!r})) == [] or os._exit(1)
os._exit(0)
"""
    in_a_process(program)
    with pyoci.Bridge("mine", subnet="10.9.8.0/24", namespace=host):
        assert pyoci.bridges.stale(host) == ["left"]
        pyoci.bridges.remove("left", host)
        pyoci.bridges.remove("left", host)  # gone already: fine
        assert pyoci.bridges.stale(host) == []
