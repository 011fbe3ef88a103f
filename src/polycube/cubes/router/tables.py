# SPDX-License-Identifier: Apache-2.0
"""From what the engines say to what stands in the maps, and back: the only place that knows the fields of router.h."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from polycube.cubes.router.interface import Interface
from polycube.cubes.router.neighbour import Key, Seen
from polycube.cubes.router.routes import LENGTH, PATHS, Change, Entry, Kind, Path
from polycube.net.addr import Address, Mac, Network
from polycube.toolkit import maglev, tokenbucket
from polycube.toolkit.lpm import Maps, PrefixTable

Way = tuple[int, Kind, Address | None]  # interface, kind, gateway
LOCAL_ROUTES = 4096  # those of the ports' addresses come on top of what may be configured
SLOTS = 256  # ROUTER_SLOTS
NO_PATH = {"interface": 0xFFFFFFFF}


def routes_of(maps: Maps, version: int, size: int) -> PrefixTable:
    """The table of the data plane."""
    return PrefixTable(maps, f"routes{version}", version, size + LOCAL_ROUTES)


def sizes(routes: int) -> dict[str, int]:
    """Entries of the maps for so many configured routes."""
    return PrefixTable.sizes("routes4", routes + LOCAL_ROUTES) | PrefixTable.sizes("routes6", routes + LOCAL_ROUTES)


class Writer:
    """Writes routes, and the groups of next hops that several of them share.

    Order: a group is there before the first route that refers to it, and goes after the last one.
    """

    def __init__(self, maps: Maps, size: int, numbers: Mapping[str, int]) -> None:
        self._maps, self._numbers = maps, numbers
        self._tables = {version: routes_of(maps, version, size) for version in (4, 6)}
        self._packed: dict[tuple[int, Entry], bytes] = {}
        self._groups: dict[bytes, int] | None = None

    def sync(self, table: Mapping[Network, Entry]) -> None:
        """Makes the maps hold this table, whatever is there."""
        for version in (4, 6):
            mine = ((network, entry) for network, entry in table.items() if network.version == version and self._is_known(entry))
            self._tables[version].sync({network: self._value(version, entry) for network, entry in mine})
        self._forget_groups(table.values())

    def change(self, changes: Sequence[Change], after: Mapping[Network, Entry]) -> None:
        """Writes what has changed, and leads to a table."""
        for version in (4, 6):
            values = (
                (network, None if entry is None or not self._is_known(entry) else self._value(version, entry))
                for network, _, entry in changes
                if network.version == version
            )
            self._tables[version].change(values)
        if any(entry is not None and entry.kind is Kind.MULTIPATH for _, entry, _ in changes):
            self._forget_groups(after.values())

    def _is_known(self, entry: Entry) -> bool:
        """Whether the data plane has its interface."""
        return not entry.interface or entry.interface in self._numbers

    def _value(self, version: int, entry: Entry) -> bytes:
        packed = self._packed.get((version, entry))
        if packed is None:
            value = {"kind": int(entry.kind), "interface": self._numbers.get(entry.interface, 0)}
            if entry.kind is Kind.MULTIPATH:
                value["group"] = self._group(entry.paths)
            gateway = entry.gateway.packed if entry.gateway is not None else bytes(LENGTH[version] // 8)
            direct = {"connected": int(entry.gateway is None)} if version == 6 else {}
            packed = self._tables[version].pack(value | {"gateway": gateway} | direct)
            self._packed[version, entry] = packed
        return packed

    def _group(self, paths: Sequence[Path]) -> int:
        """The number of a group, which is made if there is none like it."""
        view, packed = self._maps["groups"], self._maps["groups"].pack(group(paths, self._numbers))
        if self._groups is None:
            self._groups = {value: int.from_bytes(key, "little") for key, value in view.packed_items()}
        number = self._groups.get(packed)
        if number is None:
            taken = set(self._groups.values())
            number = next(one for one in range(len(taken) + 1) if one not in taken)
            self._groups[packed] = number
            view[number] = packed
        return number

    def _forget_groups(self, entries: Iterable[Entry]) -> None:
        view = self._maps["groups"]
        used = {view.pack(group(paths, self._numbers)) for paths in {entry.paths for entry in entries if entry.kind is Kind.MULTIPATH}}
        for key, value in list(view.packed_items()):
            if value not in used:
                del view[key]


def group(paths: Sequence[Path], numbers: Mapping[str, int]) -> dict[str, Any]:
    """The value of the map `groups`: a flow's slot says its path, and few flows move when paths come and go."""
    known = [(numbers[name], gateway) for name, gateway in paths if name in numbers]
    slots = maglev.table({f"{number} {gateway}": 1 for number, gateway in known}, SLOTS)
    shown = [{"interface": number, "gateway": gateway.packed.ljust(16, b"\0")} for number, gateway in known]
    return {"slots": bytes(min(slot, 0xFF) for slot in slots), "paths": shown + [NO_PATH] * (PATHS - len(known))}


