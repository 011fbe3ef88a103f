# SPDX-License-Identifier: Apache-2.0
"""Tables of prefixes that each have a state of their own (lpm_entries.h): what LPM4_IF and LPM6_IF declare, from networks to entries.

Mechanism: two maps. `<name>` holds the prefixes, `<name>_filter` says by bits which lengths there may be around an address. Both are
written through the cube's views: recorded in `apply`, undone with it, and still right after a restart, since nothing is kept here. Bits of
what was removed stay until the filter is renewed as a whole (`refilter`), which suits prefixes that come and go by the hundred thousand.

Invariant: a prefix is found as soon as it and its bits are there, in whatever order they come.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from polycube.net.addr import Address, Network
from polycube.toolkit.lpm.filter import BITS, LENGTHS, Filter, Maps, lines

_KEY = {4: struct.Struct("<I4s"), 6: struct.Struct("<I16s")}
_CELLS = 8  # for each prefix: how seldom two share one; more would not stay in the processor's cache


class EntryTable:
    """One table of one IP version, made for a number of prefixes (that of `sizes`).

    Entries are what the view of the map takes: a dict of fields, a number, or bytes of the right size.
    """

    def __init__(self, maps: Maps, name: str, version: int, prefixes: int) -> None:
        self.version = version
        self._prefixes = maps[name]
        self._filter = Filter(maps[f"{name}_filter"], version, prefixes * _CELLS * LENGTHS, LENGTHS)
        self._key = _KEY[version]
        self._bits = BITS[version]

    @staticmethod
    def sizes(name: str, prefixes: int) -> dict[str, int]:
        """Entries of the maps of a table for so many prefixes: for `Cube.sizes`."""
        return {name: prefixes, f"{name}_filter": lines(prefixes * _CELLS * LENGTHS)}

    def packed(self, network: Network) -> bytes | None:
        """The entry of just this prefix, as the kernel has it, or None."""
        packed: bytes | None = self._prefixes.packed(self._packed(network))
        return packed

    def update(self, table: Mapping[Network, Any]) -> None:
        """Adds prefixes, or changes the entries of those that are there."""
        more: dict[int, int] = {}
        for network, value in table.items():
            self._prefixes[self._packed(network)] = value
            self._filter.gather(self._filter.bits(int(network.network_address), self._bits - network.prefixlen), more)
        self._filter.add(more)

    def remove(self, networks: Iterable[Network]) -> None:
        """Those that are not there don't matter."""
        for network in networks:
            key = self._packed(network)
            if self._prefixes.packed(key) is not None:
                del self._prefixes[key]

    def longest(self, address: Address, counts: Callable[[Any], bool] = lambda value: True) -> tuple[Network, Any] | None:
        """The longest prefix that an address is in and that counts, by the way of the data plane, and its entry."""
        number = int(address)
        levels = self._filter.levels()
        beyond = [at for at in range(self._bits) if levels >> at // LENGTHS & 1 and self._filter.bit(number, at) in self._filter]
        for at in [*beyond, self._bits]:
            masked = (number >> at << at).to_bytes(self._bits // 8, "big")
            value = self._prefixes.get(self._key.pack(self._bits - at, masked))
            if value is not None and counts(value):
                return ipaddress.ip_network((masked, self._bits - at)), value
        return None

    # ---- in bulk: keys and values packed, written at once ----

    def gather(self, keys: Iterable[bytes], lines: dict[int, int]) -> None:
        """Adds what prefixes need of the filter to `lines`, which begin empty and are for `admit`. Reads and writes nothing."""
        for key in keys:
            self._filter.gather(self._filter.bits(int.from_bytes(key[4:], "big"), self._bits - int.from_bytes(key[:4], "little")), lines)

    def admit(self, lines: Mapping[int, int]) -> None:
        """Makes the filter let prefixes through, before `fill` writes them."""
        self._filter.add_many(lines)

    def fill(self, keys: Iterable[bytes], value: bytes) -> None:
        """Writes prefixes. Raises MapFull when there is no room; those before it are written then."""
        self._prefixes.set_many((key, value) for key in keys)

    def drop(self, keys: Iterable[bytes]) -> None:
        """Removes prefixes. Their bits stay, until `refilter`."""
        self._prefixes.delete_many(keys)

    def refilter(self) -> Iterator[None]:
        """Makes the filter that of the prefixes that are there. Goes on for long if they are many, hence in steps."""
        lines: dict[int, int] = {}
        for batch in self._prefixes.batches():
            self.gather((key for key, _ in batch), lines)
            yield
        self._filter.write(lines)

    def _packed(self, network: Network) -> bytes:
        return self._key.pack(network.prefixlen, network.network_address.packed)
