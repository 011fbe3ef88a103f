# SPDX-License-Identifier: Apache-2.0
"""What was learned, carried over into a table of another layout: entry by entry, by the names of fields.

Fields that are new begin at zero, those that are gone are left out. An entry that the new table has stays as it is there, so that this can
be done more than once: when the table is made, and again when the last program that wrote to the former one has gone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from polycube.bpf import BpfError, Layout, Map


class Former:
    """A table whose programs go, and the one that takes its place; both are let go of by `close`. `unit`: that of the new programs."""

    def __init__(self, unit: str, old: Map, new: Map) -> None:
        self.unit, self._old, self._new = unit, old, new

    def carry(self) -> int:
        """Writes what is missing; returns how many entries can't be."""
        before, after = self._old.layouts(), self._new.layouts()
        if before is None or after is None:
            return self._old.count()
        found, there, left = dict[bytes, bytes](), set(self._new.keys()), 0
        for entry in self._old.items():
            try:
                key, value = (new.pack(fitted(new, old.unpack(data))) for old, new, data in zip(before, after, entry, strict=True))
            except ValueError:
                left += 1
                continue
            if key not in there:
                found[key] = value
        return left + self._written(found.items())

    def _written(self, entries: Iterable[tuple[bytes, bytes]]) -> int:
        """Writes entries; returns for how many there was no room."""
        try:
            self._new.set_many(entries)
        except BpfError:
            there = set(self._new.keys())
            return sum(key not in there for key, _ in entries)
        return 0

    def close(self) -> None:
        self._old.close()
        self._new.close()


def fitted(layout: Layout, value: Any) -> Any:
    """A value without the fields that a layout does not have."""
    if isinstance(value, dict):
        known = {field.name: field.layout for field in layout.fields}
        return {name: fitted(known[name], inner) for name, inner in value.items() if name in known}
    if isinstance(value, list) and layout.element:
        return [fitted(layout.element, one) for one in value]
    return value
