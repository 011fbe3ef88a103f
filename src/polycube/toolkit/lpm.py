# SPDX-License-Identifier: Apache-2.0
"""Tables of prefixes for the data plane's longest-prefix match (lpm.h): what LPM4 and LPM6 declare, as a mapping from networks to values.

Mechanism: three maps. `<name>` holds the prefixes; `<name>_filter` says by bits which lengths there may be around an address;
`<name>_counts` for how many prefixes a bit stands, so that it goes with the last one. All are written through the cube's views: recorded
in `apply`, undone with it, and still right after a restart, since nothing is kept here.

Tables of very many prefixes that come and go together do without counts (`counted=False`): bits of what was removed stay until the filter
is renewed as a whole.

Invariant: a prefix is found as soon as it and its bits are there. A bit too many is harmless, so the order of the writes does not matter.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

from polycube.net.addr import Address, Network

_KEY = {4: struct.Struct("<I4s"), 6: struct.Struct("<I16s")}
_FIRST = struct.Struct("<QQ8xII16s16s")  # levels in use; number of fours less 1; their count and list in each half of an IPv6 address
_BITS = {4: 32, 6: 128}
_LENGTHS = 4  # of a level
_HALF = 16  # levels of half an IPv6 address
_LINE_FOURS, _LINE = 128, 64  # four bits each; bytes
_FOURS = 8  # for each prefix: how seldom two share one; more would not stay in the processor's cache
_WORD = (1 << 64) - 1
_LEVEL_COUNT = 1 << 31  # keys of counts: bits of the filter; of levels above this
MANY = 1000  # prefixes: then the maps are read as a whole
_DEFAULT = 32  # level of the prefix of no bits


class Maps(Protocol):
    """The views of a cube's maps."""

    def __getitem__(self, name: str) -> Any: ...


