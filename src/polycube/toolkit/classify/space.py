# SPDX-License-Identifier: Apache-2.0
"""The values of a field, divided into classes: values are of one class when the same matchers hold for them.

A *matcher* is what one or more rules ask of a space: some prefixes, some ranges, a named set. A class is known by the mask of its matchers
(bit = number of the matcher) and has a vector, the rules (bit = slot) of all of them. A rule has one matcher in a space at most, so the
vectors of matchers have no bit in common, and a class's is their XOR.

`Prefixes` keeps what is listed, in order, so that what lies below a prefix stands behind it: a change concerns that part only. `Ranges`
keeps the intervals between all ends. Both take many changes at once by one pass over everything.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from polycube.toolkit.classify.rule import Element, Values

MANY = 64  # changes from which on one pass over a space is cheaper than each by itself


@dataclass(slots=True, eq=False)
class Matcher:
    """What rules ask of a space."""

    number: int
    values: Values
    rules: int = 0  # vector of those that ask
    elements: tuple[Element, ...] = ()  # those in the space now


@dataclass(slots=True, eq=False)
class Class:
    """Values for which the same matchers hold."""

    number: int
    matchers: int
    vector: int
    users: int = 0  # prefixes or intervals


@dataclass(slots=True)
class Numbers:
    """Gives numbers from 1 on, the lowest free one first to keep masks short."""

    free: list[int] = field(default_factory=list)
    last: int = 0

    def take(self) -> int:
        if self.free:
            return self.free.pop()
        self.last += 1
        return self.last

    def give(self, number: int) -> None:
        self.free.append(number)

    def reserve(self, used: Collection[int]) -> None:
        """Numbers that are in use already; to be called before any is taken."""
        first, self.last = self.last + 1, max(used, default=self.last)
        self.free = sorted(set(range(first, self.last + 1)).difference(used), reverse=True)


def bits(mask: int) -> Iterator[int]:
    """Numbers of the bits that are set, ascending."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


class Space:
    """What both kinds share: matchers and classes. Tells `changed` which classes and places are not what they were."""

    def __init__(self, width: int, numbers: Numbers, registry: dict[int, Class]) -> None:
        self.width = width
        self.matchers: dict[int, Matcher] = {}
        self.classes: dict[int, Class] = {}
        self.changed_classes: set[int] = set()
        self._registry = registry  # classes of all spaces, by number
        self._numbers = numbers
        self._own = Numbers(last=-1)

    def matcher(self, values: Values) -> Matcher:
        """A new one, not in force before it is placed."""
        made = Matcher(self._own.take(), values)
        self.matchers[made.number] = made
        return made

    def forget(self, matcher: Matcher) -> None:
        """One that is no longer placed."""
        del self.matchers[matcher.number]
        self._own.give(matcher.number)

    def place(self, changes: Iterable[tuple[Matcher, tuple[Element, ...]]]) -> None:
        """Gives matchers other elements."""
        raise NotImplementedError

    def affected(self, matcher: Matcher) -> Iterable[Class]:
        """The classes a matcher holds for."""
        if len(matcher.elements) <= len(self.classes) // 8:
            return {one.number: one for element in matcher.elements for one in self._inside(element)}.values()
        mask = 1 << matcher.number
        return [one for one in self.classes.values() if one.matchers & mask]

    def alter(self, matcher: Matcher, rules: int) -> None:
        """Rules (a vector) came to a placed matcher or left it."""
        matcher.rules ^= rules
        for one in self.affected(matcher):
            one.vector ^= rules
            self.changed_classes.add(one.number)

    def class_at(self, value: int) -> Class | None:
        """The class of a value; None: no matcher holds."""
        raise NotImplementedError

    def _inside(self, element: Element) -> Iterator[Class]:
        raise NotImplementedError

    def _vector(self, mask: int) -> int:
        vector = 0
        for number in bits(mask):
            vector ^= self.matchers[number].rules
        return vector

    def _obtain(self, mask: int, vector: int) -> Class | None:
        if not mask:
            return None
        found = self.classes.get(mask)
        if found is None:
            found = self.classes[mask] = Class(self._numbers.take(), mask, vector)
            self._registry[found.number] = found
            self.changed_classes.add(found.number)
        found.users += 1
        return found

    def _release(self, one: Class | None) -> None:
        if one is None:
            return
        one.users -= 1
        if not one.users:
            del self.classes[one.matchers], self._registry[one.number]
            self.changed_classes.add(one.number)
            self._numbers.give(one.number)


