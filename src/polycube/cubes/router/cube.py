# SPDX-License-Identifier: Apache-2.0
"""The router's control plane: configuration to maps, state for answers, and the timers of the slow path.

Mechanism: `apply` computes tables by pure functions of the configuration before and after (routes.py, addresses.py) and writes what
differs. A change of routes looks at their networks only, one of addresses compares the tables before and after; only for a new cube, and
where interfaces have other numbers, the table is compared with the maps, whose size is what that costs. What is learnt
lives in `Traffic` and in the maps, from which it is adopted after a restart.

Invariants: configured neighbours and ports are written by `apply` and `facts` only; nothing of them is kept here beside
what can be computed again from the configuration that stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any
from zlib import crc32

from polycube.core.cube import Cube, Packet, PortFacts, every
from polycube.core.mirror import Fact
from polycube.cubes.router import tables
from polycube.cubes.router.addresses import addresses_of, first_ipv4, own_filter, places, problems
from polycube.cubes.router.interface import Interface, interfaces
from polycube.cubes.router.model import LOCAL, Neighbour, RouterConfig
from polycube.cubes.router.neighbour import PERMANENT, Key
from polycube.cubes.router.routes import Links, Selection, differences, local_routes, winners
from polycube.cubes.router.shadow import edits, facts
from polycube.cubes.router.traffic import Traffic
from polycube.model import Diff, Edit, ModelError, Op, PolycubeError, Problem, Tag, key_of, problem, suggest
from polycube.net.addr import Mac, parse_address


class Router(Cube[RouterConfig]):
    """An IPv4 and IPv6 router."""

    config = RouterConfig
    learned = ("neighbours4", "neighbours6")

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._cached: tuple[Any, Any, dict[int, Interface]] | None = None
        self._running: Traffic | None = None
        self._selection: Selection | None = None  # of the routes that were looked at last
        self._aligned: dict[str, int] = {}  # ports whose netdev (an ifindex) has been asked for its address

    @classmethod
    def sizes(cls, config: RouterConfig) -> dict[str, int]:
        neighbours = max(1, config.arp_table_size) * 2  # configured ones come on top
        return tables.sizes(config.route_table_size) | {"neighbours4": neighbours, "neighbours6": neighbours}

    # ---- configuration ----

    def apply(self, change: Diff[RouterConfig]) -> None:
        new = change.new
        if new is None:
            return
        moved = change.old is None or _addresses(change.old) != _addresses(new)
        links = Links(places(new.ports))
        self._check(change, links, moved)
        numbers = self._numbers(new, self.ports)
        if change.old is None:
            self._constants()
        if change.old is None or change.old.ports is not new.ports:
            self._apply_ports(change, numbers)
        if moved:
            self._apply_addresses(change, links, numbers)
            self.maps["filters"][0] = own_filter(links.own)
        else:
            self._apply_routes(change, links, numbers)
        self._apply_neighbours(change, numbers)

    def _numbers(self, config: RouterConfig, ports: Mapping[str, PortFacts]) -> dict[str, int]:
        """What the data plane knows interfaces by."""
        known = ((place, ports.get(place.port.name)) for place in places(config.ports).values())
        return {place.name: place.number(facts.number) for place, facts in known if facts is not None}

    def _constants(self) -> None:
        """What never changes. Routers in a row each have a seed, or the second one would have nothing left to choose from."""
        self.cfg["hash_seed"] = crc32(self.uuid.encode())
        for number, rate in enumerate(tables.rates()):
            self.maps["rates"][number] = rate

    def _apply_ports(self, change: Diff[RouterConfig], numbers: Mapping[str, int]) -> None:
        new, standing = change.new, None
        assert new is not None
        if change.old is not None:
            before, standing = places(change.old.ports), self._numbers(change.old, self.former_ports).values()
            tables.purge_neighbours(self.maps, [number for name, number in numbers.items() if name in before])
        tables.sync_interfaces(self.maps, interfaces(new, self.ports, self.uuid), standing)

    def facts(self, changed: Sequence[str]) -> None:
        if self.current is not None:
            tables.sync_interfaces(self.maps, interfaces(self.current, self.ports, self.uuid), ())

    def _check(self, change: Diff[RouterConfig], links: Links, moved: bool) -> None:
        new = change.new
        assert new is not None
        found = problems(new.ports) if moved or change.old is None or change.old.ports is not new.ports else []
        for route in change.added("route"):
            wrong = links.nonsense(route) if change.created else links.objection(route)
            if wrong:
                found.append(Problem(Tag.INVALID_VALUE, ("route", str(route.network), str(route.nexthop)), wrong))
        for neighbour in [*change.added("arp_table"), *(after for _, after in change.changed("arp_table"))]:
            found += _check_neighbour(neighbour, links)
        found += _check_sizes(new)
        if found:
            raise ModelError(*found)

    def _selected(self, config: RouterConfig, links: Links) -> Selection:
        """The table of a configuration: made again after a change that was taken back, or a restart."""
        known = self._selection
        if known is not None and known.routes is config.route and known.links.places == links.places:
            return known
        return Selection(config.route, links)

    def _apply_addresses(self, change: Diff[RouterConfig], links: Links, numbers: Mapping[str, int]) -> None:
        old, new = change.old, change.new
        assert new is not None
        writer = tables.Writer(self.maps, new.route_table_size, numbers)
        before, after = self._selected(old, Links(places(old.ports))) if old is not None else None, Selection(new.route, links)
        self._selection = after
        if old is None or before is None or self._renumbered(old, links, numbers):
            writer.sync(after.table)
        else:
            writer.change(differences(before.table, after.table), after.table)

    def _renumbered(self, old: RouterConfig, links: Links, numbers: Mapping[str, int]) -> bool:
        """Whether interfaces that stay are not what they were to the data plane."""
        former = self._numbers(old, self.former_ports)
        return any(former.get(name) != numbers.get(name) for name in places(old.ports) if name in links.places)

    def _apply_routes(self, change: Diff[RouterConfig], links: Links, numbers: Mapping[str, int]) -> None:
        old, new = change.old, change.new
        assert old is not None and new is not None
        if old.route is new.route:
            return
        changed = change.changed("route")
        gone = [*change.removed("route"), *(before for before, _ in changed)]
        come = [*change.added("route"), *(after for _, after in changed)]
        self._selection, changes = self._selected(old, links).changed(new.route, gone, come)
        tables.Writer(self.maps, new.route_table_size, numbers).change(changes, self._selection.table)

    def _apply_neighbours(self, change: Diff[RouterConfig], numbers: Mapping[str, int]) -> None:
        old, new = change.old, change.new
        assert new is not None
        if old is not None and old.arp_table is new.arp_table and old.ports is new.ports:
            return
        before = _permanent(old.arp_table.values(), numbers) if old is not None else {}
        after = _permanent(new.arp_table.values(), numbers)
        for key in before.keys() - after.keys():
            tables.remove_neighbour(self.maps, key, permanent=True)
        for key, mac in after.items():
            if before.get(key) != mac or tables.read_neighbour(self.maps, key, configured=True) is None:
                tables.write_neighbour(self.maps, key, mac, permanent=True)

    # ---- life ----

    @property
    def traffic(self) -> Traffic:
        """The slow path."""
        if self._running is None:
            assert self.current is not None
            self._running = Traffic(self, max(1, self.current.arp_table_size))
        return self._running

    @property
    def route_table_size(self) -> int:
        """What the tables of routes were made for."""
        assert self.current is not None
        return self.current.route_table_size

    def interfaces(self) -> Mapping[int, Interface]:
        """Ports and VLANs by number, as they stand."""
        if self.current is None:
            return {}
        if self._cached is None or self._cached[0] is not self.current or self._cached[1] is not self.ports:
            self._cached = (self.current, self.ports, interfaces(self.current, self.ports, self.uuid))
        return self._cached[2]

    async def packet(self, packet: Packet) -> None:
        self.traffic.packet(packet)

    @every(1.0)
    async def tick(self) -> None:
        """Neighbours that are due, announcements, alignment with netdevs."""
        self.traffic.tick()
        await self._align()

    async def _align(self) -> None:
        """A port without addresses takes the first IPv4 prefix of the netdev it is connected to, once for each netdev."""
        assert self.current is not None
        for name, port in self.current.ports.items():
            facts = self.ports.get(name)
            netdev = facts.netdev if facts is not None else None
            if netdev is None or self._aligned.get(name) == netdev.ifindex:
                continue
            address = first_ipv4(netdev.addresses)
            if address is None:
                continue
            self._aligned[name] = netdev.ifindex
            if port.ip is not None or port.secondaryip or port.vlan:
                continue
            try:
                await self.edit([Edit(Op.MERGE, ("ports", name, "ip"), str(address))])
            except PolycubeError as error:
                self.log.warning(f"port {name} does not take the address {address} of {netdev.name}: {error}")

    def netdev(self) -> dict[str, dict[str, Any]]:
        """What ports give to the netdevs they are connected to: what is configured; a netdev may have it already."""
        wanted: dict[str, dict[str, Any]] = {}
        for name, port in self.current.ports.items() if self.current is not None else ():
            facts = self.ports.get(name)
            if facts is None or facts.netdev is None:
                continue
            if port.mac is not None:
                wanted.setdefault(name, {})["mac"] = port.mac
            if port.ip is not None:
                wanted.setdefault(name, {})["addresses"] = [str(port.ip)]
        return wanted

    def shadow(self) -> Iterable[Fact]:
        return facts(self.current, self.interfaces()) if self.current is not None else ()

    def shadowed(self, gone: AbstractSet[Fact], come: AbstractSet[Fact]) -> Sequence[Edit]:
        return edits(self.current, gone, come) if self.current is not None else ()

    # ---- state ----

    def state(self) -> dict[str, Any]:
        current = self.current
        if current is None:
            return {}
        by_number = self.interfaces()
        ports = [{"name": one.name, "mac": str(one.mac), "link-local": str(one.link_local)} for one in by_number.values() if not one.vlan]
        shown = {"ports": ports, "route": self._route_state(current), "arp-table": self._neighbour_state(current, by_number)}
        return shown | {"arp-failures": self.traffic.refused + int(self.maps["learn_failures"].get(0, 0))}

    def _route_state(self, current: RouterConfig) -> list[dict[str, Any]]:
        links = Links(places(current.ports))
        self._selection = selection = self._selected(current, links)
        shown: list[dict[str, Any]] = list(local_routes(links))
        for network, routes in selection.by_network.items():
            used = [] if network in links.entries else winners(routes, links)
            for route in routes:
                entry = {"network": str(network), "nexthop": str(route.nexthop), "active": route in used}
                way = links.way(route) if route.interface is None else None
                shown.append(entry | ({"interface": way.interface} if way is not None and way.interface else {}))
        return shown

    def _neighbour_state(self, current: RouterConfig, by_number: Mapping[int, Interface]) -> list[dict[str, Any]]:
        now = self.traffic.now()
        self.traffic.adopt()
        numbers = {one.name: number for number, one in by_number.items()}
        configured = _permanent(current.arp_table.values(), numbers)
        shown: list[dict[str, Any]] = [
            {"address": str(one.address), "state": str(PERMANENT)} for one in current.arp_table.values() if one.interface in numbers
        ]
        for key, entry in self.traffic.learnt():
            port = by_number.get(key.interface)
            if port is None or key in configured:
                continue
            zone = f"%{port.name}" if key.address.is_link_local and key.address.version == 6 else ""
            shown.append(
                {
                    "address": f"{key.address}{zone}",
                    "mac": str(entry.mac or Mac.ZERO),
                    "interface": port.name,
                    "age": int(max(0.0, now - entry.confirmed)),
                    "state": str(entry.state),
                }
            )
        return shown

    def forget(self, path: str, key: str | tuple[Any, ...] | None) -> bool:
        if path == "route":
            if isinstance(key, tuple) and str(key[-1]) == LOCAL:
                network = str(key[0])
                raise problem(Tag.INVALID_VALUE, ("route", network, LOCAL), "stays: Users can not delete a local route")
            return False
        if path != "arp-table":
            return False
        if key is None:
            return self.traffic.forget(lambda _: True)
        text, _, zone = str(key[0] if isinstance(key, tuple) else key).partition("/")[0].partition("%")
        address = parse_address(text)
        ports = {number for number, one in self.interfaces().items() if not zone or one.name == zone}
        return self.traffic.forget(lambda one: one.address == address and one.interface in ports)


def _addresses(config: RouterConfig) -> dict[str, list[Any]]:
    return {name: list(addresses_of(place)) for name, place in places(config.ports).items()}


def _zone(neighbour: Neighbour) -> str | None:
    return getattr(neighbour.address, "scope_id", None)


def _permanent(neighbours: Iterable[Neighbour], numbers: Mapping[str, int]) -> dict[Key, Mac]:
    """What configured neighbours mean for the data plane: those of interfaces that are there."""
    found = {}
    for one in neighbours:
        if one.interface in numbers:
            address = parse_address(str(one.address).partition("%")[0])
            found[Key(numbers[one.interface], address)] = Mac.parse(one.mac)
    return found


def _check_neighbour(neighbour: Neighbour, links: Links) -> Iterable[Problem]:
    at = ("arp-table", str(key_of(neighbour)))
    address, zone = neighbour.address, _zone(neighbour)
    if neighbour.interface not in links.places:
        yield Problem(Tag.INVALID_VALUE, at, f"is refused: no port {neighbour.interface}{suggest(neighbour.interface, links.places)}")
    if zone and zone != neighbour.interface:
        yield Problem(Tag.INVALID_VALUE, at, f"is refused: zone {zone} is not its interface, {neighbour.interface}")
    if Mac.parse(neighbour.mac).is_multicast or not Mac.parse(neighbour.mac):
        yield Problem(Tag.INVALID_VALUE, (*at, "mac"), f"cannot be {neighbour.mac}: expected the MAC of one host")
    if address.is_multicast or address.is_unspecified or address.is_loopback or address in links.own:
        yield Problem(Tag.INVALID_VALUE, at, f"is refused: expected the address of another host, not {address}")


def _check_sizes(config: RouterConfig) -> Iterable[Problem]:
    """More routes or neighbours than the tables are made for."""
    for version, count in _by_version(route.network.version for route in config.route.values()):
        if count > config.route_table_size:
            message = f"holds {count} IPv{version} routes: route-table-size allows {config.route_table_size}"
            yield Problem(Tag.INVALID_VALUE, ("route",), message)
    for version, count in _by_version(one.address.version for one in config.arp_table.values()):
        if count > config.arp_table_size:
            message = f"holds {count} IPv{version} neighbours: arp-table-size allows {config.arp_table_size}"
            yield Problem(Tag.INVALID_VALUE, ("arp-table",), message)


def _by_version(versions: Iterable[int]) -> list[tuple[int, int]]:
    counted = list(versions)
    return [(version, counted.count(version)) for version in (4, 6)]
