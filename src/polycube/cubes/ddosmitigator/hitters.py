# SPDX-License-Identifier: Apache-2.0
"""Heavy hitters, which the data plane finds and blocks by itself: what is told of them, and the removal of those that are over."""

from __future__ import annotations

from typing import Any

from polycube.core.maps import MapView
from polycube.cubes.ddosmitigator.model import Detection, block
from polycube.cubes.ddosmitigator.tables import HITTER
from polycube.net.addr import Address
from polycube.toolkit.address import mapped, unmapped

SHOWN = 1000


class Hitters:
    """The map, and what of it has been told."""

    def __init__(self, view: MapView) -> None:
        self.found = 0
        self.number = 0
        self._view = view
        self._known: dict[bytes, int] = {}  # since when; of those that have been told

    def read(self, now: int) -> list[tuple[Address, int]]:
        """Removes those that are over; returns address and rate of those that are new since the last call."""
        over, new, there = [], [], {}
        for batch in self._view.batches():
            for key, value in batch:
                _, rate, expires, since = HITTER.unpack(value)
                if expires <= now:
                    over.append(key)
                    continue
                there[key] = since
                if self._known.get(key) != since:
                    new.append((unmapped(key), rate))
        self._view.delete_many(over)
        self._known, self.number = there, len(there)
        self.found += len(new)
        return new

    def forget(self, source: Address | None, detection: Detection) -> int:
        """Unblocks one source, or all; how many there were."""
        wanted = None if source is None else masked(source, detection)
        gone = [key for batch in self._view.batches() for key, _ in batch if wanted in (None, key)]
        self._view.delete_many(gone)
        return len(gone)

    def state(self, now: int, detection: Detection) -> dict[str, Any]:
        """As the model has it."""
        standing = [(HITTER.unpack(value), key) for batch in self._view.batches() for key, value in batch]
        standing = sorted((one for one in standing if one[0][2] > now), reverse=True)
        blocked = [
            {"ip": prefix(key, detection), "rate": rate, "seconds": now - since, "expires-in": expires - now, "drop-pkts": dropped}
            for (dropped, rate, expires, since), key in standing[:SHOWN]
        ]
        return {"number": len(standing), "found": self.found, "blocked": blocked}


def length(address: Address, detection: Detection) -> int:
    return detection.prefix_length_ipv4 if address.version == 4 else detection.prefix_length_ipv6


def masked(address: Address, detection: Detection) -> bytes:
    """The key that a source is counted by."""
    return mapped(block(f"{address}/{length(address, detection)}").network_address)


def prefix(key: bytes, detection: Detection) -> str:
    """As text; after a change of lengths, of as many bits as the key has."""
    address = unmapped(key)
    return str(block(f"{address}/{length(address, detection)}"))
