# SPDX-License-Identifier: Apache-2.0
"""From what the engines say to what stands in the maps, and back: the only place that knows the fields of router.h."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

from polycube.core.maps import MapViews
from polycube.cubes.router.interface import Interface
from polycube.cubes.router.neighbour import Key, Seen
from polycube.cubes.router.routes import LENGTH, Entry, Kind
from polycube.net.addr import Address, Mac, Network

Way = tuple[int, Kind, Address | None]  # port, kind, gateway


def route_key(network: Network) -> dict[str, Any]:
    return {"prefixlen": network.prefixlen, "address": network.network_address.packed}


def route_value(entry: Entry, version: int, numbers: Mapping[str, int]) -> dict[str, Any]:
    gateway = entry.gateway.packed if entry.gateway is not None else bytes(LENGTH[version] // 8)
    value = {"port": numbers[entry.port], "kind": int(entry.kind), "gateway": gateway}
    return value | {"connected": int(entry.gateway is None)} if version == 6 else value


def write_routes(maps: MapViews, before: Mapping[Network, Entry], after: Mapping[Network, Entry], numbers: Mapping[str, int]) -> None:
    """The difference of two tables, which may be parts."""
    for network, entry in after.items():
        if before.get(network) != entry and entry.port in numbers:
            maps[f"routes{network.version}"][route_key(network)] = route_value(entry, network.version, numbers)
    for network in before:
        if network not in after:
            del maps[f"routes{network.version}"][route_key(network)]


def sync_routes(maps: MapViews, table: Mapping[Network, Entry], numbers: Mapping[str, int]) -> None:
    """Makes the maps hold this table, whatever is there."""
    for version in (4, 6):
        view = maps[f"routes{version}"]
        there = {(key["prefixlen"], key["address"]): value for key, value in view.items()}
        for network, entry in table.items():
            if network.version != version or entry.port not in numbers:
                continue
            key, value = route_key(network), route_value(entry, version, numbers)
            if there.pop((key["prefixlen"], key["address"]), None) != value:
                view[key] = value
        for length, address in there:
            del view[{"prefixlen": length, "address": address}]


def sync_interfaces(maps: MapViews, wanted: Mapping[int, Interface]) -> None:
    """Writes ports that differ, and empties the slots of those that are gone."""
    view = maps["interfaces"]
    there = dict(view.items())
    for number, one in wanted.items():
        value = one.as_map()
        present = there.get(number)
        if present is None or any(present[name] != field for name, field in value.items()):
            view[number] = value
    for number, value in there.items():
        if number not in wanted and value["up"]:
            view[number] = {}


def lookup(maps: MapViews, target: Address) -> Way | None:
    """What the data plane would do: a lookup of the whole address gives the longest match."""
    found = maps[f"routes{target.version}"].get({"prefixlen": LENGTH[target.version], "address": target.packed})
    if found is None:
        return None
    direct = not found["connected"] if target.version == 6 else any(found["gateway"])
    return found["port"], Kind(found["kind"]), ipaddress.ip_address(found["gateway"]) if direct else None


def neighbour_key(key: Key) -> dict[str, Any]:
    return {"port": key.port, "address": key.address.packed}


def write_neighbour(maps: MapViews, key: Key, mac: Mac, *, permanent: bool = False) -> None:
    """Learnt entries never take the place of configured ones."""
    view, packed = maps[f"neighbours{key.address.version}"], neighbour_key(key)
    if not permanent and (view.get(packed) or {}).get("permanent"):
        return
    view[packed] = {"mac": bytes(mac), "permanent": int(permanent), "used": 0}


def remove_neighbour(maps: MapViews, key: Key, *, permanent: bool = False) -> None:
    """Removes a learnt entry, or a configured one."""
    view, packed = maps[f"neighbours{key.address.version}"], neighbour_key(key)
    present = view.get(packed)
    if present is not None and bool(present["permanent"]) is permanent:
        del view[packed]


def read_neighbour(maps: MapViews, key: Key, *, configured: bool = False) -> Seen | None:
    """What the data plane holds; a configured entry counts only if asked for."""
    found = maps[f"neighbours{key.address.version}"].get(neighbour_key(key))
    if found is None or (found["permanent"] and not configured):
        return None
    return Seen(Mac.from_bytes(found["mac"]), found["used"])


def learnt(maps: MapViews, version: int) -> Iterable[tuple[Key, Seen]]:
    """All entries that are not configured."""
    for key, value in maps[f"neighbours{version}"].items():
        if not value["permanent"]:
            yield Key(key["port"], ipaddress.ip_address(key["address"])), Seen(Mac.from_bytes(value["mac"]), value["used"])


def purge_neighbours(maps: MapViews, ports: Iterable[int]) -> None:
    """Removes all entries of ports other than these."""
    kept = set(ports)
    for version in (4, 6):
        view = maps[f"neighbours{version}"]
        for key in [key for key, _ in view.items() if key["port"] not in kept]:
            del view[key]
