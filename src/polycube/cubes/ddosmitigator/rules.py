# SPDX-License-Identifier: Apache-2.0
"""From configured lists to entries of the tables: what a change means for them. Writes are those of `apply`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from polycube.core.maps import MapView
from polycube.cubes.ddosmitigator.errors import NoLimit, TooManyLimits, TwiceConfigured
from polycube.cubes.ddosmitigator.model import Blacklisted, DdosmitigatorConfig, RateLimit, Scope, Side
from polycube.cubes.ddosmitigator.tables import MAX_LIMITS, SLOTS, Entry, Kind, Tables, now
from polycube.model import Diff, Node
from polycube.toolkit.tokenbucket import rate

LISTS: Mapping[str, Side] = {
    "blacklist_src": Side.SRC,
    "trusted": Side.SRC,
    "ratelimit_src": Side.SRC,
    "blacklist_dst": Side.DST,
    "ratelimit_dst": Side.DST,
}


def check(cube: str, config: DdosmitigatorConfig) -> None:
    """Raises TwiceConfigured, NoLimit or TooManyLimits."""
    for side in Side:
        seen: dict[Any, str] = {}
        for name in (name for name, of in LISTS.items() if of is side):
            elements = getattr(config, name)
            both = seen.keys() & elements.keys()
            if both:
                prefix = min(both, key=str)
                raise TwiceConfigured(cube, str(prefix), seen[prefix].replace("_", "-"), name.replace("_", "-"))
            seen |= dict.fromkeys(elements, name)
    limits = [*config.ratelimit_src.values(), *config.ratelimit_dst.values()]
    if len(limits) > MAX_LIMITS:
        raise TooManyLimits(cube, MAX_LIMITS)
    for limit in limits:
        if not limit.packets and not limit.bytes:
            raise NoLimit(cube, str(limit.ip))


class Rules:
    """Writes what changed."""

    def __init__(self, tables: Tables, limits: MapView) -> None:
        self._tables = tables
        self._limits = limits

    def write(self, change: Diff[DdosmitigatorConfig]) -> bool:
        """Whether anything was written."""
        free = self._free_slots(change)
        removed = {name: change.removed(name) for name in LISTS}
        for name, elements in removed.items():
            for version in (4, 6):
                self._tables[LISTS[name], version].remove(one.ip for one in elements if one.ip.version == version)
        written = any(removed.values())
        for name, side in LISTS.items():
            changed = [*change.added(name), *(new for _, new in change.changed(name))]
            for version in (4, 6):
                entries = {one.ip: self._entry(side, one, free).packed() for one in changed if one.ip.version == version}
                self._tables[side, version].update(entries)
            written |= bool(changed)
        return written

    def _free_slots(self, change: Diff[DdosmitigatorConfig]) -> Iterator[int]:
        """Slots that no rate limit had before, those first that were not in use for the longest time: old buckets are gone then."""
        before = [
            (LISTS[name], ip) for name in ("ratelimit_src", "ratelimit_dst") for ip in (getattr(change.old, name) if change.old else ())
        ]
        used = {entry.limit for side, ip in before if (entry := self._tables.get(side, ip))}
        first = max(used, default=-1) + 1
        return (slot % SLOTS for slot in range(first, first + SLOTS) if slot % SLOTS not in used)

    def _entry(self, side: Side, element: Node, free: Iterator[int]) -> Entry:
        ip = element.ip  # type: ignore[attr-defined]
        standing = self._tables.get(side, ip)
        dropped = standing.dropped if standing else 0
        if isinstance(element, Blacklisted):
            return Entry(dropped, now() + element.timeout if element.timeout else 0)
        if not isinstance(element, RateLimit):
            return Entry(dropped, kind=Kind.TRUST)
        slot = next(free)
        self._limits[slot] = {
            "packets": rate(element.packets, element.packets_burst),
            "bytes": rate(element.bytes, element.bytes_burst),
        }
        return Entry(dropped, limit=slot, kind=Kind.LIMIT_EACH if element.scope is Scope.EACH else Kind.LIMIT_SHARED)
