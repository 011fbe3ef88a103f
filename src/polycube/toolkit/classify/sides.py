# SPDX-License-Identifier: Apache-2.0
"""The two sides of a table in the maps of a cube.

Packets read the side that the parity of the table's generation says. The other one is written at once, also while a change is being
recorded: nobody sees it. What is recorded is the new generation alone, so that a change takes effect whole, and is taken back whole if
the request fails. A generation is never used twice, since what is remembered of flows is known by it.
"""

from __future__ import annotations

from typing import Any, Protocol

from polycube.bpf import quiesce
from polycube.toolkit.classify.layout import RULE_SIZE, SIDE_OF_KEY, SPACES, Side, Write, counter_of, nothing, u32
from polycube.toolkit.classify.rule import Rule
from polycube.toolkit.classify.table import Sets, Table

APART = 1000  # generations that a former process may have tried


class Views(Protocol):
    """The maps of a cube: core.maps.MapViews."""

    def __getitem__(self, name: str) -> Any: ...


class Sides:
    """A table, and what the kernel holds of it."""

    def __init__(self, maps: Views, number: int, table: Table, counters: str) -> None:
        """`counters`: name of the per-CPU array with the rules' counters, which are zeroed before a rule uses them."""
        self.table = table
        self._maps = maps
        self._number = number
        self._counters = counters
        self._sides = tuple(Side(number * 2 + parity) for parity in (0, 1))
        self._strange = {0, 1}  # sides that a former process may have written
        self._tried = 0  # the generation asked for last
        self._meaning = (0, 0)

    def update(self, rules: list[Rule], sets: Sets | None = None, *, fallback: int = 0, flows: int = 0) -> None:
        """Has the data plane use these rules, and `fallback` where none matches. Raises TableFull, and MapFull where there are too many
        different addresses; packets then meet what they met before."""
        standing = self._standing()
        if self._tried == standing:
            self.table.settled()
        changed = self.table.update(rules, sets)
        if not changed and standing == self._tried and self._meaning == (fallback, flows) and standing:
            return
        generation = max(standing, self._tried) + (APART if standing and not self._tried else 1)
        generation += (generation ^ standing ^ 1) & 1
        self._write(generation & 1, fallback, flows, fresh=not standing)
        self._maps["cls_tables"][self._number] = generation
        self._tried, self._meaning = generation, (fallback, flows)

    def places(self) -> list[tuple[int, int]]:
        """Slot and counter of each rule that stands in the kernel, in order: for `Table.restore` after a restart."""
        standing = self._standing()
        limit = self.table.limit
        first = (self._number * 2 + (standing & 1)) * limit
        found = []
        for key, value in self._maps["cls_rules"].packed_items() if standing else ():
            slot = int.from_bytes(key, "little") - first
            if 0 <= slot < limit and any(value):
                found.append((slot, counter_of(value)))
        return sorted(found)

    def _standing(self) -> int:
        return self._maps["cls_tables"].get(self._number) or 0

    def _write(self, parity: int, fallback: int, flows: int, *, fresh: bool) -> None:
        side, dirty = self._sides[parity], self.table.dirty[parity]
        if not fresh:
            quiesce()  # programs that began when it was in use
        if parity in self._strange and not fresh:
            self._clear(side.number)
        try:
            if fresh:
                self._load(nothing())
            for writes in (side.writes(self.table, dirty), dict((side.header(self.table, fallback, flows),))):
                self._load(writes)
            self._load({self._counters: [(u32(number), None) for number in self.table.new_counters]})
        except Exception:
            self._sides[parity].forget()
            self._strange.add(parity)  # half written
            dirty.add(self.table.all())
            raise
        self._strange.discard(parity)
        self.table.new_counters.clear()
        self.table.dirty[parity].clear()

    def _load(self, writes: dict[str, list[Write]]) -> None:
        for name, entries in writes.items():
            if entries:
                self._maps[name].load(entries)

    def _clear(self, side: int) -> None:
        """Removes what is there of a side."""
        for name, side_of in SIDE_OF_KEY.items():
            view = self._maps[name]
            view.load([(key, None) for key, _ in view.packed_items() if side_of(key) == side])
        limit = self.table.limit
        self._maps["cls_rules"].load([(u32(side * limit + slot), bytes(RULE_SIZE)) for slot in range(limit)])
        self._maps["cls_tops"].load([(u32(side * SPACES + space), bytes(1024)) for space in range(SPACES)])
