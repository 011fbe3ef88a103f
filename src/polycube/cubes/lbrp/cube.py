# SPDX-License-Identifier: Apache-2.0
"""The control plane of lbrp: services to tables, health checks, and the end of sessions.

A service that changes gets another Maglev table, whole, and its entry is switched to it; what takes new flows stands in `targets` as well,
with what health checks say and how often it was chosen. `apply` records that; what checks find out is written at once, by the same
functions (`Tables` keeps the two apart). Sessions are the data plane's: they keep their backend whatever happens to services, until it is
found to be down; then they are forgotten, so that clients are reset by another backend instead of waiting for a dead one.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from polycube.core.cube import Cube, Packet, action, every
from polycube.core.slowpath import NotSent
from polycube.cubes.lbrp import services
from polycube.cubes.lbrp.model import Backend, LbrpConfig, PortMode, PortType, Removed, Service
from polycube.cubes.lbrp.services import BackendKey, Entry, ServiceKey
from polycube.model import Diff, ModelError
from polycube.net.addr import Address
from polycube.toolkit.address import mapped, unmapped
from polycube.toolkit.checker import Checker
from polycube.toolkit.conntrack import GRACE, Session, SessionTable, failures, monotonic, protocol_name, tuple_key, unpacked
from polycube.toolkit.health import CheckType, Health, Record, Target
from polycube.toolkit.maglev import Tables, number_for, number_of
from polycube.toolkit.vantage import set_limit

VANTAGE = 1  # enum lbrp_reason
NO_PORT = 0xFFFF
SHOWN = 1000  # sessions in an answer


class Lbrp(Cube[LbrpConfig]):
    """LoadBalancer Reverse-Proxy Service"""

    config = LbrpConfig

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._checker: Checker[BackendKey] = Checker(self._turned, self._probe, self.log)
        self._sessions: SessionTable | None = None
        self._forgetting: set[asyncio.Task[int]] = set()

    @classmethod
    def sizes(cls, config: LbrpConfig) -> dict[str, int]:
        return {"sessions": config.session_table_size, "returns": config.session_table_size}

    # ---- configuration ----

    def apply(self, change: Diff[LbrpConfig]) -> None:
        new = change.new
        if new is None:
            return
        found = services.problems(new)
        if found:
            raise ModelError(*found)
        if change.old is None:
            set_limit(self.maps)
        placed = new.probe.placed(self.uuid)
        self.cfg["vantage"] = placed.cfg() if placed is not None else {}
        self.cfg["rewrite"] = services.rewrite(new.src_ip_rewrite)
        self.cfg["ct_timeouts"] = new.session.timeout.cfg()
        self._write_ports(new)
        before, after = services.assigned(change.old) if change.old is not None else {}, services.assigned(new)
        self._write_vips({entry.vip for entry in before}, {entry.vip for entry in after})
        for entry, service in after.items():
            if before.get(entry) != service:
                self._place(entry, service, before.get(entry), recorded=True)
        for entry in before.keys() - after.keys():
            self._erase(entry, before[entry])

    def facts(self, changed: Sequence[str]) -> None:
        if self.current is not None:
            self._write_ports(self.current)

    def _write_ports(self, config: LbrpConfig) -> None:
        numbers = {name: facts.number for name, facts in self.ports.items()}
        by_type = {port.type: numbers[name] for name, port in config.ports.items() if name in numbers}
        self.cfg["settings"] = {
            "backend": by_type.get(PortType.BACKEND, NO_PORT),
            "frontend": by_type.get(PortType.FRONTEND, NO_PORT),
            "multi": int(config.port_mode is PortMode.MULTI),
        }
        view, wanted = self.maps["frontends"], services.frontends(config, numbers)
        there = {key["bytes"]: number for key, number in view.items()}
        for ip, number in wanted.items():
            if there.pop(mapped(ip), None) != number:
                view[{"bytes": mapped(ip)}] = number
        for gone in there:
            del view[{"bytes": gone}]

    def _write_vips(self, before: set[Address], after: set[Address]) -> None:
        for vip in after - before:
            self.maps["vips"][{"bytes": mapped(vip)}] = 1
        for vip in before - after:
            del self.maps["vips"][{"bytes": mapped(vip)}]

    # ---- services ----

    def _place(self, entry: Entry, service: Service, before: Service | None, *, recorded: bool) -> None:
        """Writes targets, then a table of them, then the service's entry; what is no longer used goes last."""
        assert self.current is not None
        view = self.maps["services"]
        present = view.get(entry.as_map())
        number = present["number"] if present is not None else number_for(str(entry), self._numbers())
        down = self._down(service)
        for one in service.backend.values():
            self._write_target(number, entry, one, down)
        tables = Tables(self.maps, self.current.table_size)
        members = services.members(entry, service, down)
        maglev = tables.place(number, present["maglev"] if present is not None else None, members, recorded=recorded)
        value = {"maglev": maglev, "number": number, "affinity": service.affinity}
        if value != present:
            view[entry.as_map()] = value
        for one in before.backend.values() if before is not None else ():
            kept = service.backend.get(one.ip)
            if kept is None or kept.port != one.port:
                del self.maps["targets"][_target_key(number, entry, one)]

    def _write_target(self, number: int, entry: Entry, one: Backend, down: frozenset[Address]) -> None:
        view, key = self.maps["targets"], _target_key(number, entry, one)
        known = view.get(key)
        flows = known["flows"] if known is not None else 0
        value = {"flows": flows, "takes": int(services.takes(one, down)), "down": int(one.ip in down)}
        if value != known:
            view[key] = value

    def _erase(self, entry: Entry, service: Service) -> None:
        assert self.current is not None
        present = self.maps["services"].get(entry.as_map())
        if present is None:
            return
        del self.maps["services"][entry.as_map()]
        for one in service.backend.values():
            del self.maps["targets"][_target_key(present["number"], entry, one)]
        Tables(self.maps, self.current.table_size).erase(present["number"])

    def _numbers(self) -> set[int]:
        return {number_of(value["maglev"]) for _, value in self.maps["services"].items()}

    # ---- health ----

    def _down(self, service: Service) -> frozenset[Address]:
        """Backends that are down, by the checks of this control plane or, before they have said anything, by what stands in the map."""
        if service.health_check.type is CheckType.NONE:
            return frozenset()
        health = {ip: self._checker.monitor.health(BackendKey(services.key_of(service), ip)) for ip in service.backend}
        unknown = [ip for ip, known in health.items() if known is Health.UNCHECKED]
        return frozenset([ip for ip, known in health.items() if known is Health.DOWN] + self._marked(service, unknown))

    def _marked(self, service: Service, ips: Iterable[Address]) -> list[Address]:
        return [ip for ip in ips if any(found["down"] for found in self._targets(service, service.backend[ip]))]

    def _targets(self, service: Service, one: Backend) -> Iterable[Mapping[str, Any]]:
        """What the data plane holds of a backend: once, or for each protocol."""
        for entry in services.entries(service):
            present = self.maps["services"].get(entry.as_map())
            found = self.maps["targets"].get(_target_key(present["number"], entry, one)) if present is not None else None
            if found is not None:
                yield found

    async def start(self) -> None:
        """What was found in the maps may be older than the configuration, if the daemon died between the two."""
        if self.current is not None:
            for entry, service in services.assigned(self.current).items():
                self._place(entry, service, None, recorded=False)

    @every(1.0)
    async def check(self) -> None:
        """Follows the configuration, and mends what a change that came to nothing may have left."""
        assert self.current is not None
        targets: dict[BackendKey, Target] = {}
        known: dict[BackendKey, bool] = {}
        for entry, service in services.assigned(self.current).items():
            if service.health_check.type is CheckType.NONE:
                continue
            asked = dict(services.targets(service))
            targets |= asked
            known |= {BackendKey(services.key_of(service), ip): False for ip in self._marked(service, (key.ip for key in asked))}
            self._place(entry, service, None, recorded=False)
        await self._checker.follow(self.current.probe.placed(self.uuid), targets, known)

    def _turned(self, key: BackendKey, record: Record) -> None:
        service = self.current.service.get(key.service) if self.current is not None else None
        one = service.backend.get(key.ip) if service is not None else None
        if service is None or one is None or self.current is None:
            return
        down = record.health is Health.DOWN
        self.log.info(f"backend {key.ip} of {key.service} is {record.health}" + (f": {record.reason}" if down else ""))
        for entry, owner in services.assigned(self.current).items():
            if owner is service:
                self._place(entry, service, None, recorded=False)
        if down:
            task = asyncio.create_task(self.sessions.flush(lambda session: self._is_of(session, service, one)))
            self._forgetting.add(task)
            task.add_done_callback(self._forgetting.discard)

    def _is_of(self, session: Session, service: Service, one: Backend) -> bool:
        if session.destination != service.vip:
            return False
        backend = unpacked(self.maps["sessions"], session)["backend"]
        return any(backend == services.backend_value(entry, one) | {"pad": 0} for entry in services.entries(service))

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

    def close(self) -> None:
        self._checker.close()
        for task in self._forgetting:
            task.cancel()

    # ---- sessions ----

    @property
    def sessions(self) -> SessionTable:
        if self._sessions is None:
            self._sessions = SessionTable(self.maps["sessions"], self.maps["returns"], self._twin_of)
        return self._sessions

    def _twin_of(self, session: Session) -> bytes | None:
        """The key that leads to a session from the backend's side."""
        value = unpacked(self.maps["sessions"], session)
        source = unmapped(value["source"]["bytes"]) if value["other_source"] else session.source
        backend = unmapped(value["backend"]["address"]["bytes"])
        port = socket.ntohs(value["backend"]["port"]) or session.dport
        return tuple_key(source, socket.ntohs(value["sport"]), backend, port, session.protocol)

    @every(5.0)
    async def sweep(self) -> None:
        """Removes what has expired: sessions, and clients whose backend is remembered."""
        await self.sessions.sweep()
        view = self.maps["affinities"]
        field = next(one for one in view.shape.value.fields if one.name == "expires")
        limit = monotonic() - GRACE
        gone = [key for key, value in view.packed_items() if int.from_bytes(value[field.offset : field.offset + 4], "little") < limit]
        view.delete_many(gone)

    @action("session/flush")
    async def flush(self) -> Removed:
        return Removed(removed=await self.sessions.flush())

    # ---- state ----

    def state(self) -> Mapping[str, Any]:
        if self.current is None:
            return {}
        shown = []
        for service in self.current.service.values():
            backends = [self._backend_state(service, one) for one in service.backend.values()]
            shown.append({"vip": str(service.vip), "vport": service.vport, "proto": str(service.proto), "backend": backends})
        return {"service": shown, "session": self._session_state()}

    def _backend_state(self, service: Service, one: Backend) -> dict[str, Any]:
        health = self._checker.monitor.health(BackendKey(services.key_of(service), one.ip))
        flows = sum(found["flows"] for found in self._targets(service, one))
        return {"ip": str(one.ip), "health": str(health), "flows": flows}

    def _session_state(self) -> dict[str, Any]:
        entries = []
        for session in islice(self.sessions, SHOWN):
            backend = unpacked(self.maps["sessions"], session)["backend"]
            entries.append(
                {
                    "client": str(session.source),
                    "cport": session.sport,
                    "vip": str(session.destination),
                    "vport": session.dport,
                    "proto": protocol_name(session.protocol),
                    "backend": str(unmapped(backend["address"]["bytes"])),
                    "port": socket.ntohs(backend["port"]) or session.dport,
                    "state": session.state.word,
                    "eta": session.eta,
                }
            )
        failed = sum(self.maps["affinity_failures"].percpu(0))
        return {"live": self.sessions.live, "failures": failures(self.maps["ct_failures"]), "affinity-failures": failed, "entry": entries}


def _target_key(number: int, entry: Entry, one: Backend) -> dict[str, Any]:
    return {"service": number, "backend": services.backend_value(entry, one)}


__all__ = ["Lbrp", "ServiceKey"]
