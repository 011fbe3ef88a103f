# SPDX-License-Identifier: Apache-2.0
"""The bytes of classify.h: what a table means for the maps of one of its sides."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from polycube.toolkit.classify.rule import ADDRESS_BITS, NUMBER_BITS, Space
from polycube.toolkit.classify.table import SLOTS, Dirty, Entry, Table
from polycube.toolkit.lpm import packed_rule

ROW_WORDS, SPARSE = 64, 4
WAYS = 4  # IPv4 flows in an entry of cls_flows
MIXED = 0x80000000
SPACES = len(Space)

Write = tuple[bytes, bytes | None]  # key and value, None: delete

_PAGE = struct.Struct("<256I")
_CLASS_KEY = struct.Struct("<II")
_ROW_KEY = struct.Struct("<IIQ")
_ROW = struct.Struct("<64Q")
_VECTOR = struct.Struct(f"<{SLOTS // 64}Q")
_RULE = struct.Struct("<BBHIII")
_TABLE = struct.Struct("<7I")
_U32 = struct.Struct("<I")
_DIGITS = bytes.maketrans(b"\0\1", b"01")
RULE_SIZE = _RULE.size

# Of the maps whose entries come and go: to which side a key belongs
SIDE_OF_KEY: Mapping[str, Callable[[bytes], int]] = {
    "cls_hosts": lambda key: _U32.unpack_from(key)[0] // SPACES,
    "cls_prefixes": lambda key: _U32.unpack_from(key, 4)[0] // SPACES,
    "cls_pages": lambda key: _U32.unpack_from(key)[0],
    "cls_classes": lambda key: _U32.unpack_from(key)[0] if any(key) else -1,
    "cls_rows": lambda key: _U32.unpack_from(key)[0] if any(key) else -1,
}


def flow_sets(flows: int) -> int:
    """Entries of cls_flows that so many flows need: a power of two, or 0."""
    return 1 << (-(-flows // WAYS) - 1).bit_length() if flows else 0


def u32(number: int) -> bytes:
    """The key of an array."""
    return _U32.pack(number)


def counter_of(value: bytes) -> int:
    """The counter of a rule in cls_rules."""
    return int(_RULE.unpack(value)[3])


@dataclass(slots=True)
class Side:
    """One of the two in the kernel."""

    number: int  # table * 2 + 0 or 1
    rows: dict[int, frozenset[int]] = field(default_factory=dict)  # of the dense classes there
    tops: dict[Space, list[int]] = field(default_factory=dict)

    def writes(self, table: Table, dirty: Dirty) -> dict[str, list[Write]]:
        """What brings the side up to date with what is dirty, by map."""
        return {
            "cls_rules": [self._rule(self.number * table.limit + slot, table.by_slot.get(slot)) for slot in dirty.slots],
            "cls_bases": [self._base(space, table.base[space]) for space in dirty.bases],
            **self._addresses(table, dirty),
            **self._numbers(table, dirty),
            **self._classes(table, dirty),
        }

    def forget(self) -> None:
        """What is there is not known any more."""
        self.rows.clear()
        self.tops.clear()

    def header(self, table: Table, fallback: int, flows: int) -> tuple[str, list[Write]]:
        """The entry of cls_sides. `flows`: IPv4 flows to be remembered, a power of two; 0: none."""
        hosts = prefixes = 0
        for space, one in table.addresses.items():
            hosts |= bool(one.lengths.get(one.width)) << space
            prefixes |= any(count for length, count in one.lengths.items() if length != one.width) << space
        rows = -(-(1 + (table.entries[-1].slot if table.entries else -1)) // (ROW_WORDS * 64))
        return "cls_sides", [
            (_U32.pack(self.number), _TABLE.pack(table.dims, hosts, prefixes, rows, fallback, flow_sets(flows), self.number * table.limit))
        ]

    def _rule(self, at: int, entry: Entry | None) -> Write:
        key = _U32.pack(at)
        if entry is None:
            return key, bytes(_RULE.size)
        one = entry.rule.result
        return key, _RULE.pack(one.action, one.flags, one.data, entry.counter, one.expires, one.limit)

    def _base(self, space: Space, vector: int) -> Write:
        words = vector.to_bytes(SLOTS // 8, "little")
        return self._index(space), _any(vector) + words

    def _index(self, space: Space) -> bytes:
        return _U32.pack(self.number * SPACES + space)

    def _addresses(self, table: Table, dirty: Dirty) -> dict[str, list[Write]]:
        found: dict[str, list[Write]] = {"cls_hosts": [], "cls_prefixes": []}
        for space, element in dirty.hosts:
            one = table.addresses[space].where.get(element)
            value = _U32.pack(one.number) if one is not None else None
            key = self._index(space) + _address(space, element[0])
            if element[1] == ADDRESS_BITS[space]:
                found["cls_hosts"].append((key, value))
            else:
                found["cls_prefixes"].append((packed_rule(self.number * SPACES + space, element[1], _address(space, element[0])), value))
        return found

    def _numbers(self, table: Table, dirty: Dirty) -> dict[str, list[Write]]:
        pages: list[Write] = []
        touched = {space for space, _ in dirty.pages}
        for space, upper in dirty.pages:
            classes = table.numbers[space].page(upper)
            top = self.tops.setdefault(space, [0] * 256)
            if NUMBER_BITS[space] == 8:
                self.tops[space] = [classes] * 256 if isinstance(classes, int) else list(classes)
                continue
            key = _CLASS_KEY.pack(self.number, space << 8 | upper)
            if isinstance(classes, int):
                if top[upper] == MIXED:
                    pages.append((key, None))
                top[upper] = classes
            else:
                pages.append((key, _PAGE.pack(*classes)))
                top[upper] = MIXED
        return {"cls_pages": pages, "cls_tops": [(self._index(space), _PAGE.pack(*self.tops[space])) for space in touched]}

    def _classes(self, table: Table, dirty: Dirty) -> dict[str, list[Write]]:
        classes: list[Write] = []
        rows: list[Write] = []
        for number in dirty.classes:
            one = table.classes.get(number)
            there = self.rows.pop(number, frozenset())
            wanted: frozenset[int] = frozenset()
            value = None
            if one is not None:
                words = dict(islice(_words(one.vector), SPARSE + 1))
                if len(words) > SPARSE:
                    whole, mask = one.vector.to_bytes(SLOTS // 8, "little"), _any(one.vector)
                    width = ROW_WORDS // 8
                    wanted = frozenset(row for row in range(len(mask) // width) if any(mask[row * width : (row + 1) * width]))
                    self.rows[number] = wanted
                    for row in wanted:
                        rows.append((_ROW_KEY.pack(self.number, number, row), whole[row * _ROW.size : (row + 1) * _ROW.size]))
                    value = _class(number, mask, {}, dense=True)
                else:
                    value = _class(number, sum(1 << at for at in words).to_bytes(SLOTS // 64 // 8, "little"), words)
            rows += [(_ROW_KEY.pack(self.number, number, row), None) for row in there - wanted]
            classes.append((_CLASS_KEY.pack(self.number, number), value))
        return {"cls_classes": classes, "cls_rows": rows}


def nothing() -> dict[str, list[Write]]:
    """The class and the row of values that no matcher lists: they must be there before anything is classified."""
    return {
        "cls_classes": [(_CLASS_KEY.pack(0, 0), _class(0, bytes(SLOTS // 64 // 8), {}))],
        "cls_rows": [(_ROW_KEY.pack(0, 0, 0), bytes(_ROW.size))],
    }


def _address(space: Space, value: int) -> bytes:
    return value.to_bytes(ADDRESS_BITS[space] // 8, "big").ljust(16, b"\0")


def _words(vector: int) -> Iterator[tuple[int, int]]:
    """Words that are not 0, and where."""
    if vector.bit_count() > 2 * SPARSE:
        words = _VECTOR.unpack(vector.to_bytes(SLOTS // 8, "little"))
        yield from ((at, word) for at, word in enumerate(words) if word)
        return
    while vector:
        at = ((vector & -vector).bit_length() - 1) // 64
        word = vector >> at * 64 & 0xFFFFFFFFFFFFFFFF
        yield at, word
        vector ^= word << at * 64


def _any(vector: int) -> bytes:
    """A bit for each word: whether it is not 0."""
    flags = bytes(map(bool, _VECTOR.unpack(vector.to_bytes(SLOTS // 8, "little"))))
    return int(flags[::-1].translate(_DIGITS), 2).to_bytes(len(flags) // 8, "little")


def _class(number: int, mask: bytes, words: Mapping[int, int], *, dense: bool = False) -> bytes:
    """`mask`: which words are not 0; `words`: those, unless they are in rows."""
    places = [*words, *[0xFFFF] * (SPARSE - len(words))]
    values = [*words.values(), *[0] * (SPARSE - len(words))]
    return mask + struct.pack(f"<II{SPARSE}H{SPARSE}Q", number, dense, *places, *values)
