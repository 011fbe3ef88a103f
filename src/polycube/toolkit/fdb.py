# SPDX-License-Identifier: Apache-2.0
"""The filtering database of a bridge, seen from its control plane: the other side of `polycube/fdb.h`.

The data plane learns, forwards and ages. What is done here: configured stations are written, learned ones are shown and forgotten, and
what has aged is removed so that room comes free. VLAN 0 stands for a bridge without VLANs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from polycube.core.maps import MapView
from polycube.net.addr import Mac

STATIC = 1
SLICE = 2000  # entries between two chances for others to run


@dataclass(frozen=True)
class Station:
    """A learned station; `seen` is a second of `now()`."""

    vlan: int
    address: Mac
    port: int
    seen: int

    @property
    def key(self) -> dict[str, Any]:
        return _key(self.address, self.vlan)


class Fdb:
    """The table of one cube."""

    def __init__(self, table: MapView) -> None:
        self._table = table

    def fix(self, address: str, port: int, vlan: int = 0) -> None:
        """A configured station, which neither ages nor moves."""
        self._table[_key(Mac.parse(address), vlan)] = {"seen": now(), "port": port, "flags": STATIC}

    def remove(self, address: str, vlan: int = 0) -> None:
        """A station, configured or learned; nothing happens if it is not there."""
        del self._table[_key(Mac.parse(address), vlan)]

    def forget(self, address: str, vlan: int = 0) -> bool:
        """A learned station. False: there is none."""
        key = _key(Mac.parse(address), vlan)
        station = self._table.get(key)
        if station is None or station["flags"] & STATIC:
            return False
        del self._table[key]
        return True

    def learned(self) -> Iterator[Station]:
        """Stations that were learned, aged ones included."""
        for key, value in self._table.items():
            if not value["flags"] & STATIC:
                yield Station(key["vlan"], Mac.from_bytes(key["address"]), value["port"], value["seen"])

    def forget_all(self, which: Callable[[Station], bool] = lambda station: True) -> None:
        """The learned stations for which it is true."""
        for station in [one for one in self.learned() if which(one)]:
            del self._table[station.key]

    async def sweep(self, aged: Callable[[Station], bool]) -> None:
        """The same, in slices, so that a full table keeps nobody waiting."""
        for count, station in enumerate(self.learned(), 1):
            if aged(station):
                del self._table[station.key]
            if count % SLICE == 0:
                await asyncio.sleep(0)


def _key(address: Mac, vlan: int) -> dict[str, Any]:
    return {"address": bytes(address), "vlan": vlan}


def now() -> int:
    """The data plane's clock, pcn_now()."""
    return int(time.clock_gettime(time.CLOCK_MONOTONIC))
