# SPDX-License-Identifier: Apache-2.0
"""Tables of prefixes that share values (lpm_blocks.h): what LPM4 and LPM6 declare, as a mapping from networks to values.

Mechanism: `<name>` holds blocks of prefixes that are neighbours, with the numbers of their values; `<name>_values` has these, and
`<name>_numbers` finds the number of a value, and for how many prefixes it is used; `<name>_filter` says which blocks there may be around an
address, and `<name>_counts` for how many a bit of it stands. All are written through the cube's views: recorded in `apply`, undone with it,
and still right after a restart, since nothing is kept here.

Invariant: the order of writes is values, blocks, bits, and the other way round for what goes. So a prefix that stays is found at any
time, with its old value or its new one. A value that nobody uses stands on, until its number is given to another one.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from zlib import crc32

from polycube.net.addr import Address, Network
from polycube.toolkit.lpm.filter import BITS, LENGTHS, MANY, Filter, Maps, lines

_PLACE = {4: struct.Struct("<II"), 6: struct.Struct("<QQQ")}  # struct pcn_lpm4_place, pcn_lpm6_place
_PLACES = 30
_BLOCK = struct.Struct(f"<{_PLACES}I")  # struct pcn_lpm_block
_USE = struct.Struct("<II")  # struct pcn_lpm_use
_FILTER_BITS = 16  # for each prefix: how seldom two blocks share one; more would not stay in the processor's cache
_TAKEN = (1).to_bytes(4, "little")
_FIRST = (0, 16, 24, 28)  # place of the prefixes of four bits, of three, ...
_EMPTY = (0,) * _PLACES
_HALF = (1 << 64) - 1


class PrefixTable:
    """One table of one IP version, made for a number of prefixes (that of `sizes`).

    Values are what the view of the map takes, a dict of fields, a number or bytes; or what `pack` made of them.
    """

    def __init__(self, maps: Maps, name: str, version: int, prefixes: int) -> None:
        self.version = version
        self._blocks, self._values, self._numbers = (maps[f"{name}{suffix}"] for suffix in ("", "_values", "_numbers"))
        self._filter = Filter(maps[f"{name}_filter"], version, prefixes * _FILTER_BITS, 1, maps[f"{name}_counts"])
        self._room = self.sizes(name, prefixes)[f"{name}_values"] - 1
        self._bits = BITS[version]

    @staticmethod
    def sizes(name: str, prefixes: int) -> dict[str, int]:
        """Entries of the maps of a table for so many prefixes: for `Cube.sizes`."""
        values = 2 * prefixes + 1  # a change may replace all, and 0 is none
        return {
            name: prefixes,
            f"{name}_values": values,
            f"{name}_filter": lines(prefixes * _FILTER_BITS),
            f"{name}_numbers": values,
            f"{name}_counts": prefixes + 32,
        }

    def pack(self, value: Any) -> bytes:
        """A value as the kernel has it: to give the same one to many prefixes."""
        packed: bytes = self._values.pack({"taken": 1, "value": value})
        return packed

    def get(self, network: Network) -> Any:
        """The value of just this prefix, or None."""
        key, place = self._place(network)
        return self._value(self._numbers_of(self._blocks.packed(key))[place])

    def __contains__(self, network: Network) -> bool:
        return self.get(network) is not None

    def __setitem__(self, network: Network, value: Any) -> None:
        self.update({network: value})

    def __delitem__(self, network: Network) -> None:
        self.remove([network])

    def update(self, table: Mapping[Network, Any]) -> None:
        """Adds prefixes, or changes the values of those that are there."""
        self.change(table.items())

    def change(self, entries: Iterable[tuple[Network, Any]]) -> None:
        """New values of prefixes, each of them once; None: it goes."""
        table = list(entries)
        if not table:
            return
        known = dict(self._blocks.packed_items()) if len(table) > MANY else None
        numbers, more = self._numbered(value for _, value in table)
        blocks: dict[bytes, tuple[bytes | None, list[int]]] = {}
        gone: dict[int, int] = {}
        for (network, _), number in zip(table, numbers, strict=True):
            key, place = self._place(network)
            found = blocks.get(key)
            if found is None:
                standing = self._blocks.packed(key) if known is None else known.get(key)
                found = blocks[key] = standing, list(self._numbers_of(standing))
            block = found[1]
            if block[place]:
                gone[block[place]] = gone.get(block[place], 0) + 1
            block[place] = number
        counted: dict[int, int] = {}
        for key, (standing, block) in blocks.items():
            if any(block):
                self._blocks[key] = _BLOCK.pack(*block)
            elif standing is not None:
                del self._blocks[key]
            by = any(block) - (standing is not None)
            for bit in self._bits_of(key) if by else ():
                counted[bit] = counted.get(bit, 0) + by
        self._filter.count(counted)
        self._count_values(more, gone)

    def remove(self, networks: Iterable[Network]) -> None:
        """Those that are not there don't matter."""
        self.change((network, None) for network in set(networks))

    def items(self) -> Iterator[tuple[Network, Any]]:
        """All prefixes."""
        known: dict[int, Any] = {}
        for key, block in self._blocks.packed_items():
            for place, number in enumerate(_BLOCK.unpack(block)):
                if number:
                    if number not in known:
                        known[number] = self._value(number)
                    yield self._network(key, place), known[number]

    def longest(self, address: Address) -> tuple[Network, Any] | None:
        """The longest prefix that an address is in, by the way of the data plane, and its value."""
        number, levels = int(address), self._filter.levels()
        for level in range(self._bits // LENGTHS):
            if not levels >> level & 1 or self._filter.bit(number, level * LENGTHS) not in self._filter:
                continue
            found = self._longest(self._key(number, level), number >> level * LENGTHS)
            if found is not None:
                return found
        return self._longest(self._key(0, self._bits // LENGTHS), 0)

    def _longest(self, key: bytes, bits: int) -> tuple[Network, Any] | None:
        numbers = self._numbers_of(self._blocks.packed(key))
        for place in (_at(bits % 16 >> beyond, beyond) for beyond in range(LENGTHS)):
            if numbers[place]:
                return self._network(key, place), self._value(numbers[place])
        return None

    def sync(self, table: Mapping[Network, Any]) -> None:
        """Makes the maps hold this table, whatever is there; writes only what differs."""
        standing = dict(self._blocks.packed_items())
        there = dict(standing)
        numbers, used = self._numbered(table.values())
        wanted: dict[bytes, list[int]] = {}
        for network, number in zip(table, numbers, strict=True):
            key, place = self._place(network)
            wanted.setdefault(key, list(_EMPTY))[place] = number
        for key, block in wanted.items():
            packed = _BLOCK.pack(*block)
            if there.pop(key, None) != packed:
                self._blocks[key] = packed
        for key in there:
            del self._blocks[key]
        counts: dict[int, int] = {}
        for key in wanted:
            for bit in self._bits_of(key):
                counts[bit] = counts.get(bit, 0) + 1
        self._filter.recount(counts)
        for value, use in list(self._numbers.packed_items()):
            number, before = _USE.unpack(use)
            self._use(value, number, before, used.pop(value, (number, 0))[1])
        for value, (number, prefixes) in used.items():
            self._use(value, number, 0, prefixes)
        taken = [(raw, value) for raw, value in self._values.packed_items() if value[:4] == _TAKEN] if standing else []
        for raw, value in taken:  # of a change that was cut off
            if (self._numbers.packed(value) or b"")[:4] != raw:
                self._values[raw] = bytes(4) + value[4:]

    def clear(self) -> None:
        self.sync({})

    # ---- below ----

    def _numbered(self, values: Iterable[Any]) -> tuple[list[int], dict[bytes, tuple[int, int]]]:
        """The numbers of values, 0 of None; new ones are written. And how many times there is each value, with its number."""
        numbers: list[int] = []
        found: dict[bytes, tuple[int, int]] = {}
        size = len(self._values.pack({}))
        for value in values:
            if value is None:
                numbers.append(0)
                continue
            packed = value if isinstance(value, bytes) and len(value) == size else self.pack(value)
            number, count = found.get(packed) or (self._number(packed), 0)
            found[packed] = number, count + 1
            numbers.append(number)
        return numbers, found

    def _number(self, packed: bytes) -> int:
        """That of a value. A new one is put where there is room, beginning anywhere."""
        use = self._numbers.packed(packed)
        if use is not None:
            return int(_USE.unpack(use)[0])
        start = crc32(packed)
        for step in range(self._room):
            number = 1 + (start + step) % self._room
            if (self._values.packed(number) or b"")[:4] != _TAKEN:
                self._values[number] = packed
                return number
        raise RuntimeError(f"no room for another value among {self._room}")

    def _count_values(self, more: Mapping[bytes, tuple[int, int]], gone: Mapping[int, int]) -> None:
        """Values that so many more prefixes have, and numbers that so many no longer have."""
        values = {value: number for value, (number, _) in more.items()}
        values |= {self._values.packed(number): number for number in gone}
        for value, number in values.items():
            use = self._numbers.packed(value)
            before = _USE.unpack(use)[1] if use is not None else 0
            self._use(value, number, before, before + more.get(value, (0, 0))[1] - gone.get(number, 0))

    def _use(self, value: bytes, number: int, before: int, prefixes: int) -> None:
        if prefixes == before:
            return
        if prefixes:
            self._numbers[value] = _USE.pack(number, prefixes)
            return
        del self._numbers[value]
        self._values[number] = bytes(4) + value[4:]  # a packet may have the number in hand

    def _value(self, number: int) -> Any:
        return self._values.get(number)["value"] if number else None

    @staticmethod
    def _numbers_of(block: bytes | None) -> tuple[int, ...]:
        return _EMPTY if block is None else _BLOCK.unpack(block)

    def _key(self, address: int, level: int) -> bytes:
        cut = (level + 1) * LENGTHS
        above = address >> cut << cut
        return _PLACE[4].pack(above, level) if self.version == 4 else _PLACE[6].pack(above >> 64, above & _HALF, level)

    def _of_key(self, key: bytes) -> tuple[int, int]:
        """Address and level of a block."""
        *halves, level = _PLACE[self.version].unpack(key)
        return (halves[0] if self.version == 4 else halves[0] << 64 | halves[1]), level

    def _bits_of(self, key: bytes) -> tuple[int, ...]:
        """Those of the filter that a block needs."""
        address, level = self._of_key(key)
        return self._filter.bits(address, level * LENGTHS)

    def _place(self, network: Network) -> tuple[bytes, int]:
        """The block of a prefix, and the place in it."""
        address, beyond = int(network.network_address), self._bits - network.prefixlen
        return self._key(address, beyond // LENGTHS), _at(address >> beyond, beyond % LENGTHS)

    def _network(self, key: bytes, place: int) -> Network:
        address, level = self._of_key(key)
        beyond, bits = next((beyond, place - first) for beyond, first in reversed(list(enumerate(_FIRST))) if place >= first)
        past = level * LENGTHS + beyond
        return ipaddress.ip_network(((address | bits << past).to_bytes(self._bits // 8, "big"), self._bits - past))


def _at(bits: int, beyond: int) -> int:
    """The place of a prefix in its block: by how many bits less than the level's it has, and these."""
    return _FIRST[beyond] + (bits & 15 >> beyond)
