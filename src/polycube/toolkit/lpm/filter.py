# SPDX-License-Identifier: Apache-2.0
"""The filter of prefixes of the data plane (lpm_filter.h), written from outside: which levels there are, and where to ask for them.

Mechanism: an array of cache lines, the first of which says how it is to be read. Bits are known by number; those of the levels in use
stand above them. With `counts`, a map, it is known for how many a bit stands, so that it goes with the last one; without, bits stay until
the filter is written as a whole.

Invariant: a bit too many is harmless, so they may come before what they stand for and go after it, at any time.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

LENGTHS = 4  # of a level
DEFAULT = 32  # level of the prefix of no bits
BITS = {4: 32, 6: 128}
MANY = 1000  # then maps are read as a whole
_FIRST = struct.Struct("<QQ8xII16s16s")  # levels in use; number of cells less 1; their count and list in each half of an IPv6 address
_HALF = 16  # levels of half an IPv6 address
_LINE_BITS, _LINE = 512, 64  # bits; bytes
_WORD = (1 << 64) - 1
_LEVELS = 1 << 31  # numbers of bits: levels are above this


class Maps(Protocol):
    """The views of a cube's maps."""

    def __getitem__(self, name: str) -> Any: ...


def lines(bits: int) -> int:
    """Entries of the map for about so many bits."""
    return 1 + _rounded(bits) // _LINE_BITS


def _rounded(bits: int) -> int:
    return max(_LINE_BITS, 1 << bits.bit_length() - 1)


class Filter:
    """The filter of a table of one IP version, with cells of `width` bits."""

    def __init__(self, view: Any, version: int, bits: int, width: int, counts: Any = None) -> None:
        self._view, self._counts, self._width = view, counts, width
        self._version, self._bits = version, BITS[version]
        self._mask = _rounded(bits) // width - 1

    def bit(self, address: int, beyond: int) -> int:
        """`pcn_lpm_cell` of lpm_filter.h, and of its bits the one for a prefix that ends `beyond` the last bits of an address."""
        level = beyond // LENGTHS
        cut = (level + 1) * LENGTHS
        upper, lower = (address >> cut, 0) if self._version == 4 else divmod(address >> cut << cut, 1 << 64)
        mixed = (upper ^ level) * 0xBF58476D1CE4E5B9 & _WORD
        mixed = (mixed ^ mixed >> 32 ^ lower) * 0x94D049BB133111EB & _WORD
        return (mixed >> 32 & self._mask) * self._width + beyond % self._width

    def bits(self, address: int, beyond: int) -> tuple[int, ...]:
        """The bit that a prefix needs, and that of its level. That of no bits needs only the latter."""
        if beyond == self._bits:
            return (_LEVELS + DEFAULT,)
        return self.bit(address, beyond), _LEVELS + beyond // LENGTHS

    def levels(self) -> int:
        """Those in use, the longest in the lowest bit."""
        return self._line(0)

    def __contains__(self, bit: int) -> bool:
        line, at = divmod(bit, _LINE_BITS)
        return bool(self._line(line + 1) >> at & 1)

    def gather(self, bits: Iterable[int], into: dict[int, int]) -> None:
        """Adds bits to lines, which begin empty; of the first one its levels."""
        for bit in bits:
            line, at = (0, bit - _LEVELS) if bit >= _LEVELS else (1 + bit // _LINE_BITS, bit % _LINE_BITS)
            into[line] = into.get(line, 0) | 1 << at

    def add(self, more: Mapping[int, int]) -> None:
        """Sets bits, by lines, one by one: recorded while a change is being made."""
        for line, bits in more.items():
            standing = self._line(line)
            if standing | bits != standing:
                self._view[line] = self._packed(line, standing | bits)

    def add_many(self, more: Mapping[int, int]) -> None:
        """The same at once; not in `apply`."""
        standing = ((int.from_bytes(line, "little"), value) for batch in self._view.batches() for line, value in batch)
        held = {line: _of_line(line, value) for line, value in standing if line in more}
        written = [(line, held[line] | bits) for line, bits in more.items() if held[line] | bits != held[line]]
        self._view.set_many((line.to_bytes(4, "little"), self._packed(line, bits)) for line, bits in written)

    def write(self, wanted: Mapping[int, int]) -> None:
        """Makes the filter hold these lines and nothing else."""
        packed = {0: self._packed(0, 0)} | {line: self._packed(line, bits) for line, bits in wanted.items()}
        for raw, value in self._view.packed_items():
            if any(value) and int.from_bytes(raw, "little") not in packed:
                self._view[raw] = bytes(_LINE)
        for line, value in packed.items():
            if self._view.packed(line) != value:
                self._view[line] = value

    def count(self, by: Mapping[int, int]) -> None:
        """So many more or less for each bit, which comes with the first and goes with the last."""
        changed: dict[int, int] = {}
        known = dict(self._counts.items()) if len(by) > MANY else self._counts
        for bit, more in by.items():
            before = known.get(bit, 0)
            if before + more > 0:
                self._counts[bit] = before + more
            elif before:
                del self._counts[bit]
            if (before > 0) is (before + more > 0):
                continue
            line, at = (0, bit - _LEVELS) if bit >= _LEVELS else (1 + bit // _LINE_BITS, bit % _LINE_BITS)
            value = changed[line] if line in changed else self._line(line)
            changed[line] = value | 1 << at if more > 0 else value & ~(1 << at)
        for line, value in changed.items():
            self._view[line] = self._packed(line, value)

    def recount(self, counts: Mapping[int, int]) -> None:
        """Makes counts and filter those, whatever is there."""
        standing = dict(self._counts.items())
        for bit, number in counts.items():
            if standing.pop(bit, 0) != number:
                self._counts[bit] = number
        for bit in standing:
            del self._counts[bit]
        wanted: dict[int, int] = {}
        self.gather(counts, wanted)
        self.write(wanted)

    def _line(self, line: int) -> int:
        """A line, of the first one its levels."""
        return _of_line(line, self._view.packed(line) or b"")

    def _packed(self, line: int, value: int) -> bytes:
        """The same as the data plane has it, which finds levels by lists."""
        if line:
            return value.to_bytes(_LINE, "little")
        lower, upper = ([level - half for level in range(half, half + _HALF) if value >> level & 1] for half in (0, _HALF))
        return _FIRST.pack(value, self._mask, len(lower), len(upper), bytes(lower), bytes(upper))


def _of_line(line: int, value: bytes) -> int:
    return int.from_bytes(value if line else value[:8], "little")
