# SPDX-License-Identifier: Apache-2.0
"""Numbers that the data plane knows things by: always the lowest that is free, given back when the thing is gone.

Taken numbers live in memory; the store keeps them with what they belong to, and unique.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from polycube.model import PolycubeError

CUBES = range(1, 2048)  # PCN_CUBES: a cube's slots are 2n and 2n+1
PORT_IDS = range(1, 16384)  # PCN_IDS; 0 is no port
PORTS = range(0, 0x8000)  # of one cube: what fits beside PCN_MARK_OUT


class NoNumberLeft(PolycubeError):
    """There are as many of a kind as the data plane can tell apart."""

    status = 507

    def __init__(self, what: str, most: int) -> None:
        self.what, self.most = what, most
        super().__init__(f"there are {most} {what} already, and no more are possible")


class Numbers:
    """A range from which numbers are taken."""

    def __init__(self, what: str, within: range, taken: Iterable[int] = ()) -> None:
        self._what = what
        self._within = within
        self._taken = set(taken)
        self._freed: list[int] = []  # below `_next`, a heap; may hold numbers that were taken again by name
        self._next = within.start

    def take(self) -> int:
        """The lowest free number. Raises `NoNumberLeft`."""
        while self._freed:
            number = heapq.heappop(self._freed)
            if number not in self._taken:
                self._taken.add(number)
                return number
        self._skip()
        if self._next >= self._within.stop:
            raise NoNumberLeft(self._what, len(self._within))
        self._taken.add(self._next)
        return self._next

    def release(self, number: int) -> None:
        """Gives a number back; one that is free already stays so."""
        if number in self._taken:
            self._taken.discard(number)
            heapq.heappush(self._freed, number)

    def __contains__(self, number: object) -> bool:
        return number in self._taken

    def __len__(self) -> int:
        return len(self._taken)

    def _skip(self) -> None:
        while self._next in self._taken and self._next < self._within.stop:
            self._next += 1