def sync_interfaces(maps: Maps, wanted: Mapping[int, Interface], standing: Iterable[int] | None = None) -> None:
    """Writes interfaces that differ, and takes away those that are gone. `standing`: numbers of those there may be; None: any."""
    for name, is_vlan in (("interfaces", False), ("subinterfaces", True)):
        view = maps[name]
        mine = {number: one for number, one in wanted.items() if bool(one.vlan) is is_vlan}
        if standing is None:
            there = {int.from_bytes(key, "little"): value for key, value in view.packed_items()}
        else:
            asked = {*mine, *(number for number in standing if bool(number >> 16) is is_vlan)}
            there = {number: value for number in asked if (value := view.packed(number)) is not None}
        for number, one in mine.items():
            packed = view.pack(one.as_map())
            if there.pop(number, None) != packed:
                view[number] = packed
        for number, value in there.items():
            if any(value):
                del view[number]


def lookup(maps: Maps, target: Address, size: int, path: int | None = None) -> Way | None:
    """What the data plane would do. `path`: the one that it chose, of several."""
    found = routes_of(maps, target.version, size).longest(target)
    if found is None:
        return None
    value, kind = found[1], Kind(found[1]["kind"])
    if kind is Kind.MULTIPATH:
        chosen = (maps["groups"].get(value["group"]) or {"paths": [NO_PATH]})["paths"][path or 0]
        if chosen["interface"] == NO_PATH["interface"]:
            return None
        return chosen["interface"], Kind.UNICAST, ipaddress.ip_address(chosen["gateway"][: LENGTH[target.version] // 8])
    direct = value["connected"] if target.version == 6 else not any(value["gateway"])
    return value["interface"], kind, None if direct else ipaddress.ip_address(value["gateway"])


def rates() -> list[dict[str, int]]:
    """The value of the map `rates`: what a port may hand up of each class (enum router_class), a second and at once."""
    return [tokenbucket.rate(*limit) for limit in ((200, 100), (1000, 500), (1000, 500), (1000, 500))]


def neighbour_key(key: Key) -> dict[str, Any]:
    return {"interface": key.interface, "address": key.address.packed}


def write_neighbour(maps: Maps, key: Key, mac: Mac, *, permanent: bool = False) -> None:
    """Learnt entries never take the place of configured ones."""
    view, packed = maps[f"neighbours{key.address.version}"], neighbour_key(key)
    if not permanent and (view.get(packed) or {}).get("permanent"):
        return
    view[packed] = {"mac": bytes(mac), "permanent": int(permanent), "used": 0}


def remove_neighbour(maps: Maps, key: Key, *, permanent: bool = False) -> None:
    """Removes a learnt entry, or a configured one."""
    view, packed = maps[f"neighbours{key.address.version}"], neighbour_key(key)
    present = view.get(packed)
    if present is not None and bool(present["permanent"]) is permanent:
        del view[packed]


def read_neighbour(maps: Maps, key: Key, *, configured: bool = False) -> Seen | None:
    """What the data plane holds; a configured entry counts only if asked for."""
    found = maps[f"neighbours{key.address.version}"].get(neighbour_key(key))
    if found is None or (found["permanent"] and not configured):
        return None
    return Seen(Mac.from_bytes(found["mac"]), found["used"])


def learnt(maps: Maps, version: int) -> Iterable[tuple[Key, Seen]]:
    """All entries that are not configured."""
    for key, value in maps[f"neighbours{version}"].items():
        if not value["permanent"]:
            yield Key(key["interface"], ipaddress.ip_address(key["address"])), Seen(Mac.from_bytes(value["mac"]), value["used"])


def purge_neighbours(maps: Maps, interfaces: Iterable[int]) -> None:
    """Removes all entries of interfaces other than these."""
    kept = set(interfaces)
    for version in (4, 6):
        view = maps[f"neighbours{version}"]
        for key in [key for key, _ in view.items() if key["interface"] not in kept]:
            del view[key]