class Prefixes(Space):
    """Addresses."""

    def __init__(self, width: int, numbers: Numbers, registry: dict[int, Class]) -> None:
        super().__init__(width, numbers, registry)
        self.order: list[Element] = []
        self.own: dict[Element, int] = {}  # masks of the matchers that list just this prefix
        self.where: dict[Element, Class] = {}
        self.changed: set[Element] = set()
        self.lengths: dict[int, int] = {}  # how many prefixes of a length are listed

    def place(self, changes: Iterable[tuple[Matcher, tuple[Element, ...]]]) -> None:
        touched: dict[Element, None] = {}
        for matcher, elements in changes:
            mask = 1 << matcher.number
            for element in set(matcher.elements).symmetric_difference(elements):
                self.own[element] = self.own.get(element, 0) ^ mask
                touched[element] = None
            matcher.elements = elements
        many = len(touched) > MANY
        for element in touched:
            listed, wanted = element in self.where, bool(self.own[element])
            if not wanted:
                del self.own[element]
            if wanted and not listed:
                self.lengths[element[1]] = self.lengths.get(element[1], 0) + 1
                if not many:
                    insort(self.order, element)
            elif listed and not wanted:
                self.lengths[element[1]] -= 1
                if not many:
                    del self.order[bisect_left(self.order, element)]
                self._release(self.where.pop(element))
                self.changed.add(element)
        if many:
            self.order = sorted(self.own)
            self._refresh(0, self.order, 0, 0)
            return
        for element in sorted(touched, key=lambda one: one[1]):  # those around others first
            above = self._above(element)
            mask, vector = (above.matchers, above.vector) if above else (0, 0)
            first, last = self._below(element)
            self._refresh(first, self.order[first:last], mask, vector)

    def class_at(self, value: int) -> Class | None:
        return self._longest(value, self.width)

    def _longest(self, value: int, longest: int) -> Class | None:
        for length in sorted((one for one, count in self.lengths.items() if count and one <= longest), reverse=True):
            found = self.where.get((value >> self.width - length << self.width - length, length))
            if found is not None:
                return found
        return None

    def _above(self, element: Element) -> Class | None:
        return self._longest(element[0], element[1] - 1)

    def _below(self, element: Element) -> tuple[int, int]:
        """Where in the order the prefix and those inside of it stand."""
        value, length = element
        return bisect_left(self.order, element), bisect_left(self.order, (value + (1 << self.width - length), 0))

    def _inside(self, element: Element) -> Iterator[Class]:
        first, last = self._below(element)
        return (self.where[one] for one in self.order[first:last])

    def _refresh(self, first: int, part: list[Element], mask: int, vector: int) -> None:
        """Classes of prefixes that follow each other, below one with this mask and vector."""
        stack = [(1 << self.width + 1, mask, vector)]  # end, mask, vector of the prefixes around the one in hand
        for value, length in part:
            while value >= stack[-1][0]:
                stack.pop()
            _, mask, vector = stack[-1]
            own = self.own[value, length]
            new = own & ~mask
            if new:
                vector ^= self._vector(new)
                mask |= new
            old = self.where.get((value, length))
            if old is None or old.matchers != mask:
                found = self._obtain(mask, vector)
                assert found is not None
                self.where[value, length] = found
                self._release(old)
                self.changed.add((value, length))
            stack.append((value + (1 << self.width - length), mask, vector))


