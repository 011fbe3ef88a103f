# SPDX-License-Identifier: Apache-2.0
"""A DDoS mitigator. All decisions are the data plane's, also who is a heavy hitter and what has expired; the control plane writes lists,
removes what is of no use any more so that room comes free, and tells.
"""

from __future__ import annotations

import asyncio
import ipaddress
import uuid
from collections.abc import Mapping
from typing import Any

from polycube.core.cube import Cube, action, every
from polycube.cubes.ddosmitigator.bulk import Bulk
from polycube.cubes.ddosmitigator.hitters import Hitters
from polycube.cubes.ddosmitigator.model import (
    DdosmitigatorConfig,
    Detection,
    Find,
    Found,
    Load,
    Loaded,
    Side,
    Unblock,
    Unblocked,
    Unit,
    Unload,
    Unloaded,
    block,
)
from polycube.cubes.ddosmitigator.rules import LISTS, Rules, check
from polycube.cubes.ddosmitigator.tables import BUCKETS, Entry, Kind, Tables, now, summed, table_sizes
from polycube.model import Diff, Edit, Op, PolycubeError
from polycube.toolkit.address import mapped
from polycube.toolkit.tokenbucket import is_full

REMOVED_AT_ONCE = 500  # entries of the configuration, in one change
DROPPED = ("dropped_src", "dropped_dst", "dropped_rate", "dropped_heavy")


