# SPDX-License-Identifier: Apache-2.0
"""The bridge's control plane: configuration to maps, spanning trees, listeners, and the stations in answers.

Mechanism: `apply` writes what ports are in VLANs (vlans.py), configured stations and constants; flood domains follow from the same. What
changes by itself is written by spanning.py and snooping.py, into maps that `apply` does not touch but when a port goes. A heartbeat tells
the data plane that they are at work: it blocks and floods by itself when it falls silent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from polycube.core.cube import Cube, Packet, every
from polycube.core.cube import action as carries_out
from polycube.cubes.bridge import bpdu
from polycube.cubes.bridge.model import BridgeConfig, EntryType, FdbEntry, Flushed
from polycube.cubes.bridge.snooping import Snooping
from polycube.cubes.bridge.spanning import Spanning, forget_port, has_link
from polycube.cubes.bridge.vlans import Membership, domains, memberships
from polycube.model import Diff, ModelError, Problem, Tag, suggest
from polycube.net.addr import Mac
from polycube.toolkit.fdb import Fdb, now

BPDU, SNOOPED = 0, 1  # enum bridge_reason
SOON = 0.02  # seconds
SNOOPING_SILENCE = 10  # seconds after which multicast is flooded


class Bridge(Cube[BridgeConfig]):
    """A VLAN bridge with spanning tree"""

    config = BridgeConfig
    learned = ("fdb", "bridge_groups")

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._spanning: Spanning | None = None
        self._snooping: Snooping | None = None

    @property
    def fdb(self) -> Fdb:
        """The stations."""
        return Fdb(self.maps["fdb"])

    @property
    def address(self) -> Mac:
        """The bridge's own, if none is configured one that stays with it."""
        configured = self.current.mac if self.current else None
        return Mac.parse(configured) if configured else Mac.from_bytes(b"\x02" + bytes.fromhex(self.uuid.replace("-", ""))[-5:])

    # ---- configuration ----

    def apply(self, change: Diff[BridgeConfig]) -> None:
        config = change.new
        if config is None:
            return
        for name, value in (("aging_time", "fdb.aging_time"), ("stp", "stp_enabled"), ("snooping", "snooping.enabled")):
            for _, new in change.changed(value):
                self.cfg[name] = int(new)
        if change.old is None or change.old.ports is not config.ports:
            self._apply_ports(change.old, config)
        self._apply_stations(change, config)

    def _apply_ports(self, old: BridgeConfig | None, config: BridgeConfig) -> None:
        before = {self.former_ports[name].number: one for name, one in memberships(old).items()} if old else {}
        members = memberships(config)
        after = {self.ports[name].number: one for name, one in members.items()}
        gone = {self.former_ports[name].number for name in old.ports if name not in config.ports} if old else set()
        for number in gone:
            self._forget(number, None)
            self.maps["bridge_trees"][number] = {}
            forget_port(self.maps, number)
        for number in before.keys() - after.keys():
            del self.maps["bridge_ports"][number]
        for number, one in after.items():
            if before.get(number) != one:
                self.maps["bridge_ports"][number] = one.record()
                if number in before:
                    self._forget(number, one)
        numbers = {name: facts.number for name, facts in self.ports.items()}
        standing = domains(memberships(old), {name: facts.number for name, facts in self.former_ports.items()}) if old else {}
        wanted = domains(members, numbers)
        for vlan in standing.keys() ^ wanted.keys():
            self.maps["bridge_domains"][vlan] = vlan if vlan in wanted else 0

    def _forget(self, number: int, left: Membership | None) -> None:
        """Stations of a port, but for those in VLANs that it is left in."""
        self.fdb.forget_all(lambda station: station.port == number and (left is None or station.vlan not in left.vlans))

    def _apply_stations(self, change: Diff[BridgeConfig], config: BridgeConfig) -> None:
        problems = [found for entry in config.fdb.entry.values() if (found := self._problem(entry))]
        if problems:
            raise ModelError(*problems)
        for entry in change.removed("fdb.entry"):
            self.fdb.remove(entry.mac, entry.vlan)
        for entry in [*change.added("fdb.entry"), *(new for _, new in change.changed("fdb.entry"))]:
            self.fdb.fix(entry.mac, self.ports[entry.port].number, entry.vlan)

    def _problem(self, entry: FdbEntry) -> Problem | None:
        path = ("fdb", "entry", str(entry.vlan), entry.mac)
        if entry.port not in self.ports:
            return Problem(Tag.INVALID_VALUE, (*path, "port"), f"can't be {entry.port}: no such port{suggest(entry.port, self.ports)}")
        if Mac.parse(entry.mac).is_multicast:
            return Problem(Tag.INVALID_VALUE, path, "can't be a station: it has a group address")
        return None

    def domains(self) -> Mapping[int, Sequence[int]]:
        assert self.current
        return domains(memberships(self.current), {name: facts.number for name, facts in self.ports.items()})

    def facts(self, changed: Sequence[str]) -> None:
        for name in changed:
            if not has_link(self.ports[name]):
                self._forget(self.ports[name].number, None)
                forget_port(self.maps, self.ports[name].number)
        if self._spanning:
            asyncio.get_running_loop().call_later(SOON, self.tick)  # once the change stands: a tree need not wait for the next tick

    # ---- life ----

    @property
    def spanning(self) -> Spanning | None:
        """The trees, if the bridge takes part in any."""
        assert self.current
        if not self.current.stp_enabled:
            self._spanning = None
        elif self._spanning is None:
            self._spanning = Spanning(self)
        return self._spanning

    @property
    def snooping(self) -> Snooping | None:
        """The listeners, if they are looked for."""
        assert self.current
        if not self.current.snooping.enabled:
            self._snooping = None
        elif self._snooping is None:
            self._snooping = Snooping(self)
        return self._snooping

    async def start(self) -> None:
        self.tick()

    async def packet(self, packet: Packet) -> None:
        if packet.port is None:
            return
        vlan = packet.metadata[0]
        if packet.reason == BPDU and self.spanning:
            message = bpdu.parse(packet.data)
            if message is not None:
                self.spanning.receive(packet.port.number, vlan, message)
        elif packet.reason == SNOOPED and self.snooping:
            self.snooping.receive(packet.port.number, vlan, packet.data)

    @every(0.5)
    def tick(self) -> None:
        if self.spanning:
            self.spanning.tick()
        else:
            self.beat(SNOOPING_SILENCE)

    def beat(self, limit: int) -> None:
        """Tells the data plane that somebody is at work."""
        self.maps["bridge_heartbeats"][0] = {"beat": now(), "limit": limit}

    @every(10)
    async def remove_aged(self) -> None:
        assert self.current
        oldest = now() - self.current.fdb.aging_time
        await self.fdb.sweep(lambda station: station.seen < oldest)
        if self.snooping:
            self.snooping.remove_expired()

    # ---- answers ----

    def state(self) -> dict[str, Any]:
        assert self.current
        names = {port.number: port.name for port in self.ports.values()}
        limit, entries, count = self.current.fdb.aging_time, [], len(self.current.fdb.entry)
        for station in self.fdb.learned():
            count += 1
            age = max(now() - station.seen, 0)
            if age <= limit and station.port in names:
                known = {"vlan": station.vlan, "mac": str(station.address), "type": EntryType.DYNAMIC}
                entries.append(known | {"port": names[station.port], "age": age})
        fixed = [{"vlan": one.vlan, "mac": one.mac, "type": EntryType.STATIC} for one in self.current.fdb.entry.values()]
        fdb = {"entries": count, "learn-failures": sum(self.maps["learn_failures"].percpu(0)), "entry": fixed + entries}
        state: dict[str, Any] = {"fdb": fdb, "mac": str(self.address)}
        if self.spanning:
            state["stp"] = self.spanning.bridges()
            state["ports"] = [{"name": name, "stp": trees} for name, trees in self.spanning.ports().items()]
        if self.snooping:
            state["snooping"] = self.snooping.state()
        return state

    def forget(self, path: str, key: str | tuple[Any, ...] | None) -> bool:
        if path != "fdb/entry" or isinstance(key, str):
            return False
        if key is None:
            self.fdb.forget_all()
            return True
        vlan, mac = key
        return self.fdb.forget(mac, int(vlan))

    @carries_out("fdb/flush")
    def flush(self) -> Flushed:
        self.fdb.forget_all()
        return Flushed(flushed=True)
