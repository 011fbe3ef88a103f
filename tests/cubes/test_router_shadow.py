# SPDX-License-Identifier: Apache-2.0
"""A router and its namespace: what the namespace shows, and what is done there as edits. No kernel."""

from __future__ import annotations

from typing import Any

import pytest
from router_lab import port_facts

from polycube.cubes.router.interface import interfaces
from polycube.cubes.router.model import RouterConfig
from polycube.cubes.router.shadow import edits, facts
from polycube.model import edit, load
from polycube.testing.control import AddressOf, Fact, MacOf, NeighbourOf, RouteTo

MAC = "02:00:00:00:00:c0"
CONFIG = {
    "name": "r1",
    "ports": [
        {
            "name": "p0",
            "ip": "10.0.0.1/24",
            "secondaryip": [{"ip": "fd00::1/64"}, {"ip": "10.0.5.1/24"}],
            "vlan": [{"vlan": 9, "ip": "10.9.0.1/24"}],
        },
        {"name": "p1", "mac": "02:00:00:00:00:a1", "ip": "10.0.1.1/24"},
    ],
    "route": [
        {"network": "10.7.0.0/16", "nexthop": "10.0.0.2", "pathcost": 5},
        {"network": "10.8.0.0/16", "nexthop": "blackhole"},
        {"network": "10.6.0.0/16", "nexthop": "10.9.0.2"},
        {"network": "fd07::/64", "nexthop": "fe80::2", "interface": "p1"},
    ],
    "arp-table": [
        {"address": "10.0.0.2", "mac": "02:00:00:00:00:02", "interface": "p0"},
        {"address": "fe80::2%p1", "mac": "02:00:00:00:00:03", "interface": "p1"},
    ],
}
SHOWN = {
    MacOf("p0", MAC),
    MacOf("p1", "02:00:00:00:00:a1"),
    AddressOf("p0", "10.0.0.1/24"),
    AddressOf("p0", "fd00::1/64"),
    AddressOf("p0", "10.0.5.1/24"),
    AddressOf("p1", "10.0.1.1/24"),
    RouteTo("p0", "10.7.0.0/16", "10.0.0.2", 5),
    RouteTo("", "10.8.0.0/16", "blackhole", 1),
    RouteTo("p1", "fd07::/64", "fe80::2", 1),
    NeighbourOf("p0", "10.0.0.2", "02:00:00:00:00:02"),
    NeighbourOf("p1", "fe80::2", "02:00:00:00:00:03"),
}


@pytest.fixture
def config() -> RouterConfig:
    return load(RouterConfig, CONFIG)


def shown(config: RouterConfig) -> set[Fact]:
    return set(facts(config, interfaces(config, {f"p{n}": port_facts(n) for n in range(2)}, "8a2f")))


def test_ports_routes_that_can_be_used_and_neighbours_are_shown_but_for_vlans(config: RouterConfig) -> None:
    assert shown(config) == SHOWN


CHANGES: dict[str, tuple[set[Any], set[Any]]] = {
    "a MAC": ({MacOf("p0", MAC)}, {MacOf("p0", "02:00:00:00:00:ee")}),
    "one more address": (set(), {AddressOf("p1", "fd01::1/64"), AddressOf("p1", "10.0.9.1/24")}),
    "the primary address goes": ({AddressOf("p0", "10.0.0.1/24"), RouteTo("p0", "10.7.0.0/16", "10.0.0.2", 5)}, set()),
    "another primary address": ({AddressOf("p1", "10.0.1.1/24")}, {AddressOf("p1", "10.0.1.2/24")}),
    "all addresses go": ({AddressOf("p1", "10.0.1.1/24")}, set()),
    "routes": (
        {RouteTo("", "10.8.0.0/16", "blackhole", 1), RouteTo("p1", "fd07::/64", "fe80::2", 1)},
        {RouteTo("p0", "0.0.0.0/0", "10.0.0.9", 1), RouteTo("p1", "fd08::/64", "fe80::9", 7), RouteTo("", "fd09::/64", "prohibit", 2)},
    ),
    "a route's cost": ({RouteTo("p0", "10.7.0.0/16", "10.0.0.2", 5)}, {RouteTo("p0", "10.7.0.0/16", "10.0.0.2", 1)}),
    "a route's port": ({RouteTo("p1", "fd07::/64", "fe80::2", 1)}, {RouteTo("p0", "fd07::/64", "fe80::2", 1)}),
    "an address and a route by it": (set(), {AddressOf("p1", "10.4.0.1/24"), RouteTo("p1", "10.3.0.0/16", "10.4.0.2", 1)}),
    "neighbours": (
        {NeighbourOf("p0", "10.0.0.2", "02:00:00:00:00:02"), NeighbourOf("p1", "fe80::2", "02:00:00:00:00:03")},
        {NeighbourOf("p0", "10.0.0.2", "02:00:00:00:00:22"), NeighbourOf("p0", "fe80::7", "02:00:00:00:00:07")},
    ),
}


@pytest.mark.parametrize(("gone", "come"), CHANGES.values(), ids=CHANGES.keys())
def test_what_is_done_in_the_namespace_is_shown_by_the_configuration_then(config: RouterConfig, gone: set[Any], come: set[Any]) -> None:
    after = edit(config, edits(config, gone, come))
    assert shown(after) == (SHOWN - gone) | come


def test_costs_that_are_the_kernels_own_metrics_are_none(config: RouterConfig) -> None:
    body = {
        **CONFIG,
        "route": [
            {"network": "fd07::/64", "nexthop": "fd00::2", "pathcost": 1024},
            {"network": "10.7.0.0/16", "nexthop": "10.0.0.2", "pathcost": 0},
        ],
    }
    assert {fact.cost for fact in shown(load(RouterConfig, body)) if isinstance(fact, RouteTo)} == {1}


def test_what_is_no_port_of_the_router_is_no_business_of_it(config: RouterConfig) -> None:
    assert edits(config, {AddressOf("p7", "10.0.0.9/24")}, {AddressOf("p8", "10.0.0.8/24"), MacOf("p0.9", MAC)}) == []