def sizes(name: str, prefixes: int, *, counted: bool = True) -> dict[str, int]:
    """Entries of the maps of a table for so many prefixes: for `Cube.sizes`."""
    return {name: prefixes, f"{name}_filter": 1 + _fours(prefixes) // _LINE_FOURS, f"{name}_counts": prefixes + 32 if counted else 1}


def _fours(prefixes: int) -> int:
    return max(_LINE_FOURS, 1 << (prefixes * _FOURS).bit_length() - 1)


class PrefixTable:
    """One table of one IP version, made for a number of prefixes (that of `sizes`).

    Values are what the view of the map takes: a dict of fields, a number, or bytes of the right size.
    """

    def __init__(self, maps: Maps, name: str, version: int, prefixes: int, *, counted: bool = True) -> None:
        self.version = version
        self.counted = counted
        self._prefixes, self._filter, self._counts = (maps[f"{name}{suffix}"] for suffix in ("", "_filter", "_counts"))
        self._mask = _fours(prefixes) - 1
        self._key = _KEY[version]
        self._bits = _BITS[version]

    def get(self, network: Network) -> Any:
        """The value of just this prefix, or None."""
        return self._prefixes.get(self._packed(network))

    def packed(self, network: Network) -> bytes | None:
        """The same as the kernel has it."""
        packed: bytes | None = self._prefixes.packed(self._packed(network))
        return packed

    def __contains__(self, network: Network) -> bool:
        return self._packed(network) in self._prefixes

    def __setitem__(self, network: Network, value: Any) -> None:
        self.update({network: value})

    def __delitem__(self, network: Network) -> None:
        self.remove([network])

    def update(self, table: Mapping[Network, Any]) -> None:
        """Adds prefixes, or changes the values of those that are there."""
        counted: dict[int, int] = {}
        known = dict(self._prefixes.packed_items()) if len(table) > MANY else None
        for network, value in table.items():
            key = self._packed(network)
            if (self._prefixes.packed(key) is None) if known is None else key not in known:
                for bit in self._bits_of(network):
                    counted[bit] = counted.get(bit, 0) + 1
            self._prefixes[key] = value
        self._count(counted)

    def remove(self, networks: Iterable[Network]) -> None:
        """Those that are not there don't matter."""
        counted: dict[int, int] = {}
        for network in networks:
            key = self._packed(network)
            if self._prefixes.packed(key) is None:
                continue
            del self._prefixes[key]
            for bit in self._bits_of(network):
                counted[bit] = counted.get(bit, 0) - 1
        self._count(counted)

    def items(self) -> Iterator[tuple[Network, Any]]:
        """All prefixes."""
        for key, value in self._prefixes.items():
            yield self._network(key["address"], key["len"]), value

    def longest(self, address: Address, counts: Callable[[Any], bool] = lambda value: True) -> tuple[Network, Any] | None:
        """The longest prefix that an address is in and that counts, by the way of the data plane, and its value."""
        number = int(address)
        levels = self._line(0)
        beyond = [at for at in range(self._bits) if levels >> at // _LENGTHS & 1 and self._is_set(self._bit(number, at))]
        for at in [*beyond, self._bits]:
            masked = (number >> at << at).to_bytes(self._bits // 8, "big")
            value = self._prefixes.get(self._key.pack(self._bits - at, masked))
            if value is not None and counts(value):
                return self._network(masked, self._bits - at), value
        return None

    def sync(self, table: Mapping[Network, Any]) -> None:
        """Makes the maps hold this table, whatever is there; writes only what differs."""
        counts: dict[int, int] = {}
        there = dict(self._prefixes.packed_items())
        for network, value in table.items():
            key, packed = self._packed(network), self._prefixes.pack(value)
            if there.pop(key, None) != packed:
                self._prefixes[key] = packed
            for bit in self._bits_of(network):
                counts[bit] = counts.get(bit, 0) + 1
        for key in there:
            del self._prefixes[key]
        standing = dict(self._counts.items())
        for bit, number in counts.items() if self.counted else ():
            if standing.pop(bit, 0) != number:
                self._counts[bit] = number
        for bit in standing:
            del self._counts[bit]
        self._write_filter(self._lines(counts))

    def clear(self) -> None:
        self.sync({})

    # ---- in bulk, of tables without counts: keys and values packed, written at once ----

    def gather(self, keys: Iterable[bytes], lines: dict[int, int]) -> None:
        """Adds what prefixes need of the filter to `lines`, which begin empty and are for `admit`. Reads and writes nothing."""
        for line, bits in self._lines({bit for key in keys for bit in self._bits_at(*self._number(key))}).items():
            lines[line] = lines.get(line, 0) | bits

    def admit(self, lines: Mapping[int, int]) -> None:
        """Makes the filter let prefixes through, before `fill` writes them."""
        standing = ((int.from_bytes(line, "little"), value) for batch in self._filter.batches() for line, value in batch)
        held = {line: _of_line(line, value) for line, value in standing if line in lines}
        more = [(line, held[line] | bits) for line, bits in lines.items() if held[line] | bits != held[line]]
        self._filter.set_many((line.to_bytes(4, "little"), self._line_of(line, bits)) for line, bits in more)

    def fill(self, keys: Iterable[bytes], value: bytes) -> None:
        """Writes prefixes. Raises MapFull when there is no room; those before it are written then."""
        self._prefixes.set_many((key, value) for key in keys)

    def drop(self, keys: Iterable[bytes]) -> None:
        """Removes prefixes. Their bits stay, until `refilter`."""
        self._prefixes.delete_many(keys)

    def refilter(self) -> Iterator[None]:
        """Makes the filter that of the prefixes that are there. Goes on for long if they are many, hence in steps."""
        lines: dict[int, int] = {0: 0}
        for batch in self._prefixes.batches():
            self.gather((key for key, _ in batch), lines)
            yield
        self._write_filter(lines)

    # ---- below ----

    def _set(self, bits: Iterable[int]) -> None:
        for line, more in self._lines(bits).items():
            standing = self._line(line)
            if standing | more != standing:
                self._filter[line] = self._line_of(line, standing | more)

    def _number(self, key: bytes) -> tuple[int, int]:
        return int.from_bytes(key[:4], "little"), int.from_bytes(key[4:], "big")

    def _lines(self, bits: Iterable[int]) -> dict[int, int]:
        """Lines of the filter with these bits; of the first one its levels."""
        lines: dict[int, int] = {0: 0}
        for bit in bits:
            if bit >= _LEVEL_COUNT:
                lines[0] |= 1 << bit - _LEVEL_COUNT
            else:
                line, at = divmod(bit, _LINE_FOURS * 4)
                lines[line + 1] = lines.get(line + 1, 0) | 1 << at
        return lines

    def _write_filter(self, lines: Mapping[int, int]) -> None:
        """Makes the filter hold these lines and nothing else."""
        wanted = {line: self._line_of(line, value) for line, value in lines.items()}
        for raw, value in self._filter.packed_items():
            if any(value) and int.from_bytes(raw, "little") not in wanted:
                self._filter[raw] = bytes(_LINE)
        for line, value in wanted.items():
            if self._filter.packed(line) != value:
                self._filter[line] = value

    def _count(self, by: Mapping[int, int]) -> None:
        """So many prefixes more or less for each bit, which comes with the first and goes with the last."""
        if not self.counted:
            self._set({bit for bit, more in by.items() if more > 0})
            return
        lines: dict[int, int] = {}
        known = dict(self._counts.items()) if len(by) > MANY else self._counts
        for bit, more in by.items():
            before = known.get(bit, 0)
            if before + more > 0:
                self._counts[bit] = before + more
            else:
                del self._counts[bit]
            if before and before + more > 0:
                continue
            line, at = (0, bit - _LEVEL_COUNT) if bit >= _LEVEL_COUNT else (1 + bit // (_LINE_FOURS * 4), bit % (_LINE_FOURS * 4))
            value = lines[line] if line in lines else self._line(line)
            lines[line] = value | 1 << at if more > 0 else value & ~(1 << at)
        for line, value in lines.items():
            self._filter[line] = self._line_of(line, value)

    def _line(self, line: int) -> int:
        """A line of the filter, of the first one its levels."""
        return _of_line(line, self._filter.packed(line) or b"")

    def _line_of(self, line: int, value: int) -> bytes:
        """The same as the data plane has it, which finds levels by lists."""
        if line:
            return value.to_bytes(_LINE, "little")
        lower, upper = ([level - half for level in range(half, half + _HALF) if value >> level & 1] for half in (0, _HALF))
        return _FIRST.pack(value, self._mask, len(lower), len(upper), bytes(lower), bytes(upper))

    def _bits_of(self, network: Network) -> tuple[int, ...]:
        return self._bits_at(network.prefixlen, int(network.network_address))

    def _bits_at(self, length: int, address: int) -> tuple[int, ...]:
        """The bit of the filter that a prefix needs, and that of its level."""
        if not length:
            return (_LEVEL_COUNT + _DEFAULT,)
        beyond = self._bits - length
        return self._bit(address, beyond), _LEVEL_COUNT + beyond // _LENGTHS

    def _bit(self, address: int, beyond: int) -> int:
        """`pcn_lpm_lengths` of lpm.h, and the bit among the four."""
        level = beyond // _LENGTHS
        cut = (level + 1) * _LENGTHS
        upper, lower = (address >> cut, 0) if self.version == 4 else divmod(address >> cut << cut, 1 << 64)
        mixed = (upper ^ level) * 0xBF58476D1CE4E5B9 & _WORD
        mixed = (mixed ^ mixed >> 32 ^ lower) * 0x94D049BB133111EB & _WORD
        return (mixed >> 32 & self._mask) * 4 + beyond % _LENGTHS

    def _is_set(self, bit: int) -> bool:
        line, at = divmod(bit, _LINE_FOURS * 4)
        return bool(int.from_bytes(self._filter.packed(line + 1) or b"", "little") >> at & 1)

    def _packed(self, network: Network) -> bytes:
        return self._key.pack(network.prefixlen, network.network_address.packed)

    def _network(self, address: bytes, length: int) -> Network:
        return ipaddress.ip_network((address, length))


def _of_line(line: int, value: bytes) -> int:
    return int.from_bytes(value if line else value[:8], "little")
