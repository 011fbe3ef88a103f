# SPDX-License-Identifier: Apache-2.0
"""Consistent hashing by Maglev's table (Eisenbud et al., Maglev: A Fast and Reliable Software Network Load Balancer, NSDI 2016, 3.4).

Each backend has an order of preference over all slots, given by its name alone. In turns, each takes the slot that it prefers among the
free ones, until none is left. The table is as even as can be, the same wherever it is computed from the same names, and changes little
beyond what has to change when backends come and go.

Two things differ from the paper. The size is a power of two, so that the data plane masks instead of dividing; any odd step then visits
every slot, as any step does in a table of prime size. And backends have weights: one of half the greatest weight takes a slot every other
turn.
"""

from __future__ import annotations

from array import array
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from polycube.core.maps import MapViews
from polycube.model import Choice

EMPTY = 0xFFFF  # in every slot of a table without backends
ROW = 448  # PCN_MAGLEV_ROW
NUMBERS = 1 << 30  # services have numbers below this
_GENERATIONS = 4  # tables that a service may use: two for each of those who write


def _power_of_two(size: int) -> int:
    if size & (size - 1):
        raise ValueError("expected a power of two")
    return size


TableSize = Annotated[int, Field(ge=1024, le=65536), AfterValidator(_power_of_two)]
Weight = Annotated[int, Field(ge=0, le=1000)]


class BackendState(Choice):
    """Whether new flows go to a backend."""

    ACTIVE = "ACTIVE"
    DRAIN = "DRAIN"


def table(weights: Mapping[str, int], size: int) -> array[int]:
    """For each of `size` slots (a power of two) the index of a backend, by its place among `weights`: name -> weight.

    Names order the turns and the preferences, so that the order of the mapping does not matter. A weight of 0 gets no slot. With fewer
    slots than a hundred for each backend shares become uneven by more than a few per cent.
    """
    if size & (size - 1) or not size:
        raise ValueError(f"a table has a power of two of slots, not {size}")
    slots = array("H", [EMPTY]) * size
    sharing = sorted((name, index) for index, (name, weight) in enumerate(weights.items()) if weight)
    if not sharing:
        return slots
    heaviest = max(weights.values())
    mask, left = size - 1, size
    at, step = [], []
    for name, _ in sharing:
        digest = int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little")
        at.append(digest & mask)
        step.append(digest >> 32 & mask | 1)
    share = [weights[name] for name, _ in sharing]
    credit = [0] * len(sharing)
    while True:
        for turn, (_, index) in enumerate(sharing):
            credit[turn] += share[turn]
            if credit[turn] < heaviest:
                continue
            credit[turn] -= heaviest
            slot = at[turn]
            while slots[slot] != EMPTY:
                slot = slot + step[turn] & mask
            slots[slot] = index
            at[turn] = slot
            left -= 1
            if not left:
                return slots


@dataclass(frozen=True)
class Member:
    """A backend that new flows may go to."""

    name: str  # decides which slots it prefers: the same wherever the table is made
    weight: int
    value: Mapping[str, Any]  # its entry in the cube's `members`


class Tables:
    """The tables of a cube's services, in the maps of maglev.h.

    Each service has a number and four tables, of which its entry names one. A change writes one of the others, then the entry. Two are for
    changes of configuration, which are recorded and carried out later, and two for what the control plane finds out by itself (a backend
    that fails): neither writes to a table that the other is about to switch to.
    """

    def __init__(self, maps: MapViews, size: int) -> None:
        self._maps = maps
        self._size = size

    def place(self, number: int, present: Mapping[str, Any] | None, members: Sequence[Member], *, recorded: bool) -> dict[str, Any]:
        """Makes a table, if `present` (the struct pcn_maglev of the service's entry) is not already the right one; what to write there."""
        digest = self._digest(members)
        if present is not None and present["digest"] == digest and present["size"] == self._size:
            return dict(present)
        first = number * _GENERATIONS + (0 if recorded else 2)
        chosen = first + 1 if present is not None and present["table"] == first else first
        slots = table({member.name: member.weight for member in members}, self._size)
        rows = self._maps["maglev_rows"]
        for row, start in enumerate(range(0, self._size, ROW)):
            rows[{"table": chosen, "row": row}] = slots[start : start + ROW].tobytes().ljust(ROW * 2, b"\xff")
        for index, member in enumerate(members):
            self._maps["members"][{"table": chosen, "backend": index}] = dict(member.value)
        return {"table": chosen, "size": self._size, "digest": digest}

    def erase(self, number: int) -> None:
        """Forgets the tables of a service that is gone."""
        tables = range(number * _GENERATIONS, (number + 1) * _GENERATIONS)
        for name in ("maglev_rows", "members"):
            view = self._maps[name]
            for key in [key for key in view if key["table"] in tables]:
                del view[key]

    def _digest(self, members: Sequence[Member]) -> int:
        text = repr(sorted((member.name, member.weight, sorted(member.value.items())) for member in members))
        return int.from_bytes(blake2b(text.encode(), digest_size=4).digest(), "little")


def number_for(name: str, taken: Container[int]) -> int:
    """The number of a new service: made from its name, so that the same service gets the same again."""
    number = int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little") % NUMBERS
    while number in taken:
        number = (number + 1) % NUMBERS
    return number


def number_of(maglev: Mapping[str, Any]) -> int:
    """The number of the service whose table this is."""
    return int(maglev["table"]) // _GENERATIONS
