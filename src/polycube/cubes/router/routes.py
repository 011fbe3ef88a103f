# SPDX-License-Identifier: Apache-2.0
"""The routing table: from addresses of ports and configured routes to what the data plane looks up. No I/O.

Each address makes a route to its network and one to itself, and an IPv4 network one to its broadcast address. Of a network's routes the
local one wins, then the cheapest that can be used: by next hops that can be reached, several of the same cost together (up to `PATHS`,
the lowest ones), then by a word that leads nowhere. So the next best take over by themselves when one goes. A next hop is reached through
the interface it is given with, or else the one whose network it is in.

Invariants: what a network gets is a function of the configuration, by `Selection.of`, whatever the order of routes. A route that is added
must have a next hop that can be reached; one that loses it later stays configured, and is not in use.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from polycube.cubes.router.addresses import Place, is_link_local6, routed
from polycube.cubes.router.model import BLACKHOLE, LOCAL, NOWHERE, PROHIBIT, UNREACHABLE, Route
from polycube.model import suggest
from polycube.net.addr import Address, Network

LENGTH = {4: 32, 6: 128}
PATHS = 16  # ROUTER_PATHS


class Kind(IntEnum):
    """enum router_kind of the data plane."""

    UNICAST = 0
    LOCAL = 1
    BROADCAST = 2
    MULTIPATH = 3
    BLACKHOLE = 4
    UNREACHABLE = 5
    PROHIBIT = 6


_WORDS = {BLACKHOLE: Kind.BLACKHOLE, UNREACHABLE: Kind.UNREACHABLE, PROHIBIT: Kind.PROHIBIT}
Path = tuple[str, Address]  # interface, next hop


@dataclass(frozen=True, slots=True)
class Entry:
    """What the data plane knows of a network."""

    interface: str = ""  # "": none, or several
    kind: Kind = Kind.UNICAST
    gateway: Address | None = None  # None: directly connected
    paths: tuple[Path, ...] = ()


Change = tuple[Network, Entry | None, Entry | None]  # of what the data plane knows: before, after


class Links:
    """What the addresses say: local routes, and which interface a next hop is at."""

    def __init__(self, places: Mapping[str, Place]) -> None:
        self.places = places
        self.entries: dict[Network, Entry] = {}
        self.own: dict[Address, str] = {}
        self._by_length: dict[tuple[int, int], dict[int, str]] = {}
        self._ways: dict[tuple[Address | str, str | None], Entry | None] = {}
        self._wrong: dict[tuple[Address | str, str | None], str | None] = {}
        for place in places.values():
            for address in routed(place):
                self.own[address.ip] = place.name
        for network, entry in self._made():
            present = self.entries.get(network)
            if present is None or _rank(entry) > _rank(present):
                self.entries[network] = entry
        self._lengths = sorted(self._by_length, reverse=True)

    def _made(self) -> Iterator[tuple[Network, Entry]]:
        for place in self.places.values():
            for address in routed(place):
                network, bits = address.network, LENGTH[address.version]
                yield ipaddress.ip_network((address.ip, bits)), Entry(place.name, Kind.LOCAL)
                if network.prefixlen == bits:
                    continue
                yield network, Entry(place.name)
                shift = bits - network.prefixlen
                self._by_length.setdefault((address.version, network.prefixlen), {})[int(network.network_address) >> shift] = place.name
                if address.version == 4 and network.prefixlen < 31:
                    yield ipaddress.ip_network((network.broadcast_address, bits)), Entry(place.name, Kind.BROADCAST)

    def place_of(self, address: Address) -> str | None:
        """The interface in whose network an address is."""
        version, bits, value = address.version, LENGTH[address.version], int(address)
        for key in self._lengths:
            if key[0] == version:
                place = self._by_length[key].get(value >> (bits - key[1]))
                if place is not None:
                    return place
        return None

    def way(self, route: Route) -> Entry | None:
        """What a configured route means by itself; None while its next hop can't be reached. Routes by one next hop share the answer."""
        key = (route.nexthop, route.interface)
        if key not in self._ways:
            self._ways[key] = self._way(*key)
        return self._ways[key]

    def _way(self, hop: Address | str, interface: str | None) -> Entry | None:
        if isinstance(hop, str):
            return Entry(kind=_WORDS[hop]) if hop in _WORDS else None
        if hop in self.own:
            return None
        if interface is not None:
            return Entry(interface, gateway=hop) if interface in self.places else None
        place = None if is_link_local6(hop) else self.place_of(hop)
        return Entry(place, gateway=hop) if place is not None else None

    def nonsense(self, route: Route) -> str | None:
        """Why a route could not be used whatever the ports are: the end of a sentence that begins with the route."""
        hop, network = route.nexthop, route.network
        if network.is_multicast or is_link_local6(network.network_address):
            return f"is refused: {network} is not routed"
        if not isinstance(hop, str) and hop.version != network.version:
            return f"is refused: network {network} and next hop {hop} are not of one IP version"
        key = (hop, route.interface)
        if key not in self._wrong:
            self._wrong[key] = _wrong(*key)
        return self._wrong[key]

    def objection(self, route: Route) -> str | None:
        """Why a route can't be added to these ports."""
        wrong = self.nonsense(route)
        if wrong or isinstance(route.nexthop, str) or self.way(route) is not None:
            return wrong
        if route.nexthop in self.own:
            return f"is refused: next hop {route.nexthop} is the router itself"
        if route.interface is not None:
            return f"is refused: no port {route.interface}{suggest(route.interface, self.places)}"
        return f"is refused: next hop {route.nexthop} is in no network of the ports; add an address there, or give the interface"


