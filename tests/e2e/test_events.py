# SPDX-License-Identifier: Apache-2.0
"""Netdevs come, go, change names, go down and move: ports tell, traffic resumes, and no frame goes astray."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from scenes import BROADCAST, bridge, clear, frame, transparent

from polycube.testing.daemon import Daemon
from polycube.testing.hosts import FAR, Host, Lab, eventually, sh

TYPES = ["TC", "XDP_SKB", "XDP_DRV"]


@pytest.fixture(params=TYPES)
def type(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def lab(isolated: None) -> Iterator[Lab]:
    with Lab() as made:
        yield made


@pytest.fixture
def hosts(daemon: Daemon, lab: Lab, type: str) -> Iterator[list[Host]]:
    made = lab.some(2)
    bridge(daemon, "br1", made, type)
    assert made[0].ping(made[1]).received == 2
    yield made
    clear(daemon)


def goes(daemon: Daemon, state: str, reason: str = "") -> None:
    """Waits until p2 says so."""

    def said() -> bool:
        port = daemon.get("simplebridge/br1/ports/p2")
        return bool(port["status"] == state and port.get("reason", "") == reason)

    eventually(said, f"{state} {reason}")


def resumes(hosts: list[Host]) -> None:
    eventually(lambda: hosts[0].reaches(hosts[1]), "traffic")
    assert hosts[0].ping(hosts[1], count=5).received == 5


def test_a_deleted_netdev_is_taken_again_when_it_comes_back(daemon: Daemon, hosts: list[Host]) -> None:
    hosts[1].delete()
    goes(daemon, "DOWN", "netdev v2 is not there")
    assert daemon.get("simplebridge/br1/ports/p2")["peer"] == "v2"
    hosts[1].wire()
    goes(daemon, "UP")
    resumes(hosts)


def test_a_netdev_that_comes_back_with_the_same_index_is_taken_again(daemon: Daemon, hosts: list[Host]) -> None:
    """Deleted and made again at once: the daemon may see but the last of it."""
    number = int(Path("/sys/class/net/v2/ifindex").read_text())
    address = Path("/sys/class/net/v2/address").read_text().strip()
    batch = f"""link del v2
link add v2 index {number} address {address} type veth peer name {FAR} address {hosts[1].mac} netns {hosts[1].name}
link set v2 up
"""
    subprocess.run(["ip", "-batch", "-"], input=batch, text=True, check=True)
    hosts[1].run(f"ip addr add {hosts[1].ipv4}/24 dev {FAR}")
    hosts[1].run(f"ip link set {FAR} up")
    resumes(hosts)
    goes(daemon, "UP")


def test_a_renamed_netdev_is_away_until_it_has_its_name_again(daemon: Daemon, hosts: list[Host]) -> None:
    sh("ip link set v2 down", "ip link set v2 name other", "ip link set other up")
    goes(daemon, "DOWN", "netdev v2 is not there")
    assert hosts[0].ping(hosts[1], count=1, wait=0.1).received == 0
    sh("ip link set other down", "ip link set other name v2", "ip link set v2 up")
    goes(daemon, "UP")
    resumes(hosts)


def test_a_netdev_that_is_down_says_so(daemon: Daemon, hosts: list[Host]) -> None:
    sh("ip link set v2 down")
    goes(daemon, "DOWN", "netdev v2 is down")
    sh("ip link set v2 up")
    goes(daemon, "UP")
    resumes(hosts)


def test_a_moved_netdev_is_let_go_and_taken_back(daemon: Daemon, hosts: list[Host]) -> None:
    sh("ip netns add elsewhere", "ip link set v2 netns elsewhere")
    try:
        goes(daemon, "DOWN", "netdev v2 is not there")
        shown = subprocess.run(["ip", "-n", "elsewhere", "-d", "link", "show", "v2"], capture_output=True, text=True).stdout
        assert "xdp" not in shown  # its program did not go along
        back()
        goes(daemon, "UP")
        resumes(hosts)
    finally:
        sh("ip netns del elsewhere")


def back() -> None:
    """Moves v2 from `elsewhere` to here: the namespace gets a name for it."""
    sh("ip netns attach here " + str(os.getpid()))
    try:
        sh("ip -n elsewhere link set v2 netns here", "ip link set v2 up")
    finally:
        sh("ip netns del here")


def test_frames_never_reach_an_unrelated_netdev_with_the_same_index(daemon: Daemon, hosts: list[Host], lab: Lab) -> None:
    """What took v2's index gets neither floods nor frames for the station that was behind it."""
    number = int(Path("/sys/class/net/v2/ifindex").read_text())
    stranger = lab.host()
    stranger.delete()
    sh("ip link del v2")
    sh(f"ip link add {stranger.netdev} index {number} type veth peer name {FAR} netns {stranger.name}")
    stranger.run(f"ip link set {FAR} up")
    with stranger.sniff() as sniffer:
        sh(f"ip link set {stranger.netdev} up")
        goes(daemon, "DOWN", "netdev v2 is not there")
        hosts[0].send(frame(hosts[0], BROADCAST, b"astray"), frame(hosts[0], hosts[1], b"astray"))
        before = daemon.counter("br1", "p1", "rx_packets")
        hosts[0].send(frame(hosts[0], BROADCAST, b"astray"))
        eventually(lambda: daemon.counter("br1", "p1", "rx_packets") > before)
        assert sniffer.matching(b"astray") == []


def test_a_netdev_with_an_own_stack_is_followed_too(daemon: Daemon, hosts: list[Host], type: str) -> None:
    transparent(daemon, "th", type)
    daemon.post("attach", {"cube": "th", "port": "v2"})
    assert hosts[0].ping(hosts[1]).received == 2
    hosts[1].delete()
    goes(daemon, "DOWN", "netdev v2 is not there")
    hosts[1].wire()
    goes(daemon, "UP")
    resumes(hosts)
    daemon.patch("th/ingress-action", "DROP")
    assert hosts[0].ping(hosts[1], count=1, wait=0.1).received == 0


def test_a_peer_that_has_just_been_set_up_is_taken(daemon: Daemon, hosts: list[Host], lab: Lab) -> None:
    """No waiting for events between `ip link set up` and a request."""
    for number in range(3, 8):
        host = lab.host()
        daemon.post(f"simplebridge/br1/ports/p{number}", {"peer": host.netdev})
        assert daemon.get(f"simplebridge/br1/ports/p{number}")["status"] == "UP"


def test_netdevs_keep_the_addresses_they_had_before(daemon: Daemon, lab: Lab) -> None:
    one, two = (host.netdev for host in lab.some(2))
    sh(f"ip addr add 10.9.0.1/24 dev {one}")
    daemon.post("router/r1", {"ports": [{"name": "p1", "peer": one}, {"name": "p2", "ip": "10.9.1.1/24", "peer": two}]})
    eventually(lambda: daemon.get("router/r1/ports/p1").get("ip") == "10.9.0.1/24")
    eventually(lambda: "10.9.1.1/24" in sh(f"ip addr show dev {two}"))
    daemon.delete("router/r1")
    assert "10.9.0.1/24" in sh(f"ip addr show dev {one}") and "10.9.1.1/24" not in sh(f"ip addr show dev {two}")