class Ranges(Space):
    """Numbers of up to 16 bits."""

    def __init__(self, width: int, numbers: Numbers, registry: dict[int, Class]) -> None:
        super().__init__(width, numbers, registry)
        self.starts: list[int] = [0]
        self.where: list[Class | None] = [None]
        self.changed: set[int] = set()  # pages: values of the upper byte

    def place(self, changes: Iterable[tuple[Matcher, tuple[Element, ...]]]) -> None:
        toggled: list[tuple[Matcher, Element]] = []
        for matcher, elements in changes:
            toggled += [(matcher, element) for element in set(matcher.elements).symmetric_difference(elements)]
            matcher.elements = elements
        for _, (low, high) in toggled:
            self.changed.update(range(low >> 8, (high >> 8) + 1))
        if len(toggled) > MANY:
            self._sweep()
            return
        for matcher, element in toggled:
            self._toggle(matcher, *element)

    def class_at(self, value: int) -> Class | None:
        return self.where[bisect_right(self.starts, value) - 1]

    def pages(self) -> set[int]:
        """Where there is a class."""
        ends = [*self.starts[1:], 1 << self.width]
        found: set[int] = set()
        for start, end, one in zip(self.starts, ends, self.where, strict=True):
            if one is not None:
                found.update(range(start >> 8, (end - 1 >> 8) + 1))
        return found

    def page(self, upper: int) -> list[int] | int:
        """Numbers of the classes of 256 values, or of the one class they all are of."""
        low, high = upper << 8, upper << 8 | 255
        first = bisect_right(self.starts, low) - 1
        if first + 1 == len(self.starts) or self.starts[first + 1] > high:
            one = self.where[first]
            return one.number if one else 0
        found: list[int] = []
        last = bisect_right(self.starts, high)
        for one, end in zip(self.where[first:last], [*self.starts[first + 1 : last], high + 1], strict=True):
            found += [one.number if one else 0] * (end - low - len(found))
        return found

    def _inside(self, element: Element) -> Iterator[Class]:
        first, last = bisect_right(self.starts, element[0]) - 1, bisect_right(self.starts, element[1])
        return (one for one in self.where[first:last] if one is not None)

    def _toggle(self, matcher: Matcher, low: int, high: int) -> None:
        first, last = self._split(low), self._split(high + 1)
        for at in range(first, last):
            old = self.where[at]
            mask, vector = (old.matchers, old.vector) if old else (0, 0)
            self.where[at] = self._obtain(mask ^ 1 << matcher.number, vector ^ matcher.rules)
            self._release(old)
        self._join(last)
        self._join(first)

    def _split(self, value: int) -> int:
        """Has an interval begin at the value; its index."""
        at = bisect_left(self.starts, value)
        if value < 1 << self.width and (at == len(self.starts) or self.starts[at] != value):
            self.starts.insert(at, value)
            self.where.insert(at, self.where[at - 1])
            one = self.where[at]
            if one is not None:
                one.users += 1
        return at

    def _join(self, at: int) -> None:
        """Ends the difference between an interval and the one before if there is none."""
        if 0 < at < len(self.starts) and self.where[at] is self.where[at - 1]:
            del self.starts[at]
            self._release(self.where.pop(at))

    def _sweep(self) -> None:
        ends: dict[int, int] = {0: 0}
        for matcher in self.matchers.values():
            for low, high in matcher.elements:
                ends[low] = ends.get(low, 0) ^ 1 << matcher.number
                ends[high + 1] = ends.get(high + 1, 0) ^ 1 << matcher.number
        old, mask, vector = self.where, 0, 0
        self.starts, self.where = [], []
        for start in sorted(ends):
            if start >> self.width:
                break
            if ends[start] or not start:
                mask, vector = mask ^ ends[start], vector ^ self._vector(ends[start])
                self.starts.append(start)
                self.where.append(self._obtain(mask, vector))
        for one in old:
            self._release(one)