def _wrong(hop: Address | str, interface: str | None) -> str | None:
    """Why nothing can be routed by a next hop."""
    if hop in NOWHERE:
        return f"is refused: a {hop} route has no interface" if interface is not None else None
    if isinstance(hop, str):
        return "is refused: local routes come from the addresses of the ports"
    if hop.is_multicast or hop.is_unspecified or hop.is_loopback:
        return f"is refused: expected the address of another router as next hop, not {hop}"
    if is_link_local6(hop) and interface is None:
        return f"is refused: a link-local next hop such as {hop} needs an interface"
    return None


def _rank(entry: Entry) -> int:
    """Of two local entries for the same prefix: an own address, then a broadcast address, then a network."""
    return {Kind.LOCAL: 2, Kind.BROADCAST: 1, Kind.UNICAST: 0}[entry.kind]


def winners(routes: Iterable[Route], links: Links) -> list[Route]:
    """Which of one network's routes are used; local routes are not looked at."""
    usable = [route for route in routes if links.way(route) is not None]
    if not usable:
        return []
    cost = min(route.pathcost for route in usable)
    best = [route for route in usable if route.pathcost == cost]
    by_hop = [route for route in best if not isinstance(route.nexthop, str)]
    return sorted(by_hop, key=_hop)[:PATHS] or sorted(best, key=lambda route: str(route.nexthop))[:1]


def _hop(route: Route) -> int:
    assert not isinstance(route.nexthop, str)
    return int(route.nexthop)


class Selection:
    """What the data plane holds of each network: `table`, kept from one configuration to the next."""

    def __init__(self, routes: Mapping[object, Route], links: Links) -> None:
        self.routes, self.links = routes, links
        self.by_network: dict[Network, tuple[Route, ...]] = {}
        for route in routes.values():
            self.by_network[route.network] = (*self.by_network.get(route.network, ()), route)
        self.table: dict[Network, Entry] = {network: entry for network in self.by_network if (entry := self.of(network)) is not None}
        self.table.update(links.entries)

    def of(self, network: Network) -> Entry | None:
        """One network's entry."""
        return self._entry(network, self.by_network.get(network, ()))

    def _entry(self, network: Network, routes: Sequence[Route]) -> Entry | None:
        local = self.links.entries.get(network)
        if local is not None:
            return local
        if len(routes) == 1:
            return self.links.way(routes[0])
        ways = [way for route in winners(routes, self.links) if (way := self.links.way(route)) is not None]
        if len(ways) < 2:
            return ways[0] if ways else None
        return Entry(kind=Kind.MULTIPATH, paths=tuple((way.interface, way.gateway) for way in ways if way.gateway is not None))

    def changed(self, routes: Mapping[object, Route], gone: Iterable[Route], come: Iterable[Route]) -> tuple[Selection, list[Change]]:
        """The selection for other routes, given the difference, and what that means for networks. This one stays as it is."""
        after = Selection.__new__(Selection)
        after.routes, after.links = routes, self.links
        after.by_network, after.table = self.by_network.copy(), self.table.copy()
        found: dict[Network, tuple[Route, ...]] = {}
        for route in gone:
            of = found.get(route.network)
            found[route.network] = tuple(one for one in (self.by_network[route.network] if of is None else of) if one is not route)
        for route in come:
            of = found.get(route.network)
            found[route.network] = (*(self.by_network.get(route.network, ()) if of is None else of), route)
        changes = []
        for network, mine in found.items():
            if mine:
                after.by_network[network] = mine
            else:
                del after.by_network[network]
            before, entry = self.table.get(network), after._entry(network, mine)
            if entry == before:
                continue
            changes.append((network, before, entry))
            if entry is not None:
                after.table[network] = entry
            else:
                del after.table[network]
        return after, changes


def differences(before: Mapping[Network, Entry], after: Mapping[Network, Entry]) -> list[Change]:
    """What leads from one table to another."""
    changes: list[Change] = [(network, before.get(network), entry) for network, entry in after.items() if before.get(network) != entry]
    return changes + [(network, entry, None) for network, entry in before.items() if network not in after]


def local_routes(links: Links) -> list[dict[str, str | int | bool]]:
    """The local routes as they are shown: two for each address."""
    return [
        {"network": str(network), "nexthop": LOCAL, "interface": entry.interface, "pathcost": 0, "active": True}
        for network, entry in links.entries.items()
        if entry.kind is not Kind.BROADCAST
    ]
