# SPDX-License-Identifier: Apache-2.0
"""What stands in the maps of ddosmitigator.h, and the ways through tables that are too large to be read at once."""

from __future__ import annotations

import struct
import time
from enum import IntEnum
from typing import Any, NamedTuple

from polycube.core.maps import MapView, MapViews
from polycube.cubes.ddosmitigator.model import DdosmitigatorConfig, Side
from polycube.net.addr import Network
from polycube.toolkit.lpm import EntryTable

ENTRY = struct.Struct("<QIHHII")  # struct ddosmitigator_entry
EXPIRES, LOAD = slice(8, 12), slice(16, 20)  # of its bytes
HITTER = struct.Struct("<QQII")  # struct ddosmitigator_hitter
BUCKETS = struct.Struct("<QQ")  # struct ddosmitigator_buckets
SLOTS = 2048  # of `limits`
MAX_LIMITS = SLOTS // 2  # so that all can change at once
PREFIX = {Side.SRC: "sources", Side.DST: "targets"}
TABLES = [(side, version) for side in Side for version in (4, 6)]


class Kind(IntEnum):
    """enum ddosmitigator_kind."""

    BLOCK = 0
    TRUST = 1
    LIMIT_SHARED = 2
    LIMIT_EACH = 3


class Entry(NamedTuple):
    """struct ddosmitigator_entry."""

    dropped: int = 0
    expires: int = 0
    limit: int = 0
    kind: int = Kind.BLOCK
    load: int = 0
    pad: int = 0

    @classmethod
    def of(cls, value: bytes) -> Entry:
        return cls._make(ENTRY.unpack(value))

    def packed(self) -> bytes:
        return ENTRY.pack(*self)

    def counts(self, now: int) -> bool:
        return not self.expires or self.expires > now


def now() -> int:
    """The data plane's seconds."""
    return int(time.clock_gettime(time.CLOCK_MONOTONIC))


def table_sizes(config: DdosmitigatorConfig) -> dict[str, int]:
    """Entries of the maps."""
    found = {"buckets": config.ratelimit_size}
    for side, version in TABLES:
        found |= EntryTable.sizes(f"{PREFIX[side]}{version}", config.blacklist_size)
    return found


class Tables:
    """The four tables of prefixes."""

    def __init__(self, maps: MapViews, size: int) -> None:
        self.size = size
        self._maps = maps
        self._tables = {(side, version): EntryTable(maps, f"{PREFIX[side]}{version}", version, size) for side, version in TABLES}

    def __getitem__(self, key: tuple[Side, int]) -> EntryTable:
        return self._tables[key]

    def get(self, side: Side, network: Network) -> Entry | None:
        """The entry of just this prefix."""
        value = self._tables[side, network.version].packed(network)
        return None if value is None else Entry.of(value)

    def view(self, side: Side, version: int) -> MapView:
        """The prefixes of a table as they are in its map."""
        return self._maps[f"{PREFIX[side]}{version}"]


def summed(cpus: list[Any]) -> dict[str, int]:
    """One `struct ddosmitigator_stats` of those of all CPUs."""
    total: dict[str, int] = {}
    for one in cpus:
        for name, number in one.items():
            total[name] = total.get(name, 0) + number
    return total
