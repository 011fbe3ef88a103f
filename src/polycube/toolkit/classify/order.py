# SPDX-License-Identifier: Apache-2.0
"""Places for rules in a vector, in their order, such that a new one between two others moves few of them.

Places are left free between rules. Where there is none, the rules around are spread anew over the smallest part of the vector that is not
too full (Itai, Konheim, Rodeh: A Sparse Table Implementation of Priority Queues, ICALP 1981).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Hashable, Sequence
from typing import Any

FULL = 0.75  # of a part that is spread anew, unless it is all there is
APART = 2  # places from one rule at the end to the next


def ends(old: Sequence[Any], new: Sequence[Any]) -> tuple[int, int]:
    """How many are the same at the beginning, and how many at the end."""
    most = min(len(old), len(new))
    first = _same(most, lambda low, high: old[low:high] == new[low:high])
    last = _same(most - first, lambda low, high: old[len(old) - high : len(old) - low] == new[len(new) - high : len(new) - low])
    return first, last


def _same(most: int, equal: Callable[[int, int], bool]) -> int:
    """By halves, comparing whole lists: these know at once that an object is itself."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if equal(low, middle):
            low = middle
        else:
            high = middle - 1
    return low


def kept(old: Sequence[Hashable], new: Sequence[Hashable]) -> dict[int, int]:
    """Index in `new` -> index in `old` of what is in both and need not move: a longest common part with the order kept (where a key stands
    several times, its occurrences are taken in turn)."""
    places: dict[Hashable, list[int]] = {}
    for at in range(len(old) - 1, -1, -1):
        places.setdefault(old[at], []).append(at)
    both = [(at, places[key].pop()) for at, key in enumerate(new) if places.get(key)]
    return dict(_ascending(both))


def _ascending(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """A longest part in which the second numbers ascend (patience sorting: Fredman 1975)."""
    tops: list[int] = []
    at: list[int] = []
    before: list[int] = []
    for index, (_, value) in enumerate(pairs):
        pile = bisect_left(tops, value)
        before.append(at[pile - 1] if pile else -1)
        if pile == len(tops):
            tops.append(value)
            at.append(index)
        else:
            tops[pile], at[pile] = value, index
    found, index = [], at[-1] if at else -1
    while index >= 0:
        found.append(pairs[index])
        index = before[index]
    return found[::-1]


def place(slots: list[Any], limit: int, first: int, last: int) -> tuple[int, int]:
    """Fills in the None of a list of ascending places below `limit`, which are all from `first` to `last`; moves others where there is no
    room. There must be as many places. Returns the part of the list that may have changed."""
    at, low, high = first, len(slots), 0
    while at < last:
        try:
            at = slots.index(None, at, last)
        except ValueError:
            break
        end = at
        while end < len(slots) and slots[end] is None:
            end += 1
        left, at = _fill(slots, at, end, limit)
        low, high = min(low, left), max(high, at)
    return low, high


def _fill(slots: list[Any], first: int, last: int, limit: int) -> tuple[int, int]:
    """Places for slots[first:last], and for as many around as need be: the part that was given places."""
    reach = 0
    while True:
        left, right = max(first - reach, 0), min(last + reach, len(slots))
        while right < len(slots) and slots[right] is None:
            right += 1
        low = slots[left - 1] if left else -1
        high = slots[right] if right < len(slots) else limit
        room, wanted = high - low - 1, right - left
        everything = not left and right == len(slots)
        if room >= wanted and (not reach or everything or wanted <= room * FULL):
            break
        reach = max(1, reach * 2)
    spare = (room - wanted) // 8 if everything else 0  # for those to come at either end
    step = (room - 2 * spare) / wanted
    offset = step / 2 if step >= 2 else 0.0
    if right == len(slots):
        step, offset = min(step, APART), float(min(spare, wanted))
    elif not left:
        step = min(step, APART)
        offset = room - wanted * step
    for number in range(wanted):
        slots[left + number] = low + 1 + int(offset + number * step)
    return left, right
