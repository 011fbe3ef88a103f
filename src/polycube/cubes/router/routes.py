# SPDX-License-Identifier: Apache-2.0
"""The routing table: from addresses of ports and configured routes to what the data plane looks up. No I/O.

Each address makes a route to its network and one to itself, and an IPv4 network one to its broadcast address. Of a network's routes the
local one wins, then the cheapest whose next hop can be reached, then the lowest next hop; so the next best takes over by itself when one
goes. A next hop is reached through the interface it is given with, or else the port whose network it is in.

Invariants: `selected` is a function of the configuration; asked for some networks it gives just what the whole table would hold there.
A route that is added must have a next hop that can be reached; one that loses it later stays configured, and is not in use.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum

from polycube.cubes.router.addresses import is_link_local6, routed
from polycube.cubes.router.model import LOCAL, Route, RouterPort
from polycube.model import suggest
from polycube.net.addr import Address, Network

LENGTH = {4: 32, 6: 128}


class Kind(IntEnum):
    """enum router_kind of the data plane."""

    UNICAST = 0
    LOCAL = 1
    BROADCAST = 2


@dataclass(frozen=True, slots=True)
class Entry:
    """What the data plane knows of a network."""

    port: str
    kind: Kind = Kind.UNICAST
    gateway: Address | None = None  # None: directly connected


class Links:
    """What the ports' addresses say: local routes, and which port a next hop is at."""

    def __init__(self, ports: Mapping[str, RouterPort]) -> None:
        self.ports = ports
        self.entries: dict[Network, Entry] = {}
        self.own: dict[Address, str] = {}
        self._by_length: dict[tuple[int, int], dict[int, str]] = {}
        for port in ports.values():
            for address in routed(port):
                self.own[address.ip] = port.name
        for network, entry in self._made():
            present = self.entries.get(network)
            if present is None or _rank(entry) > _rank(present):
                self.entries[network] = entry
        self._lengths = sorted(self._by_length, reverse=True)

    def _made(self) -> Iterator[tuple[Network, Entry]]:
        for port in self.ports.values():
            for address in routed(port):
                network, bits = address.network, LENGTH[address.version]
                yield ipaddress.ip_network((address.ip, bits)), Entry(port.name, Kind.LOCAL)
                if network.prefixlen == bits:
                    continue
                yield network, Entry(port.name)
                shift = bits - network.prefixlen
                self._by_length.setdefault((address.version, network.prefixlen), {})[int(network.network_address) >> shift] = port.name
                if address.version == 4 and network.prefixlen < 31:
                    yield ipaddress.ip_network((network.broadcast_address, bits)), Entry(port.name, Kind.BROADCAST)

    def port_of(self, address: Address) -> str | None:
        """The port in whose network an address is."""
        version, bits, value = address.version, LENGTH[address.version], int(address)
        for key in self._lengths:
            if key[0] == version:
                port = self._by_length[key].get(value >> (bits - key[1]))
                if port is not None:
                    return port
        return None

    def way(self, route: Route) -> Entry | None:
        """What a configured route means; None while its next hop can't be reached."""
        hop = route.nexthop
        if isinstance(hop, str) or hop.version != route.network.version or hop in self.own:
            return None
        if route.interface is not None:
            return Entry(route.interface, gateway=hop) if route.interface in self.ports else None
        port = None if is_link_local6(hop) else self.port_of(hop)
        return Entry(port, gateway=hop) if port is not None else None

    def nonsense(self, route: Route) -> str | None:
        """Why a route could not be used whatever the ports are: the end of a sentence that begins with the route."""
        hop, network = route.nexthop, route.network
        if isinstance(hop, str):
            return "is refused: local routes come from the addresses of the ports"
        if hop.version != network.version:
            return f"is refused: network {network} and next hop {hop} are not of one IP version"
        if network.is_multicast or is_link_local6(network.network_address):
            return f"is refused: {network} is not routed"
        if hop.is_multicast or hop.is_unspecified or hop.is_loopback:
            return f"is refused: expected the address of another router as next hop, not {hop}"
        if is_link_local6(hop) and route.interface is None:
            return f"is refused: a link-local next hop such as {hop} needs an interface"
        return None

    def objection(self, route: Route) -> str | None:
        """Why a route can't be added to these ports."""
        wrong = self.nonsense(route)
        if wrong:
            return wrong
        assert not isinstance(route.nexthop, str)
        if route.nexthop in self.own:
            return f"is refused: next hop {route.nexthop} is the router itself"
        if route.interface is not None:
            return None if route.interface in self.ports else f"is refused: no port {route.interface}{suggest(route.interface, self.ports)}"
        if self.port_of(route.nexthop) is None:
            return f"is refused: next hop {route.nexthop} is in no network of the ports; add an address there, or give the interface"
        return None


def _rank(entry: Entry) -> int:
    """Of two local entries for the same prefix: an own address, then a broadcast address, then a network."""
    return {Kind.LOCAL: 2, Kind.BROADCAST: 1, Kind.UNICAST: 0}[entry.kind]


def winners(routes: Iterable[Route], links: Links, networks: Collection[Network] | None = None) -> dict[Network, Route]:
    """The configured route in use of each network (of these networks); local routes are not looked at."""
    best: dict[Network, tuple[tuple[int, int], Route]] = {}
    for route in routes:
        if networks is not None and route.network not in networks:
            continue
        if links.way(route) is None:
            continue
        assert not isinstance(route.nexthop, str)
        cost = (route.pathcost, int(route.nexthop))
        present = best.get(route.network)
        if present is None or cost < present[0]:
            best[route.network] = (cost, route)
    return {network: route for network, (_, route) in best.items() if network not in links.entries}


def selected(routes: Iterable[Route], links: Links, networks: Collection[Network] | None = None) -> dict[Network, Entry]:
    """The table of the data plane, or its part about these networks."""
    table: dict[Network, Entry] = {}
    for network, route in winners(routes, links, networks).items():
        way = links.way(route)
        assert way is not None
        table[network] = way
    if networks is None:
        table.update(links.entries)
    else:
        table.update((network, links.entries[network]) for network in networks if network in links.entries)
    return table


def local_routes(links: Links) -> list[dict[str, str | int | bool]]:
    """The local routes as they are shown: two for each address."""
    return [
        {"network": str(network), "nexthop": LOCAL, "interface": entry.port, "pathcost": 0, "active": True}
        for network, entry in links.entries.items()
        if entry.kind is not Kind.BROADCAST
    ]
