# SPDX-License-Identifier: Apache-2.0
"""The choice of a hook, what XDP needs of a veth's other end, and that all of it is put back."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
from scenes import bridge, clear

from polycube.net import ethtool
from polycube.testing.daemon import Daemon
from polycube.testing.hosts import FAR, Host, Lab, eventually, sh

WATCHED = (ethtool.TX_CHECKSUM, ethtool.TX_VLAN, ethtool.GRO)


@pytest.fixture(scope="module")
def hosts(lab: Lab) -> list[Host]:
    return lab.some(3)


@pytest.fixture(autouse=True)
def clean(daemon: Daemon) -> Iterator[None]:
    yield
    clear(daemon)


def offloads(host: Host) -> dict[str, bool]:
    found = host.call(lambda: ethtool.features(FAR))
    return {name: found[name].active for name in WATCHED}


def status(daemon: Daemon, cube: str, port: str) -> tuple[str, str]:
    data = daemon.get(f"{cube}/ports/{port}")
    return data["status"], data.get("reason", "")


def test_auto_takes_tc_for_veths(daemon: Daemon, hosts: list[Host]) -> None:
    before = offloads(hosts[0])
    bridge(daemon, "br1", hosts[:2], "AUTO")
    assert hosts[0].ping(hosts[1]).received == 2
    points = {pin.partition("-")[2] for pin in daemon.pins() if pin.startswith("links/")}
    assert points == {"tc-ingress", "xdp"}  # that at xdp is the daemon's own injection device
    assert len([pin for pin in daemon.pins() if pin.startswith("links/") and pin.endswith("-xdp")]) == 1
    assert offloads(hosts[0]) == before
    assert daemon.get("simplebridge/br1/type") == "AUTO"


def test_auto_takes_the_hook_of_the_cube_it_is_joined_with(daemon: Daemon, hosts: list[Host]) -> None:
    bridge(daemon, "br1", hosts[:1], "XDP_DRV")
    daemon.post("simplebridge/br1/ports/link")
    daemon.post("simplebridge/br2", {"type": "AUTO", "ports": [{"name": "link"}]})
    daemon.post("connect", {"peer1": "br1:link", "peer2": "br2:link"})
    daemon.post("simplebridge/br2/ports/p1", {"peer": hosts[1].netdev})
    assert hosts[0].ping(hosts[1]).received == 2


def test_tc_and_xdp_ports_are_not_joined(daemon: Daemon) -> None:
    for name, type in (("one", "TC"), ("other", "XDP_SKB")):
        daemon.post(f"simplebridge/{name}", {"type": type, "ports": [{"name": "p"}]})
    before = daemon.get("cubes")
    answer = daemon.rest("POST", "connect", {"peer1": "one:p", "peer2": "other:p"})
    assert (answer.status, answer.text) == (400, "It is not possible to connect TC and XDP ports")
    answer = daemon.rest("PATCH", "simplebridge/one/ports/p/peer", "other:p")
    assert (answer.status, answer.text) == (400, "It is not possible to connect TC and XDP ports")
    daemon.post("transparenthelloworld/th", {"type": "XDP_SKB"})
    answer = daemon.rest("POST", "attach", {"cube": "th", "port": "one:p"})
    assert answer.status == 400 and "th and one:p have incompatible types" in answer.text
    daemon.delete("transparenthelloworld/th")
    assert daemon.get("cubes") == before


def test_xdp_prepares_the_other_end_says_so_and_puts_it_back(daemon: Daemon, hosts: list[Host]) -> None:
    host, since = hosts[0], len(daemon.log())
    assert offloads(host) == {ethtool.TX_CHECKSUM: True, ethtool.TX_VLAN: True, ethtool.GRO: False}
    bridge(daemon, "br1", [host], "XDP_DRV")
    assert offloads(host) == {ethtool.TX_CHECKSUM: False, ethtool.TX_VLAN: False, ethtool.GRO: True}
    assert host.netdev in daemon.logged("made ready for XDP", since)
    daemon.post("disconnect", {"peer1": "br1:p1", "peer2": host.netdev})
    assert offloads(host) == {ethtool.TX_CHECKSUM: True, ethtool.TX_VLAN: True, ethtool.GRO: False}


def test_a_killed_daemon_still_knows_what_to_put_back(daemon: Daemon, hosts: list[Host]) -> None:
    before = [offloads(host) for host in hosts[:2]]
    bridge(daemon, "br1", hosts[:2], "XDP_DRV")
    daemon.crash()
    assert hosts[0].ping(hosts[1]).received == 2
    assert offloads(hosts[0]) != before[0]
    daemon.delete("simplebridge/br1")
    assert [offloads(host) for host in hosts[:2]] == before


def test_an_other_end_out_of_reach_leaves_the_port_down_with_the_reason(daemon: Daemon, hosts: list[Host]) -> None:
    """The other end is in a namespace that has neither a name nor a process."""
    sh("ip netns add nameless", "ip link add lost type veth peer name e0 netns nameless")
    sh("ip -n nameless link set e0 up", "ip link set lost up")
    with open("/run/netns/nameless") as alive:  # an open file, which the daemon has no way to find
        sh("ip netns del nameless")
        bridge(daemon, "br1", hosts[:1], "XDP_DRV")
        daemon.post("simplebridge/br1/ports/p2", {"peer": "lost"})
        state, reason = status(daemon, "br1", "p2")
        assert state == "DOWN" and "neither a name nor a process" in reason and "lost" in reason
        assert status(daemon, "br1", "p1") == ("UP", "")
        assert not alive.closed
    subprocess.run(["ip", "link", "del", "lost"], capture_output=True)
    eventually(lambda: "not there" in status(daemon, "br1", "p2")[1])


def test_an_end_that_comes_up_later_is_prepared_then(daemon: Daemon, hosts: list[Host]) -> None:
    hosts[1].run(f"ip link set {FAR} down")
    bridge(daemon, "br1", hosts[:2], "XDP_DRV")
    hosts[1].run(f"ip link set {FAR} up")
    eventually(lambda: hosts[0].reaches(hosts[1]), "traffic")
