# SPDX-License-Identifier: Apache-2.0
"""Transparent cubes on ports and netdevs: both directions, every position, put there and taken away under traffic."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

import pytest
from scenes import BROADCAST, bridge, clear, frame, transparent

from polycube.testing.daemon import Daemon
from polycube.testing.hosts import Host, Lab, eventually, sh

TYPES = ["TC", "XDP_SKB", "XDP_DRV"]


@pytest.fixture(scope="module")
def hosts(lab: Lab) -> list[Host]:
    return lab.some(2)


@pytest.fixture(scope="module")
def quiet(lab: Lab, hosts: list[Host]) -> list[Host]:
    return lab.some(2, ipv6=False)


@pytest.fixture(autouse=True)
def clean(daemon: Daemon) -> Iterator[None]:
    yield
    clear(daemon)


@pytest.fixture(params=TYPES)
def type(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def attach(daemon: Daemon, cube: str, target: str, **position: str) -> None:
    daemon.post("attach", {"cube": cube, "port": target, **position})


@pytest.mark.parametrize("target", ["br1:p1", "{netdev}"], ids=["port", "netdev"])
def test_both_directions_pass_count_and_drop(daemon: Daemon, hosts: list[Host], type: str, target: str) -> None:
    bridge(daemon, "br1", hosts, type)
    transparent(daemon, "th", type)
    attach(daemon, "th", target.format(netdev=hosts[0].netdev))
    assert hosts[0].ping(hosts[1], count=3).received == 3
    before = daemon.counter("th", "ingress", "rx_packets"), daemon.counter("th", "egress", "rx_packets")
    assert hosts[1].ping(hosts[0], count=20).received == 20
    assert daemon.counter("th", "ingress", "rx_packets") - before[0] >= 20
    assert daemon.counter("th", "egress", "rx_packets") - before[1] >= 20
    for direction in ("ingress", "egress"):
        daemon.patch(f"th/{direction}-action", "DROP")
        assert hosts[0].ping(hosts[1], count=1, wait=0.1).received == 0
        eventually(lambda: daemon.drops("th").get("policy", 0) > 0)
        daemon.patch(f"th/{direction}-action", "PASS")
        assert hosts[0].ping(hosts[1], count=2).received == 2
    daemon.post("detach", {"cube": "th", "port": target.format(netdev=hosts[0].netdev)})
    assert hosts[0].ping(hosts[1], count=2).received == 2


@pytest.mark.parametrize("target", ["br1:p1", "{netdev}"], ids=["port", "netdev"])
def test_no_frame_is_lost_while_cubes_come_and_go(daemon: Daemon, hosts: list[Host], type: str, target: str) -> None:
    target = target.format(netdev=hosts[0].netdev)
    bridge(daemon, "br1", hosts, type)
    assert hosts[0].ping(hosts[1], count=3).received == 3
    with hosts[0].pinging(hosts[1]) as pinging:
        pinging.answers()
        for _ in range(3):
            for name in ("one", "two"):
                transparent(daemon, name, type)
                attach(daemon, name, target)
            pinging.answers(20)
            daemon.post("detach", {"cube": "one", "port": target})
            daemon.delete("transparenthelloworld/one")
            daemon.delete("transparenthelloworld/two")  # while it is attached
        pinging.answers()
    assert pinging.result.sent > 150 and pinging.result.lost == 0


def stack(daemon: Daemon, target: str) -> list[str]:
    """First to last."""
    if ":" in target:
        cube, _, port = target.partition(":")
        return list(daemon.get(f"simplebridge/{cube}/ports/{port}")["tcubes"])
    way = daemon.get(f"topology/{target}")["ingress service chain"].split(" ---> ")
    assert daemon.get(f"topology/{target}")["egress service chain"].split(" ---> ") == [*way[-2::-1], "stack"]
    return list(way[:-1])


@pytest.mark.parametrize("target", ["br1:p1", "{netdev}"], ids=["port", "netdev"])
def test_every_position_is_where_it_says(daemon: Daemon, quiet: list[Host], type: str, target: str) -> None:
    """`first` is index 0: nearest to the cube on a port, nearest to the wire on a netdev."""
    target = target.format(netdev=quiet[0].netdev)
    bridge(daemon, "br1", quiet, type)
    for name in ("a", "b", "c", "d", "e"):
        transparent(daemon, name, type)
    attach(daemon, "a", target)
    attach(daemon, "b", target, position="first")
    attach(daemon, "c", target, position="last")
    attach(daemon, "d", target, before="a")
    attach(daemon, "e", target, after="a")
    expected = ["b", "d", "a", "e", "c"]
    assert stack(daemon, target) == expected
    inward = expected if ":" not in target else expected[::-1]
    meets(daemon, quiet, inward)
    daemon.post("detach", {"cube": "a", "port": target})
    assert stack(daemon, target) == ["b", "d", "e", "c"]
    meets(daemon, quiet, [name for name in inward if name != "a"])


def meets(daemon: Daemon, hosts: list[Host], inward: list[str]) -> None:
    """The one that drops is seen by those before it, and by none after it; ingress and egress."""
    for direction, order, sender in (("ingress", inward, hosts[0]), ("egress", inward[::-1], hosts[1])):
        middle = len(order) // 2
        daemon.patch(f"{order[middle]}/{direction}-action", "DROP")
        before = counted(daemon, order, direction)
        sender.send(*(frame(sender, BROADCAST, b"order %d" % number) for number in range(7)))
        expected = {name: before[name] + (7 if index <= middle else 0) for index, name in enumerate(order)}
        eventually(partial(agrees, daemon, direction, expected), f"{direction}: {before} and 7 packets to {order[: middle + 1]}")
        daemon.patch(f"{order[middle]}/{direction}-action", "PASS")


def counted(daemon: Daemon, cubes: Iterable[str], direction: str) -> dict[str, int]:
    return {name: daemon.counter(name, direction, "rx_packets") for name in cubes}


def agrees(daemon: Daemon, direction: str, expected: dict[str, int]) -> bool:
    return counted(daemon, expected, direction) == expected


def test_a_netdev_without_a_cube_behind_it_passes_to_the_stack(daemon: Daemon, hosts: list[Host], type: str) -> None:
    host = hosts[0]
    sh(f"ip addr add 10.0.0.100/24 dev {host.netdev}")
    try:
        transparent(daemon, "th", type)
        attach(daemon, "th", host.netdev)
        assert host.ping("10.0.0.100", count=3).received == 3
        assert daemon.counter("th", "ingress", "rx_packets") >= 3 and daemon.counter("th", "egress", "rx_packets") >= 3
        for direction in ("ingress", "egress"):
            daemon.patch(f"th/{direction}-action", "DROP")
            assert host.ping("10.0.0.100", count=1, wait=0.1).received == 0
            daemon.patch(f"th/{direction}-action", "SLOWPATH")
            if (type, direction) != ("XDP_SKB", "ingress"):
                eventually(lambda: host.ping("10.0.0.100", count=3).received == 3, f"{direction} by the slow path")
            daemon.patch(f"th/{direction}-action", "PASS")
    finally:
        sh(f"ip addr del 10.0.0.100/24 dev {host.netdev}")


def test_generic_xdp_says_that_it_cannot_hand_frames_to_the_stack(daemon: Daemon, quiet: list[Host]) -> None:
    """They would meet the program again and go round for ever."""
    transparent(daemon, "th", "XDP_SKB", ingress_action="SLOWPATH")
    attach(daemon, "th", quiet[0].netdev)
    since = len(daemon.log())
    daemon.tracebacks_allowed = True  # of packet(), which is told
    quiet[0].send(frame(quiet[0], BROADCAST, b"up"))
    daemon.logged("generic XDP has no way from user space to the host's stack", since)
    assert daemon.counter("th", "ingress", "rx_packets") == 1


def test_deleting_a_port_or_a_cube_frees_what_was_attached(daemon: Daemon, hosts: list[Host]) -> None:
    bridge(daemon, "br1", hosts)
    transparent(daemon, "th")
    attach(daemon, "th", "br1:p1")
    assert daemon.get("transparenthelloworld/th")["parent"] == "br1:p1"
    daemon.delete("simplebridge/br1/ports/p1")
    assert daemon.get("transparenthelloworld/th")["parent"] == ""
    attach(daemon, "th", "br1:p2")
    daemon.delete("simplebridge/br1")
    attach(daemon, "th", hosts[0].netdev)
    assert daemon.get("transparenthelloworld/th")["parent"] == hosts[0].netdev