class Ddosmitigator(Cube[DdosmitigatorConfig]):
    """DDoS Mitigator Service"""

    config = DdosmitigatorConfig
    learned = ("buckets", "hitters")

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._made: tuple[Tables, Bulk] | None = None
        self._hitters = Hitters(self.maps["hitters"])
        self._dropped: int | None = None
        self._pps = 0

    @classmethod
    def sizes(cls, config: DdosmitigatorConfig) -> dict[str, int]:
        return table_sizes(config)

    @property
    def _tables(self) -> Tables:
        return self._parts[0]

    @property
    def _bulk(self) -> Bulk:
        return self._parts[1]

    @property
    def _parts(self) -> tuple[Tables, Bulk]:
        """Made at first use: they need the configuration, whose size never changes."""
        if self._made is None:
            assert self.current
            tables = Tables(self.maps, self.current.blacklist_size)
            self._made = tables, Bulk(self.name, tables, self.decided)
        return self._made

    # ---- configuration ----

    def apply(self, change: Diff[DdosmitigatorConfig]) -> None:
        check(self.name, change.node)
        if change.old is None:
            self.cfg["seed"] = uuid.UUID(self.uuid).int >> 96  # not to be guessed from outside, and the same after a restart
        if change.changed("detection"):
            self._configure(change.node.detection)
        if Rules(self._tables, self.maps["limits"]).write(change):
            self._bulk.touched(removed=any(change.removed(name) for name in LISTS))

    def _configure(self, detection: Detection) -> None:
        self.cfg["threshold"] = detection.threshold
        self.cfg["count_bytes"] = int(detection.unit is Unit.BYTES)
        self.cfg["block_time"] = detection.block_time
        self.cfg["mask4"] = mapped(ipaddress.IPv4Network((0, detection.prefix_length_ipv4)).netmask)
        self.cfg["mask6"] = ipaddress.IPv6Network((0, detection.prefix_length_ipv6)).netmask.packed

    # ---- by and by ----

    async def start(self) -> None:
        self._hitters.read(now())
        await self._bulk.recount()

    @every(1)
    async def tick(self) -> None:
        """Rates, expiry, and who was blocked."""
        total = sum(summed(self.maps["stats"].percpu(0)).get(name, 0) for name in DROPPED)
        self._pps, self._dropped = total - (total if self._dropped is None else self._dropped), total
        self._tell()
        await self._remove_expired()
        removed = await self._bulk.expire()
        if removed:
            self.log.info("loaded prefixes expired", prefixes=removed)

    def _tell(self) -> None:
        assert self.current
        unit = str(self.current.detection.unit).lower()
        new = self._hitters.read(now())
        for source, rate in new[:10]:
            self.log.warning("source blocked", source=str(source), rate=rate, unit=unit, seconds=self.current.detection.block_time)
            self.alarm("source-blocked", source=str(source), rate=rate, unit=unit)
        if len(new) > 10:
            self.log.warning("more sources blocked", sources=len(new) - 10)

    async def _remove_expired(self) -> None:
        """Entries of the configuration, by changing it."""
        assert self.current
        gone, moment = [], now()
        for name in ("blacklist_src", "blacklist_dst"):
            for ip, element in getattr(self.current, name).items():
                entry = self._tables.get(LISTS[name], ip) if element.timeout else None
                if entry and not entry.counts(moment):
                    gone.append(Edit(Op.DELETE, (name.replace("_", "-"), str(ip))))
        if gone:
            try:
                await self.edit(gone[:REMOVED_AT_ONCE])
            except PolycubeError as error:  # somebody else was faster, or the daemon is busy: there is a next second
                self.log.debug("expired entries stay for now", reason=str(error))

    @every(5)
    async def remove_full_buckets(self) -> None:
        """A full bucket says no more than none."""
        for batch in self.maps["buckets"].batches():
            moment = now() * 10**9
            full = [key for key, value in batch if all(is_full(word, moment) for word in BUCKETS.unpack(value))]
            self.maps["buckets"].delete_many(full)
            await asyncio.sleep(0)

    @every(30)
    async def renew_filters(self) -> None:
        await self._bulk.refilter()

    # ---- actions ----

    @action("feed/load")
    async def load(self, order: Load) -> Loaded:
        result = await self._bulk.load(order)
        self.log.info("list loaded", list=str(order.list), **result.model_dump())
        return result

    @action("feed/unload")
    async def unload(self, order: Unload) -> Unloaded:
        return Unloaded(removed=await self._bulk.unload(order))

    @action("feed/find")
    def find(self, order: Find) -> Found:
        moment = now()
        table = self._tables[order.list, order.ip.version]
        found = table.longest(order.ip, lambda value: not value["expires"] or value["expires"] > moment)
        if found is None:
            return Found()
        network, value = found
        entry = Entry(**value)
        verdict = {Kind.BLOCK: "BLOCK", Kind.TRUST: "TRUST"}.get(Kind(entry.kind), "LIMIT")
        return Found(
            ip=str(block(str(network))),
            verdict=verdict,
            loaded=bool(entry.load),
            drop_pkts=entry.dropped,
            expires_in=entry.expires - moment if entry.expires else None,
        )

    @action("detection/unblock")
    def unblock(self, order: Unblock) -> Unblocked:
        assert self.current
        return Unblocked(unblocked=self._hitters.forget(order.ip, self.current.detection))

    # ---- state ----

    def state(self) -> Mapping[str, Any]:
        assert self.current
        moment, stats = now(), summed(self.maps["stats"].percpu(0))
        shown: dict[str, Any] = {name.replace("_", "-"): self._list(name, moment) for name in LISTS if name != "trusted"}
        loaded = self._bulk.loaded
        if self._bulk.counted:  # of a million it takes some seconds after a restart
            shown["feed"] = {
                "sources": sum(loaded[Side.SRC, version] for version in (4, 6)),
                "destinations": sum(loaded[Side.DST, version] for version in (4, 6)),
            }
        shown["detection"] = self._hitters.state(moment, self.current.detection)
        if stats:
            shown["stats"] = {
                "pps": self._pps,
                "pkts": sum(stats[name] for name in DROPPED),
                "bytes": stats["dropped_bytes"],
                "src-pkts": stats["dropped_src"],
                "dst-pkts": stats["dropped_dst"],
                "rate-pkts": stats["dropped_rate"],
                "heavy-pkts": stats["dropped_heavy"],
                "shared-pkts": stats["unlisted"],
                "unblocked-pkts": stats["unblocked"],
            }
        return shown

    def _list(self, name: str, moment: int) -> list[dict[str, Any]]:
        shown = []
        for ip in getattr(self.current, name):
            entry = self._tables.get(LISTS[name], ip)
            if entry:
                left = {"expires-in": max(entry.expires - moment, 0)} if entry.expires else {}
                shown.append({"ip": str(ip), "drop-pkts": entry.dropped, **left})
        return shown
