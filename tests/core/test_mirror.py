# SPDX-License-Identifier: Apache-2.0
"""Facts in a real namespace: what is added is read as it was, and what `ip` does is read as it should be."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from polycube.core.mirror import AddressOf, Fact, MacOf, Mirror, NeighbourOf, RouteTo, fact_data, fact_from
from polycube.core.topology import SHADOW_BASE
from polycube.net import netns
from polycube.net.addr import Mac
from polycube.net.rtnl import Rtnl
from polycube.testing.hosts import eventually, sh

NAMESPACE = "pcn-mirror"
MACS = {"p1": MacOf("p1", "02:00:00:00:00:01"), "p2": MacOf("p2", "02:00:00:00:00:02")}


@pytest.fixture
def mirror(isolated: None) -> Iterator[Mirror]:
    """Of a namespace with two ports, p1 and p2, and a netdev that is none."""
    with netns.create(NAMESPACE) as where:
        netns.run_in(where, make)
        try:
            with Mirror(NAMESPACE) as made:
                yield made
        finally:
            netns.delete(NAMESPACE)


def make() -> None:
    with Rtnl() as rtnl:
        for number, fact in enumerate(MACS.values()):
            index = SHADOW_BASE + 2 * number
            rtnl.create_veth(fact.port, index, f"{fact.port}peer", 100 + number)
            rtnl.change(index, mac=Mac.parse(fact.mac), up=True)
            rtnl.change(100 + number, up=True)


def ip(arguments: str) -> None:
    sh(f"ip -n {NAMESPACE} {arguments}")


FACTS: list[Fact] = [
    AddressOf("p1", "10.0.1.1/24"),
    AddressOf("p1", "10.0.1.2/24"),
    AddressOf("p2", "10.0.2.1/31"),
    AddressOf("p1", "fd01::1/64"),
    AddressOf("p2", "fe80::77/64"),
    RouteTo("p1", "10.9.0.0/16", "10.0.1.9"),
    RouteTo("p2", "10.9.0.0/16", "10.0.2.0"),
    RouteTo("p1", "10.8.0.0/16", "192.0.2.1", 7),  # in no network of the port
    RouteTo("p1", "0.0.0.0/0", "10.0.1.9", 3),
    RouteTo("p1", "fd09::/48", "fd01::9"),
    RouteTo("p2", "fd09::/48", "fe80::9"),
    RouteTo("p2", "::/0", "fe80::9", 9),
    RouteTo("", "10.7.0.0/16", "blackhole"),
    RouteTo("", "10.6.0.0/16", "prohibit", 2),
    RouteTo("", "fd07::/48", "unreachable"),
    NeighbourOf("p1", "10.0.1.9", "02:00:00:00:00:99"),
    NeighbourOf("p2", "fe80::9", "02:00:00:00:00:98"),
]


def test_what_is_added_is_read_as_it_was_and_known_as_ones_own(mirror: Mirror) -> None:
    empty = mirror.read()
    assert empty.facts == empty.own == set(MACS.values()) and empty.ports == empty.fresh == {"p1", "p2"} and not empty.down
    for fact in FACTS:
        assert mirror.add(fact) == "" and mirror.add(fact) == ""
    full = mirror.read()
    assert full.facts == full.own == {*FACTS, *MACS.values()}
    for fact in reversed(FACTS):
        assert mirror.remove(fact) == "" and mirror.remove(fact) == ""
    assert mirror.read().facts == set(MACS.values())


def test_what_ip_does_is_read_and_is_somebody_elses(mirror: Mirror) -> None:
    mirror.read()
    mirror.keep("p1")
    ip("addr add 10.0.1.1/24 dev p1")
    ip("addr add 10.0.2.1/24 dev p2")
    ip("route add 10.9.0.0/16 nexthop via 10.0.1.9 nexthop via 10.0.2.9")
    ip("route add 10.8.0.0/16 dev p1")  # straight onto the netdev: no route of a cube
    ip("route add 10.7.0.0/16 via 10.0.1.9 table 7")
    ip("route add fd09::/48 via fe80::9 dev p1 metric 5 proto bgp")
    ip("neigh add 10.0.1.9 lladdr 02:00:00:00:00:99 dev p1 nud stale")
    ip("neigh add 10.0.1.8 lladdr 02:00:00:00:00:98 dev p1")
    ip("link set p2 down")
    seen = mirror.read()
    assert seen.facts - seen.own == {
        AddressOf("p1", "10.0.1.1/24"),
        AddressOf("p2", "10.0.2.1/24"),
        RouteTo("p1", "10.9.0.0/16", "10.0.1.9"),
        RouteTo("p2", "10.9.0.0/16", "10.0.2.9"),
        RouteTo("p1", "fd09::/48", "fe80::9", 5),
        NeighbourOf("p1", "10.0.1.8", "02:00:00:00:00:98"),
    }
    assert seen.down == seen.fresh == {"p2"}


def test_the_link_local_address_follows_the_mac_and_is_no_fact(mirror: Mirror) -> None:
    eventually(lambda: "fe80::ff:fe00:1/64" in sh(f"ip -n {NAMESPACE} addr show dev p1"), "the kernel's link-local address")
    mirror.read()
    assert mirror.add(MacOf("p1", "02:00:00:00:00:aa")) == ""
    mirror.align()
    shown = sh(f"ip -n {NAMESPACE} addr show dev p1")
    assert "fe80::ff:fe00:aa/64" in shown and "fe80::ff:fe00:1/64" not in shown
    assert mirror.read().facts == {MacOf("p1", "02:00:00:00:00:aa"), MACS["p2"]}


def test_what_the_kernel_refuses_is_said(mirror: Mirror) -> None:
    mirror.read()
    assert mirror.add(AddressOf("p7", "10.0.0.1/24")) == ""  # comes when the port does
    ip("link set p1 down")
    assert mirror.add(RouteTo("p1", "10.9.0.0/16", "10.0.1.9")) == "Network is down"


def test_facts_travel_as_data() -> None:
    assert [fact_from(fact_data(fact)) for fact in FACTS] == FACTS
