# SPDX-License-Identifier: Apache-2.0
"""The router as its namespace shows it, and what is done there as changes of configuration. No I/O.

Ports are alike with their netdevs: MAC, addresses, neighbours that were configured. Routes are those whose next hop can be reached; the
cost of one is its metric. VLANs of ports are not followed: netdevs for them are the user's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet

from polycube.core.mirror import AddressOf, Fact, MacOf, NeighbourOf, RouteTo, cost_of
from polycube.cubes.router.addresses import addresses_of, places
from polycube.cubes.router.interface import Interface
from polycube.cubes.router.model import NOWHERE, RouterConfig, RouterPort
from polycube.cubes.router.routes import Links
from polycube.model import Edit, Op
from polycube.net.addr import Interface as Address
from polycube.net.addr import parse_address, parse_interface


def facts(config: RouterConfig, interfaces: Mapping[int, Interface]) -> Iterator[Fact]:
    """What the namespace shows."""
    links = Links(places(config.ports))
    for one in interfaces.values():
        if not one.vlan:
            yield MacOf(one.name, str(one.mac))
    for place in links.places.values():
        if not place.vlan:
            yield from (AddressOf(place.name, str(address)) for address in addresses_of(place))
    for route in config.route.values():
        way, network = links.way(route), str(route.network)
        if way is not None and (route.nexthop in NOWHERE or way.interface in config.ports):
            yield RouteTo(way.interface, network, str(route.nexthop), cost_of(network, route.pathcost))
    for neighbour in config.arp_table.values():
        if neighbour.interface in config.ports:
            yield NeighbourOf(neighbour.interface, _bare(neighbour.address), neighbour.mac)


def edits(config: RouterConfig, gone: AbstractSet[Fact], come: AbstractSet[Fact]) -> list[Edit]:
    """What was done in the namespace. Routes go before the addresses by which their next hops are reached, and come after them."""
    names = config.ports.keys()
    before = [fact for fact in gone if fact.port in names or not fact.port]
    after = [fact for fact in come if fact.port in names or not fact.port]
    found = [edit for fact in before if not isinstance(fact, AddressOf) for edit in _removed(config, fact, come)]
    for name, port in config.ports.items():
        lost = {fact.address for fact in before if isinstance(fact, AddressOf) and fact.port == name}
        new = sorted(fact.address for fact in after if isinstance(fact, AddressOf) and fact.port == name)
        found += _addresses(port, lost, new)
    links = Links(places(config.ports))
    return found + [edit for fact in after for edit in _added(fact, links)]


def _addresses(port: RouterPort, lost: AbstractSet[str], new: Iterable[str]) -> Iterator[Edit]:
    """The first address is the primary one; an IPv4 address if there is one, since others of IPv4 need it."""
    path = ("ports", port.name)
    known = ([port.ip] if port.ip is not None else []) + list(port.secondaryip)
    kept: list[Address] = [one for one in known if str(one) not in lost]
    wanted = [*kept, *(one for one in map(parse_interface, new) if one not in kept)]
    if wanted == known:
        return
    primary = port.ip if port.ip in wanted else next((one for one in wanted if one.version == 4), next(iter(wanted), None))
    others = [{"ip": str(one)} for one in wanted if one != primary]
    yield Edit(Op.MERGE, path, {"ip": str(primary)}) if primary is not None else Edit(Op.DELETE, (*path, "ip"))
    yield Edit(Op.REPLACE, (*path, "secondaryip"), others)


def _removed(config: RouterConfig, fact: Fact, come: AbstractSet[Fact]) -> Iterator[Edit]:
    if isinstance(fact, RouteTo) and not any(isinstance(one, RouteTo) and one[1:3] == fact[1:3] for one in come):
        if any(str(one.network) == fact.network and str(one.nexthop) == fact.nexthop for one in config.route.values()):
            yield Edit(Op.DELETE, ("route", fact.network, fact.nexthop))
    elif isinstance(fact, NeighbourOf) and not any(isinstance(one, NeighbourOf) and one[:2] == fact[:2] for one in come):
        known = (one for one in config.arp_table.values() if (one.interface, _bare(one.address)) == fact[:2])
        yield from (Edit(Op.DELETE, ("arp-table", str(one.address))) for one in known)


def _added(fact: Fact, links: Links) -> Iterator[Edit]:
    if isinstance(fact, MacOf):
        yield Edit(Op.MERGE, ("ports", fact.port, "mac"), fact.mac)
    elif isinstance(fact, RouteTo):
        near = not fact.port or links.place_of(parse_address(fact.nexthop)) == fact.port
        value = {"pathcost": fact.cost} | ({} if near else {"interface": fact.port})
        yield Edit(Op.REPLACE, ("route", fact.network, fact.nexthop), value)
    elif isinstance(fact, NeighbourOf):
        zone = f"%{fact.port}" if parse_address(fact.address).is_link_local and ":" in fact.address else ""
        yield Edit(Op.REPLACE, ("arp-table", fact.address + zone), {"mac": fact.mac, "interface": fact.port})


def _bare(address: object) -> str:
    return str(address).partition("%")[0]
