# SPDX-License-Identifier: Apache-2.0
"""The routing table against a plain model of what it means."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polycube.cubes.router.addresses import filter_bit, own_filter, places, problems
from polycube.cubes.router.model import Route, RouterConfig, RouterPort
from polycube.cubes.router.routes import PATHS, Entry, Kind, Links, Selection, local_routes, winners
from polycube.model import Keyed, load

PORTS = {
    "p0": {"ip": "10.0.0.1/24", "secondaryip": [{"ip": "2001:db8::1/64"}]},
    "p1": {"ip": "10.1.0.1/16", "secondaryip": [{"ip": "10.2.0.1/30"}]},
    "p2": {"ip": "10.1.2.1/24"},
    "p3": {"vlan": [{"vlan": 10, "ip": "10.3.0.1/24"}]},
}


def links_of(description: dict[str, Any]) -> Links:
    return Links(places(ports_of(description)))


def selected(routes: list[Route], links: Links) -> dict[Any, Entry]:
    return Selection({(one.network, one.nexthop): one for one in routes}, links).table


def ports_of(description: dict[str, Any]) -> Keyed[RouterPort]:
    body = {"name": "r1", "ports": [{"name": name, **port} for name, port in description.items()]}
    return load(RouterConfig, body).ports


def route(network: str, nexthop: str, **fields: Any) -> Route:
    return load(Route, {"network": network, "nexthop": nexthop, **fields})


def net(text: str) -> Any:
    return ipaddress.ip_network(text)


LINKS = links_of(PORTS)


def test_address_makes_routes_to_its_network_to_itself_and_to_the_broadcast_address() -> None:
    links = links_of({"p0": {"ip": "10.0.0.1/24"}})
    assert links.entries == {
        net("10.0.0.0/24"): Entry("p0"),
        net("10.0.0.1/32"): Entry("p0", Kind.LOCAL),
        net("10.0.0.255/32"): Entry("p0", Kind.BROADCAST),
    }
    assert [one["network"] for one in local_routes(links)] == ["10.0.0.1/32", "10.0.0.0/24"]


@pytest.mark.parametrize(
    ("address", "networks"),
    [
        ("10.0.0.1/32", ["10.0.0.1/32"]),
        ("10.0.0.0/31", ["10.0.0.0/32", "10.0.0.0/31"]),
        ("2001:db8::1/64", ["2001:db8::1/128", "2001:db8::/64"]),
        ("2001:db8::1/128", ["2001:db8::1/128"]),
        ("fe80::1/64", []),
    ],
)
def test_short_networks_have_no_broadcast_address_and_link_local_ones_no_routes(address: str, networks: list[str]) -> None:
    assert [str(network) for network in links_of({"p0": {"ip": address}}).entries] == networks


def test_next_hop_is_at_the_port_with_the_longest_network() -> None:
    assert LINKS.place_of(ipaddress.ip_address("10.1.2.9")) == "p2"
    assert LINKS.place_of(ipaddress.ip_address("10.1.3.9")) == "p1"
    assert LINKS.place_of(ipaddress.ip_address("10.2.0.2")) == "p1"
    assert LINKS.place_of(ipaddress.ip_address("2001:db8::9")) == "p0"
    assert LINKS.place_of(ipaddress.ip_address("10.3.0.9")) == "p3.10"
    assert LINKS.place_of(ipaddress.ip_address("11.0.0.1")) is None


def test_cheapest_route_wins_and_the_next_takes_over() -> None:
    dear, cheap = route("0.0.0.0/0", "10.0.0.2", pathcost=5), route("0.0.0.0/0", "10.1.0.2", pathcost=2)
    assert selected([dear, cheap], LINKS)[net("0.0.0.0/0")] == Entry("p1", gateway=cheap.nexthop)
    assert selected([dear], LINKS)[net("0.0.0.0/0")] == Entry("p0", gateway=dear.nexthop)


def test_routes_of_equal_cost_are_used_together_up_to_a_limit() -> None:
    two = [route("0.0.0.0/0", "10.1.0.2"), route("0.0.0.0/0", "10.0.0.2"), route("0.0.0.0/0", "10.1.0.9", pathcost=2)]
    paths = (("p0", ipaddress.ip_address("10.0.0.2")), ("p1", ipaddress.ip_address("10.1.0.2")))
    assert selected(two, LINKS)[net("0.0.0.0/0")] == Entry(kind=Kind.MULTIPATH, paths=paths)
    many = [route("0.0.0.0/0", f"10.1.0.{n}") for n in range(2, 30)]
    assert [str(hop) for _, hop in selected(many, LINKS)[net("0.0.0.0/0")].paths] == [f"10.1.0.{n}" for n in range(2, 2 + PATHS)]


def test_word_is_used_where_no_next_hop_is_as_cheap() -> None:
    drop, hop = route("20.0.0.0/8", "blackhole", pathcost=2), route("20.0.0.0/8", "10.0.0.2", pathcost=2)
    assert selected([drop], LINKS)[net("20.0.0.0/8")] == Entry(kind=Kind.BLACKHOLE)
    assert selected([drop, hop], LINKS)[net("20.0.0.0/8")] == Entry("p0", gateway=hop.nexthop)
    cheap = route("20.0.0.0/8", "prohibit", pathcost=1)
    assert selected([drop, hop, cheap], LINKS)[net("20.0.0.0/8")] == Entry(kind=Kind.PROHIBIT)


def test_local_route_wins_over_any_cost() -> None:
    assert selected([route("10.0.0.0/24", "10.1.0.2", pathcost=0)], LINKS)[net("10.0.0.0/24")] == Entry("p0")


def test_route_with_an_interface_needs_no_network_there() -> None:
    one = route("20.0.0.0/8", "30.0.0.1", interface="p3")
    assert LINKS.way(one) == Entry("p3", gateway=one.nexthop)


REFUSED = {
    "far": (route("20.0.0.0/8", "30.0.0.1"), "30.0.0.1 is in no network of the ports"),
    "no port": (route("20.0.0.0/8", "30.0.0.1", interface="p9"), "no port p9"),
    "mixed": (route("20.0.0.0/8", "2001:db8::2"), "not of one IP version"),
    "itself": (route("20.0.0.0/8", "10.0.0.1"), "is the router itself"),
    "local": (route("20.0.0.0/8", "local"), "come from the addresses of the ports"),
    "group": (route("20.0.0.0/8", "224.0.0.1"), "another router as next hop, not 224.0.0.1"),
    "to a group": (route("224.0.0.0/8", "10.0.0.2"), "224.0.0.0/8 is not routed"),
    "word by a port": (route("20.0.0.0/8", "blackhole", interface="p0"), "a blackhole route has no interface"),
    "link-local": (route("::/0", "fe80::1"), "needs an interface"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_route_that_cannot_work_is_refused_in_one_sentence(name: str) -> None:
    one, sentence = REFUSED[name]
    objection = LINKS.objection(one)
    assert objection is not None and sentence in objection and objection.startswith("is refused: ")


def test_good_routes_meet_no_objection() -> None:
    assert LINKS.objection(route("20.0.0.0/8", "10.0.0.2")) is None
    assert LINKS.objection(route("::/0", "fe80::1", interface="p3")) is None
    assert LINKS.objection(route("::/0", "fe80::1", interface="p3.10")) is None
    assert LINKS.objection(route("2001:db8::/32", "unreachable")) is None


ADDRESSES = st.sampled_from([f"10.{a}.{b}.{c}" for a in range(5) for b in (0, 2, 9) for c in (1, 2, 77)] + ["2001:db8::2", "2001:db8::1"])
WORDS = st.sampled_from(["blackhole", "prohibit"])
NETWORKS = st.sampled_from(["0.0.0.0/0", "10.0.0.0/24", "10.1.0.0/16", "20.0.0.0/8", "20.1.0.0/16", "10.0.0.1/32", "::/0", "2001:db8::/64"])
ROUTES = st.builds(
    lambda network, hop, cost, port: route(network, hop, pathcost=cost, **({"interface": port} if port else {})),
    NETWORKS,
    ADDRESSES,
    st.integers(0, 3),
    st.sampled_from([None, None, "p0", "p3", "p9"]),
)
NOWHERE = st.builds(lambda network, word, cost: route(network, word, pathcost=cost), NETWORKS, WORDS, st.integers(0, 3))
SANE = st.one_of(ROUTES, ROUTES, NOWHERE).filter(lambda one: isinstance(one.nexthop, str) or one.nexthop.version == one.network.version)
TABLES = st.lists(SANE, max_size=12, unique_by=lambda one: (one.network, one.nexthop))


def plain(routes: list[Route]) -> dict[Any, Entry]:
    """The table by the book, quadratic."""
    table = dict(LINKS.entries)
    for network in {one.network for one in routes} - table.keys():
        usable = [one for one in routes if one.network == network and LINKS.way(one) is not None]
        best = [one for one in usable if one.pathcost == min(other.pathcost for other in usable)]
        hops = sorted((int(one.nexthop), LINKS.way(one)) for one in best if not isinstance(one.nexthop, str))  # type: ignore[type-var]
        ways = [way for _, way in hops] or [LINKS.way(one) for one in sorted(best, key=lambda one: str(one.nexthop))][:1]
        if len(ways) == 1 and ways[0]:
            table[network] = ways[0]
        elif ways:
            table[network] = Entry(kind=Kind.MULTIPATH, paths=tuple((way.interface, way.gateway) for way in ways))  # type: ignore
    return table


@settings(max_examples=200, deadline=None)
@given(TABLES)
def test_table_is_what_the_plain_model_says(routes: list[Route]) -> None:
    assert selected(routes, LINKS) == plain(routes)


@settings(max_examples=100, deadline=None)
@given(TABLES, TABLES)
def test_selection_after_a_change_is_that_of_the_routes_then_and_the_former_one_stays(before: list[Route], after: list[Route]) -> None:
    old, new = ({(one.network, one.nexthop): one for one in routes} for routes in (before, after))
    first = Selection(old, LINKS)
    table = dict(first.table)
    gone = [one for key, one in old.items() if new.get(key) != one]
    come = [one for key, one in new.items() if old.get(key) != one]
    second, changes = first.changed(new, gone, come)
    assert second.table == selected(after, LINKS) and first.table == table
    differ = {network for network in {*table, *second.table} if table.get(network) != second.table.get(network)}
    assert sorted(changes, key=str) == sorted(((one, table.get(one), second.table.get(one)) for one in differ), key=str)


@settings(max_examples=100, deadline=None)
@given(TABLES)
def test_winners_are_configured_routes_that_can_be_used_at_the_lowest_cost(routes: list[Route]) -> None:
    for network in {one.network for one in routes}:
        mine = [one for one in routes if one.network == network]
        for winner in winners(mine, LINKS):
            assert winner in mine and LINKS.way(winner) is not None
            assert all(winner.pathcost <= one.pathcost for one in mine if LINKS.way(one) is not None)


PROBLEMS = {
    "no primary": ({"p0": {"secondaryip": [{"ip": "10.0.0.1/24"}]}}, "You can not add a secondary ip address to a port with no ip address"),
    "address twice": ({"p0": {"ip": "10.0.0.1/24"}, "p1": {"ip": "10.0.0.1/16"}}, "port p0 has this address"),
    "network twice": ({"p0": {"ip": "10.0.0.1/24"}, "p1": {"ip": "10.0.0.2/24"}}, "network 10.0.0.0/24 is at port p0"),
    "broadcast": ({"p0": {"ip": "10.0.0.255/24"}}, "the network's own or its broadcast address"),
    "network": ({"p0": {"ip": "10.0.0.0/24"}}, "the network's own or its broadcast address"),
    "loopback": ({"p0": {"ip": "127.0.0.1/8"}}, "expected the address of one host"),
    "multicast": ({"p0": {"ip": "ff02::1/64"}}, "expected the address of one host"),
    "everything": ({"p0": {"ip": "10.0.0.1/0"}}, "a network of length 0 is everything"),
    "two link-locals": ({"p0": {"ip": "fe80::1/64", "secondaryip": [{"ip": "fe80::2/64"}]}}, "a port has one"),
    "vlan's network twice": (
        {"p0": {"ip": "10.0.0.1/24", "vlan": [{"vlan": 5, "ip": "10.0.0.2/24"}]}},
        "network 10.0.0.0/24 is at port p0",
    ),
    "vlan's name taken": ({"p0": {"vlan": [{"vlan": 5}]}, "p0.5": {}}, "there is a port p0.5"),
    "group mac": ({"p0": {"mac": "01:00:00:00:00:01"}}, "expected the MAC of one host"),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_addresses_that_cannot_be_are_named_in_one_sentence(name: str) -> None:
    description, sentence = PROBLEMS[name]
    (problem,) = problems(ports_of(description))
    assert sentence in str(problem) and str(problem).startswith("ports/")


def test_ports_may_have_ipv6_only_and_networks_in_one_another() -> None:
    good = {"p0": {"secondaryip": [{"ip": "2001:db8::1/64"}]}, "p1": {"ip": "10.0.0.1/8"}, "p2": {"ip": "10.1.0.1/16"}}
    assert problems(ports_of(good)) == []
    assert problems(ports_of({"p0": {"ip": "2001:db8::1/64", "secondaryip": [{"ip": "10.0.0.1/24"}]}})) == []


@given(st.sets(st.ip_addresses(), max_size=20))
def test_filter_has_the_bit_of_every_own_address(addresses: set[Any]) -> None:
    words = own_filter(addresses)
    for address in addresses:
        bit = filter_bit(address)
        assert 0 <= bit < 1024 and words[f"ipv{address.version}"][bit // 64] >> bit % 64 & 1
