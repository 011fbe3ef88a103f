# SPDX-License-Identifier: Apache-2.0
"""A table of rules as bit vectors.

Every rule has a slot, the number of its bit; lower slots come first. Every space has a base vector, with the bits of the rules that hold
for values no matcher lists, and classes (space.py) with what differs from it. `update` takes the whole list of rules and finds out by
their keys what came, went and moved; its cost is that of the change. What is not yet written is collected for each of the two sides that
a table has in the kernel (sides.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from polycube.model import PolycubeError
from polycube.toolkit.classify import order
from polycube.toolkit.classify.rule import ADDRESS_BITS, DIM_OF, DIMS, NUMBER_BITS, Dim, Element, Match, Rule, Space, Values
from polycube.toolkit.classify.space import Class, Matcher, Numbers, Prefixes, Ranges

SLOTS = 16384  # PCN_RULES
Sets = Mapping[str, Mapping[Space, tuple[Element, ...]]]
Kind = tuple[Space, Values]  # what a matcher is
Toggles = dict[Kind, int]  # vectors of rules that come to matchers or leave them


class TableFull(PolycubeError):
    """More rules than a table has slots."""

    status = 400

    def __init__(self, rules: int, limit: int) -> None:
        super().__init__(f"{rules} rules are too many: a table takes up to {limit}")


@dataclass(slots=True, eq=False)
class Entry:
    """A rule in its place."""

    rule: Rule
    slot: int
    counter: int


@dataclass(slots=True)
class Dirty:
    """What one side does not know yet."""

    classes: set[int] = field(default_factory=set)
    bases: set[Space] = field(default_factory=set)
    hosts: set[tuple[Space, Element]] = field(default_factory=set)
    pages: set[tuple[Space, int]] = field(default_factory=set)
    slots: set[int] = field(default_factory=set)

    def add(self, other: Dirty) -> None:
        self.classes |= other.classes
        self.bases |= other.bases
        self.hosts |= other.hosts
        self.pages |= other.pages
        self.slots |= other.slots

    def clear(self) -> None:
        """All is known."""
        for one in (self.classes, self.bases, self.hosts, self.pages, self.slots):
            one.clear()


class Table:
    """Rules, and what follows from them."""

    def __init__(self, limit: int = SLOTS, counters: Numbers | None = None) -> None:
        self.limit = limit
        self.entries: list[Entry] = []
        self.rules: list[Rule] = []  # of the entries
        self.came: list[Entry] = []  # with the last update
        self.by_slot: dict[int, Entry] = {}
        self.base: dict[Space, int] = dict.fromkeys(Space, 0)
        self.asked: dict[Dim, int] = dict.fromkeys(Dim, 0)  # rules that ask something of it
        numbers = Numbers()
        self.classes: dict[int, Class] = {}  # of all spaces, by number
        self.addresses = {space: Prefixes(width, numbers, self.classes) for space, width in ADDRESS_BITS.items()}
        self.numbers = {space: Ranges(width, numbers, self.classes) for space, width in NUMBER_BITS.items()}
        self.spaces: dict[Space, Prefixes | Ranges] = {**self.addresses, **self.numbers}
        self.counters = counters or Numbers(last=-1)
        self.dirty = (Dirty(bases=set(Space)), Dirty(bases=set(Space)))
        self.new_counters: list[int] = []  # taken since the last call of `sides`; to be zeroed
        self.old_counters: dict[Any, list[int]] = {}  # by key: of rules that went, free as soon as that stands
        self._slots: list[int] = []  # of the entries
        self._matchers: dict[Kind, Matcher] = {}
        self._sets: Sets = {}

    # ---- changing ----

    def update(self, rules: list[Rule], sets: Sets | None = None) -> bool:
        """Makes the table hold these rules, with these elements in named sets; whether anything changed. Raises TableFull."""
        if len(rules) > self.limit:
            raise TableFull(len(rules), self.limit)
        self.came = []
        changed = self._change_sets(sets) if sets is not None else False
        if self.rules == rules:
            return changed
        first, last = order.ends(self.rules, rules)
        old, new = self.entries[first : len(self.entries) - last], rules[first : len(rules) - last]
        pairs = {first + to: first + at for to, at in order.kept([one.rule.key for one in old], [one.key for one in new]).items()}
        end = first + len(new)
        slots: list[Any] = self._slots[: len(self._slots) - last]
        slots[first:] = [self.entries[pairs[at]].slot if at in pairs else None for at in range(first, end)]
        slots += self._slots[len(self._slots) - last :]
        low, high = order.place(slots, self.limit, first, end)
        low, high = min(low, first), max(high, end)
        shift = len(self.entries) - len(rules)
        pairs.update({at: at for at in range(low, first)})
        pairs.update({at: at + shift for at in range(end, high)})
        toggles: Toggles = {}
        stays = {pairs[at]: slots[at] for at in range(low, high) if at in pairs}
        for at in range(low, high + shift):
            entry = self.entries[at]
            if stays.get(at) == entry.slot:
                continue
            self._toggle(entry.rule.match, entry.slot, toggles, -1)
            del self.by_slot[entry.slot]
            self._mark(entry.slot)
            if at not in stays:
                self.old_counters.setdefault(entry.rule.key, []).append(entry.counter)
        entries = []
        for at in range(low, high):
            rule, slot = rules[at], slots[at]
            if at in pairs:
                entry = self.entries[pairs[at]]
            else:
                entry = Entry(rule, -1, self._counter(rule.key))
                self.came.append(entry)
            if entry.slot != slot:
                self._toggle(rule.match, slot, toggles, 1)
                self.by_slot[slot] = entry
            if entry.slot != slot or entry.rule.result != rule.result:
                self._mark(slot)
            entry.rule, entry.slot = rule, slot
            entries.append(entry)
        self.entries[low : high + shift] = entries
        self.rules, self._slots = list(rules), slots
        self._settle(toggles)
        return True

    def restore(self, rules: list[Rule], places: Sequence[tuple[int, int]], sets: Sets | None = None) -> None:
        """Into an empty table: rules that were in one before, with the counters (slot, counter) they had there."""
        if len(places) == len(rules):
            for rule, (_, counter) in zip(rules, places, strict=True):
                self.old_counters.setdefault(rule.key, []).insert(0, counter)
        self.update(rules, sets)

    def all(self) -> Dirty:
        """All there is, for a side of which nothing is known."""
        return Dirty(
            classes=set(self.classes),
            bases=set(Space),
            hosts={(space, element) for space, one in self.addresses.items() for element in one.where},
            pages={(space, page) for space, one in self.numbers.items() for page in one.pages()},
            slots=set(self.by_slot),
        )

    def _counter(self, key: Any) -> int:
        """A new one, or its own if the rule only went from one place to another."""
        if self.old_counters.get(key):
            return self.old_counters[key].pop()
        number = self.counters.take()
        self.new_counters.append(number)
        return number

    def settled(self) -> None:
        """The last change stands: its predecessors' counters are free."""
        for numbers in self.old_counters.values():
            for number in numbers:
                self.counters.give(number)
        self.old_counters.clear()

    def _mark(self, slot: int) -> None:
        for dirty in self.dirty:
            dirty.slots.add(slot)

    def _toggle(self, match: Match, slot: int, toggles: Toggles, count: int) -> None:
        """Puts a rule's bit where it belongs, or takes it away."""
        bit, asked = 1 << slot, set()
        for space, values in match:
            asked.add(DIM_OF[space])
            if values.inverted:
                self._flip(space, bit)
            if values.elements or values.set:
                kind = (space, Values(values.elements, False, values.set))
                toggles[kind] = toggles.get(kind, 0) ^ bit
        for dim, spaces in DIMS.items():
            if dim in asked:
                self.asked[dim] += count
                continue
            for space in spaces:
                self._flip(space, bit)

    def _flip(self, space: Space, bit: int) -> None:
        self.base[space] ^= bit
        for dirty in self.dirty:
            dirty.bases.add(space)

    def _settle(self, toggles: Toggles) -> None:
        """Brings matchers that came, went or have other rules into their spaces."""
        moves: dict[Space, list[tuple[Matcher, tuple[Element, ...]]]] = {}
        for kind, rules in toggles.items():
            space, values = kind
            matcher = self._matchers.get(kind)
            if matcher is None:
                matcher = self._matchers[kind] = self.spaces[space].matcher(values)
                matcher.rules = rules
                moves.setdefault(space, []).append((matcher, self.elements(space, values)))
                continue
            self.spaces[space].alter(matcher, rules)
            if not matcher.rules:
                moves.setdefault(space, []).append((matcher, ()))
                del self._matchers[kind]
        for space, changes in moves.items():
            self.spaces[space].place(changes)
            for matcher, _ in changes:
                if not matcher.rules:
                    self.spaces[space].forget(matcher)
        self._collect()

    def elements(self, space: Space, values: Values) -> tuple[Element, ...]:
        """What values list now: also those of a set."""
        return self._sets.get(values.set, {}).get(space, ()) if values.set else values.elements

    def _change_sets(self, sets: Sets) -> bool:
        old, self._sets = self._sets, sets
        names = {name for name in {*old, *sets} if old.get(name) != sets.get(name)}
        if not names:
            return False
        changed = False
        for (space, values), matcher in self._matchers.items():
            if values.set in names:
                self.spaces[space].place([(matcher, self.elements(space, values))])
                changed = True
        self._collect()
        return changed

    def _collect(self) -> None:
        """Takes note of what the spaces say has changed."""
        found = Dirty()
        for space, one in self.addresses.items():
            found.hosts |= {(space, element) for element in one.changed}
            one.changed = set()
        for space, numbers in self.numbers.items():
            found.pages |= {(space, page) for page in numbers.changed}
            numbers.changed = set()
        for any_space in self.spaces.values():
            found.classes |= any_space.changed_classes
            any_space.changed_classes = set()
        for dirty in self.dirty:
            dirty.add(found)

    # ---- reading ----

    @property
    def dims(self) -> int:
        """The dimensions that matter, as bits. One at least where there are rules: its vector says which slots are taken."""
        return sum(1 << dim for dim, count in self.asked.items() if count) or bool(self.entries) << Dim.PROTO

    def matches(self, values: Mapping[Space, int]) -> int:
        """The vector of the rules that match a frame, whose value in each dimension is given by its space (none of a space: any number)."""
        vector = -1
        for space, value in values.items():
            known = self.spaces.get(space)
            found = known.class_at(value) if known else None
            vector &= self.base[space] ^ (found.vector if found else 0)
        return vector & ((1 << self.limit) - 1)

    def matching(self, values: Mapping[Space, int]) -> Iterable[Entry]:
        """The rules that match a frame, in order."""
        vector = self.matches(values)
        while vector:
            low = vector & -vector
            yield self.by_slot[low.bit_length() - 1]
            vector ^= low
