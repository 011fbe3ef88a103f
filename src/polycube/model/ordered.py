# SPDX-License-Identifier: Apache-2.0
"""Lists whose elements are numbered in a row: the key of an element is its place, from 0 on.

Mechanism: inside, elements bear numbers with gaps between them, *ranks*, and are numbered by their places only when someone looks at
them. One that comes between two others takes a rank between theirs, and all others stay the objects they are, so that an edit, its
difference and its rows in the store are about this one alone. Where the ranks have no room, those around are spread anew over the
smallest part of the list that has some (Itai, Konheim, Rodeh: A Sparse Table Implementation of Priority Queues, ICALP 1981).

Invariants: ranks ascend in the order of the list. Rows hold ranks in the place of the numbers: whatever rows come back, their order is the
list's, also from a store of consecutive numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from polycube.model.base import E, Keyed, Node, key_of

INSERT = 1 << 31  # an element added with this and a place as its number gets the place, and those from there on move by one
RANKS = 1 << 31
APART = 1 << 16  # ranks from one element to the next, if there is room
NEAR = 64  # at least so far apart when spread anew


class Ordered(Keyed[E]):
    """A `Keyed` list of elements whose only key is an integer, the place. A number beyond the last one means the end."""

    __slots__ = ("_numbered", "_ranked")

    def __init__(self, elements: Iterable[E] = ()) -> None:
        """The numbers that the elements bear become their ranks."""
        self._take(sorted({key_of(element): element for element in elements}.values(), key=key_of))

    def _take(self, ranked: list[Any]) -> Ordered[E]:
        self._ranked = ranked
        self._numbered: dict[Any, E] | None = None
        return self

    @classmethod
    def _of_input(cls, elements: list[Any]) -> Ordered[E]:
        return cls().adding(*cls(elements).kept)

    @property
    def kept(self) -> Sequence[E]:
        """The elements in order. Their numbers, ranks, mean nothing but that; looking at all is much cheaper this way."""
        return self._ranked

    # ---- changing ----

    def adding(self, *elements: Node) -> Ordered[E]:
        ranked, inserted = list(self._ranked), []
        behind: list[Any] = []
        changed: Ordered[E] = self
        for element in sorted(elements, key=key_of):
            place = key_of(element)
            if place >= INSERT:
                inserted.append(element)
            elif place >= len(ranked):
                behind.append(element)
            elif not _alike(element, ranked[place]):
                ranked[place] = _with_number(element, key_of(ranked[place]))
                changed = type(self)()._take(ranked)
        if behind:
            changed = changed._spliced(len(self), len(self), behind)
        for element in inserted:
            place = min(key_of(element) - INSERT, len(changed))
            changed = changed._spliced(place, place, [element])
        return changed

    def without(self, *keys: Any) -> Ordered[E]:
        ranked = list(self._ranked)
        for place in sorted(keys, reverse=True):
            del ranked[place]
        return type(self)()._take(ranked)

    def replaced(self, elements: Sequence[Any]) -> Ordered[E]:
        wanted = type(self)().adding(*elements)._ranked
        most = min(len(wanted), len(self))
        first = last = 0
        while first < most and _alike(wanted[first], self._ranked[first]):
            first += 1
        while last < most - first and _alike(wanted[-1 - last], self._ranked[-1 - last]):
            last += 1
        if first == len(wanted) == len(self):
            return self
        return self._spliced(first, len(self) - last, wanted[first : len(wanted) - last])

    def _spliced(self, first: int, last: int, new: list[Any]) -> Ordered[E]:
        """A copy with others in the places from `first` to `last`."""
        old, reach = self._ranked, 0
        while new:
            left, right = max(first - reach, 0), min(last + reach, len(old))
            low = key_of(old[left - 1]) if left else -1
            high = key_of(old[right]) if right < len(old) else RANKS
            several = [*old[left:first], *new, *old[last:right]]
            step = (high - low) // (len(several) + 1)
            if step >= (NEAR if reach else 1) or right - left == len(old):
                new = [_with_number(element, rank) for element, rank in zip(several, _between(low, high, len(several)), strict=True)]
                first, last = left, right
                break
            reach = max(1, reach * 2)
        return type(self)()._take([*old[:first], *new, *old[last:]])

    # ---- reading ----

    @property
    def _elements(self) -> dict[Any, E]:  # type: ignore[override]
        if self._numbered is None:
            self._numbered = {place: _with_number(element, place) for place, element in enumerate(self._ranked)}
        return self._numbered

    def __getitem__(self, key: Any) -> E:
        if key not in self:
            raise KeyError(key)
        return self._numbered[key] if self._numbered is not None else _with_number(self._ranked[key], key)

    def get(self, key: Any, default: Any = None) -> Any:
        if key not in self:
            return default
        return self[key]

    def __len__(self) -> int:
        return len(self._ranked)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, int) and 0 <= key < len(self._ranked)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Ordered):
            return NotImplemented
        return self is other or (len(self) == len(other) and all(map(_alike, self._ranked, other._ranked)))

    def __hash__(self) -> int:
        return hash(tuple(self.values()))

    def __reduce__(self) -> Any:
        return type(self), (self._ranked,)


def _between(low: int, high: int, count: int) -> range:
    """So many ranks between two. At an end of the list, room is left for those to come there."""
    step = (high - low) // (count + 1)
    first = low + step
    if low < 0 or high == RANKS:
        step = min(step, APART)
        first = low + step
        if low < 0:
            first = high - step * count
        if low < 0 and high == RANKS:
            first = (RANKS - step * count) // 2
    return range(first, first + step * count, step)


def _alike(one: Node, other: Node) -> bool:
    """Whether two elements differ in nothing but the number."""
    if one is other:
        return True
    (number,) = type(one).key_attrs
    mine, others = one.__dict__, other.__dict__
    return all(mine[name] == others[name] for name in type(one).model_fields if name != number)


def _with_number(element: Any, number: int) -> Any:
    """The same in another place. Made by hand: pydantic takes ten times as long, and there may be ten thousand to show."""
    (attribute,) = type(element).key_attrs
    if element.__dict__[attribute] == number:
        return element
    moved = object.__new__(type(element))
    object.__setattr__(moved, "__dict__", {**element.__dict__, attribute: number})
    for name in ("__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__"):
        object.__setattr__(moved, name, getattr(element, name))
    return moved
