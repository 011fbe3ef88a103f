# SPDX-License-Identifier: Apache-2.0
"""The control plane of lbdsr: services to tables, and health checks.

A service that changes gets another Maglev table, whole, and its entry is switched to it; servers stand in a map of their own, with what
health checks say and how often they were chosen. `apply` records that; what checks find out is written at once, by the same functions
(`Tables` keeps the two apart).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from polycube.core.cube import Cube, Packet, PortFacts, every
from polycube.core.slowpath import NotSent
from polycube.cubes.lbdsr.model import LbdsrConfig, PortType
from polycube.cubes.lbdsr.services import BackendKey, Balanced, ServiceKey, problems, services_of
from polycube.model import Diff, ModelError
from polycube.net.addr import Address, Mac
from polycube.toolkit import frame, icmp
from polycube.toolkit.address import mapped
from polycube.toolkit.checker import Checker
from polycube.toolkit.health import CheckType, Health, Record, Target
from polycube.toolkit.maglev import Tables, number_for, number_of
from polycube.toolkit.vantage import set_limit

VANTAGE, TOO_BIG = 1, 2  # enum lbdsr_reason
NO_PORT = 0xFFFF


class Lbdsr(Cube[LbdsrConfig]):
    """LoadBalancer Direct Server Return Service"""

    config = LbdsrConfig

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._checker: Checker[BackendKey] = Checker(self._turned, self._probe, self.log)
        self._answered = 0

    @classmethod
    def sizes(cls, config: LbdsrConfig) -> dict[str, int]:
        return {"flows": max(1, config.flow_table_size)}

    # ---- configuration ----

    def apply(self, change: Diff[LbdsrConfig]) -> None:
        new = change.new
        if new is None:
            return
        found = problems(new)
        if found:
            raise ModelError(*found)
        if change.old is None:
            set_limit(self.maps)
        placed = new.probe.placed(self.uuid)
        self.cfg["vantage"] = placed.cfg() if placed is not None else {}
        self.cfg["settings"] = self._settings(new)
        before, after = services_of(change.old) if change.old is not None else {}, services_of(new)
        self._write_vips({key.vip for key in before}, {key.vip for key in after})
        for key, service in after.items():
            if before.get(key) != service:
                self._place(service, before.get(key), recorded=True)
        for key in before.keys() - after.keys():
            self._erase(before[key])

    def facts(self, changed: Sequence[str]) -> None:
        if self.current is not None:
            self.cfg["settings"] = self._settings(self.current)

    def _settings(self, config: LbdsrConfig) -> dict[str, Any]:
        ports = {port.type: self.ports[name] for name, port in config.ports.items() if name in self.ports}
        front, back = ports.get(PortType.FRONTEND), ports.get(PortType.BACKEND)
        return {
            "frontend": front.number if front else NO_PORT,
            "backend": back.number if back else NO_PORT,
            "mtu": back.netdev.mtu if back and back.netdev else 0,
            "flow_table": int(config.flow_table_size > 0),
            "mac": bytes(self._mac(config)),
            "own_mac": bytes(self._netdev_mac(PortType.BACKEND, config)),
            "gateway": bytes(Mac.parse(config.outer.gateway)) if config.outer.gateway else bytes(6),
            "source4": config.outer.source.packed,
            "source6": config.outer.source6.packed,
            "gue_port": int.from_bytes(config.outer.gue_port.to_bytes(2, "big"), "little"),
        }

    def _mac(self, config: LbdsrConfig) -> Mac:
        """That of the VIPs."""
        return Mac.parse(config.frontend.mac) if config.frontend.mac is not None else self._netdev_mac(PortType.FRONTEND, config)

    def _netdev_mac(self, type: PortType, config: LbdsrConfig) -> Mac:
        """That of the netdev a port leads to, else one of its own."""
        for name, port in config.ports.items():
            netdev = self.ports[name].netdev if name in self.ports else None
            if port.type is type and netdev is not None:
                return Mac.parse(netdev.mac)
        return Mac.derived(self.uuid, str(type))

    def _write_vips(self, before: set[Address], after: set[Address]) -> None:
        for vip in after - before:
            self.maps["vips"][{"bytes": mapped(vip)}] = 1
        for vip in before - after:
            del self.maps["vips"][{"bytes": mapped(vip)}]

    # ---- services ----

    def _place(self, service: Balanced, before: Balanced | None, *, recorded: bool) -> None:
        """Writes servers, then a table of them, then the service's entry; what is no longer used goes last."""
        assert self.current is not None
        services = self.maps["services"]
        present = services.get(service.key.as_map())
        number = present["number"] if present is not None else number_for(str(service.key), self._numbers())
        backends, down = self.maps["backends"], self._down(service)
        for one in service.servers.values():
            key, value = {"service": number, "id": one.id}, service.backend(one)
            known = backends.get(key)
            value |= {"down": int(one.id in down), "flows": known["flows"] if known is not None else 0}
            if value != known:
                backends[key] = value
        tables = Tables(self.maps, self.current.table_size)
        maglev = tables.place(number, present["maglev"] if present is not None else None, service.members(down), recorded=recorded)
        entry = {"maglev": maglev, "number": number}
        if entry != present:
            services[service.key.as_map()] = entry
        for id in before.servers.keys() - service.servers.keys() if before is not None else ():
            del backends[{"service": number, "id": id}]

    def _erase(self, service: Balanced) -> None:
        assert self.current is not None
        present = self.maps["services"].get(service.key.as_map())
        if present is None:
            return
        del self.maps["services"][service.key.as_map()]
        for id in service.servers:
            del self.maps["backends"][{"service": present["number"], "id": id}]
        Tables(self.maps, self.current.table_size).erase(present["number"])

    def _numbers(self) -> set[int]:
        return {number_of(value["maglev"]) for _, value in self.maps["services"].items()}

    # ---- health ----

    def _down(self, service: Balanced) -> frozenset[int]:
        """Servers that are down, by the checks of this control plane or, before they have said anything, by what stands in the map."""
        if service.check.type is CheckType.NONE:
            return frozenset()
        health = {id: self._checker.monitor.health(BackendKey(service.key, id)) for id in service.servers}
        unknown = [id for id, known in health.items() if known is Health.UNCHECKED]
        return frozenset([id for id, known in health.items() if known is Health.DOWN] + self._marked(service, unknown))

    def _marked(self, service: Balanced, ids: Iterable[int]) -> list[int]:
        present = self.maps["services"].get(service.key.as_map())
        if present is None:
            return []
        backends = self.maps["backends"]
        return [id for id in ids if (backends.get({"service": present["number"], "id": id}) or {}).get("down")]

    async def start(self) -> None:
        """What was found in the maps may be older than the configuration, if the daemon died between the two."""
        if self.current is not None:
            for service in services_of(self.current).values():
                self._place(service, None, recorded=False)

    @every(1.0)
    async def check(self) -> None:
        """Follows the configuration, and mends what a change that came to nothing may have left."""
        assert self.current is not None
        targets: dict[BackendKey, Target] = {}
        known: dict[BackendKey, bool] = {}
        for service in services_of(self.current).values():
            if service.check.type is CheckType.NONE:
                continue
            asked = dict(service.targets())
            targets |= asked
            known |= {BackendKey(service.key, id): False for id in self._marked(service, (key.id for key in asked))}
            self._place(service, None, recorded=False)
        await self._checker.follow(self.current.probe.placed(self.uuid), targets, known)

    def _turned(self, key: BackendKey, record: Record) -> None:
        service = services_of(self.current).get(key.service) if self.current is not None else None
        if service is None or key.id not in service.servers:
            return
        why = f": {record.reason}" if record.health is Health.DOWN else ""
        self.log.info(f"server {key.id} of {key.service} is {record.health}{why}")
        self._place(service, None, recorded=False)

    def _probe(self, frame: bytes) -> None:
        """Out of the backend port."""
        for name, port in self.current.ports.items() if self.current is not None else ():
            if port.type is PortType.BACKEND and name in self.ports:
                try:
                    self.send(self.ports[name], frame)
                except NotSent as error:
                    self.log.debug(str(error))

    async def packet(self, packet: Packet) -> None:
        if packet.reason == VANTAGE:
            self._checker.receive(packet.data)
        elif packet.reason == TOO_BIG and packet.port is not None and self.current is not None:
            self._too_big(packet.data, packet.port, packet.metadata[0], self.current)

    def _too_big(self, data: bytes, port: PortFacts, mtu: int, config: LbdsrConfig) -> None:
        """Tells the client, on behalf of the VIP; also one that left it to routers to fragment, since none will."""
        packet = frame.read_ip(data)
        if packet is None or not icmp.may_answer(packet):
            return
        error = icmp.error(icmp.Error.TOO_BIG, packet, packet.target, mtu)
        with suppress(NotSent):
            self.send(port, frame.ip_frame(frame.source_mac(data), self._mac(config), error))
            self._answered += 1

    def close(self) -> None:
        self._checker.close()

    # ---- state ----

    def state(self) -> Mapping[str, Any]:
        if self.current is None:
            return {}
        shown: dict[str, Any] = {"frontend": {"mac": str(self._mac(self.current))}, "service": [], "answered": self._answered}
        for key, service in services_of(self.current).items():
            servers = self._servers(key, service)
            if service.path[0] == "backend":
                shown["backend"] = {"pool": servers}
            else:
                shown["service"].append({"vip": str(key.vip), "vport": key.vport, "proto": str(key.proto), "backend": servers})
        return shown

    def _servers(self, key: ServiceKey, service: Balanced) -> list[dict[str, Any]]:
        present = self.maps["services"].get(key.as_map())
        shown = []
        for id in service.servers:
            found = self.maps["backends"].get({"service": present["number"], "id": id}) if present is not None else None
            health = self._checker.monitor.health(BackendKey(key, id))
            shown.append({"id": id, "health": str(health), "flows": found["flows"] if found is not None else 0})
        return shown
